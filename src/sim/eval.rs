//! What a statement does: to the model, to the session, and as an answer. Pure; time comes with the context.

use std::collections::BTreeMap;

use super::database::Database;
use super::fault::Fault;
use super::functions;
use super::statement::{Expr, Insert, Item, Parsed, Select, Statement};
use super::value::{Column, Type, Value};
use crate::types::WallTime;

/// Rows that the table holds at most.
const MOST_ROWS: usize = 10_000_000;

/// A session as it knows itself.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) started: WallTime,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) transaction: Option<Transaction>,
}

/// An open transaction block.
#[derive(Debug, Clone, Default)]
pub(super) struct Transaction {
    ids: Vec<i64>,
    failed: bool,
}

/// Where a statement runs.
pub(super) struct Context<'a> {
    pub(super) server: &'a mut dyn Database,
    pub(super) session: &'a mut Session,
    pub(super) now: WallTime,
}

/// What a statement answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) rows: Vec<Vec<Value>>,
    /// CommandComplete.
    pub(super) tag: String,
}

impl Session {
    /// The byte of ReadyForQuery.
    pub(super) fn status(&self) -> u8 {
        match &self.transaction {
            None => b'I',
            Some(Transaction { failed: false, .. }) => b'T',
            Some(Transaction { failed: true, .. }) => b'E',
        }
    }

    /// A failure aborts an open transaction block.
    pub(super) fn fail(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }

    pub(super) fn application_name(&self) -> String {
        self.settings.get("application_name").cloned().unwrap_or_default()
    }
}

/// The columns of a statement's rows; `None` = it has none.
pub(super) fn columns(parsed: &Parsed) -> Option<Vec<Column>> {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let of_items = |items: &[Item]| {
        items.iter().map(|item| column(&item.name, functions::kind_of(&item.expr, &parsed.parameters))).collect()
    };
    Some(match &parsed.statement {
        Statement::Select(select) => of_items(&select.items),
        Statement::Insert(insert) if !insert.returning.is_empty() => of_items(&insert.returning),
        Statement::Show(name) => vec![column(name, Type::Text)],
        Statement::IdentifySystem => vec![
            column("systemid", Type::Text),
            column("timeline", Type::Int8),
            column("xlogpos", Type::Text),
            column("dbname", Type::Text),
        ],
        Statement::TimelineHistory(_) => vec![column("filename", Type::Text), column("content", Type::Text)],
        Statement::Own(own) => own.columns(),
        Statement::Cockroach(statement) => return statement.columns(),
        _ => return None,
    })
}

