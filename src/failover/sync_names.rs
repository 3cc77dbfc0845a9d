//! The value of `synchronous_standby_names`: read as PostgreSQL reads it, narrowed to the standbys that are left, written.

use std::fmt;

/// How the standbys are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The first so many of those that stream, in the order of the list.
    First,
    /// Any so many.
    Any,
}

/// A value that names somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncNames {
    /// How they are counted.
    pub method: Method,
    /// How many must have a commit; at least 1.
    pub number: u32,
    /// `application_name`s, compared without regard to case; `*` is anybody.
    pub names: Vec<String>,
}

/// A text that PostgreSQL would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no value of synchronous_standby_names")]
pub struct NoSyncNames;

impl SyncNames {
    /// Reads it; `None` = empty: nobody is waited for.
    pub fn parse(text: &str) -> Result<Option<Self>, NoSyncNames> {
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Ok(None);
        }
        let (method, number, list) = match tokens.as_slice() {
            [Token::First, Token::Number(number), Token::Open, list @ .., Token::Close]
            | [Token::Number(number), Token::Open, list @ .., Token::Close] => (Method::First, number.clone(), list),
            [Token::Any, Token::Number(number), Token::Open, list @ .., Token::Close] => {
                (Method::Any, number.clone(), list)
            }
            list => (Method::First, "1".to_owned(), list),
        };
        let number = number.parse().ok().filter(|number| *number > 0).ok_or(NoSyncNames)?;
        let mut names = Vec::new();
        for (i, token) in list.iter().enumerate() {
            match (i % 2, token) {
                (0, Token::Name(name) | Token::Number(name)) => names.push(name.clone()),
                (1, Token::Comma) => {}
                _ => return Err(NoSyncNames),
            }
        }
        if list.len() % 2 == 0 {
            return Err(NoSyncNames);
        }
        Ok(Some(Self { method, number, names }))
    }

    /// Does it name this standby?
    pub fn names(&self, application_name: &str) -> bool {
        self.names.iter().any(|name| is_of(name, application_name))
    }

    /// The same for these standbys alone: who is not among them is not named any more, and no more are waited for than
    /// there are. `None` = none of them is named.
    pub fn narrowed(&self, left: &[&str]) -> Option<Self> {
        let names: Vec<String> =
            self.names.iter().filter(|name| left.iter().any(|left| is_of(name, left))).cloned().collect();
        let count = left.iter().filter(|left| self.names(left)).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        (count > 0).then(|| Self { method: self.method, number: self.number.min(count), names })
    }
}

fn is_of(name: &str, application_name: &str) -> bool {
    name == "*" || name.eq_ignore_ascii_case(application_name)
}

impl fmt::Display for SyncNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.method == Method::First { "FIRST" } else { "ANY" };
        let names: Vec<String> = self.names.iter().map(|name| quoted(name)).collect();
        write!(f, "{method} {} ({})", self.number, names.join(", "))
    }
}

fn quoted(name: &str) -> String {
    let keyword = name.eq_ignore_ascii_case("first") || name.eq_ignore_ascii_case("any");
    let plain = name.chars().next().is_some_and(starts_name) && name.chars().all(goes_on) && !keyword;
    if plain || name == "*" { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    First,
    Any,
    Name(String),
    Number(String),
    Comma,
    Open,
    Close,
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn goes_on(c: char) -> bool {
    starts_name(c) || c.is_ascii_digit() || c == '$'
}

fn tokens(text: &str) -> Result<Vec<Token>, NoSyncNames> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = |takes: fn(char) -> bool| rest.find(|c| !takes(c)).unwrap_or(rest.len());
        let (token, taken) = match c {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => (None, 1),
            ',' => (Some(Token::Comma), 1),
            '(' => (Some(Token::Open), 1),
            ')' => (Some(Token::Close), 1),
            '*' => (Some(Token::Name("*".into())), 1),
            '"' => {
                let (name, taken) = delimited(rest).ok_or(NoSyncNames)?;
                (Some(Token::Name(name)), taken)
            }
            c if c.is_ascii_digit() => {
                let taken = length(|c| c.is_ascii_digit());
                (Some(Token::Number(rest[..taken].to_owned())), taken)
            }
            c if starts_name(c) => {
                let taken = length(goes_on);
                let token = match &rest[..taken] {
                    word if word.eq_ignore_ascii_case("first") => Token::First,
                    word if word.eq_ignore_ascii_case("any") => Token::Any,
                    word => Token::Name(word.to_owned()),
                };
                (Some(token), taken)
            }
            _ => return Err(NoSyncNames),
        };
        tokens.extend(token);
        rest = &rest[taken..];
    }
    Ok(tokens)
}

