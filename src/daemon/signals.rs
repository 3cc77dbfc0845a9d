//! Signals and what systemd is told. SIGHUP reloads; SIGTERM or SIGINT stops, a second one ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Listens for signals until the daemon ends. The task ends with the second stop.
pub fn listen(
    stop: CancellationToken,
    halt: CancellationToken,
) -> std::io::Result<(mpsc::Receiver<()>, JoinHandle<()>)> {
    let (reload, reloads) = mpsc::channel(1);
    let mut hup = signal(SignalKind::hangup())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hup.recv() => {
                    // One reload is waiting already: it will read the newest file.
                    let _ = reload.try_send(());
                    continue;
                }
                Some(()) = term.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
                Some(()) = int.recv() => tracing::info!(signal = "SIGINT", "stopping"),
                else => return,
            }
            if stop.is_cancelled() {
                halt.cancel();
                return;
            }
            stop.cancel();
        }
    });
    Ok((reloads, task))
}

/// Tells systemd, where there is one.
pub(super) fn notify(wanted: bool, state: sd_notify::NotifyState<'_>) {
    if wanted && let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Tells systemd that a reload is under way: `Type=notify-reload` wants the moment with it.
pub(super) fn notify_reloading(wanted: bool) {
    if wanted {
        let micros = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(micros.tv_sec) * 1_000_000 + i128::from(micros.tv_nsec / 1000);
        let monotonic = sd_notify::NotifyState::MonotonicUsec(micros);
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Reloading, monotonic]) {
            tracing::debug!(%error, "systemd could not be told");
        }
    }
}
