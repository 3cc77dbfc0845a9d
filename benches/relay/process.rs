//! What the kernel says a process has used.

use std::path::Path;
use std::time::Duration;

/// CPU time of all threads that live, to the nanosecond.
pub fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.flatten().map(|task| {
        let text = read(&task.path().join("schedstat"));
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(spent.sum())
}

/// Proportional set size, in bytes.
pub fn pss(pid: u32) -> u64 {
    let text = read(Path::new(&format!("/proc/{pid}/smaps_rollup")));
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
