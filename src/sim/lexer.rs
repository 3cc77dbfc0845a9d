//! SQL text into statements of tokens: just enough to find words, numbers, texts and semicolons. Pure.

use super::fault::Fault;

/// A piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, lower-case unless it was quoted.
    Word(String),
    Number(i64),
    Text(String),
    /// `$1` is 1.
    Parameter(usize),
    /// Of one or two characters.
    Symbol(&'static str),
}

/// One statement: its source without the semicolon, and its tokens.
pub(super) type Piece<'a> = (&'a str, Vec<Token>);

const SYMBOLS: [&str; 33] = [
    "::", "=>", "<=", ">=", "<>", "!=", "||", "->", "<<", ">>", "(", ")", ",", "=", "<", ">", "*", "+", "-", "/", ".",
    "%", "#", "[", "]", ":", "!", "~", "&", "|", "^", "@", "?",
];

/// Splits a query text into its statements; empty ones are left out.
pub(super) fn split(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let (mut start, mut at, mut tokens) = (0, 0, Vec::new());
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c == ';' {
            pieces.push((text[start..at].trim(), std::mem::take(&mut tokens)));
            at += 1;
            start = at;
        } else if let Some(skipped) = skip(rest)? {
            at += skipped;
        } else {
            let (token, length) = token(rest, c)?;
            tokens.push(token);
            at += length;
        }
    }
    pieces.push((text[start..].trim(), tokens));
    pieces.retain(|(_, tokens)| !tokens.is_empty());
    Ok(pieces)
}

/// How long a space or comment is that `rest` begins with.
fn skip(rest: &str) -> Result<Option<usize>, Fault> {
    if rest.starts_with("--") {
        return Ok(Some(rest.find('\n').unwrap_or(rest.len())));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        return comment.find("*/").map(|end| Some(end + 4)).ok_or(Fault::Unterminated);
    }
    let spaces = rest.len() - rest.trim_start().len();
    Ok((spaces > 0).then_some(spaces))
}

fn token(rest: &str, first: char) -> Result<(Token, usize), Fault> {
    let span = |is: fn(char) -> bool, from: usize| rest[from..].find(|c| !is(c)).map_or(rest.len(), |end| from + end);
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    match first {
        '\'' => quoted(rest, '\'').map(|(text, length)| (Token::Text(text), length)),
        '"' => quoted(rest, '"').map(|(text, length)| (Token::Word(text), length)),
        '$' => {
            let end = span(|c| c.is_ascii_digit(), 1);
            let number = rest[1..end].parse().map_err(|_| Fault::Syntax("$".into()))?;
            Ok((Token::Parameter(number), end))
        }
        '0'..='9' => {
            let end = span(|c| c.is_ascii_digit(), 0);
            let number = rest[..end].parse().map_err(|_| Fault::BadValue(rest[..end].into()))?;
            Ok((Token::Number(number), end))
        }
        c if c.is_alphabetic() || c == '_' => {
            let end = span(is_word, 0);
            Ok((Token::Word(rest[..end].to_lowercase()), end))
        }
        c => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
            None => Err(Fault::Syntax(c.into())),
        },
    }
}

/// A text in quotes; a doubled quote stands for itself.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), Fault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Ok((text, at + 1));
        }
    }
    Err(Fault::Unterminated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_where_a_semicolon_is_no_text() {
        let pieces = split(" SET a = 'x;y' ; -- a comment; here\nselect \"It\" /* ; */ , $2::int8;;").unwrap();
        let sources: Vec<_> = pieces.iter().map(|(source, _)| *source).collect();
        assert_eq!(sources[0], "SET a = 'x;y'");
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].1[3], Token::Text("x;y".into()));
        let word = |text: &str| Token::Word(text.into());
        let (comma, cast) = (Token::Symbol(","), Token::Symbol("::"));
        assert_eq!(pieces[1].1, [word("select"), word("It"), comma, Token::Parameter(2), cast, word("int8")]);
    }

    #[test]
    fn what_is_left_open_is_refused() {
        assert_eq!(split("select 'abc"), Err(Fault::Unterminated));
        assert_eq!(split("select /* abc"), Err(Fault::Unterminated));
        assert_eq!(split("select 'it''s'").unwrap()[0].1[1], Token::Text("it's".into()));
        assert_eq!(split("select 99999999999999999999"), Err(Fault::BadValue("99999999999999999999".into())));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "\\PC{0,60}") {
            let _ = split(&text);
        }
    }
}
