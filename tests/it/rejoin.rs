//! An old primary made a standby again by the operator's command: pg_rewind, a new base backup, a mere restart; and what
//! goes wrong on the way.

use crate::harness::binaries::postgres;
use crate::harness::status::{find, is_active};
use crate::harness::{Checker, Cluster, Daemon, Pair, SOON, Writers, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const FAILOVER: Duration = Duration::from_secs(15);

/// A command that really rebuilds `east` from `west`, as an operator would write it. It leaves the start of the server to
/// the test, which owns its processes, and waits for it.
struct Hook {
    folder: TempDir,
}

impl Hook {
    fn of(pair: &Pair) -> Self {
        let folder = tempfile::Builder::new().prefix("pgpivot-it-hook-").tempdir().unwrap();
        let hook = Self { folder };
        let (east, west) = (&pair.east, &pair.west);
        let socket = |server: &Cluster| server.data().parent().unwrap().display().to_string();
        let text = format!(
            r#"#!/bin/sh
set -eu
echo "$*" >> {home}/runs
as() {{ if [ "$(id -u)" = 0 ]; then /usr/sbin/runuser -u postgres -- "$@"; else "$@"; fi; }}
cd /
how=fast
[ "$5" = follow ] && how=immediate
if as {bin}/pg_ctl -D {east} status >/dev/null; then as {bin}/pg_ctl -D {east} -m $how -w stop; fi
while [ -e {home}/wait ]; do sleep 0.1; done
case "$5" in
rewind)
    as {bin}/psql -h {west_socket} -p {west_port} -U postgres -d app -qc CHECKPOINT
    as {bin}/pg_rewind --target-pgdata={east} --source-server='host={west_socket} port={west_port} user=postgres dbname=app'
    ;;
basebackup)
    rm -rf {east}
    as {bin}/pg_basebackup -D {east} -d "{conninfo}" --checkpoint=fast --no-sync
    ;;
follow) ;;
esac
cat >> {east}/postgresql.conf <<END
primary_conninfo = '{conninfo}'
primary_slot_name = ''
END
as touch {east}/standby.signal
touch {home}/ready
tries=0
until {bin}/pg_isready -q -h {east_socket} -p {east_port}; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || {{ echo 'it does not start' >&2; exit 1; }}
    sleep 0.1
done
echo "$1 answers as a standby of $3"
"#,
            home = hook.folder.path().display(),
            bin = postgres("pg_ctl").parent().unwrap().display(),
            east = east.data().display(),
            east_socket = socket(east),
            east_port = east.port,
            west_socket = socket(west),
            west_port = west.port,
            conninfo = east.conninfo_to(west),
        );
        fs::write(hook.path(), text).unwrap();
        fs::set_permissions(hook.path(), fs::Permissions::from_mode(0o755)).unwrap();
        hook
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rejoin")
    }

    fn argv(&self) -> Vec<toml::Value> {
        let words = ["{backend}", "{address}", "{primary}", "{primary_address}", "{method}"];
        [self.path().display().to_string().as_str()].into_iter().chain(words).map(toml::Value::from).collect()
    }

    /// The arguments of every run.
    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("runs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Keeps the next run from touching any data until it is let go.
    fn holds(&self) {
        fs::write(self.folder.path().join("wait"), "").unwrap();
    }

    fn goes_on(&self) {
        fs::remove_file(self.folder.path().join("wait")).unwrap();
    }

    /// Starts the server as soon as the command has its data ready.
    async fn starts(&self, server: &Cluster) {
        let ready = self.folder.path().join("ready");
        eventually("the command has the data ready", SOON, async || {
            if ready.exists() { Ok(()) } else { Err(format!("{:?}", self.runs())) }
        })
        .await;
        fs::remove_file(ready).unwrap();
        assert!(!server.runs(), "the command did not stop it");
        server.start().await;
    }
}

