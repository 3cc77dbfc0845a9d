//! HAProxy in TCP mode in front of a pair, with a socket through which it is steered. Who steers it is `controller`'s.

use super::harness::binaries::existing;
use super::harness::cluster::Cluster;
use super::harness::eventually::{SOON, eventually};
use super::harness::ports::free_port;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// HAProxy. Killed when dropped.
#[derive(Debug)]
pub struct Haproxy {
    /// Where applications connect.
    pub listen: SocketAddr,
    home: TempDir,
    child: Child,
}

impl Haproxy {
    /// Starts it with everything for `primary` and waits until it can be steered.
    pub async fn start(primary: &Cluster, standby: &Cluster) -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        fs::write(home.path().join("haproxy.cfg"), config(listen, primary, standby, home.path())).unwrap();
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(program());
        command.arg("-db").arg("-f").arg(home.path().join("haproxy.cfg")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let haproxy = Self { listen, home, child };
        eventually("HAProxy can be steered", SOON, async || {
            let answer = order(&haproxy.socket(), "show info").await.map_err(|e| e.to_string());
            answer.map_err(|e| format!("{e}\n{}", fs::read_to_string(haproxy.home.path().join("log")).unwrap()))
        })
        .await;
        haproxy
    }

    /// Its runtime socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's.
pub fn program() -> PathBuf {
    existing(Path::new("/usr/sbin/haproxy"), "haproxy")
}

/// Timeouts as Patroni's template has them. A connection that finds its server gone is tried again every second and
/// on whoever serves by then, so that HAProxy keeps newcomers waiting for as long as it can.
fn config(listen: SocketAddr, primary: &Cluster, standby: &Cluster, home: &Path) -> String {
    format!(
        "global
    stats socket {home}/socket mode 600 level admin
    maxconn 1000
defaults
    mode tcp
    retries 3
    option redispatch 1
    timeout connect 4s
    timeout client 30m
    timeout server 30m
frontend applications
    bind {listen}
    default_backend pair
backend pair
    server {} {}
    server {} {} disabled
",
        primary.name,
        primary.address(),
        standby.name,
        standby.address(),
        home = home.display(),
    )
}

/// Gives an order on the runtime socket and returns what HAProxy says to it.
pub async fn order(socket: &Path, words: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{words}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
