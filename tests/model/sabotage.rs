//! Deliberate breaks: configuration, record, inputs and actions of a machine are twisted around it, as a bug inside
//! would, while the reference knows the true ones. Each must be noticed as a breach of the law that it breaks.

#[path = "sabotage/deeds.rs"]
mod deeds;
#[path = "sabotage/evidence.rs"]
mod evidence;
#[path = "sabotage/limits.rs"]
mod limits;
#[path = "sabotage/places.rs"]
mod places;
#[path = "sabotage/proof.rs"]
mod proof;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use pgpivot::config::Service;
use pgpivot::failover::action::{Action, Outcome};
use pgpivot::failover::machine::Machine;
use pgpivot::failover::observation::{Ancestor, Facts, Observation, Receiver, Role, Verdict};
use pgpivot::failover::phase::{Intent, Record};
use pgpivot::types::{BackendName, Now, Timeline};

use crate::core::{Input, feed};
use crate::laws::Law;
use crate::scenario::{Scenario, Theme, service};
use crate::world::World;

/// One bug.
#[derive(Debug, Clone, Copy)]
pub struct Break {
    /// What the machine does wrong.
    pub bug: &'static str,
    /// What else may show first in some runs. Other runs must still end in the law itself.
    pub symptoms: &'static [Law],
    /// A setting in which it matters.
    pub setting: fn(&mut Scenario),
    /// And servers on which it shows.
    pub world: fn(&mut World),
    /// What the machine takes its configuration for.
    pub service: fn(&mut Service),
    /// What it reads at its start.
    pub record: fn(&mut Record),
    /// What it hears of an input.
    pub hears: fn(Input, &mut Hand<'_>) -> Option<Input>,
    /// What becomes of an order.
    pub orders: fn(Action, &mut Hand<'_>) -> Vec<Action>,
    /// It shows only when all is mended.
    pub heals: bool,
}

/// No bug: what every break is written as a change of.
pub const HONEST: Break = Break {
    bug: "",
    symptoms: &[],
    setting: |_| {},
    world: |_| {},
    service: |_| {},
    record: |_| {},
    hears: |input, _| Some(input),
    orders: |action, _| vec![action],
    heals: false,
};

/// What a process of a broken daemon remembers beside its machine.
#[derive(Debug, Default)]
pub struct Memory {
    addresses: BTreeMap<BackendName, Vec<SocketAddr>>,
    /// The newest answer of each side.
    answers: BTreeMap<BackendName, Observation>,
}

/// A broken machine at work.
pub struct Hand<'a> {
    pub machine: &'a mut Machine,
    pub now: Now,
    pub memory: &'a mut Memory,
}

#[derive(Debug)]
pub struct Saboteur {
    how: Break,
    memory: Memory,
    ready: VecDeque<Action>,
}

impl Saboteur {
    pub fn new(how: Break) -> Self {
        Self { how, memory: Memory::default(), ready: VecDeque::new() }
    }

    pub fn begins(&self, service: &mut Service, record: &mut Record) {
        (self.how.service)(service);
        (self.how.record)(record);
    }

    pub fn hears(&mut self, mut input: Input, machine: &mut Machine, now: Now) -> Option<Input> {
        match &mut input {
            Input::Config(service) => (self.how.service)(service),
            Input::Addresses(backend, list) => {
                let list = list.iter().map(|(_, address)| *address).collect();
                self.memory.addresses.insert(backend.clone(), list);
            }
            Input::Seen(seen) if matches!(seen.verdict, Verdict::Answered(_)) => {
                self.memory.answers.insert(seen.backend.clone(), (**seen).clone());
            }
            _ => {}
        }
        (self.how.hears)(input, &mut Hand { machine, now, memory: &mut self.memory })
    }

