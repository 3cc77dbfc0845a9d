//! `tls = { … }` of a listener. What the files hold is looked at by `certificate`.

use super::super::raw::{self, Flag, service_path};
use super::super::{Listener, ListenerTls, Service, Terminate, TlsMode};
use super::Problems;
use super::section::Section;

/// What a service's clients entrust to us should not go on to anybody who says to be a server.
pub(super) fn check_upstream(service: &Service, problems: &mut Problems) {
    let ends = |listener: &Listener| matches!(listener.tls, ListenerTls::Terminate(_));
    if !service.listeners.iter().any(ends) {
        return;
    }
    for backend in &service.backends {
        if let TlsMode::Prefer | TlsMode::Require = backend.tls.mode {
            problems.warn(format!(
                "{}.backend.{}.tls: clients' TLS ends here, and mode = \"{}\" does not check who the server is; write \
                 mode = \"verify-full\" with its ca_file, or \"disable\" where nobody can listen",
                service_path(service.name.as_str()),
                backend.name,
                backend.tls.mode.as_str(),
            ));
        }
    }
}

/// A listener's, whose key path is `listener`.
pub(super) fn build(listener: &str, raw: &raw::ListenerTls, problems: &mut Problems) -> ListenerTls {
    let mut section = Section::new(format!("{listener}.tls"), problems);
    let modes = [("pass-through", false), ("terminate", true)];
    let terminates = section.choice("mode", &raw.mode, &modes, &[]);
    if terminates != Some(true) {
        // Who wrote a mode that is none meant something with the rest.
        if !section.faulty("mode") {
            unused(&mut section, raw);
        }
        return ListenerTls::PassThrough;
    }
    if raw.cert_file.is_none() {
        section.missing("cert_file", "is missing; write for example cert_file = \"/etc/pgpivot/tls.crt\"");
    }
    let cert_file = section.path("cert_file", &raw.cert_file).unwrap_or_default();
    let key_file = section.path("key_file", &raw.key_file).unwrap_or_else(|| cert_file.clone());
    let require = section.flag(&raw.require, false);
    ListenerTls::Terminate(Terminate { cert_file, key_file, require, identity: None })
}

fn unused(section: &mut Section<'_>, raw: &raw::ListenerTls) {
    let required = raw.require == Some(Flag(true));
    let keys = [("cert_file", raw.cert_file.is_some()), ("key_file", raw.key_file.is_some()), ("require", required)];
    for (key, _) in keys.into_iter().filter(|(_, written)| *written) {
        section.problem(key, "is never used, because clients' TLS passes through; write mode = \"terminate\"");
    }
}
