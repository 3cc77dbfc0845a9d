//! The replication streams between clusters, for the page. Pure.

use std::time::Duration;

use super::board::{BAD, CALM, OK, Time, WARN};
use crate::admin::words::{ago, fine_span, plural, stamp, until};
use crate::types::WallTime;
use crate::view::{ReplicationStatus, StreamStatus};

/// Streams that have ended and are shown.
const ENDED: usize = 4;

pub(super) struct Replication {
    pub(super) source: &'static str,
    pub(super) read: String,
    pub(super) trouble: Option<String>,
    pub(super) streams: Vec<Stream>,
    /// How many that have ended are left out.
    pub(super) older: Option<String>,
}

pub(super) struct Stream {
    pub(super) id: String,
    pub(super) way: String,
    pub(super) status: String,
    pub(super) level: &'static str,
    pub(super) since: Time,
    pub(super) lag: String,
    pub(super) moment: String,
}

impl Replication {
    pub(super) fn build(r: &ReplicationStatus, now: WallTime) -> Self {
        // The newest first, and of what is over only the end: years of failovers are no help.
        let ended = |stream: &StreamStatus| matches!(stream.status.as_str(), "completed" | "canceled" | "gone");
        let left_out = r.streams.iter().filter(|stream| ended(stream)).count().saturating_sub(ENDED);
        Self {
            source: if r.source == "sql" { "SQL" } else { "the Cloud API" },
            read: r.read_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            trouble: r.trouble.clone(),
            streams: r.streams.iter().skip(left_out).rev().map(|stream| Stream::build(stream, now)).collect(),
            older: (left_out > 0).then(|| plural(left_out as u64, "older stream", "older streams")),
        }
    }
}

impl Stream {
    fn build(s: &StreamStatus, now: WallTime) -> Self {
        let level = match s.status.as_str() {
            "replicating" if s.replicated_at.is_some() => OK,
            "completed" => CALM,
            "stalled" | "canceled" | "gone" => BAD,
            _ => WARN,
        };
        let moment = match (s.activated_at, s.failover_at, s.replicated_at) {
            (Some(at), ..) => format!("activated as of {}", stamp(at)),
            (None, Some(at), _) if at > now => format!("fails over {} to {}", until(at, now), stamp(at)),
            (None, Some(at), _) => format!("to {}", stamp(at)),
            (None, None, Some(at)) => format!("has all up to {}", stamp(at)),
            (None, None, None) => match s.status.as_str() {
                "replicating" => "first scan: not usable yet",
                "starting" => "being set up",
                "failing over" => "to the latest replicated time",
                _ => "—",
            }
            .to_owned(),
        };
        Self {
            id: s.id.clone(),
            way: format!("{} → {}", s.from, s.to),
            status: s.status.clone(),
            level,
            since: Time::of(s.since, now),
            lag: s.lag_ms.map_or_else(|| "—".to_owned(), |ms| fine_span(Duration::from_millis(ms))),
            moment,
        }
    }
}
