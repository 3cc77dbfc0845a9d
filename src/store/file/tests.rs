//! What a daemon finds after crashes, power cuts, damage and full disks.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::fault::{Fault, Operation};
use super::super::{Faults, Store};
use super::*;
use crate::failover::phase::{EpisodeId, Latch};
use crate::types::{Epoch, WallTime};

const SLOT: usize = 4096;

#[test]
fn a_record_survives_a_restart_and_the_newest_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=5 {
        let (store, _) = Store::open(dir.path(), "a").unwrap();
        store.write("main", &record(2 * n)).unwrap();
        store.write("main", &record(2 * n + 1)).unwrap();
        drop(store);
        assert_eq!(reopened(dir.path()).get("main"), Some(&record(2 * n + 1)));
    }
}

#[test]
fn a_power_cut_at_any_byte_leaves_the_old_record_or_the_new_one() {
    // In memory: twelve thousand real syncs would take minutes on a busy disk.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let cut = Arc::new(AtomicUsize::new(usize::MAX));
    let at = cut.clone();
    let faults = Faults::ask(move |op| match (op, at.load(Ordering::Relaxed)) {
        (Operation::WriteSlot, kept) if kept <= SLOT => Some(Fault::CutAfter(kept, ErrorKind::Interrupted)),
        _ => None,
    });
    let (mut old, mut news) = (record(1), 0);
    for kept in 0..=SLOT {
        cut.store(usize::MAX, Ordering::Relaxed);
        let (store, _) = Store::open_with(dir.path(), "a", faults.clone()).unwrap();
        store.write("main", &old).unwrap();
        let new = record(kept as u64 + 2);
        cut.store(kept, Ordering::Relaxed);
        store.write("main", &new).unwrap_err();
        drop(store);
        let found = reopened(dir.path()).remove("main").unwrap();
        assert!(found == old || found == new, "{kept} bytes left {found:?}");
        news += usize::from(found == new);
        old = found;
    }
    assert!(news >= 1, "the whole write is the new record");
}

#[test]
fn a_damaged_newest_slot_gives_way_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    store.write("main", &record(1)).unwrap();
    store.write("main", &record(2)).unwrap();
    drop(store);
    // Slots are taken in turn from the first one on: the second record stands in the second slot.
    for at in [0, 8, 13, 17, 24, 100, SLOT - 1] {
        let sound = std::fs::read(latch(dir.path())).unwrap();
        let mut bytes = sound.clone();
        bytes[SLOT + at] ^= 0x10;
        std::fs::write(latch(dir.path()), &bytes).unwrap();
        assert_eq!(reopened(dir.path()).get("main"), Some(&record(1)), "flip at {at}");
        assert_eq!(std::fs::read(latch(dir.path())).unwrap(), bytes, "opening overwrites nothing");
        std::fs::write(latch(dir.path()), &sound).unwrap();
    }
    assert_eq!(reopened(dir.path()).get("main"), Some(&record(2)));
}

#[test]
fn once_a_record_has_its_second_copy_damage_to_either_slot_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    store.write("main", &record(1)).unwrap();
    store.write("main", &record(2)).unwrap();
    store.mirror("main").unwrap();
    let copied = std::fs::read(latch(dir.path())).unwrap();
    store.mirror("main").unwrap();
    assert_eq!(std::fs::read(latch(dir.path())).unwrap(), copied, "one second copy is enough");
    drop(store);
    for slot in [0, 1] {
        let mut bytes = copied.clone();
        bytes[slot * SLOT + 40] ^= 1;
        std::fs::write(latch(dir.path()), &bytes).unwrap();
        assert_eq!(reopened(dir.path()).get("main"), Some(&record(2)));
    }
}

#[test]
fn two_damaged_slots_stop_the_start_name_file_and_remedy_and_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for damage in [vec![0; 2 * SLOT], Vec::new(), vec![7; 2 * SLOT], vec![0; SLOT - 1]] {
        let (store, _) = Store::open(dir.path(), "a").unwrap();
        store.write("main", &record(1)).unwrap();
        drop(store);
        std::fs::write(latch(dir.path()), &damage).unwrap();
        let error = Store::open(dir.path(), "a").unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let text = error.to_string();
        for part in
            [latch(dir.path()).to_str().unwrap(), "nothing was overwritten", "Move the file away", "proxyctl adopt"]
        {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert_eq!(std::fs::read(latch(dir.path())).unwrap(), damage);
        std::fs::rename(latch(dir.path()), dir.path().join("kept")).unwrap();
        assert_eq!(reopened(dir.path()), HashMap::new(), "moved away, it starts as without a latch");
    }
}

#[test]
fn a_file_of_another_pair_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    store.write("main", &record(1)).unwrap();
    store.write("other", &record(9)).unwrap();
    drop(store);
    std::fs::copy(latch(dir.path()), dir.path().join("other.pair/latch")).unwrap();
    let error = Store::open(dir.path(), "a").unwrap_err().to_string();
    assert!(error.contains("belongs to the pair \"main\""), "{error}");
}

