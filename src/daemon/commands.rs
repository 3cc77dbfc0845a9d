//! Commands on their way to the machine and back. A rejoin takes two steps: both servers are read first, then the machine
//! answers.

use super::driver::Driver;
use crate::admin::{CommandRequest, Order};
use crate::failover::action::{Command, Outcome};
use crate::types::Now;

impl Driver {
    pub(super) fn command(&mut self, request: CommandRequest, now: Now) {
        self.reading.retain(|waits| !waits.reply.is_closed());
        match request.reply.is_closed() {
            true => {}
            false if self.reads_first(&request) => self.reading.push(request),
            false => self.answer(request, now),
        }
    }

    fn answer(&mut self, request: CommandRequest, now: Now) {
        if let Order::Command(command) = &request.order {
            let answer = self.machine.handle_command(command, &request.operator, request.dry_run, now);
            self.drain_machine();
            self.show_now(now);
            // The caller may have given up meanwhile; what was done is in the history.
            let _ = request.reply.send(answer);
        }
    }

    /// A rejoin is answered when both servers were read. `false`: this order needs no reading.
    fn reads_first(&mut self, request: &CommandRequest) -> bool {
        let Order::Command(Command::Rejoin { backend, .. }) = &request.order else { return false };
        let active = self.machine.active().map(|(active, _)| active.clone());
        let Some(active) = active.filter(|active| active != backend && self.services[0].shows_lines()) else {
            return false;
        };
        let known = self.services[0].backends.iter().any(|known| known.name == *backend);
        let (effects, outcomes, backend) = (self.effects.clone(), self.outcomes.clone(), backend.clone());
        let (side, source) = (self.address(&backend), self.address(&active));
        if known {
            self.tasks.spawn(async move {
                let survey = Box::new(effects.survey((&backend, side), (&active, source)).await);
                // As above.
                let _ = outcomes.send(Outcome::Surveyed { backend, survey });
            });
        }
        known
    }

    /// An outcome for the machine; who waited for what both servers show is answered then.
    pub(super) fn hear_outcome(&mut self, outcome: Outcome, now: Now) {
        let read = match &outcome {
            Outcome::Surveyed { backend, .. } => Some(backend.clone()),
            _ => None,
        };
        self.machine.handle_outcome(outcome, now);
        let Some(read) = read else { return };
        let waits = |request: &mut CommandRequest| matches!(&request.order, Order::Command(Command::Rejoin { backend, .. }) if *backend == read);
        for request in self.reading.extract_if(.., waits).collect::<Vec<_>>() {
            self.answer(request, now);
        }
    }
}
