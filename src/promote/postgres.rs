//! The promoter that calls `pg_promote` on the candidate.
//!
//! It does not wait for the promotion: that `pg_promote` with a wait gives up says nothing, the standby promotes later
//! all the same. The word that counts is a probe's.

use std::time::Duration;

use tokio::time::Instant;

use super::access::Access;
use super::setting::{self, text};
use super::{EffectError, Order, Promoter, freeze};
use crate::failover::action::PromotionResult;
use crate::net::session::Session;

/// The whole call takes at most this; it only hands over an order.
const CALL: Duration = Duration::from_secs(5);
/// "recovery is not in progress": it is primary already.
const NOT_IN_RECOVERY: &str = "55000";

/// `promoter = "postgres"`.
#[derive(Debug)]
pub(super) struct Postgres<'a> {
    pub(super) access: &'a Access,
    pub(super) timeout: Duration,
}

impl Promoter for Postgres<'_> {
    async fn promote(&self, order: &Order<'_>) -> PromotionResult {
        let deadline = Instant::now() + CALL.min(self.timeout);
        match self.attempt(order, deadline).await {
            Ok(Called::Ordered | Called::Primary) => PromotionResult::Done,
            Ok(Called::No) => PromotionResult::Unknown("pg_promote() returned false".into()),
            Err(error) => PromotionResult::Unknown(error.to_string()),
        }
    }
}

/// What `pg_promote` said.
enum Called {
    /// The order was handed over.
    Ordered,
    /// It is primary already.
    Primary,
    /// `false`.
    No,
}

impl Postgres<'_> {
    async fn attempt(&self, order: &Order<'_>, deadline: Instant) -> Result<Called, EffectError> {
        let mut way = self.access.way(order.backend, order.address)?;
        loop {
            let (mut session, origin) = way.session(deadline).await?;
            match call(&mut session, deadline).await {
                Err(error) if origin.excuses(&session, &error) => {}
                called => {
                    session.close(deadline).await;
                    return called;
                }
            }
        }
    }
}

async fn call(session: &mut Session, deadline: Instant) -> Result<Called, EffectError> {
    if text(session.query("SELECT pg_is_in_recovery()", deadline).await?, "pg_is_in_recovery()")? == "f" {
        return Ok(Called::Primary);
    }
    match freeze::thaw_candidate(session, deadline).await {
        Ok(false) => {}
        Ok(true) => tracing::info!("candidate was left read-only by an earlier freeze, taken back"),
        Err(error) => tracing::warn!(%error, "candidate is read-only by its configuration and stays so"),
    }
    match setting::call(session, "pg_promote(wait => false)", "pg_promote(boolean, integer)", deadline).await {
        Ok(word) if word == "t" => Ok(Called::Ordered),
        Ok(_) => Ok(Called::No),
        Err(EffectError::Session(error)) if error.sqlstate() == Some(NOT_IN_RECOVERY) => Ok(Called::Primary),
        Err(error) => Err(error),
    }
}
