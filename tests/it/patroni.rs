//! Where Patroni decides: pgpivot asks it whom to look at, follows what is proven, and passes orders on. Real ones, with
//! a real etcd.

use crate::harness::daemon::Daemon;
use crate::harness::patroni::{PASSWORD, Patroni, USER};
use crate::harness::plan::DaemonPlan;
use crate::harness::processes::lives;
use crate::harness::status::is_active;
use crate::harness::{SOON, Writers, eventually};
use pgpivot::view::ServiceStatus;
use std::net::SocketAddr;
use std::time::Duration;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

const WATCH: Duration = Duration::from_secs(5);
/// From when Patroni says who leads; two looks at it, and a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn behind(patroni: &Patroni) -> Daemon {
    let daemon = DaemonPlan::patroni(patroni).launch();
    daemon.until("Patroni is read and db1 is active", SOON, |s| s.open && is_active(s, "db1") && leads(s, "db1")).await;
    daemon
}

fn leads(service: &ServiceStatus, name: &str) -> bool {
    let patroni = service.patroni.as_ref();
    patroni.is_some_and(|p| p.trouble.is_none() && p.leader.as_deref() == Some(name))
}

/// One new connection after the other, as applications open them.
struct Newcomers {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<(usize, Vec<String>)>,
}

impl Newcomers {
    fn start(to: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut served, mut refused) = (0, Vec::new());
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                let config = format!("host={} port={} user=app password=app dbname=app", to.ip(), to.port());
                match tokio_postgres::connect(&config, NoTls).await {
                    Ok((client, connection)) => {
                        served += 1;
                        drop(client);
                        let _ = connection.await;
                    }
                    Err(error) => refused.push(format!("{error:?}")),
                }
            }
            (served, refused)
        });
        Self { stop, task }
    }

    /// How many were served, and what the others were told.
    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn history(daemon: &Daemon, part: &str) -> String {
    eventually(&format!("the history tells {part:?}"), SOON, async || {
        let said = daemon.ctl_done(&["history", "--json"]).await.out;
        if said.contains(part) { Ok(said) } else { Err(said) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_is_passed_on_to_patroni_and_no_newcomer_is_turned_away() {
    let patroni = Patroni::start(2).await;
    let daemon = behind(&patroni).await;
    let before = daemon.service().await;
    let plan = daemon.ctl_done(&["switchover", "--to", "db2", "--dry-run"]).await.out;
    assert!(plan.contains(r#"POST /switchover {"candidate":"db2","leader":"db1"}"#), "{plan}");
    daemon.stays("a dry run does nothing", Duration::from_millis(500), |s| s.open && s.episode.is_none()).await;

    let (newcomers, writers) = (Newcomers::start(daemon.listen), Writers::start(daemon.listen, 4));
    writers.go_on_at(patroni.member("db1").port, 50, SOON).await;
    let said = daemon.ctl_done(&["switchover", "--to", "db2", "--yes"]).await;
    let after = daemon.until_active("db2", SOON).await;
    assert_eq!(after.epoch, before.epoch.next(), "{said:#?}");
    writers.go_on_at(patroni.member("db2").port, 50, SOON).await;
    let (served, refused) = newcomers.stop().await;
    assert!(served > 0 && refused.is_empty(), "{served} were served, and {refused:?}");
    let (count, journal) = (writers.count, writers.stop().await);
    assert!(journal.error_count() <= count, "more errors than connections: {:?}", journal.errors);
    assert_eq!(journal.errors.get("25006"), None, "{:?}", journal.errors);
    let told = history(&daemon, "patroni: db2 is leader, timeline").await;
    assert!(told.contains("had ordered that switchover from Patroni"), "{told}");
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    assert!(metrics.contains("pgpivot_patroni_leader{member=\"db2\",service=\"main\"} 1"), "{metrics}");
    let (_, page) = daemon.fetch("/stats").await.unwrap();
    assert!(page.contains("<h3>Patroni</h3>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_patronictl_orders_is_followed_at_once() {
    let patroni = Patroni::start(2).await;
    let daemon = behind(&patroni).await;
    let (newcomers, writers) = (Newcomers::start(daemon.listen), Writers::start(daemon.listen, 4));
    writers.go_on_at(patroni.member("db1").port, 50, SOON).await;
    patroni.ctl(&["switchover", "it", "--master", "db1", "--candidate", "db2", "--force"]);
    daemon.until_active("db2", AT_ONCE).await;
    writers.go_on_at(patroni.member("db2").port, 50, SOON).await;
    let (served, refused) = newcomers.stop().await;
    println!("{served} newcomers served, told: {refused:?}");
    let journal = writers.stop().await;
    assert_eq!(journal.errors.get("25006"), None, "{:?}", journal.errors);
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    let paused = patroni.ctl(&["pause", "--wait", "it"]);
    let shown = daemon.until("Patroni is paused", SOON, |s| s.patroni.as_ref().is_some_and(|p| p.paused)).await;
    assert!(shown.open, "a pause moves nothing: {paused}");
    let said = daemon.ctl_done(&["status"]).await.out;
    assert!(said.contains("Patroni is paused") && said.contains("db1") && said.contains("replica"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_passed_on_to_patroni() {
    let patroni = Patroni::start(2).await;
    let daemon = behind(&patroni).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(patroni.member("db1").port, 50, SOON).await;
    daemon.ctl_done(&["failover", "--to", "db2", "--yes"]).await;
    daemon.until_active("db2", SOON).await;
    writers.go_on_at(patroni.member("db2").port, 50, SOON).await;
    let journal = writers.stop().await;
    assert_eq!(journal.errors.get("25006"), None, "{:?}", journal.errors);
    let told = history(&daemon, "patroni: db2 is leader, timeline").await;
    assert!(told.contains("had ordered that failover from Patroni"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_patroni_promotes_after_a_crash_is_followed() {
    let patroni = Patroni::start(3).await;
    let daemon = behind(&patroni).await;
    let writers = Writers::start(daemon.listen, 4);
    let first = patroni.member("db1");
    writers.go_on_at(first.port, 50, SOON).await;
    first.kill_agent();
    first.kill_server();
    let moved = |s: &ServiceStatus| s.open && s.active.as_ref().is_some_and(|active| active.as_str() != "db1");
    let after = daemon.until("another one is active", SOON, moved).await;
    let next = after.active.unwrap();
    writers.go_on_at(patroni.member(next.as_str()).port, 50, SOON).await;
    let journal = writers.stop().await;
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    assert_eq!(journal.errors.get("25006"), None, "{:?}", journal.errors);
    // Its API died with it: another one is asked.
    daemon.until("Patroni is read", SOON, |s| leads(s, next.as_str())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_agent_dies_gets_nothing_once_its_key_is_gone() {
    let patroni = Patroni::start(2).await;
    let daemon = behind(&patroni).await;
    let writers = Writers::start(daemon.listen, 4);
    let first = patroni.member("db1");
    writers.go_on_at(first.port, 50, SOON).await;
    first.kill_agent();
    daemon.until_active("db2", SOON).await;
    assert!(first.postmaster().is_some_and(lives), "the old server must live for this");
    writers.go_on_at(patroni.member("db2").port, 50, SOON).await;
    let journal = writers.stop().await;
    let second = patroni.member("db2").port;
    let first_there = journal.acknowledged.iter().filter(|row| row.server == second).map(|row| row.at).min().unwrap();
    let late = journal.acknowledged.iter().filter(|row| row.server == first.port && row.at > first_there).count();
    assert_eq!(late, 0, "rows were acknowledged by the old server when the new one served already");
    daemon
        .until("the old one is kept out", SOON, |s| {
            s.backends.iter().any(|b| b.name.as_str() == "db1" && b.quarantined.is_some())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_member_answers_nothing_moves_and_orders_are_refused() {
    let patroni = Patroni::start(2).await;
    // The first address is nobody's.
    let dead = crate::harness::ports::free_port();
    let mut addresses = vec![format!("127.0.0.1:{dead}")];
    addresses.extend(patroni.members.iter().map(|member| member.api_address().to_string()));
    let daemon = DaemonPlan::patroni(&patroni).patroni_key("addresses", addresses).launch();
    let before = daemon.until("db1 is active", SOON, |s| s.open && is_active(s, "db1") && leads(s, "db1")).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(patroni.member("db1").port, 50, SOON).await;
    // The standby's agent first: nobody is left to promote it.
    patroni.member("db2").kill_agent();
    patroni.member("db1").kill_agent();
    let troubled = |s: &ServiceStatus| s.patroni.as_ref().is_some_and(|p| p.trouble.is_some());
    daemon.until("no member answers", SOON, troubled).await;
    daemon.stays("nothing moves", WATCH * 2, |s| s.open && s.epoch == before.epoch && is_active(s, "db1")).await;
    writers.go_on_at(patroni.member("db1").port, 50, SOON).await;
    let journal = writers.stop().await;
    assert_eq!(journal.error_count(), 0, "{:?}", journal.errors);
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    assert!(metrics.contains("pgpivot_patroni_up{service=\"main\"} 0"), "{metrics}");
    let refused = daemon.ctl(&["failover", "--to", "db2", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.out.contains("did not leave") && refused.out.contains("cannot be reached"), "{refused:#?}");
    daemon.until("newcomers pass again", SOON, |s| s.open && s.epoch == before.epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_patroni_refuses_is_shown_and_newcomers_go_on() {
    let patroni = Patroni::start(2).await;
    let daemon = DaemonPlan::patroni(&patroni).environment("PGPIVOT_PATRONI_PASSWORD", "wrong").launch();
    let before = daemon.until("db1 is active", SOON, |s| s.open && is_active(s, "db1") && leads(s, "db1")).await;
    let refused = daemon.ctl(&["switchover", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    for part in ["Patroni refuses", "401", "not authenticated", "restapi.authentication"] {
        assert!(refused.out.contains(part), "{part}: {refused:#?}");
    }
    let unnamed = daemon.ctl(&["failover", "--yes"]).await;
    assert!(unnamed.code == Some(1) && format!("{unnamed:?}").contains("say which with --to"), "{unnamed:#?}");
    let routed = daemon.ctl(&["failover", "--to", "db2", "--route-only", "--yes"]).await;
    assert!(routed.code == Some(1) && format!("{routed:?}").contains("leave --route-only out"), "{routed:#?}");

    daemon.clear_environment();
    daemon.kill().await;
    daemon.launch();
    daemon.until("db1 is active again", SOON, |s| s.open && leads(s, "db1")).await;
    // The only other member cannot be asked whether it is fit.
    patroni.member("db2").kill_agent();
    let refused = daemon.ctl(&["switchover", "--to", "db2", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.out.contains("answers 412"), "{refused:#?}");
    let after = daemon.until("newcomers pass", SOON, |s| s.open).await;
    assert_eq!(after.epoch, before.epoch);
    assert!(USER != PASSWORD && !daemon.log().contains(PASSWORD), "a password is in the log");
    history(&daemon, "Patroni refuses").await;
}
