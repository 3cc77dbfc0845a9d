//! The two sides and what they run on: real servers where PostgreSQL is installed, else the built-in simulated pair.
//! Hides the difference from the rest of the demo.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::binaries::{Account, Binaries};
use super::postgres::{NAMES, Pair, free_ports};
use super::story::{Screen, Side};
use super::{DemoError, Options};
use crate::sim;

/// A pair that runs.
#[derive(Debug)]
pub(super) enum Stage {
    /// PostgreSQL.
    Real {
        /// Its servers.
        pair: Pair,
        /// Its major version.
        major: u32,
    },
    /// Simulated servers in this process.
    BuiltIn {
        /// Both of them.
        pair: sim::Pair,
        /// Why it is not PostgreSQL.
        because: &'static str,
    },
}

impl Stage {
    /// Starts the best pair there can be.
    pub(super) async fn build<W: io::Write>(
        folder: &Path,
        options: &Options,
        screen: &mut Screen<W>,
    ) -> Result<Self, DemoError> {
        let ports = free_ports(&[options.listen.port(), options.admin.port()])?;
        let binaries = if options.built_in { None } else { Binaries::find().await };
        let because = match (binaries, Account::find().await) {
            (Some(binaries), Some(account)) => {
                let major = binaries.major;
                screen.say(&format!("Starting a primary and a standby of PostgreSQL {major} ...\n"))?;
                return Ok(Self::Real { pair: Pair::start(folder, &binaries, account, ports).await?, major });
            }
            (None, _) if options.built_in => "as asked for",
            (None, _) => "PostgreSQL 13 or newer was not found",
            (Some(_), None) => "PostgreSQL refuses root, and there is no user postgres",
        };
        let addresses = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Self::BuiltIn { pair: sim::Pair::start(addresses).await?, because })
    }

    /// What the sides are.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Real { major, .. } => {
                format!("A PostgreSQL {major} pair with streaming replication, and pgpivot in front of it.")
            }
            Self::BuiltIn { because, .. } => format!(
                "A built-in simulated pair ({because}), and pgpivot in front of it.\n\
                 It speaks PostgreSQL's protocol, keeps one table in memory, and proves nothing about PostgreSQL.\n\
                 For the real one: apt-get install postgresql"
            ),
        }
    }

    /// Name and address of each side, the primary of the start first.
    pub(super) fn addresses(&self) -> [(&'static str, SocketAddr); 2] {
        match self {
            Self::Real { pair, .. } => pair.servers().each_ref().map(|server| (server.name, server.address)),
            Self::BuiltIn { pair, .. } => {
                let [east, west] = sim::Side::BOTH.map(|side| pair.address(side));
                [(NAMES[0], east), (NAMES[1], west)]
            }
        }
    }

    /// Which side listens on this port.
    pub(super) fn position(&self, port: u16) -> Option<usize> {
        self.addresses().iter().position(|(_, address)| address.port() == port)
    }

    /// Both sides with the lines that kill and rebuild them now.
    pub(super) fn sides(&self) -> Vec<Side> {
        match self {
            Self::Real { pair, .. } => pair
                .servers()
                .iter()
                .map(|server| Side {
                    name: server.name,
                    address: server.address,
                    kill: server.pid().map(|pid| format!("kill -9 {pid}")),
                    rebuild: Some(Pair::rebuild_script(server).display().to_string()),
                })
                .collect(),
            Self::BuiltIn { .. } => {
                let sides = self.addresses();
                let steer = |i: usize, word: &str| {
                    format!("psql 'postgresql://demo@{}/demo' -c 'SELECT sim_{word}()'", sides[i].1)
                };
                let side = |i: usize| Side {
                    name: sides[i].0,
                    address: sides[i].1,
                    kill: Some(steer(i, "crash")),
                    // The one that lives rebuilds the other.
                    rebuild: Some(steer(1 - i, "rebuild")),
                };
                vec![side(0), side(1)]
            }
        }
    }
}
