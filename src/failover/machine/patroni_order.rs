//! A switchover or failover that is ordered from Patroni: newcomers wait from the order on, Patroni's answer is told, and
//! whoever it promotes is followed like any other. Nothing of it is kept on disk: no order changes the latch.

use std::time::Duration;

use super::command::{Answer, refusal};
use super::watch::{bounded, kind_word};
use super::{Machine, State};
use crate::failover::action::{Action, Event, EventKind, Operator, PatroniOrder, PatroniSays, Receipt, Refusal};
use crate::failover::patroni::Standing;
use crate::failover::phase::{EpisodeId, EpisodeKind};
use crate::types::{BackendName, Moment, Now, WallTime};

/// An order that may have been taken: so long Patroni may take until it begins, by its default `loop_wait` and some more.
const AMBIGUOUS: Duration = Duration::from_secs(15);

/// What was ordered.
#[derive(Debug)]
pub(in crate::failover) struct Ask {
    /// Of the episode that will follow it.
    pub(in crate::failover) id: EpisodeId,
    pub(in crate::failover) kind: EpisodeKind,
    /// `None` = whom Patroni chooses.
    pub(in crate::failover) to: Option<BackendName>,
    pub(in crate::failover) operator: Operator,
    pub(in crate::failover) decided_at: WallTime,
    began: Moment,
    until: Moment,
    /// Since when nobody knows what became of it, and why.
    unknown: Option<(Moment, String)>,
    /// Patroni says that it is done.
    taken: bool,
}

impl Machine {
    pub(in crate::failover) fn follows_patroni(&self) -> bool {
        self.service.patroni.is_some()
    }

    /// A switchover or a failover by Patroni's API.
    pub(super) fn command_patroni(
        &mut self,
        kind: EpisodeKind,
        to: Option<&BackendName>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(ask) = &self.following.ask {
            let same = ask.kind == kind && to.is_none_or(|to| ask.to.as_ref() == Some(to));
            let sentence = format!("a {} to {} is already ordered from Patroni", kind_word(ask.kind), ask.target());
            return match same {
                true => Ok(Receipt { sentence, episode: Some(ask.id), steps: Vec::new() }),
                false => Err(refusal("episode_running", format!("{sentence}: wait for its end"))),
            };
        }
        let latch = self.ready()?;
        let order = self.patroni_order(kind, &latch.active, to)?;
        let target = to.map_or("whom Patroni chooses", BackendName::as_str);
        let sentence = format!("ordering a {} from {} to {target} from Patroni", kind_word(kind), latch.active);
        let steps = vec![
            "hold newcomers; running work goes on until Patroni ends it".to_owned(),
            format!("POST /{} {} to a member of Patroni's", order.path(), order.body()),
            "follow whoever proves to be primary; if Patroni refuses, newcomers go on as before".to_owned(),
        ];
        let id = EpisodeId(self.record.last_episode.0 + 1);
        if !dry_run {
            let wait = self.service.patroni.as_ref().map_or(Duration::ZERO, |patroni| patroni.order_timeout);
            self.following.ask = Some(Ask {
                id,
                kind,
                to: to.cloned(),
                operator: operator.clone(),
                decided_at: now.wall,
                began: now.at,
                until: now.at + (wait + AMBIGUOUS).max(self.service.failover.promote_timeout),
                unknown: None,
                taken: false,
            });
            // The answer may take as long as the change: the gate is closed to newcomers before it is asked for.
            self.sync_gate(now);
            self.actions.push_back(Action::OrderPatroni { episode: id, order });
            self.probe_all();
        }
        Ok(Receipt { sentence, episode: (!dry_run).then_some(id), steps })
    }

    /// What would be sent, or why it would make no sense.
    fn patroni_order(
        &self,
        kind: EpisodeKind,
        active: &BackendName,
        to: Option<&BackendName>,
    ) -> Result<PatroniOrder, Refusal> {
        let Some(reading) = self.patroni_word() else {
            let why = self.following.trouble.as_ref().map_or("it was not asked yet", |(_, why)| why);
            return Err(refusal("patroni_unknown", format!("no member of Patroni's has answered: {why}")));
        };
        let candidate = match to {
            None => None,
            Some(to) => {
                self.known(to)?;
                if to == active {
                    return Err(refusal("already_active", format!("{to} is already active")));
                }
                let member = self.following.members.get(to);
                let said = || format!("{to} is no member that Patroni knows; name it: member = \"…\" at the backend");
                Some(member.ok_or_else(|| refusal("no_member", said()))?.clone())
            }
        };
        match (kind, candidate, self.standing()) {
            (EpisodeKind::Failover, Some(candidate), _) => Ok(PatroniOrder::Failover { candidate }),
            (EpisodeKind::Failover, None, _) => {
                Err(refusal("needs_target", "Patroni fails over to a member that is named: say which with --to"))
            }
            (_, candidate, Standing::Leader | Standing::Leaving(_)) => {
                let leader = reading.cluster.leader().map(|leader| leader.name.clone()).unwrap_or_default();
                Ok(PatroniOrder::Switchover { leader, candidate })
            }
            (_, _, Standing::Another(leader)) => Err(refusal(
                "not_leader",
                format!("Patroni's leader is {}, not {active}: it is followed first", leader.name),
            )),
            (_, _, Standing::Nobody | Standing::Unknown) => Err(refusal(
                "not_leader",
                format!("Patroni does not name {active} its leader: `proxyctl failover --to` names whom to promote"),
            )),
        }
    }

