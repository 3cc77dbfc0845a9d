//! The environment's names and what they say. A variable's value becomes what the TOML file would have said, under
//! the variable's name when it is wrong. Reads no environment: the map of variables is an argument.

mod dotenv;
mod endpoint;
mod overlay;
mod pcr;
mod servers;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::dotenv::parse as parse_dotenv;
pub use self::endpoint::{SqlEndpoint, parse as parse_endpoint};
use self::pcr::Pcr;
use self::servers::Servers;
use super::raw::problem::{Problem, nearest, shown};
use crate::types::Secret;
use crate::view::url::Url;

/// Every variable that means something, in the order of `.env.example`.
pub const NAMES: [&str; 35] = [
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
    "PGPIVOT_PATRONI_PASSWORD",
    "FAILOVER_HEALTH_CHECK_INTERVAL",
    "HEALTH_CHECK_INTERVAL",
    "HEALTH_CHECK_TIMEOUT",
    "FAILURE_THRESHOLD",
    "FAILOVER_DELAY",
    "ENABLE_PROMETHEUS",
    "PROMETHEUS_PORT",
    "PGPIVOT_ADMIN",
    "STATE_DIRECTORY",
    "PGPIVOT_LOG",
    "PGPIVOT_LOG_FORMAT",
    "COCKROACH_API_SECRET_KEY",
    "COCKROACH_API_URL",
    "PRIMARY_CLUSTER_ID",
    "STANDBY_CLUSTER_ID",
    "PCR_STREAM_ID",
    "FAILOVER_TO_LATEST",
    "FAILOVER_AT_TIMESTAMP",
    "PRIMARY_CLUSTER_ENDPOINT",
    "PRIMARY_SQL_DNS",
    "STANDBY_SQL_DNS",
    "PGPIVOT_URL",
    "PGPIVOT_TOKEN",
];

/// Variables whose value is a secret, or may contain one.
pub const SECRETS: [&str; 8] = [
    "DATABASE_URL",
    "DATABASE_REPLICA_URL",
    "DB_PASSWORD",
    "PGPIVOT_PASSWORD",
    "PGPIVOT_PATRONI_PASSWORD",
    "COCKROACH_API_SECRET_KEY",
    "PRIMARY_CLUSTER_ENDPOINT",
    "PGPIVOT_TOKEN",
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
    patroni_password: Option<Secret>,
    credentials: Option<(String, Secret)>,
    encrypt: Option<bool>,
    interval: Option<Named<Duration>>,
    timeout: Option<Named<Duration>>,
    fall: Option<Named<u64>>,
    delay: Option<Named<Duration>>,
    metrics: Option<Metrics>,
    admin: Option<Named<String>>,
    state_directory: Option<String>,
    pcr: Pcr,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// `ENABLE_PROMETHEUS` and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metrics {
    On(u16),
    Off,
}

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
            patroni_password: reader.text("PGPIVOT_PATRONI_PASSWORD").map(Secret::new),
            credentials: reader.credentials(),
            encrypt: reader.flag("DB_SSL"),
            interval: reader.interval(),
            timeout: reader.duration("HEALTH_CHECK_TIMEOUT", Unit::Seconds),
            fall: reader.number("FAILURE_THRESHOLD"),
            delay: reader.duration("FAILOVER_DELAY", Unit::Seconds),
            metrics,
            // systemd writes all of a unit's state directories into it.
            admin: reader.text("PGPIVOT_ADMIN").map(|address| ("PGPIVOT_ADMIN", address)),
            state_directory: reader.text("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(str::to_owned)),
            pcr: reader.pcr(),
            problems: reader.problems,
            warnings: reader.warnings,
        }
    }
}

