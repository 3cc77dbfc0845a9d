//! Live events: one hub watches the published view and what happens, and hands the same bytes to every follower.
//! Holds the recent events for the page too.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::problem::Fault;
use super::server::Shared;
use super::{AdminState, ServiceEvent};
use crate::view::Status;

/// How many may follow at one time.
pub(super) const FOLLOWERS: usize = 64;
/// The shortest time between two `status` events, and the longest a change waits.
const PACE: Duration = Duration::from_millis(200);
/// A comment after this long without an event, so that both ends notice a dead connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What a follower may be behind before it gets the whole status instead.
const BACKLOG: usize = 64;
/// Events kept for the page and for followers that come back.
const RECENT: usize = 64;

/// One server-sent event, encoded.
#[derive(Debug, Clone)]
struct Sent {
    id: u64,
    text: Bytes,
}

/// The one that watches and hands out.
#[derive(Debug)]
pub(super) struct Hub {
    sent: broadcast::Sender<Sent>,
    seats: Arc<Semaphore>,
    /// Rung by the first follower: without one the view is not polled.
    bell: Notify,
    recent: Mutex<Recent>,
    /// Tells this start of the daemon from another in event ids.
    start: i64,
    /// The view before the first follower could come: what changed since is told.
    first: Arc<Status>,
}

#[derive(Debug, Default)]
struct Recent {
    last_id: u64,
    events: VecDeque<(Sent, ServiceEvent)>,
    /// From before this start, newest first.
    older: Vec<ServiceEvent>,
}

impl Hub {
    pub(super) fn new(first: Arc<Status>) -> Self {
        Self {
            sent: broadcast::channel(BACKLOG).0,
            seats: Arc::new(Semaphore::new(FOLLOWERS)),
            bell: Notify::new(),
            recent: Mutex::default(),
            start: first.started.0,
            first,
        }
    }

    /// Until stopped. `happened` was subscribed before anybody could send.
    pub(super) async fn run(
        &self,
        state: &AdminState,
        happened: broadcast::Receiver<ServiceEvent>,
        stop: &CancellationToken,
    ) {
        tokio::join!(self.remember_history(state), self.watch(state, happened, stop));
    }

