//! Disrupts a cluster on purpose through the API, and ends that. A cluster that looks like production never is.

use std::time::Duration;

use tokio::time::sleep;

use super::{Error, Pair, Which, too_soon};
use crate::cockroach_cloud::model::{Cluster, DeleteProtection, Disruption};
use crate::cockroach_cloud::{self as cloud};

/// How often the end of a disruption is ordered, and how long between.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(20);

/// Why a cluster is never disrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Its owner does not want it to be lost.
    #[error("its delete protection is on, so it is worth something to somebody; only test clusters are disrupted")]
    DeleteProtection,
    /// It says so itself.
    #[error("its name says that it is a production cluster")]
    Production,
    /// The API does not tell enough.
    #[error("the API does not tell its name, so nobody can know what it is")]
    Nameless,
}

/// A cluster that may be disrupted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub which: Which,
    /// Its full name in the cloud, as it must be typed.
    pub name: String,
    /// The regions that are taken down as a whole.
    pub regions: Vec<String>,
    /// What was disrupted when it was read.
    pub before: Vec<Disruption>,
}

/// Reads a cluster and decides whether it may be disrupted. No region = all of them.
pub async fn target(pair: &Pair, which: Which, regions: &[String]) -> Result<Target, Error> {
    let side = pair.side(which);
    let cluster = pair.client.cluster(side.id).await?.value;
    if let Some(why) = protected(&cluster) {
        return Err(Error::Protected { cluster: side.name.clone(), name: cluster.name.clone(), why });
    }
    let known: Vec<String> =
        cluster.regions.iter().map(|region| region.name.clone()).filter(|n| !n.is_empty()).collect();
    let unknown = regions.iter().find(|asked| !known.contains(asked));
    // Without any region that is told there is nothing to disrupt, and no region that was asked for is one.
    if let Some(asked) = unknown.cloned().or_else(|| known.is_empty().then(|| "to disrupt".to_owned())) {
        let known = if known.is_empty() { "none that the API tells".to_owned() } else { known.join(", ") };
        return Err(Error::NoRegion { cluster: side.name.clone(), asked, known });
    }
    let before = pair.client.disruptions(side.id).await?.value;
    let regions = if regions.is_empty() { known } else { regions.to_vec() };
    Ok(Target { which, name: cluster.name, regions, before })
}

/// Disrupts it, beside what is disrupted by then. The order replaces the whole set, so that is read anew. It is sent
/// once, unless it came too soon; a lost reply is resolved by reading. Not cancel safe.
pub async fn disrupt(pair: &Pair, target: &Target) -> Result<Vec<Disruption>, Error> {
    let id = pair.side(target.which).id;
    let mut set = pair.client.disruptions(id).await?.value;
    set.retain(|there| !target.regions.contains(&there.region_code));
    set.extend(target.regions.iter().map(Disruption::whole_region));
    let mut tries = 1;
    let ordered = loop {
        let ordered = pair.client.set_disruptions(id, set.clone()).await;
        match ordered.as_ref().err().and_then(too_soon).filter(|_| tries < super::ORDERS) {
            Some(wait) => sleep(wait).await,
            None => break ordered,
        }
        tries += 1;
    };
    match ordered {
        Ok(reply) => Ok(reply.value),
        Err(error) if !error.may_have_taken_effect() => Err(error.into()),
        Err(error) => match pair.client.disruptions(id).await {
            Ok(reply) if covers(&reply.value, &set) => Ok(reply.value),
            _ => Err(error.into()),
        },
    }
}

/// Ends every disruption of a cluster. It is ordered again until the API agrees, or for about a minute: the order can be
/// repeated without harm.
pub async fn clear(pair: &Pair, which: Which) -> Result<(), Error> {
    let side = pair.side(which);
    let mut pause = PAUSE;
    let mut cause: Option<cloud::Error> = None;
    for n in 0..TRIES {
        if n > 0 {
            sleep(cause.as_ref().and_then(cloud::Error::retry_after).map_or(pause, |asked| asked.min(LONGEST))).await;
            pause = (pause * 2).min(LONGEST);
        }
        match pair.client.set_disruptions(side.id, Vec::new()).await {
            Ok(reply) if reply.value.is_empty() => return Ok(()),
            // Not what was ordered: once more.
            Ok(_) => {}
            Err(error) if error.is_final() => {
                return Err(Error::NotCleared { cluster: side.name.clone(), which, cause: Some(Box::new(error)) });
            }
            Err(error) => cause = Some(error),
        }
    }
    Err(Error::NotCleared { cluster: side.name.clone(), which, cause: cause.map(Box::new) })
}

/// What of a cluster is disrupted.
pub async fn read(pair: &Pair, which: Which) -> Result<Vec<Disruption>, Error> {
    Ok(pair.client.disruptions(pair.side(which).id).await?.value)
}

fn protected(cluster: &Cluster) -> Option<Why> {
    match &cluster.delete_protection {
        _ if cluster.name.trim().is_empty() => Some(Why::Nameless),
        _ if cluster.name.to_lowercase().contains("prod") => Some(Why::Production),
        DeleteProtection::Enabled => Some(Why::DeleteProtection),
        // A word of later times may well be a protection; none at all is none.
        DeleteProtection::Other(word) if !word.is_empty() => Some(Why::DeleteProtection),
        DeleteProtection::Disabled | DeleteProtection::Other(_) => None,
    }
}

fn covers(found: &[Disruption], wanted: &[Disruption]) -> bool {
    wanted.iter().all(|one| found.contains(one))
}
