//! What is read of a reply that is no JSON, and of its head. For the fuzz targets alone.

use jiff::Timestamp;

use super::retry::{http_date, retry_after};
use super::text::{bounded, html_title, masked};
use crate::types::Secret;

/// Longest line made of a reply, characters.
const LINE: usize = 100;

/// Reads the text as a page, as a message and as the two headers that say when.
pub(crate) fn read(text: &str) {
    let _ = html_title(text);
    let line = bounded(&masked(text, &Secret::new("CCDB1_0123456789abcdef".into())), LINE);
    assert!(line.chars().count() <= LINE + 1, "a line of {} characters", line.chars().count());
    let _ = retry_after(text, http_date(text), Timestamp::UNIX_EPOCH);
}
