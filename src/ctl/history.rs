//! `history`: the audit trail, one event a line; and the reading of its lines, which the store may extend.

use std::time::Duration;

use serde_json::Value;

use super::render::{Paint, duration, wall_fine};
use crate::types::WallTime;
use crate::view::{ChainStatus, Level};

/// Columns of the time.
const INDENT: usize = 26;

/// What is used of a line of the history. Unknown fields are left alone, missing ones are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// When.
    pub(super) at: WallTime,
    /// The episode it belongs to.
    pub(super) episode: Option<u64>,
    /// The stable word.
    pub(super) kind: String,
    /// One sentence.
    pub(super) sentence: String,
    /// How long the step took.
    pub(super) took: Option<Duration>,
    /// Who commanded it.
    pub(super) operator: Option<String>,
}

impl Line {
    /// Reads an event, alone or inside an envelope.
    pub(super) fn read(value: &Value) -> Self {
        let event = value.get("event").filter(|e| e.is_object()).unwrap_or(value);
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            at: event.get("at").map(time).unwrap_or_default(),
            episode: event.get("episode").and_then(Value::as_u64),
            kind: text("kind"),
            sentence: text("sentence"),
            took: event.get("took").and_then(|t| serde_json::from_value(t.clone()).ok()),
            operator: event.get("operator").and_then(operator),
        }
    }

    /// The event that ends an episode with a new active side.
    pub(super) fn switched(&self) -> bool {
        matches!(self.kind.as_str(), "switched" | "followed")
    }

    /// The event that ends an episode without one.
    pub(super) fn cancelled(&self) -> bool {
        self.kind == "cancelled"
    }

    fn level(&self) -> Option<Level> {
        match self.kind.as_str() {
            "switched" | "followed" | "released" => Some(Level::Ok),
            "decided" | "cancelled" | "notice" => Some(Level::Warn),
            "blocked" | "quarantined" => Some(Level::Bad),
            _ => None,
        }
    }
}

/// What a check of the chains found, a line per pair and one per break.
pub(super) fn render_chains(pairs: &[ChainStatus]) -> String {
    let mut text = String::new();
    for pair in pairs {
        let kept = pair.first.zip(pair.last).map_or_else(String::new, |(first, last)| format!(", {first} to {last}"));
        let found = match pair.broken {
            0 => "each of them is what was written".to_owned(),
            1 => "and 1 place is broken".to_owned(),
            n => format!("and {n} places are broken"),
        };
        text.push_str(&format!("{}: {} lines{kept}, {found}\n", pair.pair, pair.lines));
        pair.breaks.iter().for_each(|place| text.push_str(&format!("  {place}\n")));
    }
    text
}

/// Microseconds, or RFC 3339.
fn time(value: &Value) -> WallTime {
    match value {
        Value::String(text) => {
            text.parse::<jiff::Timestamp>().map(|t| WallTime(t.as_microsecond())).unwrap_or_default()
        }
        value => WallTime(value.as_i64().unwrap_or_default()),
    }
}

fn operator(value: &Value) -> Option<String> {
    if let Some(name) = value.as_str() {
        return Some(name.to_owned());
    }
    let name = value.get("name")?.as_str()?;
    Some(match value.get("note").and_then(Value::as_str) {
        Some(note) => format!("{name} ({note})"),
        None => name.to_owned(),
    })
}

/// The lines as a person reads them.
pub(super) fn render(lines: &[Value], paint: Paint) -> String {
    if lines.is_empty() {
        return "no history yet\n".to_owned();
    }
    let mut out = String::new();
    for line in lines.iter().map(Line::read) {
        let mut sentence = format!("{}: {}", line.kind, line.sentence);
        if let Some(took) = line.took {
            sentence.push_str(&format!(" ({})", duration(took)));
        }
        if let Some(who) = &line.operator {
            sentence.push_str(&format!(" [{who}]"));
        }
        let color = |text: &str| line.level().map_or_else(|| text.to_owned(), |level| paint.level(level, text));
        paint.labelled(&mut out, INDENT, &wall_fine(line.at), color, &sentence);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_chain_names_its_places() {
        let chain = |broken: u64, breaks: &[&str]| ChainStatus {
            pair: "main".into(),
            lines: 7,
            first: Some(2),
            last: Some(9),
            broken,
            breaks: breaks.iter().map(|place| (*place).to_owned()).collect(),
        };
        assert_eq!(
            render_chains(&[chain(0, &[]), chain(1, &["history.1, line 3, is not what was written"])]),
            "main: 7 lines, 2 to 9, each of them is what was written\nmain: 7 lines, 2 to 9, and 1 place is broken\n  \
             history.1, line 3, is not what was written\n"
        );
    }

    use crate::failover::action::{Event, EventKind, Operator};
    use crate::failover::phase::EpisodeId;
    use crate::types::Epoch;

    fn event() -> Event {
        Event {
            at: WallTime(1_795_172_580_482_000),
            episode: Some(EpisodeId(5)),
            epoch: Epoch(4),
            kind: EventKind::Switched,
            sentence: "us-west is active".into(),
            change: None,
            took: Some(Duration::from_millis(340)),
            operator: Some(Operator { name: "alice".into(), note: Some("disk replaced".into()) }),
            active: Some("us-west".into()),
        }
    }

    #[test]
    fn a_line_names_time_event_duration_and_operator() {
        let line = serde_json::to_value(event()).unwrap();
        let text = render(&[line], Paint::new(false));
        assert_eq!(
            text,
            "2026-11-20 11:03:00.482Z  switched: us-west is active (340 ms) [alice (disk\n                          replaced)]\n"
        );
    }

    #[test]
    fn a_line_may_come_in_an_envelope_and_with_a_readable_time() {
        let mut bare = serde_json::to_value(event()).unwrap();
        bare["at"] = "2026-11-20T11:03:00.482Z".into();
        let wrapped = serde_json::json!({ "seq": 7, "hash": "00", "event": bare });
        let line = Line::read(&wrapped);
        assert_eq!(line.at, event().at);
        assert_eq!(line.episode, Some(5));
        assert!(line.switched());
    }

    #[test]
    fn a_line_of_a_newer_daemon_still_shows() {
        let line = serde_json::json!({ "kind": "unheard_of", "sentence": "something new", "took": "soon" });
        assert!(render(&[line], Paint::new(false)).contains("unheard_of: something new"));
    }
}
