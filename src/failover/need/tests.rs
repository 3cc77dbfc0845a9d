//! What an old primary needs, case by case.

use super::*;
use crate::types::SystemId;

/// West branched off timeline 1 at 0/3000 and is on timeline 2.
fn latched() -> Identity {
    let ancestors = vec![Ancestor { timeline: Timeline(1), switch_lsn: Lsn(0x3000) }];
    Identity { system_id: SystemId(77), timeline: Timeline(2), switch_lsn: Some(Lsn(0x3000)), ancestors, node: None }
}

fn standing(lsn: u64) -> Standing {
    Standing {
        system_id: SystemId(77),
        in_recovery: false,
        timeline: Some(Timeline(1)),
        lsn: Some(Lsn(lsn)),
        rewindable: true,
        oldest: Some(Lsn(0)),
        data: None,
    }
}

fn source() -> Source {
    Source { system_id: SystemId(77), timeline: Timeline(2), oldest: Some(Lsn(0)) }
}

fn need_of(standing: Standing, source: Source, history: Option<&[Ancestor]>) -> Need {
    of("east", &Survey { side: Ok(standing), source: Ok(source) }, history, &latched(), "west")
}

fn need(standing: Standing) -> Need {
    need_of(standing, source(), None)
}

#[test]
fn an_old_primary_that_wrote_past_the_switch_point_needs_pg_rewind_and_the_loss_is_counted() {
    let need = need(standing(0x3100));
    assert_eq!((need.method, need.parted), (Some(Method::Rewind), Some((Lsn(0x3000), 256))));
    assert_eq!(
        need.to_string(),
        "east has 256 bytes of log of its own after 0/3000, where west went on, so it needs pg_rewind"
    );
    let loss = need.loss("east", Method::Rewind).unwrap();
    assert_eq!(loss, "256 bytes of log written on east after the switch point 0/3000 will be lost");
    assert!(need.bar(Method::Follow).unwrap().contains("wait for ever"));
    assert_eq!(need.bar(Method::BaseBackup), None);
}

#[test]
fn an_old_primary_that_wrote_nothing_since_follows_as_it_is_and_loses_nothing() {
    for lsn in [0x3000, 0x2f00] {
        let need = need(standing(lsn));
        assert_eq!(need.method, Some(Method::Follow), "{need}");
        assert_eq!((need.loss("east", Method::Follow), need.loss("east", Method::Rewind)), (None, None));
    }
}

#[test]
fn without_hints_or_checksums_only_a_base_backup_is_left() {
    let need = need(Standing { rewindable: false, ..standing(0x3100) });
    assert_eq!(need.method, Some(Method::BaseBackup));
    assert!(need.bar(Method::Rewind).unwrap().contains("wal_log_hints or data checksums"), "{need}");
    assert!(need.loss("east", Method::BaseBackup).unwrap().starts_with("256 bytes"));
    // What wrote nothing needs neither.
    assert_eq!(super::tests::need(Standing { rewindable: false, ..standing(0x3000) }).method, Some(Method::Follow));
}

#[test]
fn log_that_is_gone_on_either_side_takes_a_base_backup() {
    let gone = need_of(standing(0x3100), Source { oldest: Some(Lsn(0x4000)), ..source() }, None);
    assert_eq!(gone.method, Some(Method::BaseBackup));
    assert!(gone.to_string().contains("west has no log from 0/3000 any more, its oldest begins at 0/4000"), "{gone}");
    assert!(gone.bar(Method::Rewind).is_some() && gone.bar(Method::Follow).is_some());
    let own = need(Standing { oldest: Some(Lsn(0x3080)), ..standing(0x3100) });
    assert_eq!(own.method, Some(Method::BaseBackup));
    assert!(own.bar(Method::Rewind).unwrap().starts_with("east has no log from 0/3000"), "{own}");
    // A standby that was away for too long.
    let away = Standing { in_recovery: true, timeline: Some(Timeline(2)), ..standing(0x3500) };
    let away = need_of(away, Source { oldest: Some(Lsn(0x4000)), ..source() }, None);
    assert_eq!(away.method, Some(Method::BaseBackup), "{away}");
}

