//! From a first packet to a server that answered it: wait while no side may be used, choose, dial, attach, hand over,
//! and do it again until the deadline. Nothing but a packet that opens a connection is ever sent twice, and only while
//! no server has said more to it than "not now".

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::dial::{connect, encrypt, hand_over};
use super::door::{Door, Rules, Settings};
use super::hold::{Place, Turn};
use super::refuse::Refusal;
use super::triage::First;
use crate::backoff::Backoff;
use crate::config::Target;
use crate::connections::{Attached, Origin};
use crate::net::channel::Channel;
use crate::net::fault::Cause;
use crate::routing::select::by_least_connections;
use crate::routing::{Choice, Route, Snapshot};
use crate::types::BackendName;
use crate::wire::sqlstate::{Sqlstate, error_code};
use crate::wire::startup::FirstPacket;

/// Between two rounds of dialling in vain. A change of the route ends the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// So much of a reply is looked at.
const BEGIN: usize = 512;

/// Looks for a server on behalf of one client.
#[derive(Debug)]
pub(super) struct Seeker<'a> {
    door: &'a Door,
    origin: &'a Origin,
    client: &'a mut Channel,
    first: &'a mut First,
    peer: SocketAddr,
    settings: &'a Settings,
    target: Target,
    /// Clients' TLS ends here: with servers we have our own.
    terminates: bool,
    changes: watch::Receiver<u64>,
    begun: Instant,
    place: Option<Place>,
    /// Dialled in vain since the last pause.
    tried: Vec<BackendName>,
    /// One of them takes no connections: nothing that has to do with this client.
    absent: bool,
    /// One of them was reached and cannot be trusted: nothing that waiting would mend.
    distrust: bool,
    backoff: Backoff,
    pause: Option<Instant>,
    /// Why there is no server yet.
    why: String,
}

/// A server that has the first packet and has answered it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) server: Channel,
    pub(super) attached: Attached,
    /// The begin of its answer, where that had to be taken out of TLS.
    pub(super) said: Vec<u8>,
}

/// A backend was tried.
enum Tried {
    Answered(Found),
    /// It does not serve, as far as this client can tell.
    InVain,
    /// It may not be used any more.
    Moved,
}

/// What came of a first packet.
enum Reply {
    Came,
    /// `N`: the client will go on in plaintext, or leave.
    Declined,
    /// The relay may begin without it: the client has more to say.
    NotAwaited,
    /// The server ended without a word.
    Lost,
    /// Not now: 57P03, 57P01, 08000.
    NotNow,
}

impl Reply {
    fn of(begin: &[u8], to: FirstPacket, read: usize) -> Self {
        match to {
            _ if read == 0 => Self::Lost,
            FirstPacket::SslRequest | FirstPacket::GssencRequest if begin == b"N" => Self::Declined,
            FirstPacket::Startup { .. } if error_code(begin).is_some_and(is_not_now) => Self::NotNow,
            _ => Self::Came,
        }
    }
}

/// A server that starts or stops, a node that drains, a cluster that does not serve (yet): another address may.
fn is_not_now(code: Sqlstate) -> bool {
    [Sqlstate::CANNOT_CONNECT_NOW, Sqlstate::ADMIN_SHUTDOWN, Sqlstate::CONNECTION_EXCEPTION].contains(&code)
}

impl<'a> Seeker<'a> {
    pub(super) fn new(
        door: &'a Door,
        origin: &'a Origin,
        client: &'a mut Channel,
        peer: SocketAddr,
        first: &'a mut First,
        settings: &'a Settings,
        rules: &Rules,
    ) -> Self {
        Self {
            door,
            origin,
            client,
            first,
            peer,
            settings,
            target: rules.target,
            terminates: rules.tls.is_some(),
            changes: door.shared.routing.subscribe(),
            begun: Instant::now(),
            place: None,
            tried: Vec::new(),
            absent: false,
            distrust: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            pause: None,
            why: String::new(),
        }
    }

    /// Comes back with a server that has the first packet and has answered it, or with the reason to give up.
    pub(super) async fn seek(mut self) -> Result<Found, Refusal> {
        loop {
            let choice = self.next_choice().await?;
            match self.dial(&choice).await? {
                Tried::Answered(found) => {
                    self.door.shared.room.succeeded(self.target);
                    return Ok(found);
                }
                Tried::InVain => self.tried.push(choice.backend),
                Tried::Moved => self.tried.clear(),
            }
        }
    }

    /// Waits for the turn of this client and chooses a backend.
    async fn next_choice(&mut self) -> Result<Choice, Refusal> {
        loop {
            self.changes.borrow_and_update();
            let snapshot = self.door.shared.routing.load();
            if let Route::Held { why } = snapshot.route(&self.door.shared.service) {
                why.clone_into(&mut self.why);
                self.tried.clear();
                self.place()?.stay();
                self.wait(None).await?;
                continue;
            }
            if let Some(until) = self.pause {
                self.place()?.step_aside();
                self.wait(Some(until)).await?;
                self.pause = None;
                continue;
            }
            match self.turn(&snapshot)? {
                Turn::Go => {}
                Turn::Stale => continue,
                Turn::At(slot) => {
                    self.wait(Some(slot)).await?;
                    continue;
                }
            }
            match self.choose(&snapshot) {
                Some(choice) => return Ok(choice),
                None => self.begin_pause()?,
            }
        }
    }

