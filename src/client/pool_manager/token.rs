//! What a read must have seen: a position in the primary's log, and on which line it is. Pure.

use std::fmt;
use std::str::FromStr;

use crate::types::{Lsn, Timeline};

/// Everything that was committed when it was taken. Sent along (it prints and parses as `1:0/3000060`), it makes a read
/// elsewhere see that, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Where the primary's log ended; `None` on CockroachDB, which has no such positions: only the primary will do.
    pub(super) position: Option<(Timeline, Lsn)>,
}

/// A text that is no [`Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token; they look like 1:0/3000060")]
pub struct TokenError;

impl Token {
    /// Has a standby on this line that has replayed so far seen it? On another line the same number is another place:
    /// `false` there, and where the line is not known.
    pub(super) fn is_seen(&self, timeline: Option<Timeline>, replayed: Option<Lsn>) -> bool {
        let Some((line, position)) = self.position else { return false };
        timeline == Some(line) && replayed.is_some_and(|replayed| replayed >= position)
    }

    /// Could a standby on this line ever have seen it?
    pub(super) fn is_on(&self, timeline: Option<Timeline>) -> bool {
        self.position.is_some_and(|(line, _)| timeline == Some(line))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((timeline, position)) => write!(f, "{timeline}:{position}"),
            None => f.write_str("primary"),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text == "primary" {
            return Ok(Self { position: None });
        }
        let (timeline, position) = text.split_once(':').ok_or(TokenError)?;
        let timeline = timeline.parse().map(Timeline).map_err(|_| TokenError)?;
        Ok(Self { position: Some((timeline, position.parse().map_err(|_| TokenError)?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_seen_where_its_own_line_was_replayed_so_far() {
        let token: Token = "2:0/3000060".parse().unwrap();
        let seen = |line: u32, lsn: &str| token.is_seen(Some(Timeline(line)), lsn.parse().ok());
        assert!(seen(2, "0/3000060") && seen(2, "1/0"));
        assert!(!seen(2, "0/300005F"));
        assert!(!seen(3, "1/0"), "the new line may have branched off before it");
        assert!(!seen(1, "1/0"), "the old line went elsewhere");
        assert!(!token.is_seen(None, "1/0".parse().ok()) && !token.is_seen(Some(Timeline(2)), None));
    }

    #[test]
    fn a_token_survives_being_written_down() {
        for text in ["1:0/3000060", "primary"] {
            assert_eq!(text.parse::<Token>().unwrap().to_string(), text);
        }
        assert!(["", "0/1", "x:0/1", "1:0"].iter().all(|text| text.parse::<Token>().is_err()));
    }
}
