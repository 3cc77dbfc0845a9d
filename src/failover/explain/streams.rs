//! The replication between clusters in words. Changes nothing.

use super::wall_of;
use crate::config::Replication;
use crate::failover::machine::Machine;
use crate::failover::replication::{Known, Status};
use crate::types::Now;
use crate::view::{ReplicationStatus, StreamStatus};

impl Machine {
    pub(super) fn replication_status(&self, now: Now) -> Option<ReplicationStatus> {
        let source = match self.service.replication.as_ref()? {
            Replication::Cloud(_) => "cloud_api",
            Replication::Sql(_) => "sql",
        };
        let usual = self.sides.iter().filter_map(|side| side.witness.replication()).map(|w| w.usual_lag()).max();
        let mut known: Vec<&Known> = self.streams.all().collect();
        let ended = |known: &Known| known.gone || known.stream.status >= Status::Completed;
        known.sort_by_key(|known| (!ended(known), known.stream.activated, known.entered));
        Some(ReplicationStatus {
            source: source.into(),
            read_at: self.streams.read().map(|at| wall_of(at, now)),
            trouble: self.streams.trouble().map(str::to_owned),
            usual_lag_ms: usual.map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            streams: known.into_iter().map(|known| self.stream_status(known, now)).collect(),
        })
    }

    fn stream_status(&self, known: &Known, now: Now) -> StreamStatus {
        let stream = &known.stream;
        let behind = self.streams.clock(now).zip(stream.replicated).map(|(clock, at)| clock.since(at));
        StreamStatus {
            id: stream.id.clone(),
            from: stream.from.clone(),
            to: stream.to.clone(),
            status: if known.gone { "gone" } else { stream.status.as_str() }.into(),
            since: wall_of(known.entered, now),
            replicated_at: stream.replicated,
            lag_ms: behind.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            retained_at: stream.retained,
            failover_at: stream.failover_at,
            activated_at: stream.activated,
        }
    }
}
