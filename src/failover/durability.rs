//! Could a commit that was acknowledged be lost now, if the active side died, and how much at most? A judgement over what
//! was heard; changes nothing.

use super::candidate::{self, Verdict};
use super::observation::SyncState;
use super::phase::Latch;
use super::side::Side;
use super::sync_names::{Method, SyncNames};
use crate::config::{Service, SyncRule};
use crate::types::Moment;
use crate::view::{Durability, Level};

/// Who could be promoted, as its upstream lists it.
struct Heir<'a> {
    side: &'a Side,
    lag: Option<u64>,
    called: Option<&'a str>,
}

/// `None` where no probe sees replication, or the active side was not heard yet.
pub fn judge(service: &Service, sides: &[Side], latch: &Latch, now: Moment) -> Option<Durability> {
    let active = sides.iter().find(|side| side.name == latch.active)?;
    let facts = &active.facts.as_ref()?.facts;
    let ranked = candidate::rank(service, sides, &latch.active, latch.identity.as_ref(), None, now);
    let heirs: Vec<Heir<'_>> = ranked
        .iter()
        .filter_map(|(side, verdict)| match verdict {
            Verdict::Fit { lag, .. } => {
                let called = side.upstream.as_ref().and_then(|upstream| upstream.application_name.as_deref());
                Some(Heir { side, lag: *lag, called })
            }
            _ => None,
        })
        .collect();
    let Some(sync) = &facts.sync else {
        let seen = facts.role == super::observation::Role::Primary && facts.may_read_stats == Some(false);
        return seen.then(|| {
            let sentence = "who is synchronous cannot be seen: GRANT pg_read_all_stats".to_owned();
            Durability { sentence, level: Level::Warn, ..asynchronous(service, sync_off(), &heirs) }
        });
    };
    let waits = sync.needed() > 0 && !matches!(sync.commit.as_str(), "off" | "local");
    if !waits {
        return Some(asynchronous(service, sync, &heirs));
    }
    if sync.blocks_commits() {
        return Some(Durability {
            synchronous: true,
            names: sync.names.clone(),
            standbys: sync.synchronous.clone(),
            waiting: true,
            at_risk: false,
            loss_bytes: Some(0),
            level: Level::Bad,
            sentence: format!(
                "commits on {} wait for standbys that are not there ({} of {}, synchronous_standby_names = '{}'): nothing is acknowledged, nothing can be lost",
                active.name,
                sync.synchronous.len(),
                sync.needed(),
                sync.names
            ),
        });
    }
    Some(synchronous(sync, &heirs))
}

fn sync_off() -> &'static SyncState {
    const OFF: &SyncState = &SyncState { names: String::new(), synchronous: Vec::new(), commit: String::new() };
    OFF
}