impl Context<'_> {
    /// Runs one statement. A failure inside of a transaction block aborts the block.
    pub(super) fn execute(&mut self, statement: &Statement, parameters: &[Value]) -> Result<Answer, Fault> {
        let answer = self.run(statement, parameters);
        answer.inspect_err(|_| self.session.fail())
    }

    /// A setting as this session sees it.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        let own = self.session.settings.get(&name).cloned().or_else(|| self.server.setting(&name));
        own.or_else(|| self.default_setting(&name).map(str::to_owned))
    }

    /// What servers of every kind have.
    fn default_setting(&self, name: &str) -> Option<&'static str> {
        let on = |is: bool| if is { "on" } else { "off" };
        Some(match name {
            "application_name" => "",
            "client_encoding" | "server_encoding" => "UTF8",
            "datestyle" => "ISO, MDY",
            "default_transaction_read_only" => "off",
            "extra_float_digits" => "1",
            "integer_datetimes" | "standard_conforming_strings" => "on",
            "intervalstyle" => "postgres",
            "search_path" => "\"$user\", public",
            "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => "0",
            "timezone" => "UTC",
            "transaction_read_only" => on(self.is_read_only()),
            _ => return None,
        })
    }

    fn is_read_only(&self) -> bool {
        let on = |value: String| matches!(value.as_str(), "on" | "true" | "1" | "yes");
        self.server.is_standby() || self.setting("default_transaction_read_only").is_some_and(on)
    }

    fn run(&mut self, statement: &Statement, parameters: &[Value]) -> Result<Answer, Fault> {
        let ends_block = matches!(statement, Statement::Commit | Statement::Rollback);
        if !ends_block && self.session.status() == b'E' {
            return Err(Fault::Aborted);
        }
        match statement {
            Statement::Select(select) => self.select(select, parameters),
            Statement::Insert(insert) => self.insert(insert, parameters),
            Statement::Begin => {
                self.session.transaction.get_or_insert_default();
                done("BEGIN")
            }
            Statement::Commit => self.commit(),
            Statement::Rollback => {
                self.session.transaction = None;
                done("ROLLBACK")
            }
            Statement::Set { name, value } => self.set(name, value.as_deref()),
            Statement::Show(name) => {
                let value = self.setting(name).ok_or_else(|| Fault::NoSetting(name.clone()))?;
                Ok(Answer { rows: vec![vec![Value::Text(value)]], tag: "SHOW".into() })
            }
            Statement::Accepted(tag) => done(tag),
            Statement::AlterSystem { name, .. } => {
                self.setting(name).ok_or_else(|| Fault::NoSetting(name.clone()))?;
                self.server.perform(statement, self.session, self.now)
            }
            Statement::Cockroach(_) | Statement::IdentifySystem | Statement::Own(_) | Statement::TimelineHistory(_) => {
                self.server.perform(statement, self.session, self.now)
            }
        }
    }

    fn select(&mut self, select: &Select, parameters: &[Value]) -> Result<Answer, Fault> {
        let rows = if !select.from_table {
            vec![self.row(&select.items, parameters, None)?]
        } else if select.items.iter().any(|item| functions::is_aggregate(&item.expr)) {
            let ids = self.matching(select, parameters)?;
            let aggregate = |item: &Item| functions::aggregate(&item.expr, &ids);
            vec![select.items.iter().map(aggregate).collect::<Result<_, _>>()?]
        } else {
            let ids = self.matching(select, parameters)?;
            ids.into_iter().map(|id| self.row(&select.items, parameters, Some(id))).collect::<Result<_, _>>()?
        };
        Ok(Answer { tag: format!("SELECT {}", rows.len()), rows })
    }

    /// The ids of the rows that a selection names, in its order.
    fn matching(&mut self, select: &Select, parameters: &[Value]) -> Result<Vec<i64>, Fault> {
        let mut ids: Vec<i64> = self.server.rows().keys().copied().collect();
        ids.extend(self.session.transaction.iter().flat_map(|transaction| &transaction.ids));
        ids.sort_unstable();
        if let Some((comparison, expr)) = &select.filter {
            match self.value(expr, parameters, None)?.cast(Type::Int8) {
                Some(Value::Int(than)) => ids.retain(|id| functions::holds(*id, comparison, than)),
                Some(_) => ids.clear(),
                None => return Err(Fault::BadValue("a comparison with id".into())),
            }
        }
        if select.descending {
            ids.reverse();
        }
        if let Some(expr) = &select.limit
            && let Some(Value::Int(limit)) = self.value(expr, parameters, None)?.cast(Type::Int8)
        {
            ids.truncate(usize::try_from(limit).unwrap_or(0));
        }
        Ok(ids)
    }

    fn row(&mut self, items: &[Item], parameters: &[Value], id: Option<i64>) -> Result<Vec<Value>, Fault> {
        items.iter().map(|item| self.value(&item.expr, parameters, id)).collect()
    }

    pub(super) fn value(&mut self, expr: &Expr, parameters: &[Value], id: Option<i64>) -> Result<Value, Fault> {
        Ok(match expr {
            Expr::Value(value) => value.clone(),
            Expr::Parameter(number) => parameters.get(*number).cloned().ok_or(Fault::NoParameter(number + 1))?,
            Expr::Id => id.map_or(Value::Null, Value::Int),
            // A row of the open transaction has the transaction's time.
            Expr::At => {
                id.map_or(Value::Null, |id| Value::Time(self.server.rows().get(&id).copied().unwrap_or(self.now)))
            }
            Expr::Call(name, arguments) => {
                let arguments = arguments.iter().map(|argument| self.value(argument, parameters, id));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                functions::call(self, name, &arguments)?
            }
            Expr::Cast(inner, kind) => {
                let value = self.value(inner, parameters, id)?;
                let text = value.to_text().unwrap_or_default();
                value.cast(*kind).ok_or(Fault::BadValue(text))?
            }
            Expr::Not(inner) => match self.value(inner, parameters, id)?.cast(Type::Bool) {
                Some(Value::Bool(value)) => Value::Bool(!value),
                _ => Value::Null,
            },
        })
    }

    fn insert(&mut self, insert: &Insert, parameters: &[Value]) -> Result<Answer, Fault> {
        if self.is_read_only() {
            return Err(Fault::ReadOnly("INSERT"));
        }
        let mut new: Vec<i64> = Vec::with_capacity(insert.ids.len());
        for expr in &insert.ids {
            let value = self.value(expr, parameters, None)?;
            let id = match value.clone().cast(Type::Int8) {
                Some(Value::Int(id)) => id,
                Some(_) => return Err(Fault::NotNull),
                None => return Err(Fault::BadValue(value.to_text().unwrap_or_default())),
            };
            let pending = self.session.transaction.iter().any(|transaction| transaction.ids.contains(&id));
            match pending || new.contains(&id) || self.server.rows().contains_key(&id) {
                false => new.push(id),
                true if insert.or_nothing => {}
                true => return Err(Fault::Duplicate(id)),
            }
        }
        if self.server.rows().len() + new.len() > MOST_ROWS {
            return Err(Fault::Full(MOST_ROWS));
        }
        let now = self.now;
        match &mut self.session.transaction {
            Some(transaction) => transaction.ids.extend(&new),
            None if new.is_empty() => {}
            None => self.server.commit(new.clone(), now)?,
        }
        let mut rows = Vec::new();
        if !insert.returning.is_empty() {
            rows = new.iter().map(|&id| self.row(&insert.returning, parameters, Some(id))).collect::<Result<_, _>>()?;
        }
        Ok(Answer { rows, tag: format!("INSERT 0 {}", new.len()) })
    }

    fn commit(&mut self) -> Result<Answer, Fault> {
        match self.session.transaction.take() {
            Some(Transaction { failed: true, .. }) => return done("ROLLBACK"),
            Some(Transaction { ids, .. }) if !ids.is_empty() => {
                // Somebody else may have committed the same id meanwhile.
                if let Some(id) = ids.iter().find(|id| self.server.rows().contains_key(id)) {
                    return Err(Fault::Duplicate(*id));
                }
                self.server.commit(ids, self.now)?;
            }
            _ => {}
        }
        done("COMMIT")
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<Answer, Fault> {
        // Settings with a dot in their name are anybody's.
        if !name.contains('.') && self.setting(name).is_none() {
            return Err(Fault::NoSetting(name.to_owned()));
        }
        match value {
            Some(value) => self.session.settings.insert(name.to_owned(), value.to_owned()),
            None => self.session.settings.remove(name),
        };
        self.server.rename(self.session);
        done("SET")
    }
}

pub(super) fn done(tag: &str) -> Result<Answer, Fault> {
    Ok(Answer { rows: Vec::new(), tag: tag.to_owned() })
}
