//! Breaks of the order of steps: what is written before what is done, who is promoted, lock, fence, freeze, late wakes.

use std::time::Duration;

use pgpivot::config::ForeignPromotion;
use pgpivot::failover::action::{Action, LockResult, Outcome, PromotionResult};
use pgpivot::failover::phase::{EpisodeId, EpisodeKind, Phase, Record, Stage};
use pgpivot::types::Lsn;

use super::{Break, HONEST, plain, standby_says, three, writes};
use crate::core::Input;
use crate::laws::Law;
use crate::scenario::{Scenario, Theme};

fn stage(record: &Record) -> Option<Stage> {
    record.intent.as_ref().map(|intent| intent.stage)
}

pub const WRITE_THEN_ACT: &[Break] = &[
    Break {
        bug: "goes on before the intent is written",
        orders: |action, hand| hand.believes_write(action, |record| stage(record) == Some(Stage::Intent)),
        ..HONEST
    },
    Break {
        bug: "promotes before `sent` is written",
        orders: |action, hand| hand.believes_write(action, |record| stage(record) == Some(Stage::Sent)),
        ..HONEST
    },
    Break {
        bug: "writes `sent` with the intent",
        orders: |action, _| {
            writes(action, |record| {
                if let Some(intent) = &mut record.intent {
                    intent.stage = Stage::Sent;
                }
            })
        },
        ..HONEST
    },
];

pub const ONE_CANDIDATE: &[Break] = &[Break {
    bug: "promotes another side than it wrote down",
    orders: |mut action, hand| {
        if let Action::Promote { backend, .. } = &mut action
            && let Some(other) = hand.other_than(backend)
        {
            *backend = other;
        }
        vec![action]
    },
    ..HONEST
}];

