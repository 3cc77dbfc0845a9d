//! One table of the mirror under validation: turns its scalars into durations, sizes, numbers and words, and reports
//! what is none or out of range with the key path. Knows no key by name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::super::raw::accepts::Accepts;
pub(super) use super::super::raw::problem::shown;
use super::super::raw::problem::{Problems, nearest};
use super::super::raw::{Flag, Number, Text};

/// Names what it checks.
pub(super) struct Section<'a> {
    path: String,
    /// Where problems go.
    pub(super) problems: &'a mut Problems,
}

impl<'a> Section<'a> {
    /// The table at `path`.
    pub(super) fn new(path: impl Into<String>, problems: &'a mut Problems) -> Self {
        Self { path: path.into(), problems }
    }

    /// The key path of a key.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Something is wrong with a key.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.add(self.key(key), message);
    }

    /// A key is missing, unless it is there and already known to be wrong.
    pub(super) fn missing(&mut self, key: &str, message: impl Into<String>) {
        self.problems.missing(self.key(key), message);
    }

    /// Is this key, or one below it, already known to be wrong?
    pub(super) fn faulty(&self, key: &str) -> bool {
        self.problems.touches(&self.key(key))
    }

    /// For the reference: what a key accepts.
    pub(super) fn note(&mut self, key: &str, accepts: Accepts) {
        self.problems.note(self.key(key), accepts);
    }

    /// A duration within a range.
    pub(super) fn duration(
        &mut self,
        key: &str,
        value: &Option<Text>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.note(key, Accepts::Duration(*range.start(), *range.end()));
        let Some(Text(text)) = value else { return default };
        let Ok(duration) = humantime::parse_duration(text.trim()) else {
            let message = format!("{} is not a duration; write for example \"2s\" or \"500ms\"", shown(text));
            self.problem(key, message);
            return default;
        };
        let shown = humantime::format_duration;
        self.within(key, duration, range, default, |d| format!("\"{}\"", shown(d)))
    }

    /// A count within a range.
    pub(super) fn number<T>(&mut self, key: &str, value: &Option<Number>, range: RangeInclusive<T>, default: T) -> T
    where
        T: TryFrom<u64> + PartialOrd + Copy + Display,
    {
        self.note(key, Accepts::Count(range.start().to_string(), range.end().to_string()));
        let Some(Number(number)) = *value else { return default };
        match T::try_from(number) {
            Ok(number) => self.within(key, number, range, default, |n| n.to_string()),
            Err(_) => {
                self.problem(key, format!("{number} is out of range; write {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    /// Bytes within a range.
    pub(super) fn size(&mut self, key: &str, value: &Option<Text>, range: RangeInclusive<u64>, default: u64) -> u64 {
        self.note(key, Accepts::Size(size_text(*range.start()), size_text(*range.end())));
        let Some(Text(text)) = value else { return default };
        match parse_size(text) {
            Some(bytes) => self.within(key, bytes, range, default, |b| format!("\"{}\"", size_text(b))),
            None => {
                let message = format!("{} is not a size; write for example \"16MiB\" or \"512KiB\"", shown(text));
                self.problem(key, message);
                default
            }
        }
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        key: &str,
        value: T,
        range: RangeInclusive<T>,
        default: T,
        text: impl Fn(T) -> String,
    ) -> T {
        if range.contains(&value) {
            return value;
        }
        let (least, most) = (text(*range.start()), text(*range.end()));
        self.problem(key, format!("{} is out of range; write {least} to {most}", text(value)));
        default
    }

    /// A boolean.
    pub(super) fn flag(&self, value: &Option<Flag>, default: bool) -> bool {
        value.map_or(default, |Flag(flag)| flag)
    }

    /// One of several words; `later` are words that will mean something one day.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &Option<Text>,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        self.note(key, Accepts::Words(words.iter().map(|(word, _)| (*word).to_owned()).collect()));
        let Text(text) = value.as_ref()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| word == text) {
            return Some(*meaning);
        }
        let now = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
        let now = listed(&now, "or");
        let message = if later.contains(&text.as_str()) {
            format!("{} is not available yet; what there is now: {now}", shown(text))
        } else {
            match nearest(text, words.iter().map(|(word, _)| *word)) {
                Some(meant) if words.len() > 3 => {
                    format!("{} is not known here; did you mean \"{meant}\"? Possible: {now}", shown(text))
                }
                _ => format!("{} is not known here; write {now}", shown(text)),
            }
        };
        self.problem(key, message);
        None
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, key: &str, value: &Option<Text>) -> Option<String> {
        let Text(text) = value.as_ref()?;
        if text.trim().is_empty() || text.contains('\0') {
            self.problem(key, "is empty; give it a value or leave the key out");
            return None;
        }
        Some(text.clone())
    }

    /// A path that is not empty.
    pub(super) fn path(&mut self, key: &str, value: &Option<Text>) -> Option<PathBuf> {
        self.text(key, value).map(PathBuf::from)
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// Only units that mean one thing: `MB` is 1000 × 1000 to some and 1024 × 1024 to PostgreSQL.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes in the largest unit that divides them.
pub(in crate::config) fn size_text(bytes: u64) -> String {
    let (unit, shift) =
        UNITS.iter().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift)).unwrap_or(&UNITS[4]);
    format!("{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_names_its_unit() {
        assert_eq!(parse_size("16MiB"), Some(16 << 20));
        assert_eq!(parse_size("16 MiB"), Some(16 << 20));
        assert_eq!(parse_size("512KiB"), Some(512 << 10));
        assert_eq!(parse_size("100B"), Some(100));
        assert_eq!(parse_size("0"), Some(0));
        for wrong in ["16MB", "16", "MiB", "", "-1MiB", "1.5GiB", "99999999999TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        for bytes in [0, 1, 1023, 1024, 1536, 16 << 20, 3 << 40] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }
    }
}
