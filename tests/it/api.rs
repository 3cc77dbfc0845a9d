//! The API as scripts and programs meet it: beside its own document, by schemathesis, which sends what that allows and
//! what it does not (how is in `api/schemathesis.toml`), and by the README's lines.

use crate::harness::binaries::existing;
use crate::harness::{Daemon, Pair, SOON};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const TOKEN: &str = "0123456789abcdef-token";
/// Beyond this it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(240);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Commands need the token. Without a promoter they do no harm, whoever makes them up.
async fn start(pair: &Pair) -> Daemon {
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("promoter", "none").token("script", TOKEN);
    let daemon = plan.launch();
    daemon.until("open and healthy", SOON, |s| s.open && s.state == "healthy").await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_the_reply_is_one_that_the_document_promises() {
    let pair = Pair::start().await;
    let daemon = start(&pair).await;
    let program = root().join("target/test-needs/schemathesis/bin/st");
    let program = existing(&program, "schemathesis with scripts/install-test-needs");
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut command = Command::new(program);
    command.arg("--config-file").arg(root().join("tests/it/api/schemathesis.toml"));
    command.args(["--no-color", "run", &format!("http://{}/openapi.json", daemon.admin)]);
    command.arg("--report-json-path").arg(&report).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    command.env_clear().envs([("PGPIVOT_TOKEN", TOKEN), ("LC_ALL", "C.UTF-8"), ("HOME", "/nonexistent")]);
    let output = timeout(PATIENCE, command.output()).await.expect("schemathesis ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));

    // It has looked at everything but the document itself, and it was let in.
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let document: Value = serde_json::from_str(&daemon.fetch("/openapi.json").await.unwrap().1).unwrap();
    let paths = document["paths"].as_object().unwrap().len();
    assert_eq!((&report["operations"]["tested"], &report["complete"]), (&(paths - 1).into(), &true.into()), "{said}");
    let taken = &report["valid_rates"]["POST /failover/check-health"]["fuzzing"]["accepted"];
    assert!(taken.as_u64() > Some(0), "{said}");
    let after = daemon.service().await;
    assert!(after.open && after.state == "healthy" && after.epoch.0 == 1, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_with_curl_in_the_readme_do_what_it_says() {
    let pair = Pair::start().await;
    let daemon = start(&pair).await;
    existing(Path::new("/usr/bin/curl"), "curl");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        let typed = line.replace("localhost:8404", &daemon.admin.to_string());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &typed]).env_clear().envs([("PATH", "/usr/bin:/bin"), ("TOKEN", TOKEN)]);
        let output = timeout(SOON, command.stdin(Stdio::null()).output()).await.expect("curl ends").unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{line}: {e}: {output:?}"));
        let wanted = if line.contains("openapi.json") {
            "paths"
        } else if line.contains("POST") {
            "sentence"
        } else {
            "primary"
        };
        assert!(output.status.success() && said.get(wanted).is_some(), "{line}: {said:#}");
    }
}
