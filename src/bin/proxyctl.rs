//! The command line client. Everything it does lives in [`pgpivot::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pgpivot::ctl::run()
}
