//! Self-hosted clusters as a witness: what the `system` virtual cluster of each side tells of the one that is replicated
//! to it. Sessions are kept between readings.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::streams::Shown;
use super::{Orders, application_name};
use crate::config::{Backend, CockroachSql};
use crate::failover::replication::{Status, Stream, Unread};
use crate::net::resolve::Resolver;
use crate::net::session::{Session, SessionError, Table, Target};
use crate::net::tls::ClientTls;
use crate::net::virtual_cluster::{self as vc, Job, JobStatus, Replication, State};
use crate::types::{BackendName, HostPort, WallTime};

/// A reading has at least this long, whatever the probe's timeout is.
const LEAST: Duration = Duration::from_secs(1);
/// Addresses of one side that are tried in one reading.
const MOST_ADDRESSES: usize = 8;
/// Failover times remembered; far beyond the replications there can be.
const MOST_REMEMBERED: usize = 256;

/// Of a completed stream whose failover nobody here has watched.
const FINISHED: &str = "the moment it was failed over to is not shown any more, only when its job had finished";

/// Reads the replication of one virtual cluster between two backends.
#[derive(Debug)]
pub(super) struct Sql {
    sides: Vec<Arc<Side>>,
    virtual_cluster: String,
    /// Where replications were seen to be failed over to: once over, the cluster does not tell any more.
    failovers: Mutex<HashMap<String, WallTime>>,
}

/// Who our sessions say they are.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    pub(super) daemon: String,
    pub(super) service: String,
    /// For the epoch.
    pub(super) orders: watch::Receiver<Orders>,
}

/// One cluster.
#[derive(Debug)]
struct Side {
    name: BackendName,
    addresses: Vec<HostPort>,
    tls: Arc<ClientTls>,
    settings: CockroachSql,
    timeout: Duration,
    resolver: Arc<Resolver>,
    ours: Ours,
    kept: tokio::sync::Mutex<Option<Session>>,
}

/// What one cluster told.
#[derive(Debug, Clone)]
struct Heard {
    /// `None`: there is no such virtual cluster.
    replication: Option<Replication>,
    /// The newest one that wrote to it.
    job: Option<Job>,
    clock: WallTime,
    /// When its clock was read.
    at: Instant,
}

/// Why one cluster told nothing.
#[derive(Debug, thiserror::Error)]
enum Deaf {
    #[error("no name of it resolves")]
    NoAddress,
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("the login may not read it (42501); in its virtual cluster system, as an administrator, type: {0}")]
    Denied(String),
    #[error(transparent)]
    Unreadable(#[from] vc::Unreadable),
    #[error("its clock cannot be read")]
    NoClock,
    #[error("it did not answer")]
    Ended,
}

impl Sql {
    pub(super) fn new(
        settings: &CockroachSql,
        clusters: Vec<(&Backend, Arc<ClientTls>)>,
        timeout: Duration,
        resolver: Arc<Resolver>,
        ours: Ours,
    ) -> Self {
        let side = |(backend, tls): (&Backend, Arc<ClientTls>)| Side {
            name: backend.name.clone(),
            addresses: backend.addresses.clone(),
            tls,
            settings: settings.clone(),
            timeout: timeout.max(LEAST),
            resolver: Arc::clone(&resolver),
            ours: ours.clone(),
            kept: tokio::sync::Mutex::new(None),
        };
        Self {
            sides: clusters.into_iter().map(side).map(Arc::new).collect(),
            virtual_cluster: settings.virtual_cluster.clone(),
            failovers: Mutex::default(),
        }
    }

    /// This stream, as its standby tells it; or all, as every cluster tells its own.
    pub(super) async fn read(&self, stream: Option<&str>) -> Result<Shown, Unread> {
        match stream {
            Some(id) => self.read_one(id).await,
            None => self.read_all().await,
        }
    }

