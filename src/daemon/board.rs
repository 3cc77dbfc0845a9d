//! The status board: each pair's driver posts its services' status, readers get one consistent `view::Status`.
//! Holds no judgement beyond putting the parts together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::types::{Moment, Now, ServiceName, WallTime};
use crate::view::{ServiceStatus, Status};

/// What is published about the daemon.
#[derive(Debug)]
pub struct Board {
    status: Arc<ArcSwap<Status>>,
    posted: Mutex<Posted>,
    /// The last turn of each pair's loop, milliseconds of the deciding clock.
    beats: Mutex<HashMap<String, Arc<AtomicU64>>>,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Posted {
    order: Vec<ServiceName>,
    services: HashMap<ServiceName, ServiceStatus>,
    disk: HashMap<String, String>,
    daemon: String,
    started: WallTime,
    stopping: bool,
}

/// A loop that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(5);

impl Board {
    /// An empty board of the daemon `daemon`.
    pub fn new(daemon: String, now: Now) -> Self {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            daemon: daemon.clone(),
            generation: 0,
            at: now.wall,
            started: now.wall,
            state_error: None,
            task_failures: 0,
            services: Vec::new(),
        };
        let posted = Posted {
            order: Vec::new(),
            services: HashMap::new(),
            disk: HashMap::new(),
            daemon,
            started: now.wall,
            stopping: false,
        };
        Self {
            status: Arc::new(ArcSwap::from_pointee(status)),
            posted: Mutex::new(posted),
            beats: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// The published view.
    pub fn status(&self) -> Arc<ArcSwap<Status>> {
        self.status.clone()
    }

    /// Which services are shown, in which order; others are forgotten.
    pub fn arrange(&self, order: Vec<ServiceName>) {
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        posted.services.retain(|name, _| order.contains(name));
        posted.order = order;
    }

    /// Posts one pair's services; `disk`: why its state cannot be written.
    pub fn post(&self, pair: &str, services: Vec<ServiceStatus>, disk: Option<String>, generation: u64, now: Now) {
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        for service in services {
            posted.services.insert(service.name.clone(), service);
        }
        match disk {
            Some(why) => posted.disk.insert(pair.to_owned(), why),
            None => posted.disk.remove(pair),
        };
        let services = posted.order.iter().filter_map(|name| posted.services.get(name)).cloned().collect();
        self.status.store(Arc::new(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            daemon: posted.daemon.clone(),
            generation,
            at: now.wall,
            started: posted.started,
            state_error: posted.disk.values().next().cloned(),
            task_failures: self.failures.load(Ordering::Relaxed),
            services,
        }));
    }

    /// A task panicked or ended although it must not.
    pub fn task_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The pulse of one pair's loop, in milliseconds of the deciding clock.
    pub fn pulse(&self, pair: &str) -> Arc<AtomicU64> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.entry(pair.to_owned()).or_default().clone()
    }

    /// Does every decision loop turn?
    pub fn alive(&self, now: Moment) -> Result<(), String> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let now = u64::try_from(now.0.as_millis()).unwrap_or(u64::MAX);
        for (pair, beat) in beats.iter() {
            let silent = now.saturating_sub(beat.load(Ordering::Relaxed));
            if u128::from(silent) > STUCK.as_millis() {
                return Err(format!("the decision loop of {pair} has not turned for {silent} ms"));
            }
        }
        Ok(())
    }

    /// No new connection is taken from now on.
    pub fn stop(&self) {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
    }

    /// Is routing published and the state writable, and are connections taken?
    pub fn ready(&self) -> Result<(), String> {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        if posted.stopping {
            return Err("the proxy is shutting down: running work may end, nobody new is let in".to_owned());
        }
        if let Some(why) = posted.disk.values().next() {
            return Err(format!("the state cannot be written: {why}"));
        }
        match posted.order.iter().find(|name| !posted.services.contains_key(*name)) {
            Some(name) => Err(format!("routing of service {name} is not published yet")),
            None => Ok(()),
        }
    }
}
