//! What an old primary needs to be a standby of the latched side again: where its line parted from the latched one, what
//! it wrote after that, and which way back is open. Functions over what two servers show; no state, no effect.

use std::fmt;

use super::action::{Source, Standing, Survey};
use super::observation::Ancestor;
use super::phase::{Identity, Method};
use crate::types::{Lsn, Timeline};

/// What it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The least that will do; `None` = that cannot be told.
    pub method: Option<Method>,
    /// Why, one sentence without an end.
    pub why: String,
    /// Where its line parted from the latched one, and how many bytes of log it has beyond; `None` = not known.
    pub parted: Option<(Lsn, u64)>,
    /// Why nothing less will do, where an operator might ask for it.
    pub bars: Vec<(Method, String)>,
    /// What could not be seen.
    pub unseen: Vec<String>,
}

/// What a side needs. `history`: the ancestors of its own timeline, where it showed them as primary.
pub fn of(name: &str, survey: &Survey, history: Option<&[Ancestor]>, latched: &Identity, active: &str) -> Need {
    let standing = match &survey.side {
        Ok(standing) => standing,
        Err(why) => {
            return Need::unknown(format!(
                "{name} cannot be asked what it needs ({why}): start it, it gets no client, and ask again; or choose the \
                 way: --method rewind (pg_rewind itself refuses where it cannot work) or --method basebackup"
            ));
        }
    };
    if standing.system_id != latched.system_id {
        let why =
            format!("{name} belongs to another system ({}, {active} to {})", standing.system_id, latched.system_id);
        return Need::base_backup(why.clone(), None, vec![(Method::Follow, why.clone()), (Method::Rewind, why)]);
    }
    if let Err(why) = &survey.source {
        return Need::unknown(format!("{active} cannot be asked which log it still has: {why}"));
    }
    let source = survey.source.as_ref().ok();
    let unseen = unseen(name, standing, active, source);
    let need = match fork(standing.timeline, history, latched) {
        Fork::Unknown => {
            let why = format!(
                "where its line ({}) parted from {active}'s timeline {} cannot be told",
                timeline(standing.timeline),
                latched.timeline
            );
            Need::base_backup(why.clone(), None, vec![(Method::Follow, why)])
        }
        Fork::Same if standing.in_recovery => same_line(name, standing, active, source),
        Fork::Same => {
            let why =
                format!("{name} is primary on the very timeline of {active}: what each wrote cannot be told apart");
            Need::base_backup(why.clone(), None, vec![(Method::Follow, why.clone()), (Method::Rewind, why)])
        }
        Fork::At(at) => parted(name, standing, at, active, source),
    };
    Need { unseen, ..need }
}

/// It is on the latched line, and a standby: it has but to stream.
fn same_line(name: &str, standing: &Standing, active: &str, source: Option<&Source>) -> Need {
    if let Some(gone) = missing(standing.lsn, source, active) {
        return Need::base_backup(gone.clone(), None, vec![(Method::Follow, gone.clone()), (Method::Rewind, gone)]);
    }
    let why = format!(
        "{name} is a standby on the right timeline and does not stream: its primary_conninfo must lead to {active}"
    );
    Need { method: Some(Method::Follow), why, parted: None, bars: Vec::new(), unseen: Vec::new() }
}

/// Its line ends where the latched one went on, or beyond.
fn parted(name: &str, standing: &Standing, at: Lsn, active: &str, source: Option<&Source>) -> Need {
    let bytes = standing.lsn.map_or(0, |lsn| at.behind(lsn));
    let beyond = standing.lsn.is_none_or(|lsn| lsn > at);
    let mut bars = Vec::new();
    let known = standing.lsn.map(|_| (at, bytes));
    // Its own position is where it would go on from; a rewound one goes on from before the fork.
    let from = standing.lsn.map_or(at, |lsn| lsn.min(at));
    if let Some(gone) = missing(Some(from), source, active) {
        bars.extend([(Method::Follow, gone.clone()), (Method::Rewind, gone.clone())]);
        return Need::base_backup(gone, known, bars);
    }
    if !beyond {
        let why = format!("{name} wrote nothing beyond {at}, where {active} went on: it can follow as it is");
        return Need { method: Some(Method::Follow), why, parted: known, bars, unseen: Vec::new() };
    }
    let wrote = match standing.lsn {
        Some(_) => format!("{name} has {bytes} bytes of log of its own after {at}, where {active} went on"),
        None => format!("how far {name} wrote beyond {at}, where {active} went on, cannot be seen"),
    };
    bars.push((Method::Follow, format!("{wrote}: it would wait for ever for what {active} does not have")));
    let bar = if standing.rewindable {
        standing.oldest.filter(|oldest| *oldest > at).map(|oldest| {
            format!(
                "{name} has no log from {at} any more, its oldest begins at {oldest}: pg_rewind cannot see what changed"
            )
        })
    } else {
        Some(format!(
            "pg_rewind cannot see what changed on {name}: it needs full_page_writes, and wal_log_hints or data checksums"
        ))
    };
    match bar {
        Some(bar) => {
            bars.push((Method::Rewind, bar.clone()));
            Need::base_backup(format!("{wrote}, and {bar}"), known, bars)
        }
        None => Need { method: Some(Method::Rewind), why: wrote, parted: known, bars, unseen: Vec::new() },
    }
}