    async fn read_one(&self, id: &str) -> Result<Shown, Unread> {
        let named = id.split_once('@').and_then(|(name, rest)| Some((name, rest.rsplit_once('#')?.0)));
        let side = named.and_then(|(_, to)| self.sides.iter().find(|side| side.name.as_str() == to));
        let Some(side) = side.filter(|_| named.is_some_and(|(name, _)| name == self.virtual_cluster)) else {
            return Err(unread(format!("stream {id} is of no virtual cluster that is configured"), false));
        };
        let heard = side.hear().await.map_err(|why| unread(format!("{}: {why}", side.name), false))?;
        let clock = Some(heard.clock.plus(heard.at.elapsed()));
        match self.stream(&side.name, &heard)? {
            Some(stream) if stream.id == id => Ok(Shown { streams: vec![stream], clock, partly: false }),
            Some(other) => Err(unread(format!("{} replicates as {} now", side.name, other.id), true)),
            None if heard.replication.is_none() => {
                Err(unread(format!("{} has no virtual cluster {:?}", side.name, self.virtual_cluster), true))
            }
            None => Err(unread(format!("{} tells nothing of stream {id} any more", side.name), false)),
        }
    }

    async fn read_all(&self) -> Result<Shown, Unread> {
        let mut asked = JoinSet::new();
        for side in &self.sides {
            let side = Arc::clone(side);
            asked.spawn(async move {
                let heard = side.hear().await;
                (side.name.clone(), heard)
            });
        }
        let (mut streams, mut clocks, mut deaf) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(joined) = asked.join_next().await {
            match joined {
                Ok((name, Ok(heard))) => {
                    let stream = self.stream(&name, &heard)?;
                    let replicates = stream.as_ref().is_some_and(|stream| stream.status < Status::Completed);
                    clocks.push((replicates, heard.clock, heard.at));
                    streams.extend(stream);
                }
                Ok((name, Err(why))) => deaf.push(format!("{name}: {why}")),
                Err(_) => deaf.push(Deaf::Ended.to_string()),
            }
        }
        // Whoever was not heard may be the standby.
        if !deaf.is_empty() && streams.is_empty() {
            deaf.sort();
            return Err(unread(deaf.join("; "), false));
        }
        let clock = clocks.into_iter().max_by_key(|(standby, ..)| *standby);
        let clock = clock.map(|(_, clock, at)| clock.plus(at.elapsed()));
        Ok(Shown { streams, clock, partly: !deaf.is_empty() })
    }

    /// The stream towards this side. A virtual cluster that is no standby, and was none that is remembered, has none.
    fn stream(&self, to: &BackendName, heard: &Heard) -> Result<Option<Stream>, Unread> {
        let Some(replication) = &heard.replication else { return Ok(None) };
        let Some(from) = self.sides.iter().map(|side| &side.name).find(|name| *name != to) else { return Ok(None) };
        let ready = replication.state == State::Ready;
        let Some(job) = &heard.job else {
            let user = self.sides.first().map_or("", |side| side.settings.login.user.as_str());
            let hint = vc::grant(user);
            let why = format!(
                "{to} shows no replication job ({}): whether it is the one known cannot be told; in its virtual cluster \
                 system, as an administrator, type: {hint}",
                replication.state
            );
            return if ready { Ok(None) } else { Err(unread(why, false)) };
        };
        let id = format!("{}@{to}#{}", self.virtual_cluster, job.id);
        let mut failovers = self.failovers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = replication.failover {
            if failovers.len() >= MOST_REMEMBERED {
                failovers.clear();
            }
            failovers.insert(id.clone(), at);
        }
        let seen = failovers.get(&id).copied();
        let over = job.status == JobStatus::Succeeded || (seen.is_some() && job.status == JobStatus::Going);
        let activated = seen.or(job.finished).filter(|_| ready);
        if ready && job.status == JobStatus::Going && !over {
            // It has completed, and what it completed with is not told yet: a list without it would be no whole one.
            return Err(unread(format!("{to} is ready, and its replication job {} is not over yet", job.id), false));
        }
        if ready && (!over || activated.is_none()) {
            return Ok(None);
        }
        let status = status(&replication.state, job);
        let replicates = status == Status::Replicating;
        Ok(Some(Stream {
            id,
            from: from.clone(),
            to: to.clone(),
            status,
            replicated: replication.replicated.filter(|_| replicates),
            retained: replication.retained.filter(|_| replicates),
            failover_at: replication.failover.filter(|_| status == Status::FailingOver),
            activated,
            trouble: if ready && seen.is_none() {
                Some(FINISHED.into())
            } else {
                trouble(&replication.state, job, status)
            },
        }))
    }
}

/// The first scan counts as starting: nothing can be failed over to yet, and a later state says so when it can. A job that
/// has failed for good comes back in no state.
fn status(state: &State, job: &Job) -> Status {
    match state {
        State::Ready => Status::Completed,
        _ if job.status == JobStatus::Failed => Status::Canceled,
        State::Initializing => Status::Starting,
        State::Replicating => Status::Replicating,
        State::Paused | State::Error => Status::Stalled,
        State::Pending | State::FailingOver => Status::FailingOver,
        State::Other(_) => Status::Unknown,
    }
}

