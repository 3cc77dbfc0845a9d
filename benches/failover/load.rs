//! The applications of a round: long-lived sessions and short connections, each row with an id of its own.

use super::harness::writer::{Journal, Writers};
use std::net::SocketAddr;
use std::time::Duration;

/// Sessions that last until an error ends them.
const LONG: usize = 12;
const LONG_PACE: Duration = Duration::from_millis(25);
/// Sessions that open a connection for every row.
const BRIEF: usize = 6;
const BRIEF_PACE: Duration = Duration::from_millis(100);
/// For how long a peer may keep applications waiting before the round is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Applications at work.
#[derive(Debug)]
pub struct Load {
    long: Writers,
    brief: Writers,
}

impl Load {
    /// Starts them and waits until they have settled at this server.
    pub async fn start(to: SocketAddr, port: u16) -> Self {
        let load = Self {
            long: Writers::start_at_pace(to, LONG, LONG_PACE),
            brief: Writers::start_brief(to, BRIEF, BRIEF_PACE),
        };
        load.go_on_at(port).await;
        load
    }

    /// Waits until both kinds write at this server.
    pub async fn go_on_at(&self, port: u16) {
        self.long.go_on_at(port, 300, PATIENCE).await;
        self.brief.go_on_at(port, 20, PATIENCE).await;
    }

    /// Connections open now; from here on the most are counted anew.
    pub fn open_now(&self) -> usize {
        self.long.open_now() + self.brief.open_now()
    }

    /// The most that were open at one time since [`Load::open_now`].
    pub fn most_open(&self) -> usize {
        self.long.most_open() + self.brief.most_open()
    }

    /// Ends them and hands out what they were told.
    pub async fn stop(self) -> Journal {
        let mut journal = self.long.stop().await;
        journal.append(self.brief.stop().await);
        journal
    }
}
