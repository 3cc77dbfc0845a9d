//! Prometheus' HAProxy exporter (Debian: prometheus-haproxy-exporter) reads `/stats;csv` as if HAProxy had written it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::served::{Served, get, sample};

const PROGRAM: &str = "prometheus-haproxy-exporter";

/// Runs until it is dropped.
struct Exporter {
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    fn of(served: &Served) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = Command::new(PROGRAM)
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--haproxy.scrape-uri=http://{}/stats;csv", served.address()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{PROGRAM}: {e}; install it: apt-get install {PROGRAM}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let up = lines.any(|line| line.unwrap().contains("Listening on"));
        let exporter = Self { child, address };
        assert!(up, "{PROGRAM} ended before it listened");
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        exporter
    }

    fn scrape(&self) -> String {
        get(self.address, "/metrics")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn an_exporter_made_for_haproxy_finds_states_and_session_counts() {
    let served = Served::start("steady");
    let exporter = Exporter::of(&served);
    let (theirs, ours) = (exporter.scrape(), get(served.address(), "/metrics"));
    assert_eq!(value(&theirs, "haproxy_up"), 1.0);
    assert_eq!(value(&theirs, "haproxy_exporter_csv_parse_failures_total"), 0.0);
    assert_eq!(value(&theirs, r#"haproxy_backend_up{backend="main"}"#), 1.0);
    let now: f64 =
        ["127.0.0.1:26257\",service=\"main\",target=\"active", "127.0.0.1:26258\",service=\"main\",target=\"read_only"]
            .map(|l| value(&ours, &format!("pgpivot_listener_connections{{address=\"{l}\"}}")))
            .iter()
            .sum();
    assert_eq!(value(&theirs, r#"haproxy_frontend_current_sessions{frontend="main"}"#), now);
    for backend in ["us-east", "us-west"] {
        let server = format!(r#"{{backend="main",server="{backend}"}}"#);
        let side = format!(r#"{{backend="{backend}",service="main"}}"#);
        assert_eq!(value(&theirs, &format!("haproxy_server_up{server}")), 1.0);
        let sessions = value(&ours, &format!("pgpivot_backend_connections{side}"));
        assert_eq!(value(&theirs, &format!("haproxy_server_current_sessions{server}")), sessions);
        let failed = value(&ours, &format!("pgpivot_probe_failures_total{side}"));
        assert_eq!(value(&theirs, &format!("haproxy_server_check_failures_total{server}")), failed);
        let weight = value(&ours, &format!("pgpivot_backend_weight{side}"));
        assert_eq!(value(&theirs, &format!("haproxy_server_weight{server}")), weight);
    }
}

#[test]
fn an_exporter_made_for_haproxy_sees_a_failover_go_by() {
    let served = Served::start("promoting");
    let exporter = Exporter::of(&served);
    let during = exporter.scrape();
    assert_eq!(value(&during, "haproxy_up"), 1.0);
    assert_eq!(value(&during, r#"haproxy_server_up{backend="main",server="us-east"}"#), 0.0);
    assert_eq!(value(&during, r#"haproxy_backend_up{backend="main"}"#), 0.0);
    assert_eq!(value(&during, r#"haproxy_backend_current_queue{backend="main"}"#), 87.0);
    served.publish(sample("quarantined"));
    let after = exporter.scrape();
    assert_eq!(value(&after, r#"haproxy_backend_up{backend="main"}"#), 1.0);
    assert_eq!(value(&after, r#"haproxy_server_up{backend="main",server="us-west"}"#), 1.0);
    assert_eq!(value(&after, r#"haproxy_server_up{backend="main",server="us-east"}"#), 0.0);
}
