//! What went wrong with a call, and whom to blame: unreachable, refuses, fails, or says something unreadable.

use std::fmt;
use std::time::Duration;

use super::operation::Operation;
use super::text::bounded;

/// The longest sentence that an [`Error`] makes, in characters.
pub const MAX_ERROR: usize = 600;
/// The longest text of the other side that is kept, in characters.
pub(super) const MAX_MESSAGE: usize = 300;

/// A call that brought no answer of use. Its texts never contain the secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// What was asked.
    pub operation: Operation,
    /// How it failed, the last time.
    pub trouble: Trouble,
    /// How often it was sent or tried to, at least 1.
    pub tries: u32,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// There was no answer. It says nothing of the clusters.
    Unreachable {
        /// Which step did not come through.
        step: Step,
        /// Why.
        cause: Cause,
    },
    /// A status from 400 to 499: the call is wrong, not allowed, or too early.
    Refused(Answer),
    /// A status of 500 or more.
    Failed(Answer),
    /// An answer that is none of the API's.
    Unreadable {
        /// Its status; 0 when not even HTTP was spoken.
        status: u16,
        /// What is wrong with it.
        what: Unreadable,
    },
}

/// The steps of a call, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Waiting for our own rate limit, or as long as the API told all callers to wait. Nothing was sent.
    Turn,
    /// Finding the address of the host. Nothing was sent.
    Resolve,
    /// Connecting to it. Nothing was sent.
    Connect,
    /// Agreeing on encryption. Nothing was sent.
    Tls,
    /// Sending the request and waiting for the head of the reply.
    Reply,
    /// Reading the body of the reply.
    Body,
}

/// Why a step did not come through.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// The deadline passed.
    TimedOut,
    /// The other side ended the connection.
    Closed,
    /// The host name has no address.
    NoAddress,
    /// The certificate is not to be trusted.
    Certificate(tokio_rustls::rustls::CertificateError),
    /// Something else about encryption; no TLS server, for example.
    Tls,
    /// What the system says.
    Io(std::io::ErrorKind),
    /// Nothing of the above.
    Other,
}

/// What the API said with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status. Decisions rest on it.
    pub status: u16,
    /// The gRPC code of the body, if the body was one of the API's.
    pub code: Option<Code>,
    /// What is wrong in its words, bounded; empty when it said nothing.
    pub message: String,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
}

/// A gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i64);

/// Why an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A page for people; a gateway's, most likely. Its title may be empty.
    Html(String),
    /// JSON that ends too early, or nothing.
    Truncated,
    /// No JSON.
    NotJson,
    /// JSON of another shape; what is amiss, bounded.
    Shape(String),
    /// More than [`MAX_BODY`](super::MAX_BODY).
    TooLarge,
    /// A redirect, which is never followed, to this host; empty when it named none.
    Redirect(String),
    /// A list whose pages do not end, or go round.
    EndlessPages,
    /// No HTTP.
    NotHttp,
}

impl Error {
    /// Whether the thing asked for does not exist (404).
    pub fn is_gone(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether asking again is of no use: 400 to 499 but 408 and 429.
    pub fn is_final(&self) -> bool {
        matches!(&self.trouble, Trouble::Refused(answer) if !matches!(answer.status, 408 | 429))
    }

    /// Whether nobody answered.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.trouble, Trouble::Unreachable { .. })
    }

    /// Whether a write may have taken effect all the same: unless it was never sent, or definitely refused. What
    /// came of it must be read. False for every read.
    pub fn may_have_taken_effect(&self) -> bool {
        self.operation.is_write()
            && match &self.trouble {
                Trouble::Unreachable { step, .. } => step.is_after_sending(),
                // 408 and 499: the server gave up waiting, or was hung up on; what lies behind it may not have.
                Trouble::Refused(answer) => matches!(answer.status, 408 | 499),
                Trouble::Failed(_) | Trouble::Unreadable { .. } => true,
            }
    }

    /// How long the API asks to wait before the next call.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.trouble {
            Trouble::Refused(answer) | Trouble::Failed(answer) => answer.retry_after,
            _ => None,
        }
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.trouble {
            Trouble::Unreachable { .. } | Trouble::Unreadable { status: 0, .. } => None,
            Trouble::Refused(answer) | Trouble::Failed(answer) => Some(answer.status),
            Trouble::Unreadable { status, .. } => Some(*status),
        }
    }

    /// The gRPC code, if the API named one.
    pub fn code(&self) -> Option<Code> {
        match &self.trouble {
            Trouble::Refused(answer) | Trouble::Failed(answer) => answer.code,
            _ => None,
        }
    }
}

impl Trouble {
    /// Whether a read is worth repeating.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { step, cause } => *step != Step::Turn && !matches!(cause, Cause::Certificate(_)),
            Self::Refused(answer) => matches!(answer.status, 408 | 429),
            Self::Failed(_) => true,
            Self::Unreadable { .. } => false,
        }
    }
}

