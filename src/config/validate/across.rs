//! What must fit together across tables: addresses to listen on, backends that would lead back into the proxy, and
//! services that share a pair.

use std::net::{IpAddr, SocketAddr};

use super::super::diff::keys;
use super::super::raw::service_path;
use super::super::{Config, Service};
use super::service::same_address;
use super::{Problems, listener_tls};
use crate::types::HostPort;

pub(super) fn check(config: &Config, problems: &mut Problems) {
    let listening = listening(config);
    check_listening(&listening, problems);
    for service in &config.services {
        check_backends(service, problems);
        check_loops(service, &listening, problems);
        listener_tls::check_upstream(service, problems);
    }
    for (index, one) in config.services.iter().enumerate() {
        // The first one that shares is enough: what differs from it is said once.
        if let Some((other, what)) =
            config.services[..index].iter().find_map(|other| Some((other, shared(one, other)?)))
        {
            check_pair(one, other, &what, problems);
        }
    }
}

/// Everything this daemon would listen on: (key path, address).
fn listening(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut all: Vec<(String, SocketAddr)> = Vec::new();
    all.extend(config.admin.listen.map(|address| ("admin.listen".to_owned(), address)));
    all.extend(config.admin.metrics_listen.map(|address| ("admin.metrics_listen".to_owned(), address)));
    for service in &config.services {
        let path = format!("{}.listener", service_path(service.name.as_str()));
        all.extend(service.listeners.iter().map(|listener| (path.clone(), listener.address)));
    }
    all
}

fn check_listening(listening: &[(String, SocketAddr)], problems: &mut Problems) {
    for (index, (path, address)) in listening.iter().enumerate() {
        let Some((other, taken)) = listening[..index].iter().find(|(_, taken)| overlap(*taken, *address)) else {
            continue;
        };
        let message = if path == other && taken == address {
            format!("{address} is there twice; give each listener a port of its own")
        } else if taken == address {
            format!("{address} is also the address of {other}; give each a port of its own")
        } else {
            format!("{address} overlaps with {taken} of {other}; give each a port of its own")
        };
        problems.add(path, message);
    }
}

/// Would a connection to one reach the other?
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || everywhere(a.ip(), b.ip()) || everywhere(b.ip(), a.ip()))
}

/// Two backends with one address would be one server that is its own standby.
fn check_backends(service: &Service, problems: &mut Problems) {
    for (index, backend) in service.backends.iter().enumerate() {
        for address in &backend.addresses {
            let known = |other: &&super::super::Backend| other.addresses.iter().any(|a| same_address(a, address));
            if let Some(other) = service.backends[..index].iter().find(known) {
                problems.add(
                    format!("{}.backend.{}.addresses", service_path(service.name.as_str()), backend.name),
                    format!("{address} is also an address of backend {}; a server belongs to one backend", other.name),
                );
            }
        }
    }
}

/// A backend that is this daemon's own listener: every connection would come back for ever.
fn check_loops(service: &Service, listening: &[(String, SocketAddr)], problems: &mut Problems) {
    for backend in &service.backends {
        for address in &backend.addresses {
            if let Some((path, own)) = listening.iter().find(|(_, own)| leads_to(address, *own)) {
                problems.add(
                    format!("{}.backend.{}.addresses", service_path(service.name.as_str()), backend.name),
                    format!(
                        "{address} is where pgpivot itself listens ({path}, {own}); name the database server there"
                    ),
                );
            }
        }
    }
}

fn leads_to(address: &HostPort, own: SocketAddr) -> bool {
    let ip = match &*address.host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => match host.parse() {
            Ok(ip) => ip,
            Err(_) => return false,
        },
    };
    let here = ip.is_loopback() && own.ip().is_unspecified();
    address.port == own.port() && (ip == own.ip() || here || (&*address.host == "localhost" && own.ip().is_loopback()))
}

/// An address or a cluster that both services name.
fn shared(one: &Service, other: &Service) -> Option<String> {
    let theirs = || other.backends.iter();
    let known =
        |address: &&HostPort| theirs().flat_map(|backend| &backend.addresses).any(|other| same_address(other, address));
    let address = one.backends.iter().flat_map(|backend| &backend.addresses).find(known);
    let known = |id: &&String| theirs().any(|backend| backend.cluster_id.as_ref() == Some(*id));
    let cluster = || one.backends.iter().filter_map(|backend| backend.cluster_id.as_ref()).find(known);
    address.map(HostPort::to_string).or_else(|| cluster().map(|id| format!("cluster {id}")))
}

/// Services on one pair share latch, budget and pause: one machine decides, so there is one policy.
fn check_pair(one: &Service, other: &Service, what: &str, problems: &mut Problems) {
    let (path, other_path) = (service_path(one.name.as_str()), service_path(other.name.as_str()));
    let same_backends = one.backends.len() == other.backends.len()
        && (one.backends.iter()).all(|backend| {
            other.backends.iter().any(|b| b.name == backend.name && keys::backend(b) == keys::backend(backend))
        });
    if !same_backends {
        problems.add(
            format!("{path}.backend"),
            format!(
                "shares {what} with {other_path}, but not all of its backends; services on one pair must have the same \
                 backends, with the same names, addresses, cluster ids, roles, weights and priorities"
            ),
        );
    }
    let theirs = keys::policy(other);
    for (key, ours) in keys::policy(one) {
        // A key that only one of them has comes with another kind or promoter, which is said already.
        if let Some((_, theirs)) = theirs.iter().find(|(k, theirs)| *k == key && *theirs != ours) {
            problems.add(
                format!("{path}.{key}"),
                format!(
                    "is {ours} here and {theirs} in {other_path}, and both share {what}; one pair has one policy, so \
                     write the same in both"
                ),
            );
        }
    }
    for ((key, ours), (_, theirs)) in keys::commands(one).into_iter().zip(keys::commands(other)) {
        if ours != theirs && !problems.touches(&format!("{path}.{key}")) {
            problems.add(
                format!("{path}.{key}"),
                format!("has other arguments than in {other_path}, and both share {what}; write the same in both"),
            );
        }
    }
}
