//! The environment's names and what they say. A variable's value becomes what the TOML file would have said, under
//! the variable's name when it is wrong. Reads no environment: the map of variables is an argument.

mod dotenv;
mod overlay;
mod url;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::dotenv::parse as parse_dotenv;
use self::url::Url;
use super::raw::problem::{Problem, nearest};
use crate::types::{HostPort, Secret};

/// Every variable that means something, in the order of `.env.example`.
pub const NAMES: [&str; 30] = [
    "DATABASE_URL",
    "DATABASE_REPLICA_URL",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_USER",
    "DB_USERNAME",
    "DB_PASSWORD",
    "DB_SSL",
    "PGPIVOT_STANDBYS",
    "PGPIVOT_PASSWORD",
    "FAILOVER_HEALTH_CHECK_INTERVAL",
    "HEALTH_CHECK_INTERVAL",
    "HEALTH_CHECK_TIMEOUT",
    "FAILURE_THRESHOLD",
    "FAILOVER_DELAY",
    "ENABLE_PROMETHEUS",
    "PROMETHEUS_PORT",
    "STATE_DIRECTORY",
    "COCKROACH_API_SECRET_KEY",
    "PRIMARY_CLUSTER_ID",
    "STANDBY_CLUSTER_ID",
    "PCR_STREAM_ID",
    "FAILOVER_TO_LATEST",
    "FAILOVER_AT_TIMESTAMP",
    "PRIMARY_CLUSTER_ENDPOINT",
    "PRIMARY_SQL_DNS",
    "STANDBY_SQL_DNS",
    "PGPIVOT_URL",
    "PGPIVOT_LOG",
];

/// Variables whose value is a secret, or may contain one.
pub const SECRETS: [&str; 6] = [
    "DATABASE_URL",
    "DATABASE_REPLICA_URL",
    "DB_PASSWORD",
    "PGPIVOT_PASSWORD",
    "COCKROACH_API_SECRET_KEY",
    "PRIMARY_CLUSTER_ENDPOINT",
];

/// A value and the variable it came from.
type Named<T> = (&'static str, T);

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Env {
    servers: Option<Servers>,
    user: Option<Named<String>>,
    database: Option<Named<String>>,
    password: Option<Named<Secret>>,
    encrypt: Option<bool>,
    interval: Option<Named<Duration>>,
    timeout: Option<Named<Duration>>,
    fall: Option<Named<u64>>,
    delay: Option<Named<Duration>>,
    metrics: Option<Metrics>,
    state_directory: Option<String>,
    /// What concerns physical cluster replication.
    pub pcr: Pcr,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// The seeds' names for physical cluster replication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pcr {
    /// `COCKROACH_API_SECRET_KEY`.
    pub api_key: Option<Secret>,
    /// `PRIMARY_CLUSTER_ID`.
    pub primary_cluster: Option<String>,
    /// `STANDBY_CLUSTER_ID`.
    pub standby_cluster: Option<String>,
    /// `PCR_STREAM_ID`; `None` = to be found.
    pub stream: Option<String>,
    /// `FAILOVER_AT_TIMESTAMP`; `None` = to the latest consistent time.
    pub failover_at: Option<jiff::Timestamp>,
}

/// `ENABLE_PROMETHEUS` and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metrics {
    On(u16),
    Off,
}

/// A pair named by variables.
#[derive(Debug, Clone, PartialEq)]
struct Servers {
    kind: &'static str,
    primary: Named<HostPort>,
    standbys: Vec<Named<HostPort>>,
    /// Login and encryption that came with `DATABASE_URL`.
    url: Option<Url>,
}

const POSTGRES_PORT: u16 = 5432;
const COCKROACH_PORT: u16 = 26257;