impl Step {
    /// Whether the request may have arrived.
    pub fn is_after_sending(self) -> bool {
        matches!(self, Self::Reply | Self::Body)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}: {}", self.operation, self.trouble);
        if let Some(wait) = self.retry_after() {
            text += &format!("; it asks to wait {} s", wait.as_secs());
        }
        if self.tries > 1 {
            text += &format!(" ({} tries)", self.tries);
        }
        if self.may_have_taken_effect() {
            text += "; it may have taken effect all the same";
        }
        f.write_str(&bounded(&text, MAX_ERROR))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { step: Step::Turn, .. } => {
                f.write_str("not sent, since its turn under the rate limit would come after its deadline")
            }
            Self::Unreachable { step, cause } => write!(f, "the API is unreachable ({step}): {cause}"),
            Self::Refused(answer) => write!(f, "the API refuses {answer}"),
            Self::Failed(answer) => write!(f, "the API fails {answer}"),
            Self::Unreadable { status: 0, what } => write!(f, "the API says something unreadable: {what}"),
            Self::Unreadable { status, what } => write!(f, "the API says something unreadable ({status}): {what}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "({} {code})", self.status)?,
            None => write!(f, "({})", self.status)?,
        }
        if self.message.is_empty() {
            return f.write_str(" and says nothing more");
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turn => "waiting for its turn",
            Self::Resolve => "looking up its address",
            Self::Connect => "connecting",
            Self::Tls => "agreeing on TLS",
            Self::Reply => "waiting for the reply",
            Self::Body => "reading the reply",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the deadline passed"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::NoAddress => f.write_str("the host name has no address"),
            Self::Certificate(error) => write!(f, "the certificate is not trusted: {error}"),
            Self::Tls => f.write_str("no TLS was agreed on"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Other => f.write_str("the connection failed"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        match usize::try_from(self.0).ok().and_then(|i| NAMES.get(i)) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Html(title) if title.is_empty() => f.write_str("an HTML page instead of JSON"),
            Self::Html(title) => write!(f, "an HTML page instead of JSON, titled {title:?}"),
            Self::Truncated => f.write_str("JSON that ends too early"),
            Self::NotJson => f.write_str("no JSON"),
            Self::Shape(what) => write!(f, "JSON of another shape: {what}"),
            Self::TooLarge => write!(f, "more than {} MiB", super::MAX_BODY >> 20),
            Self::Redirect(host) if host.is_empty() => f.write_str("a redirect, which is never followed"),
            Self::Redirect(host) => write!(f, "a redirect to {host}, which is never followed; check the base URL"),
            Self::EndlessPages => f.write_str("a list whose pages do not end"),
            Self::NotHttp => f.write_str("no HTTP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cockroach_cloud::model::StreamId;

    fn error(operation: Operation, trouble: Trouble) -> Error {
        Error { operation, trouble, tries: 1 }
    }

    fn answer(status: u16, code: Option<i64>, message: &str) -> Answer {
        Answer { status, code: code.map(Code), message: message.into(), retry_after: None }
    }

    #[test]
    fn an_error_is_a_sentence_that_names_the_operation_and_whom_to_blame() {
        let id = StreamId::from_bits(1);
        let refused = error(Operation::Stream(id), Trouble::Refused(answer(403, Some(7), "no such role")));
        assert_eq!(
            refused.to_string(),
            "reading replication stream 00000000-0000-0000-0000-000000000001: the API refuses (403 \
             PERMISSION_DENIED): no such role"
        );
        let gone = error(Operation::UpdateStream(id), Trouble::Failed(answer(503, None, "")));
        assert_eq!(
            gone.to_string(),
            "changing replication stream 00000000-0000-0000-0000-000000000001: the API fails (503) and says nothing \
             more; it may have taken effect all the same"
        );
        let unreachable = Trouble::Unreachable { step: Step::Resolve, cause: Cause::NoAddress };
        let text = Error { tries: 3, ..error(Operation::Streams, unreachable) }.to_string();
        assert_eq!(
            text,
            "listing replication streams: the API is unreachable (looking up its address): the host name has no \
             address (3 tries)"
        );
    }

    #[test]
    fn a_sentence_is_bounded() {
        let long = "long ".repeat(10_000);
        let path = format!("/{}", "x".repeat(2000)).parse().unwrap();
        let text = error(Operation::Raw(path), Trouble::Failed(answer(500, Some(99), &long))).to_string();
        assert!(text.chars().count() <= MAX_ERROR + 1, "{}", text.len());
        assert!(text.ends_with('…'));
    }

    #[test]
    fn a_write_has_no_effect_only_if_it_was_never_sent_or_definitely_refused() {
        let write = |trouble| error(Operation::UpdateStream(StreamId::from_bits(1)), trouble).may_have_taken_effect();
        let lost = |step| Trouble::Unreachable { step, cause: Cause::TimedOut };
        for step in [Step::Turn, Step::Resolve, Step::Connect, Step::Tls] {
            assert!(!write(lost(step)), "{step:?}");
        }
        for step in [Step::Reply, Step::Body] {
            assert!(write(lost(step)), "{step:?}");
        }
        for status in [400, 401, 403, 404, 409, 429] {
            assert!(!write(Trouble::Refused(answer(status, None, ""))), "{status}");
        }
        for status in [408, 499] {
            assert!(write(Trouble::Refused(answer(status, None, ""))), "{status}");
        }
        assert!(write(Trouble::Failed(answer(502, None, ""))));
        assert!(write(Trouble::Unreadable { status: 200, what: Unreadable::Truncated }));
        assert!(!error(Operation::Streams, lost(Step::Reply)).may_have_taken_effect(), "a read changes nothing");
    }

    #[test]
    fn only_refusals_that_do_not_pass_are_final() {
        let is_final = |trouble| error(Operation::Streams, trouble).is_final();
        for status in [400, 401, 403, 404, 409] {
            assert!(is_final(Trouble::Refused(answer(status, None, ""))), "{status}");
        }
        for status in [408, 429] {
            assert!(!is_final(Trouble::Refused(answer(status, None, ""))), "{status}");
        }
        assert!(!is_final(Trouble::Failed(answer(500, None, ""))));
        assert!(error(Operation::Streams, Trouble::Refused(answer(404, Some(5), ""))).is_gone());
        assert!(!error(Operation::Streams, Trouble::Refused(answer(403, Some(5), ""))).is_gone());
    }
}