#[test]
fn a_failed_sync_condemns_the_slot_until_it_reads_back_and_never_risks_the_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let unverifiable = Arc::new(AtomicBool::new(false));
    let (sync, verify) = (broken.clone(), unverifiable.clone());
    let faults = Faults::ask(move |op| match op {
        Operation::SyncSlot if sync.load(Ordering::Relaxed) => Some(Fault::Error(ErrorKind::Other)),
        Operation::VerifySlot if verify.load(Ordering::Relaxed) => Some(Fault::Error(ErrorKind::Other)),
        _ => None,
    });
    let (store, _) = Store::open_with(dir.path(), "a", faults).unwrap();
    store.write("main", &record(1)).unwrap();
    let good = std::fs::read(latch(dir.path())).unwrap()[..SLOT].to_vec();
    broken.store(true, Ordering::Relaxed);
    for n in 2..6 {
        store.write("main", &record(n)).unwrap_err();
        store.touch("main").unwrap_err();
        assert_eq!(std::fs::read(latch(dir.path())).unwrap()[..SLOT], good);
    }
    broken.store(false, Ordering::Relaxed);
    unverifiable.store(true, Ordering::Relaxed);
    store.write("main", &record(6)).unwrap_err();
    assert_eq!(std::fs::read(latch(dir.path())).unwrap()[..SLOT], good);
    unverifiable.store(false, Ordering::Relaxed);
    store.write("main", &record(7)).unwrap();
    unverifiable.store(true, Ordering::Relaxed);
    store.write("main", &record(8)).unwrap();
    drop(store);
    assert_eq!(reopened(dir.path()).get("main"), Some(&record(8)));
}

#[test]
fn a_record_that_does_not_fit_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    store.write("main", &record(1)).unwrap();
    let before = std::fs::read(latch(dir.path())).unwrap();
    let mut long = record(2);
    long.latch.as_mut().unwrap().why = "x".repeat(super::super::CAPACITY);
    let error = store.write("main", &long).unwrap_err();
    assert!(matches!(error, StoreError::Oversize { limit: 4068, .. }), "{error}");
    assert_eq!(std::fs::read(latch(dir.path())).unwrap(), before);
    let exact = super::super::encoded_len("main", &long).unwrap() - super::super::CAPACITY;
    long.latch.as_mut().unwrap().why.truncate(super::super::CAPACITY - exact);
    store.write("main", &long).unwrap();
    drop(store);
    assert_eq!(reopened(dir.path()).get("main"), Some(&long));
}

#[test]
fn the_state_is_for_the_daemon_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b/state");
    let (store, _) = Store::open(&state, "a").unwrap();
    store.touch("main").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("main.pair")), 0o700);
    assert_eq!(mode(&latch(&state)), 0o600);
    assert_eq!(mode(&state.join("lock")), 0o600);
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_its_remedy() {
    // Nobody, not even root, makes a directory there.
    let error = Store::open(Path::new("/sys/pgpivot-state"), "a").unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("/sys/pgpivot-state") && text.contains("set [state] path"), "{text}");
}

#[test]
fn a_second_daemon_is_refused_while_the_first_one_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Store::open(dir.path(), "left:1").unwrap();
    let error = Store::open(dir.path(), "right:2").unwrap_err().to_string();
    assert!(error.contains("in use by daemon left:1"), "{error}");
    drop(first);
    Store::open(dir.path(), "right:2").unwrap();
}

#[test]
fn a_state_file_taken_away_under_a_running_daemon_is_noticed_at_the_next_touch() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "a").unwrap();
    store.write("main", &record(1)).unwrap();
    let aside = dir.path().join("aside");
    std::fs::rename(latch(dir.path()), &aside).unwrap();
    assert!(matches!(store.touch("main"), Err(StoreError::Moved { .. })));
    std::fs::copy(&aside, latch(dir.path())).unwrap();
    assert!(matches!(store.write("main", &record(2)), Err(StoreError::Moved { .. })));
    std::fs::rename(&aside, latch(dir.path())).unwrap();
    store.write("main", &record(3)).unwrap();
}

#[test]
fn names_of_pairs_make_names_of_directories_and_come_back() {
    for name in ["main", "a/b", "..", "Größe 1", "x.pair", "%41"] {
        let dir = dir_name(name).unwrap();
        assert!(!dir.contains('/') && !dir.starts_with('.'), "{dir}");
        assert_eq!(pair_name(OsStr::new(&dir)).as_deref(), Some(name));
    }
    for strange in ["lock", "%4.pair", "%zz.pair", "%41.pair", "a b.pair", ".pair"] {
        assert_eq!(pair_name(OsStr::new(strange)), None, "{strange}");
    }
    assert!(matches!(dir_name(""), Err(StoreError::PairName(_))));
    assert!(matches!(dir_name(&"x".repeat(81)), Err(StoreError::PairName(_))));
}

