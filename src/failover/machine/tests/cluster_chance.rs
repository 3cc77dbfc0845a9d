//! Random faults on the stage of clusters: whatever fails, and in whatever order, traffic goes to one side, orders rest
//! on a side that failed a moment ago, and when all is well again traffic flows to the side that was promoted last.

use super::clusters::{Api, Cluster, Clusters, EAST, Patch, WEST};
use crate::failover::action::Command;
use crate::failover::replication::Status;

/// A generator of its own: the same seed, the same story.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

const PATCHES: [Patch; 5] = [Patch::Taken, Patch::ReplyLost, Patch::Lost, Patch::NotSent, Patch::Refused];

/// Without a new reading for so long, nobody can know what others did: a list is read every minute.
const TOLD: u64 = 75_000;

#[test]
fn whatever_fails_traffic_goes_to_one_side_and_in_the_end_to_the_one_promoted_last() {
    let (mut orders, mut moves) = (0, 0);
    for seed in 1..=100 {
        let (ordered, moved) = story(seed);
        orders += ordered;
        moves += moved;
    }
    assert!(orders > 30 && moves > 30, "too little happens: {orders} orders, {moves} moves");
}

fn story(seed: u64) -> (usize, u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut stage = Clusters::steady();
    let mut names = 2;
    // When the truth last changed, and since when the API tells it.
    let (mut changed, mut told) = (stage.now, stage.now);
    for _ in 0..40 {
        let promoted = promoted(&stage);
        match chance.below(14) {
            0 | 1 => fail(&mut stage, promoted, &mut chance),
            2 | 3 => heal(&mut stage),
            4 => {
                stage.api = Api::Unreachable;
                told = u64::MAX;
            }
            5 | 6 => {
                stage.api = Api::Well;
                told = told.min(stage.now);
            }
            7 => stage.patch = PATCHES[chance.below(5) as usize],
            8 => stage.replicates = chance.below(3) > 0,
            9 => {
                if let Some(id) = replicating(&stage) {
                    stage.fail_over(&id, None);
                    changed = stage.now;
                }
            }
            10 => stage.restart(1_000 + chance.below(60_000)),
            11 => {
                let standby = 1 - promoted;
                let idle = stage.streams.iter().all(|s| s.status >= Status::Completed);
                if idle && stage.clusters[promoted] == Cluster::Serves {
                    names += 1;
                    stage.create(&format!("s{names}"), promoted, standby);
                }
            }
            12 => {
                let order = match chance.below(3) {
                    0 => Command::Switchover { to: None },
                    1 => Command::Failover { to: None, force: false, route_only: false, at: None },
                    _ => Command::Restore { to: None, force: false },
                };
                // Refused or not: both are answers.
                let _ = stage.command(&order);
            }
            _ => {}
        }
        for _ in 0..chance.below(1_200) {
            stage.run(100);
            if completed(&stage) != stage.completed_before {
                changed = stage.now;
            }
            let known = stage.api == Api::Well && stage.now.saturating_sub(told.max(changed)) > TOLD;
            let promoted = super::clusters::NAMES[self::promoted(&stage)];
            assert!(
                !known || !stage.is_open() || stage.active() == promoted,
                "seed {seed}: {} gets traffic, {promoted} was promoted last: {:?}\n{}",
                stage.active(),
                stage.streams,
                stage.last_words()
            );
        }
    }
    settle(&mut stage, seed);
    (stage.patches.len(), stage.epoch() - 1)
}

/// Which side was promoted last.
fn promoted(stage: &Clusters) -> usize {
    let newest = stage.streams.iter().filter(|s| s.status == Status::Completed).max_by_key(|s| s.activated);
    newest.map_or(EAST, |stream| if stream.to.as_str() == "west" { WEST } else { EAST })
}

fn completed(stage: &Clusters) -> usize {
    stage.streams.iter().filter(|s| s.status == Status::Completed).count()
}

fn replicating(stage: &Clusters) -> Option<String> {
    stage.streams.iter().find(|s| s.status == Status::Replicating).map(|s| s.id.clone())
}

fn fail(stage: &mut Clusters, promoted: usize, chance: &mut Chance) {
    let how = if chance.below(2) == 0 { Cluster::Dead } else { Cluster::Silent };
    let side = if chance.below(4) == 0 { 1 - promoted } else { promoted };
    stage.clusters[side] = how;
}

/// Everything is what the streams make of it.
fn heal(stage: &mut Clusters) {
    let live = stage.streams.iter().find(|s| s.status < Status::Completed).cloned();
    stage.clusters = [Cluster::Serves; 2];
    if let Some(stream) = live {
        stage.clusters[if stream.to.as_str() == "west" { WEST } else { EAST }] = Cluster::Standby;
    }
    stage.replicates = true;
}

/// All is well again: traffic flows to the side that was promoted last, if need be after an operator gave up an order that
/// was never taken.
fn settle(stage: &mut Clusters, seed: u64) {
    (stage.api, stage.patch) = (Api::Well, Patch::Taken);
    for _ in 0..20 {
        heal(stage);
        stage.run(60_000);
        let right = super::clusters::NAMES[promoted(stage)];
        if stage.is_open() && stage.active() == right {
            return;
        }
        for name in super::clusters::NAMES {
            if stage.blocked().contains("pending") {
                let _ = stage.command(&Command::Abandon { backend: name.into() });
            }
        }
    }
    let view = stage.machine.view(stage.at());
    let said = stage.last_words();
    panic!("seed {seed}: does not settle: {:?} {} {:?}\n{said}", view.phase, view.evidence, stage.streams);
}
