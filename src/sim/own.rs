//! The queries that pgpivot itself sends and that are too rich for `sql`: known by their words, answered from the
//! model. Pure. Their texts are owned by the probe and the promoter; a test asks them all.

use super::database::Database;
use super::eval::Session;
use super::postgres::Server;
use super::value::{Column, Type, Value};
use crate::types::{Lsn, WallTime};

/// One of these queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Everything a probe reads.
    Probe { system_id: bool },
    /// Timeline, node and system: is this the latched server?
    Who,
    /// Roles and databases that set `default_transaction_read_only` themselves: none.
    Overrides,
    /// Was `default_transaction_read_only` set by ALTER SYSTEM?
    LeftReadOnly,
    /// When this session began.
    Began,
    /// End every client session but pgpivot's own.
    EndClients,
    /// How many of these are left that began before.
    ClientsLeft { since: WallTime },
    /// Who lacks a role that a freeze needs: nobody.
    Missing,
    /// Take the lock between daemons.
    TryLock,
    /// Who has it.
    LockHolder,
}

/// The lock between daemons, as a key of the model.
const DAEMONS_LOCK: i64 = i64::MIN;

/// Which of them this is, if any.
pub(super) fn recognise(source: &str) -> Option<Own> {
    let has = |words: &str| source.contains(words);
    Some(if has("pg_stat_wal_receiver r LIMIT 1") {
        Own::Probe { system_id: has("pg_control_system()") }
    } else if has("THEN substr(pg_walfile_name(") && has("FROM pg_control_system()") {
        Own::Who
    } else if has("FROM pg_db_role_setting") {
        Own::Overrides
    } else if has("FROM pg_settings WHERE name = 'default_transaction_read_only'") {
        Own::LeftReadOnly
    } else if has("SELECT backend_start FROM pg_stat_activity") {
        Own::Began
    } else if has("SELECT pg_terminate_backend(a.pid)") {
        Own::EndClients
    } else if has("SELECT count(*), count(*) FILTER (WHERE") {
        Own::ClientsLeft { since: since(source)? }
    } else if has("SELECT CASE WHEN pg_has_role(session_user") {
        Own::Missing
    } else if has("SELECT pg_try_advisory_lock(") && has("FROM pg_control_system()") {
        Own::TryLock
    } else if has("FROM pg_locks l JOIN pg_stat_activity a") {
        Own::LockHolder
    } else {
        return None;
    })
}

/// The time in `a.backend_start < '...'`.
fn since(source: &str) -> Option<WallTime> {
    let (time, _) = source.split_once("a.backend_start < '")?.1.split_once('\'')?;
    match (time, Value::parse(time, Type::Time)) {
        ("infinity", _) => Some(WallTime(i64::MAX)),
        (_, Some(Value::Time(since))) => Some(since),
        _ => None,
    }
}

impl Own {
    pub(super) fn columns(self) -> Vec<Column> {
        use Type::{Bool, Int8, Text, Time};
        let kinds: &[Type] = match self {
            Own::Probe { .. } => &PROBE,
            Own::Who => &[Text, Text, Int8],
            Own::Overrides | Own::LockHolder | Own::Missing => &[Text],
            Own::LeftReadOnly => &[Int8],
            Own::Began => &[Time],
            Own::EndClients | Own::TryLock => &[Bool],
            Own::ClientsLeft { .. } => &[Int8, Int8, Text],
        };
        kinds.iter().map(|&kind| Column { name: "?column?".into(), kind }).collect()
    }

    pub(super) fn answer(self, server: &mut Server<'_>, session: &Session, now: WallTime) -> Vec<Vec<Value>> {
        let side = server.side;
        let count = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        match self {
            Own::Probe { system_id } => vec![probe(server, session, now, system_id)],
            Own::Who => vec![who(server)],
            Own::Overrides => Vec::new(),
            Own::LeftReadOnly => {
                let left = server.model.node(side).settings.get("default_transaction_read_only");
                vec![vec![count(usize::from(left.is_some_and(|value| value == "on")))]]
            }
            Own::Began => vec![vec![Value::Time(session.started)]],
            Own::EndClients => {
                let clients = clients(server, session).filter(|(_, entry)| !entry.end.is_cancelled());
                clients.map(|(_, entry)| entry.end.cancel()).map(|()| vec![Value::Bool(true)]).collect()
            }
            Own::ClientsLeft { since } => {
                let left = clients(server, session).filter(|(_, entry)| entry.started < since).count();
                vec![vec![count(left), Value::Int(0), Value::Null]]
            }
            Own::Missing => vec![vec![Value::Text(String::new())]],
            Own::TryLock => {
                let pid = session.pid;
                let holder = *server.model.at(side, now).locks.entry(DAEMONS_LOCK).or_insert(pid);
                vec![vec![Value::Bool(holder == pid)]]
            }
            Own::LockHolder => {
                let node = server.model.node(side);
                let holder = node.locks.get(&DAEMONS_LOCK).and_then(|pid| node.sessions.get(pid));
                holder.map(|entry| vec![Value::Text(entry.application_name.clone())]).into_iter().collect()
            }
        }
    }
}

