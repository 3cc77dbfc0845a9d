//! What the streams between two clusters say together: which of them is active. Pure, and the one place that deduces it
//! from the API alone; what it cannot know is said in the head of `client`.

use jiff::Timestamp;

use super::model::{ClusterId, ReplicationStream, StreamStatus};

/// Two clusters, by the streams between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where applications belong.
    pub active: ClusterId,
    /// The cluster into which a stream leads: it does not serve.
    pub filled: Option<ClusterId>,
    /// No failover is under way.
    pub open: bool,
}

/// The source of the stream that lives is active, whatever was promoted before: nobody replicates from a side that was
/// left. Without one, the standby of the newest completed stream; else the configured primary. `now`: the API's clock
/// when it listed them; a failover that is ordered for later has not begun. `None` = not told, and it may have.
pub fn standing(
    streams: &[ReplicationStream],
    primary: ClusterId,
    standby: ClusterId,
    now: Option<Timestamp>,
) -> Standing {
    let ours = |stream: &&ReplicationStream| {
        let sides = (stream.primary_cluster_id, stream.standby_cluster_id);
        sides == (primary, standby) || sides == (standby, primary)
    };
    let lives = |stream: &&ReplicationStream| {
        matches!(stream.status, StreamStatus::Starting | StreamStatus::Replicating | StreamStatus::FailingOver)
    };
    let living = || streams.iter().filter(ours).filter(lives);
    let sources = |id| living().any(|stream| stream.primary_cluster_id == id);
    // Both ways at once: they say nothing.
    let live = living().max_by_key(|stream| when(stream)).filter(|_| !(sources(primary) && sources(standby)));
    let promoted = newest_completed(streams.iter().filter(ours)).map(|stream| stream.standby_cluster_id);
    Standing {
        active: live.map(|stream| stream.primary_cluster_id).or(promoted).unwrap_or(primary),
        filled: live.map(|stream| stream.standby_cluster_id),
        open: living().all(|stream| stream.status != StreamStatus::FailingOver || is_ahead(stream, now)),
    }
}

/// Of all completed streams the one that was activated last.
pub fn newest_completed<'s>(streams: impl IntoIterator<Item = &'s ReplicationStream>) -> Option<&'s ReplicationStream> {
    let completed = streams.into_iter().filter(|stream| stream.status == StreamStatus::Completed);
    completed.max_by_key(|stream| when(stream))
}

/// Ordered for a moment that has not come yet.
fn is_ahead(stream: &ReplicationStream, now: Option<Timestamp>) -> bool {
    stream.failover_at.zip(now).is_some_and(|(at, now)| at > now)
}

fn when(stream: &ReplicationStream) -> (Option<Timestamp>, Option<Timestamp>) {
    (stream.activated_at, stream.created_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClusterId = ClusterId::from_bits(1);
    const B: ClusterId = ClusterId::from_bits(2);
    const OTHER: ClusterId = ClusterId::from_bits(3);

    fn stream(minute: i64, from: ClusterId, to: ClusterId, status: &str) -> ReplicationStream {
        let created = Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
        let json = serde_json::json!({ "id": format!("00000000-0000-0000-0000-{minute:012}"), "status": status,
            "primary_cluster_id": from, "standby_cluster_id": to, "created_at": created.to_string() });
        serde_json::from_value(json).unwrap()
    }

    fn active(streams: &[ReplicationStream]) -> (ClusterId, bool) {
        let mut turned = streams.to_vec();
        turned.reverse();
        let (found, again) = (standing(streams, A, B, None), standing(&turned, A, B, None));
        assert_eq!(found, again, "the order of the list says nothing");
        (found.active, found.open)
    }

    #[test]
    fn the_active_cluster_is_deduced_through_a_failover_and_back_home() {
        let mut streams = Vec::new();
        assert_eq!(active(&streams), (A, true), "nothing is known: the configured primary");
        for status in ["STARTING", "REPLICATING"] {
            assert_eq!(active(&[stream(0, A, B, status)]), (A, true), "{status}");
        }
        assert_eq!(active(&[stream(0, A, B, "FAILING_OVER")]), (A, false), "the standby does not serve yet");
        streams.push(stream(0, A, B, "COMPLETED"));
        assert_eq!(active(&streams), (B, true));
        for status in ["STARTING", "REPLICATING", "CANCELED"] {
            streams.push(stream(1, B, A, status));
            assert_eq!(active(&streams), (B, true), "the way home is prepared: {status}");
            streams.pop();
        }
        streams.push(stream(1, B, A, "COMPLETED"));
        assert_eq!(active(&streams), (A, true));
        streams.push(stream(2, A, B, "REPLICATING"));
        assert_eq!(active(&streams), (A, true));
    }

    #[test]
    fn a_failover_that_is_ordered_for_later_changes_nothing_until_then() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let ordered = ReplicationStream { failover_at: Some(at), ..stream(0, A, B, "FAILING_OVER") };
        let seen = |seconds: i64| {
            let now = at + jiff::SignedDuration::from_secs(seconds);
            let found = standing(std::slice::from_ref(&ordered), A, B, Some(now));
            (found.active, found.open)
        };
        assert_eq!((seen(-1800), seen(-1), seen(0)), ((A, true), (A, true), (A, false)));
        assert_eq!(active(&[ordered]), (A, false), "without the API's clock it may have begun");
    }

    #[test]
    fn a_cluster_that_is_filled_again_is_not_active_although_it_was_promoted_before() {
        let streams = [stream(0, A, B, "COMPLETED"), stream(5, A, B, "REPLICATING")];
        assert_eq!(active(&streams), (A, true));
    }

    #[test]
    fn the_source_of_a_stream_is_active_when_nothing_was_promoted_whoever_is_configured() {
        assert_eq!(active(&[stream(0, B, A, "REPLICATING")]), (B, true));
    }

    #[test]
    fn streams_that_lead_both_ways_say_nothing() {
        let both = [stream(3, A, B, "REPLICATING"), stream(4, B, A, "STARTING")];
        assert_eq!(active(&both), (A, true));
        assert_eq!(active(&[&both[..], &[stream(0, A, B, "COMPLETED")]].concat()), (B, true));
    }

    #[test]
    fn streams_of_other_clusters_say_nothing() {
        let streams =
            [stream(9, A, OTHER, "COMPLETED"), stream(9, OTHER, B, "COMPLETED"), stream(0, A, B, "REPLICATING")];
        assert_eq!(active(&streams), (A, true));
    }
}
