//! What the data plane tells the machine of a side, bounded in rate: reasons to look, never verdicts.
//! Errors of this machine (descriptors, ports, a local firewall) say nothing of a server and are not told.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::failover::observation::{Evidence, Failure};
use crate::types::{BackendName, ServiceName};

/// Messages of one kind and side at once, before the rate binds.
const BURST: u32 = 64;
/// Then one per this.
const REFILL: Duration = Duration::from_millis(10);

/// The voice of one side.
#[derive(Debug)]
pub(super) struct Reporter {
    service: ServiceName,
    backend: BackendName,
    sender: UnboundedSender<(ServiceName, Evidence)>,
    failures: Bucket,
    ends: Bucket,
    counts: Bucket,
    /// That nobody is left must not be lost among the many ends that led to it.
    zeros: Bucket,
}

impl Reporter {
    pub(super) fn new(
        service: ServiceName,
        backend: BackendName,
        sender: UnboundedSender<(ServiceName, Evidence)>,
    ) -> Self {
        let [failures, ends, counts, zeros] = std::array::from_fn(|_| Bucket::new());
        Self { service, backend, sender, failures, ends, counts, zeros }
    }

    pub(super) fn connect_failed(&self, address: SocketAddr, error: &io::Error) {
        if let Some(failure) = failure_of(error) {
            self.tell(&self.failures, || Evidence::ConnectFailed { backend: self.backend.clone(), address, failure });
        }
    }

    /// A server ended a connection; `live` others live.
    pub(super) fn server_ended(&self, live: usize) {
        self.tell(&self.ends, || Evidence::ServerEnded { backend: self.backend.clone() });
        self.connections(live);
    }

    pub(super) fn connections(&self, live: usize) {
        let bucket = if live == 0 { &self.zeros } else { &self.counts };
        self.tell(bucket, || Evidence::Connections { backend: self.backend.clone(), live });
    }

    fn tell(&self, bucket: &Bucket, evidence: impl FnOnce() -> Evidence) {
        if bucket.take(Instant::now()) {
            // Nobody listens any more: the daemon ends.
            let _ = self.sender.send((self.service.clone(), evidence()));
        }
    }
}

/// A burst, then a rate.
#[derive(Debug)]
struct Bucket(Mutex<(u32, Instant)>);

impl Bucket {
    fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    fn take(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = &mut *bucket;
        let gained = now.saturating_duration_since(*since).as_millis() / REFILL.as_millis();
        if gained > 0 {
            *tokens = tokens.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)).min(BURST);
            *since = now;
        }
        let may = *tokens > 0;
        *tokens = tokens.saturating_sub(1);
        may
    }
}

/// What a failed connect says of the server; `None` = nothing.
fn failure_of(error: &io::Error) -> Option<Failure> {
    use rustix::io::Errno;
    match error.kind() {
        io::ErrorKind::TimedOut => return Some(Failure::TimedOut),
        io::ErrorKind::ConnectionRefused => return Some(Failure::Refused),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => return Some(Failure::Lost),
        _ => {}
    }
    match Errno::from_io_error(error)? {
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => Some(Failure::Unreachable),
        // Out of descriptors, ports or memory, forbidden by a local rule, or an interface of ours is down.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter() -> (Reporter, tokio::sync::mpsc::UnboundedReceiver<(ServiceName, Evidence)>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Reporter::new("main".into(), "east".into(), sender), receiver)
    }

    #[test]
    fn a_port_or_descriptor_shortage_of_this_machine_is_no_evidence() {
        for local in ["EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS", "EACCES", "ENETDOWN"] {
            let errno = match local {
                "EADDRNOTAVAIL" => rustix::io::Errno::ADDRNOTAVAIL,
                "EMFILE" => rustix::io::Errno::MFILE,
                "ENFILE" => rustix::io::Errno::NFILE,
                "ENOBUFS" => rustix::io::Errno::NOBUFS,
                "EACCES" => rustix::io::Errno::ACCESS,
                _ => rustix::io::Errno::NETDOWN,
            };
            assert_eq!(failure_of(&errno.into()), None, "{local}");
        }
        assert_eq!(failure_of(&rustix::io::Errno::CONNREFUSED.into()), Some(Failure::Refused));
        assert_eq!(failure_of(&rustix::io::Errno::HOSTUNREACH.into()), Some(Failure::Unreachable));
        assert_eq!(failure_of(&io::ErrorKind::TimedOut.into()), Some(Failure::TimedOut));
    }

    #[test]
    fn a_storm_of_ends_is_told_only_so_often_but_the_last_one_is_told() {
        let (reporter, mut heard) = reporter();
        for live in (0..10_000).rev() {
            reporter.server_ended(live);
        }
        assert!(heard.len() < 1000, "{}", heard.len());
        let mut all = Vec::new();
        while let Ok((service, evidence)) = heard.try_recv() {
            assert_eq!(service.as_str(), "main");
            all.push(evidence);
        }
        assert_eq!(all.first(), Some(&Evidence::ServerEnded { backend: "east".into() }));
        assert_eq!(all.last(), Some(&Evidence::Connections { backend: "east".into(), live: 0 }));
        assert!(reporter.ends.take(Instant::now() + Duration::from_secs(1)), "a second later it may speak again");
    }
}
