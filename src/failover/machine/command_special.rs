//! The rarer commands: adopt, restore, abandon. Each refusal says what would be right.

use super::command::{Answer, refusal};
use super::{Machine, State, Step};
use crate::config::ConfiguredRole;
use crate::failover::action::{Operator, Receipt};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::EpisodeKind;
use crate::types::{BackendName, Now};

impl Machine {
    /// What a forced failover may lose, as far as it is known.
    pub(super) fn at_stake(&self, target: &BackendName, now: Now) -> String {
        if self.replicates() {
            let replicated = self.active_name().and_then(|active| {
                let at = self.streams.live(&active, target).find_map(|known| known.stream.replicated)?;
                Some(format!("{target} has what {active} acknowledged up to {at}; what came after it is lost"))
            });
            return replicated.unwrap_or_else(|| "how much may be lost is not known".to_owned());
        }
        let active = self.active_side().zip(self.latch().and_then(|latch| latch.identity.as_ref()));
        let seen = active.and_then(|(side, identity)| Some((&side.name, side.flushed(identity)?)));
        let lsn = self.side(target).and_then(|side| side.facts.as_ref()).and_then(|heard| heard.facts.lsn);
        match (seen, lsn) {
            (Some((name, (flushed, at))), Some(lsn)) => format!(
                "{target} is at {lsn}, {} bytes behind {flushed}, where {name} was seen {:.1} s ago; what was written since is not counted",
                lsn.behind(flushed),
                now.at.since(at).as_secs_f64()
            ),
            _ => "how much may be lost is not known".to_owned(),
        }
    }

    pub(super) fn command_adopt(
        &mut self,
        backend: &BackendName,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let State::Episode(run) = &self.state {
            let pending = run.intent.to == *backend && matches!(run.step, Step::Promoting { .. });
            if pending && !self.knows_identity() && !self.replicates() {
                return self.adopt_pending(backend, operator, dry_run, now);
            }
            return Err(refusal(
                "episode_running",
                format!("episode {} is under way: wait for its end", run.intent.id),
            ));
        }
        let side = self.known(backend)?;
        let stands = self.mismatch.is_none() && self.disowned().is_none();
        if self.is_active(backend) && stands && matches!(self.state, State::Watching) {
            return Err(refusal("already_active", format!("{backend} is already active")));
        }
        if self.knows_identity() {
            let heard = side.facts.as_ref().filter(|heard| now.at.since(heard.finished) <= self.patience());
            let facts = heard.map(|heard| &heard.facts);
            let up = side.state() == Health::Up;
            let Some(facts) =
                facts.filter(|f| up && f.role == Role::Primary && f.system_id.is_some() && f.timeline.is_some())
            else {
                let shown = side.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
                return Err(refusal(
                    "not_primary",
                    format!("{backend} does not prove to be primary ({shown}): promote it first"),
                ));
            };
            let higher = self.sides.iter().find(|other| {
                other.name != *backend
                    && other.role() == Role::Primary
                    && other
                        .facts
                        .as_ref()
                        .is_some_and(|h| h.facts.system_id == facts.system_id && h.facts.timeline > facts.timeline)
            });
            if let Some(other) = higher {
                return Err(refusal(
                    "newer_primary",
                    format!("{} is primary on a higher timeline: adopt that one", other.name),
                ));
            }
        } else if side.state() != Health::Up {
            return Err(refusal("not_up", format!("{backend} is {}", side.state().as_str())));
        } else if self.replicates() && !self.serves_as_primary(backend) {
            return Err(refusal(
                "not_primary",
                format!("{backend} is a standby and does not serve: fail over to it first"),
            ));
        }
        let active = self.latch().map(|latch| latch.active.clone());
        let steps = vec![
            active.map_or_else(|| "nobody is cut".to_owned(), |name| format!("cut every connection of {name}")),
            format!("latch {backend} and open to it; nothing is promoted"),
        ];
        let loss = self.missing_on(backend).map_or_else(String::new, |loss| format!("; {loss}"));
        let why = format!("adopted by {}{loss}", operator.name);
        let doubted = self.service.is_blind() && self.latch().is_some_and(|latch| latch.active != *backend);
        let after = if doubted { "; standbys count once `proxyctl rejoin` says that they follow it" } else { "" };
        self.start(
            EpisodeKind::Follow,
            backend.clone(),
            why,
            false,
            operator,
            dry_run,
            (format!("adopting {backend}{loss}{after}"), steps),
            now,
        )
    }

    /// No probe can prove that it was promoted, and its promoter does not say so: an operator does.
    fn adopt_pending(&mut self, backend: &BackendName, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        let side = self.known(backend)?;
        if side.state() != Health::Up {
            return Err(refusal("not_up", format!("{backend} is {}", side.state().as_str())));
        }
        let episode = self.run().map(|run| run.intent.id);
        if !dry_run {
            self.promoted(format!("{} says that {backend} is primary", operator.name), now);
        }
        let sentence = format!("{backend} is taken for promoted, by your word, and opened to");
        Ok(Receipt { sentence, episode, steps: vec![format!("latch {backend} and open to it")] })
    }

    pub(super) fn command_restore(
        &mut self,
        to: Option<&BackendName>,
        force: bool,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        let latch = self.ready()?;
        let home = match to {
            Some(to) => self.known(to)?.name.clone(),
            None => {
                let configured = self.sides.iter().find(|side| side.config.role == Some(ConfiguredRole::Primary));
                let Some(side) = configured else {
                    return Err(refusal("no_home", "no backend has role = \"primary\": name one with --to"));
                };
                side.name.clone()
            }
        };
        if home == latch.active {
            return Err(refusal("already_home", format!("{home} is active already (epoch {})", latch.epoch)));
        }
        if self.replicates() {
            return self.restore_clusters(&latch, &home, force, operator, dry_run, now);
        }
        if force {
            return Err(refusal(
                "no_force",
                "a server is brought home by a stream on the latched timeline and nothing else: leave --force out",
            ));
        }
        let side = self.known(&home)?;
        super::rejoin::follows(side, &latch)?;
        self.command_switchover(Some(&home), operator, dry_run, now)
    }

    pub(super) fn command_abandon(&mut self, backend: &BackendName, dry_run: bool, now: Now) -> Answer {
        let pending = self.run().filter(|run| run.intent.to == *backend && matches!(run.step, Step::Promoting { .. }));
        let Some(run) = pending else {
            return Err(refusal("nothing_pending", format!("no promotion of {backend} is pending")));
        };
        let id = run.intent.id;
        let from = run.intent.from.as_ref().map_or("nobody", BackendName::as_str).to_owned();
        // Beside a successor the old side is not opened again: nothing is lost with the target.
        let cluster = run.intent.stream.is_some();
        self.may_abandon_stream(backend)?;
        let answers = self.side(backend).is_some_and(|side| side.state() == Health::Up);
        if answers && !cluster && self.successor().is_none() {
            return Err(refusal("target_answers", format!("{backend} answers: it is not off")));
        }
        if !dry_run {
            if cluster {
                self.account_for_all();
            } else if self.service.promotes_blindly() {
                self.doubt(backend);
            }
            self.cancel(format!("an operator gives {backend} up"), now);
        }
        let sentence = match self.successor() {
            Some(side) => format!("episode {id} ends without {backend}; {} is followed, or adopted by you", side.name),
            None => format!("episode {id} ends without {backend}; traffic goes back to {from} once it proves itself"),
        };
        Ok(Receipt { sentence, episode: Some(id), steps: Vec::new() })
    }
}
