//! What probes find on real servers: identity, roles, the replication stream, and how each way of dying looks.

use crate::harness::binaries::postgres;
use crate::harness::{Cluster, Pair, SOON, Shutdown, eventually};
use pgpivot::config::{self, Login, ProbeKind, Promoter, Service, TlsMode, env::Env, raw, validate};
use pgpivot::failover::action::Cadence;
use pgpivot::failover::observation::{
    Evidence, Facts, Failure, Observation, Receiver, ReceiverRow, Role, Unknown, Verdict,
};
use pgpivot::probe::{ProbeReport, Probes};
use pgpivot::types::{BackendName, Epoch, Moment, Now, Secret, SystemId, Timeline, WallTime};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

#[tokio::test]
async fn a_pair_tells_who_is_primary_who_follows_and_from_whom() {
    let pair = Pair::start().await;
    let mut watch = Watch::of(&[&pair.east, &pair.west], login("pgpivot", "pgpivot"));

    let primary = watch.facts("east").await;
    assert_eq!(primary.role, Role::Primary);
    let identifier = pair.east.ask("SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!(primary.system_id, Some(SystemId(identifier.parse().unwrap())));
    assert_eq!(primary.timeline, Some(Timeline(1)));
    assert!(primary.lsn.is_some());
    assert_eq!(primary.node, Some(pair.east.address().to_string()));
    assert!(now().wall.since(primary.clock.unwrap()) < Duration::from_secs(5));
    assert_eq!(primary.standbys, ["west"]);
    assert_eq!(primary.sync.unwrap().names, "");
    assert_eq!((primary.history, primary.receiver), (None, Receiver::Unknown));

    let standby = watch.facts("west").await;
    assert_eq!(standby.role, Role::Standby);
    assert_eq!((standby.system_id, standby.timeline), (primary.system_id, Some(Timeline(1))));
    assert!(standby.lsn >= standby.replay_lsn && standby.replay_lsn.is_some());
    assert_eq!(standby.receiver_timeout, Some(Duration::from_secs(3)));
    assert_eq!((standby.may_promote, standby.may_read_stats), (Some(true), Some(true)));
    let row = row(&standby);
    assert!(row.streaming && row.lsn.is_some() && row.sent.is_some() && row.received.is_some());
    assert_eq!(row.sender, Some(pair.east.address().to_string()));
}

#[tokio::test]
async fn synchronous_standbys_are_named() {
    let pair = Pair::plan().synchronous().start().await;
    let mut watch = Watch::of(&[&pair.east], login("pgpivot", "pgpivot"));
    let seen = |o: &Observation| answered(o).and_then(|f| f.sync.clone()).filter(|sync| !sync.synchronous.is_empty());
    let sync = watch.until("the synchronous standby is seen", seen).await;
    assert_eq!((sync.names.as_str(), sync.synchronous), ("west", vec!["west".to_owned()]));
}

#[tokio::test]
async fn every_password_method_logs_in_and_a_wrong_password_is_unknown_not_down() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    server.run("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'old'").await;
    server.run("CREATE ROLE plain LOGIN PASSWORD 'plain'; CREATE ROLE open LOGIN").await;
    let access = server.data().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&access).unwrap();
    let first = "host all old all md5\nhost all plain all password\nhost all open all trust\n";
    std::fs::write(&access, format!("{first}{rules}")).unwrap();
    server.reload();

    for (user, password) in [("pgpivot", "pgpivot"), ("old", "old"), ("plain", "plain"), ("open", "")] {
        let mut watch = Watch::of(&[&server], login(user, password));
        assert_eq!(watch.facts("east").await.role, Role::Primary, "{user}");
    }
    let unknown = Verdict::Unknown(Unknown::Authentication);
    for (user, password) in [("pgpivot", "guess"), ("old", "guess"), ("plain", "guess"), ("pgpivot", ""), ("who", "x")]
    {
        let mut watch = Watch::of(&[&server], login(user, password));
        assert_eq!(watch.first("east").await.verdict, unknown, "{user}");
    }
    let nowhere = Login { database: "nowhere".into(), ..login("pgpivot", "pgpivot") };
    assert_eq!(Watch::of(&[&server], nowhere).first("east").await.verdict, Verdict::Unknown(Unknown::NoDatabase));
}