impl Env {
    /// `DB_USERNAME` and `DB_PASSWORD`, when both are set.
    pub(in crate::config) fn credentials(&self) -> Option<(String, Secret)> {
        self.credentials.clone()
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
                self.problem(name, format!("{} is neither true nor false; write one of them", shown(&text)));
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
                self.problem(name, format!("{} is not a number of {example}", shown(&text)));
                None
            }
        }
    }

    fn number(&mut self, name: &'static str) -> Option<Named<u64>> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(number) => Some((name, number)),
            Err(_) => {
                self.problem(name, format!("{} is not a whole number; write for example 3", shown(&text)));
                None
            }
        }
    }

    fn port(&mut self, name: &'static str, default: u16) -> u16 {
        match self.text(name).map(|text| (text.parse::<u16>(), text)) {
            None => default,
            Some((Ok(port), _)) if port != 0 => port,
            Some((_, text)) => {
                self.problem(name, format!("{} is not a port; write a number from 1 to 65535", shown(&text)));
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

    /// The application's login, whatever ours is.
    fn credentials(&self) -> Option<(String, Secret)> {
        let user = self.text("DB_USERNAME").or_else(|| self.text("DB_USER"))?;
        Some((user, Secret::new(self.text("DB_PASSWORD")?)))
    }

    fn metrics(&mut self) -> Option<Metrics> {
        let port = self.port("PROMETHEUS_PORT", 8000);
        self.flag("ENABLE_PROMETHEUS").map(|on| if on { Metrics::On(port) } else { Metrics::Off })
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

#[cfg(test)]
mod tests {
    use super::super::raw;
    use super::super::validate::build;
    use super::super::{Backend, Config, Kind, ProbeKind, Service, TlsMode};
    use super::*;

    fn env(variables: &[(&str, &str)]) -> Env {
        Env::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
        build(raw::parse(text), &env(variables), 2)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// Without a file.
    fn alone(variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
        with_file("", variables)
    }

    fn service(variables: &[(&str, &str)]) -> Service {
        let (config, warnings) = alone(variables).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        config.services.into_iter().next().unwrap()
    }

    fn sides(service: &Service) -> Vec<String> {
        let side = |b: &Backend| format!("{} {:?} {:?}", b.name, b.addresses, b.role);
        service.backends.iter().map(side).collect()
    }

    fn login(service: &Service) -> (&str, &str, Option<&str>) {
        match &service.probe.kind {
            ProbeKind::Sql { login } | ProbeKind::Startup { login } => {
                (&login.user, &login.database, login.password.as_ref().map(Secret::expose))
            }
            other => panic!("{other:?} has no login"),
        }
    }

    const FILE: &str =
        "[service.main]\nkind = 'postgres'\n[[service.main.backend]]\nname = 'a'\naddresses = ['db1:5432']\n";

    #[test]
    fn two_urls_make_a_pair_without_a_file() {
        let main = service(&[
            ("DATABASE_URL", "postgres://app:p%40ss@db1.example.com/orders?sslmode=require"),
            ("DATABASE_REPLICA_URL", "postgres://app:p%40ss@db2.example.com:5433/orders?sslmode=require"),
        ]);
        assert_eq!((main.name.as_str(), main.kind), ("main", Kind::Postgres));
        assert_eq!(main.listeners[0].address.to_string(), "127.0.0.1:26257");
        assert_eq!(
            sides(&main),
            [
                "db1-example-com [db1.example.com:5432] Some(Primary)",
                "db2-example-com-5433 [db2.example.com:5433] Some(Standby)"
            ]
        );
        assert_eq!(login(&main), ("app", "orders", Some("p@ss")));
        assert_eq!(main.backends[1].tls.mode, TlsMode::Require);
        assert_eq!(main.failover.promoter.as_str(), "postgres");
    }

    #[test]
    fn parts_and_standbys_make_a_pair_without_a_file() {
        let main = service(&[
            ("DB_HOST", "10.0.0.1"),
            ("DB_PORT", "5433"),
            ("DB_NAME", "app"),
            ("DB_USER", "checker"),
            ("DB_PASSWORD", "secret"),
            ("DB_SSL", "true"),
            ("PGPIVOT_STANDBYS", "10.0.0.2:5433, db3"),
        ]);
        assert_eq!(
            sides(&main),
            [
                "10-0-0-1-5433 [10.0.0.1:5433] Some(Primary)",
                "10-0-0-2-5433 [10.0.0.2:5433] Some(Standby)",
                "db3 [db3:5432] Some(Standby)"
            ]
        );
        assert_eq!(login(&main), ("checker", "app", Some("secret")));
        assert!(main.backends.iter().all(|b| b.tls.mode == TlsMode::Require));
    }

    #[test]
    fn one_url_is_one_server_that_is_only_watched() {
        let main = service(&[("DATABASE_URL", "postgres://app@[::1]:5433/x"), ("DATABASE_REPLICA_URL", " ")]);
        assert_eq!(sides(&main), ["1-5433 [[::1]:5433] Some(Primary)"]);
    }

    #[test]
    fn the_seeds_times_and_counts_win_over_the_file() {
        let file = format!("{FILE}[service.main.probe]\ninterval = '9s'\n");
        let (config, warnings) = with_file(
            &file,
            &[
                ("HEALTH_CHECK_INTERVAL", "30"),
                ("FAILOVER_HEALTH_CHECK_INTERVAL", "30000"),
                ("HEALTH_CHECK_TIMEOUT", "10"),
                ("FAILURE_THRESHOLD", "5"),
                ("FAILOVER_DELAY", "1m"),
            ],
        )
        .unwrap();
        let main = &config.services[0];
        let seconds = Duration::from_secs;
        assert_eq!((main.probe.interval, main.probe.timeout, main.probe.fall), (seconds(30), seconds(10), 5));
        assert_eq!(main.failover.delay, seconds(60));
        assert_eq!(warnings, ["HEALTH_CHECK_INTERVAL is used instead of service.main.probe.interval"]);
    }

    #[test]
    fn milliseconds_are_milliseconds() {
        let main = service(&[("DB_HOST", "db1"), ("FAILOVER_HEALTH_CHECK_INTERVAL", "10000")]);
        assert_eq!(main.probe.interval, Duration::from_secs(10));
    }

    #[test]
    fn a_variable_that_is_wrong_is_named_and_so_is_what_would_be_right() {
        let found = alone(&[
            ("DB_HOST", "postgres://app:hunter2@db1"),
            ("DB_PORT", "0"),
            ("DB_SSL", "maybe"),
            ("PGPIVOT_STANDBYS", "db2,db 3,db2:5432"),
            ("HEALTH_CHECK_INTERVAL", "soon"),
            ("HEALTH_CHECK_TIMEOUT", "600"),
            ("FAILURE_THRESHOLD", "0"),
            ("FAILOVER_DELAY", "7200"),
            ("PROMETHEUS_PORT", "metrics"),
            ("FAILOVER_TO_LATEST", "false"),
            ("FAILOVER_AT_TIMESTAMP", ""),
        ])
        .unwrap_err();
        assert_eq!(
            found,
            [
                "DB_PORT: \"0\" is not a port; write a number from 1 to 65535",
                "DB_HOST: \"…db1\" is not a host; write a name or an address, the port goes into DB_PORT",
                "PGPIVOT_STANDBYS: \"db 3\" is not a host; write for example db2.example.com:5432,db3.example.com:5432",
                "PGPIVOT_STANDBYS: names db2:5432 twice; once is enough",
                "PROMETHEUS_PORT: \"metrics\" is not a port; write a number from 1 to 65535",
                "DB_SSL: \"maybe\" is neither true nor false; write one of them",
                "HEALTH_CHECK_INTERVAL: \"soon\" is not a number of seconds; write for example 30",
                "FAILOVER_TO_LATEST: is false, so a time must be given; set FAILOVER_AT_TIMESTAMP",
                "HEALTH_CHECK_TIMEOUT: \"10m\" is out of range; write \"10ms\" to \"5m\"",
                "FAILURE_THRESHOLD: 0 is out of range; write 1 to 100",
                "FAILOVER_DELAY: \"2h\" is out of range; write \"0s\" to \"1h\"",
            ]
        );
    }

    #[test]
    fn variables_that_contradict_each_other_are_refused() {
        let found = alone(&[
            ("DATABASE_URL", "postgres://app:hunter2@db1/x"),
            ("DATABASE_REPLICA_URL", "postgres://other:hunter2@db2/x"),
            ("DB_HOST", "db9"),
            ("DB_USER", "one"),
            ("DB_USERNAME", "two"),
            ("DB_PASSWORD", "hunter3"),
            ("DB_NAME", "y"),
            ("PGPIVOT_STANDBYS", "db3"),
            ("HEALTH_CHECK_INTERVAL", "30"),
            ("FAILOVER_HEALTH_CHECK_INTERVAL", "10000"),
            ("FAILOVER_TO_LATEST", "true"),
            ("FAILOVER_AT_TIMESTAMP", "2026-01-31T12:00:00Z"),
            ("PRIMARY_SQL_DNS", "crdb.example.com"),
        ])
        .unwrap_err();
        let names: Vec<&str> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "DB_HOST",
                "DATABASE_REPLICA_URL",
                "PGPIVOT_STANDBYS",
                "PRIMARY_SQL_DNS",
                "DB_USERNAME",
                "DB_USER",
                "DB_NAME",
                "DB_PASSWORD",
                "FAILOVER_HEALTH_CHECK_INTERVAL",
                "FAILOVER_AT_TIMESTAMP"
            ]
        );
        assert!(!found.join("\n").contains("hunter"), "{found:?}");
    }

    #[test]
    fn a_standby_needs_a_primary_and_is_not_itself() {
        let found = alone(&[("PGPIVOT_STANDBYS", "db2")]).unwrap_err();
        assert!(found[0].starts_with("PGPIVOT_STANDBYS: names a standby, but no primary is named"), "{found:?}");
        let found = alone(&[("DB_HOST", "db1"), ("PGPIVOT_STANDBYS", "db1:5432")]).unwrap_err();
        assert!(found[0].starts_with("PGPIVOT_STANDBYS: names the same server as DB_HOST"), "{found:?}");
    }

    #[test]
    fn a_time_that_is_none_is_shown_as_it_should_be() {
        let found = with_file(FILE, &[("FAILOVER_AT_TIMESTAMP", "yesterday")]).unwrap_err();
        let expected = "FAILOVER_AT_TIMESTAMP: \"yesterday\" is not a time; write for example 2026-01-31T12:00:00Z";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_pair_in_the_environment_does_not_replace_the_files() {
        let (config, warnings) = with_file(FILE, &[("DATABASE_URL", "postgres://app:x@elsewhere/y")]).unwrap();
        assert_eq!(sides(&config.services[0]), ["a [db1:5432] None"]);
        assert_eq!(login(&config.services[0]).0, "pgpivot");
        assert_eq!(warnings, ["DATABASE_URL is not used: the configuration file names the backends"]);
    }

    #[test]
    fn a_file_without_backends_takes_them_from_the_environment() {
        let file = "[service.orders]\nkind = 'postgres'\n[service.orders.probe]\nuser = 'checker'\nfall = 5\n";
        let (config, _) = with_file(file, &[("DATABASE_URL", "postgres://app:x@db1/y")]).unwrap();
        let orders = &config.services[0];
        assert_eq!((orders.name.as_str(), orders.listeners.len(), orders.probe.fall), ("orders", 0, 5));
        assert_eq!(sides(orders), ["db1 [db1:5432] Some(Primary)"]);
        assert_eq!(login(orders), ("checker", "y", Some("x")));
    }

    #[test]
    fn the_proxys_own_address_is_no_database() {
        let found = alone(&[("DATABASE_URL", "postgres://app@localhost:26257/x")]).unwrap_err();
        assert!(found[0].starts_with("DATABASE_URL: localhost:26257 is where pgpivot itself listens"), "{found:?}");
    }

    #[test]
    fn its_own_password_wins_over_the_applications() {
        let main = service(&[("DB_HOST", "db1"), ("DB_PASSWORD", "apps"), ("PGPIVOT_PASSWORD", "own")]);
        assert_eq!(login(&main).2, Some("own"));
    }

    #[test]
    fn encryption_in_the_environment_never_weakens_the_files() {
        let tls = |mode: &str| format!("{FILE}tls = {{ mode = '{mode}' }}\n");
        let mode = |text: &str, ssl: &str| {
            with_file(text, &[("DB_SSL", ssl)]).map(|(config, _)| config.services[0].backends[0].tls.mode)
        };
        assert_eq!(mode(FILE, "true"), Ok(TlsMode::Require));
        assert_eq!(mode(FILE, "off"), Ok(TlsMode::Disable));
        assert_eq!(mode(&tls("verify-full"), "true"), Ok(TlsMode::VerifyFull));
        assert_eq!(mode(&tls("prefer"), "true"), Ok(TlsMode::Require));
        let at = "service.main.backend.a.tls.mode";
        assert_eq!(
            mode(&tls("disable"), "true"),
            Err(vec![format!("DB_SSL: is true, but {at} is \"disable\"; change one of them")])
        );
        assert_eq!(
            mode(&tls("verify-ca"), "false"),
            Err(vec![format!("DB_SSL: is false, but {at} is \"verify-ca\"; change one of them")])
        );
    }

    #[test]
    fn metrics_and_state_come_from_the_environment_too() {
        let file = format!("[admin]\nmetrics_listen = '127.0.0.1:9000'\n{FILE}");
        let daemon = |variables: &[(&str, &str)]| with_file(&file, variables).unwrap().0;
        let on = daemon(&[("ENABLE_PROMETHEUS", "true"), ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]);
        assert_eq!(on.admin.metrics_listen.unwrap().to_string(), "127.0.0.1:8000");
        assert_eq!(on.state.path.display().to_string(), "/var/lib/a");
        assert_eq!(daemon(&[("ENABLE_PROMETHEUS", "false")]).admin.metrics_listen, None);
        assert_eq!(daemon(&[("PROMETHEUS_PORT", "9")]).admin.metrics_listen.unwrap().port(), 9000);
        let found = with_file(&file, &[("ENABLE_PROMETHEUS", "1"), ("PROMETHEUS_PORT", "8404")]).unwrap_err();
        assert_eq!(
            found,
            ["PROMETHEUS_PORT: 127.0.0.1:8404 is also the address of admin.listen; give each a port of its own"]
        );
    }

    #[test]
    fn the_variables_of_the_log_are_no_misspelt_names() {
        let (_, warnings) = with_file(FILE, &[("PGPIVOT_LOG", "debug"), ("PGPIVOT_LOG_FORMAT", "json")]).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn a_misspelt_name_of_ours_is_said_and_others_are_left_alone() {
        let (_, warnings) = with_file(FILE, &[("PGPIVOT_STANDBY", "db2"), ("PGHOST", "x"), ("DB_HOSTS", "x")]).unwrap();
        assert_eq!(warnings, ["PGPIVOT_STANDBY is not a variable of pgpivot; did you mean PGPIVOT_STANDBYS?"]);
    }

    #[test]
    fn names_of_servers_are_always_names() {
        let long = "x".repeat(63) + "." + &"y".repeat(63) + "." + &"z".repeat(63);
        for host in [long.as_str(), "UPPER.example.com", "_odd_.host", "::1", "::"] {
            alone(&[("DB_HOST", host), ("DB_PORT", "65000")]).unwrap();
        }
    }
}
