//! Every law has breaks, and each of them is noticed as a breach of that law, while the same runs without it keep it.

use super::{Break, deeds, evidence, limits, places};
use crate::chance::Chance;
use crate::laws::{Breach, Law};
use crate::scenario::Scenario;
use crate::world::World;

/// A break that so many steps did not show is not noticed.
const STEPS: u64 = 1_000_000;

fn run(seed: u64, setting: &Break, bug: Option<Break>) -> (Option<Breach>, u64) {
    let mut chance = Chance::new(seed);
    let mut scenario = Scenario::random(&mut chance);
    (setting.setting)(&mut scenario);
    let length = scenario.length;
    let mut world = World::new(scenario, chance, bug);
    (setting.world)(&mut world);
    if world.run_until(world.now + length) && setting.heals {
        world.heal();
    }
    (world.breach, world.steps)
}

/// The seed with which the break shows as what it is.
fn noticed(law: Law, bug: &Break) -> u64 {
    let (mut seed, mut steps) = (0, 0);
    while steps < STEPS {
        seed += 1;
        let (breach, took) = run(seed, bug, Some(*bug));
        steps += took;
        let Some(breach) = breach else { continue };
        let said = format!("seed {seed}, step {steps}: {:?}: {}", breach.law, breach.said);
        if breach.law == law {
            println!("{law:?}: {}: {said}", bug.bug);
            return seed;
        }
        // A rare breach of the sound machine proves nothing about the break.
        let known = bug.symptoms.contains(&breach.law) || run(seed, bug, None).0.is_some();
        assert!(known, "a machine that {} is not noticed by the law {law:?}; {said}", bug.bug);
    }
    panic!("a machine that {} breaks the law {law:?}, and {seed} runs of {steps} steps show nothing", bug.bug);
}

fn is_noticed(law: Law) {
    for bug in breaks_of(law) {
        let last = noticed(law, bug);
        for seed in 1..=last {
            let (breach, _) = run(seed, bug, None);
            let said = breach.filter(|breach| breach.law == law).map(|breach| breach.said);
            assert_eq!(said, None, "law {law:?} is broken with seed {seed} by a machine without the break");
        }
    }
}

/// A law that is not listed here does not compile.
macro_rules! noticed {
    ($($test:ident: $law:ident by $breaks:path;)*) => {
        const LAWS: &[Law] = &[$(Law::$law),*];

        const fn breaks_of(law: Law) -> &'static [Break] {
            match law {
                $(Law::$law => $breaks),*
            }
        }

        $(#[test]
        fn $test() {
            is_noticed(Law::$law);
        })*
    };
}

noticed! {
    a_gate_that_leads_elsewhere_than_the_latch_on_disk_is_noticed: LatchOnDisk by places::LATCH_ON_DISK;
    bytes_for_the_side_that_an_intent_leaves_are_noticed: IntentOutranks by places::INTENT_OUTRANKS;
    a_cut_that_is_not_made_is_noticed: Cut by places::CUT;
    a_needless_cut_is_noticed: NeedlessCut by places::NEEDLESS_CUT;
    a_deed_before_its_write_is_noticed: WriteThenAct by deeds::WRITE_THEN_ACT;
    a_promotion_without_a_last_look_is_noticed: Recheck by evidence::RECHECK;
    a_second_candidate_is_noticed: OneCandidate by deeds::ONE_CANDIDATE;
    a_way_back_after_the_promotion_is_noticed: NoWayBack by deeds::NO_WAY_BACK;
    an_epoch_that_does_not_count_up_is_noticed: Epoch by places::EPOCH;
    a_latch_that_moves_by_itself_is_noticed: LatchByEpisode by places::LATCH_BY_EPISODE;
    a_side_off_the_latched_line_that_gets_traffic_is_noticed: Timeline by places::TIMELINE;
    a_latched_side_in_another_role_that_stays_open_is_noticed: RoleMismatch by places::ROLE_MISMATCH;
    a_start_without_its_checks_is_noticed: StartChecks by places::START_CHECKS;
    the_replacement_of_a_living_primary_is_noticed: Witness by evidence::WITNESS;
    an_unfit_candidate_is_noticed: Candidate by evidence::CANDIDATE;
    a_death_without_evidence_is_noticed: Evidence by evidence::EVIDENCE;
    a_budget_that_is_overdrawn_is_noticed: Budget by limits::BUDGET;
    a_cool_down_that_is_skipped_is_noticed: Cooldown by limits::COOLDOWN;
    a_decision_while_paused_is_noticed: Pause by limits::PAUSE;
    a_promotion_without_authority_is_noticed: Authority by limits::AUTHORITY;
    a_second_decider_is_noticed: SecondDecider by limits::SECOND_DECIDER;
    a_promotion_without_the_lock_is_noticed: Lock by deeds::LOCK;
    a_promotion_without_the_fence_is_noticed: Fence by deeds::FENCE;
    an_intent_that_outlives_a_late_wake_is_noticed: LateWake by deeds::LATE_WAKE;
    a_side_that_stays_read_only_is_noticed: Freeze by deeds::FREEZE;
    a_switchover_that_loses_rows_is_noticed: NoLoss by deeds::NO_LOSS;
    two_episodes_at_once_are_noticed: OneEpisode by deeds::ONE_EPISODE;
    an_unproven_promotion_of_somebody_else_that_is_followed_is_noticed: Foreign by evidence::FOREIGN;
    a_command_that_does_something_else_is_noticed: Command by limits::COMMAND;
    a_command_that_was_only_to_be_explained_and_is_done_is_noticed: DryRun by limits::DRY_RUN;
    a_decision_that_cannot_be_written_down_is_noticed: Disk by limits::DISK;
    a_decision_beside_another_primary_is_noticed: SplitBrain by evidence::SPLIT_BRAIN;
    a_daemon_that_does_not_settle_is_noticed: Settles by limits::SETTLES;
}

#[test]
fn every_law_has_a_break_with_a_name_of_its_own() {
    let mut names: Vec<&str> = Vec::new();
    for law in LAWS {
        assert!(!breaks_of(*law).is_empty(), "no break of the law {law:?}");
        names.extend(breaks_of(*law).iter().map(|bug| bug.bug));
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "two breaks have one name: {names:?}");
}
