//! Runs the command that makes an old primary a standby. It may take an hour and must not be torn in the middle: it
//! writes to a file instead of to us, outlives this daemon, and is found again by the next one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::EffectError;
use super::error::Ended;
use crate::failover::action::Rejoining;
use crate::failover::phase::Process;

/// Between two looks at the process and its file.
const POLL: Duration = Duration::from_millis(200);
/// Between two lines that are told.
const TELL: Duration = Duration::from_secs(1);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Read of the file at a time, bytes; what lies between is not told.
const CHUNK: u64 = 16 << 10;
/// Of a line, characters.
const LINE: usize = 300;

/// Runs it, or takes up one that runs, to its end: by itself, at the deadline, or when it is called off. Its stdout and
/// stderr go to `file`.
pub(super) async fn run(
    argv: &[String],
    file: &Path,
    running: Option<Process>,
    patience: Duration,
    off: &CancellationToken,
    tell: &impl Fn(Rejoining),
) {
    let deadline = Instant::now() + patience;
    let mut ears = Ears::new(file);
    let mut found = match running {
        Some(process) => Found { process, child: None },
        None => match start(argv, file) {
            Ok(found) => {
                tell(Rejoining::Started(found.process));
                found
            }
            Err(error) => return tell(Rejoining::Failed(error.to_string())),
        },
    };
    let program = argv.first().cloned().unwrap_or_default();
    let ended = loop {
        if let Some(ended) = found.ended() {
            break Some(ended);
        }
        if Instant::now() >= deadline {
            found.end().await;
            break Some(Ended::TimedOut(patience));
        }
        if let Some(line) = ears.line().await {
            tell(Rejoining::Said(line));
        }
        tokio::select! {
            () = sleep(POLL) => {}
            () = off.cancelled() => {
                found.end().await;
                break None;
            }
        }
    };
    let Some(ended) = ended else { return };
    let last = ears.last().await;
    tracing::info!(%program, %ended, "rejoin command ended");
    tell(match ended {
        Ended::Exit(0) => Rejoining::Done,
        Ended::Unseen => Rejoining::Unseen,
        ended => Rejoining::Failed(EffectError::Command { program, ended, said: last }.to_string()),
    });
}

/// In a process group of its own, so that the end of this daemon's does not reach it.
fn start(argv: &[String], file: &Path) -> Result<Found, EffectError> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |source: io::Error| EffectError::Start { program: program.clone(), source };
    let written = File::create(file).map_err(failed)?;
    let mut command = Command::new(&program);
    command.args(argv.iter().skip(1)).process_group(0);
    command.stdin(Stdio::null()).stdout(written.try_clone().map_err(failed)?).stderr(written);
    let child = command.spawn().map_err(failed)?;
    let pid = child.id().unwrap_or_default();
    tracing::info!(%program, pid, file = %file.display(), "rejoin command started");
    Ok(Found { process: Process { pid, started: started(pid).unwrap_or_default() }, child: Some(child) })
}

/// The command's leader, ours or a former daemon's child.
struct Found {
    process: Process,
    child: Option<Child>,
}

