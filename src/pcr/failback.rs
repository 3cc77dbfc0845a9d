//! Fails a stream over through the API, for whoever has no daemon to do it: checked just before, ordered once, and an
//! order whose reply is lost is resolved by reading.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::silence::Vigil;
use super::survey::{check_moment, check_ready};
use super::{Error, Pair};
use crate::cockroach_cloud::model::{ReplicationStream, StreamId, StreamStatus, StreamUpdate};

/// After an order whose reply was lost: how often the stream is read, and how long between.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(700);

/// What a failover goes to, and what it may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// The moment; `None` = the latest consistent time.
    pub at: Option<Timestamp>,
    /// How far behind the stream may be.
    pub most: Duration,
}

/// Orders the failover of a stream, unless it is under way. The stream is read again just before, then comes a last look
/// at the primary if there is a `vigil`. Not cancel safe.
pub async fn fail_over(
    pair: &Pair,
    id: StreamId,
    aim: Aim,
    vigil: Option<&mut Vigil<'_>>,
) -> Result<ReplicationStream, Error> {
    let now = pair.client.stream(id).await?;
    if matches!(now.value.status, StreamStatus::FailingOver | StreamStatus::Completed) {
        return Ok(now.value);
    }
    // A dead primary is as far ahead as it was when it died.
    let as_of = vigil.as_ref().map(|vigil| vigil.base()).or(now.date);
    check_ready(&now.value, as_of, aim.most)?;
    if let Some(at) = aim.at {
        check_moment(&now.value, now.date, at)?;
    }
    if let Some(vigil) = vigil {
        vigil.last_look(&now).await?;
    }
    match pair.client.update_stream(id, &StreamUpdate::failover(aim.at)).await {
        Ok(reply) => Ok(reply.value),
        Err(order) if !order.may_have_taken_effect() => taken_by_others(pair, id, order).await,
        Err(order) => resolve(pair, id, order).await,
    }
}

/// A refusal may mean that somebody else was quicker.
async fn taken_by_others(
    pair: &Pair,
    id: StreamId,
    order: crate::cockroach_cloud::Error,
) -> Result<ReplicationStream, Error> {
    match pair.client.stream(id).await {
        Ok(reply) if matches!(reply.value.status, StreamStatus::FailingOver | StreamStatus::Completed) => {
            Ok(reply.value)
        }
        _ => Err(order.into()),
    }
}

/// Reads what came of an order.
async fn resolve(pair: &Pair, id: StreamId, order: crate::cockroach_cloud::Error) -> Result<ReplicationStream, Error> {
    let mut trouble = None;
    for n in 0..LOOKS {
        if n > 0 {
            sleep(PAUSE).await;
        }
        match pair.client.stream(id).await {
            Ok(reply) if matches!(reply.value.status, StreamStatus::FailingOver | StreamStatus::Completed) => {
                return Ok(reply.value);
            }
            Ok(_) => trouble = None,
            Err(error) => trouble = Some(error),
        }
    }
    Err(match trouble {
        Some(look) => Error::Unknown { order: Box::new(order), look: Box::new(look) },
        None => Error::PatchLost(Box::new(order)),
    })
}