#[tokio::test]
async fn a_killed_primary_is_refused_and_its_standby_receives_nothing() {
    let pair = Pair::start().await;
    let mut watch = Watch::of(&[&pair.east, &pair.west], login("pgpivot", "pgpivot"));
    watch.facts("east").await;
    watch.facts("west").await;
    watch.probes.set_active(Some("east".into()), Epoch(1));
    watch.reports_so_far();

    pair.east.kill().await;
    watch.lost("east").await;
    watch.probes.set_cadence(Cadence::Death);
    let refused = |o: &Observation| (o.backend.as_str() == "east" && o.fresh).then(|| o.verdict.clone());
    assert_eq!(watch.until("a fresh connect ends", refused).await, Verdict::Failed(Failure::Refused));
    let gone =
        |o: &Observation| answered(o).filter(|f| f.role == Role::Standby && f.receiver == Receiver::Gone).map(|_| ());
    watch.until("the standby has no receiver", gone).await;
    assert_eq!(watch.shutdowns, 0, "a dead postmaster is not a shutdown on purpose");
}

#[tokio::test]
async fn a_login_that_may_not_see_the_receiver_knows_when_there_is_none() {
    let pair = Pair::start().await;
    let mut watch = Watch::of(&[&pair.west], login("app", "app"));
    let facts = watch.facts("west").await;
    assert_eq!((facts.role, facts.receiver), (Role::Standby, Receiver::Unknown));
    assert_eq!((facts.may_read_stats, facts.may_promote), (Some(false), Some(false)));
    pair.east.stop(Shutdown::Fast).await;
    let gone = |o: &Observation| answered(o).filter(|f| f.receiver == Receiver::Gone).map(|_| ());
    watch.until("the receiver is gone", gone).await;
}

#[tokio::test]
async fn a_login_without_the_identifiers_function_learns_it_by_replication() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    let identifier = server.ask("SELECT system_identifier FROM pg_control_system()").await;
    let login = |user: &str| Login { database: "app".into(), ..login(user, user) };
    server.run("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public, pgpivot").await;
    let facts = Watch::of(&[&server], login("pgpivot")).facts("east").await;
    assert_eq!(facts.system_id, Some(SystemId(identifier.parse().unwrap())));
    let facts = Watch::of(&[&server], login("app")).facts("east").await;
    assert_eq!((facts.role, facts.system_id), (Role::Primary, None), "without REPLICATION it stays unknown");
}

#[tokio::test]
async fn a_promoted_standby_shows_its_timeline_and_history_at_once() {
    let pair = Pair::start().await;
    let mut watch = Watch::of(&[&pair.west], login("pgpivot", "pgpivot"));
    let mut modest = Watch::of(&[&pair.west], login("app", "app"));
    let before = watch.facts("west").await;
    modest.facts("west").await;
    watch.probes.set_cadence(Cadence::Episode);
    pair.east.stop(Shutdown::Fast).await;
    pair.west.promote();

    let primary = |o: &Observation| answered(o).filter(|f| f.role == Role::Primary).cloned();
    let descends = |o: &Observation| primary(o).filter(|f| f.history.is_some());
    let facts = watch.until("it is primary and tells where it branched off", descends).await;
    assert_eq!((facts.timeline, facts.system_id), (Some(Timeline(2)), before.system_id));
    let history = facts.history.unwrap();
    assert_eq!(history.iter().map(|a| a.timeline).collect::<Vec<_>>(), [Timeline(1)]);
    assert!(Some(history[0].switch_lsn) <= facts.lsn);
    let facts = modest.until("the standby is primary", primary).await;
    assert_eq!((facts.timeline, facts.history), (Some(Timeline(2)), None), "without REPLICATION there is no history");
}

