//! The log: text on stderr, or JSON lines. `PGPIVOT_LOG` filters it as `RUST_LOG` would, `PGPIVOT_LOG_FORMAT=json`
//! changes its form. A thread of its own writes it: whoever does not read it stops no decision, and loses lines.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait to be written; those beyond are dropped.
const WAITING: usize = 16_384;

/// Installs the log of this process; what waits is written when the guard is dropped. Later calls change nothing.
pub fn install(quiet: bool) -> WorkerGuard {
    let default = if quiet { "error" } else { "info" };
    let filter = std::env::var("PGPIVOT_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(default)).unwrap_or_else(|_| EnvFilter::new(default));
    let json = std::env::var("PGPIVOT_LOG_FORMAT").is_ok_and(|form| form == "json");
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).thread_name("log");
    let (writer, guard) = lines.finish(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let done = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    // A second install (the demo within a test) keeps the first.
    drop(done);
    guard
}
