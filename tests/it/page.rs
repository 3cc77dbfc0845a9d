//! The status page as a person sees it in a browser, and the same figures as monitoring sees them.

use crate::harness::ports::free_port;
use crate::harness::status::blocked;
use crate::harness::{Browser, Daemon, Pair, SOON, Writers, binaries, eventually, http};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FAILOVER: Duration = Duration::from_secs(15);
/// Within this the page shows what the daemon knows.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_led_through_a_page() {
    let browser = Browser::open().await;
    browser.go("data:text/html,<body><p>Hello <script>document.write('there')</script></p></body>").await;
    browser.reads("hello there", SOON).await;
    browser.resize(360, 640).await;
    assert_eq!(browser.ask("innerWidth").await, 360);
    assert_eq!(browser.sideways().await, 0);
    browser.colours("dark").await;
    assert_eq!(browser.ask("matchMedia('(prefers-color-scheme: dark)').matches").await, true);
    browser.switch_scripts_off().await;
    browser.go("data:text/html,<body><p>Hello <script>document.write('there')</script></p></body>").await;
    assert_eq!(browser.text().await.trim(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_follows_a_failover_within_a_second_without_reloading() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let browser = look_at(&daemon).await;
    browser.reads("steady", SOON).await;
    assert_eq!(active(&browser).await, "east");
    browser.ask("window.loaded_once = true").await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    let known = Instant::now();
    eventually("the page shows west", SOON, async || match active(&browser).await.as_str() {
        "west" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    assert!(known.elapsed() < AT_ONCE, "it took the page {:?}", known.elapsed());
    assert_eq!(browser.ask("window.loaded_once").await, true, "the page was loaded again");
    pair.east.start().await;
    browser.reads("quarantined", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_suspicion_and_a_promotion_under_way() {
    let pair = Pair::start().await;
    let slow = vec!["/bin/sleep".to_owned(), "60".to_owned()];
    let plan = Daemon::plan(&[&pair.east, &pair.west]).probe("fall", 10).failover("promoter", "command");
    let daemon = plan.failover("promote_command", slow).start().await;
    let browser = look_at(&daemon).await;
    pair.east.freeze().await;
    browser.reads("suspect", SOON).await;
    browser.reads("promoting", Duration::from_secs(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_why_nothing_is_decided() {
    let pair = Pair::plan().behind_a_wire().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let browser = look_at(&daemon).await;
    pair.wire().cut_wire(pair.east.port);
    let shown = daemon.until("blocked", FAILOVER, |s| blocked(s) == "witness alive").await;
    browser.reads("blocked", SOON).await;
    browser.reads(&shown.blocked.unwrap().sentence, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_exhausted_budget() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "1s").failover("max_per_day", 1);
    let daemon = plan.start().await;
    let browser = look_at(&daemon).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    pair.east.rebuild_as_standby_of(&pair.west).await;
    daemon.until("armed", SOON, |s| s.armed).await;
    pair.west.kill().await;
    daemon.until("budget exhausted", FAILOVER, |s| blocked(s) == "budget exhausted").await;
    browser.reads("budget exhausted", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_a_telephone_and_a_desk_in_the_dark_and_in_the_light() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let browser = look_at(&daemon).await;
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.colours(scheme).await;
        for width in [360, 1440] {
            browser.resize(width, 900).await;
            browser.reads("steady", SOON).await;
            assert_eq!(browser.sideways().await, 0, "{width} px, {scheme}: it overflows sideways");
        }
        backgrounds.push(browser.ask("getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(backgrounds[0], backgrounds[1], "dark looks like light");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_readable_without_javascript() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let browser = Browser::open().await;
    browser.switch_scripts_off().await;
    browser.go(&format!("http://{}/stats", daemon.admin)).await;
    let text = browser.reads("steady", SOON).await;
    assert!(text.contains("east") && text.contains("west"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_for_haproxy_reads_what_the_metrics_say() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 3);
    writers.go_on_at(pair.east.port, 30, SOON).await;
    let exporter = Exporter::start(&daemon).await;
    // Two scrapes are two moments; with three connections that stay they agree soon and go on agreeing.
    eventually("both show three sessions at east", SOON, async || {
        let theirs = exporter.scrape().await;
        let (_, ours) = daemon.fetch("/metrics").await?;
        assert_eq!(value(&theirs, "haproxy_up", &[]), 1.0);
        assert_eq!(value(&theirs, "haproxy_server_up", &["server=\"east\""]), 1.0);
        let figures = ["east", "west"].map(|side| {
            let (here, there) = (format!("server=\"{side}\""), format!("backend=\"{side}\""));
            let current = value(&theirs, "haproxy_server_current_sessions", &[&here]);
            let total = value(&theirs, "haproxy_server_sessions_total", &[&here]);
            let ours_current = value(&ours, "pgpivot_backend_connections", &[&there]);
            let ours_total = value(&ours, "pgpivot_endpoint_sessions_total", &[&there]);
            ((current, total), (ours_current, ours_total))
        });
        let agree = figures.iter().all(|(theirs, ours)| theirs == ours);
        if agree && figures[0].0 == (3.0, 3.0) { Ok(()) } else { Err(format!("{figures:?}")) }
    })
    .await;
    let journal = writers.stop().await;
    assert_eq!(journal.error_count(), 0, "{:?}", journal.errors);
}

async fn look_at(daemon: &Daemon) -> Browser {
    let browser = Browser::open().await;
    browser.go(&format!("http://{}/stats", daemon.admin)).await;
    browser
}

/// The name that stands where the page tells the active side.
async fn active(browser: &Browser) -> String {
    let name = browser.ask("document.querySelector('.who .name').textContent.trim()").await;
    name.as_str().unwrap().to_owned()
}

/// The value of the one sample of this name that has all these labels.
fn value(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name).unwrap_or("x");
        rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
    };
    let found: Vec<&str> = metrics.lines().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} in\n{metrics}");
    found[0].rsplit(' ').next().unwrap().parse().unwrap()
}

/// Prometheus' exporter for HAProxy, pointed at the daemon's CSV.
#[derive(Debug)]
struct Exporter {
    address: SocketAddr,
    child: Child,
}

impl Exporter {
    async fn start(daemon: &Daemon) -> Self {
        let program = Path::new("/usr/bin/prometheus-haproxy-exporter");
        let program = binaries::existing(program, "prometheus-haproxy-exporter");
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address={address}"));
        command.arg(format!("--haproxy.scrape-uri=http://{}/stats;csv", daemon.admin));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let exporter = Self { address, child };
        eventually("the exporter answers", SOON, async || http::request(address, "GET", "/", "").await).await;
        exporter
    }

    async fn scrape(&self) -> String {
        let (code, text) = http::request(self.address, "GET", "/metrics", "").await.unwrap();
        assert_eq!(code, 200, "{text}");
        text
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
