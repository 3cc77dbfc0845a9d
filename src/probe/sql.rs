//! The `sql` probe: a login and one query, on a connection made for it or on the one that is kept.

mod facts;
mod lineage;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use facts::PROBE_SQL;

use super::classify;
use crate::config::{Kind, Login};
use crate::failover::observation::{Facts, Failure, Verdict};
use crate::net::session::{Rows, Session, SessionError, Target};
use crate::net::virtual_cluster;
use lineage::Lineage;

/// CockroachDB has none of PostgreSQL's views: an answer is all there is.
const COCKROACH_SQL: &str = "SELECT 1";

/// The probe of one address.
#[derive(Debug)]
pub(super) struct SqlProbe {
    kind: Kind,
    /// `options` of the startup packet.
    options: String,
    /// They say which virtual cluster is meant: without them another one would answer.
    names_cluster: bool,
    /// Privileges on functions are kept per database: those of another one cannot be seen from here.
    promotes_here: bool,
    lineage: Lineage,
    /// The promoter is the login itself.
    promotes_itself: bool,
    /// A pooler stands between that takes no `options`: the query is read-only all the same.
    options_refused: AtomicBool,
    /// `pg_control_system()` is not ours to execute.
    system_revoked: AtomicBool,
}

/// A connection between two samples, and the name it bears there.
#[derive(Debug)]
pub(super) struct Kept {
    session: Session,
    name: String,
}

/// How a sample on the kept connection ended.
#[derive(Debug)]
pub(super) struct Sampled {
    /// What it found.
    pub(super) verdict: Verdict,
    /// The connection, if it is still good.
    pub(super) kept: Option<Kept>,
    /// The server ended the connection.
    pub(super) lost: bool,
}

impl SqlProbe {
    /// `promoter` = who would call `pg_promote`.
    pub(super) fn new(kind: Kind, timeout: Duration, login: &Login, promoter: &Login) -> Self {
        Self {
            kind,
            options: options(kind, timeout, (promoter.user != login.user).then_some(&promoter.user)),
            names_cluster: false,
            promotes_here: promoter.database == login.database,
            promotes_itself: promoter.user == login.user,
            options_refused: AtomicBool::new(false),
            lineage: Lineage::default(),
            system_revoked: AtomicBool::new(false),
        }
    }

    /// Asks the virtual cluster of that name, whatever its cluster's default is.
    pub(super) fn on(mut self, virtual_cluster: Option<&str>) -> Self {
        if let Some(name) = virtual_cluster {
            self.options = format!("{} {}", self.options, virtual_cluster::option(name));
            self.names_cluster = true;
        }
        self
    }

    /// Logs in and asks. Gives the connection back for keeping when it is good.
    pub(super) async fn fresh(&self, target: &Target, deadline: Instant) -> (Verdict, Option<Kept>) {
        let mut session = match self.connect(target, deadline).await {
            Ok(session) => session,
            Err(error) => return (verdict_of(&error, target.address), None),
        };
        let verdict = match self.ask(&mut session, "", target, deadline).await {
            Ok(verdict) => verdict,
            Err(error) => verdict_of(&error, target.address),
        };
        let kept = session.is_usable().then(|| Kept { session, name: target.application_name.clone() });
        (verdict, kept)
    }

    /// Asks on the kept connection; renames it first when the epoch has changed.
    pub(super) async fn sample(&self, mut kept: Kept, target: &Target, deadline: Instant) -> Sampled {
        let rename = match kept.name == target.application_name {
            true => String::new(),
            false => format!("SET application_name = '{}';", target.application_name.replace('\'', "''")),
        };
        let asked = self.ask(&mut kept.session, &rename, target, deadline).await;
        let (verdict, lost) = match asked {
            Ok(verdict) => {
                kept.name.clone_from(&target.application_name);
                (verdict, false)
            }
            Err(error) => (verdict_of(&error, target.address), was_ended(&error, &kept.session)),
        };
        let kept = kept.session.is_usable().then_some(kept);
        if kept.is_none() {
            self.lineage.forget();
        }
        Sampled { verdict, kept, lost }
    }

    /// Resolves when the server ends the kept connection: what that says, unless it only tidied up.
    /// Cancel safe.
    pub(super) async fn ended(&self, kept: &mut Kept, address: SocketAddr) -> Option<Verdict> {
        let error = kept.session.closed().await;
        self.lineage.forget();
        match error.sqlstate() {
            // idle_session_timeout
            Some("57P05") => None,
            _ => Some(verdict_of(&error, address)),
        }
    }

    /// Whether a promotion of this server may be near: what its proof needs is opened in advance.
    pub(super) fn expect_promotion(&self, near: bool, target: &Target) {
        match near && self.kind == Kind::Postgres {
            true => self.lineage.open_early(target),
            false => self.lineage.close_early(),
        }
    }

