//! What Patroni says, as its versions from 2.1 on write it. What is missing or of another type than usual is unknown,
//! never an error; only what makes no cluster at all is one.

use serde_json::{Map, Value};

use crate::types::{HostPort, Timeline, WallTime};

/// More of them are not shown.
pub const MAX_MEMBERS: usize = 64;
/// PostgreSQL's port where none is written.
const POSTGRES: u16 = 5432;
/// Characters of a name, a state or a reason that are kept.
const MAX_TEXT: usize = 200;

/// `GET /cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// In the order of their names, at most [`MAX_MEMBERS`].
    pub members: Vec<Member>,
    /// Maintenance mode: Patroni promotes nobody by itself.
    pub paused: bool,
    /// A switchover that is to come.
    pub scheduled: Option<Scheduled>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name in Patroni.
    pub name: String,
    /// What it is in the cluster.
    pub role: Role,
    /// `running`, `streaming`, `stopped`, `start failed` …
    pub state: String,
    /// Where its PostgreSQL is reached, by its own word.
    pub host: Option<HostPort>,
    /// Where its REST API is reached, by its own word.
    pub api: Option<HostPort>,
    /// Of its last report; a new leader's follows a moment later.
    pub timeline: Option<Timeline>,
    /// Bytes behind the leader; `None` for the leader and where Patroni does not know.
    pub lag: Option<u64>,
    /// Tagged `nofailover`, or with a `failover_priority` of 0: it is never promoted.
    pub nofailover: bool,
    /// A changed setting waits for a restart.
    pub pending_restart: bool,
}

/// What a member is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Holds the leader key: `leader`, `master` or `primary`.
    Leader,
    /// Holds the leader key of a cluster that follows another one.
    StandbyLeader,
    /// Commits wait for it: `sync_standby` or `quorum_standby`.
    Sync,
    /// `replica`.
    Replica,
    /// Any other word.
    Other(String),
}

impl Role {
    fn parse(word: &str) -> Self {
        match word {
            "leader" | "master" | "primary" => Self::Leader,
            "standby_leader" => Self::StandbyLeader,
            "sync_standby" | "quorum_standby" => Self::Sync,
            "replica" => Self::Replica,
            other => Self::Other(text(other)),
        }
    }

    /// In one word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Leader => "leader",
            Self::StandbyLeader => "standby leader",
            Self::Sync => "sync standby",
            Self::Replica => "replica",
            Self::Other(word) => word,
        }
    }
}

/// `scheduled_switchover`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// As Patroni writes it.
    pub at: String,
    /// The leader it is planned from.
    pub from: Option<String>,
    /// The candidate; `None` = Patroni chooses.
    pub to: Option<String>,
}

/// One line of `GET /history`: a timeline that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// Why, in PostgreSQL's words.
    pub reason: String,
    /// When, if that was noted.
    pub at: Option<WallTime>,
    /// Who was promoted, if that was noted.
    pub leader: Option<String>,
}

/// Why a body is no answer of Patroni's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPatroni {
    /// It is no JSON.
    #[error("it is not JSON")]
    NotJson,
    /// There is no list of members in it.
    #[error("it has no list of members")]
    NoMembers,
    /// It is no list.
    #[error("it is not a list")]
    NoList,
}

impl Cluster {
    /// Reads the body of `GET /cluster`.
    pub fn parse(body: &[u8]) -> Result<Self, NotPatroni> {
        let value: Value = serde_json::from_slice(body).map_err(|_| NotPatroni::NotJson)?;
        let members = value.get("members").and_then(Value::as_array).ok_or(NotPatroni::NoMembers)?;
        let members = members.iter().filter_map(Member::read).take(MAX_MEMBERS).collect();
        let scheduled = value.get("scheduled_switchover").and_then(Value::as_object).and_then(|scheduled| {
            let word = |key| scheduled.get(key).and_then(Value::as_str).map(text);
            Some(Scheduled { at: word("at")?, from: word("from"), to: word("to") })
        });
        Ok(Self { members, paused: value.get("pause").and_then(Value::as_bool).unwrap_or(false), scheduled })
    }

    /// Who holds the leader key.
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.leads())
    }

    /// By its name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

impl Member {
    fn read(value: &Value) -> Option<Self> {
        let fields = value.as_object()?;
        let word = |key| fields.get(key).and_then(Value::as_str);
        let port = fields.get("port").and_then(number).and_then(|port| u16::try_from(port).ok());
        let host = word("host").map(|host| HostPort { host: text(host).into(), port: port.unwrap_or(POSTGRES) });
        let tags = fields.get("tags").and_then(Value::as_object);
        Some(Self {
            name: text(word("name")?),
            role: Role::parse(word("role").unwrap_or("unknown")),
            state: text(word("state").unwrap_or("unknown")),
            host,
            api: word("api_url").and_then(endpoint),
            timeline: fields.get("timeline").and_then(number).and_then(|n| u32::try_from(n).ok()).map(Timeline),
            lag: fields.get("lag").and_then(number),
            nofailover: tags.is_some_and(never_promoted),
            pending_restart: fields.get("pending_restart").is_some_and(truthy),
        })
    }

    /// It holds the leader key.
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader | Role::StandbyLeader)
    }

    /// Its PostgreSQL stands, as far as Patroni knows.
    pub fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "streaming" | "in archive recovery")
    }
}

/// Reads the body of `GET /history`, the newest last.
pub fn history(body: &[u8]) -> Result<Vec<Ended>, NotPatroni> {
    let value: Value = serde_json::from_slice(body).map_err(|_| NotPatroni::NotJson)?;
    let lines = value.as_array().ok_or(NotPatroni::NoList)?;
    let line = |line: &Value| {
        let at = line.get(3).and_then(Value::as_str).and_then(|at| at.parse::<jiff::Timestamp>().ok());
        Some(Ended {
            timeline: Timeline(u32::try_from(line.get(0).and_then(number)?).ok()?),
            reason: line.get(2).and_then(Value::as_str).map(text).unwrap_or_default(),
            at: at.map(|at| WallTime(at.as_microsecond())),
            leader: line.get(4).and_then(Value::as_str).map(text),
        })
    };
    Ok(lines.iter().filter_map(line).collect())
}

fn never_promoted(tags: &Map<String, Value>) -> bool {
    let priority = tags.get("failover_priority").and_then(number);
    tags.get("nofailover").map_or(priority == Some(0), truthy)
}

/// Tags are written by hand: `true`, `"true"`, `1`, `"on"`.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => *yes,
        Value::String(word) => matches!(word.to_ascii_lowercase().as_str(), "true" | "on" | "yes" | "1"),
        Value::Number(number) => number.as_u64() == Some(1),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// `host:port` of a URL, without whatever else stands in it.
fn endpoint(url: &str) -> Option<HostPort> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let default = if scheme == "https" { 443 } else { 80 };
    let whole = || authority.parse::<HostPort>().ok();
    whole().or_else(|| format!("{authority}:{default}").parse().ok())
}

/// Bounded, and without what would disturb a line.
pub(super) fn text(raw: &str) -> String {
    let clean = raw.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_TEXT).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
