//! What only a PostgreSQL server of a pair knows: its log, its recovery, its settings, the functions of the demo.

use std::collections::BTreeMap;

use super::database::Database;
use super::eval::{Answer, Session, done};
use super::fault::Fault;
use super::model::{Model, Side};
use super::statement::Statement;
use super::value::{Type, Value};
use crate::types::{Lsn, WallTime};

/// One server of a pair.
pub(super) struct Server<'a> {
    pub(super) model: &'a mut Model,
    pub(super) side: Side,
    /// Filled by functions that act on a server as a whole.
    pub(super) effect: Option<Effect>,
}

/// What is done to a server once the statement is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// This one crashes.
    Crash,
    /// The other one starts, as it was.
    Revive,
    /// The other one starts, as a standby of this one.
    Rebuild,
}

impl Database for Server<'_> {
    fn rows(&self) -> &BTreeMap<i64, WallTime> {
        &self.model.node(self.side).rows
    }

    fn commit(&mut self, ids: Vec<i64>, now: WallTime) -> Result<(), Fault> {
        self.model.at(self.side, now).commit(ids, now);
        Ok(())
    }

    fn setting(&self, name: &str) -> Option<String> {
        let node = self.model.node(self.side);
        if let Some(value) = node.settings.get(name) {
            return Some(value.clone());
        }
        let value = match name {
            "in_hot_standby" => ["off", "on"][usize::from(node.standby)],
            "max_connections" => "100",
            "server_version" => super::SERVER_VERSION,
            "synchronous_standby_names" => "",
            "transaction_isolation" => "read committed",
            "wal_receiver_timeout" => "3s",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn is_standby(&self) -> bool {
        self.model.node(self.side).standby
    }

    fn rename(&mut self, session: &Session) {
        if let Some(entry) = self.model.node_mut(self.side).sessions.get_mut(&session.pid) {
            entry.application_name = session.application_name();
        }
    }

    fn call(&mut self, name: &str, arguments: &[Value], session: &Session, now: WallTime) -> Result<Value, Fault> {
        let pid = session.pid;
        let address = self.model.address(self.side);
        let node = self.model.at(self.side, now);
        Ok(match name {
            "pg_is_in_recovery" => Value::Bool(node.standby),
            "pg_promote" => match node.promote() {
                true => Value::Bool(true),
                false => return Err(Fault::NotRecovering("pg_promote()")),
            },
            "pg_current_wal_lsn" | "pg_current_wal_insert_lsn" | "pg_current_wal_flush_lsn" => match node.standby {
                true => return Err(Fault::Recovering("WAL control functions")),
                false => Value::Lsn(node.lsn),
            },
            "pg_last_wal_receive_lsn" | "pg_last_wal_replay_lsn" => when(node.standby, node.lsn),
            "pg_try_advisory_lock" => {
                let text = arguments.first().and_then(Value::to_text).unwrap_or_default();
                let key = Value::cast(arguments.first().cloned().unwrap_or(Value::Null), Type::Int8);
                let Some(Value::Int(key)) = key else {
                    return Err(Fault::BadValue(text));
                };
                Value::Bool(*node.locks.entry(key).or_insert(pid) == pid)
            }
            "pg_advisory_unlock_all" => {
                node.locks.retain(|_, holder| *holder != pid);
                Value::Void
            }
            "pg_reload_conf" | "pg_has_role" | "has_function_privilege" => Value::Bool(true),
            "inet_server_addr" => Value::Text(address.ip().to_string()),
            "inet_server_port" => Value::Int(address.port().into()),
            "version" => Value::Text(format!("PostgreSQL {}", super::SERVER_VERSION)),
            "sim_crash" => self.act(Effect::Crash),
            "sim_revive" => self.act(Effect::Revive),
            "sim_rebuild" => self.act(Effect::Rebuild),
            _ => return Err(Fault::NotSupported(format!("{name}()"))),
        })
    }

    fn perform(&mut self, statement: &Statement, session: &mut Session, now: WallTime) -> Result<Answer, Fault> {
        match statement {
            Statement::AlterSystem { name, value } => {
                let settings = &mut self.model.node_mut(self.side).settings;
                match value {
                    Some(value) => settings.insert(name.clone(), value.clone()),
                    None => settings.remove(name),
                };
                done("ALTER SYSTEM")
            }
            Statement::IdentifySystem => {
                let system = self.model.system_id.to_string();
                let node = self.model.at(self.side, now);
                let (timeline, lsn) = (Value::Int(node.timeline.0.into()), Value::Text(node.lsn.to_string()));
                let row = vec![Value::Text(system), timeline, lsn, Value::Null];
                Ok(Answer { rows: vec![row], tag: "IDENTIFY_SYSTEM".into() })
            }
            Statement::TimelineHistory(timeline) => {
                let history = &self.model.node(self.side).history;
                let older = history.iter().take_while(|(older, _)| i64::from(older.0) < *timeline);
                let lines: String = older.map(|(older, lsn)| format!("{older}\t{lsn}\tsimulated\n")).collect();
                let row = vec![Value::Text(format!("{timeline:08X}.history")), Value::Text(lines)];
                Ok(Answer { rows: vec![row], tag: "TIMELINE_HISTORY".into() })
            }
            Statement::Own(own) => {
                let rows = own.answer(self, session, now);
                Ok(Answer { tag: format!("SELECT {}", rows.len()), rows })
            }
            _ => Err(Fault::NotSupported("this statement".into())),
        }
    }
}

impl Server<'_> {
    fn act(&mut self, effect: Effect) -> Value {
        self.effect = Some(effect);
        Value::Text("as you wish".into())
    }
}

fn when(is: bool, lsn: Lsn) -> Value {
    if is { Value::Lsn(lsn) } else { Value::Null }
}
