//! The configuration that the demo runs on, as the file that anybody could have written. Reads no environment: the
//! demo is the same on every machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;
use crate::config::env::Env;
use crate::config::raw;
use crate::config::validate::{self, Problem};

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
",
        admin = plan.admin,
        state = plan.state.to_string_lossy(),
        listen = plan.listen,
    )
}

/// The configuration that the text means.
pub fn build(text: &str) -> Result<Config, Vec<Problem>> {
    let nothing = Env::parse(&BTreeMap::new());
    validate::build(raw::parse(text), &nothing, 1).map(|(config, _)| config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Promoter;

    #[test]
    fn the_daemon_takes_the_demos_configuration() {
        let plan = Plan {
            listen: "127.0.0.1:26257".parse().unwrap(),
            admin: "127.0.0.1:8404".parse().unwrap(),
            state: Path::new("/tmp/with \"quotes\"/state"),
            sides: [("us-east", "127.0.0.1:15433".parse().unwrap()), ("us-west", "127.0.0.1:15434".parse().unwrap())],
        };
        let config = build(&text(&plan)).unwrap();
        assert_eq!(config.state.path, plan.state);
        assert_eq!(config.services[0].listeners[0].address, plan.listen);
        assert!(matches!(config.services[0].failover.promoter, Promoter::Postgres { .. }));
        assert!(config.services[0].failover.automatic);
    }
}