/// The source has no log any more that begins so early.
fn missing(from: Option<Lsn>, source: Option<&Source>, active: &str) -> Option<String> {
    let (from, oldest) = (from?, source?.oldest?);
    (oldest > from).then(|| format!("{active} has no log from {from} any more, its oldest begins at {oldest}"))
}

fn unseen(name: &str, standing: &Standing, active: &str, source: Option<&Source>) -> Vec<String> {
    let sides = [(active, source.is_some_and(|source| source.oldest.is_none())), (name, standing.oldest.is_none())];
    let blind: Vec<&str> = sides.into_iter().filter(|(_, blind)| *blind).map(|(side, _)| side).collect();
    match blind.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "whether the log that this takes is still there cannot be seen on {} (GRANT EXECUTE ON FUNCTION pg_ls_waldir() to the login)",
            blind.join(" and ")
        )],
    }
}

/// Where two lines part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fork {
    /// They do not.
    Same,
    /// There: each goes its own way from then on.
    At(Lsn),
    /// That is not known.
    Unknown,
}

/// One timeline and where the next one of its line began; the last has no end.
type Leg = (Timeline, Option<Lsn>);

fn fork(own: Option<Timeline>, history: Option<&[Ancestor]>, latched: &Identity) -> Fork {
    let Some(own) = own else { return Fork::Unknown };
    let there = legs(&latched.ancestors, latched.timeline);
    if let Some(history) = history.filter(|history| !history.is_empty()) {
        return compare(&legs(history, own), &there);
    }
    // Nothing is told of where it comes from: its timeline is taken for the one of that number in the latched line.
    match there.iter().find(|(timeline, _)| *timeline == own) {
        Some((_, Some(end))) => Fork::At(*end),
        Some((_, None)) => Fork::Same,
        None => Fork::Unknown,
    }
}

fn legs(ancestors: &[Ancestor], last: Timeline) -> Vec<Leg> {
    let before = ancestors.iter().map(|ancestor| (ancestor.timeline, Some(ancestor.switch_lsn)));
    before.chain([(last, None)]).collect()
}

fn compare(own: &[Leg], there: &[Leg]) -> Fork {
    // Of a long line only the newest legs are kept.
    let first = |legs: &[Leg]| legs.first().map(|(timeline, _)| *timeline);
    let begin = first(own).max(first(there));
    let from =
        |legs: &[Leg]| legs.iter().copied().skip_while(|(timeline, _)| Some(*timeline) < begin).collect::<Vec<_>>();
    let mut fork = Fork::Unknown;
    for ((own, own_end), (other, other_end)) in from(own).into_iter().zip(from(there)) {
        if own != other {
            return fork;
        }
        fork = match (own_end, other_end) {
            (None, None) => return Fork::Same,
            (Some(a), Some(b)) if a == b => Fork::At(a),
            (Some(a), Some(b)) => return Fork::At(a.min(b)),
            (Some(a), None) | (None, Some(a)) => return Fork::At(a),
        };
    }
    fork
}

fn timeline(timeline: Option<Timeline>) -> String {
    timeline.map_or_else(|| "an unknown timeline".into(), |timeline| format!("timeline {timeline}"))
}

impl Need {
    fn unknown(why: String) -> Self {
        Self { method: None, why, parted: None, bars: Vec::new(), unseen: Vec::new() }
    }

    fn base_backup(why: String, parted: Option<(Lsn, u64)>, bars: Vec<(Method, String)>) -> Self {
        Self { method: Some(Method::BaseBackup), why, parted, bars, unseen: Vec::new() }
    }

    /// Why this way is not open.
    pub fn bar(&self, method: Method) -> Option<&str> {
        self.bars.iter().find(|(barred, _)| *barred == method).map(|(_, why)| why.as_str())
    }

    /// What going this way throws away, one sentence without an end; `None` = nothing.
    pub fn loss(&self, name: &str, method: Method) -> Option<String> {
        match (method, self.parted) {
            (Method::Follow, _) | (_, Some((_, 0))) => None,
            (_, Some((at, bytes))) => {
                Some(format!("{bytes} bytes of log written on {name} after the switch point {at} will be lost"))
            }
            (_, None) => Some(format!("what {name} alone has will be lost; how much that is cannot be told")),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Some(method) => write!(f, "{}, so it needs {}", self.why, method.words()),
            None => f.write_str(&self.why),
        }
    }
}

#[cfg(test)]
mod tests;
