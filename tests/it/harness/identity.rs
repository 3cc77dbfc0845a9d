//! Certificates of listeners, made by openssl.

use super::binaries::{existing, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use toml::{Table, Value};

/// A self-signed certificate for `localhost`, and its key.
#[derive(Debug)]
pub struct Identity {
    folder: TempDir,
}

impl Identity {
    /// A new one.
    pub fn make() -> Self {
        let identity = Self::empty();
        identity.renew();
        identity
    }

    /// That of a PostgreSQL server, from its data folder.
    pub fn of_server(data: &Path) -> Self {
        let identity = Self::empty();
        fs::copy(data.join("server.crt"), identity.certificate()).unwrap();
        fs::copy(data.join("server.key"), identity.key()).unwrap();
        fs::set_permissions(identity.key(), fs::Permissions::from_mode(0o600)).unwrap();
        identity
    }

    fn empty() -> Self {
        Self { folder: tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap() }
    }

    /// Another one in the same files.
    pub fn renew(&self) {
        let mut openssl = Command::new(existing(Path::new("/usr/bin/openssl"), "openssl"));
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '));
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        run(openssl.arg("-keyout").arg(self.key()).arg("-out").arg(self.certificate()));
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    /// PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("tls.key")
    }

    /// `tls = { … }` of a listener that shows it.
    pub(super) fn terminate(&self, require: bool) -> Value {
        let mut table = Table::new();
        table.insert("mode".into(), "terminate".into());
        table.insert("cert_file".into(), self.certificate().display().to_string().into());
        table.insert("key_file".into(), self.key().display().to_string().into());
        table.insert("require".into(), require.into());
        Value::Table(table)
    }
}

/// `tls = { … }` of a backend that must show this certificate, or one that it signed.
pub(super) fn verify_full(ca_file: &Path) -> Value {
    let mut table = Table::new();
    table.insert("mode".into(), "verify-full".into());
    table.insert("ca_file".into(), ca_file.display().to_string().into());
    Value::Table(table)
}
