//! What only a replication connection tells: a timeline's history, and the system identifier where SQL may not.
//! Asked once per identity and remembered; a login without the REPLICATION attribute leaves it unknown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::failover::observation::{Ancestor, Facts, Role};
use crate::net::session::{ProtocolFault, Session, SessionError, Step, Target};
use crate::types::{Lsn, SystemId, Timeline};

/// A probe's verdict waits this long for it at most.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a refusal (no privilege, no entry in pg_hba.conf).
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// After any other failure.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// A history of so many lines is the longest taken.
const MAX_ANCESTORS: usize = 1024;

/// The memory of one address.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    known: Mutex<Known>,
    /// What is known may be of another server.
    stale: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    identity: Option<(Option<String>, SystemId)>,
    history: Option<(Key, Vec<Ancestor>)>,
    not_before: Option<Instant>,
}

/// What makes a history the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    system_id: Option<SystemId>,
    timeline: Timeline,
    node: Option<String>,
}

impl Lineage {
    /// Fills what `facts` lack, as far as the login permits and the deadline allows.
    pub(super) async fn complete(&self, facts: &mut Facts, target: &Target, deadline: Instant) {
        if !lacks_identity(facts) && !lacks_history(facts) {
            return;
        }
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let Ok(mut known) = timeout_at(deadline, self.known.lock()).await else {
            return;
        };
        if self.stale.swap(false, Ordering::Relaxed) {
            *known = Known::default();
        }
        known.fill(facts);
        let asked_too_soon = known.not_before.is_some_and(|at| at > Instant::now());
        if asked_too_soon || (!lacks_identity(facts) && !lacks_history(facts)) {
            return;
        }
        match ask(facts, target, deadline).await {
            Ok(learned) => known.learn(facts, learned),
            Err(error) => {
                let refused = error
                    .sqlstate()
                    .is_some_and(|code| code == "42501" || code.starts_with("28"));
                known.not_before = Some(Instant::now() + if refused { AFTER_REFUSAL } else { AFTER_FAILURE });
                tracing::debug!(address = %target.address, %error, "replication connection for the timeline history");
            }
        }
        known.fill(facts);
    }

    /// The server behind the address may be another one now.
    pub(super) fn forget(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

impl Known {
    fn fill(&self, facts: &mut Facts) {
        if lacks_identity(facts)
            && let Some((node, system_id)) = &self.identity
            && *node == facts.node
        {
            facts.system_id = Some(*system_id);
        }
        if lacks_history(facts)
            && let Some((key, history)) = &self.history
            && Some(key) == key_of(facts).as_ref()
        {
            facts.history = Some(history.clone());
        }
    }

    fn learn(&mut self, facts: &mut Facts, (system_id, history): (SystemId, Option<Vec<Ancestor>>)) {
        self.not_before = None;
        self.identity = Some((facts.node.clone(), system_id));
        // Two connections that reach two servers must not be taken for one.
        if facts.system_id.is_some_and(|seen| seen != system_id) {
            return;
        }
        facts.system_id = Some(system_id);
        self.history = key_of(facts).zip(history);
    }
}

fn lacks_identity(facts: &Facts) -> bool {
    facts.system_id.is_none()
}

fn lacks_history(facts: &Facts) -> bool {
    let branched = facts.timeline.is_some_and(|timeline| timeline.0 > 1);
    facts.role == Role::Primary && branched && facts.history.is_none()
}

fn key_of(facts: &Facts) -> Option<Key> {
    facts.timeline.map(|timeline| Key {
        system_id: facts.system_id,
        timeline,
        node: facts.node.clone(),
    })
}

async fn ask(
    facts: &Facts,
    target: &Target,
    deadline: Instant,
) -> Result<(SystemId, Option<Vec<Ancestor>>), SessionError> {
    let target = Target {
        replication: true,
        ..target.clone()
    };
    let mut session = Session::connect(&target, deadline).await?;
    let learned = interview(facts, &mut session, deadline).await;
    session.close(deadline).await;
    learned
}

async fn interview(
    facts: &Facts,
    session: &mut Session,
    deadline: Instant,
) -> Result<(SystemId, Option<Vec<Ancestor>>), SessionError> {
    let malformed = || SessionError {
        step: Step::Query,
        cause: ProtocolFault::Malformed.into(),
    };
    let rows = session.query("IDENTIFY_SYSTEM", deadline).await?;
    let cell = |rows: &[Vec<Option<String>>], column: usize| rows.first().and_then(|row| row.get(column)?.clone());
    let system_id = cell(&rows, 0)
        .and_then(|id| id.parse().ok())
        .map(SystemId)
        .ok_or_else(malformed)?;
    let Some(timeline) = facts.timeline.filter(|_| lacks_history(facts)) else {
        return Ok((system_id, None));
    };
    let rows = session.query(&format!("TIMELINE_HISTORY {timeline}"), deadline).await?;
    let text = cell(&rows, 1).ok_or_else(malformed)?;
    Ok((system_id, Some(parse_history(&text).ok_or_else(malformed)?)))
}

/// The lines of a history file: timeline, switch position, reason; comments and empty lines are skipped.
fn parse_history(text: &str) -> Option<Vec<Ancestor>> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let ancestors: Option<Vec<Ancestor>> = lines
        .take(MAX_ANCESTORS)
        .map(|line| {
            let mut fields = line.split_whitespace();
            let timeline = Timeline(fields.next()?.parse().ok()?);
            let switch_lsn: Lsn = fields.next()?.parse().ok()?;
            Some(Ancestor { timeline, switch_lsn })
        })
        .collect();
    ancestors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_is_read_oldest_first_and_its_comments_are_skipped() {
        let text = "1\t0/3000158\tno recovery target specified\n\n# by hand\n2\t0/5000060\tat restore point \"x y\"\n";
        let history = parse_history(text).unwrap();
        let expected = [(1, 0x0300_0158), (2, 0x0500_0060)];
        let expected = expected.map(|(timeline, lsn)| Ancestor {
            timeline: Timeline(timeline),
            switch_lsn: Lsn(lsn),
        });
        assert_eq!(history, expected);
        assert_eq!(parse_history("one 0/1"), None);
    }

    #[test]
    fn a_history_is_remembered_for_the_same_server_and_timeline_only() {
        let ancestors = vec![Ancestor {
            timeline: Timeline(1),
            switch_lsn: Lsn(9),
        }];
        let mut seen = Facts {
            role: Role::Primary,
            system_id: Some(SystemId(4)),
            timeline: Some(Timeline(2)),
            node: Some("10.0.0.1:5432".into()),
            ..Facts::default()
        };
        let mut known = Known::default();
        known.learn(&mut seen, (SystemId(4), Some(ancestors.clone())));
        known.fill(&mut seen);
        assert_eq!(seen.history, Some(ancestors));
        let mut later = Facts {
            timeline: Some(Timeline(3)),
            history: None,
            ..seen.clone()
        };
        known.fill(&mut later);
        assert_eq!(later.history, None);
        let mut elsewhere = Facts {
            node: Some("10.0.0.2:5432".into()),
            history: None,
            ..seen
        };
        known.fill(&mut elsewhere);
        assert_eq!(elsewhere.history, None);
    }
}
