//! What a simulated pair knows: two servers with a log, rows, a timeline and sessions, and the replication between
//! them. Pure: time is an argument, sockets are `backend`'s, SQL is `eval`'s.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::types::{Lsn, SystemId, Timeline, WallTime};

/// Between two keepalives of a walsender on an idle pair.
const KEEPALIVE_MICROS: i64 = 500_000;
/// Log bytes of a commit and of a row in it.
const COMMIT_BYTES: u64 = 0x28;
const ROW_BYTES: u64 = 0x60;
/// Where the log of a new pair begins.
const FIRST_LSN: Lsn = Lsn(0x300_0060);
/// Commits kept for the standby; one that is further behind streams no more.
const KEPT_COMMITS: usize = 100_000;

/// One of the two servers. `East` starts as the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first one.
    East,
    /// The second one.
    West,
}

impl Side {
    /// Both, in their order.
    pub const BOTH: [Side; 2] = [Side::East, Side::West];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::East => Side::West,
            Side::West => Side::East,
        }
    }

    /// `east` or `west`: also the standby's name towards its primary.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::East => "east",
            Side::West => "west",
        }
    }
}

/// Both servers.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) system_id: SystemId,
    /// How far behind the standby receives.
    pub(super) lag: Duration,
    addresses: [SocketAddr; 2],
    nodes: [Node; 2],
}

/// One server. What is in it survives a crash, but for its sessions.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) alive: bool,
    pub(super) standby: bool,
    pub(super) timeline: Timeline,
    /// Older timelines and where each one was left, oldest first.
    pub(super) history: Vec<(Timeline, Lsn)>,
    /// Primary: flushed; standby: received and replayed.
    pub(super) lsn: Lsn,
    /// The one table: id and when it was committed.
    pub(super) rows: BTreeMap<i64, WallTime>,
    /// What ALTER SYSTEM set.
    pub(super) settings: BTreeMap<String, String>,
    /// Advisory locks: key and the pid that holds it.
    pub(super) locks: HashMap<i64, u32>,
    pub(super) sessions: BTreeMap<u32, Entry>,
    log: VecDeque<Commit>,
    /// Up to here the log is not kept any more.
    forgotten: Lsn,
}

/// A session as others see it (`pg_stat_activity`).
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) user: String,
    pub(super) application_name: String,
    pub(super) started: WallTime,
    /// Cancelled by `pg_terminate_backend`.
    pub(super) end: CancellationToken,
}

#[derive(Debug, Clone)]
struct Commit {
    lsn: Lsn,
    at: WallTime,
    ids: Vec<i64>,
}

/// What a standby sees of its primary while it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// The primary's position as last told.
    pub(super) latest: Lsn,
    /// When the primary last spoke.
    pub(super) spoke: WallTime,
}

impl Model {
    /// East as primary, West as its standby, both running and empty.
    pub(super) fn new(system_id: SystemId, addresses: [SocketAddr; 2]) -> Self {
        let (mut east, mut west) = (Node::new(Timeline(1)), Node::new(Timeline(1)));
        (east.alive, west.alive, west.standby) = (true, true, true);
        Self { system_id, lag: Duration::ZERO, addresses, nodes: [east, west] }
    }

    /// A server as it is at `now`: what has arrived by then has been received.
    pub(super) fn at(&mut self, side: Side, now: WallTime) -> &mut Node {
        self.replicate(now);
        self.node_mut(side)
    }

    pub(super) fn node(&self, side: Side) -> &Node {
        &self.nodes[side as usize]
    }

    /// Where a server listens, also while it is down.
    pub(super) fn address(&self, side: Side) -> SocketAddr {
        self.addresses[side as usize]
    }

    pub(super) fn node_mut(&mut self, side: Side) -> &mut Node {
        &mut self.nodes[side as usize]
    }

    pub(super) fn is_primary(&self, side: Side) -> bool {
        let node = self.node(side);
        node.alive && !node.standby
    }

    /// Does this server stream from the other one?
    pub(super) fn streams(&self, side: Side) -> bool {
        let (me, upstream) = (self.node(side), self.node(side.other()));
        let both_run = me.alive && me.standby && upstream.alive && !upstream.standby;
        both_run && upstream.timeline == me.timeline && me.lsn >= upstream.forgotten
    }

    /// The receiver of a standby, `None` when it receives nothing.
    pub(super) fn stream(&self, side: Side, now: WallTime) -> Option<Stream> {
        let upstream = self.node(side.other());
        let keepalive = WallTime(now.0 - now.0.rem_euclid(KEEPALIVE_MICROS));
        let spoke = upstream.log.back().map_or(keepalive, |last| last.at.max(keepalive));
        self.streams(side).then_some(Stream { latest: upstream.lsn, spoke: spoke.min(now) })
    }

    /// Ends a server as a crash does. What was not sent to the standby stays with it.
    pub(super) fn kill(&mut self, side: Side, now: WallTime) {
        self.replicate(now);
        let node = self.node_mut(side);
        node.alive = false;
        node.sessions.clear();
        node.locks.clear();
    }

    /// Starts a server as it was: a primary comes back as a primary, on its old timeline.
    pub(super) fn revive(&mut self, side: Side) {
        self.node_mut(side).alive = true;
    }

