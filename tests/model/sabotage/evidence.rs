//! Breaks of what a decision rests on: probes, witnesses, candidates, rivals, promotions of somebody else.

use std::time::Duration;

use pgpivot::config::{ForeignPromotion, ProbeKind, Promoter, WitnessRule};
use pgpivot::failover::action::{Outcome, PromotionResult};
use pgpivot::failover::observation::{Ancestor, Failure, Observation, Receiver, Role, Unknown, Verdict};
use pgpivot::failover::phase::{EpisodeKind, Phase, Stage};
use pgpivot::types::{BackendName, Lsn, Moment, Timeline};

use super::{Break, HONEST, plain, standby_says, three};
use crate::core::Input;
use crate::laws::Law;
use crate::scenario::{NAMES, Theme};
use crate::server::Promotes;
use crate::world::Event;

pub const RECHECK: &[Break] = &[
    Break {
        bug: "looks again and takes an answer for a failure",
        // What it says of its role is not heard either, and the next try counts that failure.
        symptoms: &[Law::Evidence, Law::RoleMismatch],
        setting: |scenario| scenario.theme = Theme::Silence,
        hears: |mut input, hand| {
            let leaves = hand.intent().and_then(|intent| intent.from.clone());
            if let Input::Seen(seen) = &mut input
                && hand.machine.phase() == Phase::Fencing
                && leaves.as_ref() == Some(&seen.backend)
                && matches!(seen.verdict, Verdict::Answered(_))
            {
                seen.verdict = Verdict::Failed(Failure::TimedOut);
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "takes an old failure for a last look",
        hears: |mut input, hand| {
            if let Input::Seen(seen) = &mut input
                && hand.machine.phase() == Phase::Fencing
                && matches!(seen.verdict, Verdict::Failed(_))
            {
                seen.started = hand.now.at;
            }
            Some(input)
        },
        ..HONEST
    },
];

pub const WITNESS: &[Break] = &[
    Break {
        bug: "takes a stream that stands for one that is gone",
        setting: |scenario| plain(scenario, Theme::Silence, |_| {}),
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, hand| {
                if hand.machine.phase() != Phase::Steady && facts.receiver != Receiver::Unknown {
                    facts.receiver = Receiver::Gone;
                }
            }))
        },
        ..HONEST
    },
    Break {
        bug: "takes every stream for silent",
        setting: |scenario| plain(scenario, Theme::Silence, |_| {}),
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, _| facts.receiver_timeout = Some(Duration::from_millis(1))))
        },
        ..HONEST
    },
    Break {
        bug: "needs no witness",
        setting: |scenario| scenario.w = 0,
        service: |service| service.failover.witness = WitnessRule::Optional,
        ..HONEST
    },
    Break {
        bug: "takes a primary that writes for an idle one",
        symptoms: &[Law::Fence],
        setting: |scenario| {
            plain(scenario, Theme::Silence, |service| {
                service.failover.fence_command = Some(vec!["fence".into()]);
                service.failover.hung_grace = Duration::from_secs(2);
            });
        },
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, _| {
                if let Receiver::Row(row) = &mut facts.receiver {
                    row.lsn = None;
                }
            }))
        },
        ..HONEST
    },
];

pub const CANDIDATE: &[Break] = &[
    Break {
        bug: "promotes whoever is behind",
        setting: |scenario| plain(scenario, Theme::Mixed, |service| service.failover.max_lag = 0),
        service: |service| service.failover.max_lag = u64::MAX,
        ..HONEST
    },
    Break {
        bug: "promotes whoever streamed once",
        setting: |scenario| {
            plain(scenario, Theme::Silence, |service| service.failover.max_disconnect = Duration::from_secs(1));
        },
        service: |service| service.failover.max_disconnect = Duration::from_secs(86_400),
        ..HONEST
    },
    Break {
        bug: "does not compare who has more",
        setting: |scenario| three(scenario, Theme::Deaths, |_| {}),
        world: |world| world.servers[2].throughput = 10,
        hears: |input, hand| Some(standby_says(input, hand, |facts, _| facts.lsn = Some(Lsn(u64::MAX / 2)))),
        ..HONEST
    },
    Break {
        bug: "takes it after a restart that everybody follows",
        symptoms: &[Law::Lock],
        setting: |scenario| {
            plain(scenario, Theme::Mixed, |service| {
                service.probe.kind = ProbeKind::Tcp;
                service.failover.promoter = Promoter::Command(vec!["promote".into()]);
                service.failover.witness = WitnessRule::Optional;
            });
            scenario.services.truncate(1);
        },
        record: |record| record.vouched = Some(NAMES.map(BackendName::from).to_vec()),
        ..HONEST
    },
];

