//! The front door of a simulated cluster: its listener, who is in, what a newcomer meets, and how sessions end.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::backend::bind;
use super::super::cloud::Reach;
use super::super::cloud::site::Site;
use super::login::Client;

/// After a failed accept (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For a listener to close.
const CLOSE: Duration = Duration::from_secs(5);

/// A cluster's front door.
#[derive(Debug)]
pub(in crate::sim) struct Gate {
    pub(in crate::sim) address: SocketAddr,
    state: Mutex<State>,
    listener: tokio::sync::Mutex<Option<Open>>,
}

/// What is known of who comes and goes.
#[derive(Debug)]
pub(in crate::sim) struct State {
    pub(in crate::sim) reach: Reach,
    /// STOP SERVICE gets no answer.
    pub(in crate::sim) stop_hangs: bool,
    /// Rises when every connection there is must be reset.
    pub(in crate::sim) generation: u64,
    pub(in crate::sim) sessions: HashMap<u32, Entry>,
    /// Sessions that have ever been let in.
    pub(in crate::sim) logins: u64,
    /// Connections that were accepted.
    pub(in crate::sim) accepted: u64,
    pub(in crate::sim) cancels: Cancels,
    next_pid: u32,
}

/// A session that was let in.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Entry {
    pub(in crate::sim) secret: u32,
    /// On the virtual cluster of the clients.
    pub(in crate::sim) on_main: bool,
}

/// Cancel requests that came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cancels {
    /// All of them.
    pub seen: u64,
    /// Those that named a session of this cluster, and its key.
    pub matched: u64,
}

#[derive(Debug)]
struct Open {
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// What a connection may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Verdict {
    GoOn,
    /// Not a word, until that changes.
    Hang,
    /// Gone without a word.
    Reset,
    /// Its virtual cluster is not served any more.
    Ended,
}

impl Gate {
    pub(in crate::sim) fn new(address: SocketAddr, number: usize) -> Self {
        // Process ids of two clusters differ: a key that reaches the wrong one is seen.
        let next_pid = u32::try_from(number + 1).unwrap_or(1) * 100_000;
        let state = State {
            reach: Reach::Normal,
            stop_hangs: false,
            generation: 0,
            sessions: HashMap::new(),
            logins: 0,
            accepted: 0,
            cancels: Cancels::default(),
            next_pid,
        };
        Self { address, state: Mutex::new(state), listener: tokio::sync::Mutex::default() }
    }

    pub(in crate::sim) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes the listener, if it is not so already.
    pub(in crate::sim) async fn settle(&self, site: &Arc<Site>, cluster: usize, open: bool) -> io::Result<()> {
        let mut listener = self.listener.lock().await;
        match (open, listener.take()) {
            (true, None) => {
                let bound = bind(self.address).await?;
                *listener = Some(serve(bound, site.clone(), cluster));
            }
            (true, already) => *listener = already,
            (false, Some(open)) => {
                open.end.cancel();
                if timeout(CLOSE, open.task).await.is_err() {
                    tracing::warn!(cluster, "a simulated listener did not close in time");
                }
            }
            (false, None) => {}
        }
        Ok(())
    }

    /// Takes a listener over that was bound before.
    pub(in crate::sim) async fn open(&self, bound: TcpListener, site: &Arc<Site>, cluster: usize) {
        *self.listener.lock().await = Some(serve(bound, site.clone(), cluster));
    }

    pub(in crate::sim) fn next_pid(&self) -> u32 {
        let mut state = self.state();
        state.next_pid += 1;
        state.next_pid
    }
}

fn serve(listener: TcpListener, site: Arc<Site>, cluster: usize) -> Open {
    let end = site.stop.child_token();
    let task = site.tasks.spawn(accept(listener, site.clone(), cluster, end.clone()));
    Open { end, task }
}

async fn accept(listener: TcpListener, site: Arc<Site>, cluster: usize, end: CancellationToken) {
    let connections = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    site.tasks.spawn(attend(stream, site.clone(), cluster));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = connections => {}
    }
    // A child process that is just being started may still hold a copy: closing alone would leave it listening.
    let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
}

/// Serves a connection for as long as its cluster lets it.
async fn attend(stream: TcpStream, site: Arc<Site>, cluster: usize) {
    let gate = &site.gates[cluster];
    let pid = gate.next_pid();
    let generation = {
        let mut state = gate.state();
        state.accepted += 1;
        state.generation
    };
    let mut changes = site.changes();
    let mut client = Client::new(stream, site.clone(), cluster, pid);
    let end = {
        let mut run = pin!(client.run());
        loop {
            let verdict = site.verdict(cluster, pid, generation);
            let goes_on = verdict == Verdict::GoOn;
            if !goes_on && verdict != Verdict::Hang {
                break verdict;
            }
            tokio::select! {
                biased;
                () = site.stop.cancelled() => break Verdict::Reset,
                changed = changes.changed() => if changed.is_err() { break Verdict::Reset },
                result = &mut run, if goes_on => {
                    if let Err(error) = result {
                        tracing::debug!(%error, cluster, "simulated connection");
                    }
                    break Verdict::GoOn;
                }
            }
        }
    };
    client.leave(end).await;
}
