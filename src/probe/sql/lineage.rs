//! What only a replication connection tells: a timeline's history, and the system identifier where SQL may not.
//! Asked once per identity and remembered; a login without the REPLICATION attribute leaves it unknown. The connection
//! is opened early where a promotion may be near: then all clients wait, and a busy machine is slow to let one in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::failover::observation::{Ancestor, Facts, Role};
use crate::net::session::{ProtocolFault, Session, SessionError, Step, Target};
use crate::types::{Lsn, SystemId, Timeline};

/// A probe's verdict waits this long for it at most; the asking goes on, and a later verdict has it.
const PATIENCE: Duration = Duration::from_millis(500);
/// For the asking itself: a new primary with all clients at its door is slow to let a further one in.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// After a refusal (no privilege, no entry in pg_hba.conf).
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// After any other failure.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// A history of more lines is not taken.
const MAX_ANCESTORS: usize = 1024;

/// The memory of one address.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    shared: Arc<Shared>,
    /// The asking under way.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    /// The connection for the next asking, opened or being opened.
    early: Early,
}

/// Gives a connection that was opened in advance, or nothing.
type Opening = AbortOnDropHandle<Option<(Session, SystemId)>>;
type Early = Mutex<Option<Opening>>;

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    answered: Notify,
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

type Answer = (SystemId, Option<Vec<Ancestor>>);

impl Lineage {
    /// Fills what `facts` lack, as far as the login permits and it is known by `deadline`.
    pub(super) async fn complete(&self, facts: &mut Facts, target: &Target, deadline: Instant) {
        let mut answered = std::pin::pin!(self.shared.answered.notified());
        // From here on, so that an answer between the looking and the waiting is not missed.
        answered.as_mut().enable();
        lock(&self.shared.known).fill(facts);
        if !lacks_identity(facts) && !lacks_history(facts) {
            return;
        }
        if self.begin(facts, target) {
            let _ = timeout_at(deadline.min(Instant::now() + PATIENCE), answered).await;
            lock(&self.shared.known).fill(facts);
        }
    }

    /// A promotion may be near: opens the connection that its history will be asked for on.
    pub(super) fn open_early(&self, target: &Target) {
        let mut early = lock(&self.early);
        if early.is_some() || lock(&self.shared.known).is_refused() {
            return;
        }
        let (shared, target) = (Arc::clone(&self.shared), walsender(target));
        *early = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let opened = introduce(&target, Instant::now() + ASK_TIMEOUT).await;
            opened.inspect_err(|error| lock(&shared.known).respect(error)).ok()
        })));
    }

    /// No promotion is near.
    pub(super) fn close_early(&self) {
        lock(&self.early).take();
    }

    /// The server behind the address may be another one now.
    pub(super) fn forget(&self) {
        lock(&self.task).take();
        self.close_early();
        *lock(&self.shared.known) = Known::default();
        // There will be no answer to what was asked.
        self.shared.answered.notify_waiters();
    }

    /// Asks, unless that is under way already or was in vain too recently. `true` = an answer may come.
    fn begin(&self, facts: &Facts, target: &Target) -> bool {
        let mut task = lock(&self.task);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return true;
        }
        if lock(&self.shared.known).is_refused() {
            return false;
        }
        let early = lock(&self.early).take();
        let (shared, facts, target) = (Arc::clone(&self.shared), facts.clone(), walsender(target));
        *task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let deadline = Instant::now() + ASK_TIMEOUT;
            let answer = ask(&facts, early, &target, deadline).await;
            if let Err(error) = &answer {
                tracing::debug!(address = %target.address, %error, "replication connection for the timeline history");
            }
            lock(&shared.known).learn(&facts, answer);
            shared.answered.notify_waiters();
        })));
        true
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

    fn learn(&mut self, asked: &Facts, answer: Result<Answer, SessionError>) {
        let (system_id, history) = match answer {
            Ok(answer) => answer,
            Err(error) => return self.put_off(&error),
        };
        self.not_before = None;
        self.identity = Some((asked.node.clone(), system_id));
        // Two connections that reached two servers must not be taken for one.
        if asked.system_id.is_none_or(|seen| seen == system_id) {
            let asked = Facts { system_id: Some(system_id), ..asked.clone() };
            self.history = key_of(&asked).zip(history);
        }
    }

    fn put_off(&mut self, error: &SessionError) {
        self.not_before = Some(Instant::now() + AFTER_FAILURE);
        self.respect(error);
    }

    /// A refusal stands for a while, whoever met it.
    fn respect(&mut self, error: &SessionError) {
        if error.sqlstate().is_some_and(|code| code == "42501" || code.starts_with("28")) {
            self.not_before = Some(Instant::now() + AFTER_REFUSAL);
        }
    }

    /// It was in vain too recently.
    fn is_refused(&self) -> bool {
        self.not_before.is_some_and(|at| at > Instant::now())
    }
}

fn walsender(target: &Target) -> Target {
    Target { replication: true, ..target.clone() }
}

fn lacks_identity(facts: &Facts) -> bool {
    facts.system_id.is_none()
}

fn lacks_history(facts: &Facts) -> bool {
    let branched = facts.timeline.is_some_and(|timeline| timeline.0 > 1);
    facts.role == Role::Primary && branched && facts.history.is_none()
}

fn key_of(facts: &Facts) -> Option<Key> {
    let (system_id, node) = (facts.system_id, facts.node.clone());
    facts.timeline.map(|timeline| Key { system_id, timeline, node })
}

