//! Two simulated clusters and the Cloud API over them, on free ports of this machine, at a pace that one can watch; and
//! the file that tells programs where they are. What is said of them is `plot`'s.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::configuration::{Cluster, FILE, pace};
use super::plot::Clusters;
use super::postgres::NAMES;
use crate::sim::cloud::{Cloud, ClusterSettings, Initial, Pace, Settings};

/// How far the standby is behind when the replicated time moves.
const LAG: Duration = Duration::from_secs(1);
/// Of a failover, from the order to its end.
const FAILOVER: Duration = Duration::from_secs(3);
/// Until a new stream replicates, and until its first scan is over.
const SETTING_UP: Duration = Duration::from_secs(2);
/// The regions, in the order of [`NAMES`].
const REGIONS: [&str; 2] = ["us-east-1", "us-west-2"];

/// A simulated cloud that runs.
#[derive(Debug)]
pub(super) struct Simulated {
    cloud: Cloud,
    secret_file: PathBuf,
    environment: PathBuf,
    configuration: PathBuf,
}

impl Simulated {
    /// Starts it; `ports`: of both clusters, then of the API. What programs need is written into `folder`.
    pub(super) async fn start(folder: &Path, ports: [u16; 3], admin: SocketAddr) -> io::Result<Self> {
        let [east, west, api] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let cluster = |n: usize, sql| ClusterSettings { name: NAMES[n].into(), region: REGIONS[n].into(), sql };
        let settings = Settings {
            api,
            clusters: vec![cluster(0, east), cluster(1, west)],
            pace: Pace {
                starting: SETTING_UP,
                scan: SETTING_UP,
                step: pace::REFRESH,
                lag: LAG,
                failover: FAILOVER,
                ..Pace::default()
            },
            initial: Initial::Replicating,
            ..Settings::default()
        };
        let cloud = Cloud::start(settings).await?;
        // As proxyctl wants it of a cluster that may be disrupted.
        (0..NAMES.len()).for_each(|n| cloud.set_delete_protection(n, false));
        let simulated = Self {
            cloud,
            secret_file: folder.join("cloud-secret"),
            environment: folder.join("env"),
            configuration: folder.join(FILE),
        };
        let secret = simulated.cloud.secret().expose();
        private(&simulated.secret_file, &format!("{secret}\n"))?;
        private(&simulated.environment, &simulated.variables(secret, admin))?;
        Ok(simulated)
    }

    /// Both, the primary of the start first.
    pub(super) fn clusters(&self) -> [Cluster; 2] {
        [0, 1].map(|n| Cluster { name: NAMES[n], id: self.cloud.cluster_id(n), address: self.cloud.sql_address(n) })
    }

    /// Where the simulated Cloud API answers.
    pub(super) fn api_url(&self) -> String {
        self.cloud.api_url()
    }

    /// Holds the API's secret key.
    pub(super) fn secret_file(&self) -> &Path {
        &self.secret_file
    }

    /// What the story names.
    pub(super) fn plot(&self) -> Clusters {
        Clusters {
            api: self.api_url(),
            environment: self.environment.clone(),
            configuration: self.configuration.clone(),
        }
    }

    /// Ends it; whoever watches it must have ended before.
    pub(super) async fn stop(self) {
        self.cloud.stop().await;
    }

    /// Lines for a shell, and for a `.env` file.
    fn variables(&self, secret: &str, admin: SocketAddr) -> String {
        let [primary, standby] = self.clusters();
        let mut text =
            "# The simulated clusters of `pgpivot demo --cockroach`; the secret opens nothing else.\n".to_owned();
        for (name, value) in [
            ("COCKROACH_API_URL", self.api_url()),
            ("COCKROACH_API_SECRET_KEY", secret.to_owned()),
            ("PRIMARY_CLUSTER_ID", primary.id),
            ("STANDBY_CLUSTER_ID", standby.id),
            ("PRIMARY_SQL_DNS", primary.address.to_string()),
            ("STANDBY_SQL_DNS", standby.address.to_string()),
            ("PGPIVOT_URL", format!("http://{admin}")),
        ] {
            text.push_str(&format!("export {name}={value}\n"));
        }
        text
    }
}

/// A file for its owner's eyes.
fn private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::postgres::free_ports;
    use super::*;
    use crate::config::{Promoter, Replication, env, source};

    #[tokio::test]
    async fn the_environment_it_writes_is_all_that_pgpivot_needs_for_these_clusters() {
        let folder = tempfile::tempdir().unwrap();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 8404));
        let simulated = Simulated::start(folder.path(), free_ports(&[]).unwrap(), admin).await.unwrap();
        let text = std::fs::read_to_string(folder.path().join("env")).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('=')).map(|(name, _)| name);
        let unknown: Vec<_> = names.filter(|name| !env::NAMES.contains(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
        let loaded = source::load_from(None, &folder.path().join("env"), Default::default()).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let service = &loaded.config.services[0];
        assert_eq!(service.failover.promoter, Promoter::CockroachCloud);
        let Some(Replication::Cloud(cloud)) = &service.replication else { panic!("no Cloud API") };
        assert_eq!(cloud.api_url, simulated.api_url());
        for (backend, cluster) in service.backends.iter().zip(simulated.clusters()) {
            assert_eq!(backend.cluster_id.as_deref(), Some(cluster.id.as_str()));
            assert_eq!(backend.addresses[0].to_string(), cluster.address.to_string());
        }
        simulated.stop().await;
    }
}
