//! Promotion, fence, stop and start against simulated self-hosted clusters, each as often as the decision core may order it.

use tokio_postgres::{Client, NoTls};

use super::*;
use crate::config::{Backend, Service, env::Env, raw, validate};
use crate::net::scripted::{Peer, Scripted, complaint, ready, table};
use crate::promote::Effects;
use crate::sim::{Side, cloud};
use crate::types::{Epoch, WallTime};
use std::net::SocketAddr;

async fn start() -> cloud::Cloud {
    let pace = cloud::Pace::instant();
    let settings = cloud::Settings { mode: cloud::Mode::SelfHosted, pace, ..cloud::Settings::default() };
    cloud::Cloud::start(settings).await.unwrap()
}

fn service(addresses: [SocketAddr; 2], name: &str) -> Service {
    let [east, west] = addresses;
    let text = format!(
        "[service.main]\nkind = 'cockroach'\nlistener = [{{ address = '127.0.0.1:1' }}]\n\
         backend = [{{ name = 'east', role = 'primary', tls = {{ mode = 'disable' }}, addresses = ['{east}'] }},\n\
         {{ name = 'west', role = 'standby', tls = {{ mode = 'disable' }}, addresses = ['{west}'] }}]\n\
         [service.main.cockroach_sql]\nuser = 'ops'\nvirtual_cluster = '{name}'\n\
         [service.main.failover]\npromoter = 'cockroach_sql'\n"
    );
    let (config, _) = validate::build(raw::parse(&text), &Env::default(), 1).unwrap();
    config.services.into_iter().next().unwrap()
}

struct Rig {
    effects: Effects,
    backends: Vec<Backend>,
    west: SocketAddr,
}

impl Rig {
    fn of(cloud: &cloud::Cloud) -> Self {
        Self::at(cloud.sql_address(Side::East), cloud.sql_address(Side::West), "main")
    }

    fn at(east: SocketAddr, west: SocketAddr, name: &str) -> Self {
        let service = service([east, west], name);
        Self { effects: Effects::build(&service, "here"), backends: service.backends, west }
    }

    async fn promote(&self, job: &str, failover_at: Option<WallTime>) -> PromotionResult {
        let id = format!("main@west#{job}");
        let order = StreamOrder { id, failover_at, replicated: None, stopped_at: None };
        self.effects.promote(&self.backends[1], self.west, Epoch(2), Some(&order)).await
    }
}