pub const NO_WAY_BACK: &[Break] = &[
    Break {
        bug: "takes an unknown promotion for a refused one",
        hears: |mut input, _| {
            if let Input::Outcome(Outcome::Promotion { result, .. }) = &mut input
                && let PromotionResult::Unknown(why) = result
            {
                *result = PromotionResult::Refused(why.clone());
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "takes the promoter's word for proof",
        setting: |scenario| scenario.theme = Theme::Stubborn,
        hears: |input, hand| {
            if let Input::Outcome(Outcome::Promotion { result: PromotionResult::Done, .. }) = &input {
                let to = hand.intent().map(|intent| intent.to.clone());
                to.iter().for_each(|to| hand.imagine_primary(to));
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "forgets at its start that it sent",
        setting: |scenario| plain(scenario, Theme::Daemon, |_| {}),
        record: |record| {
            if let Some(intent) = &mut record.intent {
                intent.stage = Stage::Intent;
            }
        },
        ..HONEST
    },
];

pub const LOCK: &[Break] = &[
    Break {
        bug: "takes a refused lock for a granted one",
        setting: |scenario| plain(scenario, Theme::Stubborn, |_| {}),
        hears: |mut input, _| {
            if let Input::Outcome(Outcome::Locked { result, .. }) = &mut input {
                *result = LockResult::Held;
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "does not ask for the lock",
        orders: |action, hand| match action {
            Action::Lock { episode, .. } => {
                let result = LockResult::Held;
                hand.pretend(&Input::Outcome(Outcome::Locked { episode, result }));
                Vec::new()
            }
            other => vec![other],
        },
        ..HONEST
    },
    Break {
        bug: "does without the lock for what it sent before a restart",
        // Whom nobody holds back, orders beside others.
        symptoms: &[Law::SplitBrain],
        setting: |scenario| {
            plain(scenario, Theme::Daemon, |_| {});
            scenario.commands = 12;
        },
        orders: |action, hand| match action {
            Action::Lock { episode, .. } if hand.intent().is_some_and(|intent| intent.stage == Stage::Sent) => {
                hand.pretend(&Input::Outcome(Outcome::Locked { episode, result: LockResult::Held }));
                Vec::new()
            }
            other => vec![other],
        },
        ..HONEST
    },
    Break {
        bug: "asks for the lock where nobody need grant it",
        orders: |mut action, _| {
            if let Action::Lock { needed, .. } = &mut action {
                *needed = 0;
            }
            vec![action]
        },
        ..HONEST
    },
    Break {
        bug: "asks one of three for the lock",
        setting: |scenario| three(scenario, Theme::Deaths, |_| {}),
        orders: |mut action, _| {
            if let Action::Lock { backends, needed, .. } = &mut action {
                backends.truncate(1);
                *needed = 1;
            }
            vec![action]
        },
        ..HONEST
    },
];

pub const FENCE: &[Break] = &[
    Break {
        bug: "does without the fence that is required",
        setting: |scenario| fenced(scenario),
        service: |service| service.failover.fence_required = false,
        ..HONEST
    },
    Break {
        bug: "takes a fence that failed for done",
        setting: |scenario| fenced(scenario),
        hears: |mut input, _| {
            if let Input::Outcome(Outcome::Fenced { result, .. }) = &mut input {
                *result = Ok(());
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "does not fence a server that hangs",
        setting: |scenario| {
            plain(scenario, Theme::Silence, |service| {
                service.failover.fence_command = Some(vec!["fence".into()]);
                service.failover.hung_grace = Duration::from_secs(2);
            });
        },
        orders: |action, hand| match action {
            Action::Fence { episode, .. } => {
                hand.pretend(&Input::Outcome(Outcome::Fenced { episode, result: Ok(()) }));
                Vec::new()
            }
            other => vec![other],
        },
        ..HONEST
    },
    Break {
        bug: "moves traffic away from a living side whose fence failed",
        setting: |scenario| {
            plain(scenario, Theme::People, |service| {
                service.failover.fence_command = Some(vec!["fence".into()]);
                service.failover.foreign_promotion = Some(ForeignPromotion::Block);
            });
            (scenario.commands, scenario.pace) = (80, 3000);
        },
        hears: |mut input, hand| {
            let routes = hand.machine.record().intent.as_ref().is_some_and(|intent| intent.kind == EpisodeKind::Route);
            if let (true, Input::Outcome(Outcome::Fenced { result, .. })) = (routes, &mut input) {
                *result = Ok(());
            }
            Some(input)
        },
        ..HONEST
    },
];

fn fenced(scenario: &mut Scenario) {
    plain(scenario, Theme::Deaths, |service| {
        service.failover.fence_command = Some(vec!["fence".into()]);
        service.failover.fence_required = true;
    });
}

pub const LATE_WAKE: &[Break] = &[Break {
    bug: "does not notice that it woke late",
    setting: |scenario| {
        // Its switchovers wait for clients, which leaves time to sleep in.
        plain(scenario, Theme::Daemon, |service| service.failover.drain_timeout = Duration::from_secs(20));
        (scenario.commands, scenario.pace) = (60, 3000);
    },
    symptoms: &[Law::Evidence, Law::Recheck, Law::StartChecks, Law::Foreign, Law::NoWayBack],
    hears: |input, _| match input {
        Input::Delay(late) if late <= 2000 => None,
        other => Some(other),
    },
    ..HONEST
}];

pub const FREEZE: &[Break] = &[
    Break {
        bug: "does not release a side that it made read-only",
        setting: |scenario| scenario.theme = Theme::Commands,
        orders: |action, hand| match action {
            Action::Unfreeze { episode, .. } => {
                hand.pretend(&Input::Outcome(Outcome::Unfrozen { episode, result: Ok(()) }));
                Vec::new()
            }
            other => vec![other],
        },
        ..HONEST
    },
    Break {
        bug: "makes a side read-only before that is written",
        setting: |scenario| scenario.theme = Theme::Commands,
        orders: |action, hand| hand.believes_write(action, |record| stage(record) == Some(Stage::Freezing)),
        ..HONEST
    },
    Break {
        bug: "freezes whoever answers",
        setting: |scenario| scenario.theme = Theme::Commands,
        orders: |mut action, _| {
            if let Action::Freeze { latched, .. } = &mut action {
                *latched = None;
            }
            vec![action]
        },
        ..HONEST
    },
    Break {
        bug: "releases another side than the active one",
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        orders: |mut action, hand| {
            if let Action::Unfreeze { backend, .. } = &mut action
                && let Some(other) = hand.other_than(backend)
            {
                *backend = other;
            }
            vec![action]
        },
        ..HONEST
    },
];

pub const NO_LOSS: &[Break] = &[
    Break {
        bug: "takes any position for the last one",
        setting: |scenario| scenario.theme = Theme::Commands,
        hears: |mut input, _| {
            if let Input::Outcome(Outcome::Frozen { result: Ok(lsn), .. }) = &mut input {
                *lsn = Lsn(0);
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "takes what was received for replayed",
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        world: |world| world.servers[1].replay_paused = true,
        hears: |input, hand| Some(standby_says(input, hand, |facts, _| facts.replay_lsn = facts.lsn)),
        ..HONEST
    },
    Break {
        bug: "does not wait until the new side has it all",
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, hand| {
                if hand.machine.phase() == Phase::Fencing {
                    (facts.lsn, facts.replay_lsn) = (Some(Lsn(u64::MAX)), Some(Lsn(u64::MAX)));
                }
            }))
        },
        ..HONEST
    },
];

pub const ONE_EPISODE: &[Break] = &[
    Break {
        bug: "uses the number of an episode again",
        orders: |action, _| {
            writes(action, |record| {
                if let Some(intent) = &mut record.intent {
                    intent.id = EpisodeId(record.last_episode.0 - 1);
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "changes the target in the middle of an episode",
        orders: |action, hand| {
            let to = hand.intent().map(|intent| intent.to.clone());
            let other = to.and_then(|to| hand.other_than(&to));
            writes(action, |record| {
                if let (Some(intent), Some(other)) = (&mut record.intent, &other)
                    && intent.stage == Stage::Sent
                {
                    intent.to.clone_from(other);
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "begins an episode beside another one",
        orders: |action, _| {
            writes(action, |record| {
                if let Some(intent) = &mut record.intent
                    && intent.stage != Stage::Intent
                {
                    intent.id = EpisodeId(intent.id.0 + 1);
                    record.last_episode = intent.id;
                }
            })
        },
        ..HONEST
    },
];
