//! `[service.NAME.patroni]`: where Patroni's members answer and how they are asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::{HostPort, Secret};

/// How Patroni is asked and ordered. Set where `authority = "patroni"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patroni {
    /// REST endpoints of its members, at least one; default: each backend's hosts with port 8008.
    pub addresses: Vec<HostPort>,
    /// `https`, its chain and name checked.
    pub tls: bool,
    /// PEM bundle to check with; default the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key, both in PEM form.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `restapi.authentication` of Patroni: user and password of what changes something.
    pub login: Option<(String, Secret)>,
    /// Between two readings while nothing changes; default 1 s; 100 ms to 1 min.
    pub interval: Duration,
    /// For one reading of one member; default 2 s; 100 ms to 1 min.
    pub timeout: Duration,
    /// For Patroni's word on an order: it answers when the change is made or has failed; default 30 s; 1 s to 10 min.
    pub order_timeout: Duration,
}

impl Patroni {
    /// The port that Patroni's documentation gives its REST API.
    pub const PORT: u16 = 8008;

    /// The same members, read the same way.
    pub fn reads_the_same(&self, other: &Self) -> bool {
        let reads = |patroni: &Self| {
            (
                patroni.addresses.clone(),
                patroni.tls,
                patroni.ca_file.clone(),
                patroni.certificate.clone(),
                patroni.interval,
                patroni.timeout,
            )
        };
        reads(self) == reads(other)
    }
}
