//! The functions that every simulated server knows, and the types of all. Pure but for what `eval`'s context lets
//! them do.

use super::eval::Context;
use super::fault::Fault;
use super::statement::Expr;
use super::value::{Type, Value};

/// Calls a function that stands in a row.
pub(super) fn call(context: &mut Context<'_>, name: &str, arguments: &[Value]) -> Result<Value, Fault> {
    let text = |n: usize| arguments.get(n).and_then(Value::to_text).unwrap_or_default();
    Ok(match name {
        "pg_backend_pid" => Value::Int(context.session.pid.into()),
        "now" | "current_timestamp" | "clock_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
            Value::Time(context.now)
        }
        "current_user" | "session_user" | "current_role" | "user" => Value::Text(context.session.user.clone()),
        "current_database" | "current_catalog" => Value::Text(context.session.database.clone()),
        "current_schema" => Value::Text("public".into()),
        "quote_ident" => Value::Text(quote_ident(&text(0))),
        "current_setting" => match context.setting(&text(0)) {
            Some(value) => Value::Text(value),
            None if arguments.get(1) == Some(&Value::Bool(true)) => Value::Null,
            None => return Err(Fault::NoSetting(text(0))),
        },
        _ => context.server.call(name, arguments, context.session, context.now)?,
    })
}

/// The type of an expression.
pub(super) fn kind_of(expr: &Expr, parameters: &[Type]) -> Type {
    match expr {
        Expr::Value(Value::Bool(_)) | Expr::Not(_) => Type::Bool,
        Expr::Value(Value::Int(value)) if i32::try_from(*value).is_ok() => Type::Int4,
        Expr::Value(Value::Int(_)) | Expr::Id => Type::Int8,
        Expr::Value(_) => Type::Text,
        Expr::Parameter(number) => parameters.get(*number).copied().unwrap_or(Type::Text),
        Expr::At => Type::Time,
        Expr::Cast(_, kind) => *kind,
        Expr::Call(name, _) => match name.as_str() {
            "pg_is_in_recovery"
            | "pg_promote"
            | "pg_try_advisory_lock"
            | "pg_reload_conf"
            | "pg_has_role"
            | "has_function_privilege" => Type::Bool,
            "pg_current_wal_lsn"
            | "pg_current_wal_insert_lsn"
            | "pg_current_wal_flush_lsn"
            | "pg_last_wal_receive_lsn"
            | "pg_last_wal_replay_lsn" => Type::Lsn,
            "count" | "min" | "max" => Type::Int8,
            "pg_backend_pid" | "inet_server_port" => Type::Int4,
            "node_id" => Type::Int8,
            "now" | "current_timestamp" | "clock_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
                Type::Time
            }
            "cluster_logical_timestamp" => Type::Decimal,
            "pg_advisory_unlock_all" => Type::Void,
            _ => Type::Text,
        },
    }
}

/// `count`, `min`, `max`, also inside of a cast.
pub(super) fn is_aggregate(expr: &Expr) -> bool {
    match expr {
        Expr::Call(name, _) => matches!(name.as_str(), "count" | "min" | "max"),
        Expr::Cast(inner, _) => is_aggregate(inner),
        _ => false,
    }
}

/// An aggregate over these ids, which are in ascending or descending order.
pub(super) fn aggregate(expr: &Expr, ids: &[i64]) -> Result<Value, Fault> {
    Ok(match expr {
        Expr::Cast(inner, kind) => {
            let value = aggregate(inner, ids)?;
            let text = value.to_text().unwrap_or_default();
            value.cast(*kind).ok_or(Fault::BadValue(text))?
        }
        Expr::Call(name, _) if name == "count" => Value::Int(i64::try_from(ids.len()).unwrap_or(i64::MAX)),
        Expr::Call(name, _) if name == "min" => ids.iter().min().map_or(Value::Null, |id| Value::Int(*id)),
        Expr::Call(name, _) if name == "max" => ids.iter().max().map_or(Value::Null, |id| Value::Int(*id)),
        _ => return Err(Fault::NotSupported("columns beside an aggregate".into())),
    })
}

pub(super) fn holds(id: i64, comparison: &str, than: i64) -> bool {
    match comparison {
        "<" => id < than,
        ">" => id > than,
        "<=" => id <= than,
        ">=" => id >= than,
        "=" => id == than,
        _ => id != than,
    }
}

fn quote_ident(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
