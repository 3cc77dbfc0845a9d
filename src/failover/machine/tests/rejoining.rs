//! Making an old primary a standby again: what is weighed, what is ordered once, what a restart does, and what wins.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::Service;
use crate::failover::action::{Command, Outcome, Receipt, Refusal, Rejoining, Source, Standing, Survey};
use crate::failover::phase::{Method, Process, RejoinStage};
use crate::types::{Lsn, SystemId, Timeline};

const PROCESS: Process = Process { pid: 4711, started: 99 };

fn with_command() -> Service {
    let mut service = service(2);
    service.failover.rejoin_command = Some(vec!["/usr/local/bin/rejoin".into()]);
    service
}

/// East died, west is active, east runs again and has written something of its own.
fn stale(service: Service) -> Stage {
    let mut stage = Stage::steady_with(service);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, |stage| stage.view().backends[0].quarantined.is_some());
    stage
}

fn survey(stage: &Stage) -> Survey {
    let (east, west) = (&stage.servers[0], &stage.servers[1]);
    let side = Standing {
        system_id: SystemId(east.system),
        in_recovery: !east.primary,
        timeline: Some(Timeline(east.timeline)),
        lsn: Some(Lsn(east.lsn)),
        rewindable: true,
        oldest: Some(Lsn(0)),
        data: Some("/var/lib/postgresql/15/main".into()),
    };
    let source = Source { system_id: SystemId(west.system), timeline: Timeline(west.timeline), oldest: Some(Lsn(0)) };
    Survey { side: Ok(side), source: Ok(source) }
}

fn ask(stage: &mut Stage, method: Option<Method>) -> Result<Receipt, Refusal> {
    let survey = Box::new(survey(stage));
    tell(stage, Outcome::Surveyed { backend: "east".into(), survey });
    stage.command(&Command::Rejoin { backend: "east".into(), method })
}

fn tell(stage: &mut Stage, outcome: Outcome) {
    let at = stage.at();
    stage.machine.handle_outcome(outcome, at);
    stage.obey();
}

fn news(stage: &mut Stage, news: Rejoining) {
    tell(stage, Outcome::Rejoining { backend: "east".into(), news });
}

fn shown(stage: &Stage) -> (String, String) {
    let rejoin = stage.view().rejoin.unwrap();
    (rejoin.stage, rejoin.said.unwrap_or_default())
}

#[test]
fn an_old_primary_is_rewound_by_the_command_once_and_watched_until_it_streams() {
    let mut stage = stale(with_command());
    let receipt = ask(&mut stage, None).unwrap();
    assert!(receipt.sentence.contains("so it needs pg_rewind; "), "{}", receipt.sentence);
    assert!(receipt.sentence.contains("bytes of log written on east after the switch point"), "{}", receipt.sentence);
    assert!(receipt.steps[0].starts_with("run /usr/local/bin/rejoin"), "{:?}", receipt.steps);
    stage.run(1000);
    assert_eq!(stage.rejoins.len(), 1);
    assert_eq!((stage.rejoins[0].method, stage.rejoins[0].running), (Method::Rewind, None));
    let order = stage.log.iter().position(|line| line.contains("Rejoin(")).unwrap();
    assert!(stage.log[..order].iter().any(|line| line.contains("stage: Ordered")), "it was not on disk");
    news(&mut stage, Rejoining::Started(PROCESS));
    assert_eq!(stage.disk.rejoin.as_ref().unwrap().stage, RejoinStage::Running(PROCESS));
    news(&mut stage, Rejoining::Said("42% copied".into()));
    assert_eq!(shown(&stage), ("running".into(), "42% copied".into()));
    let again = ask(&mut stage, None).unwrap();
    assert!(again.sentence.contains("is under way") && again.steps.is_empty(), "{again:?}");
    stage.rebuild(0, 1);
    stage.run(5000);
    assert!(stage.disk.rejoin.is_some(), "the command has not ended yet");
    news(&mut stage, Rejoining::Done);
    stage.until(10_000, |stage| stage.disk.rejoin.is_none());
    let (ended, said) = shown(&stage);
    assert_eq!(ended, "done");
    assert!(said.contains("east streams from west again, after pg_rewind") && said.contains("are gone"), "{said}");
    assert_eq!(stage.rejoins.len(), 1, "it ran twice");
    assert_eq!(stage.view().backends[0].quarantined, None);
}

#[test]
fn without_a_command_the_very_lines_to_type_are_told_and_nothing_is_done() {
    let mut stage = stale(service(2));
    for (method, expected) in [
        (None, "$ pg_rewind --target-pgdata=/var/lib/postgresql/15/main --source-server='host=west.example port=5432"),
        (Some(Method::BaseBackup), "$ pg_basebackup -D /var/lib/postgresql/15/main -d 'host=west.example port=5432"),
    ] {
        let receipt = ask(&mut stage, method).unwrap();
        assert!(receipt.sentence.contains("No rejoin_command is configured"), "{}", receipt.sentence);
        assert!(receipt.steps.iter().any(|step| step.starts_with(expected)), "{:#?}", receipt.steps);
    }
    stage.run(5000);
    assert!(stage.rejoins.is_empty() && stage.disk.rejoin.is_none());
}

