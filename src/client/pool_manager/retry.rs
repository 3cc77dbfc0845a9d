//! What may be sent a second time: a write never once a byte of it was sent; a read once, outside a transaction. Pure.

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryIntent {
    /// It reads: a replica will do.
    Read,
    /// It writes: only the primary will do.
    Write,
}

/// What went wrong, as far as that decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Every connection of the pool is taken.
    Exhausted,
    /// The pool was closed.
    Closed,
    /// The server cannot be reached, or the connection was lost.
    Lost,
    /// The server starts, stops, or ended the connection (57P01, 57P02, 57P03, 08xxx).
    NotServing,
    /// A replica had to end the read so that replay goes on (40001, 40P01).
    Conflict,
    /// A write met a server that takes none (25006).
    ReadOnly,
    /// It took longer than the application allows.
    TooSlow,
    /// Anything else is the statement's, the login's or the application's.
    Theirs,
}

impl Failure {
    /// By the SQLSTATE that the server sent.
    pub(super) fn of_code(code: &str, intent: QueryIntent) -> Self {
        match code {
            "57P01" | "57P02" | "57P03" => Self::NotServing,
            "25006" => Self::ReadOnly,
            "40001" | "40P01" if intent == QueryIntent::Read => Self::Conflict,
            _ if code.starts_with("08") => Self::NotServing,
            _ => Self::Theirs,
        }
    }

    /// Does it say that something is wrong with the server?
    pub(super) fn blames_server(self) -> bool {
        matches!(self, Self::Lost | Self::NotServing)
    }
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) intent: QueryIntent,
    /// A byte of it may have reached a server.
    pub(super) sent: bool,
    /// The application has a part of the answer.
    pub(super) answered: bool,
    /// How often it was sent again.
    pub(super) again: u32,
    /// Saying it twice is the same as saying it once: [`repeatable`].
    pub(super) repeatable: bool,
}

/// May it be sent (again)?
pub(super) fn once_more(tried: &Tried, failure: Failure) -> bool {
    if !tried.sent {
        return matches!(failure, Failure::Lost | Failure::NotServing);
    }
    tried.intent == QueryIntent::Read
        && tried.repeatable
        && !tried.answered
        && tried.again == 0
        && matches!(failure, Failure::Lost | Failure::NotServing | Failure::Conflict)
}

/// One statement that reads, by its first word and by standing alone: not what begins a transaction, nor several.
pub(super) fn repeatable(sql: &str) -> bool {
    let alone = !sql.trim_end().trim_end_matches(';').contains(';');
    alone && ["select", "values", "table", "show", "with"].contains(&first_word(sql).as_str())
}

/// Does it steer a transaction? On a connection that goes back to the pool that would be somebody else's.
pub(super) fn steers_transaction(sql: &str) -> bool {
    ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"].contains(&first_word(sql).as_str())
}

/// In lower case, past blanks and comments.
fn first_word(sql: &str) -> String {
    let mut rest = sql.trim_start();
    loop {
        let after = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(line), _) => line.split_once('\n').map(|(_, after)| after),
            (_, Some(block)) => block.split_once("*/").map(|(_, after)| after),
            _ => break,
        };
        rest = after.unwrap_or_default().trim_start();
    }
    rest.trim_start_matches('(').chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueryIntent::{Read, Write};

    fn tried(intent: QueryIntent, sent: bool) -> Tried {
        Tried { intent, sent, answered: false, again: 0, repeatable: true }
    }

    const ALL: [Failure; 8] = [
        Failure::Exhausted,
        Failure::Closed,
        Failure::Lost,
        Failure::NotServing,
        Failure::Conflict,
        Failure::ReadOnly,
        Failure::TooSlow,
        Failure::Theirs,
    ];

    #[test]
    fn a_write_is_never_sent_again_whatever_went_wrong() {
        assert!(ALL.iter().all(|&failure| !once_more(&tried(Write, true), failure)));
    }

    #[test]
    fn a_write_of_which_nothing_was_sent_may_go_to_a_server_that_can_be_reached() {
        let may: Vec<_> = ALL.into_iter().filter(|&failure| once_more(&tried(Write, false), failure)).collect();
        assert_eq!(may, [Failure::Lost, Failure::NotServing]);
    }

    #[test]
    fn a_read_is_sent_again_once_when_the_server_let_it_down() {
        let may: Vec<_> = ALL.into_iter().filter(|&failure| once_more(&tried(Read, true), failure)).collect();
        assert_eq!(may, [Failure::Lost, Failure::NotServing, Failure::Conflict]);
        assert!(!once_more(&Tried { again: 1, ..tried(Read, true) }, Failure::Lost), "once");
        assert!(!once_more(&Tried { answered: true, ..tried(Read, true) }, Failure::Lost), "rows would come twice");
        assert!(!once_more(&Tried { repeatable: false, ..tried(Read, true) }, Failure::Lost));
    }

    #[test]
    fn what_begins_a_transaction_or_is_more_than_one_statement_is_not_repeatable() {
        for sql in ["SELECT 1", " select 1; ", "/* a */ -- b\n WITH x AS (SELECT 1) TABLE x", "(VALUES (1))", "SHOW x"]
        {
            assert!(repeatable(sql), "{sql}");
        }
        for sql in ["BEGIN; SELECT 1", "SELECT 1; SELECT 2", "INSERT INTO t VALUES (1)", "-- select", "", "CALL p()"] {
            assert!(!repeatable(sql), "{sql}");
        }
        assert!(steers_transaction("  Begin isolation level serializable") && steers_transaction("/**/commit"));
        assert!(!steers_transaction("SELECT 1") && !steers_transaction("starting"));
    }

    #[test]
    fn the_servers_code_tells_whose_fault_it_is() {
        let of = |code| Failure::of_code(code, Read);
        assert_eq!(["57P01", "57P03", "08006"].map(of), [Failure::NotServing; 3]);
        assert_eq!(of("40001"), Failure::Conflict);
        assert_eq!(Failure::of_code("40001", Write), Failure::Theirs, "a serialization failure is the application's");
        assert_eq!((of("25006"), of("23505"), of("28P01")), (Failure::ReadOnly, Failure::Theirs, Failure::Theirs));
        let blamed: Vec<_> = ALL.into_iter().filter(|failure| failure.blames_server()).collect();
        assert_eq!(blamed, [Failure::Lost, Failure::NotServing], "a slow statement may be the statement's fault");
    }
}
