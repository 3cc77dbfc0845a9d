//! Who logs in. The password never prints.

use super::error::SettingsError;
use crate::types::Secret;

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password; `None` where a certificate, a password file or trust must do.
    pub password: Option<Secret>,
}

impl Credentials {
    /// This user with this password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Some(Secret::new(password.into())) }
    }

    /// From `DB_USERNAME` (or `DB_USER`) and `DB_PASSWORD`; an error when there is no user.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_variables(|name| std::env::var(name).ok())?.ok_or(SettingsError::NoUser)
    }

    /// `None` = no user is set: a password alone is not the application's. Empty values count as none.
    pub(super) fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, SettingsError> {
        let read = |name: &str| read(name).filter(|value| !value.is_empty());
        let user = match (read("DB_USERNAME"), read("DB_USER")) {
            (Some(one), Some(other)) if one != other => return Err(SettingsError::TwoUsers),
            (one, other) => one.or(other),
        };
        let password = read("DB_PASSWORD").map(Secret::new);
        Ok(user.map(|user| Self { user, password }))
    }
}
