//! The configuration that the demo runs on, as the file that anybody could have written. Reads no environment: the
//! demo is the same on every machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;
use crate::config::source::{self, ConfigError};

/// Its name in the folder.
pub const FILE: &str = "pgpivot.toml";

/// What differs from demo to demo.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Where applications connect.
    pub listen: SocketAddr,
    /// Page and API.
    pub admin: SocketAddr,
    /// The state directory.
    pub state: &'a Path,
    /// Name and address of each side, the primary first.
    pub sides: [(&'a str, SocketAddr); 2],
    /// Where each side has a folder of its name with a script `rebuild` in it; `None` = there are none.
    pub rebuilds: Option<&'a Path>,
}

/// The text of the file.
pub fn text(plan: &Plan<'_>) -> String {
    let [(primary, primary_address), (standby, standby_address)] = plan.sides;
    format!(
        "\
# What `pgpivot demo` runs on.
[admin]
listen = \"{admin}\"

[state]
path = {state:?}

[service.main]
kind = \"postgres\"
workers = 1

[[service.main.listener]]
address = \"{listen}\"

[[service.main.backend]]
name = \"{primary}\"
addresses = [\"{primary_address}\"]
role = \"primary\"
tls = {{ mode = \"disable\" }}

[[service.main.backend]]
name = \"{standby}\"
addresses = [\"{standby_address}\"]
role = \"standby\"
tls = {{ mode = \"disable\" }}

[service.main.probe]
kind = \"sql\"
user = \"pgpivot\"
detection = \"fast\"

[service.main.failover]
promoter = \"postgres\"
# So that one can try again and again.
cooldown = \"5s\"
max_per_day = 100
{rejoin}",
        admin = plan.admin,
        state = plan.state.to_string_lossy(),
        listen = plan.listen,
        rejoin = plan.rebuilds.map_or_else(String::new, |folder| format!(
            "# `proxyctl rejoin` runs it; here, whatever was asked for, it is a new base backup.\n\
             rejoin_command = [\"/bin/sh\", {:?}]\n",
            folder.join("{backend}").join("rebuild").to_string_lossy()
        )),
    )
}

/// A cluster of the demo, as the file names it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Of the backend.
    pub name: &'static str,
    /// In the Cloud API.
    pub id: String,
    /// Where it speaks SQL.
    pub address: SocketAddr,
}

/// What differs from demo to demo of clusters.
#[derive(Debug, Clone)]
pub struct ClusterPlan<'a> {
    /// Where applications connect.
    pub listen: SocketAddr,
    /// Page and API.
    pub admin: SocketAddr,
    /// The state directory.
    pub state: &'a Path,
    /// Of the simulated Cloud.
    pub api_url: &'a str,
    /// Holds the API's secret key.
    pub secret_file: &'a Path,
    /// The primary first.
    pub clusters: &'a [Cluster; 2],
}

/// How long everything takes in the demo of clusters. The defaults decide 2 min 30 s after a disruption.
pub mod pace {
    use std::time::Duration;

    /// Between two checks.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// Until a check has failed.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Failures in a row.
    pub const FALL: u32 = 3;
    /// Between the last one and the decision.
    pub const DELAY: Duration = Duration::from_secs(3);
    /// Between two values of the replicated time.
    pub const REFRESH: Duration = Duration::from_secs(2);
}

/// The text of the file for clusters.
pub fn cluster_text(plan: &ClusterPlan<'_>) -> String {
    let seconds = |time: std::time::Duration| time.as_secs();
    let backend = |cluster: &Cluster, role: &str| {
        format!(
            "[[service.main.backend]]\nname = \"{}\"\ncluster_id = \"{}\"\naddresses = [\"{}\"]\nrole = \"{role}\"\n\
             tls = {{ mode = \"disable\" }}\n",
            cluster.name, cluster.id, cluster.address
        )
    };
    let [primary, standby] = plan.clusters;
    format!(
        "\
# What `pgpivot demo --cockroach` runs on. For clusters of your own: config/cockroach-cloud.toml.
[admin]
listen = \"{admin}\"

[state]
path = {state:?}

[service.main]
kind = \"cockroach\"
workers = 1

[[service.main.listener]]
address = \"{listen}\"

{primary}
{standby}
# The times are short, so that one can watch; those of life are the defaults.
[service.main.cockroach_cloud]
api_url = \"{api}\"
secret_file = {secret:?}
timeout = \"2s\"                        # default 10s
replicated_time_refresh = \"{refresh}s\"        # default 30s

[service.main.probe]
kind = \"sql\"                           # default startup; sql can prove that a planned way home lost no row
user = \"pgpivot\"
interval = \"{interval}s\"                       # default 30s
timeout = \"{timeout}s\"                        # default 10s
fall = {fall}

[service.main.failover]
promoter = \"cockroach_cloud\"
delay = \"{delay}s\"                          # default 60s
# So that one can try again and again.
cooldown = \"5s\"
max_per_day = 100
",
        admin = plan.admin,
        state = plan.state.to_string_lossy(),
        listen = plan.listen,
        primary = backend(primary, "primary"),
        standby = backend(standby, "standby"),
        api = plan.api_url,
        secret = plan.secret_file.to_string_lossy(),
        refresh = seconds(pace::REFRESH),
        interval = seconds(pace::INTERVAL),
        timeout = seconds(pace::TIMEOUT),
        fall = pace::FALL,
        delay = seconds(pace::DELAY),
    )
}

/// The configuration that the file means, whatever the environment says.
pub fn read(file: &Path) -> Result<Config, ConfigError> {
    let beside = file.with_file_name("no.env");
    source::load_from(Some(file), &beside, BTreeMap::new()).map(|loaded| loaded.config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Promoter, Replication};

    fn built(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpivot.toml");
        std::fs::write(&file, text).unwrap();
        read(&file).unwrap()
    }

    #[test]
    fn the_daemon_takes_the_demos_configuration() {
        let plan = Plan {
            listen: "127.0.0.1:26257".parse().unwrap(),
            admin: "127.0.0.1:8404".parse().unwrap(),
            state: Path::new("/tmp/with \"quotes\"/state"),
            sides: [("us-east", "127.0.0.1:15433".parse().unwrap()), ("us-west", "127.0.0.1:15434".parse().unwrap())],
            rebuilds: Some(Path::new("/tmp/with \"quotes\"")),
        };
        let config = built(&text(&plan));
        let rejoin = config.services[0].failover.rejoin_command.clone().unwrap();
        assert_eq!(rejoin, ["/bin/sh", "/tmp/with \"quotes\"/{backend}/rebuild"]);
        assert_eq!(config.state.path, plan.state);
        assert_eq!(config.services[0].listeners[0].address, plan.listen);
        assert!(matches!(config.services[0].failover.promoter, Promoter::Postgres { .. }));
        assert!(config.services[0].failover.automatic);
    }

    #[test]
    fn the_daemon_takes_the_configuration_of_the_clusters_and_decides_while_one_watches() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "CCDB1_simulated\n").unwrap();
        let cluster = |name, n: u16| Cluster {
            name,
            id: format!("00000000-0000-4000-8000-{n:012}"),
            address: SocketAddr::from(([127, 0, 0, 1], n)),
        };
        let config = built(&cluster_text(&ClusterPlan {
            listen: "127.0.0.1:26257".parse().unwrap(),
            admin: "127.0.0.1:8404".parse().unwrap(),
            state: Path::new("/tmp/state"),
            api_url: "http://127.0.0.1:15435",
            secret_file: &secret,
            clusters: &[cluster("us-east", 15433), cluster("us-west", 15434)],
        }));
        let service = &config.services[0];
        assert_eq!(service.failover.promoter, Promoter::CockroachCloud);
        let Some(Replication::Cloud(cloud)) = &service.replication else { panic!("no Cloud API") };
        assert_eq!((cloud.api_url.as_str(), cloud.secret.expose()), ("http://127.0.0.1:15435", "CCDB1_simulated"));
        let decided = service.probe.interval * service.probe.fall + service.failover.delay;
        assert!(decided.as_secs() <= 10, "{decided:?}");
    }
}