    pub fn poll(&mut self, machine: &mut Machine, now: Now) -> Option<Action> {
        loop {
            if let Some(action) = self.ready.pop_front() {
                return Some(action);
            }
            let action = machine.poll_action()?;
            let orders = (self.how.orders)(action, &mut Hand { machine, now, memory: &mut self.memory });
            self.ready.extend(orders);
        }
    }
}

impl Hand<'_> {
    fn is_active(&self, backend: &BackendName) -> bool {
        self.machine.active().is_some_and(|(active, _)| active == backend)
    }

    fn intent(&self) -> Option<&Intent> {
        self.machine.record().intent.as_ref()
    }

    /// Some other side that has addresses.
    fn other_than(&self, backend: &BackendName) -> Option<BackendName> {
        self.memory.addresses.keys().find(|name| *name != backend).cloned()
    }

    /// The machine hears something that did not happen.
    fn pretend(&mut self, input: &Input) {
        feed(self.machine, input, self.now);
    }

    /// What another side would say if it were primary: it is heard now.
    fn imagine_primary(&mut self, backend: &BackendName) {
        if self.is_active(backend) {
            return;
        }
        let Some(latch) = &self.machine.record().latch else { return };
        let (Some(identity), Some(answer)) = (&latch.identity, self.memory.answers.get(backend)) else { return };
        let mut answer = answer.clone();
        (answer.started, answer.finished, answer.fresh) = (self.now.at, self.now.at, true);
        if let Verdict::Answered(facts) = &mut answer.verdict {
            let mut history = identity.ancestors.clone();
            history.push(Ancestor { timeline: identity.timeline, switch_lsn: facts.lsn.unwrap_or_default() });
            facts.role = Role::Primary;
            facts.timeline = Some(Timeline(identity.timeline.0 + 1));
            facts.history = Some(history);
            facts.receiver = Receiver::Unknown;
        }
        self.pretend(&Input::Seen(Box::new(answer)));
    }

    /// A write is taken for done when it is ordered.
    fn believes_write(&mut self, action: Action, which: impl Fn(&Record) -> bool) -> Vec<Action> {
        if let Action::Persist { ticket, record } = &action
            && which(record)
        {
            self.pretend(&Input::Outcome(Outcome::Persisted { ticket: *ticket, result: Ok(()) }));
        }
        vec![action]
    }
}

/// Changes what a side that is not the active one said of itself.
fn standby_says(mut input: Input, hand: &Hand<'_>, change: impl Fn(&mut Facts, &Hand<'_>)) -> Input {
    if let Input::Seen(seen) = &mut input
        && !hand.is_active(&seen.backend)
        && let Verdict::Answered(facts) = &mut seen.verdict
    {
        change(facts, hand);
    }
    input
}

/// Changes what the active side said of itself.
fn active_says(mut input: Input, hand: &Hand<'_>, change: impl Fn(&mut Facts, &Hand<'_>)) -> Input {
    if let Input::Seen(seen) = &mut input
        && hand.is_active(&seen.backend)
        && let Verdict::Answered(facts) = &mut seen.verdict
    {
        change(facts, hand);
    }
    input
}

/// Changes the record of a write.
fn writes(mut action: Action, change: impl Fn(&mut Record)) -> Vec<Action> {
    if let Action::Persist { record, .. } = &mut action {
        change(record);
    }
    vec![action]
}

/// A busy pair with every default, that may decide as often as it likes.
fn plain(scenario: &mut Scenario, theme: Theme, change: impl Fn(&mut Service)) {
    let mut plain = service(scenario.backends);
    (plain.failover.cooldown, plain.failover.max_per_day) = (Duration::ZERO, 100);
    change(&mut plain);
    scenario.services.fill(plain);
    (scenario.theme, scenario.pace, scenario.w) = (theme, 1500, 3000);
}

/// The same with three servers.
fn three(scenario: &mut Scenario, theme: Theme, change: impl Fn(&mut Service)) {
    scenario.backends = 3;
    plain(scenario, theme, change);
}
