//! The harness: a proxy in this process, servers that do what the test says, clients that speak a little protocol.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::config::*;
use crate::connections::Connections;
use crate::failover::observation::Evidence;
use crate::listener::{Listeners, publish};
use crate::routing::{Gate, OpenBackend, Routing};
use crate::types::{BackendName, Epoch, ServiceName};

/// Longer than anything here takes; only a failing test waits for it.
pub(in crate::listener) const LONG: Duration = Duration::from_secs(20);

pub(in crate::listener) const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

pub(in crate::listener) struct Proxy {
    pub(in crate::listener) listeners: Listeners,
    pub(in crate::listener) routing: Routing,
    pub(in crate::listener) connections: Connections,
    pub(in crate::listener) evidence: UnboundedReceiver<(ServiceName, Evidence)>,
    pub(in crate::listener) config: Config,
}

impl Proxy {
    /// One service `main` with a listener for `active` work (and what `change` makes of it), its gate closed.
    pub(in crate::listener) fn start(change: impl FnOnce(&mut Service)) -> Self {
        let mut service = service();
        change(&mut service);
        let config = config(vec![service]);
        let (sender, evidence) = tokio::sync::mpsc::unbounded_channel();
        let connections = Connections::new(sender);
        let routing = Routing::new(&config);
        let listeners = Listeners::start(&config, routing.clone(), connections.clone()).unwrap();
        Self { listeners, routing, connections, evidence, config }
    }

    pub(in crate::listener) fn publish(&self, gate: &Gate) {
        publish(&self.routing, &self.connections, &main(), gate);
    }

    /// Opens the gate to one backend `east` with these addresses.
    pub(in crate::listener) fn open(&self, addresses: &[SocketAddr]) {
        self.open_to("east", 1, addresses);
    }

    pub(in crate::listener) fn open_to(&self, name: &str, epoch: u64, addresses: &[SocketAddr]) {
        self.publish(&open_gate(epoch, vec![backend(name, addresses)], vec![]));
    }

    pub(in crate::listener) fn close(&self) {
        self.publish(&Gate::Closed { why: "the primary is gone".into() });
    }

    /// The first listener.
    pub(in crate::listener) fn address(&self) -> SocketAddr {
        self.listeners.addresses()[0].2
    }

    pub(in crate::listener) async fn connect(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A client that has sent its startup packet as `user`.
    pub(in crate::listener) async fn login(&self, user: &str) -> Client {
        let mut client = self.connect().await;
        client.send(&startup(user)).await;
        client
    }

    /// Waits until so many clients are held.
    pub(in crate::listener) async fn held(&self, number: usize) {
        self.until(|proxy| proxy.connections.held(&main()) == number).await;
    }

    /// Waits until so many connections are attached to `east`.
    pub(in crate::listener) async fn live(&self, number: usize) {
        self.until(|proxy| proxy.connections.live(&main(), &east()) == number).await;
    }

    /// Waits for something that nobody tells.
    pub(in crate::listener) async fn until(&self, so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, waiting).await.expect("never came about");
    }
}

pub(in crate::listener) fn main() -> ServiceName {
    "main".into()
}

pub(in crate::listener) fn east() -> BackendName {
    "east".into()
}

pub(in crate::listener) fn backend(name: &str, addresses: &[SocketAddr]) -> OpenBackend {
    OpenBackend { name: name.into(), weight: 100, addresses: addresses.to_vec(), resting: vec![], rests: None }
}

/// Open to the first of `tier`.
pub(in crate::listener) fn open_gate(epoch: u64, tier: Vec<OpenBackend>, readers: Vec<OpenBackend>) -> Gate {
    Gate::Open { active: tier[0].name.clone(), epoch: Epoch(epoch), tier, readers, hold: false }
}

pub(in crate::listener) fn listener(address: &str, target: Target) -> Listener {
    let tls = ListenerTls::PassThrough;
    let (address, limits) = (address.parse().unwrap(), ListenerLimits::default());
    Listener { address, mode: Mode::Opaque, target, max_connections: 1000, limits, tls }
}

pub(in crate::listener) fn config(services: Vec<Service>) -> Config {
    Config {
        admin: Admin {
            listen: None,
            socket: None,
            token_file: None,
            tokens: vec![],
            hosts: vec![],
            metrics_listen: None,
            credentials: None,
        },
        state: State { path: "unused".into() },
        services,
    }
}

