//! What operators do on purpose: switch over, bring home, promote by hand, pause, run two daemons.

use crate::harness::status::{blocked, find, is_active};
use crate::harness::{Checker, Daemon, Pair, SOON, Shutdown, Writers, eventually};
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn an_observing_proxy_follows_a_promotion_made_by_hand() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("authority", "observe").failover("promoter", "none");
    let daemon = plan.launch();
    let before = daemon.until_active("east", SOON).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.stop(Shutdown::Fast).await;
    daemon.stays("nobody is promoted", WATCH, |s| s.epoch == before.epoch).await;
    assert!(!pair.west.is_primary().await, "an observer promotes nobody");
    pair.west.promote();
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let journal = writers.stop().await;
    // A fast shutdown sends everything to the standby before it ends.
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_beside_a_promotion_made_by_hand_is_counted_and_named() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("authority", "observe").failover("promoter", "none");
    let daemon = plan.launch();
    daemon.until_active("east", SOON).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.west.promote();
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 20, SOON).await;
    let journal = writers.stop().await;
    let shown = daemon.until("the rest is told", SOON, |s| s.beside.log_bytes > 0).await.beside;
    assert!(shown.connections > 0 && shown.relayed_bytes > 0, "{shown:?}");
    let told = eventually("the history tells it", SOON, async || {
        let said = daemon.ctl_done(&["history", "--json"]).await.out;
        let lines = said.lines().filter(|line| line.contains("followed") || line.contains("stand only there"));
        let lines: Vec<&str> = lines.collect();
        if lines.concat().contains("stand only there") { Ok(lines.join("\n")) } else { Err(said) }
    })
    .await;
    let traffic = format!("{} bytes were relayed to it in the ", shown.relayed_bytes);
    assert!(told.contains(&traffic) && told.contains("since west was last seen as a standby"), "{told}");
    assert!(told.contains("client connection"), "{told}");
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    let counted = format!("pgpivot_beside_relayed_bytes_total{{service=\"main\"}} {}", shown.relayed_bytes);
    assert!(metrics.contains(&counted), "{metrics}");
    // What was acknowledged there after the branch is not on the new side: it is named, not hidden.
    assert!(Checker { journal: &journal, new: &pair.west, old: &pair.east }.losses().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_under_load_loses_no_acknowledged_row_and_fences_the_old_side() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 8);
    writers.go_on_at(pair.east.port, 100, SOON).await;
    daemon.ctl_done(&["switchover", "--yes"]).await;
    let after = daemon.until_active("west", SOON).await;
    assert_eq!(after.epoch, before.epoch.next());
    writers.go_on_at(pair.west.port, 100, SOON).await;
    let count = writers.count;
    let journal = writers.stop().await;
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    assert!(journal.error_count() <= count, "more errors than connections: {:?}", journal.errors);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
    let direct = crate::harness::Psql::to(pair.east.address());
    let spoken = direct.say("INSERT INTO ledger VALUES (-1, 0, 0, 0)").await;
    assert!(spoken.talk.contains("read-only transaction"), "the old side takes writes: {spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_cannot_be_lossless_is_called_off_and_undone() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.west.run("SELECT pg_wal_replay_pause()").await;
    let spoken = daemon.ctl(&["switchover", "--yes"]).await;
    assert_eq!(spoken.code, Some(1), "{spoken:#?}");
    let after = daemon.until_active("east", SOON).await;
    assert_eq!(after.epoch, before.epoch);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    assert!(!pair.west.is_primary().await);
    let journal = writers.stop().await;
    assert_eq!(journal.errors.get("25006"), None, "{:?}", journal.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_is_refused_until_the_old_side_is_rebuilt_and_then_brings_traffic_home() {
    let pair = Pair::plan().synchronous().start().await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "1s").start().await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;

    pair.east.start().await;
    daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;
    let refused = daemon.ctl(&["restore", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let said = format!("{}{}", refused.out, refused.talk);
    assert!(said.contains("east") && said.contains("timeline"), "no reason is given: {said}");
    assert!(is_active(&daemon.service().await, "west"));

    pair.east.rebuild_as_standby_of(&pair.west).await;
    daemon.until("quarantine lifts", SOON, |s| find(s, "east").quarantined.is_none() && find(s, "east").armed).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.west.port, 50, SOON).await;
    daemon.ctl_done(&["restore", "--yes"]).await;
    daemon.until_active("east", SOON).await;
    writers.go_on_at(pair.east.port, 50, SOON).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.east, old: &pair.west }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_proxy_decides_nothing_until_it_is_resumed() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.ctl_done(&["pause", "--reason", "network maintenance"]).await;
    daemon.until("paused", SOON, |s| s.paused.is_some()).await;
    pair.east.kill().await;
    daemon.stays("nobody is promoted", WATCH, |s| is_active(s, "east")).await;
    assert!(!pair.west.is_primary().await);
    daemon.ctl_done(&["resume"]).await;
    daemon.until_active("west", FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_explains_and_changes_nothing() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let spoken = daemon.ctl(&["switchover", "--dry-run"]).await;
    assert_eq!(spoken.code, Some(0), "{spoken:#?}");
    assert!(format!("{}{}", spoken.out, spoken.talk).contains("west"), "{spoken:#?}");
    daemon.stays("nothing changes", WATCH, |s| is_active(s, "east") && s.epoch == before.epoch && s.open).await;
    assert!(!pair.west.is_primary().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_or_backend_is_refused_with_the_reason() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let (code, body) = daemon.post("/failover/switchover", r#"{"to": "nowhere"}"#).await.unwrap();
    assert!((400..500).contains(&code) && body.contains("nowhere"), "{code}: {body}");
    let (code, body) = daemon.post("/failover/trigger?dryrun=true", "{}").await.unwrap();
    assert!((400..500).contains(&code), "a misspelt dry_run must not act: {code}: {body}");
    assert_eq!(daemon.ctl(&["failover", "--sideways"]).await.code, Some(2));
    assert!(is_active(&daemon.service().await, "east"));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_a_failover_with_evidence_and_steps() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    eventually("the history is written", SOON, async || {
        let spoken = daemon.ctl_done(&["history", "--json"]).await;
        let lacking = ["decided", "step", "switched", "west"].into_iter().find(|word| !spoken.out.contains(word));
        lacking.map_or(Ok(()), |word| Err(format!("no `{word}` in {}", spoken.out)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_that_decide_end_on_the_same_side_with_one_promotion() {
    let pair = Pair::plan().synchronous().start().await;
    let first = Daemon::plan(&[&pair.east, &pair.west]).launch();
    let second = Daemon::plan(&[&pair.east, &pair.west]).launch();
    first.until("the other daemon", SOON, |s| s.open && !s.other_daemons.is_empty()).await;
    second.until("the other daemon", SOON, |s| s.open && !s.other_daemons.is_empty()).await;
    both_end_on_west(&pair, &first, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observing_daemon_ends_on_the_side_that_the_deciding_one_chose() {
    let pair = Pair::plan().synchronous().start().await;
    let first = Daemon::plan(&[&pair.east, &pair.west]).launch();
    let observer =
        Daemon::plan(&[&pair.east, &pair.west]).failover("authority", "observe").failover("promoter", "none");
    let second = observer.launch();
    first.until_active("east", SOON).await;
    second.until_active("east", SOON).await;
    both_end_on_west(&pair, &first, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_asynchronous_pair_the_younger_daemon_decides_nothing_beside_the_older_one() {
    let pair = Pair::start().await;
    let first = Daemon::start(&[&pair.east, &pair.west]).await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).launch();
    second.until("the other daemon", SOON, |s| s.open && !s.other_daemons.is_empty()).await;
    first.ctl_done(&["pause"]).await;
    pair.east.kill().await;
    let refused = second.until("refused", FAILOVER, |s| blocked(s) == "second decider").await;
    assert!(
        refused.blocked.unwrap().sentence.contains(&first.try_status().await.unwrap().daemon),
        "it does not say who decides"
    );
    second.stays("nobody is promoted", WATCH, |s| is_active(s, "east")).await;
    assert!(!pair.west.is_primary().await);
    first.ctl_done(&["resume"]).await;
    first.until_active("west", FAILOVER).await;
    second.until_active("west", FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_leaves_a_living_primary_for_one_promoted_by_hand_once_its_fence_has_succeeded() {
    let pair = Pair::start().await;
    let pid_file = pair.east.data().join("postmaster.pid");
    let script = format!("test \"$1\" = east && kill -9 $(head -1 {})", pid_file.display());
    let argv = ["/bin/sh", "-c", &script, "fence", "{backend}"].map(toml::Value::from).to_vec();
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("fence_command", argv).start().await;
    let before = daemon.service().await;
    pair.west.promote();
    daemon.until("both are primary", SOON, |s| blocked(s) == "split brain").await;
    let explained = daemon.ctl_done(&["failover", "--to", "west", "--route-only", "--dry-run"]).await;
    assert!(format!("{}{}", explained.out, explained.talk).contains("run the node fence on east"), "{explained:#?}");
    assert!(pair.east.runs());
    daemon.ctl_done(&["failover", "--to", "west", "--route-only", "--yes"]).await;
    let after = daemon.until_active("west", SOON).await;
    assert_eq!(after.epoch, before.epoch.next());
    assert!(!pair.east.runs(), "it was opened and the old side was not fenced");
}

/// The worst that a promotion left undone can meet: somebody else did it, and more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_died_before_it_ordered_a_promotion_does_not_order_it_after_traffic_went_home() {
    let pair = Pair::plan().synchronous().start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).environment("PGPIVOT_CRASH_AT", "sent:after");
    let first = plan.start().await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "1s").launch();
    second.until("the other daemon", SOON, |s| s.open && !s.other_daemons.is_empty()).await;
    second.ctl_done(&["pause"]).await;
    pair.east.kill().await;
    first.ended(FAILOVER).await;
    second.ctl_done(&["resume"]).await;
    second.until_active("west", Duration::from_secs(40)).await;
    pair.east.rebuild_as_standby_of(&pair.west).await;
    second.until("armed", SOON, |s| find(s, "east").armed).await;
    second.ctl_done(&["restore", "--yes"]).await;
    second.until_active("east", SOON).await;
    pair.west.rebuild_as_standby_of(&pair.east).await;
    second.until("armed again", SOON, |s| find(s, "west").armed).await;
    let writers = Writers::start(second.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;

    first.clear_environment();
    first.launch();
    first.until("it heard both", SOON, |s| s.backends.iter().all(|b| b.health == "up")).await;
    first.stays("it opens to nobody else", WATCH, |s| !s.open || is_active(s, "east")).await;
    assert!(!pair.west.is_primary().await, "west was promoted beside east\n{}", first.log_tail());
    second.until("east is active", SOON, |s| s.open && is_active(s, "east")).await;
    writers.go_on_at(pair.east.port, 50, SOON).await;
    first.until("the promotion is given up", SOON, |s| s.episode.is_none() && !blocked(s).is_empty()).await;
    first.ctl_done(&["adopt", "east", "--yes"]).await;
    first.until_active("east", SOON).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.east, old: &pair.west }.no_acknowledged_row_is_lost().await;
}

async fn both_end_on_west(pair: &Pair, first: &Daemon, second: &Daemon) {
    let (here, there) = (Writers::start(first.listen, 4), Writers::start(second.listen, 4));
    here.go_on_at(pair.east.port, 50, SOON).await;
    there.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.kill().await;
    first.until_active("west", FAILOVER).await;
    second.until_active("west", FAILOVER).await;
    here.go_on_at(pair.west.port, 50, SOON).await;
    there.go_on_at(pair.west.port, 50, SOON).await;
    pair.east.start().await;
    for daemon in [first, second] {
        daemon.until("quarantine", SOON, |s| is_active(s, "west") && find(s, "east").quarantined.is_some()).await;
    }
    let mut journal = here.stop().await;
    journal.append(there.stop().await);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
    // One promotion makes one timeline.
    assert_eq!(pair.west.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)").await, "00000002");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_commanded_at_a_daemon_that_came_later_is_followed_by_the_first() {
    let pair = Pair::start().await;
    let first = Daemon::start(&[&pair.east, &pair.west]).await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).launch();
    first.until("the other daemon", SOON, |s| !s.other_daemons.is_empty()).await;
    second.until("open", SOON, |s| s.open && is_active(s, "east")).await;
    let writers = Writers::start(first.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    second.ctl_done(&["switchover", "--yes"]).await;
    second.until_active("west", SOON).await;
    first.until_active("west", SOON).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let journal = writers.stop().await;
    // Until the first one knows, its clients meet a primary that is frozen: 25006, and nothing lost.
    let checker = Checker { journal: &journal, new: &pair.west, old: &pair.east };
    let breaches: Vec<_> = checker.breaches().await.into_iter().filter(|found| !found.ends_with("25006")).collect();
    assert_eq!((breaches, checker.losses().await), (Vec::new(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_standby_that_is_promoted_by_hand_is_cut_before_it_can_write_there() {
    let pair = Pair::start().await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west]).read_only_listener();
    let daemon = plan.start().await;
    let reader = eventually("a reader at west", SOON, async || {
        let client = client_at(readers).await?;
        let port = client.query_one("SELECT inet_server_port()", &[]).await.map_err(|e| e.to_string())?;
        let at: i32 = port.get(0);
        if at == i32::from(pair.west.port) { Ok(client) } else { Err(format!("at port {at}")) }
    })
    .await;
    pair.west.promote();
    daemon.until("both are primary", SOON, |s| blocked(s) == "split brain").await;
    eventually(
        "the reader is cut",
        SOON,
        async || {
            if reader.is_closed() { Ok(()) } else { Err("it is open".to_owned()) }
        },
    )
    .await;
    daemon.stays("east stays active", WATCH, |s| is_active(s, "east") && s.open).await;
}

async fn client_at(address: std::net::SocketAddr) -> Result<tokio_postgres::Client, String> {
    let line = format!("host=127.0.0.1 port={} user=app password=app dbname=app", address.port());
    let connected = tokio_postgres::connect(&line, tokio_postgres::NoTls).await;
    let (client, connection) = connected.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_somebody_changed_is_found_out() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let whole = daemon.ctl_done(&["history", "--verify"]).await;
    assert!(whole.out.contains("each of them is what was written"), "{whole:#?}");
    let segments = std::fs::read_dir(daemon.state_path().join("main.pair/history")).unwrap();
    let segment = segments.map(|entry| entry.unwrap().path()).next().unwrap();
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("started", "begun  ", 1)).unwrap();
    let found = daemon.ctl(&["history", "--verify"]).await;
    assert!(found.code == Some(1) && found.out.contains("is not what was written"), "{found:#?}");
}