fn trouble(state: &State, job: &Job, status: Status) -> Option<String> {
    let unwell = matches!(status, Status::Stalled | Status::Canceled | Status::Unknown);
    let said = job.error.as_ref().map_or_else(String::new, |error| format!(", job {}: {error}", job.id));
    unwell.then(|| format!("{state}{said}"))
}

impl Side {
    /// Asks on the kept session first, then on a new one; all within the timeout.
    async fn hear(&self) -> Result<Heard, Deaf> {
        let begun = Instant::now();
        let mut kept = self.kept.lock().await;
        if let Some(mut session) = kept.take() {
            // A server that has gone silent on it may answer a newcomer.
            let heard = self.ask(&mut session, begun + self.timeout / 2).await;
            if session.is_usable() {
                *kept = Some(session);
                return heard;
            }
        }
        let deadline = begun + self.timeout;
        let mut session = self.connect(deadline).await?;
        let heard = self.ask(&mut session, deadline).await;
        *kept = Some(session).filter(Session::is_usable);
        heard
    }

    async fn ask(&self, session: &mut Session, deadline: Instant) -> Result<Heard, Deaf> {
        let name = &self.settings.virtual_cluster;
        let replication = match session.query_table(&vc::show_replication(name), deadline).await {
            Ok(table) => Some(vc::replication(&table)?),
            Err(error) if is_unknown(&error) => None,
            Err(error) => return Err(self.denied(error)),
        };
        let job = match &replication {
            Some(_) => vc::newest_job(&self.table(session, vc::JOBS, deadline).await?, name)?,
            None => None,
        };
        let before = Instant::now();
        let table = self.table(session, vc::CLOCK, deadline).await?;
        let told = table.rows.first().and_then(|row| row.first()?.as_deref());
        let clock = told.and_then(vc::hybrid_time).ok_or(Deaf::NoClock)?;
        let at = Instant::now();
        // It read its clock within that time.
        Ok(Heard { replication, job, clock: clock.plus((at - before) / 2), at })
    }

    async fn table(&self, session: &mut Session, sql: &str, deadline: Instant) -> Result<Table, Deaf> {
        session.query_table(sql, deadline).await.map_err(|error| self.denied(error))
    }

    fn denied(&self, error: SessionError) -> Deaf {
        match error.sqlstate() {
            Some("42501") => Deaf::Denied(vc::grant(&self.settings.login.user)),
            _ => Deaf::Session(error),
        }
    }

    /// The first address that lets us in; each has its share of what time is left.
    async fn connect(&self, deadline: Instant) -> Result<Session, Deaf> {
        let mut addresses: Vec<(&HostPort, SocketAddr)> = Vec::new();
        for name in &self.addresses {
            let resolved = tokio::time::timeout_at(deadline, self.resolver.resolve(name)).await;
            addresses.extend(resolved.into_iter().flatten().flatten().map(|address| (name, address)));
        }
        addresses.truncate(MOST_ADDRESSES);
        let mut last = Deaf::NoAddress;
        let mut left = u32::try_from(addresses.len()).unwrap_or(1);
        for (name, address) in addresses {
            let now = Instant::now();
            let share = now + deadline.saturating_duration_since(now) / left.max(1);
            match Session::connect_with(&self.target(&name.host, address), vc::ON_SYSTEM, share).await {
                Ok(session) => return Ok(session),
                Err(error) => last = error.into(),
            }
            left = left.saturating_sub(1);
        }
        Err(last)
    }

    fn target(&self, host: &str, address: SocketAddr) -> Target {
        let epoch = self.ours.orders.borrow().epoch;
        Target {
            address,
            server_name: self.tls.name_for(host),
            tls: Arc::clone(&self.tls),
            login: self.settings.login.clone(),
            application_name: application_name(&self.ours.daemon, &self.ours.service, epoch),
            replication: false,
        }
    }
}

/// There is no virtual cluster of that name.
fn is_unknown(error: &SessionError) -> bool {
    matches!(error.sqlstate(), Some("42704" | "3D000"))
}

fn unread(sentence: String, gone: bool) -> Unread {
    Unread { sentence, gone }
}

#[cfg(test)]
mod tests;