/// East was killed and came back as the primary that it was; west is active.
async fn east_came_back(pair: &Pair, daemon: &Daemon) {
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    pair.east.start().await;
    daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_is_rejoined_by_pg_rewind_and_restore_brings_traffic_home_without_loss() {
    let pair = Pair::start().await;
    let hook = Hook::of(&pair);
    let plan =
        Daemon::plan(&[&pair.east, &pair.west]).failover("rejoin_command", hook.argv()).failover("cooldown", "1s");
    let daemon = plan.start().await;
    east_came_back(&pair, &daemon).await;
    daemon.until("fenced", SOON, |s| find(s, "east").fence.as_deref() == Some("node-soft")).await;

    let plan = daemon.ctl_done(&["rejoin", "east", "--dry-run"]).await.out;
    let plan = unbroken(&plan);
    assert!(plan.contains("so it needs pg_rewind"), "{plan}");
    assert!(plan.contains("bytes of log written on east after the switch point"), "{plan}");
    assert!(hook.runs().is_empty(), "a dry run ran it");
    let refused = daemon.ctl(&["rejoin", "east", "--method", "follow", "--yes"]).await;
    assert!(refused.code == Some(1) && refused.talk.contains("wait for ever"), "{refused:#?}");

    // Home in one go: the rejoin that is missing comes first.
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let (spoken, ()) =
        tokio::join!(daemon.ctl_done(&["restore", "--yes", "--reason", "disk replaced"]), hook.starts(&pair.east));
    assert!(spoken.out.contains("east streams from west again, after pg_rewind"), "{spoken:#?}");
    assert!(spoken.out.contains("no acknowledged row was lost"), "{spoken:#?}");
    let home = daemon.until_active("east", SOON).await;
    assert_eq!((find(&home, "east").quarantined.as_ref(), find(&home, "east").fence.as_ref()), (None, None));
    assert_eq!(find(&home, "west").fence.as_deref(), Some("node-soft"));
    writers.go_on_at(pair.east.port, 50, SOON).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.east, old: &pair.west }.no_acknowledged_row_is_lost().await;
    let addresses = (pair.east.address(), pair.west.address());
    assert_eq!(hook.runs(), [format!("east {} west {} rewind", addresses.0, addresses.1)]);
    eventually("the history tells it", SOON, async || {
        let said = daemon.ctl_done(&["history", "--json", "--limit", "300"]).await.out;
        let wanted = [
            "east made a standby of west by pg_rewind",
            "are given up",
            "disk replaced",
            "rejoin of east: ",
            "streams from west again",
        ];
        let lacking = wanted.into_iter().find(|word| !said.contains(word));
        lacking.map_or(Ok(()), |word| Err(format!("no `{word}` in {said}")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_pg_rewind_cannot_see_what_changed_the_old_primary_gets_a_new_base_backup() {
    let pair = Pair::plan().setting("wal_log_hints", "off").start().await;
    let hook = Hook::of(&pair);
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("rejoin_command", hook.argv()).start().await;
    east_came_back(&pair, &daemon).await;
    let refused = daemon.ctl(&["rejoin", "east", "--method", "rewind", "--yes"]).await;
    assert!(refused.code == Some(1) && refused.talk.contains("wal_log_hints or data checksums"), "{refused:#?}");
    let (spoken, ()) = tokio::join!(daemon.ctl_done(&["rejoin", "east", "--yes"]), hook.starts(&pair.east));
    assert!(spoken.out.contains("east streams from west again, after a new base backup"), "{spoken:#?}");
    assert!(hook.runs()[0].ends_with(" basebackup"), "{:?}", hook.runs());
    let back = daemon.until("armed", SOON, |s| find(s, "east").armed).await;
    assert_eq!((find(&back, "east").quarantined.as_ref(), find(&back, "east").fence.as_ref()), (None, None));
    let again = daemon.ctl_done(&["rejoin", "east", "--yes"]).await;
    assert!(again.out.contains("standby of it already"), "{again:#?}");
    assert_eq!(hook.runs().len(), 1, "it was rebuilt although it streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_switchover_the_old_primary_is_rejoined_by_the_least_that_will_do() {
    let pair = Pair::start().await;
    let hook = Hook::of(&pair);
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("rejoin_command", hook.argv()).start().await;
    daemon.ctl_done(&["switchover", "--yes"]).await;
    daemon.until("fenced", SOON, |s| find(s, "east").fence.as_deref() == Some("node-soft")).await;
    let (spoken, ()) = tokio::join!(daemon.ctl_done(&["rejoin", "east", "--yes"]), hook.starts(&pair.east));
    // Frozen it writes nothing but, now and then, a word of its own.
    let follows = unbroken(&spoken.talk).contains("it can follow as it is");
    let words = if follows { ("after a restart as standby", " follow") } else { ("after pg_rewind", " rewind") };
    assert!(spoken.out.contains(words.0) && hook.runs()[0].ends_with(words.1), "{spoken:#?} {:?}", hook.runs());
    daemon.until("armed", SOON, |s| find(s, "east").armed && find(s, "east").fence.is_none()).await;
    eventually("it is not kept read-only", SOON, async || {
        let found = pair.east.ask("SHOW default_transaction_read_only").await;
        if found == "off" { Ok(()) } else { Err(found) }
    })
    .await;
    pair.west.is_followed_by(&pair.east).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejoin_command_that_fails_is_told_with_its_last_words_and_changes_nothing() {
    let pair = Pair::start().await;
    let argv = ["/bin/sh", "-c", "echo copying; echo 'no such slot' >&2; exit 1"].map(toml::Value::from).to_vec();
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("rejoin_command", argv).start().await;
    east_came_back(&pair, &daemon).await;
    let spoken = daemon.ctl(&["rejoin", "east", "--yes"]).await;
    assert_eq!(spoken.code, Some(1), "{spoken:#?}");
    assert!(spoken.out.contains("failed") && spoken.out.contains("no such slot"), "{spoken:#?}");
    let after = daemon.service().await;
    assert!(is_active(&after, "west") && after.open && find(&after, "east").quarantined.is_some());
    assert!(pair.east.runs() && pair.east.is_primary().await);
    let restore = daemon.ctl(&["restore", "--yes"]).await;
    assert!(restore.code == Some(1) && is_active(&daemon.service().await, "west"), "{restore:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_during_a_rejoin_watches_the_same_command_to_its_end() {
    let pair = Pair::start().await;
    let hook = Hook::of(&pair);
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("rejoin_command", hook.argv()).start().await;
    east_came_back(&pair, &daemon).await;
    hook.holds();
    let short = daemon.ctl(&["rejoin", "east", "--yes", "--timeout", "2s"]).await;
    assert!(short.code == Some(1) && short.out.contains("still under way"), "{short:#?}");
    daemon.until("it runs", SOON, |s| s.rejoin.as_ref().is_some_and(|rejoin| rejoin.stage == "running")).await;
    daemon.kill().await;
    daemon.launch();
    daemon.until("it is known", SOON, |s| s.open && s.rejoin.as_ref().is_some_and(|r| r.stage == "running")).await;
    hook.goes_on();
    let (spoken, ()) = tokio::join!(daemon.ctl_done(&["rejoin", "east", "--yes"]), hook.starts(&pair.east));
    assert!(spoken.out.contains("east streams from west again"), "{spoken:#?}");
    assert_eq!(hook.runs().len(), 1, "it was begun twice");
    daemon.until("armed", SOON, |s| find(s, "east").armed && find(s, "east").quarantined.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_command_the_lines_to_type_are_printed_and_the_server_is_watched_for() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    east_came_back(&pair, &daemon).await;
    let restore = daemon.ctl(&["restore", "--yes"]).await;
    assert_eq!(restore.code, Some(1), "{restore:#?}");
    let line =
        format!("$ pg_rewind --target-pgdata=\"$PGDATA\" --source-server='host=127.0.0.1 port={}", pair.west.port);
    assert!(restore.out.contains(&line), "{restore:#?}");
    assert!(!restore.out.contains("password="), "{restore:#?}");
    // A way that is named needs no answer from a server that is being rebuilt meanwhile.
    let asks = daemon.ctl_done(&["rejoin", "east", "--method", "basebackup"]);
    let (spoken, ()) = tokio::join!(asks, pair.east.rebuild_as_standby_of(&pair.west));
    assert!(spoken.out.contains("$ pg_basebackup -D \"$PGDATA\" -d 'host=127.0.0.1"), "{spoken:#?}");
    assert!(spoken.talk.contains("no longer quarantined"), "{spoken:#?}");
}

/// Lines are broken where the terminal ends.
fn unbroken(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
