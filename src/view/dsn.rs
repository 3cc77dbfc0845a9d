//! Connection strings: where to connect and as whom, as a URI, for JDBC and for a shell. Pure; whom to hand a password
//! to is the caller's decision.

use super::sides::{COCKROACH, Cluster};
use crate::types::{HostPort, Secret};

/// Where to connect and as whom. `Debug` hides the password; the strings show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dsn {
    /// In the order in which a driver shall try them.
    pub hosts: Vec<HostPort>,
    /// Who logs in; `None` = the driver's default.
    pub user: Option<String>,
    /// With which password; of no use without a user.
    pub password: Option<Secret>,
    /// Which database; `None` = the driver's default.
    pub database: Option<String>,
    /// libpq's `sslmode`; `None` = the driver's default.
    pub sslmode: Option<String>,
    /// The file with the CA to trust.
    pub sslrootcert: Option<String>,
    /// Which of several hosts.
    pub session: Session,
}

/// Which side a driver shall look for among several hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Session {
    /// The first one that answers.
    #[default]
    Any,
    /// One that takes writes.
    Writes,
    /// A standby, if there is one.
    Reads,
}

/// Why there is no connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// No side is active.
    #[error("no side is active, so there is nothing to connect to")]
    NobodyActive,
    /// A side has no address yet.
    #[error("no host is known for {0} yet; configure its addresses")]
    NoHost(String),
    /// One string can name one CA only.
    #[error(
        "the sides have certificates of different CAs ({first}, {second}), and a connection string names one file; \
         put both into one file and name that"
    )]
    SeveralCas {
        /// Of one side.
        first: String,
        /// Of another.
        second: String,
    },
}

impl Dsn {
    /// To one side.
    pub fn to(side: &Cluster) -> Result<Self, DsnError> {
        if side.dns.is_empty() {
            return Err(DsnError::NoHost(side.id().to_owned()));
        }
        Ok(Self {
            hosts: side.dns.clone(),
            database: Some(default_database(&side.kind).to_owned()),
            sslmode: Some(side.sslmode.clone()),
            sslrootcert: checked(&side.sslmode).then(|| side.sslrootcert.clone()).flatten(),
            ..Self::default()
        })
    }

    /// To the sides of one service: the active one first, then those that are [fit](Cluster::fit), or with `all` every
    /// other one too. The strictest `sslmode` of them counts. `sslrootcert` is the file to trust instead of the sides'.
    ///
    /// A list of hosts cannot fence: a driver connects to whichever answers, and that may be an old primary.
    pub fn multi_host(sides: &[Cluster], all: bool, sslrootcert: Option<&str>) -> Result<Self, DsnError> {
        let mut chosen: Vec<&Cluster> = sides.iter().filter(|side| side.fit || all).collect();
        chosen.sort_by_key(|side| !side.active);
        let first = *chosen.first().filter(|side| side.active).ok_or(DsnError::NobodyActive)?;
        let mut dsn = Self::to(first)?;
        for side in chosen.iter().skip(1) {
            let new = side.dns.iter().filter(|host| !dsn.hosts.contains(host)).cloned().collect::<Vec<_>>();
            dsn.hosts.extend(new);
        }
        let strictest = chosen.iter().map(|side| side.sslmode.as_str()).max_by_key(|mode| strictness(mode));
        dsn.sslmode = strictest.map(str::to_owned);
        dsn.sslrootcert = match sslrootcert {
            Some(file) => Some(file.to_owned()),
            None if strictest.is_some_and(checked) => one_ca(&chosen)?,
            None => None,
        };
        if dsn.hosts.len() > 1 && first.kind != COCKROACH {
            dsn.session = Session::Writes;
        }
        Ok(dsn)
    }

