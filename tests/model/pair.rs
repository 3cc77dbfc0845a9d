//! What no single daemon can see: which rows were acknowledged and where they are, and who promoted whom from which
//! line. The end-to-end promises are kept here.

use std::collections::BTreeMap;

use pgpivot::failover::action::Event;
use pgpivot::failover::phase::{EpisodeKind, Record};

use crate::daemon::{Conn, index_of};
use crate::laws::{Breach, Law};
use crate::scenario::NAMES;
use crate::server::{Row, Server};
use crate::world::World;

/// A row that a client was told is safe.
#[derive(Debug, Clone)]
struct Acked {
    daemon: usize,
    server: usize,
    epoch: u64,
    row: Row,
}

#[derive(Debug, Clone)]
struct Promotion {
    server: usize,
    daemon: usize,
    forced: bool,
    /// They are counted from 1.
    number: u64,
}

#[derive(Debug, Default)]
pub struct Pair {
    pub breach: Option<Breach>,
    /// An address led to the wrong server for a while: where rows went is nobody's fault.
    pub misrouted: bool,
    /// An operator stated that a target is off.
    pub abandoned: bool,
    rows: Vec<Acked>,
    /// Promotions that daemons ordered, by the branch that was left.
    promotions: BTreeMap<u32, Vec<Promotion>>,
    promoted: u64,
    /// After how many promotions a server's data was last changed by people.
    rebuilt: BTreeMap<usize, u64>,
    /// Servers whose data people changed, and how often.
    meddled: BTreeMap<usize, u64>,
    /// How often when a daemon's episode began.
    began: BTreeMap<usize, BTreeMap<usize, u64>>,
    /// And when it last ordered a server's promotion.
    ordered: BTreeMap<(usize, usize), u64>,
}

impl Pair {
    pub fn acknowledged(&mut self, daemon: usize, conn: &Conn, row: Row) {
        let acked = Acked { daemon, server: conn.server, epoch: conn.epoch.0, row };
        self.rows.push(acked);
        if self.rows.len() > 4000 {
            self.rows.drain(..1000);
        }
    }

    /// People changed a server's data: what is gone from it, no switchover can bring along.
    pub fn lost_with(&mut self, index: usize, servers: &[Server]) {
        *self.meddled.entry(index).or_default() += 1;
        self.rebuilt.insert(index, self.promoted);
        self.rows.retain(|acked| acked.server != index || servers[index].holds(acked.row));
    }

    pub fn by_hand(&mut self, index: usize) {
        *self.meddled.entry(index).or_default() += 1;
    }

    /// A promotion is on its way.
    pub fn orders_promotion(&mut self, d: usize, index: usize) {
        self.ordered.insert((d, index), self.changes(index));
    }

    fn changes(&self, index: usize) -> u64 {
        self.meddled.get(&index).copied().unwrap_or(0)
    }

    pub fn disk_changed(&mut self, d: usize, before: &Record, after: &Record, servers: &[Server]) {
        if before.intent.is_none() && after.intent.is_some() {
            self.began.insert(d, self.meddled.clone());
        }
        let Some(intent) = before.intent.as_ref().filter(|_| before.latch != after.latch) else { return };
        if intent.kind == EpisodeKind::Switchover && after.latch.as_ref().is_some_and(|latch| latch.active == intent.to)
        {
            self.nothing_lost(d, index_of(&intent.to), intent.epoch.0 - 1, servers, "by a switchover");
        }
    }

    fn nothing_lost(&mut self, d: usize, to: usize, epoch: u64, servers: &[Server], how: &str) {
        let meddled = self.began.get(&d) != Some(&self.meddled);
        if self.misrouted || meddled {
            return;
        }
        let lost =
            self.rows.iter().find(|acked| acked.daemon == d && acked.epoch == epoch && !servers[to].holds(acked.row));
        if let Some(lost) = lost {
            let line = (servers[to].branch, servers[to].flush, &servers[to].past);
            self.breach.get_or_insert(Breach {
                law: Law::NoLoss,
                said: format!("{lost:?} was lost {how}; the new line is {line:?}"),
            });
        }
    }

    pub fn says(&mut self, d: usize, event: &Event, servers: &[Server]) {
        if event.sentence.contains("no acknowledged row was lost")
            && let Some(active) = &event.active
        {
            self.nothing_lost(d, index_of(active), event.epoch.0 - 1, servers, "and the contrary was claimed");
        }
    }
}

impl World {
    /// A daemon's promotion arrives at a server: nobody else of the same line may have been promoted by one of us.
    pub fn pair_promotes(&mut self, d: usize, index: usize) {
        let intent = self.daemons[d].disk.holds().intent.clone();
        let forced = intent.as_ref().is_none_or(|intent| intent.forced);
        // Probes that show no lines cannot tell whom a standby follows: the server that is left may be of the same one.
        let left_blindly =
            intent.and_then(|intent| intent.from).map(|from| index_of(&from)).filter(|_| !self.laws[d].sql());
        let branch = self.servers[index].branch;
        let seen = self.laws[d].seen_elsewhere(&NAMES[index].into());
        let rebuilt = self.pair.rebuilt.get(&index).copied().unwrap_or(0);
        // What was seen of it after the order left called nothing back.
        let since = self.pair.ordered.get(&(d, index)).is_some_and(|known| *known != self.pair.changes(index));
        self.pair.promoted += 1;
        let number = self.pair.promoted;
        let others = self.pair.promotions.entry(branch).or_default();
        let rival = others.iter().find(|other| {
            let left = self.servers[other.server].past.last().is_some_and(|past| past.branch == branch);
            // People rebuilt it from the old line since, and it showed nothing of that.
            let unseen = rebuilt >= other.number && (!seen || since);
            let excused = other.forced || left_blindly == Some(other.server) || unseen;
            other.server != index && !excused && left && self.servers[other.server].primary
        });
        if let (Some(rival), false) = (rival, forced || self.pair.abandoned || self.pair.misrouted) {
            let said = format!(
                "daemon {d} promotes server {index}, daemon {} has promoted server {} from the same line",
                rival.daemon, rival.server
            );
            self.pair.breach.get_or_insert(Breach { law: Law::Lock, said });
        }
        others.push(Promotion { server: index, daemon: d, forced, number });
    }
}