pub const EVIDENCE: &[Break] = &[
    Break { bug: "takes one failure for death", service: |service| service.probe.fall = 1, ..HONEST },
    Break {
        bug: "takes a restart for death",
        service: |service| service.failover.restart_grace = Duration::ZERO,
        ..HONEST
    },
    Break {
        bug: "takes a server that does not talk for a dead one",
        // Who is down is left for whoever was promoted.
        symptoms: &[Law::Foreign, Law::Recheck],
        setting: |scenario| three(scenario, Theme::Mixed, |_| {}),
        hears: |mut input, _| {
            if let Input::Seen(seen) = &mut input
                && let Verdict::Recovering | Verdict::Unknown(Unknown::TooManyConnections | Unknown::Authentication) =
                    seen.verdict
            {
                seen.verdict = Verdict::Failed(Failure::TimedOut);
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "does not wait for the delay",
        setting: |scenario| {
            plain(scenario, Theme::Deaths, |service| service.failover.delay = Duration::from_secs(2));
        },
        service: |service| service.failover.delay = Duration::ZERO,
        ..HONEST
    },
    Break {
        bug: "has no patience with a recovery",
        // Who is down is left for whoever was promoted.
        symptoms: &[Law::Foreign],
        setting: |scenario| three(scenario, Theme::Mixed, |_| {}),
        service: |service| service.failover.recovery_patience = Duration::ZERO,
        ..HONEST
    },
    Break {
        bug: "does not see that a server is shut down on purpose",
        setting: |scenario| plain(scenario, Theme::Mixed, |_| {}),
        hears: |mut input, _| {
            if let Input::Seen(seen) = &mut input
                && seen.verdict == Verdict::Failed(Failure::ShuttingDown)
            {
                seen.verdict = Verdict::Failed(Failure::Lost);
            }
            Some(input)
        },
        ..HONEST
    },
];

pub const FOREIGN: &[Break] = &[
    Break {
        bug: "follows although it is to block",
        setting: |scenario| {
            three(scenario, Theme::Mixed, |service| {
                service.failover.foreign_promotion = Some(ForeignPromotion::Block);
            });
        },
        service: |service| service.failover.foreign_promotion = Some(ForeignPromotion::Follow),
        ..HONEST
    },
    Break {
        bug: "follows who says once that it is primary",
        setting: |scenario| {
            three(scenario, Theme::Mixed, |service| {
                service.failover.foreign_promotion = Some(ForeignPromotion::Follow);
            });
        },
        hears: |input, hand| {
            if let Input::Seen(seen) = &input
                && let Verdict::Answered(facts) = &seen.verdict
                && facts.role == Role::Primary
                && !hand.is_active(&seen.backend)
            {
                let started = Moment(seen.started.0.saturating_sub(Duration::from_millis(300)));
                let before = Observation { started, ..(**seen).clone() };
                hand.pretend(&Input::Seen(Box::new(before)));
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "follows who does not descend from what is latched",
        // An operator may adopt it.
        symptoms: &[Law::RoleMismatch],
        setting: |scenario| {
            three(scenario, Theme::People, |service| {
                service.failover.foreign_promotion = Some(ForeignPromotion::Follow);
            });
        },
        hears: |input, hand| {
            Some(standby_says(input, hand, |facts, hand| {
                let latch = hand.machine.record().latch.as_ref();
                if let (Some(identity), Role::Primary) = (latch.and_then(|latch| latch.identity.as_ref()), facts.role) {
                    let mut history = identity.ancestors.clone();
                    history.push(Ancestor { timeline: identity.timeline, switch_lsn: Lsn(1) });
                    facts.system_id = Some(identity.system_id);
                    facts.timeline = Some(Timeline(identity.timeline.0 + 1));
                    facts.history = Some(history);
                }
            }))
        },
        ..HONEST
    },
];

pub const SPLIT_BRAIN: &[Break] = &[
    Break {
        bug: "does not see who else was promoted when it takes up what it sent",
        // It goes on when its own candidate follows that one.
        symptoms: &[Law::Timeline],
        // West is ordered to be promoted and is not, until people lose patience and promote north.
        setting: |scenario| three(scenario, Theme::Deaths, |service| service.backends[1].priority = 1),
        world: |world| {
            world.servers[1].promotes = Promotes::Never;
            (1..8).for_each(|n| world.at(world.now + n * 20_000, Event::Promoted { server: 2 }));
        },
        hears: |mut input, hand| {
            let sent = hand.intent().filter(|intent| intent.stage == Stage::Sent && intent.kind != EpisodeKind::Follow);
            let to = sent.map(|intent| intent.to.clone());
            // What was not heard of is ordered again.
            if let Input::Outcome(Outcome::Promotion { result, .. }) = &mut input {
                *result = PromotionResult::Unknown("no answer in time".into());
            }
            if let (Input::Seen(seen), Some(to)) = (&mut input, to)
                && seen.backend != to
                && let Verdict::Answered(facts) = &mut seen.verdict
                && facts.role == Role::Primary
            {
                facts.role = Role::Standby;
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "takes another primary for one that does not talk",
        // It goes on to be read, or is promoted itself.
        symptoms: &[Law::StartChecks, Law::Timeline, Law::Witness],
        setting: |scenario| three(scenario, Theme::Commands, |_| {}),
        world: |world| world.at(world.now + 20_000, Event::Promoted { server: 2 }),
        hears: |mut input, hand| {
            if let Input::Seen(seen) = &mut input
                && let Verdict::Answered(facts) = &seen.verdict
                && facts.role == Role::Primary
                && !hand.is_active(&seen.backend)
                && hand.machine.phase() != Phase::Starting
                && hand.intent().is_none()
            {
                seen.verdict = Verdict::Unknown(Unknown::Authentication);
            }
            Some(input)
        },
        ..HONEST
    },
];
