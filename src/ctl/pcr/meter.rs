//! Progress of a long wait, and the wish not to wait any longer. A bar on a terminal; elsewhere lines, at every step and
//! now and then between.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ctl::render::{duration, plain};
use crate::ctl::terminal::Terminal;
use crate::pcr::Progress;

/// Between two lines that tell of the same step.
const SELDOM: Duration = Duration::from_secs(30);

/// The progress of one wait.
pub(super) struct Meter<'t> {
    terminal: &'t Terminal,
    bar: Option<ProgressBar>,
    began: Instant,
    shown: Option<(u64, String, Instant)>,
}

impl<'t> Meter<'t> {
    pub(super) fn new(terminal: &'t Terminal) -> Self {
        let bar = terminal.progress.then(|| {
            let bar = ProgressBar::new(1);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} [{bar:12}] {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { terminal, bar, began: Instant::now(), shown: None }
    }

    /// A closed stderr is no reason to give a wait up: it is not looked at.
    pub(super) fn show(&mut self, progress: &Progress) {
        let sentence = plain(&progress.sentence);
        if let Some(bar) = &self.bar {
            bar.set_length(progress.of);
            bar.set_position(progress.done);
            bar.set_message(sentence);
            return;
        }
        let due = match &self.shown {
            None => true,
            Some((done, said, at)) => *done != progress.done || *said != sentence && at.elapsed() >= SELDOM,
        };
        if due {
            let _ = self.terminal.talk(&format!("{:>8}  {sentence}", duration(self.began.elapsed())));
            self.shown = Some((progress.done, sentence, Instant::now()));
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Ctrl-C, SIGTERM and the end of the terminal, from the moment it is made on: the process does not end by them any more.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one, also one that came meanwhile. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