#[tokio::test]
async fn a_standby_whose_primary_is_left_is_promoted_and_proven_on_connections_that_were_there_before() {
    let pair = Pair::start().await;
    let mut watch = Watch::of(&[&pair.west], login("pgpivot", "pgpivot"));
    watch.facts("west").await;
    watch.probes.set_active(Some("east".into()), Epoch(1));
    watch.probes.set_cadence(Cadence::Episode);
    let walsenders = "SELECT count(*)::text FROM pg_stat_activity \
                      WHERE backend_type = 'walsender' AND usename = 'pgpivot'";
    eventually("a replication connection is there", SOON, async || match pair.west.ask(walsenders).await.as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    let access = pair.west.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, format!("host all pgpivot all reject\n{text}")).unwrap();
    pair.west.reload();
    let refused = |o: &Observation| (o.verdict == Verdict::Unknown(Unknown::Authentication)).then_some(());
    watch.until("nobody more is let in", refused).await;
    pair.west.promote();
    let primary = |o: &Observation| answered(o).filter(|f| f.role == Role::Primary).cloned();
    let facts = watch.until("it is primary", primary).await;
    assert_eq!((facts.timeline, facts.history.map(|history| history.len())), (Some(Timeline(2)), Some(1)));
}

#[tokio::test]
async fn a_restart_on_purpose_is_announced() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    let mut watch = Watch::of(&[&server], login("pgpivot", "pgpivot"));
    watch.facts("east").await;
    server.stop(Shutdown::Fast).await;
    let announced = |o: &Observation| (o.verdict == Verdict::Failed(Failure::ShuttingDown)).then_some(());
    watch.until("the shutdown is announced", announced).await;
    watch.lost("east").await;
    server.start().await;
    watch.probes.probe_now(&"east".into());
    watch.facts("east").await;
}

#[tokio::test]
async fn a_frozen_server_times_out_and_is_never_refused() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    let mut watch = Watch::of(&[&server], login("pgpivot", "pgpivot"));
    watch.facts("east").await;
    watch.probes.set_active(Some("east".into()), Epoch(1));
    server.freeze().await;
    watch.reports_so_far();
    watch.probes.set_cadence(Cadence::Fast);
    for kept in [true, false] {
        let failed =
            |o: &Observation| (o.fresh != kept).then(|| o.verdict.clone()).filter(|v| matches!(v, Verdict::Failed(_)));
        let verdict = watch.until("a probe of a frozen server ends", failed).await;
        assert_eq!(verdict, Verdict::Failed(Failure::TimedOut), "kept: {kept}");
    }
    server.thaw();
    watch.facts("east").await;
}

#[tokio::test]
async fn a_crash_of_one_backend_is_recovery_not_death() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    let mut watch = Watch::of(&[&server], login("pgpivot", "pgpivot"));
    watch.facts("east").await;
    watch.probes.set_cadence(Cadence::Episode);
    server.crash_one_backend().await;
    watch.lost("east").await;
    let mut verdicts = Vec::new();
    let back = |o: &Observation| {
        verdicts.push(o.verdict.clone());
        answered(o).map(|_| ())
    };
    watch.until("the server is back", back).await;
    let refused = verdicts.iter().find(|v| matches!(v, Verdict::Failed(Failure::Refused | Failure::ShuttingDown)));
    assert_eq!(refused, None);
}

