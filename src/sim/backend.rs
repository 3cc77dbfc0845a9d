//! The two servers of a simulated pair as processes: sockets, crashes, restarts. What they know is `model`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::database::{Dialect, Host};
use super::eval::{Context, Session};
use super::model::{Entry, Model, Side};
use super::postgres::{Effect, Server};
use super::statement::Statement;
use crate::types::SystemId;

/// The same for every simulated pair.
const SYSTEM_ID: SystemId = SystemId(7_500_000_000_000_000_001);
/// For the tasks of a server that was killed.
const END: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Two simulated servers, East as primary and West as its standby. Dropped, it crashes both.
#[derive(Debug)]
pub struct Pair(Arc<Shared>);

/// What the tasks of a pair share.
#[derive(Debug)]
pub(super) struct Shared {
    model: Mutex<Model>,
    lives: Mutex<[Option<Life>; 2]>,
    pids: AtomicU32,
}

/// A client's place at a server.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    side: Side,
    effect: Mutex<Option<Effect>>,
}

/// A server from its start to its crash.
#[derive(Debug, Clone)]
struct Life {
    end: CancellationToken,
    tasks: TaskTracker,
}

impl Pair {
    /// Starts both on the current tokio runtime, empty. Port 0 = any free one.
    pub async fn start(addresses: [SocketAddr; 2]) -> io::Result<Self> {
        let east = TcpListener::bind(addresses[0]).await?;
        let west = TcpListener::bind(addresses[1]).await?;
        let model = Model::new(SYSTEM_ID, [east.local_addr()?, west.local_addr()?]);
        let shared = Shared { model: Mutex::new(model), lives: Mutex::default(), pids: AtomicU32::new(1_000) };
        let pair = Self(Arc::new(shared));
        pair.0.serve(Side::East, east);
        pair.0.serve(Side::West, west);
        Ok(pair)
    }

    /// Where a server listens.
    pub fn address(&self, side: Side) -> SocketAddr {
        self.0.model().address(side)
    }

    /// Crashes a server: its connections are reset, connects are refused. Returns when that is so.
    pub async fn kill(&self, side: Side) {
        self.0.kill(side).await;
    }

    /// Starts a server that is down, as it was: a primary comes back as a primary.
    pub async fn revive(&self, side: Side) -> io::Result<()> {
        self.0.revive(side).await
    }

    /// Crashes a server and makes it a standby of the other one, as after `pg_basebackup`. `Ok(false)` when the other
    /// one is no running primary; then nothing has changed.
    pub async fn rebuild(&self, side: Side) -> io::Result<bool> {
        self.0.rebuild(side).await
    }

    /// Makes a standby primary; `false` when it is one already, or down.
    pub fn promote(&self, side: Side) -> bool {
        let mut model = self.0.model();
        model.node(side).alive && model.at(side, super::now()).promote()
    }

    /// How far behind the standby receives; zero at first.
    pub fn set_lag(&self, lag: Duration) {
        self.0.model().lag = lag;
    }

    /// Whether a server runs, and as a primary.
    pub fn is_primary(&self, side: Side) -> bool {
        self.0.model().is_primary(side)
    }

    /// The ids in a server's table, ascending, also while it is down.
    pub fn ids(&self, side: Side) -> Vec<i64> {
        self.0.model().at(side, super::now()).rows.keys().copied().collect()
    }

    /// Client sessions of a server.
    pub fn sessions(&self, side: Side) -> usize {
        self.0.model().node(side).sessions.len()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in Side::BOTH {
            self.0.crash(side);
        }
    }
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, side: Side) -> Self {
        Self { shared, side, effect: Mutex::default() }
    }

    fn effect(&self) -> MutexGuard<'_, Option<Effect>> {
        self.effect.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Seat {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn context<T>(&self, session: &mut Session, run: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let (mut model, now) = (self.shared.model(), super::now());
        // What has arrived by now has been received.
        model.at(self.side, now);
        let mut server = Server { model: &mut model, side: self.side, effect: None };
        let result = run(&mut Context { server: &mut server, session, now });
        if let Some(effect) = server.effect {
            self.effect().get_or_insert(effect);
        }
        result
    }

    async fn wait(&self, _: &Statement) {}

    fn has_effect(&self) -> bool {
        self.effect().is_some()
    }

    fn carry_out(&self) {
        let effect = self.effect().take();
        if let Some(effect) = effect {
            self.shared.carry_out(effect, self.side);
        }
    }
}

impl Shared {
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_pid(&self) -> u32 {
        self.pids.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a session on its server's list; `false` = the server is full, or down.
    pub(super) fn enter(&self, side: Side, pid: u32, entry: Entry, most: usize) -> bool {
        let mut model = self.model();
        let node = model.at(side, super::now());
        let room = node.alive && node.sessions.len() < most;
        if room {
            node.sessions.insert(pid, entry);
        }
        room
    }

    /// Does what a statement asked for beyond its answer.
    fn carry_out(self: &Arc<Self>, effect: Effect, side: Side) {
        let other = side.other();
        let life = self.lives()[side as usize].clone();
        match (effect, life) {
            (Effect::Crash, _) => drop(self.crash(side)),
            (Effect::Revive | Effect::Rebuild, Some(life)) => {
                let shared = self.clone();
                life.tasks.spawn(async move {
                    let started = match effect {
                        Effect::Rebuild => shared.rebuild(other).await,
                        _ => shared.revive(other).await.map(|()| true),
                    };
                    tracing::info!(?started, ?effect, side = other.as_str(), "simulated server");
                });
            }
            (_, None) => {}
        }
    }

    fn crash(&self, side: Side) -> Option<Life> {
        self.model().kill(side, super::now());
        let life = self.lives()[side as usize].take()?;
        life.end.cancel();
        life.tasks.close();
        Some(life)
    }

    async fn kill(&self, side: Side) {
        if let Some(life) = self.crash(side)
            && timeout(END, life.tasks.wait()).await.is_err()
        {
            tracing::warn!(side = side.as_str(), "a simulated server did not end in time");
        }
    }

    async fn rebuild(self: &Arc<Self>, side: Side) -> io::Result<bool> {
        if !self.model().is_primary(side.other()) {
            return Ok(false);
        }
        self.kill(side).await;
        let rebuilt = self.model().rebuild(side);
        self.revive(side).await.map(|()| rebuilt)
    }

    async fn revive(self: &Arc<Self>, side: Side) -> io::Result<()> {
        let (address, alive) = {
            let model = self.model();
            (model.address(side), model.node(side).alive)
        };
        if alive {
            return Ok(());
        }
        let listener = bind(address).await?;
        self.model().revive(side);
        self.serve(side, listener);
        Ok(())
    }

    fn serve(self: &Arc<Self>, side: Side, listener: TcpListener) {
        let life = Life { end: CancellationToken::new(), tasks: TaskTracker::new() };
        life.tasks.spawn(accept(listener, self.clone(), side, life.clone()));
        self.lives()[side as usize] = Some(life);
    }

    fn lives(&self) -> MutexGuard<'_, [Option<Life>; 2]> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of a server that crashed a moment ago may still be closing.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const TRIES: u32 = 40;
    let mut tries = 1;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => sleep(ACCEPT_PAUSE).await,
            result => return result,
        }
        tries += 1;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, side: Side, life: Life) {
    let connections = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    life.tasks.spawn(connection::serve(stream, shared.clone(), side, life.end.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = life.end.cancelled() => {}
        () = connections => {}
    }
}