#[test]
fn a_way_that_cannot_work_is_refused_with_the_reason_and_so_is_a_side_that_streams() {
    let mut stage = stale(with_command());
    let refused = ask(&mut stage, Some(Method::Follow)).unwrap_err();
    assert_eq!(refused.code, "method_barred");
    assert!(refused.sentence.contains("wait for ever"), "{}", refused.sentence);
    stage.rebuild(0, 1);
    stage.until(10_000, |stage| stage.view().backends[0].quarantined.is_none());
    let receipt = ask(&mut stage, Some(Method::BaseBackup)).unwrap();
    assert!(receipt.sentence.contains("standby of it already") && receipt.steps.is_empty(), "{receipt:?}");
    stage.run(1000);
    assert!(stage.rejoins.is_empty());
}

#[test]
fn nothing_is_rebuilt_from_a_side_that_does_not_prove_to_be_primary() {
    let mut stage = stale(with_command());
    stage.servers[1].mood = Mood::Hung;
    stage.run(3000);
    let refused = ask(&mut stage, Some(Method::BaseBackup)).unwrap_err();
    assert_eq!(refused.code, "active_unproven");
    assert!(refused.sentence.contains("may be all there is"), "{}", refused.sentence);
    let refused = stage.command(&Command::Rejoin { backend: "west".into(), method: None }).unwrap_err();
    assert_eq!(refused.code, "already_active");
}

#[test]
fn a_command_that_fails_is_told_and_leaves_everything_as_it_was() {
    let mut stage = stale(with_command());
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    news(&mut stage, Rejoining::Started(PROCESS));
    news(&mut stage, Rejoining::Failed("/usr/local/bin/rejoin ended with exit status 1: no such slot".into()));
    let (ended, said) = shown(&stage);
    assert_eq!(ended, "failed");
    assert!(said.contains("no such slot") && said.contains("begins anew"), "{said}");
    assert!(stage.disk.rejoin.is_none() && stage.view().backends[0].quarantined.is_some());
    assert_eq!(stage.active(), "west");
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    assert_eq!(stage.rejoins.len(), 2, "it can be ordered again");
}

#[test]
fn a_command_that_ends_well_and_brings_nobody_back_is_told_in_the_end() {
    let mut stage = stale(with_command());
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    news(&mut stage, Rejoining::Started(PROCESS));
    news(&mut stage, Rejoining::Done);
    stage.run(200_000);
    assert_eq!(shown(&stage).0, "waiting");
    stage.until(200_000, |stage| stage.disk.rejoin.is_none());
    assert!(shown(&stage).1.contains("does not stream from west"), "{}", shown(&stage).1);
}

#[test]
fn after_a_restart_a_running_command_is_taken_up_and_one_that_was_never_started_is_not_begun() {
    let mut stage = stale(with_command());
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    news(&mut stage, Rejoining::Started(PROCESS));
    stage.restart(2000);
    stage.until(20_000, |stage| !stage.rejoins.is_empty());
    assert_eq!(stage.rejoins.len(), 1);
    assert_eq!(stage.rejoins[0].running, Some(PROCESS), "it was begun again");
    stage.rebuild(0, 1);
    news(&mut stage, Rejoining::Unseen);
    stage.until(20_000, |stage| stage.disk.rejoin.is_none());
    assert_eq!(shown(&stage).0, "done");

    let mut stage = stale(with_command());
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    // The daemon dies before it hears that the command runs.
    stage.restart(2000);
    stage.run(20_000);
    assert!(stage.rejoins.is_empty() && stage.disk.rejoin.is_none());
    assert!(stage.said("it is not begun again by itself"));
}

#[test]
fn a_failover_wins_over_a_rejoin_and_ends_its_command() {
    let mut three = service(3);
    three.failover.rejoin_command = Some(vec!["/usr/local/bin/rejoin".into()]);
    three.failover.cooldown = std::time::Duration::ZERO;
    three.backends[1].weight = 200;
    let mut stage = Stage::steady_with(three);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    stage.rebuild(2, 1);
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, |stage| stage.view().backends[0].quarantined.is_some());
    stage.run(3000);
    ask(&mut stage, None).unwrap();
    stage.run(1000);
    news(&mut stage, Rejoining::Started(PROCESS));
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "north" && stage.is_open());
    stage.run(1000);
    assert_eq!(stage.stopped, ["east".into()]);
    assert!(stage.disk.rejoin.is_none());
    assert!(shown(&stage).1.contains("north is active in epoch 3 now"), "{}", shown(&stage).1);
}
