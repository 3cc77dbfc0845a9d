//! When a read is tried again, and what `Retry-After` and `Date` mean. Pure: clock and chance are arguments.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::error::Trouble;
use crate::backoff::Backoff;

/// A read is tried this often.
pub(super) const TRIES: u32 = 3;
/// The first wait between two tries.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait of our own.
const MAX: Duration = Duration::from_secs(2);
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The tries of one read.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    made: u32,
}

impl Retry {
    /// None made yet.
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::new(FIRST, MAX), made: 0 }
    }

    /// How long to wait before the next try after `trouble`; `None` if there is none: the trouble does not pass, the
    /// tries are used up, or the wait would take all of the `left` time.
    pub(super) fn next(&mut self, trouble: &Trouble, left: Duration, chance: u8) -> Option<Duration> {
        self.made += 1;
        if self.made >= TRIES || !trouble.is_passing() {
            return None;
        }
        let asked = match trouble {
            Trouble::Refused(answer) | Trouble::Failed(answer) => answer.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let wait = self.backoff.step(chance).max(asked);
        (wait < left).then_some(wait)
    }
}

/// A `Retry-After`, in seconds or as a time; of a time in the past, nothing. A time is measured from the reply's own
/// `Date` where there is one, so that our clock does not matter.
pub(super) fn retry_after(text: &str, date: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let left = http_date(text)?.duration_since(date.unwrap_or(now));
        Duration::try_from(left).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// A time as HTTP writes it: `Thu, 26 Nov 2026 23:39:36 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    const PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cockroach_cloud::error::{Answer, Cause, Step, Unreadable};

    const LONG: Duration = Duration::from_secs(60);

    fn refused(status: u16, retry_after: Option<u64>) -> Trouble {
        let retry_after = retry_after.map(Duration::from_secs);
        Trouble::Refused(Answer { status, code: None, message: String::new(), retry_after })
    }

    #[test]
    fn a_read_is_tried_three_times_with_growing_waits() {
        let lost = Trouble::Unreachable { step: Step::Reply, cause: Cause::Closed };
        let mut retry = Retry::new();
        assert_eq!(retry.next(&lost, LONG, 0), Some(Duration::from_millis(200)));
        assert_eq!(retry.next(&lost, LONG, 255), Some(Duration::from_millis(200)), "half of 400 ms by chance");
        assert_eq!(retry.next(&lost, LONG, 0), None);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let page = Trouble::Unreadable { status: 200, what: Unreadable::NotJson };
        for trouble in [refused(400, None), refused(401, None), refused(403, None), refused(404, Some(1)), page] {
            assert_eq!(Retry::new().next(&trouble, LONG, 0), None, "{trouble:?}");
        }
        assert!(Retry::new().next(&refused(408, None), LONG, 0).is_some());
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_or_the_call_ends() {
        assert_eq!(Retry::new().next(&refused(429, Some(5)), LONG, 0), Some(Duration::from_secs(5)));
        assert_eq!(Retry::new().next(&refused(429, Some(5)), Duration::from_secs(5), 0), None);
        assert_eq!(Retry::new().next(&refused(429, Some(0)), LONG, 0), Some(Duration::from_millis(200)));
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now: Timestamp = "2026-11-26T23:39:36Z".parse().unwrap();
        let ask = |text: &str, date| retry_after(text, date, now).map(|wait| wait.as_secs());
        assert_eq!(ask("7", None), Some(7));
        assert_eq!(ask("99999999999999999999999", None), Some(3600));
        assert_eq!(ask("Thu, 26 Nov 2026 23:39:46 GMT", None), Some(10));
        let slow: Timestamp = "2026-11-26T23:39:40Z".parse().unwrap();
        assert_eq!(ask("Thu, 26 Nov 2026 23:39:46 GMT", Some(slow)), Some(6), "by the server's clock");
        assert_eq!(ask("Thu, 26 Nov 2026 23:39:00 GMT", None), Some(0), "it has passed");
        for text in ["", "soon", "-1", "1.5", "Fri, 26 Nov 2026 23:39:46 GMT"] {
            assert_eq!(ask(text, None), None, "{text}");
        }
    }
}
