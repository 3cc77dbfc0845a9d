//! A network namespace on one virtual wire: what stands in it is reached through that wire only, and any port of it can
//! be made to swallow every packet without a reset. Needs root.

use super::binaries::{account, existing, run};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed, with all that hangs on it, when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    outer: Ipv4Addr,
    inner: Ipv4Addr,
}

impl Namespace {
    /// A namespace whose names and addresses no other test process uses.
    pub fn create() -> Self {
        assert!(rustix::process::geteuid().is_root(), "a network namespace needs root: run the tests as root");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pgpv{pid}n{number}");
        // One /30 each out of 10.213.0.0/16.
        let net = 0x0AD5_0000 | ((pid.wrapping_mul(4) + number) % 0x4000) << 2;
        let this = Self { name, outer: Ipv4Addr::from(net + 1), inner: Ipv4Addr::from(net + 2) };
        this.wire();
        this
    }

    fn wire(&self) {
        let (outside, inside) = (format!("{}a", self.name), format!("{}b", self.name));
        ip(&["netns", "add", &self.name]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", &self.name]);
        ip(&["addr", "add", &format!("{}/30", self.outer), "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        ip(&["-n", &self.name, "addr", "add", &format!("{}/30", self.inner), "dev", &inside]);
        ip(&["-n", &self.name, "link", "set", &inside, "up"]);
        ip(&["-n", &self.name, "link", "set", "lo", "up"]);
        self.nft("add table inet cut");
        self.nft("add chain inet cut input { type filter hook input priority 0 ; }");
        self.nft("add chain inet cut output { type filter hook output priority 0 ; }");
    }

    /// Where servers inside are reached, from inside and outside.
    pub fn address(&self) -> Ipv4Addr {
        self.inner
    }

    /// The command line that runs a program inside as the servers' account.
    pub fn enter(&self, program: &Path) -> Command {
        let account = account().expect("a namespace needs root");
        let mut command = Command::new(ip_program());
        command.args(["netns", "exec", &self.name]).arg(existing(Path::new("/usr/bin/setpriv"), "util-linux"));
        command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
        command.args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Swallows every packet from and to this port, on the wire and inside.
    pub fn swallow(&self, port: u16) {
        for (chain, field) in [("input", "dport"), ("input", "sport"), ("output", "dport"), ("output", "sport")] {
            self.nft(&format!("add rule inet cut {chain} tcp {field} {port} drop"));
        }
    }

    /// Swallows what passes the wire from and to this port; inside, it is still reached.
    pub fn cut_wire(&self, port: u16) {
        let outer = self.outer;
        self.nft(&format!("add rule inet cut input ip saddr {outer} tcp dport {port} drop"));
        self.nft(&format!("add rule inet cut output ip daddr {outer} tcp sport {port} drop"));
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.nft("flush table inet cut");
    }

    fn nft(&self, rule: &str) {
        let nft = existing(Path::new("/usr/sbin/nft"), "nftables");
        run(Command::new(ip_program()).args(["netns", "exec", &self.name]).arg(nft).arg(rule));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The wire goes with the namespace.
        let _ = Command::new(ip_program()).args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    run(Command::new(ip_program()).args(args));
}

fn ip_program() -> PathBuf {
    existing(Path::new("/usr/sbin/ip"), "iproute2")
}
