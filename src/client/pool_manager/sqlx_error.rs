//! What an error of sqlx means here, by its kind and the server's code, never by its text.

use super::QueryIntent;
use super::retry::Failure;

/// What failed.
pub(super) fn failure(error: &sqlx::Error, intent: QueryIntent) -> Failure {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => Failure::Lost,
        sqlx::Error::PoolTimedOut => Failure::Exhausted,
        sqlx::Error::PoolClosed => Failure::Closed,
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => Failure::of_code(&code, intent),
            None => Failure::Theirs,
        },
        _ => Failure::Theirs,
    }
}

/// For the log: the server's code and words, or the kind. Neither holds a URL or a password.
pub(super) fn brief(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Database(error) => error.to_string(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Configuration(_) => "the settings of the connection do not fit".to_owned(),
        other => other.to_string(),
    }
}
