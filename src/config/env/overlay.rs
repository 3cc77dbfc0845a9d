//! Lays what the environment says over the mirror of the file: environment over file over default. A pair named by
//! variables becomes a service where the file has none; it never replaces one that the file describes.

use super::super::raw::problem::Problems;
use super::super::raw::{self, Number, Raw, Text, Texts, backend_path, service_path};
use super::servers::{Server, Servers};
use super::{Env, Metrics, Named, pcr};
use crate::types::HostPort;
use crate::view::url::Url;

/// Where applications connect when nothing else is said.
const DEFAULT_LISTENER: &str = "127.0.0.1:26257";

impl Env {
    /// Lays this environment over the mirror; its own problems and warnings go into `problems`.
    pub(in crate::config) fn overlay(&self, raw: &mut Raw, problems: &mut Problems) {
        problems.extend(self.problems.iter().cloned());
        for warning in &self.warnings {
            problems.warn(warning);
        }
        if raw.broken {
            return;
        }
        if let Some(servers) = &self.servers {
            servers.overlay(raw, problems);
        }
        for (name, service) in &mut raw.services {
            self.overlay_probe(&service_path(name), service, problems);
        }
        self.pcr.overlay(raw, self.timeout, problems);
        self.overlay_daemon(raw, problems);
    }

    fn overlay_probe(&self, path: &str, service: &mut raw::Service, problems: &mut Problems) {
        let time = |value: &Option<Named<std::time::Duration>>| {
            value.map(|(name, duration)| (name, Text(humantime::format_duration(duration).to_string())))
        };
        let text = |value: &Option<Named<String>>| value.clone().map(|(name, text)| (name, Text(text)));
        let probe = &mut service.probe;
        let failover = &mut service.failover;
        let mut set = |key: &str, slot: &mut Option<Text>, value: Option<(&'static str, Text)>| {
            replace(&format!("{path}.{key}"), slot, value, problems);
        };
        set("probe.interval", &mut probe.interval, time(&self.interval));
        set("probe.timeout", &mut probe.timeout, time(&self.timeout));
        set("probe.user", &mut probe.user, text(&self.user));
        set("probe.database", &mut probe.database, text(&self.database));
        set("failover.delay", &mut failover.delay, time(&self.delay));
        let fall = self.fall.map(|(name, fall)| (name, Number(fall)));
        replace(&format!("{path}.probe.fall"), &mut probe.fall, fall, problems);
        if let Some((name, password)) = &self.password {
            if probe.password_file.is_some() {
                problems.warn(format!("{name} is used instead of {path}.probe.password_file"));
            }
            probe.password = Some(password.clone());
        }
        if let (Some(password), Some(patroni)) = (&self.patroni_password, &mut service.patroni) {
            if patroni.password_file.is_some() {
                problems.warn(format!("PGPIVOT_PATRONI_PASSWORD is used instead of {path}.patroni.password_file"));
            }
            patroni.password = Some(password.clone());
        }
        self.overlay_encryption(path, service, problems);
    }

    /// `DB_SSL` asks for encryption or does without; it never weakens what the file demands.
    fn overlay_encryption(&self, path: &str, service: &mut raw::Service, problems: &mut Problems) {
        let Some(encrypt) = self.encrypt else { return };
        let word = if encrypt { "require" } else { "disable" };
        let mut shared = service.probe.tls.mode.take();
        let mut modes = vec![(format!("{path}.probe.tls.mode"), &mut shared)];
        for (index, backend) in service.backend.iter_mut().enumerate() {
            let at = backend_path(path, index, backend.name.as_ref().map(|Text(name)| name.as_str()));
            if backend.tls.mode.is_some() {
                modes.push((format!("{at}.tls.mode"), &mut backend.tls.mode));
            }
        }
        for (at, mode) in modes {
            let written = mode.as_ref().map(|Text(mode)| mode.as_str());
            match (encrypt, written) {
                (true, Some("disable")) => {
                    problems.add("DB_SSL", format!("is true, but {at} is \"disable\"; change one of them"))
                }
                (false, Some(mode @ ("require" | "verify-ca" | "verify-full"))) => {
                    problems.add("DB_SSL", format!("is false, but {at} is {mode:?}; change one of them"));
                }
                (_, None | Some("prefer" | "disable")) => *mode = Some(Text::from(word)),
                (_, Some(_)) => {}
            }
        }
        service.probe.tls.mode = shared;
    }

    fn overlay_daemon(&self, raw: &mut Raw, problems: &mut Problems) {
        match self.metrics {
            None => {}
            Some(Metrics::Off) => raw.admin.metrics_listen = None,
            Some(Metrics::On(port)) => {
                let address = Text(format!("127.0.0.1:{port}"));
                replace(
                    "admin.metrics_listen",
                    &mut raw.admin.metrics_listen,
                    Some(("PROMETHEUS_PORT", address)),
                    problems,
                );
            }
        }
        let admin = self.admin.clone().map(|(name, address)| (name, Text(address)));
        replace("admin.listen", &mut raw.admin.listen, admin, problems);
        if let (None, Some(directory)) = (&raw.state.path, &self.state_directory) {
            raw.state.path = Some(Text(directory.clone()));
            problems.set_by("state.path", "STATE_DIRECTORY");
        }
    }
}

