//! Names to addresses: literals, localhost, the hosts file, then DNS. An answer is kept for its TTL, held within
//! 1 s..60 s, and beyond it while no better one can be had.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
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
/// Of one name; what comes beyond is dropped.
const MAX_ADDRESSES: usize = 64;
/// Names remembered; far beyond what a configuration holds.
const MAX_NAMES: usize = 4096;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name servers say that it does not exist, or has no address.
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

#[derive(Debug, Clone)]
struct Answer {
    addresses: Arc<[IpAddr]>,
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
        Self {
            settings,
            hosts_file,
            dns: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The addresses of a name, sorted, at least one. `localhost` is 127.0.0.1 (write `[::1]` for the other), so that
    /// one server does not appear as two. When look-ups fail the last good answer stands.
    pub async fn resolve(&self, at: &HostPort) -> Result<Vec<SocketAddr>, ResolveError> {
        let with_port = |ips: &[IpAddr]| ips.iter().map(|ip| SocketAddr::new(*ip, at.port)).collect();
        if let Some(ip) = literal(&at.host) {
            return Ok(with_port(&[ip]));
        }
        let last = lock(&self.known).get(&at.host).cloned();
        if let Some(answer) = last.as_ref().filter(|answer| answer.until > Instant::now()) {
            return Ok(with_port(&answer.addresses));
        }
        let (answer, problem) = match (self.look_up(&at.host).await, last) {
            (Ok(answer), _) => (answer, None),
            (Err(error), Some(last)) => (
                Answer {
                    until: Instant::now() + MIN_TTL,
                    ..last
                },
                Some(error),
            ),
            (Err(error), None) => return Err(error),
        };
        if let Some(error) = problem {
            tracing::debug!(host = %at.host, %error, "name lookup failed, last answer stands");
        }
        let addresses = with_port(&answer.addresses);
        let mut known = lock(&self.known);
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(Arc::clone(&at.host), answer);
        Ok(addresses)
    }

    async fn look_up(&self, host: &str) -> Result<Answer, ResolveError> {
        if let Some(addresses) = self.in_hosts_file(host).await {
            return Ok(Answer {
                addresses,
                until: Instant::now() + MIN_TTL,
            });
        }
        let dns = self.dns()?;
        let error = match tokio::time::timeout(LOOKUP_TIMEOUT, dns.0.lookup_ip(host)).await {
            Ok(Ok(found)) => {
                let left = found.valid_until().saturating_duration_since(std::time::Instant::now());
                let until = Instant::now() + left.clamp(MIN_TTL, MAX_TTL);
                match sorted(found.iter().collect()) {
                    Some(addresses) => return Ok(Answer { addresses, until }),
                    None => ResolveError::NotFound,
                }
            }
            Ok(Err(error)) => blame(&error),
            Err(_) => ResolveError::NoAnswer,
        };
        if error == ResolveError::NoAnswer {
            // The settings may have changed under us (a laptop's network, DHCP).
            *lock(&self.dns) = None;
        }
        Err(error)
    }

    async fn in_hosts_file(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let text = tokio::fs::read(&self.hosts_file).await.ok()?;
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_slice()).ok()?;
        let name = Name::from_utf8(host).ok()?;
        let of_kind = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [of_kind(RecordType::A), of_kind(RecordType::AAAA)];
        let records = found.iter().flatten().flat_map(|lookup| lookup.answers());
        sorted(records.filter_map(|record| record.data.ip_addr()).collect())
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

fn apply_options(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // This room keeps the answers; a second cache would only hide when they end.
    options.cache_size = 0;
    options.timeout = options.timeout.min(Duration::from_secs(2));
    options.attempts = options.attempts.min(2);
}

fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse().ok()
}

fn sorted(mut addresses: Vec<IpAddr>) -> Option<Arc<[IpAddr]>> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    (!addresses.is_empty()).then(|| addresses.into())
}

fn blame(error: &NetError) -> ResolveError {
    match error {
        NetError::Dns(_) => ResolveError::NotFound,
        NetError::Proto(_) => ResolveError::BadName,
        _ => ResolveError::NoAnswer,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
