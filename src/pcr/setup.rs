//! Makes sure that a stream leads from one cluster to the other: an existing one is adopted, a new one is ordered once.

use std::time::Duration;

use tokio::time::sleep;

use super::survey::odd;
use super::{Direction, Error, Pair, Survey, Which, look};
use crate::cockroach_cloud::model::{ReplicationStream, StreamStatus};

/// After an order whose reply was lost: how often the list is read, and how long between.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(700);

/// What is there before anything is ordered.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// One stream of that direction, which starts or replicates.
    Stream(Box<ReplicationStream>),
    /// None, and nothing stands in the way of a new one.
    Nothing,
}

/// Looks for a stream of that direction, and for what forbids one. `active`: the side that clients are sent to.
pub fn find(pair: &Pair, survey: &Survey, direction: Direction, active: Which) -> Result<Found, Error> {
    if let Some(other) = survey.live(pair, direction.opposite())? {
        return Err(other_way(pair, other, direction));
    }
    if let Some(stream) = survey.live(pair, direction)? {
        return match stream.status {
            StreamStatus::Starting | StreamStatus::Replicating => Ok(Found::Stream(Box::new(stream.clone()))),
            StreamStatus::FailingOver => Err(Error::Ended {
                id: stream.id,
                status: stream.status.clone(),
                remedy: "it is being failed over; `proxyctl failback status` shows where that leads",
            }),
            _ => Err(odd(stream)),
        };
    }
    let erased = direction.target();
    match (erased == active, direction) {
        (false, _) => Ok(Found::Nothing),
        (true, Direction::Forward) => Err(Error::WouldEraseActive(pair.side(erased).name.clone())),
        (true, Direction::Reverse) => Err(Error::AtHome(pair.side(erased).name.clone())),
    }
}

/// Orders a stream once. **What is on its standby is erased.** When the reply is lost, the list says what came of it; when
/// the order is refused, it says whether somebody else was quicker. The flag: the stream was found in the list. Not
/// cancel safe.
pub async fn create(pair: &Pair, direction: Direction) -> Result<(ReplicationStream, bool), Error> {
    let order = pair.client.create_stream(pair.from(direction).id, pair.to(direction).id).await;
    let error = match order {
        Ok(reply) => return Ok((reply.value, false)),
        Err(error) if !error.may_have_taken_effect() => {
            let others = look::survey(pair).await.ok().and_then(|survey| survey.lone(pair, direction).ok()?.cloned());
            return others.map(|stream| (stream, true)).ok_or(error.into());
        }
        Err(error) => error,
    };
    let mut trouble = None;
    for n in 0..LOOKS {
        if n > 0 {
            sleep(PAUSE).await;
        }
        match look::survey(pair).await {
            Ok(survey) => match survey.lone(pair, direction)? {
                Some(stream) => return Ok((stream.clone(), true)),
                None => trouble = None,
            },
            Err(error) => trouble = Some(error),
        }
    }
    Err(match trouble {
        Some(look) => Error::Unknown { order: Box::new(error), look: Box::new(look) },
        None => Error::CreateLost(Box::new(error)),
    })
}

fn other_way(pair: &Pair, other: &ReplicationStream, wanted: Direction) -> Error {
    let direction = wanted.opposite();
    Error::OtherWay {
        id: other.id,
        from: pair.from(direction).name.clone(),
        to: pair.to(direction).name.clone(),
        status: other.status.clone(),
        remedy: match wanted {
            Direction::Forward => "the way home is being prepared; `proxyctl failback status` shows how far it is",
            Direction::Reverse => "there was no failover yet, so there is nothing to fail back; nothing was done",
        },
    }
}
