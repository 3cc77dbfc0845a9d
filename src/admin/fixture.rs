//! Sample views for the tests: the same files that the page's browser test serves.

use crate::view::Status;

fn parse(text: &str) -> Status {
    serde_json::from_str(text).expect("a sample status that reads")
}

macro_rules! samples {
    ($($name:ident),*) => {
        $(pub(crate) fn $name() -> Status {
            parse(include_str!(concat!("../../tests/samples/status/", stringify!($name), ".json")))
        })*

        /// Each with its name.
        pub(crate) fn all() -> Vec<(&'static str, Status)> {
            vec![$((stringify!($name), $name())),*]
        }
    };
}

samples!(steady, suspect, promoting, blocked, quarantined, exhausted);
