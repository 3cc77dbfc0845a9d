//! A data folder made once by initdb and copied for every server: roles, grants and tables are in it.

use super::binaries::{as_account, hand_over, postgres, run};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every role's password is its name.
const ROLES: &str = "
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator';
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE ROLE pgpivot LOGIN REPLICATION PASSWORD 'pgpivot';
GRANT pg_read_all_stats, pg_signal_backend TO pgpivot;
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf(), pg_control_system(), pg_control_checkpoint() TO pgpivot;
GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only, synchronous_standby_names TO pgpivot;
CREATE DATABASE app OWNER app;
";
const TABLES: &str = "
CREATE TABLE ledger (id bigint PRIMARY KEY, writer int NOT NULL, sent_us bigint NOT NULL, server int NOT NULL);
ALTER TABLE ledger OWNER TO app;
";
const ACCESS: &str = "
local all all trust
host all,replication all all scram-sha-256
";
const SETTINGS: &str = "
fsync = off
shared_buffers = 16MB
max_connections = 100
max_wal_senders = 10
max_replication_slots = 10
min_wal_size = 32MB
wal_log_hints = on
wal_keep_size = 256MB
hot_standby = on
wal_receiver_timeout = 3s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
dynamic_shared_memory_type = mmap
autovacuum = off
log_connections = on
log_disconnections = on
log_line_prefix = '%m [%p] %q%u@%d %a '
timezone = UTC
";

/// Copies the template to `data`, which must not exist; makes the template first where there is none.
pub fn copy_to(data: &Path) {
    let template = template();
    run(as_account(Path::new("/bin/cp")).arg("-a").arg(&template).arg(data));
}

/// A data folder of another system identifier than all copies of the template.
pub fn make_stranger(data: &Path) {
    build(data);
}

fn template() -> PathBuf {
    let version = run(Command::new(postgres("postgres")).arg("--version")).stdout;
    let mut recipe = DefaultHasher::new();
    (version, ROLES, TABLES, ACCESS, SETTINGS).hash(&mut recipe);
    let user = rustix::process::geteuid().as_raw();
    let home = std::env::temp_dir().join(format!("pgpivot-it-template-{user}-{:016x}", recipe.finish()));
    let lock = File::create(home.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let data = home.join("data");
    if !data.exists() {
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        hand_over(&home);
        let unfinished = home.join("unfinished");
        build(&unfinished);
        fs::rename(unfinished, &data).unwrap();
    }
    data
}

fn build(data: &Path) {
    let mut initdb = as_account(&postgres("initdb"));
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"]);
    run(initdb.arg(data));
    append(&data.join("postgresql.conf"), SETTINGS);
    fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
    feed(data, "postgres", ROLES);
    feed(data, "app", TABLES);
}

/// Appends text to a file that belongs to the servers' account.
pub fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Runs statements, one a line, on a server that is not started.
fn feed(data: &Path, database: &str, statements: &str) {
    let mut command = as_account(&postgres("postgres"));
    command.args(["--single", "-D"]).arg(data).arg(database);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("ERROR"), "single-user statements failed: {said}");
}
