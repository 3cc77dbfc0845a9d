//! Names to addresses: literals, localhost, the hosts file, then DNS. An answer is kept for its TTL, held within
//! 1 s..60 s, and beyond it while no better one can be had.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::Instant;

use crate::types::HostPort;

/// An answer is believed at least this long.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// An answer is believed at most this long.
pub const MAX_TTL: Duration = Duration::from_secs(60);

/// One look-up, all servers and attempts together.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that lacks one address family is believed at most this long.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Of one name; what comes beyond is dropped.
const MAX_ADDRESSES: usize = 64;
/// Names remembered; far beyond what a configuration holds.
const MAX_NAMES: usize = 4096;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It does not exist, or has no address.
    #[error("the name has no address")]
    NotFound,
    /// No name server answered in time.
    #[error("no name server answered")]
    NoAnswer,
    /// It is no host name.
    #[error("not a host name")]
    BadName,
    /// This system's resolver settings cannot be read.
    #[error("the system's resolver settings cannot be read")]
    NoSettings,
}

/// Resolves names and remembers the answers. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    hosts_file: PathBuf,
    dns: Mutex<Option<Arc<Dns>>>,
    known: Mutex<HashMap<Arc<str>, Answer>>,
}

#[derive(Debug)]
enum Settings {
    /// `/etc/resolv.conf`, read again after a failure.
    System,
    Given(Box<ResolverConfig>),
}

struct Dns(TokioResolver);

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dns")
    }
}

/// What is believed of one name.
#[derive(Debug, Clone)]
struct Answer {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    until: Instant,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Settings::System, PathBuf::from("/etc/hosts"))
    }
}

impl Resolver {
    /// Asks these name servers instead of the system's.
    pub fn with_config(config: ResolverConfig, hosts_file: PathBuf) -> Self {
        Self::new(Settings::Given(Box::new(config)), hosts_file)
    }

    fn new(settings: Settings, hosts_file: PathBuf) -> Self {
        Self { settings, hosts_file, dns: Mutex::default(), known: Mutex::default() }
    }

    /// The addresses of a name, sorted, at least one. `localhost` is 127.0.0.1 (write `[::1]` for the other), so that
    /// one server does not appear as two. When look-ups fail the last good answer stands.
    pub async fn resolve(&self, at: &HostPort) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Some(ip) = literal(&at.host) {
            return Ok(vec![SocketAddr::new(ip, at.port)]);
        }
        let last = lock(&self.known).get(&at.host).cloned();
        if let Some(answer) = last.as_ref().filter(|answer| answer.until > Instant::now()) {
            return Ok(answer.addresses(at.port));
        }
        let answer = match (self.look_up(&at.host, last.as_ref()).await, last) {
            (Ok(answer), _) => answer,
            (Err(error), Some(last)) => {
                tracing::debug!(host = %at.host, %error, "name lookup failed, the last answer stands");
                Answer { until: Instant::now() + MIN_TTL, ..last }
            }
            (Err(error), None) => return Err(error),
        };
        let addresses = answer.addresses(at.port);
        let mut known = lock(&self.known);
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(Arc::clone(&at.host), answer);
        Ok(addresses)
    }

    async fn look_up(&self, host: &str, last: Option<&Answer>) -> Result<Answer, ResolveError> {
        let name = Name::from_utf8(host).map_err(|_| ResolveError::BadName)?;
        if let Some(answer) = self.in_hosts_file(&name).await {
            return Ok(answer);
        }
        let dns = self.dns()?;
        let (v4, v6) = tokio::join!(ask(&dns, &name, RecordType::A), ask(&dns, &name, RecordType::AAAA));
        if [&v4, &v6].iter().any(|found| matches!(found, Err(ResolveError::NoAnswer))) {
            // The settings may have changed under us (a laptop's network, DHCP).
            *lock(&self.dns) = None;
        }
        let until = believed_until([&v4, &v6]);
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            // One family without an answer must not make addresses come and go.
            (v4, v6) => (
                v4.map_or_else(|_| last.map_or_else(Vec::new, |last| last.v4.clone()), |found| found.addresses),
                v6.map_or_else(|_| last.map_or_else(Vec::new, |last| last.v6.clone()), |found| found.addresses),
            ),
        };
        if v4.is_empty() && v6.is_empty() {
            return Err(ResolveError::NotFound);
        }
        Ok(Answer { v4, v6, until })
    }

    async fn in_hosts_file(&self, name: &Name) -> Option<Answer> {
        let text = tokio::fs::read(&self.hosts_file).await.ok()?;
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_slice()).ok()?;
        let of_kind = |kind| {
            let found = hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.map(|lookup| addresses_in(&lookup)).unwrap_or_default()
        };
        let (v4, v6) = (of_kind(RecordType::A), of_kind(RecordType::AAAA));
        let known = !v4.is_empty() || !v6.is_empty();
        known.then(|| Answer { v4, v6, until: Instant::now() + MIN_TTL })
    }

    fn dns(&self) -> Result<Arc<Dns>, ResolveError> {
        let mut slot = lock(&self.dns);
        if let Some(dns) = &*slot {
            return Ok(Arc::clone(dns));
        }
        let mut builder = match &self.settings {
            Settings::System => TokioResolver::builder_tokio().map_err(|_| ResolveError::NoSettings)?,
            Settings::Given(config) => {
                TokioResolver::builder_with_config((**config).clone(), TokioRuntimeProvider::default())
            }
        };
        apply_options(builder.options_mut());
        let dns = Arc::new(Dns(builder.build().map_err(|_| ResolveError::NoSettings)?));
        *slot = Some(Arc::clone(&dns));
        Ok(dns)
    }
}

impl Answer {
    fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        let both = self.v4.iter().chain(&self.v6);
        both.take(MAX_ADDRESSES).map(|ip| SocketAddr::new(*ip, port)).collect()
    }
}

/// The addresses of one family; none at all is an answer too.
struct Found {
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// The shortest TTL of the families that have addresses; sooner when one could not be asked.
fn believed_until(families: [&Result<Found, ResolveError>; 2]) -> Instant {
    let now = Instant::now();
    let with_addresses = families.into_iter().flatten().filter(|found| !found.addresses.is_empty());
    let until = with_addresses.map(|found| found.until).min().unwrap_or(now + MIN_TTL);
    match families.iter().any(|found| found.is_err()) {
        true => until.min(now + AFTER_FAILURE),
        false => until,
    }
}

async fn ask(dns: &Dns, name: &Name, kind: RecordType) -> Result<Found, ResolveError> {
    let answer = tokio::time::timeout(LOOKUP_TIMEOUT, dns.0.lookup(name.clone(), kind)).await;
    match answer {
        Ok(Ok(lookup)) => {
            let left = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
            let until = Instant::now() + left.clamp(MIN_TTL, MAX_TTL);
            Ok(Found { addresses: addresses_in(&lookup), until })
        }
        Ok(Err(error)) if says_none(&error) => Ok(Found { addresses: Vec::new(), until: Instant::now() + MIN_TTL }),
        Ok(Err(_)) | Err(_) => Err(ResolveError::NoAnswer),
    }
}

/// Does a name server say that there is no such record, or is it in trouble itself?
fn says_none(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError)
        }
        _ => false,
    }
}

fn addresses_in(lookup: &Lookup) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn apply_options(options: &mut ResolverOpts) {
    // This room keeps the answers; a second cache would only hide when they end.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = options.timeout.min(Duration::from_secs(2));
    options.attempts = options.attempts.min(2);
}

fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
