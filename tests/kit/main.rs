//! The operator's kit against what a daemon really exports and takes: alert rules and their tests, the dashboard, the
//! manifests, the runbook. Prometheus, promtool and kubernetes-validate do the judging of their own formats.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod dashboard;
mod exported;
mod manifests;
mod prometheus;
mod promql;
mod rules;
mod runbook;
#[allow(dead_code, reason = "the admin tests use all of it")]
#[path = "../admin/served.rs"]
mod served;
mod stage;
mod tools;
