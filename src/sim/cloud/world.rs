//! What the simulated cloud knows: its clusters, what they hold and serve, the streams between them. Pure: time is an
//! argument; sockets are `gate`'s, HTTP is `cloud_api`'s, SQL is `tenant`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::cockroach::MAIN;
use super::pace::Pace;
use super::refusal::Refusal;
use super::replication::{Halt, Phase, Rows, Sight, Stream};
use crate::types::WallTime;

/// Rows and streams of everything.
#[derive(Debug)]
pub(in crate::sim) struct World {
    pub(in crate::sim) clusters: Vec<Cluster>,
    pub(in crate::sim) streams: Vec<Stream>,
    /// Does a promoted cluster serve by itself, as in the Cloud? Self-hosted ones wait for START SERVICE.
    pub(in crate::sim) serves_itself: bool,
    /// A failover does not get to its end.
    pub(in crate::sim) stuck: bool,
    pace: Pace,
    /// For the ids of what is created.
    seed: u64,
}

/// One cluster.
#[derive(Debug)]
pub(in crate::sim) struct Cluster {
    pub(in crate::sim) id: String,
    /// As `crdb_internal.cluster_id()` has it: another one than the API's.
    pub(in crate::sim) sql_id: String,
    pub(in crate::sim) name: String,
    pub(in crate::sim) region: String,
    pub(in crate::sim) created: WallTime,
    pub(in crate::sim) updated: WallTime,
    pub(in crate::sim) address: SocketAddr,
    pub(in crate::sim) delete_protection: bool,
    /// Overrides what the API reports: `state`, `operation_status`.
    pub(in crate::sim) reported: (Option<String>, Option<String>),
    /// Cluster settings that were set.
    pub(in crate::sim) settings: BTreeMap<String, String>,
    /// System privileges that nobody has there.
    pub(in crate::sim) revoked: Vec<String>,
    pub(in crate::sim) disruptions: Vec<Disruption>,
    /// All of its nodes are down.
    pub(in crate::sim) crashed: bool,
    /// Does the virtual cluster `main` exist?
    pub(in crate::sim) exists: bool,
    /// Its service mode: shared, or none.
    pub(in crate::sim) shared: bool,
    pub(in crate::sim) rows: Rows,
}

/// A part of a cluster that is cut off on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct Disruption {
    pub(in crate::sim) region: String,
    pub(in crate::sim) whole: bool,
    pub(in crate::sim) azs: Vec<String>,
    pub(in crate::sim) pods: Vec<String>,
}

/// Nodes of every cluster.
const NODES: usize = 3;

impl Cluster {
    /// The whole region is cut off.
    pub(in crate::sim) fn is_disrupted(&self) -> bool {
        self.disruptions.iter().any(|disruption| disruption.whole)
    }

    /// Can anybody reach it?
    pub(in crate::sim) fn is_up(&self) -> bool {
        !self.crashed && !self.is_disrupted()
    }

    /// Pod names, and whether each one lives.
    pub(in crate::sim) fn nodes(&self) -> Vec<(String, bool)> {
        let name = |n: usize| format!("cockroachdb-{n}.{}", self.region);
        let cut = |pod: &String| self.disruptions.iter().any(|disruption| disruption.pods.contains(pod));
        (0..NODES).map(name).map(|pod| (pod.clone(), self.is_up() && !cut(&pod))).collect()
    }
}

impl World {
    pub(in crate::sim) fn new(clusters: Vec<Cluster>, pace: Pace, seed: u64) -> Self {
        Self { clusters, streams: Vec::new(), serves_itself: true, stuck: false, pace, seed }
    }

