//! Text that comes from the other side, made fit to be shown: bounded, on one line, without the secret.

use crate::types::Secret;

/// What stands where the secret stood.
const MASK: &str = "***";

/// `text` with the secret masked, in whatever letter case it is echoed.
pub(super) fn masked(text: &str, secret: &Secret) -> String {
    let needle = secret.expose().as_bytes();
    let hay = text.as_bytes();
    if needle.is_empty() {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(hay.len());
    let mut i = 0;
    while i < hay.len() {
        if hay.len() - i >= needle.len() && hay[i..i + needle.len()].eq_ignore_ascii_case(needle) {
            out.extend_from_slice(MASK.as_bytes());
            i += needle.len();
        } else {
            out.push(hay[i]);
            i += 1;
        }
    }
    // The secret is ASCII, so no character was cut.
    String::from_utf8_lossy(&out).into_owned()
}

/// At most `max` characters on one line; what was cut is marked.
pub(super) fn bounded(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut spaced = true;
    let mut left = max;
    for c in text.chars() {
        // Those that turn the direction of writing make a line show something else than it says.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let blank = c.is_whitespace() || c.is_control() || turns;
        if blank && spaced {
            continue;
        }
        if left == 0 {
            out.push('…');
            break;
        }
        out.push(if blank { ' ' } else { c });
        spaced = blank;
        left -= 1;
    }
    out.truncate(out.trim_end().len());
    out
}

/// The title of an HTML page, if that is what this is.
pub(super) fn html_title(body: &str) -> Option<String> {
    let start = body.trim_start();
    if !start.starts_with('<') {
        return None;
    }
    // ASCII lowering keeps every byte where it is.
    let lower = start.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|open| {
        let from = open + lower[open..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        Some(start[from..to].trim().to_owned())
    });
    Some(title.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_keeps_the_secret_and_none_grows_beyond_its_bound(text in "([aA1_. \u{7}é]|a1_|A1_){0,60}", max in 0_usize..40) {
            let shown = bounded(&masked(&text, &Secret::new("a1_".into())), max);
            prop_assert!(!shown.to_ascii_lowercase().contains("a1_"), "{}", shown);
            prop_assert!(shown.chars().count() <= max + 1);
        }

        #[test]
        fn any_body_can_be_looked_at(body in any::<Vec<u8>>()) {
            let text = String::from_utf8_lossy(&body);
            let title = html_title(&format!("<{text}<title {text}>{text}</title"));
            prop_assert!(title.is_some());
        }
    }

    #[test]
    fn the_secret_is_masked_wherever_and_however_it_is_echoed() {
        let secret = Secret::new("CCDB1_abcDEF".into());
        let text = "Bearer CCDB1_abcDEF: é ccdb1_abcdefCCDB1_ABCDEF, CCDB1_abcDE";
        assert_eq!(masked(text, &secret), "Bearer ***: é ******, CCDB1_abcDE");
        assert_eq!(masked("", &secret), "");
        assert_eq!(masked("x", &Secret::new(String::new())), "x");
    }

    #[test]
    fn text_is_cut_to_one_bounded_line() {
        assert_eq!(bounded("  a\n\tb\u{7}c  ", 10), "a b c");
        assert_eq!(bounded("ééé", 2), "éé…");
        assert_eq!(bounded("éé", 2), "éé");
    }

    #[test]
    fn a_page_is_known_by_its_first_character_and_named_by_its_title() {
        assert_eq!(html_title(" <html><TITLE lang=en> 502 Bad Gateway</title>"), Some("502 Bad Gateway".into()));
        assert_eq!(html_title("<html><title>cut"), Some(String::new()));
        assert_eq!(html_title("{\"a\":\"<title>\"}"), None);
    }
}
