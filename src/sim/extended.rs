//! The extended query protocol of the simulated server: prepared statements and portals of one session.

use std::collections::HashMap;
use std::sync::Arc;
use std::vec::IntoIter;

use super::conversation::error;
use super::database::{Dialect, Host};
use super::eval::{self, Session};
use super::fault::Fault;
use super::message::{Fields, Formats, Outgoing};
use super::sql;
use super::statement::Parsed;
use super::value::{Column, Type, Value};
use crate::wire::sqlstate::Severity;

/// Prepared statements, and as many portals, of one session.
const MOST: usize = 1_000;

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Extended {
    /// After a failure everything up to Sync is skipped.
    pub(super) skipping: bool,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
}

#[derive(Debug)]
struct Prepared {
    /// `None` = an empty query.
    parsed: Option<Parsed>,
    parameters: Vec<Type>,
    columns: Option<Vec<Column>>,
}

#[derive(Debug)]
struct Portal {
    prepared: Arc<Prepared>,
    parameters: Vec<Value>,
    formats: Formats,
    /// Once it was executed: the rows that are left, and the tag.
    running: Option<(IntoIter<Vec<Value>>, String)>,
}

impl Extended {
    /// Handles one message; a failure is answered, and what follows skipped.
    pub(super) async fn handle(
        &mut self,
        kind: u8,
        mut fields: Fields<'_>,
        session: &mut Session,
        host: &impl Host,
        out: &mut Outgoing,
    ) {
        if self.skipping {
            return;
        }
        let handled = match kind {
            b'P' => self.parse(&mut fields, host.dialect(), out),
            b'B' => self.bind(&mut fields, out),
            b'D' => self.describe(&mut fields, out),
            b'E' => self.execute(&mut fields, session, host, out).await,
            b'C' => self.close(&mut fields, out),
            b'H' => Ok(()),
            _ => Err(Fault::Protocol("unexpected message type")),
        };
        if let Err(fault) = handled {
            session.fail();
            self.skipping = true;
            out.0.extend(error(Severity::Error, &fault, host.dialect()));
        }
    }

    fn parse(&mut self, fields: &mut Fields<'_>, dialect: Dialect, out: &mut Outgoing) -> Result<(), Fault> {
        let name = fields.text()?.to_owned();
        let mut parsed = sql::parse(fields.text()?, dialect)?;
        if parsed.len() > 1 {
            return Err(Fault::Several);
        }
        let parsed = parsed.pop();
        let mut parameters = parsed.as_ref().map_or_else(Vec::new, |parsed| parsed.parameters.clone());
        for n in 0..fields.count()? {
            let declared = Type::of_oid(fields.int32()?.cast_unsigned());
            if let (Some(declared), Some(kind)) = (declared, parameters.get_mut(n)) {
                *kind = declared;
            }
        }
        let parsed = parsed.map(|parsed| Parsed { parameters: parameters.clone(), ..parsed });
        let columns = parsed.as_ref().and_then(eval::columns);
        let prepared = Prepared { parsed, parameters, columns };
        insert(&mut self.statements, name, Arc::new(prepared))?;
        out.empty(b'1');
        Ok(())
    }

    fn bind(&mut self, fields: &mut Fields<'_>, out: &mut Outgoing) -> Result<(), Fault> {
        let name = fields.text()?.to_owned();
        let prepared = self.statement(fields.text()?)?;
        let given = fields.formats()?;
        let count = fields.count()?;
        if count != prepared.parameters.len() {
            return Err(Fault::Protocol("bind message supplies another number of parameters than the statement has"));
        }
        let mut parameters = Vec::with_capacity(count);
        for (n, kind) in prepared.parameters.iter().enumerate() {
            let bytes = fields.value()?;
            let value = match bytes {
                None => Some(Value::Null),
                Some(bytes) if given.is_binary(n) => Value::from_binary(bytes, *kind),
                Some(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| Value::parse(text, *kind)),
            };
            parameters.push(value.ok_or_else(|| Fault::BadValue(format!("${}", n + 1)))?);
        }
        let portal = Portal { prepared, parameters, formats: fields.formats()?, running: None };
        insert(&mut self.portals, name, portal)?;
        out.empty(b'2');
        Ok(())
    }

    fn describe(&self, fields: &mut Fields<'_>, out: &mut Outgoing) -> Result<(), Fault> {
        let (kind, name) = (fields.byte()?, fields.text()?);
        let (columns, formats) = if kind == b'S' {
            let prepared = self.statement(name)?;
            let oids: Vec<u32> = prepared.parameters.iter().map(|kind| kind.wire().0).collect();
            out.parameter_description(&oids);
            (prepared.columns.clone(), Formats::default())
        } else {
            let portal = self.portals.get(name).ok_or_else(|| Fault::NoPortal(name.to_owned()))?;
            (portal.prepared.columns.clone(), portal.formats.clone())
        };
        match columns {
            Some(columns) => out.row_description(&columns, &formats),
            None => out.empty(b'n'),
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        fields: &mut Fields<'_>,
        session: &mut Session,
        host: &impl Host,
        out: &mut Outgoing,
    ) -> Result<(), Fault> {
        let name = fields.text()?;
        let most = usize::try_from(fields.int32()?).unwrap_or(0);
        let portal = self.portals.get_mut(name).ok_or_else(|| Fault::NoPortal(name.to_owned()))?;
        let Some(parsed) = &portal.prepared.parsed else {
            out.empty(b'I');
            return Ok(());
        };
        let (rows, tag) = match &mut portal.running {
            Some(running) => running,
            None => {
                host.wait(&parsed.statement).await;
                let run = |context: &mut eval::Context<'_>| context.execute(&parsed.statement, &portal.parameters);
                let answer = host.context(session, run)?;
                portal.running.insert((answer.rows.into_iter(), answer.tag))
            }
        };
        let columns = portal.prepared.columns.as_deref().unwrap_or_default();
        let most = if most == 0 { usize::MAX } else { most };
        for row in rows.by_ref().take(most) {
            out.data_row(columns, &row, &portal.formats);
        }
        match rows.len() {
            0 => out.complete(tag),
            _ => out.empty(b's'),
        }
        Ok(())
    }

    fn close(&mut self, fields: &mut Fields<'_>, out: &mut Outgoing) -> Result<(), Fault> {
        let (kind, name) = (fields.byte()?, fields.text()?);
        if kind == b'S' {
            self.statements.remove(name);
        } else {
            self.portals.remove(name);
        }
        out.empty(b'3');
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, Fault> {
        self.statements.get(name).cloned().ok_or_else(|| Fault::NoStatement(name.to_owned()))
    }
}

fn insert<T>(map: &mut HashMap<String, T>, name: String, value: T) -> Result<(), Fault> {
    if map.len() >= MOST && !map.contains_key(&name) {
        return Err(Fault::TooMany);
    }
    map.insert(name, value);
    Ok(())
}
