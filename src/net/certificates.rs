//! Certificates for unit tests, made by openssl.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::config::certificate::Identity;
use crate::config::{ListenerTls, Terminate, Tls, TlsMode};

/// A self-signed certificate for `localhost` and 127.0.0.1, and its key; gone with the value.
pub(crate) struct Certificate {
    folder: tempfile::TempDir,
    pub(crate) identity: Arc<Identity>,
}

impl Certificate {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut openssl = Command::new("/usr/bin/openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=db".split(' '));
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-keyout", "key", "-out", "crt"]).current_dir(folder.path());
        let output = openssl.output().expect("openssl is needed: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = |name| std::fs::read(folder.path().join(name)).unwrap();
        let identity = Arc::new(Identity::parse(&read("crt"), &read("key")).unwrap());
        Self { folder, identity }
    }

    /// The same once more.
    pub(crate) fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["crt", "key"] {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        Self { folder, identity: self.identity.clone() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("crt")
    }

    /// What a listener that shows it is configured with.
    pub(crate) fn terminate(&self, require: bool) -> ListenerTls {
        let (cert_file, key_file) = (self.file(), self.folder.path().join("key"));
        ListenerTls::Terminate(Terminate { cert_file, key_file, require, identity: Some(self.identity.clone()) })
    }

    /// What whoever trusts it, and nothing else, is configured with.
    pub(crate) fn trusted(&self) -> Tls {
        Tls { mode: TlsMode::VerifyFull, ca_file: Some(self.file()), server_name: Some("localhost".into()) }
    }
}