    /// Makes a server that is down a standby of the other one, as `pg_basebackup` would. `false` when it is up, or
    /// when the other one is no running primary.
    pub(super) fn rebuild(&mut self, side: Side) -> bool {
        if self.node(side).alive || !self.is_primary(side.other()) {
            return false;
        }
        let source = self.node(side.other());
        let mut node = Node::new(source.timeline);
        (node.standby, node.lsn, node.forgotten) = (true, source.lsn, source.lsn);
        (node.history, node.rows) = (source.history.clone(), source.rows.clone());
        *self.node_mut(side) = node;
        true
    }

    fn replicate(&mut self, now: WallTime) {
        for side in Side::BOTH {
            if !self.streams(side) {
                continue;
            }
            let from = self.node(side).lsn;
            let upstream = self.node(side.other());
            let news = upstream.log.iter().rev().take_while(|commit| commit.lsn > from);
            let mut news: Vec<Commit> = news.filter(|commit| commit.at.plus(self.lag) <= now).cloned().collect();
            news.reverse();
            let me = self.node_mut(side);
            for commit in news {
                me.apply(commit);
            }
        }
    }
}

impl Node {
    fn new(timeline: Timeline) -> Self {
        Self {
            alive: false,
            standby: false,
            timeline,
            history: Vec::new(),
            lsn: FIRST_LSN,
            rows: BTreeMap::new(),
            settings: BTreeMap::new(),
            locks: HashMap::new(),
            sessions: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: FIRST_LSN,
        }
    }

    /// Commits these rows. Returns the position of the commit.
    pub(super) fn commit(&mut self, ids: Vec<i64>, now: WallTime) -> Lsn {
        let lsn = Lsn(self.lsn.0 + COMMIT_BYTES + ROW_BYTES * ids.len() as u64);
        self.apply(Commit { lsn, at: now, ids });
        lsn
    }

    /// A standby becomes primary, on a new timeline; `false` when it is one already.
    pub(super) fn promote(&mut self) -> bool {
        if !self.standby {
            return false;
        }
        self.standby = false;
        self.history.push((self.timeline, self.lsn));
        self.timeline = Timeline(self.timeline.0 + 1);
        self.lsn = Lsn(self.lsn.0 + ROW_BYTES);
        true
    }

    fn apply(&mut self, commit: Commit) {
        self.lsn = commit.lsn;
        self.rows.extend(commit.ids.iter().map(|&id| (id, commit.at)));
        self.log.push_back(commit);
        if self.log.len() > KEPT_COMMITS {
            self.forgotten = self.log.pop_front().map_or(self.forgotten, |oldest| oldest.lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::new(SystemId(1), [([127, 0, 0, 1], 5001).into(), ([127, 0, 0, 1], 5002).into()])
    }

    fn second(n: i64) -> WallTime {
        WallTime(n * 1_000_000)
    }

    fn ids(model: &Model, side: Side) -> Vec<i64> {
        model.node(side).rows.keys().copied().collect()
    }

    #[test]
    fn rows_reach_the_standby_after_the_lag_and_not_after_the_primarys_death() {
        let mut model = model();
        model.lag = Duration::from_secs(2);
        let lsn = model.at(Side::East, second(0)).commit(vec![1, 2], second(0));
        model.at(Side::East, second(1)).commit(vec![3], second(1));
        assert!(model.at(Side::West, second(1)).rows.is_empty());
        assert_eq!(model.at(Side::West, second(2)).lsn, lsn);
        assert_eq!(ids(&model, Side::West), [1, 2]);
        model.kill(Side::East, second(2));
        model.at(Side::West, second(9));
        assert_eq!(ids(&model, Side::West), [1, 2], "row 3 was not sent in time");
    }

    #[test]
    fn a_promoted_standby_has_a_new_timeline_and_the_old_primary_comes_back_on_its_own() {
        let mut model = model();
        model.at(Side::East, second(0)).commit(vec![1], second(0));
        assert!(model.stream(Side::West, second(1)).is_some());
        model.kill(Side::East, second(1));
        assert_eq!(model.stream(Side::West, second(1)), None);
        let switch = model.node(Side::West).lsn;
        assert!(model.at(Side::West, second(1)).promote());
        assert!(!model.at(Side::West, second(1)).promote());
        assert_eq!(model.node(Side::West).timeline, Timeline(2));
        assert_eq!(model.node(Side::West).history, [(Timeline(1), switch)]);
        model.revive(Side::East);
        assert!(!model.node(Side::East).standby);
        assert_eq!(model.node(Side::East).timeline, Timeline(1));
        assert!(!model.streams(Side::East) && !model.streams(Side::West));
    }

    #[test]
    fn a_server_is_rebuilt_only_while_it_is_down_and_its_source_is_a_primary() {
        let mut model = model();
        assert!(!model.rebuild(Side::West), "it is up");
        model.kill(Side::East, second(0));
        assert!(!model.rebuild(Side::East), "the other one is a standby");
        model.at(Side::West, second(0)).promote();
        model.at(Side::West, second(0)).commit(vec![7], second(0));
        assert!(model.rebuild(Side::East));
        model.revive(Side::East);
        assert!(model.streams(Side::East));
        model.at(Side::West, second(1)).commit(vec![8], second(1));
        model.at(Side::East, second(1));
        assert_eq!(ids(&model, Side::East), [7, 8]);
    }

    #[test]
    fn an_idle_primary_still_speaks_to_its_standby() {
        let model = model();
        let spoke = |now: i64| model.stream(Side::West, WallTime(now)).map(|stream| stream.spoke.0);
        assert_eq!(spoke(10_400_000), Some(10_000_000));
        assert_eq!(spoke(10_600_000), Some(10_500_000));
    }
}
