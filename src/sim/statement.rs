//! The statements that the simulated server knows, as `sql` reads them and `eval` runs them. Pure data.

use super::cockroach;
use super::own::Own;
use super::value::{Type, Value};

/// A statement and the types of its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) statement: Statement,
    pub(super) parameters: Vec<Type>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    Select(Select),
    Insert(Insert),
    Begin,
    Commit,
    Rollback,
    /// `None` = back to the default.
    Set {
        name: String,
        value: Option<String>,
    },
    Show(String),
    AlterSystem {
        name: String,
        value: Option<String>,
    },
    /// Accepted without any effect; the tag.
    Accepted(&'static str),
    IdentifySystem,
    TimelineHistory(i64),
    Own(Own),
    Cockroach(cockroach::sql::Statement),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Select {
    pub(super) items: Vec<Item>,
    /// From the one table; without it, one row.
    pub(super) from_table: bool,
    /// A comparison with `id`.
    pub(super) filter: Option<(&'static str, Expr)>,
    pub(super) descending: bool,
    pub(super) limit: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Insert {
    pub(super) ids: Vec<Expr>,
    /// ON CONFLICT DO NOTHING.
    pub(super) or_nothing: bool,
    pub(super) returning: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) expr: Expr,
    pub(super) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Value(Value),
    /// From 0.
    Parameter(usize),
    Id,
    At,
    Call(String, Vec<Expr>),
    Cast(Box<Expr>, Type),
    Not(Box<Expr>),
}
