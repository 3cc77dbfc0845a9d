//! Cluster settings: from a name and a value to the one statement that sets it. Pure; running it is `sql`'s. Nothing but a checked name and a quoted value ever reaches the statement.

use std::time::Duration;

/// The shortest `server.time_until_store_dead` that CockroachDB takes: a minute of gossip and 15 s.
const STORE_DEAD_LEAST: Duration = Duration::from_secs(75);
const STORE_DEAD: &str = "server.time_until_store_dead";
/// Longer than any setting's name or value.
const LONGEST: usize = 1000;

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not a name.
    #[error("{0:?} is no name of a cluster setting; write a-z, 0-9, _ and dots, as in server.time_until_store_dead")]
    Name(String),
    /// Not a value.
    #[error("the value has a zero byte or is longer than {LONGEST} characters")]
    Value,
    /// Neither or both.
    #[error("write either --value VALUE or --reset")]
    ValueOrReset,
    /// The cluster would take its own nodes for dead.
    #[error(
        "{STORE_DEAD} cannot be shorter than 1m15s: nodes tell that they live once a minute, and a shorter limit takes \
         living ones for dead; nothing was done"
    )]
    TooShort,
    /// Not a duration.
    #[error("{STORE_DEAD} is a duration; write for example 15m0s")]
    NoDuration,
    /// There is no place to run it.
    #[error("--execute needs a login: set PRIMARY_CLUSTER_ENDPOINT to postgresql://user:password@host:26257/defaultdb")]
    NoEndpoint,
}

impl SettingError {
    /// The call made no sense, as opposed to refused.
    pub fn is_misuse(&self) -> bool {
        !matches!(self, Self::TooShort)
    }
}

/// The statement; without a value the setting goes back to its default.
pub fn statement(name: &str, value: Option<&str>) -> Result<String, SettingError> {
    let part = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if name.len() > LONGEST || !name.split('.').all(part) {
        return Err(SettingError::Name(name.chars().take(80).collect()));
    }
    let Some(value) = value else {
        return Ok(format!("RESET CLUSTER SETTING {name};"));
    };
    if value.contains('\0') || value.chars().count() > LONGEST {
        return Err(SettingError::Value);
    }
    if name == STORE_DEAD {
        match humantime::parse_duration(value) {
            Ok(duration) if duration >= STORE_DEAD_LEAST => {}
            Ok(_) => return Err(SettingError::TooShort),
            Err(_) => return Err(SettingError::NoDuration),
        }
    }
    // A standard string: only the quote itself is special.
    Ok(format!("SET CLUSTER SETTING {name} = '{}';", value.replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_becomes_the_statement_of_the_manual() {
        assert_eq!(
            statement("server.time_until_store_dead", Some("15m0s")).unwrap(),
            "SET CLUSTER SETTING server.time_until_store_dead = '15m0s';"
        );
        assert_eq!(statement("kv.rangefeed.enabled", None).unwrap(), "RESET CLUSTER SETTING kv.rangefeed.enabled;");
    }

    #[test]
    fn nothing_but_a_name_and_a_quoted_value_reaches_the_statement() {
        for name in ["", "a b", "a;b", "A.b", "a..b", ".a", "a.", "a-b", "a'b", "1a", "a\n"] {
            assert!(matches!(statement(name, Some("1")), Err(SettingError::Name(_))), "{name:?}");
        }
        assert_eq!(
            statement("a.b", Some("x'; DROP TABLE t; --")).unwrap(),
            "SET CLUSTER SETTING a.b = 'x''; DROP TABLE t; --';"
        );
        assert_eq!(statement("a.b", Some("x\0y")), Err(SettingError::Value));
    }

    #[test]
    fn a_store_is_not_called_dead_before_it_could_tell_that_it_lives() {
        for value in ["1m14s", "0s", "30s"] {
            assert_eq!(statement(STORE_DEAD, Some(value)), Err(SettingError::TooShort), "{value}");
        }
        assert!(statement(STORE_DEAD, Some("1m15s")).is_ok());
        assert_eq!(statement(STORE_DEAD, Some("soon")), Err(SettingError::NoDuration));
        assert!(SettingError::TooShort.to_string().contains("1m15s"));
    }
}
