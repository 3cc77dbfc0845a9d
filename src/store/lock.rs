//! The lock of a state directory: an exclusive `flock` on a file that names its holder.
//! The kernel releases it with the process, so a stale file locks nobody out.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Doing, Holder, StoreError};
use crate::types::WallTime;

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `dir` in the name of `daemon`, at once or not at all.
    pub(super) fn take(dir: &Path, daemon: &str) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|error| StoreError::io(&path, Doing::Open, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: dir.to_path_buf(), holder: holder(&file) });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io(&path, Doing::Lock, error)),
        }
        let text = format!("pid {}\nsince {}\ndaemon {daemon}\n", std::process::id(), now());
        let named = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        named.map_err(|error| StoreError::io(&path, Doing::Write, error))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &File) -> Holder {
    let mut bytes = [0; 1024];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    parse(&String::from_utf8_lossy(&bytes[..length])).unwrap_or(Holder::Unnamed)
}

fn parse(text: &str) -> Option<Holder> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let pid = value("pid ")?.parse().ok()?;
    Some(Holder::Daemon { pid, name: value("daemon ")?.to_owned(), since: value("since ")?.to_owned() })
}

/// The wall clock.
pub(super) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), "db-a:77").unwrap();
        let error = Lock::take(dir.path(), "other").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Locked { .. }));
        assert!(text.contains("daemon db-a:77"), "{text}");
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains("stop it, or give this daemon another [state] path"), "{text}");
        drop(first);
        Lock::take(dir.path(), "other").unwrap();
    }

    #[test]
    fn a_name_that_a_dead_daemon_left_locks_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "pid 1\nsince then\ndaemon dead with a very long name\n").unwrap();
        drop(Lock::take(dir.path(), "next").unwrap());
        let text = std::fs::read_to_string(dir.path().join("lock")).unwrap();
        assert!(text.ends_with("daemon next\n"), "{text}");
    }

    #[test]
    fn a_lock_file_that_says_nothing_is_said_to_say_nothing() {
        assert_eq!(parse("garbage"), None);
        assert!(Holder::Unnamed.to_string().contains("has not written its name"));
    }
}
