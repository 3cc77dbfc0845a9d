//! Which standby may be promoted, in which order, and why another may not. Also what keeps one from being *armed*.
//! Functions over what was heard; whether a promotion is due is `analysis`'s.

use std::fmt;
use std::time::Duration;

use super::health::State;
use super::observation::{Receiver, Role};
use super::phase::{BlockReason, Identity};
use super::replication::Status;
use super::side::Side;
use crate::config::{ConfiguredRole, ProbeKind, Promoter, Service};
use crate::types::{BackendName, Lsn, Moment};

/// May this backend be promoted?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Fit {
        /// Received and durable.
        lsn: Option<Lsn>,
        /// Bytes behind the primary's last seen flush position.
        lag: Option<u64>,
        /// Clusters: what it lacked of what was committed up to the first evidence, or lacks now.
        behind: Option<Duration>,
    },
    /// Not without losing more than `max_lag`.
    Stale(String),
    /// No.
    Unfit(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit { behind: Some(behind), .. } => write!(f, "{:.0} s behind", behind.as_secs_f64()),
            Self::Fit { lsn: Some(lsn), lag: Some(lag), .. } => write!(f, "at {lsn}, {lag} bytes behind"),
            Self::Fit { lsn: Some(lsn), lag: None, .. } => write!(f, "at {lsn}"),
            Self::Fit { .. } => f.write_str("up"),
            Self::Stale(why) | Self::Unfit(why) => f.write_str(why),
        }
    }
}

/// Every backend but the active one, best candidate first. `t0`: `max_disconnect` counts from there.
pub fn rank<'a>(
    service: &Service,
    sides: &'a [Side],
    active: &BackendName,
    identity: Option<&Identity>,
    t0: Option<Moment>,
    now: Moment,
) -> Vec<(&'a Side, Verdict)> {
    let flushed = sides.iter().find(|side| side.name == *active);
    let flushed = flushed.zip(identity).and_then(|(side, identity)| side.flushed(identity)).map(|(lsn, _)| lsn);
    let mut ranked: Vec<_> = sides
        .iter()
        .filter(|side| side.name != *active)
        .map(|side| (side, fitness(service, side, identity, flushed, Some(t0.unwrap_or(now)))))
        .collect();
    let lsn = |verdict: &Verdict| match verdict {
        Verdict::Fit { lsn, .. } => (2, lsn.unwrap_or_default()),
        Verdict::Stale(_) => (1, Lsn::default()),
        Verdict::Unfit(_) => (0, Lsn::default()),
    };
    ranked.sort_by(|(a, va), (b, vb)| {
        lsn(vb)
            .cmp(&lsn(va))
            .then(a.config.priority.cmp(&b.config.priority))
            .then(b.config.weight.cmp(&a.config.weight))
            .then(a.name.cmp(&b.name))
    });
    ranked
}

/// As when it was chosen, but for what it streamed: a decision of a moment ago vouches for that.
pub fn still_fit(service: &Service, side: &Side, identity: Option<&Identity>, flushed: Option<Lsn>) -> Verdict {
    fitness(service, side, identity, flushed, None)
}

