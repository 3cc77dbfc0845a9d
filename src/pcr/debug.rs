//! Raw replies of the API, for people who look for a fault. The secret never shows.

use serde::Serialize;

use super::{Error, Pair, look};
use crate::cockroach_cloud::ApiPath;
use crate::cockroach_cloud::model::StreamStatus;

/// One reply as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raw {
    /// What was asked for.
    pub path: String,
    /// The HTTP status; `None` = there was no reply.
    pub status: Option<u16>,
    /// The headers that tell something.
    pub headers: Vec<(String, String)>,
    /// The body, or why there is none.
    pub body: String,
}

/// The paths that tell most about a pair: clusters, their nodes and disruptions, all streams, each one that is not at
/// its end.
pub async fn paths(pair: &Pair) -> Vec<String> {
    let mut paths = Vec::new();
    for side in [&pair.primary, &pair.standby] {
        let base = format!("/api/v1/clusters/{}", side.id);
        paths.extend([base.clone(), format!("{base}/nodes"), format!("{base}/disrupt")]);
    }
    paths.push(format!("/api/v1/physical-replication-streams?cluster_id={}&show_completed=true", pair.primary.id));
    // Without the list there is no stream to name; the list's own reply says why.
    let survey = look::survey(pair).await;
    let live = survey.iter().flat_map(|survey| &survey.streams);
    let live = live.filter(|stream| !matches!(stream.status, StreamStatus::Completed | StreamStatus::Canceled));
    paths.extend(live.map(|stream| format!("/api/v1/physical-replication-streams/{}", stream.id)));
    paths
}

/// Reads one path, whatever comes of it.
pub async fn raw(pair: &Pair, path: &ApiPath, shown: &str) -> Raw {
    match pair.client.raw(path).await {
        Ok(reply) => Raw {
            path: shown.to_owned(),
            status: Some(reply.value.status),
            headers: reply.value.headers,
            body: reply.value.body,
        },
        Err(error) => Raw {
            path: shown.to_owned(),
            status: error.status(),
            headers: Vec::new(),
            body: Error::from(error).to_string(),
        },
    }
}
