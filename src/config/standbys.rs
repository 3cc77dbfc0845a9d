//! What is done with the standbys that a failover leaves behind.

/// `survivors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Survivors {
    /// Point them at the new primary.
    Repoint,
    /// Say what to type.
    Report,
}
