//! Administrative states: an operator takes newcomers from a backend or an address of it. That changes who is chosen, never
//! what is known: probes, witness, latch and quarantine go on as if nobody had said anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::command::{Answer, refusal};
use super::{Machine, State};
use crate::failover::action::{Action, EventKind, Gate, Operator, Receipt, Refusal};
use crate::failover::phase::{Administered, BackendState};
use crate::failover::side::Side;
use crate::types::{BackendName, HostPort, Moment, Now};

/// Bytes that the orders in force may take in the record, which has one slot of 4 KiB.
const ROOM: usize = 1200;
/// Characters of an operator's name and note that are kept with an order; the history has all of them.
const NAME: usize = 48;
const NOTE: usize = 80;

/// Connections that were asked to end, and when they are cut.
pub(super) type Retiring = BTreeMap<(BackendName, Option<SocketAddr>), Moment>;

impl Machine {
    pub(super) fn command_state(
        &mut self,
        backend: &BackendName,
        address: Option<&HostPort>,
        state: BackendState,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        let side = self.known(backend)?;
        let places = match address {
            None => vec![None],
            Some(asked) => addresses(side, asked)?.into_iter().map(Some).collect(),
        };
        if let State::Episode(run) = &self.state
            && run.intent.to == *backend
            && state != BackendState::Ready
        {
            let said = format!("episode {} moves traffic to {backend}: wait for its end", run.intent.id);
            return Err(refusal("episode_running", said));
        }
        let next = self.reordered(backend, &places, state, operator, now);
        if next.iter().map(Administered::weight).sum::<usize>() > ROOM {
            let said =
                format!("{} states are kept already: set some of them to ready first", self.record.administered.len());
            return Err(refusal("too_many_states", said));
        }
        let named = address.map_or_else(|| backend.to_string(), |address| format!("{backend}/{address}"));
        let changes = next != self.record.administered;
        let (sentence, steps) = match changes {
            false => (self.told_of_same(side, &named, &places), Vec::new()),
            true => self.told_of_state(side, &named, &places, state, dry_run),
        };
        if changes && !dry_run {
            let worked_on = self.active_in_maint().is_some();
            self.record.administered = next;
            if worked_on && self.active_in_maint().is_none() {
                self.lifted = Some(now.at);
                self.actions.push_back(Action::ProbeNow { backend: backend.clone() });
            }
            self.mark_administered();
            self.persist_aside(now);
            self.retire(backend, &places, state, now);
        }
        Ok(Receipt { sentence, episode: None, steps })
    }

    /// The orders in force after this one. One that says what holds already changes nothing.
    fn reordered(
        &self,
        backend: &BackendName,
        places: &[Option<SocketAddr>],
        state: BackendState,
        operator: &Operator,
        now: Now,
    ) -> Vec<Administered> {
        let mut orders = self.record.administered.clone();
        for place in places {
            let here = |order: &Administered| order.backend == *backend && order.address == *place;
            if orders.iter().any(|order| here(order) && order.state == state) {
                continue;
            }
            // A backend that is ready is so with all its addresses.
            let whole = state == BackendState::Ready && place.is_none();
            orders.retain(|order| !(here(order) || whole && order.backend == *backend));
            if state != BackendState::Ready {
                let by = Operator {
                    name: short(&operator.name, NAME),
                    note: operator.note.as_deref().map(|n| short(n, NOTE)),
                };
                orders.push(Administered { backend: backend.clone(), address: *place, state, by, since: now.wall });
            }
        }
        orders
    }

    fn told_of_same(&self, side: &Side, named: &str, places: &[Option<SocketAddr>]) -> String {
        let order = self.record.administered.iter().find(|o| o.backend == side.name && places.contains(&o.address));
        order.map_or_else(|| format!("{named} is ready already"), |order| format!("already so: {}", order.sentence()))
    }

    /// What is, or would be, and what follows from it.
    fn told_of_state(
        &self,
        side: &Side,
        named: &str,
        places: &[Option<SocketAddr>],
        state: BackendState,
        dry_run: bool,
    ) -> (String, Vec<String>) {
        let whole = places.iter().any(Option::is_none);
        let steps = match state {
            BackendState::Ready => {
                let above = self.own_order(&side.name, None).filter(|_| !whole);
                let takes = || "it takes newcomers when it is fit".to_owned();
                vec![above.map_or_else(takes, |order| format!("it takes no newcomers yet: {}", order.sentence()))]
            }
            BackendState::Drain | BackendState::Maint => self.consequences(side, whole, state),
        };
        match dry_run {
            true => (format!("setting {named} to {}", state.as_str()), steps),
            false => (format!("{named} is {}{}: {}", article(state), state.as_str(), steps.join("; ")), Vec::new()),
        }
    }

    fn consequences(&self, side: &Side, whole: bool, state: BackendState) -> Vec<String> {
        let drain = self.service.failover.drain_timeout;
        let mut steps = vec![match state {
            BackendState::Maint => {
                format!("it takes no newcomers; who is connected there is asked to end, and cut after {drain:?}")
            }
            _ => "it takes no newcomers; who is connected there stays".to_owned(),
        }];
        let active = self.is_active(&side.name);
        if whole && active {
            steps.push("it stays active: newcomers that need it wait until it is ready, or until a switchover".into());
        }
        if whole && active && state == BackendState::Maint {
            steps.push("no failover begins by itself until it is ready".into());
        }
        if whole && !active {
            steps.push("it is not promoted until it is ready".into());
        }
        steps
    }

