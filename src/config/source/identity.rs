//! The certificates and keys of listeners that terminate TLS: read, checked, and put into the configuration, so that
//! what was checked is what is used.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::certificate::Identity;
use super::super::raw::{listener_path, service_path};
use super::super::validate::form::time_text;
use super::super::{Config, ListenerTls, Terminate};
use super::{MAX_CONFIG, Problem, read as read_text};
use crate::types::WallTime;

/// Reads what every listener names. One that is expired is only said: who does not verify it goes on working.
pub(super) fn read(
    config: &mut Config,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let now = WallTime(jiff::Timestamp::now().as_microsecond());
    for service in &mut config.services {
        let path = service_path(service.name.as_str());
        for (index, listener) in service.listeners.iter_mut().enumerate() {
            let ListenerTls::Terminate(tls) = &mut listener.tls else { continue };
            match load(tls) {
                Ok(identity) => {
                    let file = tls.cert_file.display();
                    warnings.extend(out_of_time(&identity, now).map(|why| format!("{file}: {why}")));
                    tls.identity = Some(Arc::new(identity));
                    for file in [&tls.cert_file, &tls.key_file] {
                        if !files.contains(file) {
                            files.push(file.clone());
                        }
                    }
                }
                Err((key, why)) => {
                    problems.push(Problem::new(format!("{}.tls.{key}", listener_path(&path, index)), why))
                }
            }
        }
    }
}

/// Or the key of the configuration that is to blame, and why.
fn load(tls: &Terminate) -> Result<Identity, (&'static str, String)> {
    let blame = |key, file: &Path, why: &dyn ToString| (key, format!("{} {}", file.display(), why.to_string()));
    let (certificate, _) =
        read_text(&tls.cert_file, MAX_CONFIG).map_err(|error| blame("cert_file", &tls.cert_file, &error))?;
    let (key, metadata) =
        read_text(&tls.key_file, MAX_CONFIG).map_err(|error| blame("key_file", &tls.key_file, &error))?;
    if is_open(&metadata) {
        let why = format!(
            "can be read by others than its owner, as PostgreSQL would not have it either; chmod 600 {}",
            tls.key_file.display()
        );
        return Err(blame("key_file", &tls.key_file, &why));
    }
    Identity::parse(certificate.as_bytes(), key.as_bytes()).map_err(|error| {
        let (key, file) = if error.blames_key() { ("key_file", &tls.key_file) } else { ("cert_file", &tls.cert_file) };
        blame(key, file, &error)
    })
}

/// PostgreSQL's rule for keys: 0600 or less, and of one that belongs to root the group may read it.
fn is_open(metadata: &Metadata) -> bool {
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    metadata.mode() & forbidden != 0
}

