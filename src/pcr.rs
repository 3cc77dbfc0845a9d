//! What operators do to physical cluster replication in CockroachDB Cloud: set a stream up, fail back, disrupt a cluster
//! on purpose, look, and test. Every step looks at what is there first, so that an interrupted one is taken up again by
//! running it again. Asks nobody, prints nothing and moves no traffic: asking is `ctl`'s, traffic the daemon's.

pub mod debug;
pub mod disrupt;
pub mod failback;
pub mod look;
pub mod pair;
pub mod schedule;
pub mod selftest;
pub mod settings;
pub mod setup;
pub mod silence;
pub mod sql;
pub mod survey;
pub mod wait;

use std::time::Duration;

use jiff::Timestamp;

pub use pair::{Direction, Pair, Side, Which};
pub use survey::Survey;
pub use wait::Progress;

use crate::cockroach_cloud::model::{StreamId, StreamStatus};
use crate::cockroach_cloud::{self as cloud, BuildError, Trouble};
use crate::types::{BackendName, ServiceName};

/// How often an order is given that comes too soon, and the longest wait in between.
pub const ORDERS: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why an operation did not come to its end. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API did not say what was asked.
    #[error("{}{}", .0, remedy(.0))]
    Api(Box<cloud::Error>),
    /// The API cannot even be asked.
    #[error("the Cloud API cannot be used: {0}")]
    Client(#[from] BuildError),
    /// There are several.
    #[error("the configuration has {} services; name one with --service: {}", .0.len(), names(.0))]
    WhichService(Vec<ServiceName>),
    /// There is none of that name.
    #[error("the configuration has no service {asked}; it has {}", names(.known))]
    NoSuchService {
        /// As given.
        asked: String,
        /// What there is.
        known: Vec<ServiceName>,
    },
    /// It is no pair of clusters in CockroachDB Cloud.
    #[error(
        "service {0} is not replicated through the CockroachDB Cloud API: set COCKROACH_API_SECRET_KEY, PRIMARY_CLUSTER_ID \
         and STANDBY_CLUSTER_ID, or write [service.{0}.cockroach_cloud]"
    )]
    NotCloud(ServiceName),
    /// Steered by SQL.
    #[error(
        "the clusters of service {0} are self-hosted, and this command is one of the Cloud API: a stream back is made by SQL, \
         and `proxyctl restore` at the daemon says which statements; docs/cockroach.md, \"Back home\""
    )]
    SelfHosted(ServiceName),
    /// Nobody is at home.
    #[error(
        "service {0} does not say which cluster is the primary one; write role = \"primary\" at one of its backends"
    )]
    NoPrimary(ServiceName),
    /// More than one stream could be meant.
    #[error(
        "there are {} streams from {from} to {to} that are not at an end ({}), and only one can be meant: end the wrong one \
         in the Cloud Console, or name the right one in PCR_STREAM_ID",
        .ids.len(), listed(.ids)
    )]
    SeveralStreams {
        /// The cluster they lead from.
        from: BackendName,
        /// The cluster they lead to.
        to: BackendName,
        /// Which.
        ids: Vec<StreamId>,
    },
    /// Another stream than the one that is meant.
    #[error(
        "stream {pinned}, which PCR_STREAM_ID names, {}, and stream {found} leads from {from} to {to}: nothing was done. \
         Set PCR_STREAM_ID (stream_id) to the right one, or remove it",
        state(.status)
    )]
    NotPinned {
        /// The one that is meant.
        pinned: StreamId,
        /// How far it is; `None` = it is not listed.
        status: Option<StreamStatus>,
        /// The other one.
        found: StreamId,
        /// The cluster it leads from.
        from: BackendName,
        /// The cluster it leads to.
        to: BackendName,
    },
    /// A stream of the other direction is in the way.
    #[error("stream {id} leads from {from} to {to} ({status}): {remedy}")]
    OtherWay {
        /// Which.
        id: StreamId,
        /// The cluster it leads from.
        from: BackendName,
        /// The cluster it leads to.
        to: BackendName,
        /// How far it is.
        status: StreamStatus,
        /// What would be right.
        remedy: &'static str,
    },
    /// It lives, and nothing keeps clients from it.
    #[error(
        "{0} serves, and without a daemon nothing keeps clients from it: what they write there after a failover is lost. \
         Nothing was done. Start pgpivot and let it switch over; or stop the applications and say --force"
    )]
    Serves(BackendName),
    /// What it says proves a live server, or nothing.
    #[error(
        "{cluster} is not proven to be dead ({heard}): that comes from a server that lives, or says nothing of it. Nothing \
         was done. Look at the cluster; or stop the applications and say --force"
    )]
    NotDead {
        /// Which.
        cluster: BackendName,
        /// What was heard.
        heard: String,
    },
    /// The stream goes on.
    #[error(
        "{standby} still receives what {primary} commits: stream {id} went on to {replicated}, after the first look at \
         {looked}, so {primary} lives and only this machine does not reach it. Nothing was done. Mend the network; or stop \
         the applications and say --force"
    )]
    StillReceives {
        /// The source.
        primary: BackendName,
        /// The other side.
        standby: BackendName,
        /// Of the stream.
        id: StreamId,
        /// Up to when the other side has everything.
        replicated: Timestamp,
        /// The API's clock then.
        looked: Timestamp,
    },
    /// Too much would be lost.
    #[error(
        "{standby} lacks the last {} s, more than the {} s that max_lag allows: its stream {id} is that far behind, or \
         {primary} has been dead for that long. Nothing was done. Look at both clusters; then stop the applications and say \
         --force",
        .lag.as_secs(), .most.as_secs()
    )]
    Stale {
        /// The source.
        primary: BackendName,
        /// The other side.
        standby: BackendName,
        /// Of the stream.
        id: StreamId,
        /// How far it is behind.
        lag: Duration,
        /// How far it may be.
        most: Duration,
    },
    /// Nobody testifies that it is silent.
    #[error(
        "whether {primary} is dead is not known: its stream {id} does not tell ({why}). Nothing was done. Look at both \
         clusters; then stop the applications and say --force"
    )]
    NoWitness {
        /// The source.
        primary: BackendName,
        /// Of the stream.
        id: StreamId,
        /// Why not.
        why: String,
    },
    /// A failover leads to the other side only.
    #[error("{asked} is not where a failover leads from here: {active} is the active side. {remedy}")]
    NotThere {
        /// As asked for, or where it would lead.
        asked: BackendName,
        /// The active side.
        active: BackendName,
        /// What would be right.
        remedy: &'static str,
    },
    /// What would be erased is in use.
    #[error(
        "{0} is the active side, and the stream would erase it: nothing was done. `proxyctl failback status` shows the way \
         home"
    )]
    WouldEraseActive(BackendName),
    /// Traffic is at home already.
    #[error("{0} is the active side already, so there is nothing to fail back: nothing was done")]
    AtHome(BackendName),
    /// Nobody knows.
    #[error("the daemon has not decided yet which side is active: nothing was done. `proxyctl status` shows why")]
    NoActive,
    /// The order for a stream was lost on the way, and no stream came of it.
    #[error(
        "{0}. No such stream is listed since, so nothing seems to have changed; run it again: it looks before it orders"
    )]
    CreateLost(Box<cloud::Error>),
    /// The order for a failover was lost on the way, and the stream replicates on.
    #[error(
        "{0}. The stream is still REPLICATING, so nothing seems to have changed; run it again: it looks before it orders"
    )]
    PatchLost(Box<cloud::Error>),
    /// The order for a failover was lost on the way, and so is the look at what came of it.
    #[error(
        "{order}. What came of it cannot be read ({look}): `proxyctl failback status` tells as soon as the API answers"
    )]
    Unknown {
        /// How the order failed.
        order: Box<cloud::Error>,
        /// How the look failed.
        look: Box<cloud::Error>,
    },
    /// There is none of that direction.
    #[error("no stream leads from {from} to {to}: {remedy}")]
    NoStream {
        /// From which cluster.
        from: BackendName,
        /// To which cluster.
        to: BackendName,
        /// What would be right.
        remedy: &'static str,
    },
    /// It came to an end that was not the one waited for.
    #[error("stream {id} is {status}: {remedy}")]
    Ended {
        /// Which.
        id: StreamId,
        /// How it ended.
        status: StreamStatus,
        /// What would be right.
        remedy: &'static str,
    },
    /// It may not be failed over yet.
    #[error("stream {id} {why}: nothing was done")]
    NotReady {
        /// Which.
        id: StreamId,
        /// Why.
        why: NotReady,
    },
    /// It goes on, but not while we wait.
    #[error(
        "stream {id} is {status} after {}: it goes on by itself; run the same command again to go on waiting",
        humantime::format_duration(Duration::from_secs(.waited.as_secs()))
    )]
    Late {
        /// Which.
        id: StreamId,
        /// How far it is.
        status: StreamStatus,
        /// How long we did.
        waited: Duration,
    },
    /// Looks do not find it further than the ones before.
    #[error("the streams do not come to rest: `proxyctl failback status` shows where they stand; then run it again")]
    Unsettled,
    /// A cluster that must not be disrupted.
    #[error("{cluster} ({name}) is not disrupted: {why}")]
    Protected {
        /// Which.
        cluster: BackendName,
        /// Its name in the cloud.
        name: String,
        /// Why not.
        why: disrupt::Why,
    },
    /// It has no such region.
    #[error("{cluster} has no region {asked}; it has {known}")]
    NoRegion {
        /// Which.
        cluster: BackendName,
        /// As given.
        asked: String,
        /// What there is.
        known: String,
    },
    /// It is disrupted already, by somebody else.
    #[error("{0} is disrupted already: `proxyctl simulate restore` ends that")]
    DisruptedAlready(BackendName),
    /// A disruption that may still be there.
    #[error("the disruption of {cluster} may still be there{}: end it with `proxyctl simulate restore --cluster {which}`", because(.cause))]
    NotCleared {
        /// Which.
        cluster: BackendName,
        /// What to name it by.
        which: Which,
        /// Why; `None` = the API took the order and shows the disruption all the same.
        cause: Option<Box<cloud::Error>>,
    },
    /// The setting cannot be set like that.
    #[error(transparent)]
    Setting(#[from] settings::SettingError),
    /// SQL said no, or nothing.
    #[error("{what}: {cause}")]
    Sql {
        /// What was tried, and where.
        what: String,
        /// Why it failed.
        cause: Box<crate::net::session::SessionError>,
    },
    /// A name without an address.
    #[error("{host} cannot be looked up: {cause}")]
    Resolve {
        /// Which.
        host: String,
        /// Why.
        cause: crate::net::resolve::ResolveError,
    },
    /// TLS settings that cannot be used.
    #[error(transparent)]
    Tls(Box<crate::net::tls::TlsConfigError>),
}

