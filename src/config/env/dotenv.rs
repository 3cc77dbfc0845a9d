//! The text of a `.env` file into variables: `NAME=value`, comments, quotes, an optional `export`. No substitution:
//! a `$` in a password is a `$`.

use std::collections::BTreeMap;

use super::super::raw::problem::Problem;

/// Reads the text of a `.env` file called `file` in messages. Lines that are none are reported by number, not by
/// content: they may hold a secret.
pub fn parse(text: &str, file: &str) -> (BTreeMap<String, String>, Vec<Problem>) {
    let mut variables = BTreeMap::new();
    let mut problems = Vec::new();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let mut fail = |what: &str| problems.push(Problem::new(format!("{file}:{}", index + 1), what));
        let Some((name, rest)) = line.split_once('=').map(|(name, rest)| (name.trim(), rest.trim_start())) else {
            fail("is not a setting; write NAME=value, or # before a comment");
            continue;
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            fail("has no usable name before the equals sign; write NAME=value");
            continue;
        }
        let more = lines.by_ref().map(|(_, line)| line);
        match value(rest, more) {
            Some(value) => {
                variables.insert(name.to_owned(), value);
            }
            None => fail("has a quote that is never closed"),
        }
    }
    (variables, problems)
}

/// A value that may be quoted, and then may go on over further lines.
fn value<'a>(rest: &'a str, more: impl Iterator<Item = &'a str>) -> Option<String> {
    let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Some(uncommented(rest).trim_end().to_owned());
    };
    let mut text = String::new();
    for line in std::iter::once(&rest[1..]).chain(more) {
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                _ if c == quote => return Some(text),
                // Only double quotes know escapes, as in a shell.
                '\\' if quote == '"' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some(c @ ('"' | '\\' | '$')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => text.push('\\'),
                },
                _ => text.push(c),
            }
        }
        text.push('\n');
    }
    None
}

/// A `#` starts a comment only after a space: passwords and URLs may hold one.
fn uncommented(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    match [" #", "\t#"].iter().filter_map(|mark| text.find(mark)).min() {
        Some(at) => &text[..at],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_comments_and_quotes_are_told_apart() {
        let text = "\u{feff}# a comment\n\nDB_HOST = db1 # the primary\nexport DB_PASSWORD='p#w $x'\nA=\"x\\\"y\\n\" # z\nB=a#b\nC=\n\
                    D=\"two\nlines\"\nE=#nothing\n";
        let (variables, problems) = parse(text, ".env");
        assert_eq!(problems, []);
        let found: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("A", "x\"y\n"),
                ("B", "a#b"),
                ("C", ""),
                ("D", "two\nlines"),
                ("DB_HOST", "db1"),
                ("DB_PASSWORD", "p#w $x"),
                ("E", "")
            ]
        );
    }

    #[test]
    fn a_line_that_is_none_is_named_by_number_and_not_shown() {
        let (variables, problems) = parse("hunter2\nA=1\nB C=hunter2\nD='hunter2\n", ".env");
        assert_eq!(variables.len(), 1);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                ".env:1: is not a setting; write NAME=value, or # before a comment",
                ".env:3: has no usable name before the equals sign; write NAME=value",
                ".env:4: has a quote that is never closed"
            ]
        );
    }
}