/// A name in double quotes at the beginning of `text`, and how long it is there.
fn delimited(text: &str) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('"', Some((_, '"'))) => {
                name.push('"');
                chars.next();
            }
            ('"', _) => return Some((name, at + 1)),
            (c, _) => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        SyncNames::parse(text).unwrap().map(|names| names.to_string())
    }

    #[test]
    fn every_form_that_postgresql_takes_is_read() {
        for (text, is) in [
            ("s1", "FIRST 1 (s1)"),
            ("s1, s2", "FIRST 1 (s1, s2)"),
            ("*", "FIRST 1 (*)"),
            ("2 (s1,s2,s3)", "FIRST 2 (s1, s2, s3)"),
            ("first 2(s1 , \"My \"\"Site\"\"\")", "FIRST 2 (s1, \"My \"\"Site\"\"\")"),
            ("ANY 1 (*)", "ANY 1 (*)"),
            ("any 02 (\"first\", 7, _a$1)", "ANY 2 (\"first\", \"7\", _a$1)"),
        ] {
            assert_eq!(read(text).as_deref(), Some(is), "{text}");
        }
        assert_eq!(read("  "), None);
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for text in ["s1 s2", "FIRST (s1)", "ANY 0 (s1)", "2 (s1", "\"s1", "s1,", ",", "()", "ANY 1 ()", "s-1", "first"]
        {
            assert_eq!(SyncNames::parse(text), Err(NoSyncNames), "{text}");
        }
    }

    #[test]
    fn who_is_gone_is_not_waited_for() {
        let narrowed = |text: &str, left: &[&str]| {
            SyncNames::parse(text).unwrap().unwrap().narrowed(left).map(|names| names.to_string())
        };
        assert_eq!(narrowed("FIRST 2 (east, west, north)", &["North"]).as_deref(), Some("FIRST 1 (north)"));
        assert_eq!(narrowed("ANY 2 (east, west, north)", &["west", "north"]).as_deref(), Some("ANY 2 (west, north)"));
        assert_eq!(narrowed("ANY 3 (*)", &["west", "north"]).as_deref(), Some("ANY 2 (*)"));
        assert_eq!(narrowed("west", &["north"]), None);
        assert_eq!(narrowed("*", &[]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(
            any in any::<bool>(),
            number in 1_u32..100,
            names in prop::collection::vec("\\PC{1,12}|[a-z]{1,8}|first|ANY", 1..5),
        ) {
            let method = if any { Method::Any } else { Method::First };
            let names = SyncNames { method, number, names };
            prop_assert_eq!(SyncNames::parse(&names.to_string()), Ok(Some(names)));
        }

        #[test]
        fn no_more_are_waited_for_than_are_left(
            number in 1_u32..6,
            names in prop::collection::vec("[a-e*]", 1..5),
            left in prop::collection::hash_set("[a-g]", 0..4),
        ) {
            let left: Vec<&str> = left.iter().map(String::as_str).collect();
            let before = SyncNames { method: Method::Any, number, names };
            match before.narrowed(&left) {
                Some(after) => {
                    let count = left.iter().filter(|left| after.names(left)).count();
                    prop_assert!(after.number as usize <= count && after.number <= before.number);
                    prop_assert!(after.names.iter().all(|name| before.names.contains(name)));
                }
                None => prop_assert!(left.iter().all(|left| !before.names(left))),
            }
        }

        #[test]
        fn no_text_brings_it_down(text in "\\PC{0,40}") {
            let _ = SyncNames::parse(&text);
        }
    }
}
