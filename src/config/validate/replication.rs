//! `[service.NAME.cockroach_cloud]` and `[service.NAME.cockroach_sql]`: where physical cluster replication is read and
//! steered, and what a pair of clusters must be for it. Who promotes is `failover`'s.

use std::time::Duration;

use super::super::raw::{self, Raw, Text};
use super::super::{Backend, CockroachCloud, CockroachSql, Kind, Login, Replication, Service, Target};
use super::section::{Section, shown};
use super::{Problems, form, probe};
use crate::types::{Secret, WallTime};

/// Where CockroachDB Cloud answers.
const API: &str = "https://cockroachlabs.cloud";
/// How often the service says that it refreshes `replicated_time`.
const REFRESH: Duration = Duration::from_secs(30);

/// Which of the tables a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Cloud,
    Sql,
}

impl Table {
    /// The one that counts: with both there is a problem already, and with kind postgres none counts.
    pub(super) fn of(kind: Kind, raw: &raw::Service) -> Option<Self> {
        match (kind, &raw.cockroach_cloud, &raw.cockroach_sql) {
            (Kind::Postgres, ..) | (Kind::Cockroach, None, None) => None,
            (Kind::Cockroach, Some(_), _) => Some(Self::Cloud),
            (Kind::Cockroach, None, Some(_)) => Some(Self::Sql),
        }
    }

    /// Its key, and the promoter's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cloud => "cockroach_cloud",
            Self::Sql => "cockroach_sql",
        }
    }
}

pub(super) fn build(
    service: &str,
    raw: &raw::Service,
    kind: Kind,
    files: &Raw,
    problems: &mut Problems,
) -> Option<Replication> {
    let mut section = Section::new(service, problems);
    let tables = [("cockroach_cloud", raw.cockroach_cloud.is_some()), ("cockroach_sql", raw.cockroach_sql.is_some())];
    if kind == Kind::Postgres && !section.faulty("kind") {
        for (key, _) in tables.into_iter().filter(|(_, there)| *there) {
            section.problem(key, "is never used with kind = \"postgres\"; write kind = \"cockroach\", or remove it");
        }
    }
    if tables.iter().all(|(_, there)| *there) {
        section.problem(
            "cockroach_sql",
            "and cockroach_cloud are both there, and one pair is steered in one way; remove cockroach_sql where the \
             clusters are CockroachDB Cloud's, else the other",
        );
    }
    match Table::of(kind, raw)? {
        Table::Cloud => Some(Replication::Cloud(cloud(service, raw.cockroach_cloud.as_ref()?, files, problems))),
        Table::Sql => Some(Replication::Sql(sql(service, raw.cockroach_sql.as_ref()?, &raw.probe, files, problems))),
    }
}

fn cloud(service: &str, raw: &raw::CockroachCloud, files: &Raw, problems: &mut Problems) -> CockroachCloud {
    let mut section = Section::new(format!("{service}.cockroach_cloud"), problems);
    let s = &mut section;
    let seconds = Duration::from_secs;
    let api_url = match raw.api_url.as_ref().map(|Text(text)| form::api_url(text)) {
        None => API.to_owned(),
        Some(Ok(url)) => url,
        Some(Err(error)) => {
            s.problem("api_url", error.to_string());
            API.to_owned()
        }
    };
    CockroachCloud {
        api_url,
        secret: secret(s, raw, files),
        timeout: s.duration("timeout", &raw.timeout, Duration::from_millis(100)..=seconds(300), seconds(10)),
        stream_id: uuid(s, "stream_id", &raw.stream_id),
        failover_at: failover_at(s, &raw.failover_at),
        refresh: refresh(s, &raw.replicated_time_refresh),
    }
}