#[tokio::test]
async fn a_server_without_a_free_slot_is_alive() {
    let server = Cluster::create("east", &[("max_connections".into(), "4".into())], None);
    server.start().await;
    let mut psql = Vec::new();
    for _ in 0..1 {
        let mut command = tokio::process::Command::new(postgres("psql"));
        command.env_clear().env("PGPASSWORD", "app").kill_on_drop(true);
        command.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "app", "-d", "app"]);
        psql.push(command.args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap());
    }
    let mut watch = Watch::of(&[&server], login("pgpivot", "pgpivot"));
    let full = |o: &Observation| (o.verdict == Verdict::Unknown(Unknown::TooManyConnections)).then_some(());
    watch.until("no slot is free", full).await;
    for mut client in psql {
        client.kill().await.unwrap();
    }
}

#[tokio::test]
async fn daemons_see_each_other_and_the_epoch_they_are_in() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    let mut ours = Watch::of(&[&server], login("pgpivot", "pgpivot"));
    assert_eq!(ours.facts("east").await.daemons, Vec::<String>::new());
    let mut theirs = Watch::start("theirs", service(&[&server], sql(login("pgpivot", "pgpivot"))));
    theirs.facts("east").await;
    theirs.probes.set_active(Some("east".into()), Epoch(7));
    let seen = |o: &Observation| answered(o).filter(|f| f.daemons == ["pgpivot/theirs/main/7"]).map(|_| ());
    ours.until("the other daemon is seen in its epoch", seen).await;
}

#[tokio::test]
async fn the_startup_and_tcp_probes_need_no_password_and_leave_no_complaint_in_the_log() {
    let server = Cluster::create("east", &[], None);
    server.start().await;
    for kind in [ProbeKind::Tcp, ProbeKind::Startup { login: login("nobody", "") }] {
        let mut watch = Watch::start("ours", service(&[&server], kind));
        assert_eq!(*watch.facts("east").await, Facts::default());
    }
    let log = server.log_tail();
    let complaint = |line: &str| line.contains("nobody@") && (line.contains("FATAL") || line.contains("could not"));
    assert!(!log.lines().any(complaint), "{log}");
    server.kill().await;
    for kind in [ProbeKind::Tcp, ProbeKind::Startup { login: login("nobody", "") }] {
        let mut watch = Watch::start("ours", service(&[&server], kind));
        assert_eq!(watch.first("east").await.verdict, Verdict::Failed(Failure::Refused));
    }
}

#[tokio::test]
async fn tls_is_as_strict_as_its_mode() {
    let server = Cluster::create("localhost", &[], None);
    server.demand_tls();
    server.start().await;
    let certificate = server.data().join("server.crt");
    let verdict_with = async |mode: TlsMode, name: Option<&str>| {
        let mut service = service(&[&server], sql(login("pgpivot", "pgpivot")));
        let ca_file = name.map(|_| certificate.clone());
        let server_name = name.map(str::to_owned);
        service.backends[0].tls = config::Tls { mode, ca_file, server_name };
        match Watch::start("ours", service).first("localhost").await.verdict {
            Verdict::Answered(_) => None,
            Verdict::Unknown(why) => Some(why),
            other => panic!("{mode:?} {name:?}: {other:?}"),
        }
    };
    let (ours, other) = (Some("localhost"), Some("another.example.com"));
    assert_eq!(verdict_with(TlsMode::Disable, None).await, Some(Unknown::Authentication));
    assert_eq!(verdict_with(TlsMode::Prefer, None).await, None);
    assert_eq!(verdict_with(TlsMode::Require, None).await, None);
    assert_eq!(verdict_with(TlsMode::VerifyCa, other).await, None);
    assert_eq!(verdict_with(TlsMode::VerifyFull, ours).await, None);
    assert_eq!(verdict_with(TlsMode::VerifyFull, other).await, Some(Unknown::Certificate));
}

/// Probes of some servers and what they reported.
struct Watch {
    probes: Probes,
    reports: mpsc::Receiver<ProbeReport>,
    /// How often a shutdown on purpose was reported.
    shutdowns: usize,
}

impl Watch {
    fn of(servers: &[&Cluster], login: Login) -> Self {
        Self::start("ours", service(servers, sql(login)))
    }