    /// Patroni's answer to an order.
    pub(super) fn patroni_said(&mut self, episode: EpisodeId, says: PatroniSays, now: Now) {
        let Some(ask) = self.following.ask.as_mut().filter(|ask| ask.id == episode) else {
            // Followed already, or given up.
            if let PatroniSays::Taken(text) = says {
                self.tell(now, EventKind::Notice, format!("patroni: {}", bounded(text)));
            }
            return;
        };
        match says {
            PatroniSays::Taken(text) => {
                ask.taken = true;
                self.tell(now, EventKind::Notice, format!("patroni: {}", bounded(text)));
            }
            PatroniSays::Refused(why) => self.end_ask(format!("Patroni refuses: {}", bounded(why)), now),
            PatroniSays::NotSent(why) => self.end_ask(format!("the order did not leave: {}", bounded(why)), now),
            PatroniSays::Unknown(why) => {
                ask.unknown = Some((now.at, bounded(why.clone())));
                let said =
                    format!("patroni: what became of the order is not known ({}); it is read again", bounded(why));
                self.tell(now, EventKind::Notice, said);
            }
        }
        // By what it shows it is judged.
        self.actions.push_back(Action::ReadPatroni);
    }

    /// An order that brought nothing ends.
    pub(super) fn tend_ask(&mut self, now: Now) {
        let Some(ask) = &self.following.ask else { return };
        if matches!(&self.state, State::Episode(_)) {
            self.following.ask = None;
            return;
        }
        let still = matches!(self.standing(), Standing::Leader);
        let heard = self.following.heard.as_ref().map(|heard| heard.started);
        let why = match &ask.unknown {
            Some((since, why))
                if still && now.at.since(*since) >= AMBIGUOUS && heard > Some(*since + AMBIGUOUS / 2) =>
            {
                format!("no change came of the order, whose answer was lost ({why})")
            }
            _ if now.at >= ask.until => {
                let seconds = now.at.since(ask.began).as_secs();
                format!("nobody proves to be primary {seconds} s after the order; if somebody does, that is followed")
            }
            _ => return,
        };
        self.end_ask(why, now);
    }

    fn end_ask(&mut self, why: String, now: Now) {
        let Some(ask) = self.following.ask.take() else { return };
        // Its number is used up.
        self.record.last_episode = ask.id;
        self.persist_aside(now);
        *self.counts.entry((true, ask.kind, false)).or_default() += 1;
        let active = self.active_name();
        let sentence = format!("episode {} ({} to {}) is over: {why}", ask.id, kind_word(ask.kind), ask.target());
        self.events.push_back(Event {
            at: now.wall,
            episode: Some(ask.id),
            epoch: self.latch().map(|latch| latch.epoch).unwrap_or_default(),
            kind: EventKind::Cancelled,
            sentence,
            took: Some(now.at.since(ask.began)),
            operator: Some(ask.operator),
            active,
            change: None,
        });
    }

    /// What an order that is under way adds to the reason for following.
    pub(super) fn ordered_by(&self) -> String {
        let ask = self.following.ask.as_ref();
        ask.map_or_else(String::new, |ask| {
            format!("; {} had ordered that {} from Patroni", ask.operator.name, kind_word(ask.kind))
        })
    }
}

impl Ask {
    /// Who will be promoted, in words.
    pub(in crate::failover) fn target(&self) -> &str {
        self.to.as_ref().map_or("whom Patroni chooses", BackendName::as_str)
    }

    /// What it waits for, in words.
    pub(in crate::failover) fn sentence(&self) -> String {
        let waits = match (&self.unknown, self.taken) {
            (Some(_), _) => "whose answer was lost: Patroni is read again",
            (None, true) => "which Patroni says is done",
            (None, false) => "and Patroni has not answered yet",
        };
        format!("a {} to {} is ordered from Patroni, {waits}; newcomers wait", kind_word(self.kind), self.target())
    }
}
