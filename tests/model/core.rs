//! The machine as the daemon of the model drives it, with what goes in and comes out open to a saboteur.

use std::time::Duration;

use pgpivot::config::Service;
use pgpivot::failover::action::{Action, Command, Event, Operator, Outcome, Receipt, Refusal};
use pgpivot::failover::machine::Machine;
use pgpivot::failover::observation::{Evidence, Observation};
use pgpivot::failover::phase::Record;
use pgpivot::types::{BackendName, HostPort, Now};
use std::net::SocketAddr;

use crate::sabotage::Saboteur;

/// Everything that can be told to the machine.
#[derive(Debug, Clone)]
pub enum Input {
    Addresses(BackendName, Vec<(HostPort, SocketAddr)>),
    Seen(Box<Observation>),
    Evidence(Evidence),
    Outcome(Outcome),
    Disk(Option<String>),
    /// With `true`: only to be explained.
    Command(Command, bool),
    Config(Box<Service>),
    Timeout,
    /// Woke this many milliseconds late.
    Delay(u64),
}

pub type Answer = Result<Receipt, Refusal>;

pub struct Core {
    pub machine: Machine,
    saboteur: Option<Saboteur>,
}

impl Core {
    pub fn start(mut service: Service, name: String, mut record: Record, now: Now, saboteur: Option<Saboteur>) -> Self {
        if let Some(saboteur) = &saboteur {
            saboteur.begins(&mut service, &mut record);
        }
        Self { machine: Machine::new(service, name, record, now), saboteur }
    }

    pub fn handle(&mut self, input: &Input, now: Now) -> Option<Answer> {
        let twisted;
        let input = match &mut self.saboteur {
            None => input,
            Some(saboteur) => {
                let other = saboteur.hears(input.clone(), &mut self.machine, now)?;
                twisted = other;
                &twisted
            }
        };
        feed(&mut self.machine, input, now)
    }

    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        let Some(saboteur) = &mut self.saboteur else {
            return self.machine.poll_action();
        };
        saboteur.poll(&mut self.machine, now)
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.machine.poll_event()
    }
}

pub fn feed(machine: &mut Machine, input: &Input, now: Now) -> Option<Answer> {
    match input {
        Input::Addresses(backend, addresses) => machine.handle_addresses(backend, addresses, now),
        Input::Seen(seen) => machine.handle_observation(seen, now),
        Input::Evidence(evidence) => machine.handle_evidence(evidence, now),
        Input::Outcome(outcome) => machine.handle_outcome(outcome.clone(), now),
        Input::Disk(error) => machine.handle_disk(error.clone(), now),
        Input::Config(service) => machine.handle_config((**service).clone(), now),
        Input::Timeout => machine.handle_timeout(now),
        Input::Delay(late) => machine.handle_delay(Duration::from_millis(*late), now),
        Input::Command(command, dry_run) => {
            let operator = Operator { name: "ada".into(), note: None };
            return Some(machine.handle_command(command, &operator, *dry_run, now));
        }
    }
    None
}
