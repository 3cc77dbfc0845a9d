//! The fence and the cut, without any relay: sockets held by threads that know nothing of orders.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

const ALL_EPOCHS: [Epoch; 3] = [Epoch(1), Epoch(2), Epoch(3)];

struct Bench {
    connections: Connections,
    evidence: UnboundedReceiver<(ServiceName, Evidence)>,
    server: TcpListener,
    service: ServiceName,
    east: BackendName,
}

impl Bench {
    fn new() -> Self {
        let (sender, evidence) = tokio::sync::mpsc::unbounded_channel();
        Self {
            connections: Connections::new(sender),
            evidence,
            server: TcpListener::bind("127.0.0.1:0").unwrap(),
            service: "main".into(),
            east: "east".into(),
        }
    }

    fn open(&self, epoch: u64) {
        self.connections.open_side(&self.service, &self.east, Epoch(epoch));
    }

    fn admit(&self, epoch: u64) -> Option<Admission> {
        self.connections.admit(&self.service, &self.east, Epoch(epoch))
    }

    fn origin(&self) -> Origin {
        let listener = "127.0.0.1:26257".parse().unwrap();
        Origin {
            worker: 0,
            listener,
            tally: self.connections.tally(&self.service, listener),
            reads: false,
            farewell: b"",
        }
    }

    fn attach(&self, admission: Admission, socket: &TcpStream) -> Option<Attached> {
        admission.attach(&self.origin(), socket.peer_addr().unwrap(), socket).unwrap()
    }

    /// A connection to the server: our end, and the server's.
    fn dial(&self) -> (TcpStream, TcpStream) {
        let ours = TcpStream::connect(self.server.local_addr().unwrap()).unwrap();
        (ours, self.server.accept().unwrap().0)
    }

    fn cut(&self) -> usize {
        self.connections.cut(&self.service, &self.east, Cut::Demoted)
    }
}

#[test]
fn a_side_is_closed_until_it_is_opened_and_takes_only_its_own_epoch() {
    let bench = Bench::new();
    assert!(ALL_EPOCHS.iter().all(|epoch| bench.admit(epoch.0).is_none()));
    bench.open(2);
    assert!(bench.admit(1).is_none() && bench.admit(3).is_none());
    assert!(bench.admit(2).is_some());
    bench.open(1);
    assert!(bench.admit(2).is_some(), "an older epoch opens nothing");
    bench.connections.close_side(&bench.service, &bench.east);
    assert!(bench.admit(2).is_none());
    bench.open(1);
    assert!(bench.admit(1).is_none(), "not even when it is closed");
}

#[test]
fn what_was_dialled_before_a_cut_is_never_attached_not_even_when_the_side_is_open_again() {
    let bench = Bench::new();
    bench.open(1);
    let (before, _server) = bench.dial();
    let (stays, newer) = (bench.admit(1).unwrap(), bench.admit(1).unwrap());
    assert_eq!(bench.cut(), 0);
    assert!(bench.attach(stays, &before).is_none());
    // The switch was called off: the same side under the same epoch.
    bench.open(1);
    assert!(bench.attach(newer, &before).is_none());
    let fresh = bench.admit(1).unwrap();
    assert!(bench.attach(fresh, &before).is_some());
}

#[test]
fn publishing_the_same_gate_again_leaves_dials_under_way_alone() {
    let bench = Bench::new();
    bench.open(1);
    let admission = bench.admit(1).unwrap();
    bench.connections.open_only(&bench.service, Epoch(1), &[&bench.east]);
    assert!(bench.attach(admission, &bench.dial().0).is_some());
    let admission = bench.admit(1).unwrap();
    bench.connections.open_only(&bench.service, Epoch(2), &[&"west".into()]);
    assert!(bench.attach(admission, &bench.dial().0).is_none());
}

#[test]
fn a_cut_silences_a_socket_whose_thread_is_stuck() {
    let bench = Bench::new();
    bench.open(1);
    let (mut ours, mut server) = bench.dial();
    // More than the server takes, so that some of it waits in our kernel.
    ours.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(bytes) = ours.write(&[b'x'; 65_536]) {
        sent += bytes;
    }
    let attached = bench.attach(bench.admit(1).unwrap(), &ours).unwrap();
    assert_eq!(bench.cut(), 1);
    assert_eq!(attached.orders().cut_reason(), Some(Cut::Demoted));

    assert!(ours.write(b"late").is_err());
    let _ = server.write(b"acknowledged");
    assert!(!matches!(ours.read(&mut [0; 64]), Ok(1..)), "nothing of the old side is read");
    let mut arrived = Vec::new();
    let _ = server.read_to_end(&mut arrived);
    assert!(arrived.len() < sent, "{} of {sent} bytes arrived", arrived.len());
}

