//! A Prometheus (Debian: prometheus) that scrapes given addresses every second, with our rules, and is asked by HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{PROMETHEUS, path};

/// Runs until it is dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _home: TempDir,
}

impl Prometheus {
    pub(crate) fn scraping(targets: &[SocketAddr]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\n\
             scrape_configs:\n- job_name: pgpivot\n  static_configs: [{{targets: [{}]}}]\n",
            path("docker/prometheus/pgpivot.rules.yml").display(),
            targets.join(", ")
        );
        std::fs::write(home.path().join("prometheus.yml"), config).unwrap();
        let mut child = Command::new("/usr/bin/prometheus")
            .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("prometheus: {e}; install it: {PROMETHEUS}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let up = lines.any(|line| line.unwrap().contains("Server is ready to receive web requests"));
        let prometheus = Self { child, address, _home: home };
        assert!(up, "prometheus ended before it was ready");
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        prometheus
    }

    /// The series that a query finds now; an error of the query fails the test.
    pub(crate) fn ask(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = self.get(&format!("/api/v1/query?query={escaped}"));
        assert_eq!(reply["status"], "success", "{query}: {reply}");
        reply["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {reply}")).clone()
    }

    /// Every rule, as it stands.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let reply = self.get("/api/v1/rules");
        let groups = reply["data"]["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// By HTTP 1.0, so that the body comes in one piece.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (_, body) = reply.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {reply}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until nothing is left to complain of; fails with what still is after a minute.
pub(crate) fn until_nothing_is_left(what: &str, mut left: impl FnMut() -> Vec<String>) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let still = left();
        if still.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "{what}: {still:#?}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}