    fn start(daemon: &str, service: Service) -> Self {
        let (sender, reports) = mpsc::channel(1024);
        let probes = Probes::start(&service, daemon, sender, now).unwrap();
        Self { probes, reports, shutdowns: 0 }
    }

    /// The first observation in which `pick` finds what it looks for.
    async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Observation) -> Option<T>) -> T {
        let picked = |report: &ProbeReport| match report {
            ProbeReport::Observation(observation) => pick(observation),
            ProbeReport::Addresses { .. }
            | ProbeReport::Evidence(_)
            | ProbeReport::Streams(_)
            | ProbeReport::Patroni(_)
            | ProbeReport::ClusterNote { .. }
            | ProbeReport::TaskFailed { .. } => None,
        };
        self.report(what, picked).await
    }

    /// The facts of the next answer of this backend.
    async fn facts(&mut self, backend: &str) -> Box<Facts> {
        let pick = |o: &Observation| answered(o).filter(|_| o.backend.as_str() == backend).cloned().map(Box::new);
        self.until(&format!("{backend} answers"), pick).await
    }

    async fn first(&mut self, backend: &str) -> Observation {
        self.until("a verdict", |o| (o.backend.as_str() == backend).then(|| o.clone())).await
    }

    async fn lost(&mut self, backend: &str) {
        let backend = BackendName::from(backend);
        let evidence = ProbeReport::Evidence(Evidence::ProbeConnectionLost { backend });
        self.report("the kept connection is lost", |report| (*report == evidence).then_some(())).await;
    }

    fn reports_so_far(&mut self) {
        while self.reports.try_recv().is_ok() {}
    }

    async fn report<T>(&mut self, what: &str, mut pick: impl FnMut(&ProbeReport) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        loop {
            let report = timeout_at(deadline, self.reports.recv()).await;
            let report = report.unwrap_or_else(|_| panic!("not soon: {what}\n{seen:#?}")).unwrap();
            if let ProbeReport::Observation(Observation { verdict: Verdict::Failed(Failure::ShuttingDown), .. }) =
                report
            {
                self.shutdowns += 1;
            }
            if let Some(found) = pick(&report) {
                return found;
            }
            seen.push(report);
        }
    }
}

fn answered(observation: &Observation) -> Option<&Facts> {
    match &observation.verdict {
        Verdict::Answered(facts) => Some(facts),
        Verdict::Recovering | Verdict::Unknown(_) | Verdict::Failed(_) => None,
    }
}

fn row(facts: &Facts) -> &ReceiverRow {
    match &facts.receiver {
        Receiver::Row(row) => row,
        other => panic!("a row was expected: {other:?}"),
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Now { at: Moment(since), wall: WallTime(i64::try_from(since.as_micros()).unwrap()) }
}

fn login(user: &str, password: &str) -> Login {
    let password = (!password.is_empty()).then(|| Secret::new(password.to_owned()));
    Login { user: user.to_owned(), database: "postgres".to_owned(), password }
}

fn sql(login: Login) -> ProbeKind {
    ProbeKind::Sql { login }
}

/// A service that only probes.
fn service(servers: &[&Cluster], kind: ProbeKind) -> Service {
    let backend = |server: &&Cluster| {
        let (name, address) = (&server.name, server.address());
        format!("[[service.main.backend]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n")
    };
    let backends: String = servers.iter().map(backend).collect();
    let pace = "probe = { interval = \"500ms\", fast_interval = \"300ms\", timeout = \"1s\" }";
    let text = format!("[service.main]\nkind = \"postgres\"\n{pace}\n{backends}");
    let (mut config, _) = validate::build(raw::parse(&text), &Env::default(), 1).unwrap();
    let mut service = config.services.remove(0);
    service.probe.kind = kind;
    service.failover.promoter = Promoter::None;
    service
}