    fn choose(&mut self, snapshot: &Arc<Snapshot>) -> Option<Choice> {
        let shared = &self.door.shared;
        let choice = shared.routing.choose(snapshot, &shared.service, self.target, &self.tried);
        if choice.is_none() && self.tried.is_empty() {
            let rests = snapshot.rests(&shared.service, self.target);
            self.why = rests.unwrap_or("no address of a side that may be used is up").to_owned();
        }
        choice
    }

    fn begin_pause(&mut self) -> Result<(), Refusal> {
        self.tried.clear();
        if std::mem::take(&mut self.distrust) {
            return Err(Refusal::Untrusted { why: std::mem::take(&mut self.why) });
        }
        if std::mem::take(&mut self.absent) {
            self.door.shared.room.failed(self.target);
        }
        // Any number that differs between clients spreads them out.
        let chance = self.peer.port().to_be_bytes()[1];
        self.pause = Some(Instant::now() + self.backoff.step(chance));
        Ok(())
    }

    fn turn(&mut self, snapshot: &Snapshot) -> Result<Turn, Refusal> {
        let shared = &self.door.shared;
        if self.place.is_none() && shared.room.lets_pass(self.target) {
            return Ok(Turn::Go);
        }
        let (version, rate) = (snapshot.version(&shared.service), self.settings.release_rate);
        Ok(self.place()?.turn(version, rate, Instant::now()))
    }

    /// The place in the waiting room, taken when first needed and kept until a server answers.
    fn place(&mut self) -> Result<&Place, Refusal> {
        if self.place.is_none() {
            let room = &self.door.shared.room;
            let place = room.enter(self.target, self.peer.ip(), self.settings.limits).map_err(Refusal::Full)?;
            tracing::debug!(why = self.why, "client held");
            self.place = Some(place);
        }
        self.place.as_ref().ok_or(Refusal::Stopping)
    }

