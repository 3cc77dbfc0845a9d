//! Runs one command of the operator's: argv without a shell, in a process group of its own, with an end in any case and
//! bounded ears. What its exit status means is the caller's business.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::error::{EffectError, Ended};
use crate::types::{BackendName, Epoch};

/// Kept of each stream, bytes; the beginning goes.
const HEARD: usize = 64 << 10;
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// For what a command that ended has still in its pipes; a child it left behind may hold them open for ever.
const AFTERWARDS: Duration = Duration::from_millis(200);
/// Of the last line, characters.
const SAID: usize = 500;
const POLL: Duration = Duration::from_millis(20);

/// What is put in place of `{backend}`, `{primary}`, `{address}` and `{epoch}`.
#[derive(Debug)]
pub(super) struct Values<'a> {
    pub(super) backend: &'a BackendName,
    /// Only where there is one beside it.
    pub(super) primary: Option<&'a BackendName>,
    pub(super) address: String,
    pub(super) epoch: Epoch,
}

impl Values<'_> {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let primary = self.primary.map(|primary| ("{primary}", primary.to_string()));
        let rest = [
            ("{backend}", self.backend.to_string()),
            ("{address}", self.address.clone()),
            ("{epoch}", self.epoch.to_string()),
        ];
        rest.into_iter().chain(primary).collect()
    }
}

/// How it ended, and the last line it wrote to stderr.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) ended: Ended,
    pub(super) said: String,
}

/// Puts the values in. Each argument stays one argument, whatever a value contains.
pub(super) fn argv(template: &[String], values: &Values<'_>) -> Vec<String> {
    filled(template, &values.pairs())
}

/// The same with any placeholders.
pub(super) fn filled(template: &[String], values: &[(&'static str, String)]) -> Vec<String> {
    let fill = |arg: &String| {
        let (mut out, mut rest) = (String::new(), arg.as_str());
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let known = values.iter().find(|(name, _)| from.starts_with(name));
            let (text, length) = known.map_or(("{", 1), |(name, value)| (value.as_str(), name.len()));
            out.push_str(text);
            rest = &from[length..];
        }
        out + rest
    };
    template.iter().map(fill).collect()
}

/// Runs the command to its end: by itself, or by SIGTERM to its group after `patience` and SIGKILL 5 s later. What it
/// wrote is logged. Dropped before, it sends SIGTERM to the group.
pub(super) async fn run(argv: &[String], patience: Duration) -> Result<Finished, EffectError> {
    let program = argv.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(argv.iter().skip(1)).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| EffectError::Start { program: program.clone(), source })?;
    tracing::info!(%program, pid = child.id(), "command started");
    let (mut out, mut err) = (Tail::default(), Tail::default());
    let ended = {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut hearing = pin!(async { tokio::join!(out.hear(stdout), err.hear(stderr)) });
        let mut ending = pin!(end(&mut child, patience));
        let mut closed = false;
        let ended = loop {
            tokio::select! {
                ended = &mut ending => break ended,
                _ = &mut hearing, if !closed => closed = true,
            }
        };
        if !closed {
            let _ = timeout(AFTERWARDS, hearing).await;
        }
        ended
    };
    out.log(&program, "stdout");
    err.log(&program, "stderr");
    tracing::info!(%program, %ended, "command ended");
    Ok(Finished { ended, said: err.last_line() })
}

async fn end(child: &mut Child, patience: Duration) -> Ended {
    let mut group = Group::of(child);
    let ended = match timeout(patience, child.wait()).await {
        Ok(Ok(status)) => of_status(status),
        Ok(Err(_)) => Ended::Unseen,
        Err(_) => {
            group.signal(Signal::TERM);
            group.leader_ended(GRACE).await;
            // The leader is not reaped yet, so the number still means this group: whoever is left in it must not go
            // on promoting.
            group.signal(Signal::KILL);
            let _ = timeout(GRACE, child.wait()).await;
            Ended::TimedOut(patience)
        }
    };
    group.0 = None;
    ended
}

pub(super) fn of_status(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Unseen,
    }
}

