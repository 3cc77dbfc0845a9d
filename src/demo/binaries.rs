//! Finds PostgreSQL's binaries and the account that may run them. Starts nothing but `pg_config`, `id` and
//! `postgres --version`.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// What a pair needs.
const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
/// `wal_keep_size` and a reloadable `primary_conninfo` came with it.
const OLDEST: u32 = 13;
/// For one of the small questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// PostgreSQL's programs in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// The major version, 13 or newer.
    pub major: u32,
}

/// Who runs the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Whoever runs this process.
    Own,
    /// `postgres`, because PostgreSQL refuses root.
    Postgres {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Binaries {
    /// The newest that is installed in the usual places or on the `PATH`.
    pub async fn find() -> Option<Self> {
        let mut folders = debian(Path::new("/usr/lib/postgresql"));
        folders.extend(configured().await);
        folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
        folders.extend(["/usr/local/pgsql/bin", "/usr/pgsql/bin", "/usr/local/bin"].map(PathBuf::from));
        let mut best: Option<Self> = None;
        let mut seen: Vec<PathBuf> = Vec::new();
        for folder in folders {
            if seen.contains(&folder) || !NEEDED.iter().all(|name| is_program(&folder.join(name))) {
                continue;
            }
            let major = major(&folder).await.filter(|m| *m >= OLDEST);
            if let Some(major) = major.filter(|m| best.as_ref().is_none_or(|b| b.major < *m)) {
                best = Some(Self { folder: folder.clone(), major });
            }
            seen.push(folder);
        }
        best
    }

    /// One of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Account {
    /// Ours, or `postgres` for root; `None` when root finds no such user.
    pub async fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return Some(Self::Own);
        }
        let id =
            |flag: &'static str| async move { said(OsStr::new("id"), &[flag, "postgres"]).await?.trim().parse().ok() };
        Some(Self::Postgres { uid: id("-u").await?, gid: id("-g").await? })
    }

    /// Makes a command run as it.
    pub fn apply(self, command: &mut Command) {
        if let Self::Postgres { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives it a file or folder.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Postgres { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }
}

/// `/usr/lib/postgresql/*/bin`.
fn debian(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    entries.filter_map(|e| Some(e.ok()?.path().join("bin"))).collect()
}

async fn configured() -> Option<PathBuf> {
    Some(PathBuf::from(said(OsStr::new("pg_config"), &["--bindir"]).await?.trim()))
}

async fn major(folder: &Path) -> Option<u32> {
    version(&said(folder.join("postgres").as_os_str(), &["--version"]).await?)
}

/// `postgres (PostgreSQL) 15.20 (Debian …)` → 15; `17beta1` → 17.
fn version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What a program prints; `None` when it is not there, fails, or does not end.
async fn said(program: &OsStr, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_postgres_prints_it() {
        assert_eq!(version("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(15));
        assert_eq!(version("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(version("pg_ctl\n"), None);
    }
}
