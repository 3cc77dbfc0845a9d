//! Signals to processes that a test has started, and to their children.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal; a process that is gone is nobody's trouble.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The direct children of a process: all processes of a PostgreSQL server but its postmaster.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent)).collect()
}

/// Its children, theirs, and so on.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let mut family = children(ancestor);
    let mut next = 0;
    while next < family.len() {
        let more = children(family[next]);
        family.extend(more);
        next += 1;
    }
    family
}

/// Does it still run? A zombie, which a stopped parent cannot bury, does not.
pub fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Is it stopped by a signal?
pub fn is_stopped(pid: u32) -> bool {
    // A zombie runs nothing either, and its stopped parent does not take it away.
    stat(pid).is_none_or(|(state, _)| matches!(state, 'T' | 'Z'))
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks and parentheses itself.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
