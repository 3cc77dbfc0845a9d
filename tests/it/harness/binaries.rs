//! Where the programs are that the tests start, and as whom they run. A missing one fails the test by the name of the
//! package that brings it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A PostgreSQL program of the newest installed version.
pub fn postgres(program: &str) -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").map(|dir| dir.flatten().collect::<Vec<_>>());
        let mut found: Vec<(u32, PathBuf)> = versions
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .filter(|(_, bin)| bin.join("postgres").exists())
            .collect();
        found.sort();
        let newest =
            found.pop().unwrap_or_else(|| panic!("no /usr/lib/postgresql/*/bin/postgres: install postgresql-15"));
        newest.1
    });
    existing(&bin.join(program), "postgresql-15")
}

/// This program, or a panic that names its package.
pub fn existing(path: &Path, package: &str) -> PathBuf {
    assert!(path.exists(), "no {}: install {package}", path.display());
    path.to_owned()
}

/// Who owns the servers: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// Of the user.
    pub uid: u32,
    /// Of its group.
    pub gid: u32,
}

/// `postgres` when the tests run as root, else nobody in particular.
pub fn account() -> Option<Account> {
    static ACCOUNT: OnceLock<Option<Account>> = OnceLock::new();
    *ACCOUNT.get_or_init(|| {
        rustix::process::geteuid().is_root().then(|| {
            let users = std::fs::read_to_string("/etc/passwd").unwrap();
            let line = users.lines().find(|line| line.starts_with("postgres:"));
            let line = line.expect("no user `postgres`: install postgresql-15");
            let field = |n: usize| line.split(':').nth(n).unwrap().parse().unwrap();
            Account { uid: field(2), gid: field(3) }
        })
    })
}

/// A command that runs as the servers' account, from a folder it may enter, in English, told nothing by our environment.
pub fn as_account(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some(account) = account() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Gives a folder to the servers' account.
pub fn hand_over(path: &Path) {
    if let Some(account) = account() {
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
}

/// Runs a command to its end; a failure panics with all that it said.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
