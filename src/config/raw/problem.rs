//! What is wrong with a configuration, where it stands and what would be right; and the nearest word to a misspelt
//! one. Secrets are never part of it: whoever adds a problem about one says what is wrong, not what it is.

use std::collections::BTreeMap;
use std::fmt;

use super::accepts::Accepts;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Key path (`service.main.probe.interval`), environment variable, file, or `line 3, column 7`; may be empty.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A mistake at this place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Nobody reads more in one go, and a file that is something else altogether would bring one for every line.
const MOST: usize = 200;

/// Everything found in one run.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    found: Vec<Problem>,
    faulty: Vec<String>,
    more: usize,
    warnings: Vec<String>,
    origins: BTreeMap<String, &'static str>,
    accepted: BTreeMap<String, Accepts>,
}

impl Problems {
    /// Adds a mistake. A key that an environment variable has set is reported by that variable's name.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        if self.found.len() >= MOST {
            self.more += 1;
            return;
        }
        let shown = self.origin(&path).map_or_else(|| path.clone(), str::to_owned);
        let problem = Problem::new(shown, message);
        self.faulty.push(path);
        // One variable may set several keys: its mistake is said once.
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    /// Adds that something must be there, unless it is there and already known to be wrong.
    pub fn missing(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        if !self.touches(&path) {
            self.add(path, message);
        }
    }

    /// Is something wrong at this key or below it?
    pub fn touches(&self, path: &str) -> bool {
        self.faulty.iter().any(|faulty| match faulty.strip_prefix(path) {
            Some(rest) => rest.is_empty() || rest.starts_with(['.', '#']),
            None => false,
        })
    }

    /// Adds mistakes that were found elsewhere.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for Problem { path, message } in problems {
            self.add(path, message);
        }
    }

    /// Adds something to look at that stops nothing.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// From now on problems with this key are reported by the variable that set it.
    pub fn set_by(&mut self, path: impl Into<String>, variable: &'static str) {
        self.origins.insert(path.into(), variable);
    }

    /// The variable that set this key.
    pub fn origin(&self, path: &str) -> Option<&'static str> {
        self.origins.get(path).copied()
    }

    /// What this key accepts, whether it is written or not.
    pub fn note(&mut self, path: impl Into<String>, accepts: Accepts) {
        self.accepted.insert(path.into(), accepts);
    }

    /// Everything noted of keys, by their path.
    pub fn accepted(&self) -> &BTreeMap<String, Accepts> {
        &self.accepted
    }

    /// Every key that a variable has set, with that variable.
    pub fn origins(&self) -> &BTreeMap<String, &'static str> {
        &self.origins
    }

    /// No mistake so far?
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The warnings, or all mistakes.
    pub fn into_result(mut self) -> Result<Vec<String>, Vec<Problem>> {
        if self.found.is_empty() {
            return Ok(self.warnings);
        }
        if self.more > 0 {
            let more = format!("and {} more; correct these first", self.more);
            self.found.push(Problem::new("", more));
        }
        Err(self.found)
    }
}

/// A value as it may be shown in a message: quoted, escaped, not endless. What stands before an `@` may be a password
/// that was written where a host belongs.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    if let Some((_, host)) = text.rsplit_once('@') {
        return shown(&format!("…{host}"));
    }
    if text.chars().count() <= MOST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start:?}…")
}

/// The word that was probably meant, if one is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody means a known word by a text far longer than all of them; and the cost stays bounded.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(far, candidate)| *far <= allowed || is_part(&word, &candidate.to_ascii_lowercase()))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// `password` for `password_file`, `idle_timeout` for `timeout`.
fn is_part(word: &str, candidate: &str) -> bool {
    let parts =
        |longer: &str, shorter: &str| shorter.len() > 3 && (longer.starts_with(shorter) || longer.ends_with(shorter));
    parts(word, candidate) || parts(candidate, word)
}

/// Insertions, deletions, changes and swaps of neighbours that lead from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        let known = ["interval", "fast_interval", "timeout", "password_file", "fall", "rise"];
        assert_eq!(nearest("intervall", known), Some("interval"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("password", known), Some("password_file"));
        assert_eq!(nearest("fal", known), Some("fall"));
        assert_eq!(nearest("Interval", known), Some("interval"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }

    #[test]
    fn a_value_is_shown_escaped_cut_and_without_what_may_be_a_password() {
        assert_eq!(shown("2x"), "\"2x\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert_eq!(shown("postgres://app:hunter2@db1:5432"), "\"…db1:5432\"");
        assert_eq!(shown("app:hun@ter2@db1"), "\"…db1\"");
        assert!(shown(&"é".repeat(1000)).chars().count() < 70);
    }

    #[test]
    fn what_is_known_to_be_wrong_is_not_reported_as_missing() {
        let mut problems = Problems::default();
        problems.add("service.main.backend#1.role", "is wrong");
        problems.missing("service.main.backend", "is missing");
        problems.missing("service.main.back", "is missing");
        let found = problems.into_result().unwrap_err();
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["service.main.backend#1.role: is wrong", "service.main.back: is missing"]
        );
    }

    #[test]
    fn a_file_that_is_something_else_brings_no_endless_list() {
        let mut problems = Problems::default();
        for line in 0..1000 {
            problems.add(format!("line {line}"), "is wrong");
        }
        let found = problems.into_result().unwrap_err();
        assert_eq!(found.len(), 201);
        assert_eq!(found[200].to_string(), "and 800 more; correct these first");
    }

    #[test]
    fn a_key_set_by_a_variable_is_reported_by_the_variables_name() {
        let mut problems = Problems::default();
        problems.set_by("service.a.probe.interval", "HEALTH_CHECK_INTERVAL");
        problems.set_by("service.b.probe.interval", "HEALTH_CHECK_INTERVAL");
        problems.add("service.a.probe.interval", "is too short");
        problems.add("service.b.probe.interval", "is too short");
        assert_eq!(problems.into_result(), Err(vec![Problem::new("HEALTH_CHECK_INTERVAL", "is too short")]));
    }
}