/// The environment over the file, and said where both speak.
pub(super) fn replace<T: PartialEq>(
    path: &str,
    slot: &mut Option<T>,
    value: Option<Named<T>>,
    problems: &mut Problems,
) {
    let Some((name, value)) = value else { return };
    if slot.as_ref().is_some_and(|written| *written != value) {
        problems.warn(format!("{name} is used instead of {path}"));
    }
    *slot = Some(value);
    problems.set_by(path, name);
}

impl Servers {
    /// The one service without backends gets them; without any service there will be one called `main`.
    fn overlay(&self, raw: &mut Raw, problems: &mut Problems) {
        if raw.services.is_empty() && !problems.touches("service") {
            let listener = raw::Listener { address: Some(DEFAULT_LISTENER.into()), ..raw::Listener::default() };
            let kind = Some(Text::from(self.kind));
            raw.services
                .push(("main".into(), raw::Service { kind, listener: vec![listener], ..raw::Service::default() }));
        }
        match raw.services.as_mut_slice() {
            [(name, service)] if service.backend.is_empty() && self.fits(service) => {
                let path = service_path(name);
                if !problems.touches(&format!("{path}.backend")) {
                    self.fill(&path, service, problems);
                }
            }
            _ => {
                // Ids go to the backends of the file by their role.
                let named = std::iter::once(&self.primary).chain(&self.standbys).find(|side| side.address.is_some());
                if let Some(Server { variable, .. }) = named {
                    problems.warn(format!("{variable} is not used: the configuration file names the backends"));
                }
            }
        }
    }

    /// Clusters of the Cloud API are none of PostgreSQL's, and those that SQL steers must have an address.
    fn fits(&self, service: &raw::Service) -> bool {
        let postgres = service.kind.as_ref().is_some_and(|Text(kind)| kind == "postgres");
        !self.cloud || !postgres && (service.cockroach_sql.is_none() || self.primary.address.is_some())
    }

    fn fill(&self, path: &str, service: &mut raw::Service, problems: &mut Problems) {
        if service.kind.is_none() {
            service.kind = Some(self.kind.into());
        }
        if self.cloud && service.cockroach_sql.is_none() {
            service.cockroach_cloud.get_or_insert_default();
            problems.set_by(format!("{path}.cockroach_cloud.secret_file"), pcr::SECRET);
        }
        let standbys = self.standbys.iter().map(|standby| (standby, "standby", pcr::STANDBY));
        for (server, role, id) in std::iter::once((&self.primary, "primary", pcr::PRIMARY)).chain(standbys) {
            // A cluster stays what it is under whatever host name it is reached.
            let name = match &server.address {
                Some(address) if !self.cloud => backend_name(address),
                _ => role.to_owned(),
            };
            let at = backend_path(path, service.backend.len(), Some(&name));
            for key in [at.clone(), format!("{at}.name"), format!("{at}.addresses"), format!("{at}.role")] {
                problems.set_by(key, server.variable);
            }
            problems.set_by(format!("{at}.cluster_id"), id);
            service.backend.push(raw::Backend {
                name: Some(Text(name)),
                addresses: server.address.as_ref().map(|address| Texts(vec![Text(address.to_string())])),
                role: Some(role.into()),
                ..raw::Backend::default()
            });
        }
        if let Some(url) = &self.url {
            fill_login(path, &mut service.probe, url, self.primary.variable, problems);
        }
    }
}

/// Under the file, not over it: variables of their own are laid over both later.
fn fill_login(path: &str, probe: &mut raw::Probe, url: &Url, variable: &'static str, problems: &mut Problems) {
    if probe.password_file.is_none() {
        probe.password.clone_from(&url.password);
    }
    let mut fill = |key: &str, slot: &mut Option<Text>, value: Option<&str>| {
        if let (None, Some(value)) = (&slot, value) {
            *slot = Some(Text::from(value));
            problems.set_by(format!("{path}.probe.{key}"), variable);
        }
    };
    fill("user", &mut probe.user, url.user.as_deref());
    fill("database", &mut probe.database, url.database.as_deref());
    fill("tls.mode", &mut probe.tls.mode, url.tls_mode);
    fill("tls.ca_file", &mut probe.tls.ca_file, url.ca_file.as_deref());
}

/// A name that stays the same whatever stands beside it: the latch on disk knows backends by name.
fn backend_name(address: &HostPort) -> String {
    let port = match address.port {
        5432 | 26257 => String::new(),
        port => format!("-{port}"),
    };
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
    };
    let host: String = address.host.chars().map(plain).collect();
    let host = host.trim_matches('-');
    let host: String = if host.is_empty() { "server".into() } else { host.chars().take(63 - port.len()).collect() };
    format!("{host}{port}")
}