    /// `postgresql://…`, for libpq and most drivers.
    pub fn to_uri(&self) -> String {
        let login = match (&self.user, &self.password) {
            (Some(user), Some(password)) => format!("{}:{}@", percent(user), percent(password.expose())),
            (Some(user), None) => format!("{}@", percent(user)),
            (None, _) => String::new(),
        };
        let session = match self.session {
            _ if self.hosts.len() < 2 => None,
            Session::Any => None,
            Session::Writes => Some("read-write"),
            Session::Reads => Some("prefer-standby"),
        };
        let more = query([
            ("sslmode", self.sslmode.as_deref()),
            ("sslrootcert", self.sslrootcert.as_deref()),
            ("target_session_attrs", session),
        ]);
        format!("postgresql://{login}{}/{}{more}", self.host_list(), self.path())
    }

    /// `jdbc:postgresql://…`.
    pub fn to_jdbc(&self) -> String {
        let session = match self.session {
            _ if self.hosts.len() < 2 => None,
            Session::Any => None,
            Session::Writes => Some("primary"),
            Session::Reads => Some("preferSecondary"),
        };
        let password = self.user.as_ref().and(self.password.as_ref()).map(Secret::expose);
        let more = query([
            ("user", self.user.as_deref()),
            ("password", password),
            ("sslmode", self.sslmode.as_deref()),
            ("sslrootcert", self.sslrootcert.as_deref()),
            ("targetServerType", session),
        ]);
        format!("jdbc:postgresql://{}/{}{more}", self.host_list(), self.path())
    }

    /// `export PGHOST=…` lines for a POSIX shell, to be evaluated there.
    pub fn to_env(&self) -> String {
        let join = |part: fn(&HostPort) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        let session = match self.session {
            _ if self.hosts.len() < 2 => None,
            Session::Any => None,
            Session::Writes => Some("read-write"),
            Session::Reads => Some("prefer-standby"),
        };
        let own = |text: Option<&str>| text.map(str::to_owned);
        let lines = [
            ("PGHOST", Some(join(|h| h.host.to_string()))),
            ("PGPORT", Some(join(|h| h.port.to_string()))),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", own(self.user.as_ref().and(self.password.as_ref()).map(Secret::expose))),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", self.sslmode.clone()),
            ("PGSSLROOTCERT", self.sslrootcert.clone()),
            ("PGTARGETSESSIONATTRS", own(session)),
        ];
        let line = |(key, value): &(&str, Option<String>)| Some(format!("export {key}={}", quoted(value.as_ref()?)));
        lines.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    fn host_list(&self) -> String {
        self.hosts.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
    }

    fn path(&self) -> String {
        self.database.as_deref().map(percent).unwrap_or_default()
    }
}

/// The database of who names none.
pub fn default_database(kind: &str) -> &'static str {
    if kind == COCKROACH { "defaultdb" } else { "postgres" }
}

/// Everything but the unreserved characters of RFC 3986.
pub fn percent(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

fn query<const N: usize>(parameters: [(&str, Option<&str>); N]) -> String {
    let told = parameters.iter().filter_map(|(key, value)| Some(format!("{key}={}", percent((*value)?))));
    let told = told.collect::<Vec<_>>().join("&");
    if told.is_empty() { told } else { format!("?{told}") }
}

/// Does this mode look at certificates?
fn checked(sslmode: &str) -> bool {
    sslmode.starts_with("verify")
}

fn strictness(sslmode: &str) -> usize {
    ["disable", "allow", "prefer", "require", "verify-ca"].iter().position(|m| *m == sslmode).unwrap_or(5)
}

fn one_ca(sides: &[&Cluster]) -> Result<Option<String>, DsnError> {
    let mut files = sides.iter().map(|side| side.sslrootcert.as_deref());
    let first = files.next().flatten();
    let shown = |file: Option<&str>| file.unwrap_or("the system's").to_owned();
    match files.find(|file| *file != first) {
        None => Ok(first.map(str::to_owned)),
        Some(second) => Err(DsnError::SeveralCas { first: shown(first), second: shown(second) }),
    }
}

/// For a shell; bare where nothing needs a quote.
fn quoted(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "._-:,/@".contains(c);
    match !value.is_empty() && value.chars().all(bare) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}
