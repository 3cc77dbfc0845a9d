//! Looks at a pair of clusters from outside: the API's record of each, the answer of each to a hello over SQL, and the
//! streams between them. Judges nothing but what an answer means; changes nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::io::Errno;
use serde::Serialize;
use tokio::time::Instant;

use super::pair::anonymous;
use super::{Direction, Error, Pair, Side, Survey, Which};
use crate::cockroach_cloud::model::{
    Cluster, ClusterState, DeleteProtection, OperationStatus, Plan, ReplicationStream, StreamFilter, StreamStatus,
};
use crate::cockroach_cloud::{self as cloud};
use crate::config::{Login, Tls, TlsMode};
use crate::net::resolve::Resolver;
use crate::net::session::{Cause, Session, SessionError, Step, Target};
use crate::net::tls::ClientTls;
use crate::types::{BackendName, HostPort, ServiceName};

/// The SQL port of a cluster; the API names hosts only.
const SQL_PORT: u16 = 26257;
/// What we are called in the clusters.
const APPLICATION: &str = "proxyctl";

/// Everything there is to see.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairView {
    /// The service they serve.
    pub service: ServiceName,
    /// The active side, by the streams; `None` = they cannot be read.
    pub promoted_last: Option<BackendName>,
    /// Primary first.
    pub clusters: Vec<ClusterView>,
    /// Those between the two, the newest last.
    pub streams: Vec<StreamView>,
    /// Why the streams cannot be read.
    pub trouble: Option<String>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterView {
    /// What the configuration calls it.
    pub name: BackendName,
    /// Its configured role.
    pub role: Which,
    /// What the API calls it.
    pub id: String,
    /// The API's record; it says nothing of SQL.
    pub record: Option<Record>,
    /// Why there is no record.
    pub trouble: Option<String>,
    /// What it answers; `None` = no address of it is known.
    pub sql: Option<Sql>,
}

/// The API's record of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Its name in the cloud.
    pub name: String,
    /// As the control plane has it.
    pub state: ClusterState,
    /// What the vendor is doing to it.
    pub operation: OperationStatus,
    /// Of CockroachDB.
    pub version: String,
    /// What was bought.
    pub plan: Plan,
    /// The provider's codes.
    pub regions: Vec<String>,
    /// Whether it can be deleted.
    pub delete_protection: DeleteProtection,
}

/// An answer over SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sql {
    /// As configured, or as the API names it.
    pub address: HostPort,
    /// What it means.
    pub answer: Answer,
    /// In words.
    pub said: String,
}

/// What an answer to a hello means; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It serves: it asks for a password, or lets us in.
    Serving,
    /// It lives and has too many sessions (53300).
    Full,
    /// One of its nodes is being shut down (57P01).
    Draining,
    /// It lives and does not serve this virtual cluster (08000): a standby.
    NotServing,
    /// Something answers, and it is none of the above.
    Other,
    /// The connection breaks off without a word, or there is no way to it.
    Lost,
    /// Nobody listens.
    Refused,
    /// Nothing is heard in time.
    Silent,
    /// The name has no address, or the settings for it cannot be used.
    Unknown,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamView {
    /// Its id.
    pub id: String,
    /// The cluster it leads from.
    pub from: BackendName,
    /// The cluster it leads to.
    pub to: BackendName,
    /// How far it is.
    pub status: StreamStatus,
    /// How far it is behind, seconds; only while it replicates.
    pub lag_seconds: Option<u64>,
    /// Up to when the other side has everything.
    pub replicated_time: Option<Timestamp>,
    /// The earliest moment that a failover may go to.
    pub retained_time: Option<Timestamp>,
    /// As of when the other side was activated.
    pub activated_at: Option<Timestamp>,
}

/// Reads all streams between the two clusters.
pub async fn survey(pair: &Pair) -> Result<Survey, cloud::Error> {
    let filter = StreamFilter { cluster: Some(pair.primary.id), show_completed: Some(true), ..StreamFilter::default() };
    let reply = pair.client.streams(&filter).await?;
    let ours = |stream: &ReplicationStream| pair.direction(stream).is_some();
    Ok(Survey { streams: reply.value.into_iter().filter(ours).collect(), date: reply.date })
}

