//! Deliberate breaks: what goes into the machine or comes out of it is twisted so that one law is broken, and the
//! reference must notice.

use pgpivot::failover::action::Action;
use pgpivot::failover::machine::Machine;
use pgpivot::failover::phase::Record;
use pgpivot::types::Now;

use crate::core::Input;

#[derive(Debug, Clone)]
pub struct Saboteur {}

impl Saboteur {
    pub fn twist_record(&self, record: Record) -> Record {
        record
    }

    pub fn twist_input(&mut self, input: Input, _machine: &mut Machine, _now: Now) -> Option<Input> {
        Some(input)
    }

    pub fn poll(&mut self, machine: &mut Machine, _now: Now) -> Option<Action> {
        machine.poll_action()
    }
}
