//! Breaks of what stands: latch, epoch, gate, who gets bytes, and the checks before anybody does.

use std::time::Duration;

use pgpivot::config::ForeignPromotion;
use pgpivot::failover::action::{Action, Gate, OpenBackend};
use pgpivot::failover::observation::{Receiver, Role, Unknown, Verdict};
use pgpivot::failover::phase::{EpisodeId, Phase};
use pgpivot::types::{BackendName, Epoch, SystemId, Timeline};

use super::{Break, HONEST, Hand, active_says, plain, standby_says, three, writes};
use crate::core::Input;
use crate::laws::Law;
use crate::scenario::Theme;
use crate::world::Event;

pub const LATCH_ON_DISK: &[Break] = &[
    Break {
        bug: "takes the latch for written when it is ordered",
        orders: |action, hand| {
            let latch = hand.machine.record().latch.clone();
            hand.believes_write(action, |record| record.intent.is_none() && record.latch != latch)
        },
        ..HONEST
    },
    Break {
        bug: "opens to the new side when it is promoted",
        orders: |action, hand| {
            let opens = match &action {
                Action::Promote { epoch, backend, .. } => opened(hand, backend, *epoch),
                _ => None,
            };
            [Some(action), opens].into_iter().flatten().collect()
        },
        ..HONEST
    },
];

fn opened(hand: &Hand<'_>, backend: &BackendName, epoch: Epoch) -> Option<Action> {
    let addresses = hand.memory.addresses.get(backend)?.clone();
    let tier = vec![OpenBackend { name: backend.clone(), weight: 1, addresses, resting: Vec::new(), rests: None }];
    Some(Action::Publish(Gate::Open { active: backend.clone(), epoch, tier, readers: Vec::new(), hold: false }))
}

pub const INTENT_OUTRANKS: &[Break] = &[
    Break {
        bug: "leaves the gate open for the side that is left",
        orders: |action, hand| match action {
            Action::Publish(Gate::Closed { .. }) if hand.intent().is_some_and(|intent| intent.from.is_some()) => {
                Vec::new()
            }
            other => vec![other],
        },
        ..HONEST
    },
    Break {
        bug: "forgets at its start the intent that is open",
        // It may have been sent.
        symptoms: &[Law::NoWayBack],
        record: |record| record.intent = None,
        ..HONEST
    },
    Break {
        bug: "lets newcomers in while it drains",
        orders: |mut action, hand| {
            if let Action::Publish(Gate::Open { hold, .. }) = &mut action {
                *hold &= hand.intent().is_none();
            }
            vec![action]
        },
        ..HONEST
    },
];

pub const CUT: &[Break] = &[Break {
    bug: "closes the gate and cuts nobody",
    orders: |action, _| if matches!(action, Action::Cut { .. }) { Vec::new() } else { vec![action] },
    ..HONEST
}];

pub const NEEDLESS_CUT: &[Break] = &[
    Break {
        bug: "cuts the active side when it is suspect",
        orders: |action, hand| {
            let suspect = matches!(&action, Action::ProbeNow { backend } if hand.is_active(backend))
                && hand.machine.phase() == Phase::Suspect;
            let cut = hand.machine.active().filter(|_| suspect).map(|(name, _)| Action::Cut { backend: name.clone() });
            [Some(action), cut].into_iter().flatten().collect()
        },
        ..HONEST
    },
    Break {
        bug: "cuts the active side when newcomers are held",
        orders: |action, _| {
            let cut = match &action {
                Action::Publish(Gate::Open { active, hold: true, .. }) => Some(Action::Cut { backend: active.clone() }),
                _ => None,
            };
            [Some(action), cut].into_iter().flatten().collect()
        },
        ..HONEST
    },
];

