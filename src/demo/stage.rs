//! The two sides and what they run on: real servers where PostgreSQL is installed, else the built-in simulated pair; or
//! simulated clusters. Hides the difference from the rest of the demo.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::binaries::{Account, Binaries};
use super::clusters::Simulated;
use super::configuration::{self, ClusterPlan, Plan};
use super::plot::Plot;
use super::postgres::{NAMES, Pair, free_ports};
use super::story::{Rebuild, Screen, Side};
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
    /// Simulated clusters in this process.
    Clusters(Simulated),
}

impl Stage {
    /// Starts the best pair there can be.
    pub(super) async fn build<W: io::Write>(
        folder: &Path,
        options: &Options,
        screen: &mut Screen<W>,
    ) -> Result<Self, DemoError> {
        if options.cockroach {
            let ports = free_ports(&[options.listen.port(), options.admin.port()])?;
            return Ok(Self::Clusters(Simulated::start(folder, ports, options.admin).await?));
        }
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
            Self::Clusters(_) => "\
Two SIMULATED CockroachDB clusters with physical cluster replication between them, a
simulated Cloud API over both, and pgpivot in front. They speak the wire, keep one table
in memory, and prove nothing about CockroachDB. For clusters of your own: docs/cockroach.md"
                .to_owned(),
        }
    }

    /// The file that the daemon runs on.
    pub(super) fn configuration(&self, options: &Options, state: &Path) -> String {
        let (listen, admin) = (options.listen, options.admin);
        match self {
            Self::Clusters(simulated) => configuration::cluster_text(&ClusterPlan {
                listen,
                admin,
                state,
                api_url: &simulated.api_url(),
                secret_file: simulated.secret_file(),
                clusters: &simulated.clusters(),
            }),
            Self::Real { .. } | Self::BuiltIn { .. } => {
                let rebuilds = match self {
                    Self::Real { pair, .. } => pair.servers()[0].data.ancestors().nth(2),
                    _ => None,
                };
                configuration::text(&Plan { listen, admin, state, sides: self.addresses(), rebuilds })
            }
        }
    }

    /// What is particular to this kind of sides.
    pub(super) fn plot(&self) -> Plot {
        match self {
            Self::Clusters(simulated) => Plot::Clusters(simulated.plot()),
            Self::Real { .. } | Self::BuiltIn { .. } => Plot::Servers,
        }
    }

    /// Ends what this process itself simulates; servers end with their folder.
    pub(super) async fn end(self) {
        if let Self::Clusters(simulated) = self {
            simulated.stop().await;
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
            Self::Clusters(simulated) => simulated.clusters().map(|cluster| (cluster.name, cluster.address)),
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
                    rebuild: Some(Rebuild::Rejoin),
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
                    rebuild: Some(Rebuild::Type(steer(1 - i, "rebuild"))),
                };
                vec![side(0), side(1)]
            }
            Self::Clusters(_) => {
                let side = |(name, address)| Side { name, address, kill: None, rebuild: None };
                self.addresses().map(side).to_vec()
            }
        }
    }
}
