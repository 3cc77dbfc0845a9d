//! Clients' TLS ends at the listener: psql, real servers that demand TLS, and what a failover makes of it.

use crate::harness::clouds::{Clouds, EAST, WEST};
use crate::harness::psql::heard;
use crate::harness::status::is_active;
use crate::harness::{Daemon, Identity, Pair, Psql, SOON, eventually};
use crate::relay::ctrl_c_cancels;
use rustix::process::Signal;
use std::fs;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const FAILOVER: Duration = Duration::from_secs(60);

/// A pair that demands TLS, and a daemon in front of it that verifies both servers and shows a certificate of its own.
struct Stage {
    pair: Pair,
    listener: Identity,
    daemon: Daemon,
}

impl Stage {
    async fn start() -> Self {
        Self::with(|_| Identity::make(), false).await
    }

    async fn with(listener: impl FnOnce(&Pair) -> Identity, require: bool) -> Self {
        let pair = Pair::plan().tls_only().start().await;
        let listener = listener(&pair);
        let plan = Daemon::plan(&[&pair.east, &pair.west]);
        let servers = pair.east.data().join("server.crt");
        let daemon = plan.terminate_tls(&listener, require).verify_servers(&servers).start().await;
        Self { pair, listener, daemon }
    }

    /// A client that verifies the listener, and does without channel binding.
    fn psql(&self) -> Psql {
        self.plain_psql().channel_binding("disable")
    }

    /// The same as it comes.
    fn plain_psql(&self) -> Psql {
        Psql::verifying(self.daemon.listen, &self.listener.certificate())
    }
}

