//! The reader against simulated self-hosted clusters: what it makes of their words, from replication to its end.

use tokio_postgres::{Client, NoTls};

use super::*;
use crate::config::{Replication as Configured, Service, env::Env, raw, validate};
use crate::sim::{Side as Cluster, cloud};

async fn start(settings: cloud::Settings) -> cloud::Cloud {
    let settings = cloud::Settings { mode: cloud::Mode::SelfHosted, pace: cloud::Pace::instant(), ..settings };
    cloud::Cloud::start(settings).await.unwrap()
}

async fn replicating() -> cloud::Cloud {
    start(cloud::Settings::default()).await
}

fn service(cloud: &cloud::Cloud) -> Service {
    let backend = |name, role, side| {
        let address = cloud.sql_address(side);
        format!("[[service.main.backend]]\nname = '{name}'\nrole = '{role}'\naddresses = ['{address}']\n")
    };
    let text = format!(
        "[service.main]\nkind = 'cockroach'\nlistener = [{{ address = '127.0.0.1:1' }}]\n{}{}\
         [service.main.cockroach_sql]\nuser = 'o''brien'\n[service.main.failover]\npromoter = 'cockroach_sql'\n",
        backend("east", "primary", Cluster::East),
        backend("west", "standby", Cluster::West)
    )
    .replace("'o''brien'", "\"o'brien\"");
    let (config, _) = validate::build(raw::parse(&text), &Env::default(), 1).unwrap();
    config.services.into_iter().next().unwrap()
}

fn reader(cloud: &cloud::Cloud) -> Sql {
    let service = service(cloud);
    let Some(Configured::Sql(settings)) = &service.replication else { panic!("{service:?}") };
    let calm = Orders {
        cadence: crate::failover::action::Cadence::Calm,
        since: Instant::now(),
        active: None,
        epoch: crate::types::Epoch(4),
    };
    let ours = Ours { daemon: "here".into(), service: "main".into(), orders: watch::channel(calm).1 };
    let clusters = super::super::system_tls(&service).unwrap();
    Sql::new(settings, clusters, Duration::from_secs(5), Arc::default(), ours)
}

async fn all(reader: &Sql) -> Vec<Stream> {
    let shown = reader.read(None).await.unwrap();
    assert!(!shown.partly);
    shown.streams
}

async fn only(reader: &Sql) -> Stream {
    let mut streams = all(reader).await;
    assert_eq!(streams.len(), 1, "{streams:?}");
    streams.remove(0)
}

async fn until(reader: &Sql, status: Status) -> Stream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let streams = all(reader).await;
        if let Some(stream) = streams.iter().find(|stream| stream.status == status) {
            return stream.clone();
        }
        assert!(Instant::now() < deadline, "never {status:?}: {streams:?}");
    }
}

/// A session on the virtual cluster that steers.
async fn system(cloud: &cloud::Cloud, side: Cluster) -> Client {
    let address = cloud.sql_address(side);
    let text = format!("host={} port={} user=root options='-ccluster=system'", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn steer(cloud: &cloud::Cloud, side: Cluster, sql: &str) {
    system(cloud, side).await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

const COMPLETE: &str = "ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST";
const SERVE: &str = "ALTER VIRTUAL CLUSTER main START SERVICE SHARED";

#[tokio::test]
async fn a_replication_keeps_its_name_from_beginning_to_end_and_its_moment_when_nothing_shows_it_any_more() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    let stream = only(&reader).await;
    assert_eq!((stream.from.as_str(), stream.to.as_str(), stream.status), ("east", "west", Status::Replicating));
    assert!(stream.id.starts_with("main@west#"), "{}", stream.id);
    assert!(stream.replicated >= stream.retained && stream.retained.is_some());
    let by_id = reader.read(Some(&stream.id)).await.unwrap();
    assert_eq!(by_id.streams[0].id, stream.id);
    assert!(by_id.clock.unwrap() >= stream.replicated.unwrap());

    cloud.hold_failovers(true);
    steer(&cloud, Cluster::West, COMPLETE).await;
    let failing = until(&reader, Status::FailingOver).await;
    assert_eq!((&failing.id, failing.replicated), (&stream.id, None));
    let moment = failing.failover_at.unwrap();
    cloud.hold_failovers(false);
    let ready = until(&reader, Status::Completed).await;
    steer(&cloud, Cluster::West, SERVE).await;
    let served = only(&reader).await;
    assert_eq!((&ready.id, ready.activated), (&stream.id, Some(moment)));
    assert_eq!((&served.id, served.activated), (&stream.id, Some(moment)), "the cluster itself tells no more");
    assert_eq!(reader.read(Some(&stream.id)).await.unwrap().streams, [served]);

    let fresh = only(&self::reader(&cloud)).await;
    assert_eq!(fresh.id, stream.id, "after a restart, too");
    assert!(fresh.activated >= Some(moment) && fresh.state().contains("only when its job had finished"), "{fresh:?}");
}

#[tokio::test]
async fn a_cluster_that_never_was_a_standby_shows_no_stream() {
    let cloud = start(cloud::Settings { initial: cloud::Initial::None, ..cloud::Settings::default() }).await;
    let reader = reader(&cloud);
    assert_eq!(all(&reader).await, []);
    let unread = reader.read(Some("main@west#7")).await.err().unwrap();
    assert!(unread.gone, "{unread:?}");
    assert_eq!(unread.sentence, "west has no virtual cluster \"main\"");
    for other in ["app@west#7", "main@north#7", "c0ffee"] {
        assert!(!reader.read(Some(other)).await.err().unwrap().gone, "{other}");
    }
}

#[tokio::test]
async fn a_moment_ahead_is_shown_as_the_moment_of_the_failover() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    let begun = only(&reader).await;
    steer(&cloud, Cluster::West, "ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO SYSTEM TIME '+30m'").await;
    let pending = only(&reader).await;
    assert_eq!(pending.status, Status::FailingOver);
    let ahead = pending.failover_at.unwrap().since(begun.replicated.unwrap());
    assert!(ahead > Duration::from_secs(29 * 60), "{ahead:?}");
}

#[tokio::test]
async fn while_the_primary_is_dead_the_standby_tells_a_part_and_while_the_standby_is_dead_nobody_does() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    let id = only(&reader).await.id;
    cloud.crash(Cluster::East).await.unwrap();
    let shown = reader.read(None).await.unwrap();
    assert!(shown.partly && shown.clock.is_some());
    assert_eq!(shown.streams[0].id, id);
    cloud.revive(Cluster::East).await.unwrap();
    cloud.crash(Cluster::West).await.unwrap();
    for wanted in [None, Some(id.as_str())] {
        let unread = reader.read(wanted).await.err().unwrap();
        assert!(unread.sentence.starts_with("west: connect: connection refused") && !unread.gone, "{unread:?}");
    }
}

