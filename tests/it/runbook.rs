//! `docs/runbook` and the page on troubleshooting as they are typed, on a real pair: what is to be looked at can be looked at, what is to be typed is taken,
//! and a server that is rebuilt by the page on quarantine is a standby again. That the pages fit the alerts is `kit`'s.

use crate::harness::binaries::{as_account, existing, postgres};
use crate::harness::status::find;
use crate::harness::{Cluster, Daemon, Pair, SOON, Shutdown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Of an operating system that no test may stop or start, or of a cluster that is not there.
const NOT_HERE: [&str; 10] = [
    "systemctl start postgresql",
    "systemctl stop postgresql",
    "systemctl restart pgpivot",
    "systemctl status pgpivot",
    "journalctl -u pgpivot -n 100",
    "kubectl get pods -l app.kubernetes.io/name=pgpivot",
    "kubectl logs deploy/pgpivot --previous",
    "cp -a /var/lib/postgresql/15/main /var/lib/postgresql/15/main.beside",
    // The rebuild has a test of its own.
    "mv /var/lib/postgresql/15/main /var/lib/postgresql/15/main.old",
    REBUILD,
];
const REBUILD: &str =
    "pg_basebackup -h db2.example.com -U replicator -D /var/lib/postgresql/15/main -R -X stream -C -S us_east";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_pages_say_to_look_at_answers_and_whatever_they_say_to_type_is_taken() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.until("armed", SOON, |service| service.open && service.armed).await;
    existing(Path::new("/usr/bin/curl"), "curl");
    let commands = commands();
    assert!(commands.len() > 70, "{}", commands.len());
    for (page, typed) in &commands {
        if NOT_HERE.contains(&typed.as_str()) {
            continue;
        }
        let output = run(&here(typed, &pair, &daemon), &daemon);
        let said = format!("{page}: {typed}: {output:?}\n{}", daemon.log_tail());
        match output.status.code() {
            Some(0) => assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "says nothing: {said}"),
            // What only an emergency allows is refused with a reason while all is well.
            Some(1) if changes(typed) => assert!(output.stderr.len() > 20, "{said}"),
            _ => panic!("{said}"),
        }
    }
    let service = daemon.service().await;
    assert!(service.open && service.armed && service.paused.is_none(), "nothing has changed: {service:#?}");
    let typed: Vec<&str> = commands.iter().map(|(_, typed)| typed.as_str()).collect();
    NOT_HERE.iter().for_each(|not_here| assert!(typed.contains(not_here), "{not_here} is in no page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_is_rebuilt_as_the_page_says_leaves_quarantine_and_takes_traffic_home() {
    let pair = Pair::start().await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "0s").start().await;
    daemon.until("armed", SOON, |service| service.open && service.armed).await;
    pair.east.kill().await;
    daemon.until_active("west", SOON).await;
    pair.east.start().await;
    daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;

    let page = std::fs::read_to_string(folder().join("PgpivotQuarantine.md")).unwrap();
    let steps: Vec<&str> =
        page.split("```sh\n").find(|block| block.contains("pg_basebackup")).unwrap().lines().collect();
    assert_eq!(steps[0], "systemctl stop postgresql");
    pair.east.stop(Shutdown::Fast).await;
    on_its_machine(steps[1], &pair.east, &pair.west);
    on_its_machine(steps[2], &pair.east, &pair.west);
    assert_eq!(steps[3], "systemctl start postgresql");
    pair.east.start().await;

    daemon.until("armed again", SOON, |s| find(s, "east").quarantined.is_none() && find(s, "east").armed).await;
    let typed = "proxyctl restore --reason \"the old primary follows again\"";
    assert!(commands().iter().any(|(page, command)| page == "FailoverOccurred.md" && command == typed));
    let output = run(&format!("{typed} --yes"), &daemon);
    assert!(output.status.success(), "{output:?}\n{}", daemon.log_tail());
    daemon.until_active("east", SOON).await;
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook")
}

/// The lines of every page's `sh` blocks, with the page.
fn commands() -> Vec<(String, String)> {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(folder().join("../troubleshooting.md"));
    pages.sort();
    let mut commands = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        commands.extend(blocks.flat_map(str::lines).map(|line| (name.clone(), line.to_owned())));
    }
    commands
}

/// Orders that a pair in good order is only asked about.
fn changes(typed: &str) -> bool {
    let orders = ["failover", "restore", "adopt", "rejoin", "abandon"];
    orders.iter().any(|order| typed.starts_with(&format!("proxyctl {order}")))
}

/// With the names and places of this pair.
fn here(typed: &str, pair: &Pair, daemon: &Daemon) -> String {
    let at = |server: &Cluster| format!("-h {} -p {} ", server.data().parent().unwrap().display(), server.port);
    let typed = typed.replace("-h db1.example.com ", &at(&pair.east)).replace("-h db2.example.com ", &at(&pair.west));
    let typed = typed.replace("us-east", "east").replace("us-west", "west");
    let typed = typed.replace("127.0.0.1:8404", &daemon.admin.to_string()).replace("curl -s ", "curl -sS --fail ");
    let typed = typed.replace("/var/lib/pgpivot", &daemon.state_path().display().to_string());
    match typed.as_str() {
        order if changes(order) && !order.contains(" --dry-run") => format!("{order} --dry-run"),
        _ => typed,
    }
}

fn run(typed: &str, daemon: &Daemon) -> Output {
    let ours = Path::new(env!("CARGO_BIN_EXE_proxyctl")).parent().unwrap();
    let tools = postgres("psql");
    let path = format!("{}:{}:/usr/bin:/bin", ours.display(), tools.parent().unwrap().display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", typed]).env_clear().env("PATH", path).env("PGPIVOT_URL", format!("http://{}", daemon.admin));
    shell.envs([("NO_COLOR", "1"), ("LC_ALL", "C.UTF-8"), ("HOME", "/nonexistent"), ("PGCONNECT_TIMEOUT", "10")]);
    shell.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap()
}

/// As the account of PostgreSQL, with the places of `server` and the active side `active`.
fn on_its_machine(typed: &str, server: &Cluster, active: &Cluster) {
    let address = active.address();
    let typed = typed.replace("/var/lib/postgresql/15/main", &server.data().display().to_string());
    let typed = typed.replace("-h db2.example.com ", &format!("-h {} -p {} ", address.ip(), address.port()));
    let tools = postgres("pg_basebackup");
    let mut shell = as_account(Path::new("/bin/sh"));
    shell.args(["-c", &typed]).env("PATH", format!("{}:/usr/bin:/bin", tools.parent().unwrap().display()));
    let output = shell.env("PGPASSWORD", "replicator").output().unwrap();
    assert!(output.status.success(), "{typed}: {output:?}");
}