const OVER_TLS: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[tokio::test(flavor = "multi_thread")]
async fn psql_verifies_the_listener_and_the_listener_verifies_the_server() {
    let stage = Stage::start().await;
    assert_eq!(stage.psql().ask(OVER_TLS).await, "t");
    let servers = stage.pair.east.data().join("server.crt");
    let wrong = Psql::verifying(stage.daemon.listen, &servers).say("SELECT 1").await;
    assert!(wrong.code == Some(2) && wrong.talk.contains("certificate verify failed"), "{wrong:#?}");
    let in_clear = Psql::in_clear(stage.daemon.listen);
    assert_eq!(in_clear.ask(OVER_TLS).await, "t", "it goes on inside TLS");
    let psql = stage.psql();
    psql.pgbench(&["--initialize", "--quiet", "--scale=1"]).await;
    let spoken = psql.pgbench(&["--client=4", "--jobs=2", "--transactions=100", "--no-vacuum"]).await;
    assert!(spoken.out.contains("number of failed transactions: 0"), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_megabytes_come_back_unchanged_through_tls_on_both_sides() {
    let stage = Stage::start().await;
    let psql = stage.psql();
    let through = psql.ask("SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300000) AS i").await;
    assert_eq!(through.len(), 300_000 * 32);
    psql.ask("CREATE TABLE bulk (text text)").await;
    psql.feed("COPY bulk FROM STDIN", &format!("{through}\n")).await;
    let sum =
        "SELECT md5(string_agg(md5(i::text), '')) = (SELECT md5(text) FROM bulk) FROM generate_series(1, 300000) AS i";
    assert_eq!(psql.ask(sum).await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tls_is_required_a_client_in_clear_is_told_so() {
    let stage = Stage::with(|_| Identity::make(), true).await;
    let spoken = Psql::in_clear(stage.daemon.listen).say("SELECT 1").await;
    assert!(spoken.talk.contains("this listener takes encrypted connections only"), "{spoken:#?}");
    assert!(spoken.talk.contains("sslmode=require"), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_would_bind_its_login_to_our_certificate_is_told_what_to_do() {
    let stage = Stage::start().await;
    let spoken = stage.plain_psql().say("SELECT 1").await;
    assert_eq!(spoken.code, Some(2), "{spoken:#?}");
    assert!(spoken.talk.contains("SCRAM channel binding does not reach the server"), "{spoken:#?}");
    assert!(spoken.talk.contains("channel_binding=disable"), "{spoken:#?}");
    let spoken = stage.plain_psql().channel_binding("require").say("SELECT 1").await;
    assert!(spoken.code == Some(2) && spoken.talk.contains("channel binding is required"), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_servers_own_certificate_channel_binding_works() {
    let stage = Stage::with(|pair| Identity::of_server(&pair.east.data()), false).await;
    assert_eq!(stage.plain_psql().ask(OVER_TLS).await, "t");
    assert_eq!(stage.plain_psql().channel_binding("require").ask(OVER_TLS).await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_cancels_the_statement_where_tls_ends_at_the_listener() {
    let stage = Stage::start().await;
    ctrl_c_cancels(&stage.psql(), &stage.pair.east).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_ends_an_open_session_in_words_and_the_next_one_is_at_the_new_side() {
    let stage = Stage::start().await;
    let mut child = stage.psql().command("psql").args(["--no-psqlrc", "-qAt"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    typed.write_all(b"SELECT inet_server_port();\n").await.unwrap();
    assert_eq!(shown.next_line().await.unwrap().unwrap(), stage.pair.east.port.to_string());
    stage.daemon.ctl_done(&["switchover", "--yes"]).await;
    stage.daemon.until_active("west", SOON).await;
    typed.write_all(b"SELECT 1;\n").await.unwrap();
    drop(typed);
    let spoken = heard(child).await;
    assert!(spoken.talk.contains("terminating connection: its server is not the active one any more"), "{spoken:#?}");
    assert_eq!(stage.psql().ask("SELECT inet_server_port()").await, stage.pair.west.port.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_is_killed_a_tls_client_waits_and_is_served_by_the_standby() {
    let stage = Stage::start().await;
    assert_eq!(stage.psql().ask("SELECT inet_server_port()").await, stage.pair.east.port.to_string());
    stage.pair.east.kill().await;
    assert_eq!(stage.psql().ask("SELECT inet_server_port()").await, stage.pair.west.port.to_string());
    stage.daemon.until_active("west", FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_another_authority_vouches_for_is_named_to_the_client() {
    let pair = Pair::plan().tls_only().start().await;
    let listener = Identity::make();
    let plan = Daemon::plan(&[&pair.east, &pair.west]).terminate_tls(&listener, false);
    let daemon = plan.verify_servers(&listener.certificate()).only_connects().launch();
    daemon.until("it is open", SOON, |s| s.open).await;
    let psql = Psql::verifying(daemon.listen, &listener.certificate());
    let spoken = psql.say("SELECT 1").await;
    assert_eq!(spoken.code, Some(2), "{spoken:#?}");
    let said = ["no secure connection to a server", "TLS with east", "certificate does not verify"];
    assert!(said.iter().all(|said| spoken.talk.contains(said)), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_after_sighup_and_a_bad_one_changes_nothing() {
    let stage = Stage::start().await;
    let old = stage.listener.certificate().with_extension("old");
    fs::copy(stage.listener.certificate(), &old).unwrap();
    stage.listener.renew();
    assert_eq!(Psql::verifying(stage.daemon.listen, &old).channel_binding("disable").ask("SELECT 1").await, "1");
    stage.daemon.signal(Signal::HUP);
    eventually("the renewed certificate is shown", SOON, async || {
        let spoken = stage.psql().say("SELECT 1").await;
        if spoken.code == Some(0) { Ok(()) } else { Err(spoken.talk) }
    })
    .await;
    let renewed = stage.listener.certificate().with_extension("new");
    fs::copy(stage.listener.certificate(), &renewed).unwrap();
    fs::copy(&old, stage.listener.certificate()).unwrap();
    stage.daemon.signal(Signal::HUP);
    let said = "does not belong to the certificate";
    eventually("the reload is refused", SOON, async || {
        if stage.daemon.log().contains(said) { Ok(()) } else { Err(stage.daemon.log_tail()) }
    })
    .await;
    assert_eq!(Psql::verifying(stage.daemon.listen, &renewed).channel_binding("disable").ask("SELECT 1").await, "1");
    let tls = stage.daemon.service().await.listeners[0].tls.clone().unwrap();
    let expires = tls.expires.unwrap().0 / 1_000_000;
    let (_, metrics) = stage.daemon.fetch("/metrics").await.unwrap();
    let shown = format!("target=\"active\"}} {expires}");
    let line =
        metrics.lines().find(|line| line.starts_with("pgpivot_listener_tls_certificate_expiry_timestamp_seconds{"));
    assert!(line.is_some_and(|line| line.ends_with(&shown)), "{line:?} should end with {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_fail_over_behind_a_listener_that_ends_tls() {
    let (clouds, listener) = (Clouds::start().await, Identity::make());
    let daemon = clouds.plan().terminate_tls(&listener, true).plaintext_servers().start().await;
    let psql = || Psql::verifying(daemon.listen, &listener.certificate()).of_user("app", "defaultdb");
    psql().ask("INSERT INTO commits (id) VALUES (1)").await;
    clouds.crash(EAST).await;
    daemon.until("an episode runs", FAILOVER, |s| s.episode.is_some()).await;
    let (_, service) = tokio::join!(
        async { psql().ask("INSERT INTO commits (id) VALUES (2)").await },
        daemon.until_active(WEST, FAILOVER)
    );
    assert!(is_active(&service, WEST) && service.epoch.0 == 2);
    assert!(psql().ask("SELECT id FROM commits ORDER BY id").await.ends_with('2'));
}