/// Why a stream may not be failed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Not in a status from which it may be.
    #[error("is {0}, and a failover starts from REPLICATING only")]
    Status(StreamStatus),
    /// The first copy is not complete.
    #[error(
        "has no replicated_time yet: its initial scan is still running, and the other side is of no use before its end"
    )]
    Scanning,
    /// It lacks too much.
    #[error("lacks the last {} s, more than the {} s that max_lag allows", .lag.as_secs(), .most.as_secs())]
    Behind {
        /// How far it is behind.
        lag: Duration,
        /// How far it may be.
        most: Duration,
    },
    /// It does not reach back so far.
    #[error("cannot go to {at}: it retains what is later than {retained} only")]
    TooEarly {
        /// As asked for.
        at: Timestamp,
        /// The earliest moment.
        retained: Timestamp,
    },
    /// Nobody knows so far ahead.
    #[error("cannot go to {at}: the latest moment that the API takes is an hour ahead, {latest}")]
    TooLate {
        /// As asked for.
        at: Timestamp,
        /// The latest moment.
        latest: Timestamp,
    },
}

impl From<cloud::Error> for Error {
    fn from(error: cloud::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl Error {
    /// The call made no sense, or nobody was there to hear it, as opposed to refused or failed.
    pub fn is_misuse_or_unreachable(&self) -> bool {
        match self {
            Self::Api(error) => error.is_unreachable(),
            Self::Client(_)
            | Self::WhichService(_)
            | Self::NoSuchService { .. }
            | Self::NotCloud(_)
            | Self::SelfHosted(_)
            | Self::NoPrimary(_)
            | Self::NoRegion { .. }
            | Self::Resolve { .. }
            | Self::Tls(_) => true,
            Self::Setting(error) => error.is_misuse(),
            Self::Sql { cause, .. } => cause.step == crate::net::session::Step::Connect,
            _ => false,
        }
    }
}

/// How long to wait before an order is given again that was refused because it came too soon, and so took no effect.
/// `None` = it was not, or whoever sits there would wait too long.
pub fn too_soon(error: &cloud::Error) -> Option<Duration> {
    let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
    (error.status() == Some(429) && wait <= LONGEST_WAIT).then_some(wait)
}

/// What to do about an answer of the API, behind its sentence.
pub fn remedy(error: &cloud::Error) -> &'static str {
    match (error.status(), &error.trouble) {
        (_, Trouble::Unreadable { .. }) => {
            "; what answers there is not the API: check COCKROACH_API_URL and what lies between"
        }
        (Some(401), _) => "; the secret key is not accepted: check COCKROACH_API_SECRET_KEY",
        (Some(403), _) => "; the service account needs the role Cluster Admin on both clusters",
        (Some(404), _) => "; the API does not know it: check PRIMARY_CLUSTER_ID, STANDBY_CLUSTER_ID and PCR_STREAM_ID",
        (Some(429), _) => "; too many calls were made with this key: wait a moment and run it again",
        (Some(500..), _) => "; the API is in trouble: run it again in a while",
        (None, Trouble::Unreachable { .. }) => "; check COCKROACH_API_URL and the network",
        _ => "",
    }
}

fn state(status: &Option<StreamStatus>) -> String {
    status.as_ref().map_or_else(|| "is not listed between the two".to_owned(), |status| format!("is {status}"))
}

fn because(cause: &Option<Box<cloud::Error>>) -> String {
    cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

fn listed(ids: &[StreamId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