const PROBE: [Type; 23] = {
    use Type::{Bool, Int8, Lsn, Text};
    [
        Bool, Int8, Text, Lsn, Lsn, Text, Int8, Int8, Text, Text, Lsn, Int8, Int8, Text, Int8, Bool, Bool, Text, Text,
        Text, Text, Text, Text,
    ]
};

/// Client sessions of everybody but this one and others of pgpivot's.
fn clients<'a>(server: &'a Server<'_>, me: &'a Session) -> impl Iterator<Item = (&'a u32, &'a super::model::Entry)> {
    let ours = |entry: &super::model::Entry| entry.application_name.starts_with("pgpivot/") && entry.user == me.user;
    let sessions = server.model.node(server.side).sessions.iter();
    sessions.filter(move |(pid, entry)| **pid != me.pid && !ours(entry))
}

fn who(server: &Server<'_>) -> Vec<Value> {
    let (side, node) = (server.side, server.model.node(server.side));
    let timeline = if node.standby { Value::Null } else { Value::Text(format!("{:08X}", node.timeline.0)) };
    let address = server.model.address(side).to_string();
    vec![timeline, Value::Text(address), Value::Int(server.model.system_id.0.cast_signed())]
}

fn probe(server: &Server<'_>, session: &Session, now: WallTime, system_id: bool) -> Vec<Value> {
    let side = server.side;
    let node = server.model.node(side);
    let text = |text: &str| Value::Text(text.to_owned());
    let when = |is: bool, value: Value| if is { value } else { Value::Null };
    let micros = |at: WallTime| Value::Int(at.0);
    let position = |lsn: Lsn| Value::Lsn(lsn);

    let stream = server.model.stream(side, now);
    let received = |value: &dyn Fn(&super::model::Stream) -> Value| stream.as_ref().map_or(Value::Null, value);
    let system = Value::Int(server.model.system_id.0.cast_signed());
    let standby_name = when(server.model.streams(side.other()), text(side.other().as_str()));
    vec![
        Value::Bool(node.standby),
        when(system_id, system),
        when(!node.standby, Value::Text(format!("{:08X}", node.timeline.0))),
        position(node.lsn),
        when(node.standby, position(node.lsn)),
        Value::Text(server.model.address(side).to_string()),
        micros(now),
        Value::Int(i64::from(stream.is_some())),
        received(&|_| text("streaming")),
        received(&|_| Value::Text(node.timeline.to_string())),
        received(&|_| position(node.lsn)),
        received(&|stream| micros(stream.spoke)),
        received(&|stream| micros(stream.spoke)),
        received(&|_| Value::Text(server.model.address(side.other()).to_string())),
        Value::Int(3_000),
        Value::Bool(true),
        Value::Bool(true),
        Value::Text(server.setting("synchronous_standby_names").unwrap_or_default()),
        Value::Null,
        standby_name,
        daemons(server, session),
        received(&|_| Value::Text(format!("application_name={}", side.as_str()))),
        text("on"),
    ]
}

/// The other daemons' names, one a line.
fn daemons(server: &Server<'_>, session: &Session) -> Value {
    let daemon = |name: &str| name.split('/').nth(1).unwrap_or_default().to_owned();
    let own = daemon(&session.application_name());
    let names = server.model.node(server.side).sessions.values().map(|entry| entry.application_name.clone());
    let mut others: Vec<String> = names.filter(|name| name.starts_with("pgpivot/") && daemon(name) != own).collect();
    others.sort();
    others.dedup();
    if others.is_empty() { Value::Null } else { Value::Text(others.join("\n")) }
}