#[tokio::test]
async fn a_job_that_fails_is_told_with_its_own_complaint_and_never_as_a_success() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    let id = only(&reader).await.id;
    assert!(cloud.break_job(Cluster::West));
    let stalled = only(&reader).await;
    assert_eq!((&stalled.id, stalled.status), (&id, Status::Stalled));
    let said = stalled.state();
    assert!(said.starts_with("stalled (replication error, job ") && said.contains("simulated failure"), "{said}");
    steer(&cloud, Cluster::West, "ALTER VIRTUAL CLUSTER main RESUME REPLICATION").await;
    assert_eq!(only(&reader).await.status, Status::Replicating);

    cloud.hold_failovers(true);
    steer(&cloud, Cluster::West, COMPLETE).await;
    assert_eq!(only(&reader).await.status, Status::FailingOver);
    assert!(cloud.break_job(Cluster::West));
    let over = only(&reader).await;
    assert_eq!((&over.id, over.status, over.activated), (&id, Status::Canceled, None));
    assert!(over.state().starts_with("canceled (replication error"), "{}", over.state());
}

#[tokio::test]
async fn what_a_login_may_not_see_is_told_with_the_grant_to_type() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    for privilege in ["VIEWJOB", "MANAGEVIRTUALCLUSTER"] {
        cloud.set_privilege(Cluster::West, privilege, false);
        let unread = reader.read(None).await.err().unwrap();
        let grant = "GRANT SYSTEM MANAGEVIRTUALCLUSTER, REPLICATIONDEST, VIEWJOB TO \"o'brien\"";
        assert!(unread.sentence.starts_with("west") && unread.sentence.ends_with(grant), "{unread:?}");
        cloud.set_privilege(Cluster::West, privilege, true);
    }
    assert_eq!(only(&reader).await.status, Status::Replicating);
}

#[tokio::test]
async fn the_way_back_is_another_stream_and_the_one_before_is_gone_once_a_newer_writes_there() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    let there = only(&reader).await;
    steer(&cloud, Cluster::West, COMPLETE).await;
    let there = (there.id, until(&reader, Status::Completed).await.activated);
    steer(&cloud, Cluster::West, SERVE).await;
    steer(&cloud, Cluster::East, "ALTER VIRTUAL CLUSTER main STOP SERVICE").await;
    let uri = |side| format!("postgresql://root@{}", cloud.sql_address(side));
    let follow = |side| format!("ALTER VIRTUAL CLUSTER main START REPLICATION OF main ON '{}'", uri(side));
    steer(&cloud, Cluster::East, &follow(Cluster::West)).await;
    let back = until(&reader, Status::Replicating).await;
    assert_eq!((back.from.as_str(), back.to.as_str()), ("west", "east"));
    steer(&cloud, Cluster::East, COMPLETE).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !all(&reader).await.iter().any(|stream| stream.id == back.id && stream.activated > there.1) {
        assert!(Instant::now() < deadline, "{:?}", all(&reader).await);
    }
    steer(&cloud, Cluster::East, SERVE).await;
    steer(&cloud, Cluster::West, "ALTER VIRTUAL CLUSTER main STOP SERVICE").await;
    steer(&cloud, Cluster::West, &follow(Cluster::East)).await;
    let again = until(&reader, Status::Replicating).await;
    assert_ne!(again.id, there.0);
    assert!(reader.read(Some(&there.0)).await.err().unwrap().gone);
}

#[tokio::test]
async fn readings_share_a_session_and_open_another_when_it_was_ended() {
    let cloud = replicating().await;
    let reader = reader(&cloud);
    for _ in 0..3 {
        only(&reader).await;
    }
    assert_eq!(cloud.logins(Cluster::West), 1);
    cloud.reset_sessions(Cluster::West);
    only(&reader).await;
    assert_eq!(cloud.logins(Cluster::West), 2);
}
