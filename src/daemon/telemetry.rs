//! The log: text on stderr, or JSON lines. `PGPIVOT_LOG` filters it as `RUST_LOG` would, `PGPIVOT_LOG_FORMAT=json`
//! changes its form.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Installs the log of this process. Later calls change nothing.
pub fn install(quiet: bool) {
    let default = if quiet { "error" } else { "info" };
    let filter = std::env::var("PGPIVOT_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(default)).unwrap_or_else(|_| EnvFilter::new(default));
    let json = std::env::var("PGPIVOT_LOG_FORMAT").is_ok_and(|form| form == "json");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    // A second install (the demo within a test) keeps the first.
    drop(done);
}
