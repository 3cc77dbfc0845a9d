//! Which variables name a pair of servers, and what they must not say at once.

use super::super::raw::problem::shown;
use super::{Named, Reader, pcr};
use crate::types::HostPort;
use crate::view::url::Url;

/// A pair named by variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Servers {
    pub(super) kind: &'static str,
    pub(super) primary: Server,
    pub(super) standbys: Vec<Server>,
    /// They are clusters that the Cloud API knows, and it steers their replication.
    pub(super) cloud: bool,
    /// Login and encryption that came with `DATABASE_URL`.
    pub(super) url: Option<Url>,
}

/// One of them, and the variable that names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Server {
    pub(super) variable: &'static str,
    /// `None` = the Cloud API knows.
    pub(super) address: Option<HostPort>,
}

impl From<Named<HostPort>> for Server {
    fn from((variable, address): Named<HostPort>) -> Self {
        Self { variable, address: Some(address) }
    }
}

const POSTGRES_PORT: u16 = 5432;
const COCKROACH_PORT: u16 = 26257;

impl Reader<'_> {
    /// The pair that the variables name, if they name one.
    pub(super) fn servers(&mut self) -> Option<Servers> {
        let postgres = self.postgres();
        let cockroach = self.cockroach();
        let (Some(postgres), Some(cockroach)) = (&postgres, &cockroach) else {
            return postgres.or(cockroach);
        };
        // A secret key alone names nothing.
        let names = [cockroach.primary.variable, pcr::PRIMARY, pcr::STANDBY];
        if let Some(name) = names.into_iter().find(|name| self.text(name).is_some()) {
            self.problem(name, format!("names a second pair beside {}; set one of them", postgres.primary.variable));
        }
        Some(postgres.clone())
    }

    fn postgres(&mut self) -> Option<Servers> {
        let url = self.url("DATABASE_URL", POSTGRES_PORT);
        let host = self.host("DB_HOST", "DB_PORT");
        let replica = self.url("DATABASE_REPLICA_URL", POSTGRES_PORT);
        let mut standbys = self.standbys();
        if let (Some(url), Some((name, host))) = (&url, &host)
            && url.address != *host
        {
            self.problem(name, "names another server than DATABASE_URL; set one of them");
        }
        if let Some(replica) = replica {
            if let Some(url) = &url
                && !url.same_login(&replica)
            {
                let message = "has another user, password, database or sslmode than DATABASE_URL, and one login checks both; \
                               make them the same, or write a configuration file";
                self.problem("DATABASE_REPLICA_URL", message);
            }
            if standbys.is_empty() {
                standbys.push(("DATABASE_REPLICA_URL", replica.address));
            } else if !standbys.iter().any(|(_, standby)| *standby == replica.address) {
                self.problem(
                    "PGPIVOT_STANDBYS",
                    "does not name the server of DATABASE_REPLICA_URL; set one of them, or both alike",
                );
            }
        }
        let primary = url.as_ref().map(|url| ("DATABASE_URL", url.address.clone())).or(host);
        let primary = primary.or_else(|| self.meant(["DATABASE_URL", "DB_HOST"]));
        let Some(primary) = primary else {
            let (name, _) = standbys.first()?;
            self.problem(name, "names a standby, but no primary is named; set DATABASE_URL or DB_HOST too");
            return None;
        };
        if let Some((name, _)) = standbys.iter().find(|(_, standby)| *standby == primary.1) {
            let message = format!("names the same server as {}; a server is no standby of itself", primary.0);
            self.problem(name, message);
        }
        let standbys = standbys.into_iter().map(Server::from).collect();
        Some(Servers { kind: "postgres", primary: primary.into(), standbys, cloud: false, url })
    }

    fn cockroach(&mut self) -> Option<Servers> {
        let endpoint = self.url("PRIMARY_CLUSTER_ENDPOINT", COCKROACH_PORT);
        let dns = self.dns("PRIMARY_SQL_DNS");
        let standby = self.dns("STANDBY_SQL_DNS");
        let of_endpoint = |url: &Url| ("PRIMARY_CLUSTER_ENDPOINT", url.address.clone());
        let primary = dns.or_else(|| endpoint.as_ref().map(of_endpoint));
        let primary = primary.or_else(|| self.meant(["PRIMARY_SQL_DNS", "PRIMARY_CLUSTER_ENDPOINT"]));
        if [pcr::SECRET, pcr::PRIMARY, pcr::STANDBY].into_iter().any(|name| self.text(name).is_some()) {
            // Both sides, whatever is set: what is missing is said where it is.
            let unnamed = |variable| Server { variable, address: None };
            return Some(Servers {
                kind: "cockroach",
                primary: primary.map_or(unnamed(pcr::PRIMARY), Server::from),
                standbys: vec![standby.map_or(unnamed(pcr::STANDBY), Server::from)],
                cloud: true,
                url: endpoint,
            });
        }
        let Some(primary) = primary else {
            if standby.is_some() && self.meant(["DATABASE_URL", "DB_HOST"]).is_none() {
                self.problem("STANDBY_SQL_DNS", "names a standby, but no primary is named; set PRIMARY_SQL_DNS too");
            }
            return None;
        };
        let standbys = standby.into_iter().map(Server::from).collect();
        Some(Servers { kind: "cockroach", primary: primary.into(), standbys, cloud: false, url: endpoint })
    }

    /// A server that one of these should have named, but its value was wrong: the rest is to be judged all the same.
    fn meant(&self, names: [&'static str; 2]) -> Option<Named<HostPort>> {
        let name = names.into_iter().find(|name| self.text(name).is_some())?;
        let address = HostPort { host: "unknown".into(), port: POSTGRES_PORT };
        Some((name, address))
    }

    fn url(&mut self, name: &'static str, port: u16) -> Option<Url> {
        let text = self.text(name)?;
        match Url::parse(&text, port) {
            Ok(url) => Some(url),
            // The text holds a password: only what is wrong with it is said.
            Err(error) => {
                self.problem(name, error.to_string());
                None
            }
        }
    }

    fn host(&mut self, name: &'static str, port_name: &'static str) -> Option<Named<HostPort>> {
        let port = self.port(port_name, POSTGRES_PORT);
        let host = self.text(name)?;
        let literal = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        match format!("{literal}:{port}").parse() {
            Ok(address) => Some((name, address)),
            Err(_) => {
                self.problem(
                    name,
                    format!(
                        "{} is not a host; write a name or an address, the port goes into {port_name}",
                        shown(&host)
                    ),
                );
                None
            }
        }
    }

    fn dns(&mut self, name: &'static str) -> Option<Named<HostPort>> {
        let text = self.text(name)?;
        match with_port(&text, COCKROACH_PORT) {
            Some(address) => Some((name, address)),
            None => {
                self.problem(name, format!("{} is not a host; write host or host:port", shown(&text)));
                None
            }
        }
    }

    fn standbys(&mut self) -> Vec<Named<HostPort>> {
        const NAME: &str = "PGPIVOT_STANDBYS";
        let mut standbys: Vec<Named<HostPort>> = Vec::new();
        let text = self.text(NAME).unwrap_or_default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match with_port(item, POSTGRES_PORT) {
                Some(address) if standbys.iter().any(|(_, known)| *known == address) => {
                    self.problem(NAME, format!("names {address} twice; once is enough"));
                }
                Some(address) => standbys.push((NAME, address)),
                None => self.problem(
                    NAME,
                    format!(
                        "{} is not a host; write for example db2.example.com:5432,db3.example.com:5432",
                        shown(item)
                    ),
                ),
            }
        }
        standbys
    }
}

fn with_port(text: &str, port: u16) -> Option<HostPort> {
    text.parse().ok().or_else(|| format!("{text}:{port}").parse().ok())
}