pub const EPOCH: &[Break] = &[
    Break {
        bug: "decides for the epoch that is",
        orders: |action, _| {
            writes(action, |record| {
                if let (Some(intent), Some(latch)) = (&mut record.intent, &record.latch) {
                    intent.epoch = latch.epoch;
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "latches another side in the same epoch",
        orders: |action, hand| {
            let before = hand.machine.active().map(|(_, epoch)| epoch);
            writes(action, |record| {
                if let (Some(latch), Some(before), None) = (&mut record.latch, before, &record.intent) {
                    latch.epoch = before;
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "promotes for another epoch than it wrote down",
        orders: |mut action, _| {
            if let Action::Promote { epoch, .. } = &mut action {
                *epoch = epoch.next();
            }
            vec![action]
        },
        ..HONEST
    },
    Break {
        bug: "counts its episodes anew at its start",
        symptoms: &[Law::OneEpisode],
        setting: |scenario| plain(scenario, Theme::Daemon, |_| {}),
        record: |record| record.last_episode = EpisodeId(0),
        ..HONEST
    },
];

pub const LATCH_BY_EPISODE: &[Break] = &[
    Break {
        bug: "chooses the active side anew whenever it writes",
        orders: |action, hand| {
            let watching = !matches!(hand.machine.phase(), Phase::Starting) && hand.intent().is_none();
            let before = hand.machine.record().latch.clone().filter(|_| watching);
            let other = before.as_ref().and_then(|latch| hand.other_than(&latch.active));
            writes(action, |record| {
                if let (Some(latch), Some(other), true) = (&mut record.latch, &other, record.intent.is_none()) {
                    latch.active.clone_from(other);
                    latch.epoch = latch.epoch.next();
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "takes the server that it finds for the one that it latched",
        orders: |action, _| {
            writes(action, |record| {
                if let (Some(latch), Some(_)) = (&mut record.latch, &record.intent)
                    && let Some(identity) = &mut latch.identity
                {
                    identity.system_id = SystemId(identity.system_id.0 + 1);
                }
            })
        },
        ..HONEST
    },
    Break {
        bug: "ends an episode with another side than it began",
        orders: |action, hand| {
            let to = hand.intent().map(|intent| intent.to.clone());
            let other = to.as_ref().and_then(|to| hand.other_than(to));
            let epoch = hand.intent().map(|intent| intent.epoch);
            writes(action, |record| {
                if let (Some(latch), Some(other), None) = (&mut record.latch, &other, &record.intent)
                    && Some(latch.epoch) == epoch
                {
                    latch.active.clone_from(other);
                }
            })
        },
        ..HONEST
    },
];

pub const TIMELINE: &[Break] = &[
    Break {
        bug: "lets a standby on another timeline be read",
        setting: |scenario| three(scenario, Theme::Mixed, |_| {}),
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, hand| {
                let latch = hand.machine.record().latch.as_ref();
                let timeline = latch.and_then(|latch| latch.identity.as_ref()).map(|identity| identity.timeline);
                if let (Receiver::Row(row), Some(timeline)) = (&mut facts.receiver, timeline) {
                    row.timeline = Some(timeline);
                    facts.timeline = Some(timeline);
                }
            }))
        },
        ..HONEST
    },
    Break {
        bug: "dials addresses that proved nothing",
        setting: |scenario| scenario.addresses = 2,
        orders: |mut action, hand| {
            if let Action::Publish(Gate::Open { tier, .. }) = &mut action {
                for open in tier {
                    open.addresses.clone_from(&hand.memory.addresses[&open.name]);
                }
            }
            vec![action]
        },
        ..HONEST
    },
    Break {
        bug: "lets a standby take writes",
        orders: |mut action, _| {
            if let Action::Publish(Gate::Open { tier, readers, .. }) = &mut action {
                tier.append(readers);
            }
            vec![action]
        },
        ..HONEST
    },
];

pub const ROLE_MISMATCH: &[Break] = &[
    Break {
        bug: "does not see that the latched side became a standby",
        hears: |input, hand| {
            let standby = |facts: &pgpivot::failover::observation::Facts| facts.role == Role::Standby;
            match &input {
                Input::Seen(seen) if hand.is_active(&seen.backend) => match &seen.verdict {
                    Verdict::Answered(facts) if standby(facts) => None,
                    _ => Some(input),
                },
                _ => Some(input),
            }
        },
        ..HONEST
    },
    Break {
        bug: "does not see that the latched side is another server now",
        hears: |input, hand| {
            Some(active_says(input, hand, |facts, hand| {
                let latch = hand.machine.record().latch.as_ref();
                if let (Some(identity), Role::Primary) = (latch.and_then(|latch| latch.identity.as_ref()), facts.role) {
                    facts.system_id = Some(identity.system_id);
                    facts.timeline = Some(identity.timeline);
                    facts.history = Some(identity.ancestors.clone());
                }
            }))
        },
        ..HONEST
    },
];

pub const START_CHECKS: &[Break] = &[
    Break {
        bug: "waits for nobody at its start",
        service: |service| service.failover.verify_wait = Duration::ZERO,
        ..HONEST
    },
    Break {
        bug: "stays open after a long sleep",
        hears: |input, _| match input {
            Input::Delay(late) => Some(Input::Delay(late.min(2000))),
            other => Some(other),
        },
        ..HONEST
    },
    Break {
        bug: "latches one of two that say they are primary",
        setting: |scenario| three(scenario, Theme::Mixed, |_| {}),
        world: |world| world.promote_server(1),
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, hand| {
                let first = hand.machine.record().latch.is_none();
                if first && facts.timeline > Some(Timeline(1)) {
                    facts.role = Role::Standby;
                }
            }))
        },
        ..HONEST
    },
    Break {
        bug: "does not look at its start who was promoted meanwhile",
        // It goes on to be read.
        symptoms: &[Law::Timeline],
        setting: |scenario| {
            three(scenario, Theme::Daemon, |service| {
                service.failover.foreign_promotion = Some(ForeignPromotion::Block);
            });
        },
        world: |world| world.at(world.now + 20_000, Event::Promoted { server: 2 }),
        hears: |mut input, hand| {
            if let Input::Seen(seen) = &mut input
                && let Verdict::Answered(facts) = &seen.verdict
                && facts.role == Role::Primary
                && !hand.is_active(&seen.backend)
                && hand.machine.phase() == Phase::Starting
            {
                seen.verdict = Verdict::Unknown(Unknown::Authentication);
            }
            Some(input)
        },
        ..HONEST
    },
];