impl Found {
    /// How it ended, once it has.
    fn ended(&mut self) -> Option<Ended> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(super::process::of_status(status)),
                Err(_) => Some(Ended::Unseen),
            },
            None => (started(self.process.pid) != Some(self.process.started)).then_some(Ended::Unseen),
        }
    }

    /// SIGTERM to its group, SIGKILL to whoever is left 5 s later.
    async fn end(&mut self) {
        let deadline = Instant::now() + GRACE;
        self.signal(Signal::TERM);
        while self.ended().is_none() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        // The leader's number is nobody else's as long as its group has a member.
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.process.pid).ok().and_then(Pid::from_raw) {
            // Gone already is as good as gone now.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// When the process of that number started, in clock ticks; `None` = there is none, or it is dead and not yet buried.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// Reads what the command writes, and gives its newest line now and then.
struct Ears {
    file: PathBuf,
    at: u64,
    told: Option<Instant>,
    last: String,
    fresh: bool,
}

impl Ears {
    fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), at: 0, told: None, last: String::new(), fresh: false }
    }

    /// A line that was not told yet, at most one a second.
    async fn line(&mut self) -> Option<String> {
        self.read().await;
        let due = self.told.is_none_or(|at| at.elapsed() >= TELL);
        (self.fresh && due).then(|| {
            (self.fresh, self.told) = (false, Some(Instant::now()));
            self.last.clone()
        })
    }

    /// The last line of all.
    async fn last(&mut self) -> String {
        self.read().await;
        self.last.clone()
    }

    async fn read(&mut self) {
        let Ok(mut file) = tokio::fs::File::open(&self.file).await else { return };
        let length = file.metadata().await.map_or(0, |metadata| metadata.len());
        if length <= self.at {
            return;
        }
        let from = self.at.max(length.saturating_sub(CHUNK));
        let mut bytes = Vec::new();
        if file.seek(io::SeekFrom::Start(from)).await.is_err()
            || file.take(CHUNK).read_to_end(&mut bytes).await.is_err()
        {
            return;
        }
        self.at = length;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A progress line is overwritten where a terminal would show it.
        if let Some(line) = text.rsplit(['\n', '\r']).map(str::trim).find(|line| !line.is_empty()) {
            let line: String = line.chars().filter(|c| !c.is_control()).take(LINE).collect();
            self.fresh |= line != self.last;
            self.last = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn heard(script: &str, patience: Duration) -> Vec<Rejoining> {
        let folder = tempfile::tempdir().unwrap();
        let news = Mutex::new(Vec::new());
        let tell = |one| news.lock().unwrap().push(one);
        run(&shell(script), &folder.path().join("said"), None, patience, &CancellationToken::new(), &tell).await;
        news.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_command_tells_that_it_runs_what_it_says_and_how_it_ended() {
        let news = heard("echo copying; sleep 0.5; exit 0", LONG).await;
        assert!(matches!(news[0], Rejoining::Started(process) if process.pid > 0 && process.started > 0), "{news:?}");
        assert_eq!(news[1..], [Rejoining::Said("copying".into()), Rejoining::Done]);
        let news = heard("echo first; echo 'no such slot' >&2; exit 4", LONG).await;
        let Some(Rejoining::Failed(said)) = news.last() else { panic!("{news:?}") };
        assert_eq!(said, "/bin/sh ended with exit status 4: no such slot");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_or_is_called_off_is_ended_with_its_children() {
        let news = heard("sleep 600 & wait", Duration::from_millis(300)).await;
        assert!(
            matches!(news.last(), Some(Rejoining::Failed(said)) if said.contains("did not end within")),
            "{news:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        let (news, off) = (Mutex::new(Vec::new()), CancellationToken::new());
        let tell = |one| {
            news.lock().unwrap().push(one);
            off.cancel();
        };
        run(&shell("sleep 600"), &folder.path().join("said"), None, LONG, &off, &tell).await;
        let news = news.into_inner().unwrap();
        let [Rejoining::Started(process)] = news[..] else { panic!("more is told of what was called off: {news:?}") };
        assert_eq!(started(process.pid), None, "it lives");
    }

    #[tokio::test]
    async fn a_command_that_another_process_began_is_waited_for_and_never_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = Process { pid: child.id(), started: started(child.id()).unwrap() };
        let news = Mutex::new(Vec::new());
        let tell = |one| news.lock().unwrap().push(one);
        let file = folder.path().join("said");
        let (argv, off) = (shell("echo again"), CancellationToken::new());
        let waits = run(&argv, &file, Some(process), LONG, &off, &tell);
        let ends = async {
            drop(child.stdin.take());
            tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap()
        };
        tokio::join!(waits, ends);
        assert_eq!(*news.lock().unwrap(), [Rejoining::Unseen]);
        let other = Process { started: process.started + 1, ..process };
        run(&argv, &file, Some(other), LONG, &off, &tell).await;
        assert_eq!(
            *news.lock().unwrap(),
            [Rejoining::Unseen, Rejoining::Unseen],
            "a number used again is another process"
        );
    }
}
