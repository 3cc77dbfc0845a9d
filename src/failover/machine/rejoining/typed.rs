//! What an operator types where no command is configured. Never a password: those come from `~/.pgpass`.

use super::Machine;
use crate::failover::phase::{Latch, Method};
use crate::types::BackendName;

/// How a line begins that is to be typed as it stands.
const PROMPT: &str = "$ ";

impl Machine {
    /// The lines, in order.
    pub(super) fn typed(&self, backend: &BackendName, latch: &Latch, method: Method) -> Vec<String> {
        let address = |name: &BackendName| self.side(name).and_then(|side| side.config.addresses.first());
        let (host, port) = address(&latch.active)
            .map_or_else(|| ("HOST".to_owned(), "5432".to_owned()), |a| (a.host.to_string(), a.port.to_string()));
        let shown = self.rejoining.survey.as_ref().and_then(|(_, _, survey)| survey.side.as_ref().ok()?.data.clone());
        let data = shown.map_or_else(|| "\"$PGDATA\"".to_owned(), |data| shell(&data));
        let stream = format!("host={host} port={port} user=replicator application_name={backend}");
        let stop = |how: &str| format!("pg_ctl -D {data} -m {how} -w stop");
        let start = format!("pg_ctl -D {data} -w start");
        let lines = match method {
            Method::Follow => vec![
                // A clean stop would write a checkpoint that the new line does not have.
                stop("immediate"),
                format!("touch {data}/standby.signal"),
                format!("echo {} >> {data}/postgresql.auto.conf", shell(&format!("primary_conninfo = '{stream}'"))),
                start,
            ],
            Method::Rewind => vec![
                // Until its first checkpoint a promoted server shows pg_rewind its old timeline.
                format!("psql -h {host} -p {port} -U postgres -c CHECKPOINT"),
                stop("fast"),
                format!(
                    "pg_rewind --target-pgdata={data} --source-server={} --write-recovery-conf --progress",
                    shell(&format!("host={host} port={port} user=postgres dbname=postgres"))
                ),
                start,
            ],
            Method::BaseBackup => vec![
                stop("immediate"),
                format!("mv {data} {data}.old"),
                format!(
                    "pg_basebackup -D {data} -d {} --write-recovery-conf --checkpoint=fast --progress",
                    shell(&stream)
                ),
                start,
            ],
        };
        let mut steps: Vec<String> = lines.into_iter().map(|line| format!("{PROMPT}{line}")).collect();
        steps.push("user names are examples; passwords belong in ~/.pgpass of the server's account".into());
        steps.push(format!("once {backend} streams from {}, its quarantine is lifted by itself", latch.active));
        steps
    }
}

/// One word for a shell.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