/// Asks on the connection opened early, or on a new one if that is dead.
async fn ask(
    facts: &Facts,
    early: Option<Opening>,
    target: &Target,
    deadline: Instant,
) -> Result<Answer, SessionError> {
    let early = async { early?.await.ok().flatten() };
    if let Some((mut session, system_id)) = early.await {
        let history = history(facts, &mut session, deadline).await;
        if session.is_usable() {
            session.close(deadline).await;
            return Ok((system_id, history?));
        }
    }
    let (mut session, system_id) = introduce(target, deadline).await?;
    let history = history(facts, &mut session, deadline).await;
    session.close(deadline).await;
    Ok((system_id, history?))
}

/// A new connection, and whose it is.
async fn introduce(target: &Target, deadline: Instant) -> Result<(Session, SystemId), SessionError> {
    let mut session = Session::connect(target, deadline).await?;
    let rows = session.query("IDENTIFY_SYSTEM", deadline).await?;
    let system_id = cell(&rows, 0).and_then(|id| id.parse().ok()).map(SystemId).ok_or_else(malformed)?;
    Ok((session, system_id))
}

async fn history(
    facts: &Facts,
    session: &mut Session,
    deadline: Instant,
) -> Result<Option<Vec<Ancestor>>, SessionError> {
    let Some(timeline) = facts.timeline.filter(|_| lacks_history(facts)) else {
        return Ok(None);
    };
    let rows = session.query(&format!("TIMELINE_HISTORY {timeline}"), deadline).await?;
    cell(&rows, 1).and_then(|text| parse_history(&text)).ok_or_else(malformed).map(Some)
}

fn cell(rows: &[Vec<Option<String>>], column: usize) -> Option<String> {
    rows.first()?.get(column)?.clone()
}

fn malformed() -> SessionError {
    SessionError { step: Step::Query, cause: ProtocolFault::Malformed.into() }
}

/// The lines of a history file: timeline, switch position, reason; comments and empty lines are skipped.
fn parse_history(text: &str) -> Option<Vec<Ancestor>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let ancestor = |line: &str| {
        let mut fields = line.split_whitespace();
        let timeline = Timeline(fields.next()?.parse().ok()?);
        let switch_lsn: Lsn = fields.next()?.parse().ok()?;
        Some(Ancestor { timeline, switch_lsn })
    };
    let ancestors: Vec<Ancestor> = lines.take(MAX_ANCESTORS + 1).map(ancestor).collect::<Option<_>>()?;
    (ancestors.len() <= MAX_ANCESTORS).then_some(ancestors)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::session::Cause;

    #[test]
    fn a_history_file_is_read_oldest_first_and_its_comments_are_skipped() {
        let text = "1\t0/3000158\tno recovery target specified\n\n# by hand\n2\t0/5000060\tat restore point \"x y\"\n";
        let history = parse_history(text).unwrap();
        let lines: Vec<(u32, u64)> = history.iter().map(|a| (a.timeline.0, a.switch_lsn.0)).collect();
        assert_eq!(lines, [(1, 0x0300_0158), (2, 0x0500_0060)]);
        assert_eq!(parse_history("one 0/1"), None);
    }

    #[test]
    fn a_history_is_remembered_for_the_same_server_and_timeline_only() {
        let history = vec![Ancestor { timeline: Timeline(1), switch_lsn: Lsn(9) }];
        let mut seen = branched();
        let mut known = Known::default();
        known.learn(&seen, Ok((SystemId(4), Some(history.clone()))));
        known.fill(&mut seen);
        assert_eq!(seen.history, Some(history));
        let mut later = Facts { timeline: Some(Timeline(3)), ..branched() };
        known.fill(&mut later);
        assert_eq!(later.history, None);
        let mut elsewhere = Facts { node: Some("10.0.0.2:5432".into()), ..branched() };
        known.fill(&mut elsewhere);
        assert_eq!(elsewhere.history, None);
    }

    #[test]
    fn a_refusal_is_respected_for_a_while_and_another_servers_history_is_not_taken() {
        let mut known = Known::default();
        let cause = Cause::Sqlstate { code: "42501".into(), message: "no".into() };
        known.learn(&branched(), Err(SessionError { step: Step::Startup, cause }));
        assert!(known.not_before.unwrap() > Instant::now() + Duration::from_secs(50));
        known.learn(&branched(), Ok((SystemId(5), Some(Vec::new()))));
        assert!(known.not_before.is_none() && known.history.is_none());
    }

    #[tokio::test]
    async fn nobody_waits_for_an_answer_that_was_given_up() {
        let server = crate::net::scripted::Scripted::silent().await;
        let tls = crate::config::Tls { mode: crate::config::TlsMode::Disable, ca_file: None, server_name: None };
        let target = Target {
            address: server.address,
            server_name: "db".into(),
            tls: crate::net::tls::ClientTls::build(&tls).unwrap(),
            login: crate::config::Login { user: "u".into(), database: "d".into(), password: None },
            application_name: "pgpivot".into(),
            replication: false,
        };
        let (lineage, mut facts) = (Lineage::default(), branched());
        let mut complete = std::pin::pin!(lineage.complete(&mut facts, &target, Instant::now() + PATIENCE));
        let mut is_done = async || {
            tokio::select! {
                biased;
                () = &mut complete => true,
                () = std::future::ready(()) => false,
            }
        };
        assert!(!is_done().await);
        lineage.forget();
        assert!(is_done().await);
    }

    fn branched() -> Facts {
        Facts {
            role: Role::Primary,
            system_id: Some(SystemId(4)),
            timeline: Some(Timeline(2)),
            node: Some("10.0.0.1:5432".into()),
            ..Facts::default()
        }
    }
}
