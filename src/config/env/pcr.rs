//! The seeds' names for physical cluster replication: how the Cloud API is asked and what a failover goes to. Which
//! clusters make a pair is read in `servers`; here they are laid over the file's tables.

use std::time::Duration;

use super::super::raw::problem::{Problems, shown};
use super::super::raw::{self, Raw, Text, backend_path, service_path};
use super::super::validate::form;
use super::overlay::replace;
use super::{Named, Reader};
use crate::types::Secret;

/// The API's secret key; it is never read trimmed, because what surrounds it would be sent.
pub(super) const SECRET: &str = "COCKROACH_API_SECRET_KEY";
pub(super) const PRIMARY: &str = "PRIMARY_CLUSTER_ID";
pub(super) const STANDBY: &str = "STANDBY_CLUSTER_ID";

/// What the variables say; their form is checked, what they mean together is the validation's business.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pcr {
    secret: Option<Secret>,
    api_url: Option<Named<String>>,
    stream: Option<Named<String>>,
    failover_at: Option<Named<String>>,
    /// `FAILOVER_TO_LATEST=true`: what the file says of a time does not count.
    to_latest: bool,
    primary: Option<Named<String>>,
    standby: Option<Named<String>>,
}

impl Reader<'_> {
    pub(super) fn pcr(&mut self) -> Pcr {
        const AT: &str = "FAILOVER_AT_TIMESTAMP";
        let failover_at =
            self.formed(AT, |text| form::time(text).is_none().then(|| format!("{} {}", shown(text), form::NO_TIME)));
        let to_latest = self.flag("FAILOVER_TO_LATEST");
        match to_latest {
            Some(false) if self.text(AT).is_none() => {
                self.problem("FAILOVER_TO_LATEST", format!("is false, so a time must be given; set {AT}"));
            }
            Some(true) if self.text(AT).is_some() => {
                self.problem(AT, "is set, but FAILOVER_TO_LATEST is true; set one of them");
            }
            _ => {}
        }
        Pcr {
            secret: self.secret(),
            api_url: self.formed("COCKROACH_API_URL", |text| form::api_url(text).err().map(|error| error.to_string())),
            stream: self.uuid("PCR_STREAM_ID"),
            failover_at,
            to_latest: to_latest == Some(true),
            primary: self.uuid(PRIMARY),
            standby: self.uuid(STANDBY),
        }
    }

    /// A text, unless something is wrong with its form.
    fn formed(&mut self, name: &'static str, wrong: impl Fn(&str) -> Option<String>) -> Option<Named<String>> {
        let text = self.text(name)?;
        match wrong(&text) {
            None => Some((name, text)),
            Some(message) => {
                self.problem(name, message);
                None
            }
        }
    }

    /// A wrong one is kept as such: it is not missing, but it may be the secret in the wrong place.
    fn uuid(&mut self, name: &'static str) -> Option<Named<String>> {
        self.text(name)?;
        let found = self.formed(name, |text| form::uuid(text).is_none().then(|| form::NO_UUID.to_owned()));
        Some(found.unwrap_or((name, "?".into())))
    }

    fn secret(&mut self) -> Option<Secret> {
        let text = self.variables.get(SECRET).filter(|text| !text.trim().is_empty())?;
        if let Err(error) = form::check_secret(text) {
            self.problem(SECRET, error.to_string());
        }
        Some(Secret::new(text.clone()))
    }
}

impl Pcr {
    /// Lays it over every table that asks the Cloud API, and says what is of no use. `timeout` is the seeds' for calls
    /// of the API and for checks alike.
    pub(super) fn overlay(&self, raw: &mut Raw, timeout: Option<Named<Duration>>, problems: &mut Problems) {
        let mut used = false;
        for (name, service) in &mut raw.services {
            let path = service_path(name);
            if service.cockroach_cloud.is_some() {
                used = true;
                self.overlay_ids(&path, service, problems);
            }
            if let Some(cloud) = &mut service.cockroach_cloud {
                self.overlay_cloud(&format!("{path}.cockroach_cloud"), cloud, timeout, problems);
            }
        }
        if !used {
            for name in self.names() {
                problems.warn(format!("{name} is not used: no service has a table cockroach_cloud"));
            }
        }
    }

