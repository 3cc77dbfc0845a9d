//! What streams testify, as tables.

use super::*;
use crate::failover::witness::Testimony;
use std::time::Duration;

const REFRESH: Duration = Duration::from_secs(30);

fn s(n: u64) -> Moment {
    Moment(Duration::from_secs(1000 + n))
}

fn clock(n: u64) -> WallTime {
    WallTime(i64::try_from(1_000_000 + n).unwrap() * 1_000_000)
}

fn known(at: u64, status: Status, replicated: Option<u64>) -> Known {
    let stream = Stream {
        id: "s1".into(),
        from: "east".into(),
        to: "west".into(),
        status,
        replicated: replicated.map(clock),
        retained: None,
        failover_at: None,
        activated: None,
        trouble: None,
    };
    Known { stream, started: s(at), finished: s(at), entered: s(at), gone: false }
}

/// Advancing every 30 s with 20 s of lag up to `died`, read every 5 s until `end`; T0 at `t0`.
fn heard(died: u64, t0: u64, end: u64) -> Witness {
    let mut witness = Witness::new(REFRESH, Duration::from_secs(120));
    for at in (0..=end).step_by(5) {
        if at == t0 {
            witness.begin(s(t0), Some(clock(t0)));
        }
        let refreshed = (at.min(died) / 30 * 30).saturating_sub(20);
        witness.sample(&known(at, Status::Replicating, Some(refreshed)), clock(at));
    }
    witness
}

#[test]
fn a_stream_that_stands_still_is_silent_after_three_refreshes_and_not_before() {
    assert_eq!(heard(600, 600, 685).testimony(), Testimony::Unknown);
    let lag = heard(600, 600, 600).usual_lag();
    assert!(lag <= Duration::from_secs(50), "{lag:?}");
    let silent = 600 + 60 + lag.as_secs() + 15;
    assert_eq!(heard(600, 600, silent - 5).testimony(), Testimony::Unknown);
    assert_eq!(heard(600, 600, silent.max(690)).testimony(), Testimony::Silent);
}

#[test]
fn a_stream_that_passes_t0_by_five_seconds_says_that_the_primary_lives() {
    assert_eq!(heard(10_000, 600, 610).testimony(), Testimony::Unknown, "what comes now was in flight");
    assert_eq!(heard(10_000, 600, 630).testimony(), Testimony::Writing);
    assert_eq!(heard(10_000, 600, 3000).testimony(), Testimony::Writing, "as long as it moves");
    assert_eq!(heard(900, 600, 1200).testimony(), Testimony::Silent, "and not when it stopped since");
}

#[test]
fn a_stream_that_did_not_move_before_t0_or_cannot_be_read_says_nothing() {
    let stalled = heard(300, 600, 900);
    assert_eq!((stalled.testimony(), stalled.usable()), (Testimony::Unknown, false));
    let mut unread = heard(600, 600, 900);
    assert_eq!(unread.testimony(), Testimony::Silent);
    unread.sample_failed(s(905), "403");
    assert_eq!((unread.testimony(), unread.usable(), unread.trouble()), (Testimony::Unknown, false, Some("403")));
    unread.sample(&known(910, Status::Replicating, Some(580)), clock(910));
    assert_eq!((unread.testimony(), unread.trouble()), (Testimony::Silent, None));
    unread.sample(&known(915, Status::FailingOver, None), clock(915));
    assert_eq!(unread.testimony(), Testimony::Unknown);
}

#[test]
fn whoever_did_not_watch_before_believes_a_stream_that_was_replicated_not_long_ago() {
    let vigil = |lag: u64, end: u64| {
        let mut witness = Witness::new(REFRESH, Duration::from_secs(120));
        witness.sample(&known(600, Status::Replicating, Some(600 - lag)), clock(600));
        witness.begin_unwatched(s(600), clock(600));
        for at in (605..=end).step_by(5) {
            witness.sample(&known(at, Status::Replicating, Some(600 - lag)), clock(at));
        }
        (witness.testimony(), witness.silent_from())
    };
    assert_eq!(vigil(10, 685), (Testimony::Unknown, Some(clock(690))));
    assert_eq!(vigil(10, 690), (Testimony::Silent, Some(clock(690))));
    assert_eq!(vigil(100, 770), (Testimony::Unknown, Some(clock(775))), "what lags is waited for");
    assert_eq!(vigil(100, 775), (Testimony::Silent, Some(clock(775))));
    assert_eq!(vigil(181, 2000).0, Testimony::Unknown, "it had not moved for six refreshes");
}

#[test]
fn a_stream_seen_to_fail_over_never_goes_back() {
    let mut streams = Streams::default();
    let report = |at: u64, status| Report {
        started: s(at),
        finished: s(at),
        scope: Scope::All,
        clock: Some(clock(at)),
        result: Ok(vec![known(at, status, None).stream]),
    };
    let now = |at| Now { at: s(at), wall: clock(at) };
    for (at, status, known) in [
        (0, Status::Replicating, Status::Replicating),
        (1, Status::FailingOver, Status::FailingOver),
        (2, Status::Replicating, Status::FailingOver),
        (3, Status::Completed, Status::Completed),
        (4, Status::FailingOver, Status::Completed),
    ] {
        streams.hear(&report(at, status), now(at));
        assert_eq!(streams.by_id("s1").unwrap().stream.status, known, "at {at}");
    }
    streams.hear(&report(1, Status::Replicating), now(5));
    assert_eq!(streams.by_id("s1").unwrap().stream.status, Status::Completed, "an older reading says nothing");
}

#[test]
fn of_a_thousand_ended_streams_the_newest_are_kept_and_every_living_one() {
    let mut streams = Streams::default();
    let mut all: Vec<Stream> = (0..1000)
        .map(|n| Stream {
            id: format!("old{n}"),
            activated: Some(clock(n)),
            ..known(0, Status::Completed, None).stream
        })
        .collect();
    all.push(known(0, Status::Replicating, Some(5)).stream);
    let report = Report { started: s(1), finished: s(1), scope: Scope::All, clock: None, result: Ok(all) };
    for _ in 0..3 {
        streams.hear(&report, Now { at: s(2), wall: clock(2) });
    }
    assert_eq!(streams.all().count(), ENDED_KEPT + 1);
    assert_eq!(streams.newest_completed().unwrap().id, "old999");
    assert!(streams.by_id("s1").is_some());
}