    fn retire(&mut self, backend: &BackendName, places: &[Option<SocketAddr>], state: BackendState, now: Now) {
        let whole = places.iter().any(Option::is_none);
        self.retiring.retain(|(name, place), _| name != backend || !whole && !places.contains(place));
        if state == BackendState::Maint {
            for place in places {
                let (backend, address) = (backend.clone(), *place);
                self.retiring.insert((backend.clone(), address), now.at + self.service.failover.drain_timeout);
                self.actions.push_back(Action::Retire { backend, address, cut: false });
            }
        }
    }

    /// Cuts who had his time to end.
    pub(super) fn retire_due(&mut self, now: Now) {
        let due: Vec<_> =
            self.retiring.iter().filter(|(_, at)| **at <= now.at).map(|(place, _)| place.clone()).collect();
        for place in due {
            self.retiring.remove(&place);
            let (backend, address) = place;
            self.actions.push_back(Action::Retire { backend, address, cut: true });
        }
    }

    /// When somebody must be cut.
    pub(super) fn next_retirement(&self) -> Moment {
        self.retiring.values().min().copied().unwrap_or(Moment(std::time::Duration::MAX))
    }

    /// Orders for backends that the configuration no longer has are dropped, and that is said.
    pub(super) fn forget_strangers(&mut self, now: Now) {
        let sides = &self.sides;
        let known = |order: &Administered| sides.iter().any(|side| side.name == order.backend);
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.record.administered).into_iter().partition(known);
        self.record.administered = kept;
        if gone.is_empty() {
            return;
        }
        for order in gone {
            let said = format!("{}: forgotten, the configuration has no backend {}", order.sentence(), order.backend);
            self.tell(now, EventKind::Notice, said);
        }
        self.persist_aside(now);
    }

    /// Brings what the sides know of it in line with the record.
    pub(super) fn mark_administered(&mut self) {
        let excluded: Vec<_> = self.sides.iter().map(|side| self.order_for(side).map(Administered::sentence)).collect();
        for (side, excluded) in self.sides.iter_mut().zip(excluded) {
            side.excluded = excluded;
        }
    }

    /// The gate is open and nobody of the active tier takes newcomers, by an operator's order.
    pub(in crate::failover) fn newcomers_rest(&self) -> Option<String> {
        let Some(Gate::Open { tier, .. }) = &self.gate else { return None };
        let takes = tier.iter().any(|open| !open.addresses.is_empty());
        tier.iter().find_map(|open| open.rests.clone()).filter(|_| !takes)
    }

    /// The order that concerns all of a side: its own, or the mildest one of its addresses if each has one.
    pub(in crate::failover) fn order_for(&self, side: &Side) -> Option<&Administered> {
        let whole = self.own_order(&side.name, None);
        let each = || {
            let orders: Option<Vec<_>> =
                side.addresses.keys().map(|address| self.own_order(&side.name, Some(*address))).collect();
            orders?.into_iter().min_by_key(|order| order.state)
        };
        whole.or_else(each)
    }

    /// The order for exactly this.
    pub(in crate::failover) fn own_order(
        &self,
        backend: &BackendName,
        address: Option<SocketAddr>,
    ) -> Option<&Administered> {
        self.record.administered.iter().find(|order| order.backend == *backend && order.address == address)
    }

    /// Why newcomers do not go to this address.
    pub(super) fn rests(&self, side: &Side, address: SocketAddr) -> Option<&Administered> {
        self.own_order(&side.name, None).or_else(|| self.own_order(&side.name, Some(address)))
    }

    /// Somebody works on the active side: what it shows then is no reason to leave it.
    pub(in crate::failover) fn active_in_maint(&self) -> Option<String> {
        let order = self.order_for(self.active_side()?).filter(|order| order.state == BackendState::Maint)?;
        Some(format!("{}: no failover begins until `proxyctl backend {} ready`", order.sentence(), order.name()))
    }
}

impl Machine {
    /// What the active side showed in maint is no reason after it either: it is looked at once more.
    pub(super) fn unseen_since_maint(&self, now: Now) -> Option<String> {
        let (since, side, probe) = (self.lifted?, self.active_side()?, &self.service.probe);
        let patience = probe.interval + probe.timeout * 2;
        let waits = now.at < since + patience && !side.failed_since(since);
        waits.then(|| format!("{} was in maint until just now and is looked at once more", side.name))
    }
}

/// The addresses that are meant: one as resolved, or all that a configured name stands for.
fn addresses(side: &Side, asked: &HostPort) -> Result<Vec<SocketAddr>, Refusal> {
    let meant = |(ip, known): &(&SocketAddr, &crate::failover::side::Address)| {
        known.configured.as_ref() == Some(asked) || ip.port() == asked.port && ip.ip().to_string() == *asked.host
    };
    let found: Vec<SocketAddr> = side.addresses.iter().filter(meant).map(|(ip, _)| *ip).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let known: Vec<String> = side.addresses.keys().map(SocketAddr::to_string).collect();
    let known =
        if known.is_empty() { "none is known yet".to_owned() } else { format!("there are {}", known.join(", ")) };
    Err(refusal("unknown_address", format!("{} has no address {asked}; {known}", side.name)))
}

fn article(state: BackendState) -> &'static str {
    if state == BackendState::Ready { "" } else { "in " }
}

/// The begin of a text, without what would be written longer than it is.
fn short(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
