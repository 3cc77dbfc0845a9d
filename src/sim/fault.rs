//! What the simulated servers refuse, with the SQLSTATE that a real one gives for it. Pure.

use super::cloud::refusal::Refusal;
use crate::wire::sqlstate::Sqlstate;

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error(
        "this is a simulated server: it knows SELECT, INSERT, BEGIN, COMMIT, ROLLBACK, SET and SHOW, one table, \
         commits (id bigint, at timestamptz), and not {0:?}"
    )]
    NotSupported(String),
    #[error("syntax error at or near {0:?}")]
    Syntax(String),
    #[error("syntax error at end of input")]
    SyntaxAtEnd,
    #[error("expressions are nested too deeply")]
    TooDeep,
    #[error("unterminated quoted text or comment")]
    Unterminated,
    #[error("relation {0:?} does not exist")]
    NoTable(String),
    #[error("column {0:?} does not exist")]
    NoColumn(String),
    #[error("there is no parameter ${0}")]
    NoParameter(usize),
    #[error("invalid input for this type: {0:?}")]
    BadValue(String),
    #[error("null value in column \"id\" of relation \"commits\" violates not-null constraint")]
    NotNull,
    #[error("duplicate key value violates unique constraint \"commits_pkey\": key (id)=({0}) already exists")]
    Duplicate(i64),
    #[error("cannot execute {0} in a read-only transaction")]
    ReadOnly(&'static str),
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    Aborted,
    #[error("recovery is in progress: {0} cannot be executed during recovery")]
    Recovering(&'static str),
    #[error("recovery is not in progress: {0} can only be executed during recovery")]
    NotRecovering(&'static str),
    #[error("unrecognized configuration parameter {0:?}")]
    NoSetting(String),
    #[error("prepared statement {0:?} does not exist")]
    NoStatement(String),
    #[error("portal {0:?} does not exist")]
    NoPortal(String),
    #[error("{0}")]
    Protocol(&'static str),
    #[error("the table is full: a simulated server keeps {0} rows")]
    Full(usize),
    #[error("cannot insert multiple commands into a prepared statement")]
    Several,
    #[error("too many prepared statements or portals")]
    TooMany,
    #[error("only the system virtual cluster can do this: connect with options=-ccluster=system")]
    NotSystem,
    #[error("user does not have {0} system privilege")]
    NotGranted(&'static str),
    #[error("the virtual cluster is not served here any more")]
    NotServed,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Fault {
    pub(super) fn code(&self) -> Sqlstate {
        Sqlstate::new(match self {
            Fault::NotSupported(_) => b"0A000",
            Fault::Syntax(_) | Fault::SyntaxAtEnd | Fault::Unterminated | Fault::Several => b"42601",
            Fault::TooDeep => b"54001",
            Fault::NoTable(_) => b"42P01",
            Fault::NoColumn(_) => b"42703",
            Fault::NoParameter(_) => b"42P02",
            Fault::BadValue(_) => b"22P02",
            Fault::NotNull => b"23502",
            Fault::Duplicate(_) => b"23505",
            Fault::ReadOnly(_) => b"25006",
            Fault::Aborted => b"25P02",
            Fault::Recovering(_) | Fault::NotRecovering(_) => b"55000",
            Fault::NoSetting(_) => b"42704",
            Fault::NoStatement(_) => b"26000",
            Fault::NoPortal(_) => b"34000",
            Fault::Protocol(_) => b"08P01",
            Fault::Full(_) => b"53100",
            Fault::TooMany => b"53200",
            Fault::NotSystem | Fault::NotGranted(_) => b"42501",
            Fault::NotServed => b"57P01",
            Fault::Refused(Refusal::NoCluster(_) | Refusal::NoStream | Refusal::NoJob(_)) => b"42704",
            Fault::Refused(Refusal::BadTime(_) | Refusal::BadField(_)) => b"22023",
            Fault::Refused(_) => b"55000",
        })
    }
}