impl Env {
    /// Reads what the variables say; an empty value counts as none. Problems come out with the configuration's.
    pub fn parse(variables: &BTreeMap<String, String>) -> Self {
        let mut reader = Reader { variables, problems: Vec::new(), warnings: Vec::new() };
        let servers = reader.servers();
        let url = servers.as_ref().and_then(|servers| servers.url.as_ref());
        let login = reader.login(url);
        let metrics = reader.metrics();
        reader.check_names();
        Self {
            servers,
            user: login.0,
            database: login.1,
            password: login.2,
            encrypt: reader.flag("DB_SSL"),
            interval: reader.interval(),
            timeout: reader.duration("HEALTH_CHECK_TIMEOUT", Unit::Seconds),
            fall: reader.number("FAILURE_THRESHOLD"),
            delay: reader.duration("FAILOVER_DELAY", Unit::Seconds),
            metrics,
            // systemd writes all of a unit's state directories into it.
            state_directory: reader.text("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(str::to_owned)),
            pcr: reader.pcr(),
            problems: reader.problems,
            warnings: reader.warnings,
        }
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Milliseconds,
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(name, message));
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.problem(name, format!("{text:?} is neither true nor false; write one of them"));
                None
            }
        }
    }

    /// A plain number in the seeds' unit, or a duration with its own.
    fn duration(&mut self, name: &'static str, unit: Unit) -> Option<Named<Duration>> {
        let text = self.text(name)?;
        let (plain, example): (fn(u64) -> Duration, _) = match unit {
            Unit::Seconds => (Duration::from_secs, "seconds; write for example 30"),
            Unit::Milliseconds => (Duration::from_millis, "milliseconds; write for example 10000"),
        };
        match text.parse::<u64>().map(plain).or_else(|_| humantime::parse_duration(&text)) {
            Ok(duration) => Some((name, duration)),
            Err(_) => {
                self.problem(name, format!("{text:?} is not a number of {example}"));
                None
            }
        }
    }

    fn number(&mut self, name: &'static str) -> Option<Named<u64>> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(number) => Some((name, number)),
            Err(_) => {
                self.problem(name, format!("{text:?} is not a whole number; write for example 3"));
                None
            }
        }
    }

    fn port(&mut self, name: &'static str, default: u16) -> u16 {
        match self.text(name).map(|text| (text.parse::<u16>(), text)) {
            None => default,
            Some((Ok(port), _)) if port != 0 => port,
            Some((_, text)) => {
                self.problem(name, format!("{text:?} is not a port; write a number from 1 to 65535"));
                default
            }
        }
    }

    /// Two variables for one thing: equal or one of them unset, else a problem.
    fn one_of(&mut self, names: [&'static str; 2]) -> Option<Named<String>> {
        let values = names.map(|name| self.text(name).map(|value| (name, value)));
        if let [Some((first, a)), Some((second, b))] = &values
            && a != b
        {
            self.problem(second, format!("is not the same as {first}, and both name one thing; set one of them"));
        }
        let [first, second] = values;
        first.or(second)
    }

    fn interval(&mut self) -> Option<Named<Duration>> {
        let seconds = self.duration("HEALTH_CHECK_INTERVAL", Unit::Seconds);
        let milliseconds = self.duration("FAILOVER_HEALTH_CHECK_INTERVAL", Unit::Milliseconds);
        if let (Some((_, a)), Some((name, b))) = (seconds, milliseconds)
            && a != b
        {
            self.problem(name, "is not the same time as HEALTH_CHECK_INTERVAL, which counts seconds; set one of them");
        }
        seconds.or(milliseconds)
    }

    /// User, database and password: variables of their own, else those in `DATABASE_URL`.
    #[expect(clippy::type_complexity, reason = "three parts of one login, taken apart at once")]
    fn login(&mut self, url: Option<&Url>) -> (Option<Named<String>>, Option<Named<String>>, Option<Named<Secret>>) {
        let user = self.one_of(["DB_USER", "DB_USERNAME"]);
        let database = self.text("DB_NAME").map(|name| ("DB_NAME", name));
        let password = self.text("DB_PASSWORD").map(|password| ("DB_PASSWORD", Secret::new(password)));
        if let Some(url) = url {
            let differs = |own: &Option<Named<String>>, theirs: &Option<String>| match (own, theirs) {
                (Some((name, own)), Some(theirs)) if own != theirs => Some(*name),
                _ => None,
            };
            let other_password = match (&password, &url.password) {
                (Some((name, own)), Some(theirs)) if own != theirs => Some(*name),
                _ => None,
            };
            let others = [differs(&user, &url.user), differs(&database, &url.database), other_password];
            for name in others.into_iter().flatten() {
                self.problem(name, "is not the same as in DATABASE_URL, and both name one thing; set one of them");
            }
        }
        // Its own name wins: an application's password may stand in the same environment.
        let own = self.text("PGPIVOT_PASSWORD").map(|password| ("PGPIVOT_PASSWORD", Secret::new(password)));
        (user, database, own.or(password))
    }

    fn metrics(&mut self) -> Option<Metrics> {
        let port = self.port("PROMETHEUS_PORT", 8000);
        self.flag("ENABLE_PROMETHEUS").map(|on| if on { Metrics::On(port) } else { Metrics::Off })
    }

    fn servers(&mut self) -> Option<Servers> {
        let postgres = self.postgres();
        let cockroach = self.cockroach();
        match (postgres, cockroach) {
            (Some(postgres), Some(cockroach)) => {
                let message = format!("names a second pair beside {}; set one of them", postgres.primary.0);
                self.problem(cockroach.primary.0, message);
                Some(postgres)
            }
            (one, other) => one.or(other),
        }
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
        let Some(primary) = primary else {
            let known = ["DATABASE_URL", "DB_HOST"].iter().any(|name| self.text(name).is_some());
            if let (Some((name, _)), false) = (standbys.first(), known) {
                self.problem(name, "names a standby, but no primary is named; set DATABASE_URL or DB_HOST too");
            }
            return None;
        };
        if let Some((name, _)) = standbys.iter().find(|(_, standby)| *standby == primary.1) {
            let message = format!("names the same server as {}; a server is no standby of itself", primary.0);
            self.problem(name, message);
        }
        Some(Servers { kind: "postgres", primary, standbys, url })
    }

    fn cockroach(&mut self) -> Option<Servers> {
        let endpoint = self.url("PRIMARY_CLUSTER_ENDPOINT", COCKROACH_PORT);
        let dns = self.dns("PRIMARY_SQL_DNS");
        let standby = self.dns("STANDBY_SQL_DNS");
        let primary = dns.or(endpoint.as_ref().map(|url| ("PRIMARY_CLUSTER_ENDPOINT", url.address.clone())));
        let Some(primary) = primary else {
            let named = ["PRIMARY_CLUSTER_ID", "STANDBY_CLUSTER_ID", "STANDBY_SQL_DNS"];
            let known = ["PRIMARY_SQL_DNS", "PRIMARY_CLUSTER_ENDPOINT"].iter().any(|name| self.text(name).is_some());
            let postgres = ["DATABASE_URL", "DB_HOST"].iter().any(|name| self.text(name).is_some());
            if let (Some(name), false, false) =
                (named.into_iter().find(|name| self.text(name).is_some()), known, postgres)
            {
                self.warnings.push(format!("{name} is set, but PRIMARY_SQL_DNS is not: it makes no service"));
            }
            return None;
        };
        Some(Servers { kind: "cockroach", primary, standbys: standby.into_iter().collect(), url: endpoint })
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
                    format!("{host:?} is not a host; write a name or an address, the port goes into {port_name}"),
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
                self.problem(name, format!("{text:?} is not a host; write host or host:port"));
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
                    format!("{item:?} is not a host; write for example db2.example.com:5432,db3.example.com:5432"),
                ),
            }
        }
        standbys
    }

    fn pcr(&mut self) -> Pcr {
        let to_latest = self.flag("FAILOVER_TO_LATEST");
        let failover_at = self.text("FAILOVER_AT_TIMESTAMP").and_then(|text| match text.parse() {
            Ok(timestamp) => Some(timestamp),
            Err(_) => {
                self.problem(
                    "FAILOVER_AT_TIMESTAMP",
                    format!("{text:?} is not a time; write for example 2026-01-31T12:00:00Z"),
                );
                None
            }
        });
        let known = self.text("FAILOVER_AT_TIMESTAMP").is_some();
        match to_latest {
            Some(false) if !known => {
                self.problem("FAILOVER_TO_LATEST", "is false, so a time must be given; set FAILOVER_AT_TIMESTAMP");
            }
            Some(true) if known => {
                self.problem("FAILOVER_AT_TIMESTAMP", "is set, but FAILOVER_TO_LATEST is true; set one of them");
            }
            _ => {}
        }
        Pcr {
            api_key: self.text("COCKROACH_API_SECRET_KEY").map(Secret::new),
            primary_cluster: self.text("PRIMARY_CLUSTER_ID"),
            standby_cluster: self.text("STANDBY_CLUSTER_ID"),
            stream: self.text("PCR_STREAM_ID"),
            failover_at,
        }
    }

    /// A misspelt name of ours would be ignored in silence; other programs' names are none of our business.
    fn check_names(&mut self) {
        let ours = NAMES.iter().copied().filter(|name| name.starts_with("PGPIVOT_"));
        for name in self.variables.keys().filter(|name| name.starts_with("PGPIVOT_")) {
            if !NAMES.contains(&name.as_str())
                && let Some(meant) = nearest(name, ours.clone())
            {
                self.warnings.push(format!("{name} is not a variable of pgpivot; did you mean {meant}?"));
            }
        }
    }
}

fn with_port(text: &str, port: u16) -> Option<HostPort> {
    text.parse().ok().or_else(|| format!("{text}:{port}").parse().ok())
}
