//! The promoter of self-hosted clusters: what the standby's `system` virtual cluster still lacks, one step after another.
//! It orders and never waits for the work; what came of it is read by the witness, and the order given again goes on
//! from where things stand.

use std::time::Duration;

use tokio::time::Instant;

use super::access::Access;
use super::service::{order, shown, ungranted};
use super::{EffectError, Order};
use crate::config;
use crate::failover::action::PromotionResult;
use crate::failover::phase::StreamOrder;
use crate::net::session::{Session, SessionError};
use crate::net::virtual_cluster::{self as vc, Replication, Service, State};

/// Everything.
const TIME: Duration = Duration::from_secs(10);

/// `promoter = "cockroach_sql"`.
#[derive(Debug)]
pub(super) struct CockroachSql {
    settings: config::CockroachSql,
}

impl CockroachSql {
    pub(super) fn new(settings: config::CockroachSql) -> Self {
        Self { settings }
    }

    pub(super) async fn fail_over(
        &self,
        access: &Access,
        order: &Order<'_>,
        stream: Option<&StreamOrder>,
    ) -> PromotionResult {
        let Some(stream) = stream else {
            return PromotionResult::Refused("no replication stream was named".into());
        };
        let deadline = Instant::now() + TIME;
        let mut session = match access.open(order.backend, order.address, deadline).await {
            Ok(session) => session,
            Err(error) => return unordered(&error),
        };
        let result = self.go_on(&mut session, stream, deadline).await;
        session.close(deadline).await;
        result
    }

    async fn go_on(&self, session: &mut Session, stream: &StreamOrder, deadline: Instant) -> PromotionResult {
        let replication = match self.replication(session, deadline).await {
            Ok(replication) => replication,
            Err(error) => return unordered(&error),
        };
        match replication.state {
            State::Pending | State::FailingOver => PromotionResult::Done,
            State::Ready => match shown(session, &self.settings, deadline).await {
                Ok(service) => self.serve(session, &service, deadline).await,
                Err(error) => unordered(&error),
            },
            State::Replicating => match self.is_it(session, stream, deadline).await {
                Ok(()) => self.complete(session, stream, deadline).await,
                Err(refusal) => refusal,
            },
            other => {
                let name = &self.settings.virtual_cluster;
                PromotionResult::Refused(format!("virtual cluster {name:?} is {other}: it is not failed over"))
            }
        }
    }

    async fn replication(&self, session: &mut Session, deadline: Instant) -> Result<Replication, EffectError> {
        let sql = vc::show_replication(&self.settings.virtual_cluster);
        let table = session.query_table(&sql, deadline).await.map_err(|error| ungranted(&self.settings, error))?;
        Ok(vc::replication(&table)?)
    }

    /// Is it still the replication that was decided upon?
    async fn is_it(
        &self,
        session: &mut Session,
        stream: &StreamOrder,
        deadline: Instant,
    ) -> Result<(), PromotionResult> {
        let unheard = |error: SessionError| unordered(&ungranted(&self.settings, error));
        let table = session.query_table(vc::JOBS, deadline).await.map_err(unheard)?;
        let job = vc::newest_job(&table, &self.settings.virtual_cluster).map_err(|error| unordered(&error.into()))?;
        let wanted = stream.id.rsplit_once('#').map(|(_, job)| job);
        match job {
            Some(job) if Some(job.id.as_str()) == wanted => Ok(()),
            Some(job) => {
                Err(PromotionResult::Refused(format!("it replicates by job {} now, not as {}", job.id, stream.id)))
            }
            None => Err(PromotionResult::Refused(format!(
                "no replication job is shown, so it cannot be told whether it is {}; in the virtual cluster system, \
                 as an administrator, type: {}",
                stream.id,
                vc::grant(&self.settings.login.user)
            ))),
        }
    }

    async fn complete(&self, session: &mut Session, stream: &StreamOrder, deadline: Instant) -> PromotionResult {
        let sql = vc::complete_replication(&self.settings.virtual_cluster, stream.failover_at);
        let Err(error) = session.query(&sql, deadline).await else { return PromotionResult::Done };
        // Refused, by a server that is still there to ask: did it take effect all the same?
        if is_refusal(&error) && session.is_usable() {
            let found = self.replication(session, deadline).await;
            let error = ungranted(&self.settings, error);
            return match found {
                Ok(Replication { state: State::Pending | State::FailingOver | State::Ready, .. }) => {
                    PromotionResult::Done
                }
                Ok(Replication { state: State::Replicating, failover: None, .. }) => {
                    PromotionResult::Refused(error.to_string())
                }
                _ => PromotionResult::Unknown(error.to_string()),
            };
        }
        PromotionResult::Unknown(error.to_string())
    }

    /// It is a cluster of its own. Served it must be; by default, too, if it may: from its first moment on, or as soon as
    /// a cluster that wants its default served takes that.
    async fn serve(&self, session: &mut Session, service: &Service, deadline: Instant) -> PromotionResult {
        let (settings, name) = (&self.settings, &self.settings.virtual_cluster);
        let default = vc::set_default_target(name);
        let mut set = Ok(());
        if settings.default_target {
            set = order(session, settings, &default, deadline).await;
        }
        if service.is_stopped() {
            if let Err(error) = order(session, settings, &vc::start_service(name), deadline).await {
                return match unordered(&error) {
                    PromotionResult::NotSent(why) => PromotionResult::Unknown(why),
                    said => said,
                };
            }
            if set.is_err() {
                set = order(session, settings, &default, deadline).await;
            }
        }
        if let Err(error) = set {
            // Whoever names the virtual cluster is served all the same.
            tracing::warn!(
                virtual_cluster = name,
                %error,
                "the promoted virtual cluster could not be made its cluster's default: clients that name none may not \
                 reach it. This takes the system privilege MODIFYCLUSTERSETTING; or default_target = false"
            );
        }
        PromotionResult::Done
    }
}

/// What failed before anything was ordered that could not be ordered again. Only a plain no is one.
fn unordered(error: &EffectError) -> PromotionResult {
    match error {
        EffectError::Session(session) if !is_refusal(session) => PromotionResult::NotSent(error.to_string()),
        EffectError::Unreadable(_) => PromotionResult::NotSent(error.to_string()),
        _ => PromotionResult::Refused(error.to_string()),
    }
}

/// The server understood and said no. Not so where it goes away, is full, or does not know itself what came of it.
fn is_refusal(error: &SessionError) -> bool {
    let vague = ["08", "40", "53", "57", "58"];
    error.sqlstate().is_some_and(|code| !vague.iter().any(|class| code.starts_with(class)))
}

#[cfg(test)]
mod tests;