    /// Polling the view costs a pointer comparison; without a follower not even that.
    async fn watch(
        &self,
        state: &AdminState,
        mut happened: broadcast::Receiver<ServiceEvent>,
        stop: &CancellationToken,
    ) {
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown = Arc::clone(&self.first);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = happened.recv() => match event {
                    Ok(event) => self.hand_out(event),
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "events came faster than the page could take them");
                    }
                    // Not while `state` holds a sender.
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = self.bell.notified() => {}
                _ = tick.tick(), if self.sent.receiver_count() > 0 => {
                    let now = state.status.load_full();
                    if !Arc::ptr_eq(&now, &shown) && differ(&now, &shown) {
                        let id = self.with_recent(Recent::next_id);
                        self.send(Sent { id, text: self.encode(id, "status", &*now) });
                        shown = now;
                    }
                }
            }
        }
    }

    /// What happened lately, newest first.
    pub(super) fn recent(&self, limit: usize) -> Vec<ServiceEvent> {
        self.with_recent(|r| {
            let fresh = || r.events.iter().rev().map(|(_, event)| event);
            // What happened while the history was read may stand in both.
            let older = r.older.iter().filter(|old| fresh().all(|new| new.event != old.event));
            fresh().chain(older).take(limit).cloned().collect()
        })
    }

    async fn remember_history(&self, state: &AdminState) {
        let history = state.history.clone();
        let read = tokio::task::spawn_blocking(move || history(None, RECENT));
        let Ok(Ok(lines)) = timeout(KEEPALIVE, read).await else {
            tracing::warn!("history not read, the page starts without it");
            return;
        };
        self.with_recent(|r| r.older = lines.into_iter().filter_map(remembered).collect());
    }

    fn hand_out(&self, event: ServiceEvent) {
        let id = self.with_recent(Recent::next_id);
        let sent = Sent { id, text: self.encode(id, "event", &event) };
        self.with_recent(|r| {
            r.events.push_back((sent.clone(), event));
            if r.events.len() > RECENT {
                r.events.pop_front();
            }
        });
        self.send(sent);
    }

    /// Without a follower there is nobody to tell: not an error.
    fn send(&self, sent: Sent) {
        let _ = self.sent.send(sent);
    }

    /// JSON has no raw line break, so one `data` line is always enough.
    fn encode(&self, id: u64, kind: &str, data: &impl serde::Serialize) -> Bytes {
        let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
        Bytes::from(format!("id: {}-{id}\nevent: {kind}\ndata: {data}\n\n", self.start))
    }

    /// What a new follower gets first: how to come back, the events it missed, the whole status.
    fn greeting(&self, status: &Status, last_id: Option<&str>) -> (u64, Bytes) {
        let seen = last_id
            .and_then(|id| id.split_once('-'))
            .and_then(|(start, id)| (start.parse() == Ok(self.start)).then(|| id.parse::<u64>().ok()).flatten());
        let mut text = b"retry: 2000\n\n".to_vec();
        let id = self.with_recent(|r| {
            let missed = r.events.iter().filter(|(sent, _)| seen.is_some_and(|seen| sent.id > seen));
            missed.for_each(|(sent, _)| text.extend_from_slice(&sent.text));
            r.last_id
        });
        text.extend_from_slice(&self.encode(id, "status", status));
        (id, Bytes::from(text))
    }

    fn with_recent<T>(&self, f: impl FnOnce(&mut Recent) -> T) -> T {
        f(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Recent {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// A history line, as an event alone or in an envelope; what does not read is left out.
fn remembered(mut line: serde_json::Value) -> Option<ServiceEvent> {
    let service = line.get("service").and_then(|s| s.as_str()).unwrap_or_default().into();
    let event = line.get_mut("event").map(serde_json::Value::take).unwrap_or(line);
    serde_json::from_value(event).ok().map(|event| ServiceEvent { service, event })
}

/// Do two views differ in more than the moment they were read? Destructured, so that a new field is not forgotten.
fn differ(a: &Status, b: &Status) -> bool {
    let Status { version, daemon, generation, at: _, started, state_error, task_failures, services } = a;
    (version, daemon, generation, started, state_error, task_failures, services)
        != (&b.version, &b.daemon, &b.generation, &b.started, &b.state_error, &b.task_failures, &b.services)
}

/// `GET /events`.
pub(super) async fn follow(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Ok(seat) = shared.hub.seats.clone().try_acquire_owned() else {
        return Fault::Crowded { limit: FOLLOWERS }.into_response();
    };
    let receiver = shared.hub.sent.subscribe();
    shared.hub.bell.notify_one();
    let last_id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let (id, greeting) = shared.hub.greeting(&shared.state.status.load(), last_id);
    let reader = Reader { receiver, shared: Arc::clone(&shared), seen: id, _seat: seat };
    let first = async move { (reader, Some(greeting)) };
    let mut response = Response::new(Body::new(Stream { next: Box::pin(first) }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that buffers would make "live" late.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One follower's place in the stream. Its seat is given back when it is dropped.
struct Reader {
    receiver: broadcast::Receiver<Sent>,
    shared: Arc<Shared>,
    seen: u64,
    _seat: OwnedSemaphorePermit,
}

impl Reader {
    /// The next bytes; `None` ends the stream.
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let deadline = Instant::now() + KEEPALIVE;
        let stop = self.shared.stop.clone();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return (self, None),
                event = tokio::time::timeout_at(deadline, self.receiver.recv()) => event,
            };
            match event {
                Err(_) => return (self, Some(Bytes::from_static(b": still here\n\n"))),
                Ok(Ok(sent)) if sent.id <= self.seen => {}
                Ok(Ok(sent)) => {
                    self.seen = sent.id;
                    return (self, Some(sent.text));
                }
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                    let last = format!("{}-{}", self.shared.hub.start, self.seen);
                    let (id, text) = self.shared.hub.greeting(&self.shared.state.status.load(), Some(&last));
                    self.seen = id;
                    return (self, Some(text));
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return (self, None),
            }
        }
    }
}

type Next = Pin<Box<dyn Future<Output = (Reader, Option<Bytes>)> + Send>>;

/// The body of a reply to `/events`.
struct Stream {
    next: Next,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (reader, text) = ready!(self.next.as_mut().poll(cx));
        let Some(text) = text else {
            self.next = Box::pin(std::future::pending());
            return Poll::Ready(None);
        };
        self.next = Box::pin(reader.next());
        Poll::Ready(Some(Ok(Frame::data(text))))
    }
}
