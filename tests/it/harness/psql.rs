//! The programs that people type: psql and pgbench, through the proxy.

use super::binaries::postgres;
use super::daemon::Spoken;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A program of PostgreSQL that connects as `app` to this address.
#[derive(Debug)]
pub struct Psql {
    to: SocketAddr,
    sslmode: &'static str,
    more: Vec<(&'static str, String)>,
}

impl Psql {
    /// Plain text, unless the server wants otherwise.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, sslmode: "prefer", more: Vec::new() }
    }

    /// TLS or nothing.
    pub fn over_tls(to: SocketAddr) -> Self {
        Self { to, sslmode: "require", more: Vec::new() }
    }

    /// Never TLS.
    pub fn in_clear(to: SocketAddr) -> Self {
        Self { to, sslmode: "disable", more: Vec::new() }
    }

    /// TLS with whom this certificate is, or is signed by, and `localhost` in it.
    pub fn verifying(to: SocketAddr, root: &Path) -> Self {
        let more = vec![
            ("PGHOST", "localhost".to_owned()),
            ("PGHOSTADDR", to.ip().to_string()),
            ("PGSSLROOTCERT", root.display().to_string()),
        ];
        Self { to, sslmode: "verify-full", more }
    }

    /// `disable`, `prefer` or `require`.
    pub fn channel_binding(mut self, word: &str) -> Self {
        self.more.push(("PGCHANNELBINDING", word.to_owned()));
        self
    }

    /// To another user and database, without a password.
    pub fn of_user(mut self, user: &str, database: &str) -> Self {
        self.more.extend([("PGUSER", user.to_owned()), ("PGDATABASE", database.to_owned())]);
        self
    }

    /// The program in its surroundings.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(postgres(program));
        command.env_clear().env("PGHOST", self.to.ip().to_string()).env("PGPORT", self.to.port().to_string());
        command.envs([("PGUSER", "app"), ("PGPASSWORD", "app"), ("PGDATABASE", "app"), ("PGSSLMODE", self.sslmode)]);
        command.envs([("LC_ALL", "C.UTF-8"), ("HOME", "/nonexistent"), ("PGCONNECT_TIMEOUT", "40")]);
        command.envs(self.more.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts `psql -c`.
    pub fn begin(&self, sql: &str) -> Child {
        self.command("psql").args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql]).spawn().unwrap()
    }

    /// Runs `psql -c` to its end.
    pub async fn say(&self, sql: &str) -> Spoken {
        heard(self.begin(sql)).await
    }

    /// As [`Psql::say`], to a connection string.
    pub async fn say_to(&self, url: &str, sql: &str) -> Spoken {
        heard(self.command("psql").args(["--no-psqlrc", "-qAt", "-c", sql, url]).spawn().unwrap()).await
    }

    /// Runs `psql -c` with this text on standard input, to its good end.
    pub async fn feed(&self, sql: &str, input: &str) {
        let mut command = self.command("psql");
        command.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let spoken = heard(child).await;
        assert_eq!(spoken.code, Some(0), "{sql}: {spoken:#?}");
    }

    /// The answer to a statement that must be carried out.
    pub async fn ask(&self, sql: &str) -> String {
        let spoken = self.say(sql).await;
        assert_eq!(spoken.code, Some(0), "{sql}: {spoken:#?}");
        spoken.out.trim().to_owned()
    }

    /// Runs pgbench, which must end well.
    pub async fn pgbench(&self, args: &[&str]) -> Spoken {
        let spoken = heard(self.command("pgbench").args(args).spawn().unwrap()).await;
        assert_eq!(spoken.code, Some(0), "pgbench {args:?}: {spoken:#?}");
        spoken
    }
}

/// Waits for the end of a program and hands out what it said.
pub async fn heard(child: Child) -> Spoken {
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output.expect("the program does not end").unwrap();
    Spoken {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        talk: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
