//! Commands that an operator may plug in: argv without a shell, with a few placeholders.

use super::super::raw::problem::nearest;
use super::super::raw::{Text, Texts};
use super::section::{Section, shown};

/// What is replaced in the arguments of every command.
pub(super) const PLACEHOLDERS: &[&str] = &["{backend}", "{address}", "{epoch}"];
/// And of the one that points a standby at the new primary.
pub(super) const OF_FOLLOWING: &[&str] = &["{backend}", "{primary}", "{address}", "{epoch}"];
/// And of the one that makes an old primary a standby.
pub(super) const OF_REJOINING: &[&str] =
    &["{backend}", "{address}", "{primary}", "{primary_address}", "{method}", "{epoch}"];

/// An argv: a program and its arguments.
pub(super) fn argv(section: &mut Section<'_>, key: &str, value: &Option<Texts>) -> Option<Vec<String>> {
    argv_with(section, key, value, PLACEHOLDERS)
}

/// The same, with other placeholders.
pub(super) fn argv_with(
    section: &mut Section<'_>,
    key: &str,
    value: &Option<Texts>,
    known: &[&'static str],
) -> Option<Vec<String>> {
    let Texts(words) = value.as_ref()?;
    let words: Vec<String> = words.iter().map(|Text(word)| word.clone()).collect();
    let example = "write the program and its arguments, for example [\"/usr/local/bin/promote\", \"{backend}\"]";
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        section.problem(key, format!("names no program; {example}"));
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        section.problem(key, "contains a NUL character; no program can be given one");
        return None;
    }
    if words.len() == 1 && words[0].trim().contains(' ') {
        section.problem(key, format!("is one text with spaces, and no shell takes it apart; {example}"));
        return None;
    }
    for word in &words {
        check_placeholders(section, key, word, known);
    }
    Some(words)
}

fn check_placeholders(section: &mut Section<'_>, key: &str, word: &str, placeholders: &[&'static str]) {
    // Braces that hold no plain word belong to the command (JSON, for example).
    for (at, _) in word.match_indices('{') {
        let inner = &word[at + 1..];
        let length = inner.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(inner.len());
        let found = format!("{{{}}}", &inner[..length]);
        let known = placeholders.contains(&found.as_str());
        match (inner[length..].starts_with('}'), known) {
            (true, false) => {
                let meant = nearest(&found, placeholders.iter().copied());
                let meant = meant.map_or(String::new(), |meant| format!("did you mean {meant}? "));
                let list = placeholders.join(", ");
                section.problem(key, format!("has the unknown placeholder {}; {meant}known are {list}", shown(&found)));
            }
            (false, true) => section
                .problem(key, format!("has a placeholder without its closing brace in {}; write {found}", shown(word))),
            (true, true) | (false, false) => {}
        }
    }
}