    fn overlay_cloud(
        &self,
        path: &str,
        cloud: &mut raw::CockroachCloud,
        timeout: Option<Named<Duration>>,
        problems: &mut Problems,
    ) {
        let text = |value: &Option<Named<String>>| value.clone().map(|(name, text)| (name, Text(text)));
        let mut set = |key: &str, slot: &mut Option<Text>, value| {
            replace(&format!("{path}.{key}"), slot, value, problems);
        };
        set("api_url", &mut cloud.api_url, text(&self.api_url));
        set("stream_id", &mut cloud.stream_id, text(&self.stream));
        set("failover_at", &mut cloud.failover_at, text(&self.failover_at));
        if cloud.timeout.is_none() {
            let time = |(name, time)| (name, Text(humantime::format_duration(time).to_string()));
            set("timeout", &mut cloud.timeout, timeout.map(time));
        }
        if self.to_latest && self.failover_at.is_none() && cloud.failover_at.take().is_some() {
            problems.warn(format!("FAILOVER_TO_LATEST is used instead of {path}.failover_at"));
        }
        if let Some(secret) = &self.secret {
            if cloud.secret_file.is_some() {
                problems.warn(format!("{SECRET} is used instead of {path}.secret_file"));
            }
            cloud.secret = Some(secret.clone());
            problems.set_by(format!("{path}.secret_file"), SECRET);
        }
    }

    /// By role, where the file tells which backend is which.
    fn overlay_ids(&self, path: &str, service: &mut raw::Service, problems: &mut Problems) {
        for (role, id) in [("primary", &self.primary), ("standby", &self.standby)] {
            let Some((name, id)) = id else { continue };
            // Beside the primary of a pair, who says nothing is the standby.
            let pair = service.backend.len() == 2;
            let has_role = |b: &raw::Backend| match &b.role {
                Some(Text(word)) => word == role,
                None => pair && role == "standby",
            };
            let mut found = service.backend.iter_mut().enumerate().filter(|(_, backend)| has_role(backend));
            match (found.next(), found.next()) {
                (Some((index, backend)), None) => {
                    let at = backend_path(path, index, backend.name.as_ref().map(|Text(name)| name.as_str()));
                    let id = Some((*name, Text(id.clone())));
                    replace(&format!("{at}.cluster_id"), &mut backend.cluster_id, id, problems);
                }
                _ => problems.warn(format!("{name} is not used: {path} has not one backend with role = \"{role}\"")),
            }
        }
    }