#[test]
fn no_write_succeeds_after_a_cut_has_returned_whatever_the_threads_do() {
    const ROUNDS: u64 = 20;
    let bench = Bench::new();
    // The epoch that is open, and the last one whose cut has returned.
    let (epoch, cut) = (AtomicU64::new(1), AtomicU64::new(0));
    let (attached, late) = (AtomicU64::new(0), AtomicU64::new(0));
    bench.open(1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while cut.load(SeqCst) < ROUNDS {
                    let mine = epoch.load(SeqCst);
                    let Some(admission) = bench.admit(mine) else { continue };
                    let (mut socket, _server) = bench.dial();
                    let Some(_entered) = bench.attach(admission, &socket) else {
                        continue;
                    };
                    attached.fetch_add(1, SeqCst);
                    loop {
                        // Read before the write: had the cut returned by then, the write may not succeed.
                        let was_cut = cut.load(SeqCst) >= mine;
                        if socket.write(b"x").is_err() {
                            break;
                        }
                        late.fetch_add(u64::from(was_cut), SeqCst);
                    }
                }
            });
        }
        for round in 1..=ROUNDS {
            while bench.connections.live(&bench.service, &bench.east) < 2 {
                std::thread::yield_now();
            }
            assert!(bench.cut() >= 2);
            cut.store(round, SeqCst);
            bench.open(round + 1);
            epoch.store(round + 1, SeqCst);
        }
        bench.cut();
    });
    assert_eq!(late.load(SeqCst), 0);
    assert!(attached.load(SeqCst) >= 2 * ROUNDS);
}

#[test]
fn a_connection_counts_while_it_is_attached_and_its_numbers_stay() {
    let mut bench = Bench::new();
    bench.open(1);
    let pairs = [bench.dial(), bench.dial()];
    let attached = pairs.iter().map(|(ours, _)| bench.attach(bench.admit(1).unwrap(), ours).unwrap());
    let attached: Vec<_> = attached.collect();
    let address = bench.server.local_addr().unwrap();
    assert_eq!(bench.connections.live(&bench.service, &bench.east), 2);
    assert_eq!(bench.connections.live_at(&bench.service, &bench.east, &address), 2);
    // Its server is gone although it is still attached.
    attached[0].lost();
    attached[0].lost();
    assert_eq!(bench.connections.live(&bench.service, &bench.east), 1);
    drop(attached);
    let counts = bench.connections.endpoints(&bench.service, &bench.east);
    assert_eq!((counts[0].live, counts[0].counters.sessions), (0, 2));
    assert_eq!(counts[0].counters.max_connections_seen, 2);
    let mut told = Vec::new();
    while let Ok((_, evidence)) = bench.evidence.try_recv() {
        told.push(evidence);
    }
    let live = |live| Evidence::Connections { backend: "east".into(), live };
    let ended = Evidence::ServerEnded { backend: "east".into() };
    assert_eq!(told, [ended, live(1), live(0)]);
}

#[test]
fn addresses_that_come_and_go_do_not_pile_up() {
    let bench = Bench::new();
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    for port in 1..=3000 {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        bench.connections.connect_failed(&bench.service, &bench.east, address, &refused);
    }
    assert!(bench.connections.endpoints(&bench.service, &bench.east).len() <= 1024);
}

#[test]
fn only_connections_to_addresses_that_are_gone_are_asked_to_end() {
    let bench = Bench::new();
    bench.open(1);
    let (ours, _server) = bench.dial();
    let _attached = bench.attach(bench.admit(1).unwrap(), &ours).unwrap();
    let here = bench.server.local_addr().unwrap();
    let asked = |kept: &[SocketAddr]| bench.connections.drain_removed(&bench.service, &bench.east, kept);
    assert_eq!(asked(&[here]), 0);
    assert_eq!(asked(&["127.0.0.1:1".parse().unwrap()]), 1);
    assert_eq!(bench.connections.drain_all(), 1);
}

#[test]
fn what_is_held_and_cut_is_read_by_name() {
    let bench = Bench::new();
    bench.connections.held_gauge(&bench.service).store(7, Relaxed);
    assert_eq!(bench.connections.held(&bench.service), 7);
    assert_eq!(bench.connections.held(&"other".into()), 0);
    let origin = bench.origin();
    let entered = [origin.tally.enter(), origin.tally.enter()];
    assert_eq!((entered[0].1, entered[1].1), (1, 2));
    drop(entered);
    let count = bench.connections.listener(&bench.service, origin.listener);
    assert_eq!((count.open, count.counters.sessions, count.counters.max_connections_seen), (0, 2, 2));
}
