//! The environment's names for the reference: which key each sets, and what it says.

/// One variable.
pub(super) struct Variable {
    pub(super) name: &'static str,
    /// Paths of keys as in `tables`; empty where it is no key's other name.
    pub(super) sets: &'static [&'static str],
    pub(super) meaning: &'static str,
}

const fn variable(name: &'static str, sets: &'static [&'static str], meaning: &'static str) -> Variable {
    Variable { name, sets, meaning }
}

/// In the order of [`crate::config::env::NAMES`].
#[rustfmt::skip]
pub(super) const VARIABLES: &[Variable] = &[
    variable("DATABASE_URL", &["backend.addresses", "probe.user", "probe.database", "probe.tls.mode", "probe.tls.ca_file"], "the primary, and the login that checks all servers, as a URL; its `sslmode` and `sslrootcert` count, too. Servers are taken from the environment only where the file names none"),
    variable("DATABASE_REPLICA_URL", &["backend.addresses"], "a standby, with the same login"),
    variable("DB_HOST", &["backend.addresses"], "the primary's host"),
    variable("DB_PORT", &[], "its port, 1 to 65535; default 5432"),
    variable("DB_NAME", &["probe.database"], "the database that is logged in to"),
    variable("DB_USER", &["probe.user"], "who logs in"),
    variable("DB_USERNAME", &["probe.user"], "another name for `DB_USER`; with `DB_PASSWORD` also what `GET /connection` fills in for a caller with a token or on the unix socket"),
    variable("DB_PASSWORD", &[], "the password for it, instead of `probe.password_file`"),
    variable("DB_SSL", &[], "`true`: encrypt, as `probe.tls.mode = \"require\"`; `false`: do not. What the file demands is never weakened"),
    variable("PGPIVOT_STANDBYS", &["backend.addresses"], "any number of standbys, `host:port` each, with commas between"),
    variable("PGPIVOT_PASSWORD", &[], "the password of pgpivot's own login; wins over `DB_PASSWORD` and `probe.password_file`"),
    variable("PGPIVOT_PATRONI_PASSWORD", &[], "instead of `patroni.password_file`"),
    variable("FAILOVER_HEALTH_CHECK_INTERVAL", &["probe.interval"], "in milliseconds, or a time with its unit"),
    variable("HEALTH_CHECK_INTERVAL", &["probe.interval"], "in seconds, or a time with its unit"),
    variable("HEALTH_CHECK_TIMEOUT", &["probe.timeout", "cockroach_cloud.timeout"], "in seconds, or a time with its unit"),
    variable("FAILURE_THRESHOLD", &["probe.fall"], "a number"),
    variable("FAILOVER_DELAY", &["failover.delay"], "in seconds, or a time with its unit"),
    variable("ENABLE_PROMETHEUS", &[], "`true`: metrics on an address of their own, too; `false`: only on `admin.listen`"),
    variable("PROMETHEUS_PORT", &["admin.metrics_listen"], "its port on 127.0.0.1; default 8000"),
    variable("PGPIVOT_ADMIN", &["admin.listen"], "where page, metrics and API are"),
    variable("STATE_DIRECTORY", &["state.path"], "the first of a list with colons, as systemd sets it; the file wins over it"),
    variable("PGPIVOT_LOG", &[], "what is logged: `error`, `warn`, `info`, `debug`, `trace`, or per part, as `info,pgpivot::probe=debug`; read from the environment alone"),
    variable("PGPIVOT_LOG_FORMAT", &[], "`json`: an object a line; read from the environment alone"),
    variable("COCKROACH_API_SECRET_KEY", &["cockroach_cloud.secret_file"], "the secret key itself"),
    variable("COCKROACH_API_URL", &["cockroach_cloud.api_url"], "where the Cloud API answers"),
    variable("PRIMARY_CLUSTER_ID", &["backend.cluster_id"], "of the backend with `role = \"primary\"`"),
    variable("STANDBY_CLUSTER_ID", &["backend.cluster_id"], "of the one with `role = \"standby\"`"),
    variable("PCR_STREAM_ID", &["cockroach_cloud.stream_id"], "the replication stream between them"),
    variable("FAILOVER_TO_LATEST", &[], "`true`: an automatic failover goes to the latest consistent time; `false` needs `FAILOVER_AT_TIMESTAMP`"),
    variable("FAILOVER_AT_TIMESTAMP", &["cockroach_cloud.failover_at"], "what it goes to instead, as RFC 3339 writes it"),
    variable("PRIMARY_CLUSTER_ENDPOINT", &["backend.addresses", "probe.user", "probe.database", "probe.tls.mode", "probe.tls.ca_file"], "the primary cluster as a URL with a login, instead of `PRIMARY_SQL_DNS`"),
    variable("PRIMARY_SQL_DNS", &["backend.addresses"], "the primary cluster's host for SQL; without it the API is asked"),
    variable("STANDBY_SQL_DNS", &["backend.addresses"], "the standby cluster's"),
    variable("PGPIVOT_URL", &[], "where `proxyctl` finds the daemon; read from the environment alone"),
    variable("PGPIVOT_TOKEN", &[], "the token that `proxyctl` commands with; read from the environment alone"),
];
