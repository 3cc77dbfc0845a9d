//! What a key accepts, as the validation notes it while it looks: ranges and words. Shown in the reference; decides nothing.

use std::fmt;
use std::time::Duration;

/// Least and most are both allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepts {
    /// With its unit, as `2s`.
    Duration(Duration, Duration),
    /// A whole number.
    Count(String, String),
    /// With its unit, as `16MiB`.
    Size(String, String),
    /// A part of the whole.
    Share(String, String),
    /// One of these.
    Words(Vec<String>),
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(least, most) => {
                let text = humantime::format_duration;
                write!(f, "time, {} to {}", text(*least), text(*most))
            }
            Self::Count(least, most) => write!(f, "number, {least} to {most}"),
            Self::Size(least, most) => write!(f, "size, {least} to {most}"),
            Self::Share(least, most) => write!(f, "share, {least} to {most}"),
            Self::Words(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("`{word:?}`")).collect();
                f.write_str(&quoted.join(", "))
            }
        }
    }
}