#[test]
fn log_that_may_not_be_seen_is_named_and_decides_nothing() {
    let need = need_of(Standing { oldest: None, ..standing(0x3100) }, Source { oldest: None, ..source() }, None);
    assert_eq!(need.method, Some(Method::Rewind));
    assert!(need.unseen[0].contains("on west and east (GRANT EXECUTE ON FUNCTION pg_ls_waldir()"), "{need:?}");
}

#[test]
fn another_system_or_a_line_of_unknown_descent_takes_a_base_backup() {
    let need = super::tests::need(Standing { system_id: SystemId(78), ..standing(0x3100) });
    assert_eq!(need.method, Some(Method::BaseBackup));
    assert!(need.bar(Method::Rewind).unwrap().contains("another system (78, west to 77)"), "{need}");
    assert!(need.loss("east", Method::BaseBackup).unwrap().contains("how much that is cannot be told"));
    let stray = super::tests::need(Standing { timeline: Some(Timeline(9)), ..standing(0x3100) });
    assert_eq!(stray.method, Some(Method::BaseBackup), "{stray}");
}

#[test]
fn a_standby_on_the_right_timeline_has_but_to_stream() {
    let need = need(Standing { in_recovery: true, timeline: Some(Timeline(2)), ..standing(0x3100) });
    assert_eq!(need.method, Some(Method::Follow));
    assert!(need.why.contains("primary_conninfo must lead to west"), "{need}");
}

#[test]
fn a_standby_that_went_on_along_another_line_parts_where_the_latched_one_began() {
    let need = need(Standing { in_recovery: true, ..standing(0x3020) });
    assert_eq!((need.method, need.parted), (Some(Method::Rewind), Some((Lsn(0x3000), 32))));
}

#[test]
fn a_server_promoted_beside_parts_where_both_lines_were_last_one() {
    let at = |timeline, lsn| Ancestor { timeline: Timeline(timeline), switch_lsn: Lsn(lsn) };
    for (history, timeline, expected) in [
        // Promoted from timeline 1 earlier than west was, and later.
        (vec![at(1, 0x2000)], 2, Some(0x2000)),
        (vec![at(1, 0x3100)], 2, Some(0x3000)),
        // Promoted from west's own line.
        (vec![at(1, 0x3000), at(2, 0x3050)], 3, Some(0x3050)),
        // From the same point under another number.
        (vec![at(1, 0x3000)], 4, Some(0x3000)),
    ] {
        let shown = Standing { timeline: Some(Timeline(timeline)), ..standing(0x4000) };
        let need = need_of(shown, source(), Some(&history));
        assert_eq!(need.parted.map(|(lsn, _)| lsn.0), expected, "{history:?}: {need}");
    }
    let twin = [at(1, 0x3000)];
    let need = need_of(Standing { timeline: Some(Timeline(2)), ..standing(0x4000) }, source(), Some(&twin));
    assert_eq!(need.method, Some(Method::BaseBackup));
    assert!(need.why.contains("on the very timeline of west"), "{need}");
}

#[test]
fn a_side_that_cannot_be_asked_needs_an_operators_word() {
    let survey = Survey { side: Err("connection refused".into()), source: Ok(source()) };
    let need = of("east", &survey, None, &latched(), "west");
    assert_eq!(need.method, None);
    assert!(need.why.contains("start it") && need.why.contains("--method basebackup"), "{need}");
    assert_eq!(need.bar(Method::Rewind), None);
    let mute = Survey { side: Ok(standing(0x3100)), source: Err("no answer in time".into()) };
    assert_eq!(of("east", &mute, None, &latched(), "west").method, None);
}
