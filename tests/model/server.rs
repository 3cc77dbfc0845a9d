//! A simulated PostgreSQL server: its line of history, its replication, its moods, and what a probe reads from it.
//! Rows are positions on branches: a server holds a row if its line runs through it.

use std::time::Duration;

use pgpivot::failover::observation::{Ancestor, Facts, Receiver, ReceiverRow, Role, SyncState};
use pgpivot::types::{Lsn, SystemId, Timeline, WallTime};

/// How a server behaves towards those who ask it something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Nothing listens.
    Dead,
    /// Every process is stopped: connects succeed or not, nothing answers, nothing is sent.
    Stopped,
    /// The postmaster alone is stopped, or the disk is frozen for newcomers: no new connection, the old ones go on.
    Stuck,
    /// 57P03 "starting up".
    Recovering,
    /// 53300.
    Full,
    /// 57P03 "shutting down".
    ShuttingDown,
    /// 28xxx.
    Locked,
}

impl Mood {
    /// Do walsender and walreceiver run?
    pub fn replicates(self) -> bool {
        matches!(self, Self::Well | Self::Stuck | Self::Full | Self::Locked)
    }

    /// Do sessions that stand get answers?
    pub fn serves_sessions(self) -> bool {
        self.replicates()
    }
}

/// A part of a line that ended at `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    pub branch: u32,
    pub timeline: u32,
    pub until: u64,
}

/// A position on a branch: what was acknowledged to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub branch: u32,
    pub lsn: u64,
}

/// What happens on `pg_promote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotes {
    AtOnce,
    /// After so many milliseconds, whatever is said meanwhile.
    Later(u64),
    Never,
}

/// `pg_stat_wal_receiver`, while there is a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    pub from: usize,
    pub timeline: u32,
    pub lsn: u64,
    /// The sender's clock, microseconds.
    pub sent: i64,
    /// Our clock, microseconds.
    pub received: i64,
    /// World time of the last message.
    pub at: u64,
}

/// Who holds the advisory lock: daemon, its process, the episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub daemon: usize,
    pub process: u32,
    pub episode: u64,
}

/// Something a stopped server will do when it wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    Write { daemon: usize, conn: u64 },
    Promote,
    Freeze,
    Unfreeze,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub mood: Mood,
    pub primary: bool,
    pub system: u64,
    pub branch: u32,
    pub timeline: u32,
    pub past: Vec<Past>,
    /// Flushed here.
    pub flush: u64,
    /// Replayed; a primary's own position.
    pub replay: u64,
    pub replay_paused: bool,
    pub upstream: Option<usize>,
    pub stream: Option<Stream>,
    /// The receiver does not come back before.
    pub reconnect_at: u64,
    /// Bytes at most per message: a slow standby falls behind.
    pub throughput: u64,
    /// Its clock minus the world's, microseconds.
    pub skew: i64,
    /// `wal_receiver_timeout`, milliseconds; 0 = off.
    pub w: u64,
    pub frozen: bool,
    pub holder: Option<Holder>,
    /// A session of somebody we do not see holds the lock.
    pub stranger_holds: bool,
    pub sync_names: String,
    pub readable: bool,
    pub history_readable: bool,
    pub promotes: Promotes,
    pub node: String,
    pub queued: Vec<Queued>,
    /// Names of daemons that are only told of.
    pub ghosts: Vec<String>,
}

/// The world's clock at 0, microseconds since 1970.
pub const DAWN: i64 = 1_800_000_000_000_000;

pub fn micros(ms: u64) -> i64 {
    i64::try_from(ms).unwrap() * 1000
}

impl Server {
    pub fn new(index: usize, w: u64) -> Self {
        Self {
            mood: Mood::Well,
            primary: index == 0,
            system: 77,
            branch: 1,
            timeline: 1,
            past: Vec::new(),
            flush: 10_000,
            replay: 10_000,
            replay_paused: false,
            upstream: (index > 0).then_some(0),
            stream: None,
            reconnect_at: 0,
            throughput: u64::MAX,
            skew: 0,
            w,
            frozen: false,
            holder: None,
            stranger_holds: false,
            sync_names: String::new(),
            readable: true,
            history_readable: true,
            promotes: Promotes::AtOnce,
            node: format!("10.1.0.{}:5432", index + 1),
            queued: Vec::new(),
            ghosts: Vec::new(),
        }
    }

    pub fn clock(&self, now: u64) -> i64 {
        DAWN + micros(now) + self.skew
    }

    /// Does its line run through this row?
    pub fn holds(&self, row: Row) -> bool {
        if row.branch == self.branch {
            return row.lsn <= self.flush;
        }
        self.past.iter().any(|past| past.branch == row.branch && row.lsn <= past.until)
    }

    /// Can a standby that stands on `other`'s line at its position go on along this one?
    fn continues(&self, other: &Server) -> bool {
        self.system == other.system && self.holds(Row { branch: other.branch, lsn: other.flush })
    }

