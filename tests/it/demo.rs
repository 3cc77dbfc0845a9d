//! `pgpivot demo`, as the README's first commands start it: the whole story, and nothing left behind.

use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::processes::signal;
use crate::harness::psql::Psql;
use rustix::process::Signal;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// For servers to be made, promoted and rebuilt on a busy machine.
const STORY: Duration = Duration::from_secs(60);

/// A demo and what it has said. Dropped, it is asked to end as Ctrl-C would.
struct Demo {
    child: Child,
    said: PathBuf,
    listen: u16,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Demo {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let (listen, admin) = (free_port(), free_port());
        let admin = format!("127.0.0.1:{admin}");
        let child = Command::new(env!("CARGO_BIN_EXE_pgpivot"))
            .args(["demo", "--listen", &format!("127.0.0.1:{listen}"), "--admin", &admin])
            .args(options)
            .stdin(Stdio::null())
            .stdout(File::create(&said).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, said, listen, admin, _folder: folder }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    async fn says(&self, part: &str) {
        self.says_since(0, part).await;
    }

    async fn says_since(&self, from: usize, part: &str) {
        eventually(&format!("the demo says {part:?}"), STORY, async || {
            let said = self.said();
            if said[from..].contains(part) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// The word that follows `before` in what it said.
    fn word_after(&self, before: &str) -> String {
        let said = self.said();
        let rest = said.split_once(before).unwrap_or_else(|| panic!("no {before:?} in:\n{said}")).1;
        rest.split_whitespace().next().unwrap().to_owned()
    }

    fn proxyctl(&self, args: &[&str]) -> (bool, String) {
        let url = format!("http://{}", self.admin);
        let done = Command::new(env!("CARGO_BIN_EXE_proxyctl")).args(["--url", &url]).args(args).output().unwrap();
        (
            done.status.success(),
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr),
        )
    }

    /// Types the first line since `from` that has `part`, and `more` behind it, in a shell.
    fn types(&self, from: usize, part: &str, more: &str) {
        let said = self.said();
        let line = said[from..].lines().find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no {part:?} in:\n{said}"));
        let done = Command::new("sh").args(["-c", &format!("{line} {more}")]).output().unwrap();
        let talk = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {talk}");
    }

    async fn ends(&mut self) {
        signal(self.child.id(), Signal::INT);
        eventually("the demo has ended", STORY, async || match self.child.try_wait().unwrap() {
            Some(status) if status.success() => Ok(()),
            Some(status) => panic!("the demo ended with {status}"),
            None => Err(self.said()),
        })
        .await;
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.child.id(), Signal::INT);
            let _ = self.child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_a_death_a_failover_a_rebuild_and_the_way_home_and_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    demo.says("now on us-east").await;
    let postmaster: u32 = demo.word_after("kill -9 ").parse().unwrap();
    let folder = demo.word_after("folder ");
    assert!(Path::new(&folder).is_dir(), "{folder}");

    let before = demo.said().len();
    signal(postmaster, Signal::KILL);
    demo.says_since(before, "now on us-west").await;
    assert!(demo.said()[before..].contains("gap"), "{}", demo.said());

    let (done, talk) = demo.proxyctl(&["restore", "--yes"]);
    assert!(!done, "restored to a side that was not rebuilt: {talk}");
    let (done, talk) = demo.proxyctl(&["rejoin", "us-east", "--method", "basebackup", "--yes"]);
    assert!(done && talk.contains("us-east streams from us-west again"), "{talk}");
    let before = demo.said().len();
    eventually("traffic is home", STORY, async || match demo.proxyctl(&["restore", "--yes"]) {
        (true, _) => Ok(()),
        (false, talk) => Err(talk),
    })
    .await;
    demo.says_since(before, "now on us-east").await;

    demo.ends().await;
    assert!(!Path::new(&folder).exists(), "{folder} was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_of_clusters_shows_a_disruption_a_failover_and_the_way_home_and_leaves_nothing() {
    let mut demo = Demo::start(&["--cockroach"]);
    demo.says("now on us-east").await;
    let folder = demo.word_after("folder ");
    let url = format!("postgresql://demo@127.0.0.1:{}/defaultdb", demo.listen);
    let psql = Psql::to(SocketAddr::from(([127, 0, 0, 1], demo.listen)));
    let rows = async || psql.say_to(&url, "SELECT count(*) FROM commits").await.out.trim().parse::<u64>();
    assert!(rows().await.unwrap() > 0);
    demo.says("pgpivot: armed").await;

    let before = demo.said().len();
    demo.types(0, "simulate disrupt", "");
    demo.says_since(before, "us-west is active now").await;
    let told = &demo.said()[before..];
    assert!(told.contains("acknowledged are not on the new one") && told.contains("gap"), "{told}");
    assert!(rows().await.unwrap() > 0, "psql goes on through the same address");

    let (done, talk) = demo.proxyctl(&["restore", "--yes"]);
    assert!(!done && talk.contains("no stream leads from us-west back to us-east"), "{talk}");
    demo.types(before, "simulate restore", "");
    demo.types(before, "failback create-stream", "--yes");
    let before = demo.said().len();
    eventually("traffic is home", STORY, async || match demo.proxyctl(&["restore", "--yes"]) {
        (true, talk) if !talk.contains("could not be proven") => Ok(()),
        (true, talk) => panic!("a row may be lost on the way home: {talk}"),
        (false, talk) => Err(talk),
    })
    .await;
    demo.says_since(before, "us-east is active now").await;
    assert!(rows().await.unwrap() > 0);
    assert!(!demo.said()[before..].contains("not on the new one"), "{}", demo.said());

    demo.ends().await;
    assert!(!Path::new(&folder).exists(), "{folder} was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_option_that_changes_it() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let admin = free_port();
    let done = Command::new(env!("CARGO_BIN_EXE_pgpivot"))
        .args(["demo", "--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    assert!(!done.status.success());
    assert!(talk.contains(&port.to_string()) && talk.contains("--listen"), "{talk}");
}
