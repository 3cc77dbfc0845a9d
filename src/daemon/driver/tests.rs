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
    let (evidence, _) = mpsc::unbounded_channel();
    let shared = Shared {
        daemon: "s-1".into(),
        routing: Routing::new(&services),
        connections: Connections::new(evidence),
        writer: Arc::new(Writer::start(Arc::new(Store::memory())).unwrap()),
        board: Arc::new(Board::new("s-1".into(), clock::now())),
        events: broadcast::channel(16).0,
    };
    Driver::start(shared, "main".into(), services.services, Record::default()).unwrap()
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