/// Reads everything, both clusters at once. What cannot be read is said in its place.
pub async fn view(pair: &Pair) -> PairView {
    let (primary, standby, survey) =
        tokio::join!(cluster(pair, Which::Primary), cluster(pair, Which::Standby), survey(pair));
    let mut streams: Vec<StreamView> = survey.iter().flat_map(|survey| stream_views(pair, survey)).collect();
    streams.sort_by_key(|stream| (stream.activated_at, stream.id.clone()));
    streams.sort_by_key(|stream| !matches!(stream.status, StreamStatus::Completed | StreamStatus::Canceled));
    PairView {
        service: pair.service.clone(),
        promoted_last: survey.as_ref().ok().map(|survey| pair.side(survey.active(pair)).name.clone()),
        clusters: vec![primary, standby],
        streams,
        trouble: survey.err().map(|error| Error::from(error).to_string()),
    }
}

/// Reads one cluster.
pub async fn cluster(pair: &Pair, which: Which) -> ClusterView {
    let side = pair.side(which);
    let view = |record, trouble, sql| ClusterView {
        name: side.name.clone(),
        role: which,
        id: side.id.to_string(),
        record,
        trouble,
        sql,
    };
    let record = async { pair.client.cluster(side.id).await.map(|reply| reply.value) };
    if !side.addresses.is_empty() {
        let (record, sql) = tokio::join!(record, sql(pair, side, &side.addresses));
        let (record, trouble) = apart(record);
        return view(record.as_ref().map(Record::of), trouble, sql);
    }
    let (record, trouble) = apart(record.await);
    let learned: Vec<HostPort> = record.iter().filter_map(sql_address).collect();
    view(record.as_ref().map(Record::of), trouble, sql(pair, side, &learned).await)
}

fn apart(read: Result<Cluster, cloud::Error>) -> (Option<Cluster>, Option<String>) {
    match read {
        Ok(cluster) => (Some(cluster), None),
        Err(error) => (None, Some(Error::from(error).to_string())),
    }
}

/// Where a cluster speaks SQL: as configured, else by its record.
pub async fn addresses(pair: &Pair, which: Which) -> Result<Vec<HostPort>, cloud::Error> {
    let side = pair.side(which);
    if !side.addresses.is_empty() {
        return Ok(side.addresses.clone());
    }
    let record = pair.client.cluster(side.id).await?;
    Ok(sql_address(&record.value).into_iter().collect())
}

/// Says hello at every address; the best answer counts. `None` = there is no address.
pub async fn sql(pair: &Pair, side: &Side, addresses: &[HostPort]) -> Option<Sql> {
    let resolver = Resolver::default();
    let mut best: Option<Sql> = None;
    for address in addresses {
        let (answer, said) = hello(pair, side, address, &resolver).await;
        if best.as_ref().is_none_or(|best| answer < best.answer) {
            best = Some(Sql { address: address.clone(), answer, said });
        }
        if answer == Answer::Serving {
            break;
        }
    }
    best
}

/// Where a cluster speaks SQL, by its record.
pub fn sql_address(cluster: &Cluster) -> Option<HostPort> {
    let regional = cluster.regions.iter().map(|region| &region.sql_dns);
    let host = cluster.sql_dns.iter().chain(regional).find(|host| !host.is_empty())?;
    host.parse().or_else(|_| format!("{host}:{SQL_PORT}").parse()).ok()
}

async fn hello(pair: &Pair, side: &Side, address: &HostPort, resolver: &Resolver) -> (Answer, String) {
    answer(address, &side.tls, &pair.login, pair.timeout, resolver).await
}

/// Says hello to whoever is at these addresses, encrypted if that is offered; the best answer counts.
pub async fn greeted(hosts: &[HostPort], timeout: Duration) -> Answer {
    let resolver = Resolver::default();
    let tls = Tls { mode: TlsMode::Prefer, ca_file: None, server_name: None };
    let mut best = Answer::Unknown;
    for host in hosts {
        best = best.min(answer(host, &tls, &anonymous(), timeout, &resolver).await.0);
    }
    best
}

