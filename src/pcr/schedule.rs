//! The schedule of an automated test: a list of actions and when they are done, as TOML or JSON. Pure: text in, either a
//! schedule or every problem of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Which;

/// More steps than anybody writes by hand, and longer than a test should keep a cluster disrupted.
const MOST: usize = 500;
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is done without a file: a look, a disruption of the primary, looks at what follows, the end of it.
const DEFAULT: &str = r#"[
    {"at": "0s", "action": "status"},
    {"at": "10s", "action": "disrupt", "cluster": "primary"},
    {"at": "1m", "action": "status"},
    {"at": "3m", "action": "status"},
    {"at": "5m", "action": "restore", "cluster": "primary"},
    {"at": "6m", "action": "status"}
]"#;

/// Steps in the order of their time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule(pub Vec<Step>);

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// After the start.
    #[serde(serialize_with = "as_text")]
    pub at: Duration,
    /// What.
    pub action: Action,
    /// Which cluster; of no meaning for `status`.
    pub cluster: Which,
    /// Which regions; empty = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Takes regions of a cluster down.
    Disrupt,
    /// Ends every disruption of a cluster.
    Restore,
    /// Looks at both clusters and their streams.
    Status,
}

/// Why a text is no schedule: every problem, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ScheduleError(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    List(Vec<Value>),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    schedule: Vec<Value>,
}

type Value = serde_json::Map<String, serde_json::Value>;

impl Default for Schedule {
    fn default() -> Self {
        Self::parse(DEFAULT).unwrap_or(Self(Vec::new()))
    }
}

impl Schedule {
    /// Reads a JSON list, a JSON object or a TOML file with such a list as `schedule`.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let json = text.trim_start().starts_with(['[', '{']) && !text.trim_start().starts_with("[[");
        let file = match json {
            true => serde_json::from_str::<File>(text).map_err(|error| error.to_string()),
            false => toml::from_str::<File>(text).map_err(|error| error.message().to_owned()),
        };
        let entries = match file {
            Ok(File::List(entries) | File::Table(Table { schedule: entries })) => entries,
            Err(error) => {
                return Err(ScheduleError(vec![format!(
                    "the schedule cannot be read ({error}); write a JSON list of {{\"at\": \"30s\", \"action\": \"disrupt\", \
                     \"cluster\": \"primary\"}}, or the same in TOML as [[schedule]]"
                )]));
            }
        };
        let mut problems = Vec::new();
        if entries.is_empty() || entries.len() > MOST {
            problems.push(format!("the schedule has {} steps; write 1 to {MOST}", entries.len()));
        }
        let steps = entries.iter().take(MOST).enumerate();
        let mut steps: Vec<Step> = steps.filter_map(|(n, entry)| step(n + 1, entry, &mut problems)).collect();
        steps.sort_by_key(|step| step.at);
        if problems.is_empty() { Ok(Self(steps)) } else { Err(ScheduleError(problems)) }
    }

    /// The clusters that it disrupts, each once.
    pub fn disrupted(&self) -> Vec<Which> {
        let hit = |which: &Which| self.0.iter().any(|step| step.action == Action::Disrupt && step.cluster == *which);
        [Which::Primary, Which::Standby].into_iter().filter(hit).collect()
    }
}

fn step(n: usize, entry: &Value, problems: &mut Vec<String>) -> Option<Step> {
    let before = problems.len();
    let mut wrong = |what: String| problems.push(format!("step {n}: {what}"));
    for key in entry.keys().filter(|key| !matches!(key.as_str(), "at" | "action" | "cluster" | "region" | "regions")) {
        wrong(format!("{key:?} means nothing here; write at, action, cluster and regions"));
    }
    let text = |key: &str| entry.get(key).map(|value| value.as_str().unwrap_or_default().to_owned());
    let at = match text("at").map(|text| humantime::parse_duration(&text)) {
        Some(Ok(at)) if at <= LONGEST => Some(at),
        Some(Ok(_)) => {
            wrong("at is more than 24 hours after the start".into());
            None
        }
        _ => {
            wrong("at is no duration; write for example at = \"30s\"".into());
            None
        }
    };
    let action = match text("action").as_deref() {
        Some("disrupt") => Some(Action::Disrupt),
        Some("restore") => Some(Action::Restore),
        Some("status") => Some(Action::Status),
        _ => {
            wrong("action is none; write \"disrupt\", \"restore\" or \"status\"".into());
            None
        }
    };
    let cluster = match text("cluster").as_deref() {
        None | Some("primary") => Which::Primary,
        Some("standby") => Which::Standby,
        Some(_) => {
            wrong("cluster is none; write \"primary\" or \"standby\"".into());
            Which::Primary
        }
    };
    let regions = match entry.get("regions").or_else(|| entry.get("region")) {
        None => Some(Vec::new()),
        Some(serde_json::Value::String(one)) => Some(vec![one.clone()]),
        Some(value) => serde_json::from_value::<Vec<String>>(value.clone()).ok(),
    };
    if regions.is_none() {
        wrong("regions are a list of texts; write for example regions = [\"us-east-1\"]".into());
    }
    if problems.len() > before {
        return None;
    }
    Some(Step { at: at?, action: action?, cluster, regions: regions? })
}

fn as_text<S: serde::Serializer>(at: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&humantime::format_duration(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_schedule_is_read_from_json_and_toml() {
        let json = r#"[{"at": "30s", "action": "disrupt", "cluster": "primary", "regions": ["us-east-1"]},
                       {"at": "0s", "action": "status"}]"#;
        let toml = "[[schedule]]\nat = '30s'\naction = 'disrupt'\ncluster = 'primary'\nregions = ['us-east-1']\n\
                    [[schedule]]\nat = '0s'\naction = 'status'\n";
        let inline =
            "schedule = [{ at = '30s', action = 'disrupt', region = 'us-east-1' }, { at = '0s', action = 'status' }]";
        let read = Schedule::parse(json).unwrap();
        assert_eq!(read.0.iter().map(|step| step.at.as_secs()).collect::<Vec<_>>(), [0, 30]);
        assert_eq!(read.disrupted(), [Which::Primary]);
        assert_eq!(Schedule::parse(toml).unwrap(), read);
        assert_eq!(Schedule::parse(inline).unwrap(), read);
        assert_eq!(Schedule::parse(&format!("{{\"schedule\": {json}}}")).unwrap(), read);
    }

    #[test]
    fn every_problem_is_said_at_once() {
        let text = r#"[{"at": "soon", "action": "explode"}, {"at": "1s", "action": "status", "cluster": "east", "x": 1},
                       {"at": "25h", "action": "status", "regions": 7}]"#;
        let ScheduleError(problems) = Schedule::parse(text).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems[0].starts_with("step 1: at is no duration") && problems[5].starts_with("step 3: regions"));
        for text in ["", "[]", "hello", "[1]", "{}", "[[schedule]]\nat = 1"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_file_the_primary_is_disrupted_and_restored() {
        let schedule = Schedule::default();
        assert_eq!(schedule.disrupted(), [Which::Primary]);
        let last = schedule.0.iter().rev().find(|step| step.action != Action::Status).unwrap();
        assert_eq!(last.action, Action::Restore);
    }
}
