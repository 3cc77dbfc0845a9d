//! What the streams between two clusters say together, as tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::setup::{Found, find};
use super::survey::{Standing, check_moment, check_ready};
use super::*;
use crate::cockroach_cloud::model::{ClusterId, ReplicationStream};
use crate::config::source::load_from;

const PRIMARY: &str = "0a1b2c3d-0000-0000-0000-000000000001";
const STANDBY: &str = "0a1b2c3d-0000-0000-0000-000000000002";

fn pair(more: &[(&str, &str)]) -> Pair {
    let all = [
        ("COCKROACH_API_SECRET_KEY", "CCDB1_0123456789"),
        ("COCKROACH_API_URL", "http://127.0.0.1:9"),
        ("PRIMARY_CLUSTER_ID", PRIMARY),
        ("STANDBY_CLUSTER_ID", STANDBY),
    ];
    let environment: BTreeMap<String, String> =
        all.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let loaded = load_from(None, Path::new("/nowhere/.env"), environment).unwrap();
    Pair::build(&loaded.config, None).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// The `n`th stream; `activated`: when, if it has completed.
fn stream(n: u128, from: &str, to: &str, status: &str, activated: Option<i64>) -> ReplicationStream {
    let id = |text: &str| text.parse::<ClusterId>().unwrap();
    ReplicationStream {
        id: StreamId::from_bits(n),
        status: status.into(),
        primary_cluster_id: id(from),
        standby_cluster_id: id(to),
        created_at: None,
        replicated_time: (status == "REPLICATING").then(|| at(0)),
        replication_lag_seconds: None,
        retained_time: (status == "REPLICATING").then(|| at(-3600)),
        failover_at: None,
        activated_at: activated.map(at),
        canceled_at: None,
    }
}

fn forward(n: u128, status: &str, activated: Option<i64>) -> ReplicationStream {
    stream(n, PRIMARY, STANDBY, status, activated)
}

fn reverse(n: u128, status: &str, activated: Option<i64>) -> ReplicationStream {
    stream(n, STANDBY, PRIMARY, status, activated)
}

fn survey(streams: Vec<ReplicationStream>) -> Survey {
    Survey { streams, date: Some(at(7)) }
}

#[test]
fn an_env_file_with_two_ids_is_a_pair() {
    let pair = pair(&[("PRIMARY_SQL_DNS", "p.example.com")]);
    assert_eq!((pair.primary.name.as_str(), pair.standby.name.as_str()), ("primary", "standby"));
    assert_eq!(pair.primary.id.to_string(), PRIMARY);
    assert_eq!(pair.primary.addresses[0].to_string(), "p.example.com:26257");
    assert!(pair.standby.addresses.is_empty());
    assert_eq!((pair.fall, pair.max_lag, pair.login.password), (3, Duration::from_secs(120), None));
}

#[test]
fn a_pair_that_is_not_in_the_cloud_is_told_apart() {
    let environment = [("PRIMARY_SQL_DNS", "p.example.com"), ("STANDBY_SQL_DNS", "s.example.com")];
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let loaded = load_from(None, Path::new("/nowhere/.env"), environment).unwrap();
    let error = Pair::build(&loaded.config, None).unwrap_err();
    assert!(error.is_misuse_or_unreachable() && error.to_string().contains("COCKROACH_API_SECRET_KEY"), "{error}");
    let error = Pair::build(&loaded.config, Some("shop")).unwrap_err();
    assert_eq!(error.to_string(), "the configuration has no service shop; it has main");
}

#[test]
fn the_side_that_was_activated_last_is_active_whatever_the_order_of_the_list() {
    let pair = pair(&[]);
    assert_eq!(survey(vec![]).active(&pair), Which::Primary);
    assert_eq!(survey(vec![forward(1, "REPLICATING", None)]).active(&pair), Which::Primary);
    let away = forward(1, "COMPLETED", Some(1));
    let home = reverse(2, "COMPLETED", Some(2));
    assert_eq!(survey(vec![away.clone()]).active(&pair), Which::Standby);
    assert_eq!(survey(vec![home.clone(), away.clone()]).active(&pair), Which::Primary);
    assert_eq!(survey(vec![away, home, forward(3, "CANCELED", None)]).active(&pair), Which::Primary);
}

#[test]
fn the_source_of_a_stream_that_lives_is_active_whatever_was_promoted_before() {
    let pair = pair(&[]);
    for status in ["STARTING", "REPLICATING", "FAILING_OVER"] {
        // `restore --force`, and then `setup`: no stream home has ever completed.
        let again = survey(vec![forward(1, "COMPLETED", Some(1)), forward(2, status, None)]);
        assert_eq!(again.active(&pair), Which::Primary, "{status}");
        let home = survey(vec![reverse(2, status, None), reverse(1, "COMPLETED", Some(1))]);
        assert_eq!(home.active(&pair), Which::Standby, "{status}");
    }
}

#[test]
fn a_stream_that_is_not_the_pinned_one_is_refused_though_it_is_the_only_one() {
    let one = survey(vec![forward(1, "REPLICATING", None), forward(3, "COMPLETED", Some(1))]);
    let pinned = pair(&[("PCR_STREAM_ID", &StreamId::from_bits(3).to_string())]);
    let told = one.live(&pinned, Direction::Forward).unwrap_err().to_string();
    let (pin, found) = (StreamId::from_bits(3), StreamId::from_bits(1));
    assert!(told.contains(&format!("{pin}, which PCR_STREAM_ID names, is COMPLETED")), "{told}");
    assert!(told.contains(&found.to_string()), "{told}");
    // Where none lives there is none to choose, and the way home is not pinned.
    assert_eq!(survey(vec![]).live(&pinned, Direction::Forward).unwrap(), None);
    let home = survey(vec![reverse(2, "REPLICATING", None)]);
    assert!(home.live(&pinned, Direction::Reverse).unwrap().is_some());
}

#[test]
fn two_streams_of_one_direction_are_an_error_unless_one_is_pinned() {
    let two =
        survey(vec![forward(1, "REPLICATING", None), forward(2, "STARTING", None), forward(3, "COMPLETED", None)]);
    let error = two.live(&pair(&[]), Direction::Forward).unwrap_err().to_string();
    assert!(
        error.contains("there are 2 streams from primary to standby") && error.contains("PCR_STREAM_ID"),
        "{error}"
    );
    let pinned = pair(&[("PCR_STREAM_ID", &StreamId::from_bits(1).to_string())]);
    assert_eq!(two.live(&pinned, Direction::Forward).unwrap().unwrap().id, StreamId::from_bits(1));
    // A pin of earlier times chooses nothing.
    let old = pair(&[("PCR_STREAM_ID", &StreamId::from_bits(3).to_string())]);
    assert!(two.live(&old, Direction::Forward).is_err());
}

#[test]
fn nothing_is_ordered_that_would_erase_the_active_side_or_stand_beside_another_stream() {
    let pair = pair(&[]);
    let look = |streams: Vec<ReplicationStream>, direction| {
        let survey = survey(streams);
        find(&pair, &survey, direction, survey.active(&pair))
    };
    assert_eq!(look(vec![], Direction::Forward).unwrap(), Found::Nothing);
    assert!(matches!(look(vec![], Direction::Reverse), Err(Error::AtHome(_))));
    let away = || forward(1, "COMPLETED", Some(1));
    assert_eq!(look(vec![away()], Direction::Reverse).unwrap(), Found::Nothing);
    assert!(matches!(look(vec![away()], Direction::Forward), Err(Error::WouldEraseActive(_))));
    for status in ["STARTING", "REPLICATING"] {
        let streams = || vec![away(), reverse(2, status, None)];
        assert!(matches!(look(streams(), Direction::Reverse), Ok(Found::Stream(_))), "{status}");
        assert!(matches!(look(streams(), Direction::Forward), Err(Error::OtherWay { .. })), "{status}");
    }
    // Under way, or a word of later times: hands off.
    for status in ["FAILING_OVER", "PAUSED"] {
        assert!(matches!(look(vec![away(), reverse(2, status, None)], Direction::Reverse), Err(Error::Ended { .. })));
    }
}

#[test]
fn a_failback_stands_where_the_streams_say() {
    let pair = pair(&[]);
    let stands = |streams: Vec<ReplicationStream>| {
        let survey = survey(streams);
        survey.standing(&pair, survey.active(&pair))
    };
    let away = || forward(1, "COMPLETED", Some(1));
    assert_eq!(stands(vec![]).unwrap(), Standing::AtHome);
    assert_eq!(stands(vec![away()]).unwrap(), Standing::Away);
    assert!(matches!(stands(vec![away(), reverse(2, "STARTING", None)]), Ok(Standing::Starting(_))));
    let scanning = ReplicationStream { replicated_time: None, ..reverse(2, "REPLICATING", None) };
    assert!(matches!(stands(vec![away(), scanning]), Ok(Standing::Starting(_))));
    let lag = Some(Duration::from_secs(7));
    assert_eq!(
        stands(vec![away(), reverse(2, "REPLICATING", None)]).unwrap(),
        Standing::Replicating(reverse(2, "REPLICATING", None), lag)
    );
    assert!(matches!(stands(vec![away(), reverse(2, "FAILING_OVER", None)]), Ok(Standing::FailingOver(_))));
    let home = || vec![away(), reverse(2, "COMPLETED", Some(2))];
    assert_eq!(stands(home()).unwrap(), Standing::AtHome);
    // A daemon that has not moved its clients yet.
    assert!(matches!(survey(home()).standing(&pair, Which::Standby), Ok(Standing::Completed(_))));
    assert!(stands(vec![away(), reverse(2, "PAUSED", None)]).is_err());
}

#[test]
fn a_stream_is_failed_over_only_from_replicating_with_a_small_lag() {
    let most = Duration::from_secs(120);
    let ready = |stream: &ReplicationStream, second| check_ready(stream, Some(at(second)), most).is_ok();
    assert!(ready(&forward(1, "REPLICATING", None), 120) && !ready(&forward(1, "REPLICATING", None), 121));
    for status in ["STARTING", "FAILING_OVER", "COMPLETED", "CANCELED", "PAUSED", ""] {
        assert!(!ready(&forward(1, status, None), 1), "{status}");
    }
    let scanning = ReplicationStream { replicated_time: None, ..forward(1, "REPLICATING", None) };
    assert!(!ready(&scanning, 1));
    // Without the server's clock its own word counts.
    let told = ReplicationStream { replication_lag_seconds: Some(500), ..forward(1, "REPLICATING", None) };
    assert!(check_ready(&told, None, most).is_err() && check_ready(&told, Some(at(5)), most).is_ok());
}

#[test]
fn a_moment_lies_between_what_is_retained_and_an_hour_ahead() {
    let stream = forward(1, "REPLICATING", None);
    let fits = |second| check_moment(&stream, Some(at(7)), at(second)).is_ok();
    assert!(fits(-3600) && fits(0) && fits(3607));
    assert!(!fits(-3601) && !fits(3608));
}
