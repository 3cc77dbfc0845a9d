//! What is left of the history after crashes, tampering and full disks.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::fault::Fault;
use super::super::history::{BreakKind, HistoryReader};
use super::*;
use crate::types::{Epoch, WallTime};

#[test]
fn the_history_comes_back_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = journal(dir.path());
    for n in 1..=5 {
        journal.append(&event(n)).unwrap();
    }
    journal.sync().unwrap();
    assert_eq!(sentences(dir.path(), 3), ["event 3", "event 4", "event 5"]);
    let verified = reader(dir.path()).verify().unwrap();
    assert!(verified.is_whole());
    assert_eq!((verified.lines, verified.first, verified.last), (5, Some(1), Some(5)));
    let mut exported = Vec::new();
    reader(dir.path()).export(&mut exported).unwrap();
    let lines: Vec<serde_json::Value> =
        exported.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000Z");
    assert_eq!(lines[4]["event"]["sentence"], "event 5");
}

#[test]
fn a_line_torn_at_any_byte_is_cut_at_the_next_start_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = journal(dir.path());
    first.append(&event(1)).unwrap();
    first.append(&event(2)).unwrap();
    let path = dir.path().join("00000001.jsonl");
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for end in second + 1..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let mut again = journal(dir.path());
        again.recover().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole[..second]);
        again.append(&event(3)).unwrap();
        let cut = format!("a torn end of {} bytes was cut from 00000001.jsonl", end - second);
        assert_eq!(sentences(dir.path(), 9), ["event 1", cut.as_str(), "event 3"]);
        assert!(reader(dir.path()).verify().unwrap().is_whole());
    }
}

#[test]
fn zeros_that_a_power_cut_left_behind_the_last_line_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path()).append(&event(1)).unwrap();
    let path = dir.path().join("00000001.jsonl");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], &[0; 4096]].concat()).unwrap();
    journal(dir.path()).append(&event(2)).unwrap();
    assert_eq!(sentences(dir.path(), 9).len(), 3);
    assert!(reader(dir.path()).verify().unwrap().is_whole());
}

#[test]
fn a_line_changed_taken_out_put_in_or_exchanged_breaks_the_chain_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = journal(dir.path());
    for n in 1..=6 {
        journal.append(&event(n)).unwrap();
    }
    let path = dir.path().join("00000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let found = |lines: &[&str]| {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let breaks = reader(dir.path()).verify().unwrap().breaks;
        breaks.into_iter().map(|b| (b.line, b.what)).collect::<Vec<_>>()
    };
    assert_eq!(found(&lines), []);
    let changed = lines[2].replace("event 3", "event 9");
    assert_eq!(found(&[lines[0], lines[1], &changed, lines[3]]), [(3, BreakKind::Changed)]);
    assert_eq!(found(&[lines[0], lines[1], lines[3]]), [(3, BreakKind::Unchained)]);
    assert_eq!(found(&[lines[1], lines[2]]), [], "an older beginning may have been dropped");
    assert_eq!(found(&[lines[0], lines[0], lines[1]]), [(2, BreakKind::Unchained)]);
    // Forged with a hash of its own: the line after it does not follow.
    let forged = HistoryLine::after(Some(&serde_json::from_str(lines[1]).unwrap()), &event(9)).unwrap().to_string();
    assert_eq!(found(&[lines[0], lines[1], &forged, lines[3]]), [(4, BreakKind::Unchained)]);
}

#[test]
fn damage_before_the_end_is_left_for_the_auditor_and_writing_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = journal(dir.path());
    first.append(&event(1)).unwrap();
    first.append(&event(2)).unwrap();
    let path = dir.path().join("00000001.jsonl");
    let damaged = std::fs::read_to_string(&path).unwrap().replace("event 2", "event 7");
    std::fs::write(&path, &damaged).unwrap();
    journal(dir.path()).append(&event(3)).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(&damaged));
    assert!(!reader(dir.path()).verify().unwrap().is_whole());
    assert_eq!(sentences(dir.path(), 9).last().unwrap(), "event 3");
}

#[test]
fn the_oldest_segments_are_dropped_and_the_chain_holds_across_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 1000, segments: 3 };
    let mut journal = Journal::new(dir.path().to_path_buf(), Faults::none(), limits);
    for n in 1..=40 {
        journal.append(&event(n)).unwrap();
    }
    let names: Vec<_> = history::segments(dir.path()).unwrap().iter().map(Segment::name).collect();
    assert_eq!(names.len(), 3);
    assert!(!names.contains(&"00000001.jsonl".to_owned()));
    let verified = reader(dir.path()).verify().unwrap();
    assert!(verified.is_whole() && verified.first > Some(1) && verified.last == Some(40));
    // A restart goes on where it stood, also when the newest segment was made but never written.
    std::fs::write(dir.path().join("00000099.jsonl"), "").unwrap();
    let mut journal = Journal::new(dir.path().to_path_buf(), Faults::none(), limits);
    journal.append(&event(41)).unwrap();
    assert!(reader(dir.path()).verify().unwrap().is_whole());
    assert_eq!(sentences(dir.path(), 1), ["event 41"]);
}

#[test]
fn what_a_full_disk_kept_out_is_counted_before_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let asked = full.clone();
    let faults = Faults::ask(move |op| match op {
        Operation::WriteHistory if asked.load(Ordering::Relaxed) => Some(Fault::CutAfter(20, ErrorKind::StorageFull)),
        _ => None,
    });
    let mut journal = Journal::new(dir.path().to_path_buf(), faults, Limits::default());
    journal.append(&event(1)).unwrap();
    full.store(true, Ordering::Relaxed);
    journal.append(&event(2)).unwrap_err();
    journal.append(&event(3)).unwrap_err();
    full.store(false, Ordering::Relaxed);
    journal.append(&event(4)).unwrap();
    let missing = "2 events before this one could not be written";
    assert_eq!(sentences(dir.path(), 9), ["event 1", missing, "event 4"]);
    assert!(reader(dir.path()).verify().unwrap().is_whole());
}

#[test]
fn an_event_without_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = event(1);
    long.sentence = "x".repeat(history::LINE);
    assert!(matches!(journal(dir.path()).append(&long), Err(StoreError::LongEvent { .. })));
}

fn journal(dir: &Path) -> Journal {
    Journal::new(dir.to_path_buf(), Faults::none(), Limits::default())
}

fn reader(dir: &Path) -> HistoryReader {
    HistoryReader::of_segments(dir.to_path_buf())
}

fn sentences(dir: &Path, limit: usize) -> Vec<String> {
    reader(dir).history(limit).unwrap().into_iter().map(|line| line.event.sentence).collect()
}

fn event(n: u64) -> Event {
    Event {
        at: WallTime(0),
        episode: None,
        epoch: Epoch(n),
        kind: EventKind::Step,
        sentence: format!("event {n}"),
        took: None,
        operator: None,
        active: None,
        change: None,
    }
}