#[test]
fn a_file_where_the_state_directory_belongs_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    std::fs::write(&file, "mine").unwrap();
    let said = Store::open(&file, "a").unwrap_err().to_string();
    assert!(said.contains("something else stands there") && said.contains("set another [state] path"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn on_a_full_disk_the_record_still_changes_and_what_cannot_be_made_names_the_remedy() {
    // A real file system of 256 KiB, in a mount namespace that ends with the process.
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(dir.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "store::file::tests::inside_a_small_file_system", "--ignored", "--nocapture"]);
    let output = command.env("PGPIVOT_TEST_SMALL_DISK", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the test before runs it inside a small file system"]
fn inside_a_small_file_system() {
    let dir = PathBuf::from(std::env::var_os("PGPIVOT_TEST_SMALL_DISK").unwrap());
    let (store, _) = Store::open(&dir, "a").unwrap();
    store.write("main", &record(1)).unwrap();
    while std::fs::write(dir.join("ballast"), vec![1; 300 << 10]).is_ok() {}
    for n in 2..10 {
        store.write("main", &record(n)).unwrap();
    }
    let error = store.write("other", &record(1)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    std::fs::remove_file(dir.join("ballast")).unwrap();
    store.write("other", &record(1)).unwrap();
    drop(store);
    let found = reopened(&dir);
    assert_eq!((found.get("main"), found.get("other")), (Some(&record(9)), Some(&record(1))));
}

#[cfg(feature = "crash-points")]
mod crash_points {
    //! The process is killed at every listed point; its restart finds the record before or the one after.

    use std::os::unix::process::ExitStatusExt;

    use super::super::super::crash::{Step, When};
    use super::*;
    use crate::failover::phase::{EpisodeKind, Intent, Stage};

    #[test]
    fn killed_at_any_point_a_restart_finds_the_record_before_or_after_and_after_the_sync_only_the_new_one() {
        for (step, when) in CRASH_POINTS {
            let dir = tempfile::tempdir().unwrap();
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "store::file::tests::crash_points::the_life_of_a_record", "--ignored"]);
            command.env("PGPIVOT_CRASH_AT", format!("{step}:{when}")).env("PGPIVOT_TEST_STATE", dir.path());
            let output = command.output().unwrap();
            assert_eq!(output.status.signal(), Some(9), "{step}:{when}: {output:?}");
            let found = reopened(dir.path()).remove("main").unwrap();
            let life = life();
            let after = life.iter().position(|(name, _)| *name == step).unwrap();
            let before = if after == 0 { Record::default() } else { life[after - 1].1.clone() };
            let allowed = match when {
                When::Before => vec![&before],
                When::Between => vec![&before, &life[after].1],
                When::After => vec![&life[after].1],
            };
            assert!(allowed.contains(&&found), "{step}:{when} left {found:?}");
        }
    }

    #[test]
    #[ignore = "the test before runs it in processes of its own"]
    fn the_life_of_a_record() {
        let dir = PathBuf::from(std::env::var_os("PGPIVOT_TEST_STATE").unwrap());
        let (store, _) = Store::open(&dir, "a").unwrap();
        for (_, record) in life() {
            store.write("main", &record).unwrap();
        }
    }

    /// One record per step, each named by how it follows the one before.
    fn life() -> Vec<(Step, Record)> {
        let at = |stage| {
            Some(Intent {
                id: EpisodeId(1),
                epoch: Epoch(2),
                from: Some("a".into()),
                to: "b".into(),
                kind: EpisodeKind::Switchover,
                stage,
                why: "why".into(),
                decided_at: WallTime(5),
                operator: None,
                forced: false,
                stream: None,
                frozen_at: None,
                fenced: false,
            })
        };
        let first = record(1);
        let with = |stage| Record { intent: at(stage), ..first.clone() };
        let owed = Record { frozen: vec!["a".into()], ..first.clone() };
        let life = vec![
            (Step::Latch, first.clone()),
            (Step::Intent, with(Stage::Intent)),
            (Step::Freezing, with(Stage::Freezing)),
            (Step::Cancelled, owed),
            (Step::Unfrozen, first.clone()),
            (Step::Sent, with(Stage::Sent)),
            (Step::Latched, record(2)),
            (Step::Note, Record { other_daemon_seen: Some(WallTime(1)), ..record(2) }),
        ];
        let mut before = Record::default();
        for (step, record) in &life {
            assert_eq!(Step::between(&before, record), *step);
            before = record.clone();
        }
        life
    }
}

fn record(n: u64) -> Record {
    let latch = Latch {
        replication: None,
        active: "us-east".into(),
        epoch: Epoch(n),
        since: WallTime(1_700_000_000_000_000),
        why: format!("the {n}th decision {}", "of many ".repeat((n % 50) as usize)),
        identity: None,
        route_only: false,
        cluster: None,
        follower: None,
    };
    Record { latch: Some(latch), last_episode: EpisodeId(n), ..Record::default() }
}

fn latch(dir: &Path) -> PathBuf {
    dir.join("main.pair/latch")
}

fn reopened(dir: &Path) -> HashMap<String, Record> {
    Store::open(dir, "a").unwrap().1
}
