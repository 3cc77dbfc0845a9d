//! One worker thread of a service: a runtime of its own, its accept loops, and the connections they take in, which
//! live and die here. It ends when its handle does.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::task::TaskTracker;

use super::accept;
use super::door::{Door, Shared};
use crate::net::socket::tune;

/// The handle on one thread. Dropping it ends the thread and its connections, without waiting for that.
#[derive(Debug)]
pub(super) struct Worker {
    orders: UnboundedSender<Order>,
    thread: JoinHandle<()>,
    sessions: TaskTracker,
}

/// What the thread is told to do, between two of its own steps.
type Order = Box<dyn FnOnce(&mut Crew) + Send>;

impl Worker {
    /// Starts the thread `service/number`.
    pub(super) fn spawn(shared: Arc<Shared>, number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, orders) = unbounded_channel();
        let sessions = TaskTracker::new();
        let crew = Crew { shared, number, sessions: sessions.clone(), accepts: JoinSet::new(), doors: HashMap::new() };
        // The kernel keeps 15 bytes of it.
        let name = format!("{number}/{}", crew.shared.service);
        let thread = std::thread::Builder::new().name(name).spawn(move || work(runtime, crew, orders))?;
        Ok(Self { orders: sender, thread, sessions })
    }

    /// Begins to accept at a door through this thread's own socket.
    pub(super) fn listen(&self, door: Arc<Door>, socket: TcpListener) {
        self.order(move |crew| crew.begin(door, socket));
    }

    /// The settings changed: accepted sockets inherit the new ones.
    pub(super) fn tune(&self) {
        self.order(|crew| crew.tune());
    }

    /// Ends the thread as a fault of its own would.
    #[cfg(feature = "crash-points")]
    pub(super) fn panic(&self) {
        self.order(|crew| panic!("thread {} was told to panic", crew.number));
    }

    /// Its connections.
    pub(super) fn sessions(&self) -> &TaskTracker {
        &self.sessions
    }

    /// Ends the thread; `false` = it did not end within `patience` and is left alone.
    pub(super) async fn stop(self, patience: Duration) -> bool {
        drop(self.orders);
        let deadline = tokio::time::Instant::now() + patience;
        while !self.thread.is_finished() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.thread.join().is_ok()
    }

    fn order(&self, order: impl FnOnce(&mut Crew) + Send + 'static) {
        // A thread that ended was counted and logged when it did.
        let _ = self.orders.send(Box::new(order));
    }
}

/// What the thread itself has.
#[derive(Debug)]
struct Crew {
    shared: Arc<Shared>,
    number: usize,
    sessions: TaskTracker,
    accepts: JoinSet<()>,
    /// By accept loop: its door, and the socket to begin anew with should the loop panic.
    doors: HashMap<Id, (Arc<Door>, TcpListener)>,
}

/// Counts an end of the thread that nobody asked for.
struct ThreadWatch {
    shared: Arc<Shared>,
    asked: bool,
}

impl Drop for ThreadWatch {
    fn drop(&mut self) {
        if !self.asked {
            tracing::error!(service = %self.shared.service, "worker thread ended");
            self.shared.failures.send_modify(|failures| failures.workers += 1);
        }
    }
}

fn work(runtime: Runtime, crew: Crew, orders: UnboundedReceiver<Order>) {
    let mut watch = ThreadWatch { shared: crew.shared.clone(), asked: false };
    // Dropped before the watch tells: by then its sockets are closed and the other threads have the port.
    let (runtime, mut crew, mut orders) = (runtime, crew, orders);
    runtime.block_on(async {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => order(&mut crew),
                    None => break,
                },
                Some(ended) = crew.accepts.join_next_with_id() => crew.accept_ended(ended),
            }
        }
    });
    watch.asked = true;
}

impl Crew {
    fn tune(&self) {
        let settings = self.shared.settings.load();
        for (door, socket) in self.doors.values() {
            if let Err(error) = tune(socket, &settings.connection) {
                tracing::warn!(listener = %door.address, %error, "socket options not changed");
            }
        }
    }

    fn begin(&mut self, door: Arc<Door>, socket: TcpListener) {
        let listener = socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        match listener {
            Ok(listener) => {
                let accepting = accept::run(listener, door.clone(), self.number, self.sessions.clone());
                let id = self.accepts.spawn(accepting).id();
                self.doors.insert(id, (door, socket));
            }
            Err(error) => {
                tracing::error!(listener = %door.address, %error, "listener lost on one thread");
                self.shared.failures.send_modify(|failures| failures.tasks += 1);
            }
        }
    }

    fn accept_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(e) => (e.id(), e.is_panic()),
        };
        if let Some((door, socket)) = self.doors.remove(&id)
            && panicked
            && !door.closed.is_cancelled()
        {
            self.begin(door, socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::PanicWatch;
    use super::super::tests::proxy::*;

    #[tokio::test]
    async fn a_thread_that_ends_is_noticed_and_the_other_goes_on() {
        let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
        proxy.open(&[server.address]);
        let mut failures = proxy.listeners.failures();
        proxy.listeners.lock()[&main()].workers[0].order(|_| panic!("ordered"));
        failures.wait_for(|failures| failures.workers == 1).await.unwrap();
        for _ in 0..4 {
            let mut client = proxy.login("alice").await;
            server.greet().await;
            client.expect(b"R").await;
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_task_is_counted_and_its_thread_goes_on() {
        let (proxy, server) = (Proxy::start(|service| service.workers = 1), Server::start().await);
        proxy.open(&[server.address]);
        let mut failures = proxy.listeners.failures();
        proxy.listeners.lock()[&main()].workers[0].order(|crew| {
            let shared = crew.shared.clone();
            crew.sessions.spawn(async move {
                let _watch = PanicWatch::new(&shared, "connection");
                panic!("ordered");
            });
        });
        let seen = *failures.wait_for(|failures| failures.tasks == 1).await.unwrap();
        assert_eq!(seen.workers, 0);
        let mut client = proxy.login("alice").await;
        server.greet().await;
        client.expect(b"R").await;
    }

    #[tokio::test]
    async fn a_panic_in_an_accept_loop_is_counted_and_the_loop_begins_anew() {
        let (proxy, server) = (Proxy::start(|service| service.workers = 1), Server::start().await);
        proxy.open(&[server.address]);
        let mut failures = proxy.listeners.failures();
        proxy.listeners.lock()[&main()].workers[0].order(|crew| {
            // Another loop in the place of the real one, which panics at once.
            let (id, door) = crew.doors.drain().next().unwrap();
            crew.accepts.abort_all();
            let shared = crew.shared.clone();
            let task = crew.accepts.spawn(async move {
                let _watch = PanicWatch::new(&shared, "accept loop");
                panic!("ordered");
            });
            assert_ne!(task.id(), id);
            crew.doors.insert(task.id(), door);
        });
        failures.wait_for(|failures| failures.tasks == 1).await.unwrap();
        let mut client = proxy.login("alice").await;
        server.greet().await;
        client.expect(b"R").await;
    }
}
