//! Reading the daemon's status: the questions that tests ask of it.

use pgpivot::view::{BackendStatus, ServiceStatus};

/// A backend of a service by its name.
pub fn find<'a>(service: &'a ServiceStatus, name: &str) -> &'a BackendStatus {
    let found = service.backends.iter().find(|b| b.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no backend {name} in {service:#?}"))
}

/// Is it the latched one?
pub fn is_active(service: &ServiceStatus, name: &str) -> bool {
    service.active.as_ref().is_some_and(|active| active.as_str() == name)
}

/// The word for why nothing is decided; empty when nothing stands in the way.
pub fn blocked(service: &ServiceStatus) -> &str {
    service.blocked.as_ref().map_or("", |b| &b.reason)
}

/// What clients have sent to and got from a backend since the daemon's start: sessions, bytes in, bytes out.
pub fn traffic(backend: &BackendStatus) -> (u64, u64, u64) {
    backend.endpoints.iter().fold((0, 0, 0), |(sessions, sent, got), endpoint| {
        let c = &endpoint.counters;
        (sessions + c.sessions, sent + c.bytes_in, got + c.bytes_out)
    })
}