    /// Until the route changes, or `until`; gives up at the deadline, at the end of the daemon, or without a client.
    async fn wait(&mut self, until: Option<Instant>) -> Result<(), Refusal> {
        let deadline = self.begun + self.settings.hold_timeout;
        let wake = until.map_or(deadline, |until| until.min(deadline));
        let Self { door, client, first, changes, place, .. } = self;
        let called = async {
            match place {
                Some(place) => place.called().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = door.shared.stopping.cancelled() => return Err(Refusal::Stopping),
            () = first.client_gone(client) => return Err(Refusal::ClientLeft),
            changed = changes.changed() => return changed.map_err(|_| Refusal::Stopping),
            () = called => return Ok(()),
            () = sleep_until(wake) => {}
        }
        if wake < deadline {
            return Ok(());
        }
        Err(Refusal::NoServer { waited: self.settings.hold_timeout, why: std::mem::take(&mut self.why) })
    }

    /// Tries the addresses of one backend, the one with the fewest connections first.
    async fn dial(&mut self, choice: &Choice) -> Result<Tried, Refusal> {
        let (service, connections) = (&self.door.shared.service, &self.door.shared.connections);
        let live = |address: &_| connections.live_at(service, &choice.backend, address);
        for address in by_least_connections(&choice.addresses, live) {
            let Some(admission) = connections.admit(service, &choice.backend, choice.epoch) else {
                // Closed already, and the snapshot that says so is on its way.
                return Ok(Tried::InVain);
            };
            let connected = tokio::select! {
                connected = connect(address, &self.settings.connection) => connected,
                () = moved(&mut self.changes, self.door, choice) => return Ok(Tried::Moved),
            };
            let attached = match connected {
                Err(e) => Err(e),
                Ok(server) => match admission.attach(self.origin, address, &server) {
                    Ok(None) => return Ok(Tried::Moved),
                    Ok(Some(attached)) => Ok((server, attached)),
                    Err(e) => Err(e),
                },
            };
            match attached {
                // A hold that began meanwhile: not even a first packet is sent.
                Ok(_) if !leads_to(self.door, choice) => return Ok(Tried::Moved),
                Ok((server, attached)) => {
                    let server = match self.secure(server, address, choice).await {
                        Ok(server) => server,
                        Err(_) if !leads_to(self.door, choice) => return Ok(Tried::Moved),
                        Err(cause) => {
                            self.not_secured(&cause, address, &attached, choice);
                            continue;
                        }
                    };
                    if !leads_to(self.door, choice) {
                        return Ok(Tried::Moved);
                    }
                    let mut found = Found { server, attached, said: Vec::new() };
                    if self.is_answered(&mut found, choice).await? {
                        let waited = self.begun.elapsed();
                        tracing::debug!(backend = %choice.backend, server.addr = %address, ?waited, "attached");
                        return Ok(Tried::Answered(found));
                    }
                }
                Err(e) => {
                    tracing::debug!(backend = %choice.backend, server.addr = %address, error = %e, "dial failed");
                    self.why = format!("connecting to {} failed: {e}", choice.backend);
                    self.absent = true;
                    connections.connect_failed(service, &choice.backend, address, &e);
                }
            }
        }
        Ok(Tried::InVain)
    }

    /// Where clients' TLS ends here, begins our own.
    async fn secure(&mut self, server: TcpStream, address: SocketAddr, choice: &Choice) -> Result<Channel, Cause> {
        if !self.terminates {
            return Ok(Channel::Plain(server));
        }
        tokio::select! {
            secured = encrypt(self.door, &choice.backend, address, server, &self.settings.connection) => secured,
            () = moved(&mut self.changes, self.door, choice) => Err(Cause::Closed),
        }
    }

    fn not_secured(&mut self, cause: &Cause, address: SocketAddr, attached: &Attached, choice: &Choice) {
        tracing::debug!(backend = %choice.backend, server.addr = %address, error = %cause, "no TLS with the server");
        self.why = format!("TLS with {} at {address} failed: {cause}", choice.backend);
        match cause {
            Cause::Certificate(_) | Cause::Handshake(_) | Cause::NoTls => self.distrust = true,
            // A server that starts, ends or hangs.
            _ => self.absent = true,
        }
        if matches!(cause, Cause::Closed | Cause::Io { .. }) {
            attached.lost();
        }
    }

    /// Hands the first packet over and watches for the first byte of a reply, as long as the packet may be sent to
    /// another server after all.
    async fn is_answered(&mut self, found: &mut Found, choice: &Choice) -> Result<bool, Refusal> {
        let Found { server, attached, said } = found;
        loop {
            let handed = hand_over(server, &self.first.bytes, &self.settings.connection).await;
            attached.asked();
            let reply = match handed {
                Err(_) => Reply::Lost,
                Ok(()) if !self.first.stands_alone() => Reply::NotAwaited,
                Ok(()) => first_reply(self.client, server, said, self.first.packet).await,
            };
            match reply {
                Reply::Came => attached.answered(),
                Reply::NotAwaited => attached.passed_on(),
                Reply::Declined => {
                    attached.answered();
                    self.pass_on_decline(server).await?;
                    continue;
                }
                Reply::NotNow => {
                    attached.answered();
                    self.absent = true;
                    self.why = format!("{} does not take connections now", choice.backend);
                }
                Reply::Lost => {
                    attached.lost();
                    self.why = format!("{} ends connections without an answer", choice.backend);
                }
            }
            return Ok(matches!(reply, Reply::Came | Reply::NotAwaited));
        }
    }

    /// The server has no TLS (or GSSAPI): tells the client in the server's own byte, and takes the packet that the
    /// client goes on with. It is the first one now; any server takes it without having been asked before.
    async fn pass_on_decline(&mut self, server: &Channel) -> Result<(), Refusal> {
        let mut byte = [0; 1];
        let read = server.socket().try_read(&mut byte);
        if !matches!(read, Ok(1)) || !matches!(self.client.socket().try_write(&byte), Ok(1)) {
            return Err(Refusal::ClientLeft);
        }
        let deadline = Instant::now() + self.settings.connection.first_packet_timeout;
        *self.first = First::read(self.client, deadline).await.map_err(|_| Refusal::ClientLeft)?;
        if self.settings.cockroach {
            self.first.for_cockroach()?;
        }
        Ok(())
    }
}

/// Comes back when the backend may not be used any more under the epoch it was chosen under.
async fn moved(changes: &mut watch::Receiver<u64>, door: &Door, choice: &Choice) {
    while leads_to(door, choice) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn leads_to(door: &Door, choice: &Choice) -> bool {
    let snapshot = door.shared.routing.load();
    snapshot.still_leads_to(&door.shared.service, &choice.backend, choice.epoch)
}

/// Without a deadline, as in the relay: a client that tires of a silent server leaves, and is seen to. What is inside
/// TLS cannot be looked at without taking it out: then it is in `said`.
async fn first_reply(client: &Channel, server: &mut Channel, said: &mut Vec<u8>, packet: FirstPacket) -> Reply {
    let (mut begin, mut more) = ([0; BEGIN], [0; 1]);
    let glance = async {
        match server {
            Channel::Plain(server) => server.peek(&mut begin).await.map(|read| Reply::of(&begin[..read], packet, read)),
            Channel::Tls(_) => server.read_some(said, BEGIN).await.map(|read| Reply::of(said, packet, read)),
        }
    };
    tokio::select! {
        biased;
        reply = glance => reply.unwrap_or(Reply::Lost),
        // It speaks on, or it left: both are the relay's to pass on. (Not `readable`: that may still tell of the first
        // packet.)
        _ = client.socket().peek(&mut more) => Reply::NotAwaited,
    }
}