    /// What is set, but for what says nothing by itself.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        let named = [&self.api_url, &self.primary, &self.standby, &self.stream, &self.failover_at];
        let secret = self.secret.as_ref().map(|_| SECRET);
        secret.into_iter().chain(named.into_iter().flatten().map(|(name, _)| *name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::validate::build;
    use super::super::super::{
        Backend, CockroachCloud, Config, Kind, ProbeKind, Promoter, Replication, Service, raw as mirror,
    };
    use super::super::Env;

    const KEY: (&str, &str) = ("COCKROACH_API_SECRET_KEY", "CCDB1_hunter2");
    const ONE: (&str, &str) = ("PRIMARY_CLUSTER_ID", "0A1B2C3D-0000-0000-0000-000000000001");
    const TWO: (&str, &str) = ("STANDBY_CLUSTER_ID", "0a1b2c3d-0000-0000-0000-000000000002");
    const DNS: [(&str, &str); 2] =
        [("PRIMARY_SQL_DNS", "p.example.cockroachlabs.cloud"), ("STANDBY_SQL_DNS", "s.example.cockroachlabs.cloud")];

    fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
        let env = Env::parse(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        assert!(!format!("{env:?}").contains("hunter"), "a secret prints itself");
        let found = build(mirror::parse(text), &env, 2);
        found.map_err(|problems| {
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(!said.join("\n").contains("hunter"), "a secret is shown: {said:?}");
            said
        })
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

    fn cloud(service: &Service) -> &CockroachCloud {
        match &service.replication {
            Some(Replication::Cloud(cloud)) => cloud,
            other => panic!("{other:?} is not the Cloud API"),
        }
    }

    fn sides(service: &Service) -> Vec<String> {
        let side = |b: &Backend| format!("{} {:?} {:?} {:?}", b.name, b.addresses, b.role, b.cluster_id);
        service.backends.iter().map(side).collect()
    }

    #[test]
    fn a_secret_and_two_ids_are_a_complete_service_with_the_seeds_timeline() {
        let main = service(&[KEY, ONE, TWO]);
        assert_eq!((main.name.as_str(), main.kind), ("main", Kind::Cockroach));
        assert_eq!(main.listeners[0].address.to_string(), "127.0.0.1:26257");
        assert_eq!(
            sides(&main),
            [
                "primary [] Some(Primary) Some(\"0a1b2c3d-0000-0000-0000-000000000001\")",
                "standby [] Some(Standby) Some(\"0a1b2c3d-0000-0000-0000-000000000002\")"
            ]
        );
        assert_eq!(main.failover.promoter, Promoter::CockroachCloud);
        let asked = cloud(&main);
        assert_eq!((asked.api_url.as_str(), asked.secret.expose()), ("https://cockroachlabs.cloud", KEY.1));
        assert_eq!((asked.stream_id.as_deref(), asked.failover_at), (None, None));
        let (probe, failover) = (&main.probe, &main.failover);
        let times = [probe.interval, probe.fast_interval, probe.timeout, failover.delay, asked.timeout, asked.refresh];
        assert_eq!(times.map(|time| time.as_secs()), [30, 30, 10, 60, 10, 30]);
        assert_eq!((probe.fall, probe.jitter_percent, probe.passive), (3, 0, false));
        let waits =
            [failover.hold_timeout, failover.promote_timeout, failover.verify_wait, failover.max_replication_lag];
        assert_eq!(waits.map(|time| time.as_secs()), [300, 3600, 15, 120]);
        assert!(failover.automatic);
    }

    #[test]
    fn host_names_and_a_login_are_added_and_the_names_stay() {
        let main = service(&[KEY, ONE, TWO, DNS[0], DNS[1], ("DB_USERNAME", "app"), ("DB_PASSWORD", "hunter3")]);
        assert_eq!(
            sides(&main),
            [
                "primary [p.example.cockroachlabs.cloud:26257] Some(Primary) Some(\"0a1b2c3d-0000-0000-0000-000000000001\")",
                "standby [s.example.cockroachlabs.cloud:26257] Some(Standby) Some(\"0a1b2c3d-0000-0000-0000-000000000002\")"
            ]
        );
        // A password in the environment is no reason to log in.
        let ProbeKind::Startup { login } = &main.probe.kind else { panic!("{:?}", main.probe.kind) };
        assert_eq!((login.user.as_str(), login.database.as_str(), &login.password), ("app", "defaultdb", &None));
        let file = "[service.main]\nkind = 'cockroach'\n[service.main.probe]\nkind = 'sql'\n";
        let (config, _) =
            with_file(file, &[KEY, ONE, TWO, ("DB_USERNAME", "app"), ("DB_PASSWORD", "hunter3")]).unwrap();
        let ProbeKind::Sql { login } = &config.services[0].probe.kind else { panic!() };
        assert_eq!(login.password.as_ref().map(|password| password.expose()), Some("hunter3"));
        let endpoint = ("PRIMARY_CLUSTER_ENDPOINT", "postgres://app@p.example.com:26258/shop");
        let main = service(&[KEY, ONE, TWO, endpoint]);
        assert_eq!(main.backends[0].addresses[0].to_string(), "p.example.com:26258");
        assert_eq!(main.backends[1].addresses, []);
    }

    #[test]
    fn host_names_alone_are_routed_and_keep_the_names_that_latches_have() {
        let main = service(&[DNS[0], DNS[1]]);
        assert_eq!(
            sides(&main),
            [
                "p-example-cockroachlabs-cloud [p.example.cockroachlabs.cloud:26257] Some(Primary) None",
                "s-example-cockroachlabs-cloud [s.example.cockroachlabs.cloud:26257] Some(Standby) None"
            ]
        );
        assert_eq!((main.failover.promoter, main.replication), (Promoter::None, None));
    }

    #[test]
    fn every_variable_of_the_seeds_reaches_its_setting() {
        let (config, warnings) = alone(&[
            KEY,
            ONE,
            TWO,
            ("COCKROACH_API_URL", "http://127.0.0.1:9000/"),
            ("PCR_STREAM_ID", "0A1B2C3D-0000-0000-0000-000000000003"),
            ("FAILOVER_TO_LATEST", "false"),
            ("FAILOVER_AT_TIMESTAMP", "2026-01-31T12:00:00+00:00"),
            ("HEALTH_CHECK_INTERVAL", "20"),
            ("HEALTH_CHECK_TIMEOUT", "5"),
            ("FAILURE_THRESHOLD", "4"),
            ("FAILOVER_DELAY", "30"),
            ("ENABLE_PROMETHEUS", "true"),
            ("PROMETHEUS_PORT", "8001"),
        ])
        .unwrap();
        let main = &config.services[0];
        let asked = cloud(main);
        assert_eq!(asked.api_url, "http://127.0.0.1:9000");
        assert_eq!(asked.stream_id.as_deref(), Some("0a1b2c3d-0000-0000-0000-000000000003"));
        assert_eq!(asked.failover_at, super::form::time("2026-01-31T12:00:00Z"));
        let times = [main.probe.interval, main.probe.timeout, main.failover.delay, asked.timeout];
        assert_eq!((times.map(|time| time.as_secs()), main.probe.fall), ([20, 5, 30, 5], 4));
        assert_eq!(config.admin.metrics_listen.unwrap().to_string(), "127.0.0.1:8001");
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("FAILOVER_AT_TIMESTAMP: every automatic"),
            "{warnings:?}"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_by_its_variable_and_never_shown() {
        let found = alone(&[
            ("COCKROACH_API_SECRET_KEY", " CCDB1_hunter2\n"),
            ("COCKROACH_API_URL", "https://app:hunter2@cockroachlabs.cloud"),
            ("PRIMARY_CLUSTER_ID", "CCDB1_hunter2"),
            ("STANDBY_CLUSTER_ID", "hunter2"),
            ("PCR_STREAM_ID", "hunter2"),
            ("FAILOVER_AT_TIMESTAMP", "noon"),
            ("PRIMARY_SQL_DNS", "p example"),
            ("STANDBY_SQL_DNS", "https://s.example.com"),
            ("FAILURE_THRESHOLD", "three"),
        ])
        .unwrap_err();
        let no_uuid = super::form::NO_UUID;
        assert_eq!(
            found,
            [
                "PRIMARY_SQL_DNS: \"p example\" is not a host; write host or host:port".to_owned(),
                "STANDBY_SQL_DNS: \"https://s.example.com\" is not a host; write host or host:port".into(),
                "FAILURE_THRESHOLD: \"three\" is not a whole number; write for example 3".into(),
                "FAILOVER_AT_TIMESTAMP: \"noon\" is not a time; write for example 2026-01-31T12:00:00Z".into(),
                "COCKROACH_API_SECRET_KEY: has spaces or line ends around it; write the secret key and nothing else"
                    .into(),
                "COCKROACH_API_URL: has a user or password in it; the secret key goes into secret_file or \
                 COCKROACH_API_SECRET_KEY"
                    .into(),
                format!("PCR_STREAM_ID: {no_uuid}"),
                format!("PRIMARY_CLUSTER_ID: {no_uuid}"),
                format!("STANDBY_CLUSTER_ID: {no_uuid}"),
            ]
        );
        for secret in ["'CCDB1_hunter2'", "Bearer CCDB1_hunter2", "CCDB1_hunter2\nCCDB1_hunter3"] {
            let found = alone(&[("COCKROACH_API_SECRET_KEY", secret), ONE, TWO]).unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with("COCKROACH_API_SECRET_KEY: has "), "{found:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_by_its_variable() {
        let names = |variables: &[(&str, &str)]| -> Vec<String> {
            let found = alone(variables).unwrap_err();
            assert!(found.iter().all(|line| line.contains(": is missing, and ")), "{found:?}");
            found.iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(&[KEY]), [ONE.0, TWO.0]);
        assert_eq!(names(&[KEY, ONE]), [TWO.0]);
        assert_eq!(names(&[KEY, TWO]), [ONE.0]);
        assert_eq!(names(&[ONE, TWO]), [KEY.0]);
        assert_eq!(names(&[ONE]), [TWO.0, KEY.0]);
        assert_eq!(names(&[KEY, DNS[0], DNS[1]]), [ONE.0, TWO.0]);
        let found = alone(&[DNS[1]]).unwrap_err();
        assert_eq!(found[0], "STANDBY_SQL_DNS: names a standby, but no primary is named; set PRIMARY_SQL_DNS too");
    }

    #[test]
    fn variables_that_contradict_each_other_are_named_both() {
        let found = |more: &[(&str, &str)]| alone(&[&[KEY, ONE, TWO], more].concat()).unwrap_err();
        assert_eq!(
            found(&[("FAILOVER_TO_LATEST", "false")]),
            ["FAILOVER_TO_LATEST: is false, so a time must be given; set FAILOVER_AT_TIMESTAMP"]
        );
        assert_eq!(
            found(&[("FAILOVER_TO_LATEST", "true"), ("FAILOVER_AT_TIMESTAMP", "2026-01-31T12:00:00Z")]),
            ["FAILOVER_AT_TIMESTAMP: is set, but FAILOVER_TO_LATEST is true; set one of them"]
        );
        assert_eq!(
            found(&[("DATABASE_URL", "postgres://app:hunter2@db1/x")]),
            ["PRIMARY_CLUSTER_ID: names a second pair beside DATABASE_URL; set one of them"]
        );
        assert_eq!(
            alone(&[KEY, ONE, ("STANDBY_CLUSTER_ID", ONE.1)]).unwrap_err(),
            ["STANDBY_CLUSTER_ID: is also the cluster of backend primary; a cluster is no standby of itself"]
        );
    }

    const FILE: &str = "[service.main]\nkind = 'cockroach'\n[service.main.cockroach_cloud]\nsecret_file = '/s'\n\
        failover_at = '2026-01-31T12:00:00Z'\ntimeout = '20s'\n\
        [[service.main.backend]]\nname = 'east'\nrole = 'primary'\n\
        [[service.main.backend]]\nname = 'west'\n\
        cluster_id = '0a1b2c3d-0000-0000-0000-000000000009'\n";

    #[test]
    fn the_environment_wins_over_the_files_table_and_says_so() {
        let variables = [KEY, ONE, TWO, ("FAILOVER_TO_LATEST", "true"), ("HEALTH_CHECK_TIMEOUT", "5")];
        let (config, warnings) = with_file(FILE, &variables).unwrap();
        let main = &config.services[0];
        assert_eq!(
            sides(main),
            [
                "east [] Some(Primary) Some(\"0a1b2c3d-0000-0000-0000-000000000001\")",
                "west [] None Some(\"0a1b2c3d-0000-0000-0000-000000000002\")"
            ]
        );
        let asked = cloud(main);
        assert_eq!((asked.secret.expose(), asked.failover_at, asked.timeout.as_secs()), (KEY.1, None, 20));
        assert_eq!(
            warnings,
            [
                "STANDBY_CLUSTER_ID is used instead of service.main.backend.west.cluster_id",
                "FAILOVER_TO_LATEST is used instead of service.main.cockroach_cloud.failover_at",
                "COCKROACH_API_SECRET_KEY is used instead of service.main.cockroach_cloud.secret_file"
            ]
        );
    }

    #[test]
    fn what_no_table_uses_is_said_and_stops_nothing() {
        let postgres =
            "[service.main]\nkind = 'postgres'\n[[service.main.backend]]\nname = 'a'\naddresses = ['db1:5432']\n";
        let (_, warnings) =
            with_file(postgres, &[KEY, ("PCR_STREAM_ID", ONE.1), ("FAILOVER_TO_LATEST", "true")]).unwrap();
        let unused = |name: &str| format!("{name} is not used: no service has a table cockroach_cloud");
        assert_eq!(warnings, [unused("COCKROACH_API_SECRET_KEY"), unused("PCR_STREAM_ID")]);
        let (config, warnings) = alone(&[KEY, ("DATABASE_URL", "postgres://app:x@db1/x")]).unwrap();
        assert_eq!(config.services[0].kind, Kind::Postgres);
        assert_eq!(warnings, [unused("COCKROACH_API_SECRET_KEY")]);
    }
}
