//! Who stands between client and server, and how each is started.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;

use super::harness::binaries::existing;
use super::harness::ports::free_port;
use super::{process, raw};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerKind {
    /// Nobody.
    Direct,
    /// Debian's HAProxy with one thread.
    HaproxyT1,
    /// The same with two.
    HaproxyT2,
    /// Two threads, and told to splice.
    HaproxySplice,
    /// The daemon of this crate, with the threads that are its default.
    Pgpivot,
}

/// A peer that runs.
#[derive(Debug)]
pub struct Peer {
    /// Where clients connect.
    pub listen: SocketAddr,
    proxy: Option<Proxy>,
}

/// Killed when dropped.
#[derive(Debug)]
struct Proxy {
    child: Child,
    home: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's.
pub fn haproxy() -> PathBuf {
    existing("/usr/sbin/haproxy".as_ref(), "haproxy")
}

impl PeerKind {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Direct, Self::HaproxyT1, Self::HaproxyT2, Self::HaproxySplice, Self::Pgpivot];
}

impl Peer {
    /// Starts it in front of `server` and waits until it serves.
    pub fn start(kind: PeerKind, server: SocketAddr) -> Self {
        if kind == PeerKind::Direct {
            return Self { listen: server, proxy: None };
        }
        let home = tempfile::Builder::new().prefix("pgpivot-bench-").tempdir().unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = home.path().join("config");
        let command = match kind {
            PeerKind::Direct | PeerKind::HaproxyT1 => haproxy_with(&config, listen, server, 1, false),
            PeerKind::HaproxyT2 => haproxy_with(&config, listen, server, 2, false),
            PeerKind::HaproxySplice => haproxy_with(&config, listen, server, 2, true),
            PeerKind::Pgpivot => pgpivot_with(&config, home.path(), listen, server),
        };
        let child = started(command, home.path());
        let mut proxy = Proxy { child, home };
        serves(listen, &mut proxy);
        Self { listen, proxy: Some(proxy) }
    }

    /// Its CPU time so far; there is none without a proxy.
    pub fn cpu(&self) -> Option<Duration> {
        self.proxy.as_ref().map(|proxy| process::cpu(proxy.child.id()))
    }

    /// Its memory, likewise.
    pub fn pss(&self) -> Option<u64> {
        self.proxy.as_ref().map(|proxy| process::pss(proxy.child.id()))
    }

    /// Since that reading.
    pub fn cpu_since(&self, before: Option<Duration>) -> Option<Duration> {
        Some(self.cpu()?.saturating_sub(before?))
    }
}

fn haproxy_with(config: &Path, listen: SocketAddr, server: SocketAddr, threads: u32, splice: bool) -> Command {
    // Pipes take descriptors, too, and one stream needs few of them.
    let (most, splicing) =
        if splice { (1000, "    option splice-request\n    option splice-response\n") } else { (9900, "") };
    let text = format!(
        "global
    nbthread {threads}
    maxconn {most}
defaults
    mode tcp
    timeout connect 4s
    timeout client 30m
    timeout server 30m
listen database
    bind {listen}
{splicing}    server one {server}
"
    );
    std::fs::write(config, text).unwrap();
    let mut command = Command::new(haproxy());
    command.arg("-db").arg("-f").arg(config);
    command
}

/// Routing only: what is measured is the relay, and every peer checks as little.
fn pgpivot_with(config: &Path, home: &Path, listen: SocketAddr, server: SocketAddr) -> Command {
    let text = format!(
        "[admin]
listen = \"off\"
socket = {:?}
[state]
path = {:?}
[service.main]
kind = \"postgres\"
[[service.main.listener]]
address = \"{listen}\"
max_connections = 9900
[[service.main.backend]]
name = \"one\"
addresses = [\"{server}\"]
role = \"primary\"
[[service.main.backend]]
name = \"spare\"
addresses = [\"127.0.0.1:9\"]
role = \"standby\"
[service.main.probe]
kind = \"tcp\"
[service.main.failover]
promoter = \"none\"
standby_serves = true
",
        home.join("admin.sock"),
        home.join("state")
    );
    std::fs::write(config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgpivot"));
    command.env_clear().arg("--config").arg(config);
    command
}

fn started(mut command: Command, home: &Path) -> Child {
    let log = File::create(home.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
}

/// Until a server answers through it.
fn serves(listen: SocketAddr, proxy: &mut Proxy) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !raw::is_answered(listen) {
        let ended = proxy.child.try_wait().unwrap();
        let log = || std::fs::read_to_string(proxy.home.path().join("log")).unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "the proxy does not serve ({ended:?}):\n{}", log());
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().unwrap().get_name())
    }
}