fn secret(section: &mut Section<'_>, raw: &raw::CockroachCloud, files: &Raw) -> Secret {
    const KEY: &str = "secret_file";
    let file = section.path(KEY, &raw.secret_file);
    let known = match (&raw.secret, &file) {
        (Some(secret), _) => Some(secret.clone()),
        // Editors leave a line end, and it belongs to the file.
        (None, Some(file)) => files.secret(file).map(|text| {
            let text = text.expose();
            let line = text.strip_suffix('\n').unwrap_or(text);
            Secret::new(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }),
        (None, None) => {
            section.missing(
                KEY,
                "is missing, and the Cloud API answers nobody without the secret key of a service account; write it \
                 into a file and name that in secret_file, or set COCKROACH_API_SECRET_KEY",
            );
            None
        }
    };
    // A file that could not be read is reported already; what stands here then is never used.
    let secret = known.unwrap_or_else(|| Secret::new("-".into()));
    if let Err(error) = form::check_secret(secret.expose()) {
        section.problem(KEY, error.to_string());
    }
    secret
}

fn failover_at(section: &mut Section<'_>, value: &Option<Text>) -> Option<WallTime> {
    let Text(text) = value.as_ref()?;
    let time = form::time(text);
    if time.is_none() {
        section.problem("failover_at", format!("{} {}", shown(text), form::NO_TIME));
    } else {
        let key = section.key("failover_at");
        let name = section.problems.origin(&key).map_or(key.clone(), str::to_owned);
        section.problems.warn(format!(
            "{name}: every automatic failover goes to this one time, and what was written after it is lost; the API \
             refuses it when it is older than what the standby retains. Leave it out to fail over to the latest \
             consistent time"
        ));
    }
    time
}

fn sql(
    service: &str,
    raw: &raw::CockroachSql,
    probe: &raw::Probe,
    files: &Raw,
    problems: &mut Problems,
) -> CockroachSql {
    let base = probe_login(service, probe, files, problems);
    let mut section = Section::new(format!("{service}.cockroach_sql"), problems);
    let s = &mut section;
    CockroachSql {
        login: login(s, raw, probe, base, files),
        virtual_cluster: virtual_cluster(s, &raw.virtual_cluster),
        stop_service: s.flag(&raw.stop_service, true),
        default_target: s.flag(&raw.default_target, true),
        refresh: refresh(s, &raw.replicated_time_refresh),
    }
}

/// The probe's login with its password, also where the probe itself has no use for one.
fn probe_login(service: &str, raw: &raw::Probe, files: &Raw, problems: &mut Problems) -> Login {
    let mut section = Section::new(format!("{service}.probe"), problems);
    probe::login(&mut section, raw, "defaultdb", files)
}

fn login(section: &mut Section<'_>, raw: &raw::CockroachSql, probe: &raw::Probe, base: Login, files: &Raw) -> Login {
    let user = section.text("user", &raw.user);
    let logs_in = matches!(&probe.kind, Some(Text(kind)) if kind == "sql");
    if user.is_none() && probe.user.is_none() && !logs_in {
        section.missing(
            "user",
            "is missing, and a promotion is made by a user with the system privileges MANAGEVIRTUALCLUSTER, \
             REPLICATIONDEST and VIEWJOB; write for example user = \"pgpivot\", or set DB_USERNAME",
        );
    }
    let file = section.path("password_file", &raw.password_file);
    let own = file.and_then(|file| files.secret(&file));
    let own = own.and_then(|text| probe::password(section, "password_file", text));
    // Somebody else's password would only be refused; one that the probe has no user for is this user's.
    let others = user.as_ref().is_some_and(|user| *user != base.user) && (probe.user.is_some() || logs_in);
    let inherited = if others { None } else { base.password };
    Login {
        user: user.unwrap_or(base.user),
        database: section.text("database", &raw.database).unwrap_or(base.database),
        password: own.or(inherited),
    }
}

/// As CockroachDB names them.
fn virtual_cluster(section: &mut Section<'_>, value: &Option<Text>) -> String {
    const DEFAULT: &str = "main";
    let Some(name) = section.text("virtual_cluster", value) else { return DEFAULT.into() };
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let formed = name.len() <= 100
        && name.bytes().all(|c| inner(c) || c == b'-')
        && [name.bytes().next(), name.bytes().last()].into_iter().flatten().all(inner);
    if !formed {
        section.problem(
            "virtual_cluster",
            format!("{} is no name of a virtual cluster; write a-z, 0-9 and \"-\", for example \"main\"", shown(&name)),
        );
    } else if name == "system" {
        section.problem(
            "virtual_cluster",
            "is the one that steers and is never replicated; write the name of the one that applications use",
        );
    }
    name
}

fn refresh(section: &mut Section<'_>, value: &Option<Text>) -> Duration {
    let range = Duration::from_millis(100)..=Duration::from_secs(300);
    section.duration("replicated_time_refresh", value, range, REFRESH)
}

fn uuid(section: &mut Section<'_>, key: &str, value: &Option<Text>) -> Option<String> {
    let Text(text) = value.as_ref()?;
    let uuid = form::uuid(text);
    if uuid.is_none() {
        section.problem(key, form::NO_UUID);
    }
    uuid
}

/// A backend's `cluster_id`: of no use unless the table is `there`, and a must where it counts.
pub(super) fn cluster_id(
    section: &mut Section<'_>,
    service: &str,
    raw: &raw::Backend,
    there: bool,
    counts: bool,
) -> Option<String> {
    const KEY: &str = "cluster_id";
    if raw.cluster_id.is_none() && counts {
        section.missing(
            KEY,
            "is missing, and the Cloud API knows clusters by their UUID; write it as the Cloud Console shows it",
        );
    } else if raw.cluster_id.is_some() && !there {
        section
            .problem(KEY, format!("is never used without [{service}.cockroach_cloud]; write that table, or remove it"));
    }
    uuid(section, KEY, &raw.cluster_id)
}

/// What replication wants of the pair.
pub(super) fn check(path: &str, service: &Service, problems: &mut Problems) {
    let Some(replication) = &service.replication else { return };
    let table = match replication {
        Replication::Cloud(_) => Table::Cloud,
        Replication::Sql(_) => Table::Sql,
    };
    check_pair(path, table, &service.backends, problems);
    for (index, _) in service.listeners.iter().enumerate().filter(|(_, one)| one.target == Target::ReadOnly) {
        problems.add(
            format!("{}.target", raw::listener_path(path, index)),
            format!(
                "is \"read_only\", but a cluster that is replicated to serves nobody; write \"active\", or remove [{path}.{}]",
                table.word()
            ),
        );
    }
    let mut section = Section::new(format!("{path}.failover"), problems);
    if service.failover.standby_serves {
        section.problem(
            "standby_serves",
            format!(
                "is true, but a cluster that is replicated to serves nobody; remove it, or [{path}.{}]",
                table.word()
            ),
        );
    }
    if service.failover.max_replication_lag < replication.refresh() && !section.faulty("max_lag") {
        let time = humantime::format_duration;
        section.problems.warn(format!(
            "{}: \"{}\" is shorter than replicated_time_refresh, \"{}\": the stream seems to lack more most of the time, \
             and then nothing is promoted automatically",
            section.key("max_lag"),
            time(service.failover.max_replication_lag),
            time(replication.refresh())
        ));
    }
}

fn check_pair(path: &str, table: Table, backends: &[Backend], problems: &mut Problems) {
    let there = backends.len();
    // That there is none is said already.
    if there != 2 && there != 0 {
        problems.add(
            format!("{path}.backend"),
            format!(
                "physical cluster replication joins two clusters, and here {} {there}; describe two, or remove [{path}.{}]",
                if there == 1 { "is" } else { "are" },
                table.word()
            ),
        );
    }
    for (index, backend) in backends.iter().enumerate() {
        let same = |other: &&Backend| backend.cluster_id.is_some() && other.cluster_id == backend.cluster_id;
        if let Some(other) = backends[..index].iter().find(same) {
            problems.add(
                format!("{path}.backend.{}.cluster_id", backend.name),
                format!("is also the cluster of backend {}; a cluster is no standby of itself", other.name),
            );
        }
    }
}