    /// Everything as it is at `now`. Called before whatever is read or changed.
    pub(in crate::sim) fn advance(&mut self, now: WallTime) {
        for stream in &mut self.streams {
            let (primary, standby) = (&self.clusters[stream.primary], &self.clusters[stream.standby]);
            let sight = Sight {
                connected: primary.is_up() && standby.is_up(),
                standby_up: standby.is_up(),
                stuck: self.stuck,
                source: &primary.rows,
            };
            if let Some(rows) = stream.advance(now, &self.pace, sight) {
                let standby = &mut self.clusters[stream.standby];
                (standby.rows, standby.shared, standby.updated) = (rows, self.serves_itself, now);
            }
        }
    }

    pub(in crate::sim) fn pace(&self) -> Pace {
        self.pace
    }

    pub(in crate::sim) fn set_pace(&mut self, pace: Pace, now: WallTime) {
        self.advance(now);
        self.pace = pace;
        self.advance(now);
    }

    /// Does a cluster serve its clients' virtual cluster?
    pub(in crate::sim) fn serves(&self, cluster: usize) -> bool {
        let here = &self.clusters[cluster];
        here.exists && here.shared && self.inbound(cluster).is_none()
    }

    /// The stream that a cluster is the standby of.
    pub(in crate::sim) fn inbound(&self, cluster: usize) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.is_open() && stream.standby == cluster)
    }

    /// The stream that last wrote to a cluster, also one that has ended.
    pub(in crate::sim) fn last_inbound(&self, cluster: usize) -> Option<&Stream> {
        self.inbound(cluster).or_else(|| self.streams.iter().rev().find(|stream| stream.standby == cluster))
    }

    /// What a cluster holds: of a standby, what has arrived.
    pub(in crate::sim) fn rows(&self, cluster: usize) -> Rows {
        match self.inbound(cluster) {
            Some(stream) => stream.arrived(&self.clusters[stream.primary].rows),
            None => self.clusters[cluster].rows.clone(),
        }
    }

    /// `data_state` and `service_mode` of `main`; `None` = there is none.
    pub(in crate::sim) fn service(&self, cluster: usize) -> Option<(&'static str, &'static str)> {
        let here = &self.clusters[cluster];
        let state = self.inbound(cluster).map_or("ready", Stream::data_state);
        here.exists.then_some((state, if self.serves(cluster) { "shared" } else { "none" }))
    }

    pub(in crate::sim) fn cluster(&self, id: &str) -> Result<usize, Refusal> {
        let found = self.clusters.iter().position(|cluster| cluster.id == id);
        found.ok_or_else(|| Refusal::NoCluster(id.to_owned()))
    }

    pub(in crate::sim) fn stream(&self, id: &str) -> Result<&Stream, Refusal> {
        self.streams.iter().find(|stream| stream.id == id).ok_or(Refusal::NoStream)
    }

    /// Begins a stream: the standby's data are gone at once.
    pub(in crate::sim) fn create(&mut self, primary: usize, standby: usize, now: WallTime) -> Result<&Stream, Refusal> {
        let stream = self.stream_between(primary, standby, now)?;
        self.clusters[standby].exists = true;
        self.begin(stream)
    }

    /// The same, asked for in SQL: the virtual cluster must not be there yet.
    pub(in crate::sim) fn create_replica(&mut self, standby: usize, uri: &str, now: WallTime) -> Result<(), Refusal> {
        let primary = self.source_of(uri)?;
        if self.clusters[standby].exists {
            return Err(Refusal::Exists(MAIN.into()));
        }
        let stream = self.stream_between(primary, standby, now)?;
        self.clusters[standby].exists = true;
        self.begin(stream.asked_for_in_sql(redacted(uri), false)).map(drop)
    }

    /// Makes a former source follow what was once replicated from it.
    pub(in crate::sim) fn start_replication(
        &mut self,
        standby: usize,
        uri: &str,
        now: WallTime,
    ) -> Result<(), Refusal> {
        let primary = self.source_of(uri)?;
        let completed = |stream: &Stream| matches!(stream.phase, Phase::Completed { .. });
        let way = |stream: &Stream| completed(stream) && (stream.primary, stream.standby) == (standby, primary);
        if !self.streams.iter().any(way) {
            return Err(Refusal::NoWayBack);
        }
        if self.serves(standby) {
            return Err(Refusal::Serving(MAIN.into()));
        }
        let stream = self.stream_between(primary, standby, now)?;
        self.begin(stream.asked_for_in_sql(redacted(uri), true)).map(drop)
    }

    /// Fails a stream over; `None` = to the latest replicated time.
    pub(in crate::sim) fn fail_over(
        &mut self,
        id: &str,
        to: Option<WallTime>,
        now: WallTime,
    ) -> Result<WallTime, Refusal> {
        let to = self.stream_mut(id)?.fail_over(to, now)?;
        self.advance(now);
        Ok(to)
    }

    pub(in crate::sim) fn cancel(&mut self, id: &str, now: WallTime) -> Result<(), Refusal> {
        self.stream_mut(id)?.cancel(now)
    }

    /// Replaces what is cut off of a cluster.
    pub(in crate::sim) fn disrupt(
        &mut self,
        cluster: usize,
        new: Vec<Disruption>,
        now: WallTime,
    ) -> Result<(), Refusal> {
        let here = &mut self.clusters[cluster];
        for disruption in &new {
            if disruption.region != here.region {
                return Err(Refusal::NoRegion(disruption.region.clone()));
            }
            if disruption.whole != (disruption.azs.is_empty() && disruption.pods.is_empty()) {
                return Err(Refusal::BadDisruption);
            }
        }
        (here.disruptions, here.updated) = (new, now);
        Ok(())
    }

    /// START SERVICE, STOP SERVICE.
    pub(in crate::sim) fn serve(&mut self, cluster: usize, shared: bool) -> Result<(), Refusal> {
        if !self.clusters[cluster].exists {
            return Err(Refusal::NoCluster(MAIN.into()));
        }
        if shared && self.inbound(cluster).is_some() {
            return Err(Refusal::Replicating(MAIN.into()));
        }
        self.clusters[cluster].shared = shared;
        Ok(())
    }

    /// DROP VIRTUAL CLUSTER: with its data and the stream into it.
    pub(in crate::sim) fn drop_main(&mut self, cluster: usize, now: WallTime) -> Result<(), Refusal> {
        if !self.clusters[cluster].exists {
            return Err(Refusal::NoCluster(MAIN.into()));
        }
        if self.serves(cluster) {
            return Err(Refusal::Serving(MAIN.into()));
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.is_open() && stream.standby == cluster) {
            stream.phase = Phase::Canceled { at: now };
        }
        let here = &mut self.clusters[cluster];
        (here.exists, here.shared, here.rows) = (false, false, Rows::new());
        Ok(())
    }

    /// PAUSE and RESUME REPLICATION.
    pub(in crate::sim) fn halt(&mut self, cluster: usize, halt: Halt) -> Result<(), Refusal> {
        let stream = self.inbound_mut(cluster).ok_or_else(|| Refusal::NotReplicating(MAIN.into()))?;
        match (&stream.phase, stream.halt) {
            (Phase::Failed { .. }, _) => Err(Refusal::JobFailed),
            (Phase::Pending { .. } | Phase::FailingOver { .. }, _) => {
                Err(Refusal::Transition { from: "FAILING_OVER", to: "paused" })
            }
            _ => {
                stream.halt = halt;
                Ok(())
            }
        }
    }

    /// The job of the stream into a cluster fails.
    pub(in crate::sim) fn break_job(&mut self, cluster: usize, now: WallTime) -> Result<(), Refusal> {
        let stream = self.inbound_mut(cluster).ok_or_else(|| Refusal::NotReplicating(MAIN.into()))?;
        stream.break_job(now);
        Ok(())
    }

    /// A stream as if it had been created long ago: caught up but for the lag.
    pub(in crate::sim) fn settle(&mut self, primary: usize, standby: usize, now: WallTime) -> Result<(), Refusal> {
        self.create(primary, standby, self.long_before(now))?;
        self.advance(now);
        Ok(())
    }

    /// A fault: the same beside whatever streams there are, which `create` refuses. Gives its id.
    pub(in crate::sim) fn plant(&mut self, primary: usize, standby: usize, now: WallTime) -> String {
        let (id, job) = (self.next_id(), self.next_job());
        self.streams.push(Stream::new(id.clone(), job, (primary, standby), self.long_before(now)));
        self.advance(now);
        id
    }

    /// A fault: a stream that has not ended becomes CANCELED, wherever it stands.
    pub(in crate::sim) fn break_off(&mut self, id: &str, now: WallTime) -> Result<(), Refusal> {
        let stream = self.stream_mut(id)?;
        if !stream.is_open() {
            return Err(Refusal::Transition { from: stream.status(), to: "CANCELED" });
        }
        stream.phase = Phase::Canceled { at: now };
        Ok(())
    }

    /// A fault: nobody has heard of this stream any more.
    pub(in crate::sim) fn forget(&mut self, id: &str) -> Result<(), Refusal> {
        self.stream(id)?;
        self.streams.retain(|stream| stream.id != id);
        Ok(())
    }

    /// So early that a stream created then has caught up.
    fn long_before(&self, now: WallTime) -> WallTime {
        let age = (self.pace.starting + self.pace.scan).as_micros();
        WallTime(now.0.saturating_sub(i64::try_from(age).unwrap_or(0)))
    }

    /// A new id in the form of a UUID.
    pub(in crate::sim) fn next_id(&mut self) -> String {
        let (a, b) = (self.draw(), self.draw());
        let (one, two, three) = (a >> 32, a >> 16 & 0xffff, a & 0xfff);
        format!("{one:08x}-{two:04x}-4{three:03x}-8{:03x}-{:012x}", b >> 48 & 0xfff, b & 0xffff_ffff_ffff)
    }

    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn stream_between(&mut self, primary: usize, standby: usize, now: WallTime) -> Result<Stream, Refusal> {
        if primary == standby {
            return Err(Refusal::SameCluster);
        }
        let in_use = |stream: &Stream| stream.is_open() && [stream.primary, stream.standby].contains(&standby);
        if self.streams.iter().any(in_use) {
            return Err(Refusal::InUse);
        }
        if !self.serves(primary) {
            return Err(Refusal::SourceNotServing);
        }
        let job = self.next_job();
        Ok(Stream::new(self.next_id(), job, (primary, standby), now))
    }

    fn next_job(&mut self) -> i64 {
        i64::try_from(self.draw() >> 4).unwrap_or(1)
    }

    fn begin(&mut self, stream: Stream) -> Result<&Stream, Refusal> {
        let standby = &mut self.clusters[stream.standby];
        (standby.rows, standby.shared, standby.updated) = (Rows::new(), false, stream.created);
        self.streams.push(stream);
        self.streams.last().ok_or(Refusal::NoStream)
    }

    /// The cluster that a URI leads to.
    fn source_of(&self, uri: &str) -> Result<usize, Refusal> {
        let known = |cluster: &Cluster| host_port(uri) == Some(cluster.address.to_string());
        let found = self.clusters.iter().position(known);
        found.ok_or_else(|| Refusal::NoCluster(redacted(uri)))
    }

    fn stream_mut(&mut self, id: &str) -> Result<&mut Stream, Refusal> {
        self.streams.iter_mut().find(|stream| stream.id == id).ok_or(Refusal::NoStream)
    }

    fn inbound_mut(&mut self, cluster: usize) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.is_open() && stream.standby == cluster)
    }
}

/// `host:port` of a connection URI.
fn host_port(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(host.replace("localhost", "127.0.0.1"))
}

/// A connection URI without its password.
fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return "redacted".to_owned();
    };
    match rest.rsplit_once('@') {
        Some((login, host)) => format!("{scheme}://{}:redacted@{host}", login.split(':').next().unwrap_or_default()),
        None => uri.to_owned(),
    }
}