    async fn connect(&self, target: &Target, deadline: Instant) -> Result<Session, SessionError> {
        if !self.options_refused.load(Ordering::Relaxed) {
            let parameters = [("options", self.options.as_str())];
            match Session::connect_with(target, &parameters, deadline).await {
                Err(error) if error.sqlstate() == Some("08P01") && !self.names_cluster => {}
                other => return other,
            }
        }
        let session = Session::connect(target, deadline).await;
        self.options_refused.store(session.is_ok(), Ordering::Relaxed);
        session
    }

    /// Whether the answer about `pg_promote` is about the one who would call it, where it would be called.
    fn knows_promoter(&self) -> bool {
        self.promotes_here && (self.promotes_itself || !self.options_refused.load(Ordering::Relaxed))
    }

    async fn ask(
        &self,
        session: &mut Session,
        before: &str,
        target: &Target,
        deadline: Instant,
    ) -> Result<Verdict, SessionError> {
        if self.kind == Kind::Cockroach {
            session.query(&format!("{before}{COCKROACH_SQL}"), deadline).await?;
            return Ok(classify::serving(self.kind));
        }
        let rows = self.ask_postgres(session, before, deadline).await?;
        let Ok(mut facts) = facts::parse(&rows) else {
            return Ok(Verdict::Failed(Failure::BadReply));
        };
        facts.may_promote = facts.may_promote.filter(|_| self.knows_promoter());
        self.lineage.complete(&mut facts, target, deadline).await;
        Ok(Verdict::Answered(Box::<Facts>::new(facts)))
    }

    async fn ask_postgres(&self, session: &mut Session, before: &str, deadline: Instant) -> Result<Rows, SessionError> {
        if !self.system_revoked.load(Ordering::Relaxed) {
            match session.query(&format!("{before}{PROBE_SQL}"), deadline).await {
                Err(error) if error.sqlstate() == Some("42501") => {}
                answer => return answer,
            }
        }
        let answer = session.query(&format!("{before}{}", facts::without_system_identifier()), deadline).await;
        self.system_revoked.store(answer.is_ok(), Ordering::Relaxed);
        answer
    }
}

fn verdict_of(error: &SessionError, address: SocketAddr) -> Verdict {
    tracing::debug!(%address, %error, "sql probe");
    classify::session(error)
}

impl Kept {
    /// Takes leave of the server.
    pub(super) async fn close(self, deadline: Instant) {
        self.session.close(deadline).await;
    }
}

/// An error after which the server, not we, has hung up.
fn was_ended(error: &SessionError, session: &Session) -> bool {
    use crate::net::fault::Cause;
    match error.cause {
        Cause::Closed | Cause::PostmasterDied | Cause::Io { .. } => true,
        Cause::Sqlstate { .. } => !session.is_usable(),
        _ => false,
    }
}

/// Read-only, bounded on the server's side too (later than on ours, so that silence stays silence), and with no
/// function of a user's schema in the way.
fn options(kind: Kind, timeout: Duration, promoter: Option<&String>) -> String {
    let limit = timeout.as_millis().saturating_mul(2).clamp(1_000, 600_000);
    let mut options = format!("-c default_transaction_read_only=on -c statement_timeout={limit}");
    if kind == Kind::Postgres {
        options.push_str(" -c search_path=pg_catalog -c jit=off");
        if let Some(user) = promoter {
            options.push_str(" -c pgpivot.promoter=");
            options.extend(user.chars().flat_map(escaped));
        }
    }
    options
}

/// In `options` a backslash makes the next character literal.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let special = c.is_whitespace() || c == '\\';
    special.then_some('\\').into_iter().chain([c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_of_a_replicated_virtual_cluster_asks_that_one_and_no_other() {
        let login = Login { user: "pgpivot".into(), database: "defaultdb".into(), password: None };
        let probe = || SqlProbe::new(Kind::Cockroach, Duration::from_secs(1), &login, &login);
        assert!(probe().on(Some("app-1")).options.ends_with(" -ccluster=app-1"));
        assert_eq!(probe().on(None).options, probe().options);
    }

    #[test]
    fn probes_are_read_only_and_bounded_by_the_server_too() {
        let text = options(Kind::Postgres, Duration::from_millis(800), Some(&"my promoter\\x".to_owned()));
        assert_eq!(
            text,
            "-c default_transaction_read_only=on -c statement_timeout=1600 -c search_path=pg_catalog -c jit=off \
             -c pgpivot.promoter=my\\ promoter\\\\x"
        );
        let cockroach = options(Kind::Cockroach, Duration::from_secs(10), Some(&"x".to_owned()));
        assert_eq!(cockroach, "-c default_transaction_read_only=on -c statement_timeout=20000");
    }
}