async fn connect(cloud: &cloud::Cloud, side: Side, options: &str) -> Result<Client, tokio_postgres::Error> {
    let address = cloud.sql_address(side);
    let text = format!("host={} port={} user=root {options}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn show(cloud: &cloud::Cloud, side: Side, sql: &str, column: &str) -> String {
    let client = connect(cloud, side, "options='-ccluster=system'").await.unwrap();
    let rows = client.query(sql, &[]).await.unwrap();
    rows.first().and_then(|row| row.get::<_, Option<&str>>(column)).unwrap_or("NULL").to_owned()
}

async fn job(cloud: &cloud::Cloud) -> String {
    let client = connect(cloud, Side::West, "options='-ccluster=system'").await.unwrap();
    client.query_one("SHOW JOBS", &[]).await.unwrap().get::<_, i64>("job_id").to_string()
}

const STATUS: &str = "SHOW VIRTUAL CLUSTER main WITH REPLICATION STATUS";

async fn until_ready(cloud: &cloud::Cloud) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while show(cloud, Side::West, STATUS, "status").await != "ready" {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn an_order_given_again_goes_on_from_where_things_stand() {
    let cloud = start().await;
    let (rig, job) = (Rig::of(&cloud), job(&cloud).await);
    cloud.hold_failovers(true);
    assert_eq!(rig.promote(&job, None).await, PromotionResult::Done);
    assert_eq!(show(&cloud, Side::West, STATUS, "status").await, "replication failing over");
    assert_eq!(rig.promote(&job, None).await, PromotionResult::Done, "it fails over already");
    cloud.hold_failovers(false);
    until_ready(&cloud).await;
    assert!(!cloud.is_serving(Side::West));
    let client = connect(&cloud, Side::West, "options='-ccluster=system'").await.unwrap();
    client.batch_execute("SET CLUSTER SETTING server.controller.default_target_cluster = 'system'").await.unwrap();
    for _ in 0..2 {
        assert_eq!(rig.promote(&job, None).await, PromotionResult::Done);
        assert!(cloud.is_serving(Side::West));
    }
    let setting = "server.controller.default_target_cluster";
    assert_eq!(show(&cloud, Side::West, &format!("SHOW CLUSTER SETTING {setting}"), setting).await, "main");
    connect(&cloud, Side::West, "").await.unwrap().batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn a_failover_to_a_moment_keeps_what_was_written_before_it_and_nothing_after() {
    let cloud = start().await;
    let (rig, job) = (Rig::of(&cloud), job(&cloud).await);
    let app = connect(&cloud, Side::East, "").await.unwrap();
    app.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    let moment = cloud.rows(Side::East)[&1];
    tokio::time::sleep(Duration::from_millis(5)).await;
    app.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    assert_eq!(rig.promote(&job, Some(moment)).await, PromotionResult::Done);
    until_ready(&cloud).await;
    assert_eq!(cloud.ids(Side::West), [1]);
}

#[tokio::test]
async fn without_the_privilege_the_failover_is_refused_with_the_grant_to_type_and_nothing_has_happened() {
    let cloud = start().await;
    let (rig, job) = (Rig::of(&cloud), job(&cloud).await);
    for privilege in ["REPLICATIONDEST", "MANAGEVIRTUALCLUSTER", "VIEWJOB"] {
        cloud.set_privilege(Side::West, privilege, false);
        let PromotionResult::Refused(why) = rig.promote(&job, None).await else { panic!("not refused: {privilege}") };
        assert!(why.ends_with("GRANT SYSTEM MANAGEVIRTUALCLUSTER, REPLICATIONDEST, VIEWJOB TO \"ops\""), "{why}");
        cloud.set_privilege(Side::West, privilege, true);
        assert_eq!(show(&cloud, Side::West, STATUS, "status").await, "replicating");
    }
}

#[tokio::test]
async fn what_is_not_the_replication_that_was_decided_upon_is_not_failed_over() {
    let cloud = start().await;
    let (rig, job) = (Rig::of(&cloud), job(&cloud).await);
    let PromotionResult::Refused(why) = rig.promote("17", None).await else { panic!("not refused") };
    assert_eq!(why, format!("it replicates by job {job} now, not as main@west#17"));
    let other = Rig::at(cloud.sql_address(Side::East), cloud.sql_address(Side::West), "app-2");
    let PromotionResult::Refused(why) = other.promote(&job, None).await else { panic!("not refused") };
    assert!(why.contains("app-2"), "its name was quoted, and it is unknown: {why}");
    assert!(cloud.break_job(Side::West));
    let PromotionResult::Refused(why) = rig.promote(&job, None).await else { panic!("not refused") };
    assert_eq!(why, "virtual cluster \"main\" is replication error: it is not failed over");
}

#[tokio::test]
async fn a_default_that_may_not_be_set_does_not_fail_the_promotion() {
    let cloud = start().await;
    let (rig, job) = (Rig::of(&cloud), job(&cloud).await);
    cloud.set_privilege(Side::West, "MODIFYCLUSTERSETTING", false);
    assert_eq!(rig.promote(&job, None).await, PromotionResult::Done);
    until_ready(&cloud).await;
    assert_eq!(rig.promote(&job, None).await, PromotionResult::Done);
    assert!(cloud.is_serving(Side::West));
}

/// A standby that replicates as job 7 and does `then` with the order to complete.
async fn scripted(then: &'static [u8]) -> Scripted {
    Scripted::start(move |mut peer: Peer| async move {
        peer.let_in().await;
        loop {
            let (_, sql) = peer.message().await;
            let sql = String::from_utf8_lossy(&sql).into_owned();
            let rows = if sql.contains("WITH REPLICATION STATUS") {
                table(&["status", "failover_time"], &[vec![Some("replicating"), None]])
            } else if sql.contains("SHOW JOBS") {
                table(&["job_id", "status", "created"], &[vec![Some("7"), Some("running"), None]])
            } else if sql.contains("COMPLETE REPLICATION") && then.is_empty() {
                return;
            } else {
                complaint(b'E', std::str::from_utf8(then).unwrap(), "no", "f")
            };
            peer.say(&[rows, ready()].concat()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_order_without_a_definite_answer_is_unknown_and_one_that_nobody_heard_was_not_given() {
    for (code, definite) in [(&b""[..], false), (b"40003", false), (b"XXUUU", true), (b"42501", true)] {
        let west = scripted(code).await;
        let said = Rig::at(SocketAddr::from(([127, 0, 0, 1], 2)), west.address, "main").promote("7", None).await;
        assert_eq!(matches!(said, PromotionResult::Refused(_)), definite, "{code:?}: {said:?}");
        assert_eq!(matches!(said, PromotionResult::Unknown(_)), !definite, "{code:?}: {said:?}");
    }
    let cloud = start().await;
    let rig = Rig::of(&cloud);
    cloud.crash(Side::West).await.unwrap();
    assert!(matches!(rig.promote("7", None).await, PromotionResult::NotSent(_)), "nobody was there to refuse");
}

#[tokio::test]
async fn a_stopped_service_ends_its_clients_and_its_clock_is_after_all_that_they_were_told() {
    let cloud = start().await;
    let rig = Rig::of(&cloud);
    let (east, at) = (rig.backends[0].clone(), [cloud.sql_address(Side::East)]);
    let app = connect(&cloud, Side::East, "").await.unwrap();
    app.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    let clock = rig.effects.read_clock(&east.name, &at, false).await.unwrap();
    assert!(clock >= cloud.rows(Side::East)[&1] && cloud.is_serving(Side::East), "only read");
    app.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    for _ in 0..2 {
        let clock = rig.effects.read_clock(&east.name, &at, true).await.unwrap();
        assert!(clock >= cloud.rows(Side::East)[&2]);
        assert!(!cloud.is_serving(Side::East) && app.batch_execute("SELECT 1").await.is_err());
    }
    for _ in 0..2 {
        rig.effects.unfreeze(&east.name, at[0], None).await.unwrap();
        assert!(cloud.is_serving(Side::East));
    }
    let refused = rig.effects.unfreeze(&rig.backends[1].name, rig.west, None).await.unwrap_err();
    assert_eq!(refused, "virtual cluster \"main\" is replicating: it cannot be served");
}

#[tokio::test]
async fn a_node_that_goes_on_serving_proves_that_nothing_is_proven() {
    let cloud = start().await;
    let rig = Rig::of(&cloud);
    let node = Scripted::start(|mut peer: Peer| async move {
        peer.let_in().await;
        peer.hang().await;
    })
    .await;
    let addresses = [cloud.sql_address(Side::East), node.address];
    let said = rig.effects.read_clock(&rig.backends[0].name, &addresses, true).await.unwrap_err();
    assert_eq!(said, format!("STOP SERVICE was taken, and after 5s {} still serves", node.address));
    rig.effects.unfreeze(&rig.backends[0].name, addresses[0], None).await.unwrap();
    assert!(cloud.is_serving(Side::East));
}

#[tokio::test]
async fn stop_service_is_the_fence_where_there_is_no_command_for_it() {
    let cloud = start().await;
    let rig = Rig::of(&cloud);
    let (east, address) = (&rig.backends[0], cloud.sql_address(Side::East));
    cloud.set_privilege(Side::East, "MANAGEVIRTUALCLUSTER", false);
    let denied = rig.effects.fence(east, &[address]).await.unwrap_err();
    assert!(denied.contains("GRANT SYSTEM") && cloud.is_serving(Side::East), "{denied}");
    cloud.set_privilege(Side::East, "MANAGEVIRTUALCLUSTER", true);
    let silent = Scripted::silent().await;
    for _ in 0..2 {
        assert_eq!(rig.effects.fence(east, &[silent.address, address]).await, Ok(()), "by the node that answers");
        assert!(!cloud.is_serving(Side::East));
    }
    cloud.crash(Side::East).await.unwrap();
    let gone = rig.effects.fence(east, &[address]).await.unwrap_err();
    assert!(gone.contains("connection refused"), "{gone}");
}
