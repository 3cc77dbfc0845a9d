//! Debian's Chromium without a window, led by chromedriver: opens a page, asks it things, changes width and colours.

use super::binaries::existing;
use super::eventually::eventually;
use super::http;
use super::ports::free_port;
use super::processes::{descendants, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// For the browser to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Ended when dropped, its profile removed.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile.
    pub async fn open() -> Self {
        let chromium = existing(Path::new("/usr/bin/chromium"), "chromium");
        let program = existing(Path::new("/usr/bin/chromedriver"), "chromium-driver");
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        let profile = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--port={}", address.port())).env("HOME", profile.path()).stdin(Stdio::null());
        let driver = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        eventually("chromedriver answers", START, async || http::request(address, "GET", "/status", "").await).await;
        let data = browser._profile.path().join("data");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", data.display()),
        ];
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let answer = browser.call("POST", "/session", &wanted).await;
        browser.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        browser
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let answer = http::request_within(START, self.address, method, path, &body).await;
        let (code, text) = answer.unwrap_or_else(|e| panic!("the browser does not answer {path}: {e}"));
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["value"].take()
    }

    /// Opens a page and waits until it is loaded.
    pub async fn go(&self, url: &str) {
        self.call("POST", &format!("{}/url", self.session), &json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    pub async fn ask(&self, expression: &str) -> Value {
        let script = json!({ "script": format!("return ({expression});"), "args": [] });
        self.call("POST", &format!("{}/execute/sync", self.session), &script).await
    }

    /// What a person can read, in lower case (a style may print capitals).
    pub async fn text(&self) -> String {
        self.ask("document.body.innerText").await.as_str().unwrap().to_lowercase()
    }

    /// Waits until the page reads so.
    pub async fn reads(&self, words: &str, within: Duration) -> String {
        let wanted = words.to_lowercase();
        eventually(&format!("the page says {wanted:?}"), within, async || {
            let text = self.text().await;
            if text.contains(&wanted) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// A viewport of this size.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", &metrics).await;
    }

    /// `dark` or `light`, as the person's system asks for it.
    pub async fn colours(&self, scheme: &str) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", &media).await;
    }

    /// Pages that are loaded from now on run no script.
    pub async fn switch_scripts_off(&self) {
        self.command("Emulation.setScriptExecutionDisabled", &json!({ "value": true })).await;
    }

    async fn command(&self, name: &str, params: &Value) {
        let body = json!({ "cmd": name, "params": params });
        self.call("POST", &format!("{}/goog/cdp/execute", self.session), &body).await;
    }

    /// How far the page can be scrolled sideways, pixels.
    pub async fn sideways(&self) -> i64 {
        let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.ask(overflow).await.as_i64().unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let family = descendants(self.driver.id());
        family.iter().for_each(|pid| signal(*pid, Signal::KILL));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
