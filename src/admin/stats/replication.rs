//! The replication streams between clusters, for the page. Pure.

use std::time::Duration;

use super::board::{BAD, CALM, OK, Time, WARN};
use crate::admin::words::{ago, fine_span, until};
use crate::types::WallTime;
use crate::view::{ReplicationStatus, StreamStatus};

pub(super) struct Replication {
    pub(super) source: &'static str,
    pub(super) read: String,
    pub(super) trouble: Option<String>,
    pub(super) streams: Vec<Stream>,
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
        Self {
            source: if r.source == "sql" { "SQL" } else { "the Cloud API" },
            read: r.read_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            trouble: r.trouble.clone(),
            // The newest first: what is long over interests least.
            streams: r.streams.iter().rev().map(|stream| Stream::build(stream, now)).collect(),
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
            (Some(at), ..) => format!("activated as of {at}"),
            (None, Some(at), _) if at > now => format!("fails over {}", until(at, now)),
            (None, Some(at), _) => format!("to {at}"),
            (None, None, Some(at)) => format!("replicated up to {at}"),
            (None, None, None) if s.status == "replicating" => "first scan".to_owned(),
            (None, None, None) => String::new(),
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