/// `t0`: it must have streamed not long before.
fn fitness(
    service: &Service,
    side: &Side,
    identity: Option<&Identity>,
    flushed: Option<Lsn>,
    t0: Option<Moment>,
) -> Verdict {
    let name = &side.name;
    if !side.config.promote {
        return Verdict::Unfit(format!("{name} is kept from being promoted by promote = false in its [[backend]]"));
    }
    if let Some(why) = &side.excluded {
        return Verdict::Unfit(format!("{why}: `proxyctl backend {name} ready` makes it a candidate again"));
    }
    if let Some(why) = &side.quarantine {
        return Verdict::Unfit(format!("{name} is quarantined: {why}"));
    }
    if side.state() != State::Up {
        let why = side.last_probe.as_ref().filter(|_| side.state() == State::Unknown);
        let why = why.map(|probe| format!(": {}", probe.text)).unwrap_or_default();
        return Verdict::Unfit(format!("{name} is {}{why}", side.state().as_str()));
    }
    if !side.serves() {
        return Verdict::Unfit(format!("{name} has not answered since a probe failed"));
    }
    if service.replication.is_some() {
        return replicates(service, side);
    }
    // Who says that it is in recovery is no old primary that came back as it was.
    if side.unproven && side.role() != Role::Standby {
        return Verdict::Stale(format!(
            "{name} may lack all that was written since the active side last changed: a {} probe cannot show whom it follows; once it follows, `proxyctl rejoin {name}`",
            service.probe.kind.as_str()
        ));
    }
    let (Some(identity), Some(heard)) = (identity, &side.facts) else {
        return Verdict::Fit { lsn: None, lag: None, behind: None };
    };
    let facts = &heard.facts;
    if facts.role != Role::Standby {
        return Verdict::Unfit(format!("{name} is not a standby"));
    }
    if let Some(why) = strays(side, identity) {
        return Verdict::Unfit(why);
    }
    let max = service.failover.max_disconnect;
    match (side.witness.streamed_at(), t0) {
        (_, None) => {}
        (None, Some(_)) => {
            return Verdict::Unfit(format!("{name} was never seen streaming on timeline {}", identity.timeline));
        }
        (Some(at), Some(t0)) if t0.since(at) > max => {
            let gap = t0.since(at).as_secs();
            return Verdict::Stale(format!("{name} had stopped streaming {gap} s before (max_disconnect is {max:?})"));
        }
        (Some(_), Some(_)) => {}
    }
    let lag = facts.lsn.zip(flushed).map(|(lsn, flushed)| lsn.behind(flushed));
    match lag {
        Some(lag) if lag > service.failover.max_lag => Verdict::Stale(format!(
            "{name} is {lag} bytes behind the last position seen on the primary (max_lag is {})",
            service.failover.max_lag
        )),
        _ => Verdict::Fit { lsn: facts.lsn, lag, behind: None },
    }
}

/// A cluster may be promoted by the one stream that leads to it, while that replicates and lacks little.
fn replicates(service: &Service, side: &Side) -> Verdict {
    let name = &side.name;
    let known = match &side.inbound {
        None => return Verdict::Unfit(format!("the replication streams to {name} were not read yet")),
        Some(Err(why)) => return Verdict::Unfit(why.clone()),
        Some(Ok(known)) => known,
    };
    let (id, status) = (&known.stream.id, known.stream.status);
    if status != Status::Replicating {
        return Verdict::Unfit(format!("stream {id} to {name} is {}", known.stream.state()));
    }
    if side.role() == Role::Primary {
        return Verdict::Unfit(format!("{name} serves by itself although stream {id} replicates to it"));
    }
    if known.stream.replicated.is_none() {
        return Verdict::Unfit(format!("stream {id} to {name} is in its first scan: it shows no replicated time"));
    }
    let max = service.failover.max_replication_lag;
    match side.witness.replication().and_then(|witness| witness.lag()) {
        Some(lag) if lag > max => {
            Verdict::Stale(format!("stream {id} to {name} lacks the last {} s (max_lag is {max:?})", lag.as_secs()))
        }
        behind => Verdict::Fit { lsn: None, lag: None, behind },
    }
}

/// Why a standby does not follow the latched line: promoted, it could never prove itself. Where a stream on another line
/// is gone, it stands on that line all the same.
pub fn strays(side: &Side, identity: &Identity) -> Option<String> {
    let (name, facts) = (&side.name, &side.facts.as_ref()?.facts);
    if facts.system_id.is_some_and(|id| id != identity.system_id) {
        return Some(format!("{name} belongs to another system"));
    }
    let row = match &facts.receiver {
        Receiver::Row(row) if row.streaming => row.timeline,
        _ => None,
    };
    if let Some(other) = row.filter(|timeline| *timeline != identity.timeline) {
        return Some(format!("{name} streams on timeline {other}, the latch is on {}", identity.timeline));
    }
    let other = side.witness.elsewhere().filter(|other| row.is_none() && *other != identity.timeline)?;
    Some(format!("{name} streamed on timeline {other} last, the latch is on {}", identity.timeline))
}