/// Says hello at one name, at each of its addresses; no password is sent.
async fn answer(name: &HostPort, tls: &Tls, login: &Login, timeout: Duration, resolver: &Resolver) -> (Answer, String) {
    let client_tls = match ClientTls::build(tls) {
        Ok(tls) => tls,
        Err(error) => return (Answer::Unknown, error.to_string()),
    };
    let deadline = Instant::now() + timeout;
    let addresses = match tokio::time::timeout_at(deadline, resolver.resolve(name)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return (Answer::Unknown, error.to_string()),
        Err(_) => return (Answer::Unknown, "no name server answered in time".into()),
    };
    let target = |address| Target {
        address,
        server_name: tls.server_name.clone().unwrap_or_else(|| name.host.to_string()),
        tls: Arc::clone(&client_tls),
        login: Login { password: None, ..login.clone() },
        application_name: APPLICATION.to_owned(),
        replication: false,
    };
    let mut best = (Answer::Unknown, "it has no address".to_owned());
    for (n, ip) in addresses.iter().enumerate() {
        // Each address has its share of the time that is left.
        let left = deadline.saturating_duration_since(Instant::now()) / u32::try_from(addresses.len() - n).unwrap_or(1);
        let found = greet(&target(*ip), Instant::now() + left).await;
        if found.0 < best.0 {
            best = found;
        }
        if best.0 == Answer::Serving {
            break;
        }
    }
    best
}

async fn greet(target: &Target, deadline: Instant) -> (Answer, String) {
    match Session::greet(target, deadline).await {
        Ok(()) => (Answer::Serving, "it serves".into()),
        Err(error) => classify(&error),
    }
}

/// What a failed hello says.
fn classify(error: &SessionError) -> (Answer, String) {
    let answer = match (error.sqlstate(), &error.cause) {
        // A password is asked for and refused: logins are served.
        (Some("28P01"), _) => Answer::Serving,
        (Some("08000"), _) => Answer::NotServing,
        (Some("57P01" | "57P03"), _) => Answer::Draining,
        (Some("53300"), _) => Answer::Full,
        (None, Cause::Io { kind: std::io::ErrorKind::ConnectionRefused, .. }) if error.step == Step::Connect => {
            Answer::Refused
        }
        (None, Cause::TimedOut) => Answer::Silent,
        (None, Cause::Io { code, .. }) if is_ours(*code) => Answer::Unknown,
        (None, Cause::Io { .. } | Cause::Closed | Cause::PostmasterDied) => Answer::Lost,
        _ => Answer::Other,
    };
    (answer, error.to_string())
}

/// This machine has no more sockets or memory: nothing was learned.
fn is_ours(code: Option<i32>) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN];
    code.is_some_and(|code| ours.contains(&Errno::from_raw_os_error(code)))
}

impl Answer {
    /// Nobody was there to answer, or a cluster that says that it does not serve. All else comes from a server that lives,
    /// or says nothing.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Lost | Self::Refused | Self::Silent | Self::NotServing)
    }

    /// A server was heard, whether it serves or not.
    pub fn lives(self) -> bool {
        !matches!(self, Self::Lost | Self::Refused | Self::Silent | Self::Unknown)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Serving => "serves",
            Self::Full => "full (53300)",
            Self::Draining => "draining (57P01)",
            Self::NotServing => "does not serve (08000)",
            Self::Other => "answers oddly",
            Self::Lost => "breaks off",
            Self::Refused => "refuses connections",
            Self::Silent => "silent",
            Self::Unknown => "cannot be tried",
        }
    }
}

impl Record {
    fn of(cluster: &Cluster) -> Self {
        Self {
            name: cluster.name.clone(),
            state: cluster.state.clone(),
            operation: cluster.operation_status.clone(),
            version: cluster.cockroach_version.clone(),
            plan: cluster.plan.clone(),
            regions: cluster.regions.iter().map(|region| region.name.clone()).collect(),
            delete_protection: cluster.delete_protection.clone(),
        }
    }
}

/// The streams as they are shown.
pub fn stream_views(pair: &Pair, survey: &Survey) -> Vec<StreamView> {
    let view = |stream: &ReplicationStream| stream_view(pair, survey, stream);
    survey.streams.iter().filter_map(view).collect()
}

fn stream_view(pair: &Pair, survey: &Survey, stream: &ReplicationStream) -> Option<StreamView> {
    let direction: Direction = pair.direction(stream)?;
    Some(StreamView {
        id: stream.id.to_string(),
        from: pair.from(direction).name.clone(),
        to: pair.to(direction).name.clone(),
        status: stream.status.clone(),
        lag_seconds: survey.lag(stream).filter(|_| stream.status == StreamStatus::Replicating).map(|lag| lag.as_secs()),
        replicated_time: stream.replicated_time,
        retained_time: stream.retained_time,
        activated_at: stream.activated_at,
    })
}
