//! What Patroni says, for the page. Pure.

use super::board::{BAD, CALM, OK, WARN};
use crate::admin::words::{ago, bytes};
use crate::types::WallTime;
use crate::view::{PatroniMember, PatroniStatus};

pub(super) struct Patroni {
    pub(super) read: String,
    pub(super) trouble: Option<String>,
    pub(super) notes: Vec<String>,
    pub(super) members: Vec<Member>,
}

pub(super) struct Member {
    pub(super) name: String,
    pub(super) backend: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) level: &'static str,
    pub(super) timeline: String,
    pub(super) lag: String,
    pub(super) notes: String,
}

impl Patroni {
    pub(super) fn build(p: &PatroniStatus, now: WallTime) -> Self {
        let via = p.via.as_ref().map_or_else(String::new, |via| format!(" through {via}"));
        let read = p.read_at.map_or_else(|| "Never read yet".to_owned(), |at| format!("Read{via} {}", ago(at, now)));
        let trouble =
            p.trouble.as_ref().map(|(since, why)| format!("No member answers since {}: {why}", ago(*since, now)));
        Self { read, trouble, notes: p.notes(), members: p.members.iter().map(Member::build).collect() }
    }
}

impl Member {
    fn build(m: &PatroniMember) -> Self {
        let level = match m.state.as_str() {
            "running" | "streaming" => OK,
            "stopped" | "crashed" => BAD,
            state if state.contains("failed") => BAD,
            "unknown" => CALM,
            _ => WARN,
        };
        Self {
            name: m.name.clone(),
            backend: m.backend.as_ref().map_or_else(|| "not configured here".to_owned(), ToString::to_string),
            role: m.role.clone(),
            state: m.state.clone(),
            level,
            timeline: m.timeline.map_or_else(|| "–".to_owned(), |timeline| timeline.to_string()),
            lag: m.lag_bytes.map_or_else(|| "–".to_owned(), bytes),
            notes: m.notes(),
        }
    }
}
