//! Breaks of what keeps a decision from being taken: budget, cool-down, pause, authority, operators, the disk.

use std::time::Duration;

use pgpivot::config::{Authority, Promoter};
use pgpivot::failover::action::{Action, Command, Outcome};
use pgpivot::failover::observation::Verdict;
use pgpivot::failover::phase::{EpisodeKind, Phase};

use super::{Break, HONEST, plain, three, writes};
use crate::core::Input;
use crate::laws::Law;
use crate::scenario::{Theme, service};

pub const BUDGET: &[Break] = &[
    Break {
        bug: "has no budget",
        setting: |scenario| scenario.theme = Theme::Deaths,
        service: |service| service.failover.max_per_day = 1000,
        ..HONEST
    },
    Break {
        bug: "forgets at its start what was spent",
        setting: |scenario| three(scenario, Theme::Deaths, |service| service.failover.max_per_day = 1),
        record: |record| record.spent.clear(),
        ..HONEST
    },
    Break {
        bug: "does not write down what was spent",
        orders: |action, _| writes(action, |record| record.spent.clear()),
        ..HONEST
    },
];

pub const COOLDOWN: &[Break] = &[
    Break { bug: "has no cool-down", service: |service| service.failover.cooldown = Duration::ZERO, ..HONEST },
    Break {
        bug: "forgets at its start that it cools down",
        setting: |scenario| {
            plain(scenario, Theme::Daemon, |service| service.failover.cooldown = Duration::from_secs(60));
        },
        record: |record| record.cooldown_until = None,
        ..HONEST
    },
];

pub const PAUSE: &[Break] = &[
    Break {
        bug: "takes a pause and does not pause",
        hears: |input, _| match input {
            Input::Command(Command::Pause, false) => Some(Input::Command(Command::CheckHealth, false)),
            other => Some(other),
        },
        ..HONEST
    },
    Break {
        bug: "takes up again by itself",
        setting: |scenario| plain(scenario, Theme::Deaths, |_| {}),
        hears: |input, hand| {
            if matches!(input, Input::Timeout) && hand.machine.phase() == Phase::Paused {
                hand.pretend(&Input::Command(Command::Resume, false));
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "forgets at its start that it is paused",
        setting: |scenario| {
            three(scenario, Theme::Silence, |_| {});
            scenario.commands = 1;
        },
        record: |record| record.paused = None,
        ..HONEST
    },
];

pub const AUTHORITY: &[Break] = &[
    Break { bug: "is always automatic", service: |service| service.failover.automatic = true, ..HONEST },
    Break {
        bug: "promotes although it only observes",
        service: |service| {
            service.failover.authority = Authority::SelfDecides;
            if service.failover.promoter == Promoter::None && !service.failover.standby_serves {
                service.failover.promoter = Promoter::Command(vec!["promote".into()]);
            }
        },
        ..HONEST
    },
    Break {
        bug: "switches over when nobody commands it",
        orders: |action, _| takes_for(action, EpisodeKind::Switchover),
        ..HONEST
    },
    Break {
        bug: "moves traffic between sides that do not both serve",
        setting: |scenario| plain(scenario, Theme::Deaths, |_| {}),
        orders: |action, _| takes_for(action, EpisodeKind::Route),
        ..HONEST
    },
];

/// A failover that nobody commanded.
fn takes_for(action: Action, kind: EpisodeKind) -> Vec<Action> {
    writes(action, |record| {
        if let Some(intent) = &mut record.intent
            && (intent.kind, &intent.operator) == (EpisodeKind::Failover, &None)
        {
            intent.kind = kind;
        }
    })
}

pub const SECOND_DECIDER: &[Break] = &[Break {
    bug: "does not see other daemons",
    setting: |scenario| {
        scenario.services.resize(2, service(scenario.backends));
        plain(scenario, Theme::Deaths, |_| {});
    },
    hears: |mut input, _| {
        if let Input::Seen(seen) = &mut input
            && let Verdict::Answered(facts) = &mut seen.verdict
        {
            facts.daemons.clear();
        }
        Some(input)
    },
    ..HONEST
}];

pub const COMMAND: &[Break] = &[
    Break {
        bug: "takes every failover for a forced one",
        hears: |input, _| match input {
            Input::Command(Command::Failover { to, route_only: false, .. }, dry_run) => {
                Some(Input::Command(Command::Failover { to, force: true, route_only: false, at: None }, dry_run))
            }
            other => Some(other),
        },
        ..HONEST
    },
    Break {
        bug: "does not look at the target of a command",
        setting: |scenario| scenario.theme = Theme::Commands,
        hears: |input, _| match input {
            Input::Command(Command::Failover { force, route_only, .. }, dry_run) => {
                Some(Input::Command(Command::Failover { to: None, force, route_only, at: None }, dry_run))
            }
            Input::Command(Command::Switchover { .. }, dry_run) => {
                Some(Input::Command(Command::Switchover { to: None }, dry_run))
            }
            other => Some(other),
        },
        ..HONEST
    },
    Break {
        bug: "adopts whoever it is told to",
        // A promotion that is pending is taken for proven.
        symptoms: &[Law::NoWayBack, Law::RoleMismatch],
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        hears: |input, hand| {
            if let Input::Command(Command::Adopt { backend }, false) = &input {
                hand.imagine_primary(backend);
            }
            Some(input)
        },
        ..HONEST
    },
    Break {
        bug: "routes to whoever it is told to",
        // Who is imagined to be primary may be followed without a command.
        symptoms: &[Law::Foreign],
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        hears: |input, hand| {
            if let Input::Command(Command::Failover { to: Some(backend), route_only: true, .. }, false) = &input {
                hand.imagine_primary(backend);
            }
            Some(input)
        },
        ..HONEST
    },
];

pub const DRY_RUN: &[Break] = &[Break {
    bug: "does what it is only to explain",
    hears: |input, _| match input {
        Input::Command(command, true) => Some(Input::Command(command, false)),
        other => Some(other),
    },
    ..HONEST
}];

pub const DISK: &[Break] = &[Break {
    bug: "forgets at once that the disk failed",
    setting: |scenario| plain(scenario, Theme::Daemon, |_| {}),
    hears: |input, hand| {
        match &input {
            Input::Disk(Some(_)) => return Some(Input::Disk(None)),
            Input::Outcome(Outcome::Persisted { result: Err(_), .. }) => {
                hand.pretend(&input);
                return Some(Input::Disk(None));
            }
            _ => {}
        }
        Some(input)
    },
    ..HONEST
}];

pub const SETTLES: &[Break] = &[
    Break {
        bug: "never lets a lock go",
        setting: |scenario| plain(scenario, Theme::Commands, |_| {}),
        orders: |action, _| match action {
            Action::Unlock { .. } => Vec::new(),
            other => vec![other],
        },
        heals: true,
        ..HONEST
    },
    Break {
        bug: "takes up again and stays paused",
        hears: |input, _| match input {
            Input::Command(Command::Resume, dry_run) => Some(Input::Command(Command::CheckHealth, dry_run)),
            other => Some(other),
        },
        heals: true,
        ..HONEST
    },
];
