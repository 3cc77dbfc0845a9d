//! `proxyctl monitor` as the controller of two clusters, with nothing but an environment file.

use crate::harness::clouds::{Clouds, EAST, WEST, side};
use crate::harness::{SOON, eventually};
use pgpivot::sim::cloud::Operation;
use std::time::Duration;

/// `proxyctl monitor` with nothing but an environment, its output kept.
struct Monitor {
    child: std::process::Child,
    home: tempfile::TempDir,
    admin: std::net::SocketAddr,
}

impl Monitor {
    fn start(clouds: &Clouds, home: tempfile::TempDir) -> Self {
        let port = crate::harness::ports::free_port();
        let admin = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let [primary, standby] = [EAST, WEST].map(side);
        let text = format!(
            "COCKROACH_API_URL={}\nCOCKROACH_API_SECRET_KEY={}\nPRIMARY_CLUSTER_ID={}\nSTANDBY_CLUSTER_ID={}\n\
             PRIMARY_SQL_DNS={}\nSTANDBY_SQL_DNS={}\nHEALTH_CHECK_INTERVAL=1\nHEALTH_CHECK_TIMEOUT=1\n\
             FAILURE_THRESHOLD=2\nFAILOVER_DELAY=1\nPGPIVOT_ADMIN={admin}\nSTATE_DIRECTORY={}\n",
            clouds.cloud.api_url(),
            clouds.cloud.secret().expose(),
            clouds.cloud.cluster_id(primary),
            clouds.cloud.cluster_id(standby),
            clouds.cloud.sql_address(primary),
            clouds.cloud.sql_address(standby),
            home.path().join("state").display()
        );
        std::fs::write(home.path().join(".env"), text).unwrap();
        let out = std::fs::File::create(home.path().join("out")).unwrap();
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
            .arg("monitor")
            .current_dir(home.path())
            .env_clear()
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, home, admin }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join("out")).unwrap_or_default()
    }

    async fn until(&self, what: &str, within: Duration) {
        eventually(&format!("monitor says {what:?}"), within, async || match self.said() {
            said if said.contains(what) => Ok(()),
            said => Err(said),
        })
        .await;
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_with_only_an_environment_file_is_the_controller_and_completes_a_failover() {
    let clouds = Clouds::start().await;
    // The service refreshes its replicated time in life's own pace for this controller: thirty seconds.
    clouds.cloud.set_pace(pgpivot::sim::cloud::Pace { step: Duration::from_secs(5), ..clouds.cloud.pace() });
    let monitor = Monitor::start(&clouds, tempfile::tempdir().unwrap());
    monitor.until("this is the controller", SOON).await;
    monitor.until(": answered; standby standby", SOON).await;
    // Until its stream was seen to advance, it could not testify.
    monitor.until("behind, could take over", Duration::from_secs(90)).await;

    // A second one on the same state is told who holds it.
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .args(["monitor"])
        .current_dir(monitor.home.path())
        .env_clear()
        .env("PGPIVOT_ADMIN", format!("127.0.0.1:{}", crate::harness::ports::free_port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&monitor.child.id().to_string()), "the holder of the lock is named: {said}");

    clouds.crash(EAST).await;
    monitor.until("check of primary failed (1/2)", SOON).await;
    monitor.until("failed (2/2), threshold reached", SOON).await;
    monitor.until("last look, and the decision, in", SOON).await;
    monitor.until("standby is active in epoch 2", Duration::from_secs(180)).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 1);
    assert!(!monitor.said().contains(clouds.cloud.secret().expose()));

    eventually("its status says so, too", SOON, async || {
        let (_, body) = crate::harness::http::request(monitor.admin, "GET", "/failover/status", "").await?;
        if body.contains(r#""active":"standby""#) { Ok(()) } else { Err(body) }
    })
    .await;

    // Whoever stands in the same folder speaks to it.
    let history = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .arg("history")
        .current_dir(monitor.home.path())
        .env_clear()
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&history.stdout), String::from_utf8_lossy(&history.stderr));
    assert!(history.status.success() && said.contains("standby"), "{said}");

    // Beside it another one only shows.
    let url = format!("http://{}", monitor.admin);
    let mut beside = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .args(["monitor", "--url", &url])
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(beside.stdout.take().unwrap());
    let mut line = String::new();
    let read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert!(line.contains("standby is active (epoch 2)"), "{line}");
    beside.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_calls_the_clusters_otherwise_is_known_by_their_ids() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let [primary, standby] = [EAST, WEST].map(|name| clouds.cloud.cluster_id(side(name)));
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .args(["failback", "status"])
        .current_dir("/")
        .env_clear()
        .env("PGPIVOT_URL", format!("http://{}", daemon.admin))
        .env("COCKROACH_API_URL", clouds.cloud.api_url())
        .env("COCKROACH_API_SECRET_KEY", clouds.cloud.secret().expose())
        .env("PRIMARY_CLUSTER_ID", primary)
        .env("STANDBY_CLUSTER_ID", standby)
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("with the daemon at") && said.contains(EAST) && said.contains(WEST), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_one_pair_is_not_given_to_the_daemon_of_another_one() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let order = async |primary: String| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"))
            .args(["failover", "--dry-run"])
            .current_dir("/")
            .env_clear()
            .env("PGPIVOT_ADMIN", daemon.admin.to_string())
            .env("COCKROACH_API_URL", clouds.cloud.api_url())
            .env("COCKROACH_API_SECRET_KEY", clouds.cloud.secret().expose())
            .env("PRIMARY_CLUSTER_ID", primary)
            .env("STANDBY_CLUSTER_ID", clouds.cloud.cluster_id(side(WEST)))
            .output()
            .await
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let (code, said) = order("00000000-0000-0000-0000-00000000beef".into()).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not lead the clusters") && said.contains("beef"), "{said}");
    let (_, said) = order(clouds.cloud.cluster_id(side(EAST))).await;
    assert!(!said.contains("does not lead the clusters") && said.contains(WEST), "{said}");
}
