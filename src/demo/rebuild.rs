//! The script that makes a side a standby of the other one, and what it has in common with the first start. Runs nothing.

use std::path::Path;

use super::binaries::{Account, Binaries};
use super::postgres::Server;

/// The role of the standbys.
const REPLICATION_ROLE: &str = "replicator";

/// What differs between the two; everything else is copied with the data.
pub(super) fn arguments(server: &Server) -> [String; 4] {
    ["-p".into(), server.address.port().to_string(), "-c".into(), format!("cluster_name={}", server.name)]
}

pub(super) fn basebackup(source: &Server) -> [String; 9] {
    let port = source.address.port().to_string();
    ["-h", "127.0.0.1", "-p", &port, "-U", REPLICATION_ROLE, "--checkpoint=fast", "--no-sync", "-R"].map(str::to_owned)
}

/// The text of the script.
pub(super) fn script(binaries: &Binaries, account: Account, server: &Server, source: &Server) -> String {
    let user = match account {
        Account::Own => "",
        Account::Postgres { .. } => "runuser -u postgres -- ",
    };
    let bin = quoted(&binaries.folder);
    let (data, log) = (quoted(&server.data), quoted(&server.log));
    let quick = format!("{user}{bin}/pg_ctl -D {data}");
    format!(
        "#!/bin/sh\n\
         # Stops {name} if it runs, and makes it a standby that streams from {source}.\n\
         set -eu\n\
         cd \"$(dirname \"$0\")\"\n\
         if [ -f {signal} ] || ! {source_ctl} status >/dev/null; then\n    \
         echo '{source} is no running primary: there is nobody to copy from' >&2\n    exit 1\n\
         fi\n\
         {quick} status >/dev/null && {quick} -m immediate -t 20 stop\n\
         rm -rf -- {data}\n\
         {user}{bin}/pg_basebackup {copy} -D {data}\n\
         {quick} -l {log} -t 30 -o {options} start\n",
        name = server.name,
        source = source.name,
        signal = quoted(&source.data.join("standby.signal")),
        source_ctl = format_args!("{user}{bin}/pg_ctl -D {}", quoted(&source.data)),
        copy = basebackup(source).join(" "),
        options = shell(&arguments(server).join(" ")),
    )
}

fn quoted(path: &Path) -> String {
    shell(&path.to_string_lossy())
}

fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
