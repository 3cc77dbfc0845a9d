//! The admin server met by programs that are not ours: Prometheus' HAProxy exporter and a browser.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod browser;
mod exporter;
mod page;
mod served;
