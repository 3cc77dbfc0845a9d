//! The loop of a driver, with nobody behind its addresses.

use super::*;
use crate::config::{env::Env, raw, validate};
use crate::store::Store;

const PAIR: &str = r#"
[service.main]
kind = "postgres"
backend = [
    { name = "east", addresses = ["127.0.0.1:9"], role = "primary" },
    { name = "west", addresses = ["127.0.0.1:19"], role = "standby" } ]
"#;

fn driver() -> (Driver, Inbox) {
    let services = validate::build(raw::parse(PAIR), &Env::default(), 2).unwrap().0;
    Driver::start(shared(&services), "main".into(), services.services, Record::default()).unwrap()
}

fn shared(config: &config::Config) -> Shared {
    let (evidence, _) = mpsc::unbounded_channel();
    Shared {
        daemon: "s-1".into(),
        routing: Routing::new(config),
        connections: Connections::new(evidence),
        writer: Arc::new(Writer::start(Arc::new(Store::memory())).unwrap()),
        board: Arc::new(Board::new("s-1".into(), clock::now())),
        events: broadcast::channel(16).0,
        siblings: Siblings::default(),
        state: Arc::from(config.state.path.as_path()),
    }
}

#[tokio::test]
async fn what_the_data_plane_saw_is_heard_although_one_input_follows_upon_the_other() {
    let (mut driver, inbox) = driver();
    let (stop, mut woke, began) = (CancellationToken::new(), clock::now(), driver.watched);
    let patience = Instant::now() + Duration::from_secs(20);
    while driver.watched == began {
        assert!(Instant::now() < patience, "it is never asked while clients come and go");
        inbox.evidence.send(Evidence::ServerEnded { backend: "east".into() }).unwrap();
        assert!(driver.turn(&mut woke, &stop).await);
    }
}

#[tokio::test]
async fn a_loop_that_its_own_work_held_up_is_late() {
    let (mut driver, _inbox) = driver();
    let (stop, mut woke) = (CancellationToken::new(), clock::now());
    driver.turn(&mut woke, &stop).await;
    let mut events = driver.shared.events.subscribe();
    // As if what was ordered last had taken so long.
    woke.at = crate::types::Moment(woke.at.0.saturating_sub(Duration::from_secs(3)));
    driver.turn(&mut woke, &stop).await;
    driver.drain_machine();
    let said: Vec<String> = std::iter::from_fn(|| events.try_recv().ok()).map(|told| told.event.sentence).collect();
    assert!(said.iter().any(|sentence| sentence.contains("stopped or starved")), "{said:?}");
}

const BOTH: &str = r#"
[service.main]
kind = "postgres"
failover = { promoter = "postgres", automatic = true }
probe = { kind = "sql", user = "pgpivot" }
backend = [ { name = "east", addresses = ["127.0.0.1:9"] }, { name = "west", addresses = ["127.0.0.1:19"] } ]
[service.reports]
kind = "postgres"
failover = { promoter = "postgres", automatic = true }
probe = { kind = "sql", user = "pgpivot" }
backend = [ { name = "one", addresses = ["localhost:9"] }, { name = "two", addresses = ["localhost:19"] } ]
"#;

fn latched(active: &str) -> Record {
    let identity = serde_json::json!({ "system_id": "77", "timeline": 1, "switch_lsn": null, "node": null });
    serde_json::from_value(serde_json::json!({ "latch": {
        "active": active, "epoch": 1, "identity": identity, "since": 0, "why": "", "route_only": false },
        "intent": null, "last_episode": 1, "spent": [], "cooldown_until": null, "paused": null,
        "other_daemon_seen": null }))
    .unwrap()
}

#[tokio::test]
async fn of_two_services_that_lead_the_same_servers_by_other_names_the_first_one_decides() {
    let services = validate::build(raw::parse(BOTH), &Env::default(), 2).unwrap().0;
    let shared = shared(&services);
    let groups = crate::daemon::pairs::group(&services.services);
    let mut drivers: Vec<_> = [(0, "main", "east"), (1, "reports", "one")]
        .map(|(i, key, active)| {
            let group: Vec<config::Service> = groups[i].clone();
            Driver::start(shared.clone(), key.into(), group, latched(active)).unwrap().0
        })
        .into();
    let (stop, mut woke) = (CancellationToken::new(), clock::now());
    for driver in &mut drivers {
        driver.turn(&mut woke, &stop).await;
    }
    let others: Vec<_> = drivers.iter().map(|driver| driver.machine.view(woke).other_daemons).collect();
    assert_eq!(others, [["service reports of this daemon"], ["service main of this daemon"]]);
}