/// The command's process group, as long as its leader was not reaped. Dropped before that, it gets SIGTERM.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Gone already is as good as gone now.
            let _ = kill_process_group(group, signal);
        }
    }

    async fn leader_ended(&self, patience: Duration) {
        let Some(leader) = self.0 else { return };
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let deadline = Instant::now() + patience;
        while matches!(waitid(WaitId::Pid(leader), how), Ok(None)) && Instant::now() < deadline {
            sleep(POLL).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// The end of what a stream carried.
#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
    lost: usize,
}

impl Tail {
    async fn hear(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            self.bytes.extend(&chunk[..length]);
            let excess = self.bytes.len().saturating_sub(HEARD);
            self.bytes.drain(..excess);
            self.lost += excess;
        }
    }

    fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }

    fn log(&self, program: &str, stream: &str) {
        if self.lost > 0 {
            tracing::info!(program, stream, lost = self.lost, "command wrote more than is kept");
        }
        for line in self.text().lines().filter(|line| !line.trim().is_empty()) {
            tracing::info!(program, stream, line, "command wrote");
        }
    }

    fn last_line(&self) -> String {
        let text = self.text();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().chars().take(SAID).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_end_and_the_last_words_of_a_command_are_told() {
        let finished = run(&shell("echo out; echo first >&2; echo last >&2; echo >&2; exit 3"), LONG).await.unwrap();
        assert_eq!(finished, Finished { ended: Ended::Exit(3), said: "last".into() });
        let finished = run(&shell("kill -9 $$"), LONG).await.unwrap();
        assert_eq!(finished.ended, Ended::Signal(9));
        let error = run(&["/nonexistent/promote".to_owned()], LONG).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/promote could not be started"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_floods_its_output_neither_hangs_nor_fills_the_memory() {
        let script =
            "head -c 3000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2; echo >&2; echo end >&2";
        let finished = run(&shell(script), LONG).await.unwrap();
        assert_eq!(finished, Finished { ended: Ended::Exit(0), said: "end".into() });
    }

    #[tokio::test]
    async fn a_command_that_closes_its_streams_is_waited_for() {
        let finished = run(&shell("exec >&- 2>&-; sleep 0.3; exit 4"), LONG).await.unwrap();
        assert_eq!(finished.ended, Ended::Exit(4));
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_not_waited_for() {
        let started = Instant::now();
        let finished = run(&shell("sleep 7 & exit 0"), LONG).await.unwrap();
        assert_eq!(finished.ended, Ended::Exit(0));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_ended_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
        let finished = run(&shell(&script), Duration::from_millis(300)).await.unwrap();
        assert_eq!(finished.ended, Ended::TimedOut(Duration::from_millis(300)));
        let text = std::fs::read_to_string(pids).unwrap();
        for pid in text.split_whitespace() {
            assert!(!lives(pid), "{pid} lives");
        }
    }

    #[tokio::test]
    async fn a_command_deaf_to_sigterm_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        // The leader obeys, its child does not.
        let script = format!("(trap '' TERM; sleep 600 & echo $! > {}; wait; wait) & sleep 600", pids.display());
        let finished = run(&shell(&script), Duration::from_millis(500)).await.unwrap();
        assert_eq!(finished.ended, Ended::TimedOut(Duration::from_millis(500)));
        let pid = std::fs::read_to_string(pids).unwrap();
        assert!(!lives(pid.trim()), "{pid} lives");
    }

    #[test]
    fn values_stay_within_their_argument() {
        let template = ["x", "--to={backend}", "{address}/{epoch}", "{unknown} {", "{{epoch}}"].map(str::to_owned);
        let backend = BackendName::new("we st; {epoch}");
        let values = Values { backend: &backend, primary: None, address: "10.0.0.1:5432".into(), epoch: Epoch(7) };
        let expected = ["x", "--to=we st; {epoch}", "10.0.0.1:5432/7", "{unknown} {", "{7}"];
        assert_eq!(argv(&template, &values), expected);
    }

    /// Does it run? A zombie does not; a killed process may take a moment.
    fn lives(pid: &str) -> bool {
        for _ in 0..100 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
                None | Some('Z') => return false,
                Some(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        true
    }
}