fn out_of_time(identity: &Identity, now: WallTime) -> Option<String> {
    let (from, until) = identity.valid?;
    let clients = "clients that verify it will not connect";
    if until < now {
        return Some(format!("the certificate has expired on {}; {clients}; replace it", time_text(until)));
    }
    (now < from).then(|| format!("the certificate is valid only from {} on; until then {clients}", time_text(from)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::time::Duration;

    use super::super::{Loaded, load_from};
    use super::*;

    /// A configuration whose one listener shows a certificate that openssl made.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.make("tls.key", "tls.crt");
            let file = |name: &str| folder.path(name).display().to_string();
            let text = format!(
                "[service.main]\nkind = 'postgres'\n[[service.main.listener]]\naddress = '127.0.0.1:26257'\n\
                 tls = {{ mode = 'terminate', cert_file = '{}', key_file = '{}' }}\n\
                 [[service.main.backend]]\nname = 'a'\naddresses = ['db1:5432']\ntls = {{ mode = 'verify-full' }}\n",
                file("tls.crt"),
                file("tls.key")
            );
            std::fs::write(folder.path("pgpivot.toml"), text).unwrap();
            folder
        }

        fn make(&self, key: &str, certificate: &str) {
            let mut openssl = Command::new("/usr/bin/openssl");
            openssl
                .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=db".split(' '));
            openssl.args(["-keyout", key, "-out", certificate]).current_dir(self.0.path());
            let output = openssl.output().expect("openssl is needed: apt-get install openssl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            self.mode(key, 0o600);
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn mode(&self, name: &str, mode: u32) {
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn load(&self) -> Result<Loaded, String> {
            let loaded = load_from(Some(&self.path("pgpivot.toml")), &self.path(".env"), BTreeMap::new());
            loaded.map_err(|error| error.to_string().replace(self.0.path().to_str().unwrap(), "HERE"))
        }

        fn identity(&self) -> Arc<Identity> {
            let loaded = self.load().unwrap();
            match &loaded.config.services[0].listeners[0].tls {
                ListenerTls::Terminate(tls) => tls.identity.clone().unwrap(),
                ListenerTls::PassThrough => panic!("it does not terminate"),
            }
        }
    }

    #[test]
    fn a_certificate_is_read_with_the_configuration_and_a_renewed_one_is_another_configuration() {
        let folder = Folder::new();
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.files, ["pgpivot.toml", "tls.crt", "tls.key"].map(|name| folder.path(name)));
        assert_eq!(folder.load().unwrap().config, loaded.config);
        folder.make("tls.key", "tls.crt");
        let renewed = folder.load().unwrap();
        let changes = super::super::super::diff::diff(&loaded.config, &renewed.config).summary();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].starts_with("service.main.listener 127.0.0.1:26257: a certificate"), "{changes:?}");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_as_postgresql_refuses_it() {
        let folder = Folder::new();
        for mode in [0o644, 0o660, 0o604] {
            folder.mode("tls.key", mode);
            let said = folder.load().unwrap_err();
            let expected = "service.main.listener#1.tls.key_file: HERE/tls.key can be read by others than its owner, as \
                 PostgreSQL would not have it either; chmod 600 HERE/tls.key";
            assert_eq!(said, expected, "{mode:o}");
        }
        folder.mode("tls.key", 0o400);
        folder.load().unwrap();
    }

    #[test]
    fn a_file_that_is_missing_or_another_ones_is_named() {
        let folder = Folder::new();
        folder.make("other.key", "other.crt");
        std::fs::copy(folder.path("other.key"), folder.path("tls.key")).unwrap();
        let at = "service.main.listener#1.tls";
        let mismatch = "HERE/tls.key does not belong to the certificate; name the key that it was made with";
        assert_eq!(folder.load().unwrap_err(), format!("{at}.key_file: {mismatch}"));
        std::fs::remove_file(folder.path("tls.key")).unwrap();
        let missing = "cannot be read: there is no such file";
        assert_eq!(folder.load().unwrap_err(), format!("{at}.key_file: HERE/tls.key {missing}"));
        std::fs::remove_file(folder.path("tls.crt")).unwrap();
        assert_eq!(folder.load().unwrap_err(), format!("{at}.cert_file: HERE/tls.crt {missing}"));
    }

    #[test]
    fn a_certificate_that_is_out_of_time_is_said_and_used() {
        let identity = Folder::new().identity();
        let (from, until) = identity.valid.unwrap();
        assert_eq!(out_of_time(&identity, until), None);
        let said = out_of_time(&identity, until.plus(Duration::from_secs(1))).unwrap();
        assert!(said.starts_with("the certificate has expired on 20") && said.ends_with("replace it"), "{said}");
        let said = out_of_time(&identity, WallTime(from.0 - 1)).unwrap();
        assert!(said.starts_with("the certificate is valid only from 20"), "{said}");
    }

    #[test]
    fn servers_that_nobody_checks_behind_tls_that_ends_here_bring_a_warning() {
        let folder = Folder::new();
        let text = std::fs::read_to_string(folder.path("pgpivot.toml")).unwrap();
        std::fs::write(folder.path("pgpivot.toml"), text.replace("verify-full", "prefer")).unwrap();
        let warnings = folder.load().unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("does not check who the server is"), "{warnings:?}");
    }
}
