//! Just enough of Rust's lexical grammar to find paths: no comments, no strings, no in-file tests.
//! It knows no types and expands no macro.

/// One identifier or punctuation mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// `::` is one token, every other mark is one character.
    pub text: String,
    /// From 1.
    pub line: usize,
}

/// A path as it was written, `use` trees taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedPath {
    /// `["crate", "net", "Session"]`; a glob ends in `*`.
    pub segments: Vec<String>,
    /// From 1.
    pub line: usize,
    /// How many inline modules stand around it.
    pub depth: usize,
}

/// The tokens of a source text, without those of items under `#[cfg(test)]`, and how many lines those take.
pub fn tokens_without_tests(text: &str) -> (Vec<Token>, usize) {
    let tokens = tokens(text);
    let mut kept = Vec::new();
    let mut test_lines = 0;
    let mut i = 0;
    while i < tokens.len() {
        if is_cfg_test(&tokens[i..]) {
            let end = item_end(&tokens, i);
            test_lines += tokens[end - 1].line - tokens[i].line + 1;
            i = end;
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    (kept, test_lines)
}

/// Every path of two segments or more, and every path of a `use`.
pub fn paths(tokens: &[Token]) -> Vec<UsedPath> {
    let mut found = Vec::new();
    let mut modules: Vec<usize> = Vec::new();
    let mut braces = 0;
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "{" => braces += 1,
            "}" => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
                braces -= 1;
            }
            "mod" if text_at(tokens, i + 2) == "{" => modules.push(braces + 1),
            "use" if !matches!(text_at(tokens, i + 1), "<" | "(") => {
                let mut trees = Vec::new();
                i = use_tree(tokens, i + 1, &[], &mut trees);
                found.extend(trees.into_iter().map(|(segments, line)| UsedPath {
                    segments,
                    line,
                    depth: modules.len(),
                }));
                continue;
            }
            word if is_word(word) && !matches!(before(tokens, i), "::" | ".") => {
                let line = tokens[i].line;
                let mut segments = vec![word.to_owned()];
                while text_at(tokens, i + 1) == "::" && is_word(text_at(tokens, i + 2)) {
                    segments.push(tokens[i + 2].text.clone());
                    i += 2;
                }
                if segments.len() > 1 {
                    found.push(UsedPath { segments, line, depth: modules.len() });
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

fn use_tree(tokens: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<(Vec<String>, usize)>) -> usize {
    let mut path = prefix.to_vec();
    while i < tokens.len() {
        let line = tokens[i].line;
        match tokens[i].text.as_str() {
            "::" => i += 1,
            "{" => {
                i += 1;
                while i < tokens.len() && tokens[i].text != "}" {
                    i = use_tree(tokens, i, &path, out);
                    if text_at(tokens, i) == "," {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "as" => i += 2,
            "," | "}" | ";" => {
                out.push((path, line));
                return i;
            }
            segment => {
                if segment != "self" || path.is_empty() {
                    path.push(segment.to_owned());
                }
                i += 1;
            }
        }
    }
    i
}

fn is_cfg_test(tokens: &[Token]) -> bool {
    let head: Vec<&str> = tokens.iter().take(7).map(|t| t.text.as_str()).collect();
    matches!(head.as_slice(), ["#", "[", "cfg", "(", "test", ")", "]"])
        || matches!(head.as_slice(), ["#", "[", "cfg", "(", "all", "(", "test"])
}

/// The index after the item that starts, with its attributes, at `start`.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut line = 1;
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        let c = chars[i];
        let mut token = None;
        if c == '/' && chars.get(i + 1) == Some(&'/') {
            i = find(&chars, i, |rest| rest[0] == '\n');
        } else if c == '/' && chars.get(i + 1) == Some(&'*') {
            i = block_comment_end(&chars, i);
        } else if let Some(end) = string_end(&chars, i) {
            i = end;
        } else if c == '\'' {
            i = quote_end(&chars, i);
        } else if c.is_alphanumeric() || c == '_' {
            i = find(&chars, i, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_'));
            token = Some(chars[start..i].iter().collect());
        } else if c == ':' && chars.get(i + 1) == Some(&':') {
            i += 2;
            token = Some("::".to_owned());
        } else {
            i += 1;
            token = (!c.is_whitespace()).then(|| c.to_string());
        }
        out.extend(token.map(|text| Token { text, line }));
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    out
}

fn find(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(&chars[*i..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) if depth == 1 => return i + 2,
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    i
}

/// The end of a string literal that starts here: `"…"`, `b"…"`, `r#"…"#` and their mixtures.
fn string_end(chars: &[char], start: usize) -> Option<usize> {
    let in_word = start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    let mut i = start;
    let mut raw = false;
    while let Some(c @ ('b' | 'c' | 'r')) = chars.get(i) {
        raw |= *c == 'r';
        i += 1;
    }
    if i - start > 2 || (i > start && in_word) {
        return None;
    }
    let hashes = chars[i..].iter().take_while(|c| raw && **c == '#').count();
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        match chars[i] {
            '\\' if !raw => i += 1,
            '"' if chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => {
                return Some(i + 1 + hashes);
            }
            _ => {}
        }
        i += 1;
    }
    Some(i)
}

/// The end of a character literal or a lifetime.
fn quote_end(chars: &[char], start: usize) -> usize {
    if chars.get(start + 1) == Some(&'\\') {
        return find(chars, start + 3, |rest| rest[0] == '\'') + 1;
    }
    if chars.get(start + 2) == Some(&'\'') { start + 3 } else { start + 1 }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn text_at(tokens: &[Token], i: usize) -> &str {
    tokens.get(i).map_or("", |t| &t.text)
}

fn before(tokens: &[Token], i: usize) -> &str {
    i.checked_sub(1).map_or("", |i| text_at(tokens, i))
}