fn asynchronous(service: &Service, sync: &SyncState, heirs: &[Heir<'_>]) -> Durability {
    let why = if sync.needed() > 0 {
        format!("synchronous_commit is {} by default", sync.commit)
    } else {
        "synchronous_standby_names is empty".to_owned()
    };
    let what = match heirs.first() {
        Some(Heir { side, lag: Some(lag), .. }) => format!(
            "when last seen {} lacked {lag} bytes, and what is written until a failure is added; beyond max_lag ({} bytes) nobody is promoted by itself",
            side.name, service.failover.max_lag
        ),
        Some(Heir { side, lag: None, .. }) => format!("how much {} lacks is not known", side.name),
        None => "no standby could take over now".to_owned(),
    };
    let lost_sync = service.failover.sync_after_failover == SyncRule::Adapt && sync.needed() == 0;
    Durability {
        synchronous: false,
        names: sync.names.clone(),
        standbys: Vec::new(),
        waiting: false,
        at_risk: true,
        loss_bytes: heirs.first().and_then(|heir| heir.lag),
        level: if lost_sync { Level::Bad } else { Level::Ok },
        sentence: format!("an acknowledged commit could be lost, it waits for no standby ({why}): {what}"),
    }
}

fn synchronous(sync: &SyncState, heirs: &[Heir<'_>]) -> Durability {
    let listed = |heir: &&Heir<'_>| {
        heir.called.is_some_and(|called| sync.synchronous.iter().any(|name| name.eq_ignore_ascii_case(called)))
    };
    let covered: Vec<&Heir<'_>> = heirs.iter().filter(listed).collect();
    let names: Vec<&str> = covered.iter().map(|heir| heir.side.name.as_str()).collect();
    let any = SyncNames::parse(&sync.names).ok().flatten().is_some_and(|names| names.method == Method::Any);
    // Of any so many that acknowledged a commit, one at least must be able to take over.
    let safe = match any {
        true => sync.synchronous.len().saturating_sub(covered.len()) < sync.needed(),
        false => !covered.is_empty(),
    };
    let listed = sync.synchronous.join(", ");
    let sentence = match safe {
        true => {
            let crash = if sync.commit == "remote_write" { "; only if its machine crashes as well" } else { "" };
            format!(
                "no acknowledged commit would be lost: it waits for {} ({}), who could be promoted{crash}",
                names.join(" or "),
                sync.names
            )
        }
        false => format!(
            "an acknowledged commit could be lost: it waits for {listed} ({}), and not for one who could be promoted",
            sync.names
        ),
    };
    Durability {
        synchronous: true,
        names: sync.names.clone(),
        standbys: sync.synchronous.clone(),
        waiting: false,
        at_risk: !safe,
        loss_bytes: if safe { Some(0) } else { heirs.first().and_then(|heir| heir.lag) },
        level: if safe { Level::Ok } else { Level::Warn },
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::plan;
    use super::*;

    fn state(names: &str, synchronous: &[&str], commit: &str) -> SyncState {
        let synchronous = synchronous.iter().map(|name| (*name).to_owned()).collect();
        SyncState { names: names.into(), synchronous, commit: commit.into() }
    }

    /// Could it be lost, how much at most, and how bad that is; `heirs`: who could be promoted, and what they lack.
    fn told(sync: &SyncState, heirs: &[(&str, u64)]) -> (bool, Option<u64>, Level) {
        let service = plan::service(3);
        let sides: Vec<Side> = service.backends.iter().map(Side::new).collect();
        let heirs: Vec<Heir<'_>> = heirs
            .iter()
            .map(|(name, lag)| {
                let side = sides.iter().find(|side| side.name.as_str() == *name).unwrap();
                Heir { side, lag: Some(*lag), called: Some(side.name.as_str()) }
            })
            .collect();
        let waits = sync.needed() > 0 && !matches!(sync.commit.as_str(), "off" | "local");
        let found = if waits { synchronous(sync, &heirs) } else { asynchronous(&service, sync, &heirs) };
        (found.at_risk, found.loss_bytes, found.level)
    }

    #[test]
    fn without_synchronous_standbys_what_the_best_one_lacks_could_be_lost() {
        let nobody_waits = [state("", &[], "on"), state("FIRST 1 (west)", &["west"], "local")];
        for sync in &nobody_waits {
            assert_eq!(told(sync, &[("west", 4096), ("north", 9000)]), (true, Some(4096), Level::Ok));
            assert_eq!(told(sync, &[]), (true, None, Level::Ok), "nobody could take over");
        }
    }

    #[test]
    fn nothing_is_lost_where_whoever_commits_wait_for_could_be_promoted() {
        let both = [("west", 0), ("north", 700)];
        assert_eq!(told(&state("FIRST 1 (west, north)", &["west"], "on"), &both), (false, Some(0), Level::Ok));
        assert_eq!(told(&state("west", &["west"], "remote_write"), &both), (false, Some(0), Level::Ok));
        // One of any two may be the one that cannot be promoted.
        let any = |needed: u32| state(&format!("ANY {needed} (west, north)"), &["west", "north"], "on");
        assert_eq!(told(&any(1), &both), (false, Some(0), Level::Ok));
        assert_eq!(told(&any(1), &[("north", 700)]), (true, Some(700), Level::Warn));
        assert_eq!(told(&any(2), &[("north", 700)]), (false, Some(0), Level::Ok));
    }

    #[test]
    fn what_the_best_one_lacks_could_be_lost_where_commits_wait_for_another() {
        let sync = state("FIRST 1 (west)", &["west"], "on");
        assert_eq!(told(&sync, &[("north", 700)]), (true, Some(700), Level::Warn));
    }
}