pub(in crate::listener) fn service() -> Service {
    let seconds = Duration::from_secs;
    Service {
        name: main(),
        kind: Kind::Postgres,
        workers: 2,
        listeners: vec![listener("127.0.0.1:0", Target::Active)],
        backends: vec![],
        probe: Probe {
            kind: ProbeKind::Tcp,
            interval: seconds(2),
            fast_interval: seconds(1),
            down_interval: seconds(2),
            timeout: seconds(1),
            fall: 3,
            rise: 2,
            jitter_percent: 10,
            hang_trigger: seconds(2),
            passive: true,
        },
        failover: Failover {
            automatic: true,
            delay: seconds(0),
            cooldown: seconds(60),
            max_per_day: 3,
            max_lag: 0,
            max_replication_lag: seconds(120),
            max_disconnect: seconds(10),
            witness: WitnessRule::Required,
            hold_timeout: LONG,
            max_held: 1000,
            max_held_per_address: 200,
            release_rate: 1000,
            drain_timeout: seconds(5),
            promoter: Promoter::None,
            promote_timeout: seconds(60),
            authority: Authority::SelfDecides,
            fence_command: None,
            fence_required: false,
            soft_fence: false,
            rejoin_command: None,
            rejoin_timeout: Duration::from_secs(1800),
            standby_serves: false,
            foreign_promotion: None,
            sync_after_failover: SyncRule::Report,
            survivors: crate::config::Survivors::Report,
            follow_command: None,
            recovery_patience: seconds(30),
            restart_grace: seconds(10),
            hung_grace: seconds(10),
            verify_wait: seconds(2),
        },
        replication: None,
        read_only: ReadOnly { max_lag: None },
        patroni: None,
        connection: Connection {
            connect_timeout: seconds(3),
            first_packet_timeout: seconds(10),
            keepalive: seconds(30),
            user_timeout: seconds(30),
        },
    }
}

pub(in crate::listener) fn startup(user: &str) -> Vec<u8> {
    let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0\0"].concat();
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

pub(in crate::listener) fn cancel_request() -> Vec<u8> {
    b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07keyk".to_vec()
}

/// One end of a connection.
pub(in crate::listener) struct Client(pub(in crate::listener) TcpStream);

impl Client {
    pub(in crate::listener) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(in crate::listener) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(in crate::listener) async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        timeout(LONG, self.0.read_exact(&mut read)).await.expect("nothing came").unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
    }

    /// Everything up to the end of the stream; a reset ends it too.
    pub(in crate::listener) async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        let _ = timeout(LONG, self.0.read_to_end(&mut read)).await.expect("never closed");
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Nothing was sent, the connection was closed.
    pub(in crate::listener) async fn expect_closed(&mut self) {
        assert_eq!(self.rest().await, "");
    }

    /// It is refused with this SQLSTATE; returns the whole message.
    pub(in crate::listener) async fn expect_refusal(&mut self, sqlstate: &str) -> String {
        let text = self.rest().await;
        assert!(text.starts_with('E') && text.contains(&format!("SFATAL\0VFATAL\0C{sqlstate}\0")), "{text:?}");
        text
    }
}

/// A server whose every connection is in the test's hands.
pub(in crate::listener) struct Server {
    listener: TcpListener,
    pub(in crate::listener) address: SocketAddr,
}

impl Server {
    pub(in crate::listener) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(in crate::listener) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// Bytes that the kernel takes for a connection that nobody reads, about.
    pub(in crate::listener) fn limit_buffer(&self, bytes: usize) {
        socket2::SockRef::from(&self.listener).set_recv_buffer_size(bytes).unwrap();
    }

    pub(in crate::listener) async fn accept(&self) -> Client {
        Client(timeout(LONG, self.listener.accept()).await.expect("nobody came").unwrap().0)
    }

    /// The user of the next startup packet, and its connection.
    pub(in crate::listener) async fn accept_login(&self) -> (String, Client) {
        let mut client = self.accept().await;
        let mut length = [0; 4];
        timeout(LONG, client.0.read_exact(&mut length)).await.expect("nothing came").unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.0.read_exact(&mut body).await.unwrap();
        let text = String::from_utf8(body[9..].to_vec()).unwrap();
        (text.trim_matches('\0').to_owned(), client)
    }

    /// Accepts a login and answers it.
    pub(in crate::listener) async fn greet(&self) -> Client {
        let (_, mut client) = self.accept_login().await;
        client.send(b"R").await;
        client
    }

    /// Nobody has connected so far.
    pub(in crate::listener) async fn nobody_came(&self) {
        let now = std::future::poll_fn(|cx| std::task::Poll::Ready(self.listener.poll_accept(cx).is_ready())).await;
        assert!(!now, "somebody came");
    }
}

/// An address that neither takes connections nor refuses them: a listener whose backlog is full.
pub(in crate::listener) struct Deaf {
    pub(in crate::listener) address: SocketAddr,
    _listener: socket2::Socket,
    _fillers: Vec<TcpStream>,
}

impl Deaf {
    pub(in crate::listener) async fn start() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut fillers = Vec::new();
        let patience = Duration::from_millis(200);
        while let Ok(filler) = timeout(patience, TcpStream::connect(address)).await {
            fillers.push(filler.unwrap());
        }
        Self { address, _listener: listener, _fillers: fillers }
    }

    /// Does a connect hang there, as the kernel lists it?
    pub(in crate::listener) fn is_dialled(&self) -> bool {
        let hanging = format!("0100007F:{:04X} 02", self.address.port());
        std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&hanging)
    }
}