    pub fn promote(&mut self, branch: u32) {
        if self.primary {
            return;
        }
        self.past.push(Past { branch: self.branch, timeline: self.timeline, until: self.flush });
        self.branch = branch;
        self.timeline += 1;
        self.primary = true;
        self.upstream = None;
        self.stream = None;
        self.replay_paused = false;
    }

    /// As after a pg_basebackup from `source`.
    pub fn rebuild(&mut self, source: &Server, of: usize, now: u64) {
        self.mood = Mood::Well;
        self.primary = false;
        self.system = source.system;
        self.branch = source.branch;
        self.timeline = source.timeline;
        self.past.clone_from(&source.past);
        self.flush = source.flush;
        self.replay = source.flush;
        self.upstream = Some(of);
        self.stream = None;
        self.reconnect_at = now;
        self.frozen = false;
        self.holder = None;
        self.queued.clear();
        self.sync_names.clear();
    }

    /// Everything that ends with its processes.
    pub fn die(&mut self) {
        self.mood = Mood::Dead;
        self.stream = None;
        self.holder = None;
        self.stranger_holds = false;
        self.queued.clear();
    }

    pub fn facts(&self, now: u64, nodes: &[String], daemons: Vec<String>) -> Facts {
        let row = self.stream.map(|stream| ReceiverRow {
            streaming: true,
            timeline: Some(Timeline(stream.timeline)),
            lsn: Some(Lsn(stream.lsn)),
            sent: Some(WallTime(stream.sent)),
            received: Some(WallTime(stream.received)),
            sender: Some(nodes[stream.from].clone()),
            application_name: None,
        });
        let receiver = match row {
            _ if self.primary || !self.readable => Receiver::Unknown,
            Some(row) => Receiver::Row(row),
            None => Receiver::Gone,
        };
        let timeline = if self.primary { Some(self.timeline) } else { self.stream.map(|stream| stream.timeline) };
        let history = || {
            let ancestor = |past: &Past| Ancestor { timeline: Timeline(past.timeline), switch_lsn: Lsn(past.until) };
            self.past.iter().map(ancestor).collect()
        };
        Facts {
            role: if self.primary { Role::Primary } else { Role::Standby },
            system_id: Some(SystemId(self.system)),
            timeline: timeline.map(Timeline),
            lsn: Some(Lsn(self.flush)),
            replay_lsn: (!self.primary).then_some(Lsn(self.replay)),
            node: Some(self.node.clone()),
            clock: Some(WallTime(self.clock(now))),
            receiver,
            receiver_timeout: (!self.primary).then_some(Duration::from_millis(self.w)),
            history: (self.primary && self.history_readable).then(history),
            daemons,
            may_promote: Some(true),
            may_read_stats: Some(self.readable),
            sync: self.primary.then(|| SyncState {
                names: self.sync_names.clone(),
                synchronous: Vec::new(),
                commit: "on".into(),
            }),
            standbys: Vec::new(),
        }
    }
}

/// One standby's turn: what it receives from its upstream over a wire that is `up` or not.
pub fn replicate(servers: &mut [Server], index: usize, up: bool, now: u64) {
    let standby = &servers[index];
    let Some(source_index) = standby.upstream.filter(|_| !standby.primary && standby.mood.replicates()) else {
        return;
    };
    let source = servers[source_index].clone();
    let standby = &mut servers[index];
    let talks = source.mood.replicates() && up && source_index != index;
    let follows = source.continues(standby) && (source.primary || source.upstream.is_some());
    if talks && follows {
        let (clock, waits) = (standby.clock(now), now < standby.reconnect_at);
        if standby.stream.is_none() && waits {
            return;
        }
        let reached = source.flush.min(standby.flush.saturating_add(standby.throughput));
        let news = reached > standby.flush;
        if standby.branch != source.branch {
            standby.branch = source.branch;
            standby.timeline = source.timeline;
            standby.past.clone_from(&source.past);
        }
        standby.flush = standby.flush.max(reached);
        let quiet = standby.stream.is_some_and(|s| now.saturating_sub(s.at) < (standby.w / 2).clamp(300, 10_000));
        if news || !quiet || standby.stream.is_none() {
            standby.stream = Some(Stream {
                from: source_index,
                timeline: source.timeline,
                lsn: standby.flush,
                sent: source.clock(now),
                received: clock,
                at: now,
            });
        }
    } else if let Some(stream) = standby.stream {
        let refused = matches!(source.mood, Mood::Dead | Mood::Recovering | Mood::ShuttingDown) && up;
        let silent = standby.w > 0 && now.saturating_sub(stream.at) > standby.w;
        if refused || (talks && !follows) || silent {
            standby.stream = None;
        }
    }
    if !standby.replay_paused {
        standby.replay = standby.flush;
    }
}
