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
