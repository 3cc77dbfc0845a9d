//! What the driver sees of a disk that is slow, failing, or gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::super::Faults;
use super::super::fault::{Fault, Operation};
use super::*;
use crate::failover::action::EventKind;
use crate::types::{Epoch, WallTime};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn an_answer_comes_once_the_record_is_on_disk_and_carries_its_ticket() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    let writer = Writer::start(Arc::new(store)).unwrap();
    let (sender, answers) = mpsc::channel();
    for ticket in 1..=3 {
        let sender = sender.clone();
        writer.persist("main", record(ticket), ticket, move |ticket, result| {
            result.unwrap();
            sender.send(ticket).unwrap();
        });
        writer.append("main", event(ticket));
    }
    let tickets: Vec<_> = (0..3).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(tickets, [1, 2, 3]);
    assert!(writer.close(PATIENCE));
    let (store, records) = Store::open(dir.path(), "a").unwrap();
    assert_eq!(records.get("main"), Some(&*record(3)));
    assert_eq!(store.history("main", 10).unwrap().len(), 3);
    // The end made the second copy: either slot alone is enough.
    let bytes = std::fs::read(dir.path().join("main.pair/latch")).unwrap();
    let payload = |slot: usize| &bytes[slot * 4096 + 24..slot * 4096 + 200];
    assert_eq!(payload(0), payload(1));
}

#[test]
fn while_the_disk_stands_still_records_are_refused_at_a_bound_and_events_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, opened) = mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let (reached, entered) = mpsc::channel();
    let faults = Faults::ask(move |op| {
        if op == Operation::SyncSlot {
            let _ = reached.send(());
            let _ = opened.lock().unwrap().recv_timeout(PATIENCE);
        }
        None
    });
    let (store, _) = Store::open_with(dir.path(), "a", faults).unwrap();
    let writer = Writer::start(Arc::new(store)).unwrap();
    let (sender, answers) = mpsc::channel();
    let submit = |n| {
        let sender = sender.clone();
        writer.persist("main", record(n), n, move |_, result| sender.send(result).unwrap());
    };
    submit(0);
    entered.recv_timeout(PATIENCE).unwrap();
    for n in 1..=WRITES as u64 + 1 {
        submit(n);
    }
    let refused = answers.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(refused, Err(StoreError::Backlog { waiting: WRITES })), "{refused:?}");
    for n in 0..EVENTS as u64 + 5 {
        writer.append("main", event(n));
    }
    assert!(writer.history_error().unwrap().contains("5 events were dropped"));
    drop(gate);
    for _ in 0..=WRITES {
        answers.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert!(writer.close(PATIENCE));
}

#[test]
fn a_history_that_cannot_be_written_is_told_and_hinders_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let full = broken.clone();
    let faults = Faults::ask(move |op| match op {
        Operation::WriteHistory if full.load(Ordering::Relaxed) => {
            Some(Fault::CutAfter(10, std::io::ErrorKind::StorageFull))
        }
        _ => None,
    });
    let (store, _) = Store::open_with(dir.path(), "a", faults).unwrap();
    let store = Arc::new(store);
    let writer = Writer::start(store.clone()).unwrap();
    writer.append("main", event(1));
    writer.append("main", event(2));
    let told = flushed(&writer, 1);
    assert!(told.unwrap().contains("the disk is full"));
    broken.store(false, Ordering::Relaxed);
    writer.append("main", event(3));
    assert_eq!(flushed(&writer, 2), None);
    assert!(writer.close(PATIENCE));
    let sentences: Vec<_> = store.history("main", 9).unwrap().into_iter().map(|line| line.event.sentence).collect();
    assert_eq!(sentences, ["2 events before this one could not be written", "event 3"]);
    assert!(store.verify_history().unwrap()[0].1.is_whole());
}

#[test]
fn a_history_that_cannot_be_written_is_not_called_written_again_when_there_is_nothing_to_bring_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let full = |op| (op == Operation::WriteHistory).then_some(Fault::Error(std::io::ErrorKind::StorageFull));
    let (store, _) = Store::open_with(dir.path(), "a", Faults::ask(full)).unwrap();
    let writer = Writer::start(Arc::new(store)).unwrap();
    writer.append("main", event(1));
    assert!(writer.close(PATIENCE));
    assert!(writer.history_error().unwrap().contains("the disk is full"));
}

#[test]
fn after_its_end_the_writer_answers_that_it_has_ended() {
    let writer = Writer::start(Arc::new(Store::memory())).unwrap();
    writer.order_end();
    let (sender, answers) = mpsc::channel();
    writer.persist("main", record(1), 1, move |_, result| sender.send(result).unwrap());
    assert!(matches!(answers.recv_timeout(PATIENCE).unwrap(), Err(StoreError::Ended)));
    assert!(writer.close(PATIENCE));
}

/// Waits until what was appended so far was tried, by way of the records that queue behind it.
fn flushed(writer: &Writer, n: u64) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    while !writer.shared.lock().events.is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let (sender, answer) = mpsc::channel();
    writer.persist("main", record(n), n, move |_, result| sender.send(result).unwrap());
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    writer.history_error()
}

fn record(n: u64) -> Box<Record> {
    Box::new(Record { other_daemon_seen: Some(WallTime(n as i64)), ..Record::default() })
}

fn event(n: u64) -> Event {
    Event {
        at: WallTime(n as i64),
        episode: None,
        epoch: Epoch(1),
        kind: EventKind::Step,
        sentence: format!("event {n}"),
        took: None,
        operator: None,
        active: None,
        change: None,
    }
}
