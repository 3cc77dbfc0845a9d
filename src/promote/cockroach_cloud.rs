//! The promoter that fails a replication stream over through the Cloud API: one PATCH, never repeated by itself. What
//! came of it is read by the witness.

use jiff::Timestamp;

use crate::cockroach_cloud::model::{StreamStatus, StreamUpdate};
use crate::cockroach_cloud::{BuildError, Client, Settings};
use crate::config;
use crate::failover::action::PromotionResult;
use crate::failover::phase::StreamOrder;

/// `promoter = "cockroach_cloud"`.
#[derive(Debug)]
pub(super) struct CockroachCloud {
    client: Result<Client, BuildError>,
}

impl CockroachCloud {
    pub(super) fn new(cloud: &config::CockroachCloud) -> Self {
        let (base_url, timeout) = (cloud.api_url.clone(), cloud.timeout);
        Self { client: Client::build(&Settings { base_url, timeout, ..Settings::new(cloud.secret.clone()) }) }
    }

    pub(super) async fn fail_over(&self, order: Option<&StreamOrder>) -> PromotionResult {
        let Some(order) = order else {
            return PromotionResult::Refused("no replication stream was named".into());
        };
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return PromotionResult::Refused(format!("the Cloud API cannot be used: {error}")),
        };
        let id = match order.id.parse() {
            Ok(id) => id,
            Err(error) => return PromotionResult::Refused(format!("{:?} is no stream id: {error}", order.id)),
        };
        let at = match order.failover_at.map(|at| Timestamp::from_microsecond(at.0)).transpose() {
            Ok(at) => at,
            Err(error) => return PromotionResult::Refused(format!("the moment to fail over to is none: {error}")),
        };
        match client.update_stream(id, &StreamUpdate::failover(at)).await {
            Ok(reply) => match reply.value.status {
                StreamStatus::FailingOver | StreamStatus::Completed => PromotionResult::Done,
                other => {
                    PromotionResult::Unknown(format!("the API took the order and says that the stream is {other}"))
                }
            },
            Err(error) if error.is_final() && !error.may_have_taken_effect() => {
                PromotionResult::Refused(error.to_string())
            }
            Err(error) if !error.may_have_taken_effect() => PromotionResult::NotSent(error.to_string()),
            Err(error) => PromotionResult::Unknown(error.to_string()),
        }
    }
}
