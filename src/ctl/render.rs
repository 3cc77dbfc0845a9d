//! Colors, durations, sizes, times, wrapped sentences and tables: how one thing looks wherever it is shown.
//! Everything fits 80 columns, sentences also a narrower terminal. Text of the daemon loses its control characters here.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::types::WallTime;
use crate::view::Level;

/// Columns that everything fits.
pub(super) const WIDTH: usize = 80;
/// Below this sentences are unreadable however they are broken.
const NARROWEST: usize = 40;

/// Colors, or none, and how wide the surface is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
    width: usize,
}

impl Paint {
    /// `on`: write escape sequences.
    pub(super) fn new(on: bool) -> Self {
        Self { on, width: WIDTH }
    }

    /// On a terminal of so many columns.
    pub(super) fn within(self, columns: usize) -> Self {
        Self { width: columns.clamp(NARROWEST, WIDTH), ..self }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self.on {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// What names a thing.
    pub(super) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(super) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Green, amber, red.
    pub(super) fn level(self, level: Level, text: &str) -> String {
        let code = match level {
            Level::Ok => "32",
            Level::Warn => "33",
            Level::Bad => "1;31",
        };
        self.wrap(code, text)
    }

    /// Adds a sentence behind a label of `indent` columns, broken at spaces so that it fits.
    pub(super) fn labelled(
        self,
        out: &mut String,
        indent: usize,
        label: &str,
        color: impl Fn(&str) -> String,
        sentence: &str,
    ) {
        let pad = indent.saturating_sub(label.chars().count());
        for (i, line) in wrap(sentence, self.width.saturating_sub(indent)).iter().enumerate() {
            // Formatting into a String cannot fail.
            let _ = match i {
                0 => writeln!(out, "{label}{:pad$}{}", "", color(line)),
                _ => writeln!(out, "{:indent$}{}", "", color(line)),
            };
        }
    }

    fn cell(self, text: &str, level: Option<Level>) -> Cell {
        let cell = Cell::new(plain(text));
        match (self.on, level) {
            (true, Some(Level::Ok)) => cell.fg(comfy_table::Color::Green),
            (true, Some(Level::Warn)) => cell.fg(comfy_table::Color::Yellow),
            (true, Some(Level::Bad)) => cell.fg(comfy_table::Color::Red),
            _ => cell,
        }
    }
}

/// Text without control characters: a daemon's sentence must not steer the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A stable word as people read it.
pub(super) fn words(word: &str) -> String {
    word.replace('_', " ")
}

/// `420 ms`, `1.34 s`, `2 m 5 s`, `3 h 20 m`, `4 d 2 h`.
pub(super) fn duration(d: Duration) -> String {
    let (ms, s) = (d.as_millis(), d.as_secs());
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.2} s", d.as_secs_f64().min(59.99)),
        60..3600 => format!("{} m {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

/// `812 B`, `16.0 MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `2026-11-20 11:03:21Z`.
pub(super) fn wall(t: WallTime) -> String {
    match jiff::Timestamp::from_microsecond(t.0) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => t.to_string(),
    }
}

/// `2026-11-20 11:03:21.482Z`.
pub(super) fn wall_fine(t: WallTime) -> String {
    match jiff::Timestamp::from_microsecond(t.0) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string(),
        Err(_) => t.to_string(),
    }
}

/// Breaks at spaces; a longer word stands alone.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in plain(text).split_whitespace() {
        let long = word.chars().count();
        if used > 0 && used + 1 + long > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += long;
        }
    }
    lines
}

/// A table without borders; every row has as many cells as the header.
pub(super) fn table(paint: Paint, header: &[&str], rows: &[Vec<(String, Option<Level>)>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // Not narrower on a narrow terminal: words broken inside cells are harder to read than a line that is too long.
    table.set_width(WIDTH as u16);
    match paint.on {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.set_header(header.iter().map(Cell::new).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|(text, level)| paint.cell(text, *level)).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for line in table.lines() {
        // The first column's padding would shift the table against the sentences.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_fine_as_it_is_short() {
        assert_eq!(duration(Duration::from_millis(420)), "420 ms");
        assert_eq!(duration(Duration::from_millis(1_337)), "1.34 s");
        assert_eq!(duration(Duration::from_millis(59_999)), "59.99 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 m 5 s");
        assert_eq!(duration(Duration::from_secs(12_000)), "3 h 20 m");
        assert_eq!(duration(Duration::from_secs(352_800)), "4 d 2 h");
    }

    #[test]
    fn a_size_is_read_at_a_glance() {
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(16 << 20), "16.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn a_long_sentence_stands_behind_its_label() {
        let mut out = String::new();
        Paint::new(false).labelled(&mut out, 6, "why", str::to_owned, &"word ".repeat(20));
        assert_eq!(out.lines().count(), 2);
        assert!(out.starts_with("why   word word"), "{out}");
        assert!(out.lines().all(|l| l.chars().count() <= WIDTH), "{out}");
        assert!(out.lines().nth(1).unwrap().starts_with("      word"), "{out}");
    }

    #[test]
    fn a_sentence_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
