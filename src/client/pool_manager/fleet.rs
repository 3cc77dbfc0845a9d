//! All servers together: who is the primary now, which replicas may be read from, and the counters of the whole.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{Notify, watch};

use super::balance::{Choice, choose};
use super::clock::Clock;
use super::primary::{Judge, Seen, Word, Writer};
use super::server::Server;
use super::settings::PoolLimits;

/// The servers of one manager; shared with the tasks that watch them.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The configured primary first.
    pub(super) servers: Vec<Server>,
    /// A closed pool, for who asks for a primary where there is none.
    pub(super) nowhere: PgPool,
    pub(super) limits: PoolLimits,
    pub(super) clock: Clock,
    judge: Mutex<Judge>,
    word: Mutex<Word>,
    writer: watch::Sender<Writer>,
    last_writer: AtomicUsize,
    turn: AtomicUsize,
    /// Servers are looked at regularly.
    pub(super) periodic: AtomicBool,
    /// That has changed.
    pub(super) retimed: Notify,
    pub(super) failovers: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) retries: AtomicU64,
}

impl Fleet {
    /// Writes go to the first server until something else is seen.
    pub(super) fn new(servers: Vec<Server>, limits: PoolLimits, clock: Clock) -> Self {
        let nowhere = servers[0].pool.options().clone().connect_lazy_with(servers[0].options().clone());
        // Closed as it is called; there is no connection to wait for.
        drop(nowhere.close());
        let periodic = AtomicBool::new(limits.health_checks);
        Self {
            servers,
            nowhere,
            limits,
            clock,
            judge: Mutex::new(Judge::new()),
            word: Mutex::default(),
            writer: watch::Sender::new(Writer::Server(0)),
            last_writer: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            periodic,
            retimed: Notify::new(),
            failovers: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    /// Where writes go now.
    pub(super) fn writer(&self) -> Writer {
        self.writer.borrow().clone()
    }

    /// The server where writes go now.
    pub(super) fn writer_index(&self) -> Option<usize> {
        match *self.writer.borrow() {
            Writer::Server(index) => Some(index),
            Writer::Nobody | Writer::Contested(_) => None,
        }
    }

    /// Until writes go elsewhere, or so long.
    pub(super) async fn until_news(&self, patience: Duration) {
        let mut news = self.writer.subscribe();
        // The sender lives as long as we do.
        let _ = tokio::time::timeout(patience, news.changed()).await;
    }

    /// What the daemon says.
    pub(super) fn hear(&self, word: Word) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = word;
        self.judge();
    }

    /// Decides anew by what is known of all servers.
    pub(super) fn judge(&self) {
        // One verdict at a time, also when several looks end together.
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<Seen> = self.servers.iter().map(Server::seen).collect();
        let word = *self.word.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = judge.judge(&seen, word);
        let index = if let Writer::Server(index) = verdict { Some(index) } else { None };
        for (i, server) in self.servers.iter().enumerate() {
            let readable = Some(i) != index && judge.is_readable(&seen[i], index.map(|index| &seen[index]));
            server.standing().readable = readable;
        }
        let before = self.writer.send_replace(verdict.clone());
        if before != verdict {
            self.tell(&verdict);
        }
    }

    fn tell(&self, verdict: &Writer) {
        match verdict {
            Writer::Server(index) => tracing::info!(primary = %self.servers[*index].name, "writes go to"),
            Writer::Nobody => tracing::warn!("no server proves to be the primary, writes wait"),
            Writer::Contested(claims) => {
                tracing::error!(
                    servers = self.names(claims),
                    "several servers claim to be the primary, writes are refused"
                );
            }
        }
        if let Writer::Server(index) = *verdict {
            let before = self.last_writer.swap(index, Relaxed);
            self.failovers.fetch_add(u64::from(before != index), Relaxed);
        }
    }

    /// With commas between them.
    pub(super) fn names(&self, indices: &[usize]) -> String {
        indices.iter().map(|&index| self.servers[index].name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The replica that a read goes to, if one is fit and not among these.
    pub(super) fn replica(&self, not: &[usize]) -> Option<usize> {
        let fit = |&index: &usize| !not.contains(&index) && self.servers[index].is_fit();
        self.balance((0..self.servers.len()).filter(fit))
    }

    /// The least busy one of these.
    pub(super) fn balance(&self, among: impl Iterator<Item = usize>) -> Option<usize> {
        let choices: Vec<Choice> =
            among.map(|server| Choice { server, in_use: self.servers[server].in_use() }).collect();
        choose(&choices, self.turn.fetch_add(1, Relaxed))
    }

    /// A query wants a server: those that were given up are tried again.
    pub(super) fn wanted(&self) {
        self.servers.iter().for_each(Server::wanted);
    }

    /// Every server is looked at, soon.
    pub(super) fn ask_all(&self) {
        self.servers.iter().for_each(Server::ask);
    }

    /// Every server was looked at by a look that began after the call. Each takes the check's time limit at most.
    pub(super) async fn looked(&self) {
        let asked = self.servers.iter().map(Server::looked);
        futures_util::future::join_all(asked).await;
    }
}