/// Who was passed over for `to` and why, for the history; `None` where there is nobody else.
pub fn passed_over(ranked: &[(&Side, Verdict)], to: &BackendName) -> Option<String> {
    let others: Vec<String> = ranked
        .iter()
        .filter(|(side, _)| side.name != *to)
        .map(|(side, verdict)| match verdict {
            Verdict::Fit { .. } => format!("{} could as well ({verdict})", side.name),
            Verdict::Stale(why) | Verdict::Unfit(why) => why.clone(),
        })
        .collect();
    let chosen = ranked.iter().find(|(side, _)| side.name == *to)?;
    (!others.is_empty()).then(|| format!("{to} was chosen ({}); {}", chosen.1, others.join("; ")))
}

/// The sentence when nobody is fit.
pub fn refusal(ranked: &[(&Side, Verdict)]) -> (BlockReason, String) {
    let stale: Vec<String> =
        ranked.iter().filter(|(_, v)| matches!(v, Verdict::Stale(_))).map(|(_, v)| v.to_string()).collect();
    if !stale.is_empty() {
        return (
            BlockReason::StaleStandby,
            format!("{}; `proxyctl failover --force` accepts that loss", stale.join("; ")),
        );
    }
    let unfit: Vec<String> = ranked.iter().map(|(_, v)| v.to_string()).collect();
    if unfit.is_empty() {
        return (BlockReason::NoCandidate, "there is no other backend".into());
    }
    (BlockReason::NoCandidate, format!("no standby can take over: {}", unfit.join("; ")))
}

/// Where sides always serve: the best one that does.
pub fn best_server<'a>(sides: &'a [Side], active: &BackendName) -> Option<&'a Side> {
    let takes =
        |side: &&Side| side.config.promote && side.excluded.is_none() && side.quarantine.is_none() && side.serves();
    sides.iter().filter(|side| side.name != *active).filter(takes).min_by_key(|side| {
        let tier = u8::from(side.config.role != Some(ConfiguredRole::Primary));
        (tier, side.config.priority, std::cmp::Reverse(side.config.weight), side.name.clone())
    })
}

/// What keeps a standby from being promoted right now, with the statement to type; empty = armed.
pub fn unarmed(
    service: &Service,
    side: &Side,
    identity: Option<&Identity>,
    flushed: Option<Lsn>,
    disk_ok: bool,
    now: Moment,
) -> Vec<String> {
    let mut why = Vec::new();
    if let Promoter::None = service.failover.promoter {
        why.push("promoter is \"none\": somebody else promotes".to_owned());
        return why;
    }
    match fitness(service, side, identity, flushed, Some(now)) {
        Verdict::Fit { .. } => {}
        verdict => why.push(verdict.to_string()),
    }
    if !disk_ok {
        why.push("the state cannot be written".into());
    }
    if service.replication.is_some() {
        let trouble = side.witness.replication().and_then(|witness| witness.trouble());
        if let Some(trouble) = trouble {
            why.push(format!("its replication stream cannot be read: {trouble}"));
        } else if why.is_empty() && !side.witness.usable(None) {
            why.push("its replication stream does not advance right now, so it could not testify".into());
        }
        return why;
    }
    let ProbeKind::Sql { login } = &service.probe.kind else {
        return why;
    };
    let Some(heard) = &side.facts else { return why };
    let promoter = match &service.failover.promoter {
        Promoter::Postgres { login } => &login.user,
        _ => &login.user,
    };
    if heard.facts.may_promote == Some(false) && matches!(service.failover.promoter, Promoter::Postgres { .. }) {
        why.push(format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {promoter};"));
    }
    if heard.facts.may_read_stats == Some(false) {
        why.push(format!("GRANT pg_read_all_stats TO {};", login.user));
    }
    if heard.facts.receiver_timeout.is_some_and(|w| w.is_zero()) {
        why.push(
            "wal_receiver_timeout is 0, so silence cannot be told: ALTER SYSTEM SET wal_receiver_timeout = '3s';"
                .into(),
        );
    }
    if why.is_empty() && !side.witness.usable(identity.map(|identity| identity.timeline)) {
        why.push("nothing streams to it from the active side right now, so it could not testify".into());
    }
    why
}
