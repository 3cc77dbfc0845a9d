//! The mirror and the environment into a [`Config`]: defaults, ranges, and what must fit together. Finds every problem
//! in one run and says for each what would be right. Reads nothing; the contents of secret files come with the mirror.

mod across;
mod admin;
mod comeback;
mod command;
mod failover;
pub(in crate::config) mod form;
mod listener_tls;
mod patroni;
mod probe;
mod read_only;
mod replication;
mod section;
mod service;
mod standbys;

use std::path::PathBuf;

use self::section::Section;
pub(in crate::config) use self::section::size_text;
use super::env::Env;
pub use super::raw::problem::{Problem, Problems};
use super::raw::{Raw, service_path};
use super::{Admin, Config, State};

/// Builds the configuration.
///
/// `cores` is what `workers = 0` stands for. Returns the configuration with warnings, or all problems.
pub fn build(raw: Raw, env: &Env, cores: usize) -> Result<(Config, Vec<String>), Vec<Problem>> {
    let (config, problems) = examine(raw, env, cores);
    let warnings = problems.into_result()?;
    // Text that is no TOML has a problem.
    config.map(|config| (config, warnings)).ok_or_else(Vec::new)
}

/// The same with all that was noted of keys on the way; `None` = the text is no TOML.
pub(in crate::config) fn examine(mut raw: Raw, env: &Env, cores: usize) -> (Option<Config>, Problems) {
    let broken = raw.broken;
    let mut problems = std::mem::take(&mut raw.problems);
    env.overlay(&mut raw, &mut problems);
    if broken {
        return (None, problems);
    }
    let services = raw
        .services
        .iter()
        .map(|(name, service)| service::build(name, service, &raw, cores, &mut problems))
        .collect::<Vec<_>>();
    if services.is_empty() {
        problems.missing(
            "service",
            "none is configured; write [service.main] with its backends into the configuration file, or set DATABASE_URL \
             and DATABASE_REPLICA_URL, or DB_HOST and PGPIVOT_STANDBYS, or for CockroachDB Cloud \
             COCKROACH_API_SECRET_KEY, PRIMARY_CLUSTER_ID and STANDBY_CLUSTER_ID",
        );
    }
    let admin = Admin { credentials: env.credentials(), ..admin::build(&raw, &mut problems) };
    let config = Config { admin, state: state(&raw, &mut problems), services };
    across::check(&config, &mut problems);
    (Some(config), problems)
}

fn state(raw: &Raw, problems: &mut Problems) -> State {
    let mut section = Section::new("state", problems);
    State { path: section.path("path", &raw.state.path).unwrap_or_else(|| PathBuf::from("./pgpivot-state")) }
}

/// Is this a name for a service or a backend?
pub fn is_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
    let first = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    first && name.len() <= 63 && name.bytes().all(inner)
}

/// If it is none: what would be right.
fn check_name(path: &str, name: &str, problems: &mut Problems) {
    if !is_name(name) {
        problems.add(
            path,
            format!(
                "{} is not a name; write 1 to 63 of a-z, 0-9, \"-\" and \"_\", the first one a letter or digit",
                section::shown(name)
            ),
        );
    }
}
