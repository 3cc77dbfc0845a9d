//! Every table and key of the file with a line of what it is for. Ranges, words and defaults are not here: the validation
//! knows them. A key of the mirror that is missing here fails a test.

/// A table of the file.
pub(super) struct Table {
    /// As it is written.
    pub(super) header: &'static str,
    /// What stands before its keys in a path, from the service on.
    pub(super) prefix: &'static str,
    pub(super) note: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of it.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What is written, beside what the validation notes; empty where that says it all.
    pub(super) value: &'static str,
    pub(super) meaning: &'static str,
    /// The default in words, where it is no value; empty = as the validation yields it.
    pub(super) otherwise: &'static str,
}

const fn key(name: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { name, value, meaning, otherwise: "" }
}

/// There must be one.
const fn must(name: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { name, value, meaning, otherwise: REQUIRED }
}

/// Its default is another key's value.
const fn like(name: &'static str, value: &'static str, meaning: &'static str, otherwise: &'static str) -> Key {
    Key { name, value, meaning, otherwise }
}

pub(super) const REQUIRED: &str = "required";
const FLAG: &str = "true or false";
const PATH: &str = "path";
const TEXT: &str = "text";
const UUID: &str = "UUID";
const ADDRESS: &str = "address and port";
const HOST: &str = "`host:port`";
const HOSTS: &str = "list of `host:port`";
const COMMAND: &str = "program and arguments, a list";

pub(super) const TABLES: &[Table] = &[
    Table { header: "[admin]", prefix: "admin.", note: "Page, metrics and API.", keys: ADMIN },
    Table { header: "[state]", prefix: "state.", note: "", keys: STATE },
    Table {
        header: "[service.NAME]",
        prefix: "",
        note: "One logical database; a daemon may have several.",
        keys: SERVICE,
    },
    Table {
        header: "[[service.NAME.listener]]",
        prefix: "listener.",
        note: "Where applications connect. Without one the service is only watched.",
        keys: LISTENER,
    },
    Table {
        header: "[[service.NAME.listener]] tls",
        prefix: "listener.tls.",
        note: "What becomes of clients' TLS: [security](security.md).",
        keys: LISTENER_TLS,
    },
    Table {
        header: "[[service.NAME.backend]]",
        prefix: "backend.",
        note: "A side that can be active: one PostgreSQL server, or one CockroachDB cluster.",
        keys: BACKEND,
    },
    Table {
        header: "[[service.NAME.backend]] tls",
        prefix: "backend.tls.",
        note: "Of pgpivot's own connections to it, and of clients' where their TLS ends at the listener.",
        keys: BACKEND_TLS,
    },
    Table { header: "[service.NAME.probe]", prefix: "probe.", note: "How health is learned.", keys: PROBE },
    Table {
        header: "[service.NAME.probe] tls",
        prefix: "probe.tls.",
        note: "For every backend that does not say otherwise.",
        keys: TLS,
    },
    Table { header: "[service.NAME.probe.http]", prefix: "probe.http.", note: "With `kind = \"http\"`.", keys: HTTP },
    Table {
        header: "[service.NAME.failover]",
        prefix: "failover.",
        note: "Who decides, who promotes, what keeps the old side out, and how long anybody waits.",
        keys: FAILOVER,
    },
    Table {
        header: "[service.NAME.failover] promoter_login",
        prefix: "failover.promoter_login.",
        note: "With `promoter = \"postgres\"`, where another login than the probe's promotes; what it leaves out is the probe's.",
        keys: PROMOTER_LOGIN,
    },
    Table {
        header: "[service.NAME.read_only]",
        prefix: "read_only.",
        note: "What is asked of a standby that serves `target = \"read_only\"`; PostgreSQL with probes of kind `sql`.",
        keys: READ_ONLY,
    },
    Table {
        header: "[service.NAME.patroni]",
        prefix: "patroni.",
        note: "With `authority = \"patroni\"`: [following Patroni](patroni.md).",
        keys: PATRONI,
    },
    Table {
        header: "[service.NAME.cockroach_cloud]",
        prefix: "cockroach_cloud.",
        note: "Clusters of CockroachDB Cloud: [the guide](cockroach.md).",
        keys: CLOUD,
    },
    Table {
        header: "[service.NAME.cockroach_sql]",
        prefix: "cockroach_sql.",
        note: "Self-hosted clusters; one of the two tables, not both.",
        keys: SQL,
    },
    Table {
        header: "[service.NAME.connection]",
        prefix: "connection.",
        note: "Timeouts and socket options of relayed connections.",
        keys: CONNECTION,
    },
];

#[rustfmt::skip]
const ADMIN: &[Key] = &[
    key("listen", "address and port, or `\"off\"`", "page, metrics and API; off loopback with a `token_file` only"),
    key("socket", PATH, "a unix socket with the same API; who may open it may command"),
    key("token_file", PATH, "lines of `name:token`; a call that changes something must show one"),
    key("hosts", "list of names", "what browsers call the page, beside `localhost`, this machine's name and literal addresses"),
    key("metrics_listen", ADDRESS, "a second address that serves `/metrics` alone"),
];

#[rustfmt::skip]
const STATE: &[Key] = &[
    key("path", PATH, "the directory of latch and history; `$STATE_DIRECTORY` where that is set"),
];

#[rustfmt::skip]
const SERVICE: &[Key] = &[
    must("kind", "", "what stands behind it; chooses the defaults"),
    key("engine", "", "how bytes are relayed"),
    key("workers", "", "threads of the data plane; 0 is one per core"),
];

#[rustfmt::skip]
const LISTENER: &[Key] = &[
    must("address", ADDRESS, "where clients connect"),
    key("mode", "", "bytes pass untouched after the first packet was told apart"),
    key("target", "", "`active`: the latched side and never another; `read_only`: fit standbys by weight, the active side if none is fit"),
    key("max_connections", "", "over it a client is refused with 53300"),
];

#[rustfmt::skip]
const LISTENER_TLS: &[Key] = &[
    key("mode", "", "`terminate`: clients' TLS ends here"),
    key("cert_file", PATH, "PEM; required with `terminate`"),
    like("key_file", PATH, "PEM, readable by its owner alone", "`cert_file`"),
    key("require", FLAG, "plaintext is refused with 28000"),
];

#[rustfmt::skip]
const BACKEND: &[Key] = &[
    must("name", "1 to 63 of a-z, 0-9, `-`, `_`", "the latch on disk knows it by this name"),
    must("addresses", HOSTS, "where it answers; may be left out beside a `cluster_id` of the Cloud, whose API is asked"),
    like("role", "", "for the first start alone, before a latch exists", "the servers are asked"),
    key("weight", "", "share of what `read_only` listeners hand out; never sends a write to a standby"),
    key("priority", "", "among standbys that are as far, the lowest is promoted"),
    key("promote", FLAG, "`false`: never a candidate, not by force either"),
    like("replication_address", HOST, "where the other servers reach it", "its first address"),
    like("cluster_id", UUID, "as the Cloud Console shows it", "required with `cockroach_cloud`"),
    like("member", TEXT, "its name in Patroni", "found by its address"),
];

const BACKEND_TLS: &[Key] = &[
    like("mode", "a word of `probe.tls.mode`", "as libpq's `sslmode`", "`probe.tls.mode`"),
    like("ca_file", PATH, "PEM bundle to check with", "`probe.tls.ca_file`"),
    like("server_name", TEXT, "the name that the certificate must bear", "`probe.tls.server_name`"),
];

#[rustfmt::skip]
const TLS: &[Key] = &[
    key("mode", "", "as libpq's `sslmode`"),
    like("ca_file", PATH, "PEM bundle to check with", "the system's roots"),
    like("server_name", TEXT, "the name that the certificate must bear", "the address's host"),
];

#[rustfmt::skip]
const PROBE: &[Key] = &[
    key("kind", "", "a connect, a first packet, a login with queries, or a GET"),
    key("user", TEXT, "who logs in"),
    key("password_file", PATH, "the password and nothing else. Environment: `PGPIVOT_PASSWORD`, `DB_PASSWORD`"),
    key("database", TEXT, "what is logged in to"),
    key("detection", "", "`fast` changes the defaults of `fast_interval` to 300 ms, of `timeout` to 1 s, of `hang_trigger` to 500 ms"),
    key("interval", "", "between checks of a healthy endpoint"),
    key("fast_interval", "", "while something is odd; at most `interval`"),
    like("down_interval", "", "between checks of an endpoint that is down", "`interval`"),
    key("timeout", "", "until a check counts as failed; at most ten times `interval`"),
    key("fall", "", "failures in a row to become down"),
    key("rise", "", "passes in a row to become up"),
    key("jitter", "", "part of `interval` by which each wait varies"),
    key("hang_trigger", "", "a request without any byte back for this long raises suspicion"),
    key("passive", FLAG, "what clients' connections show may advance a decision"),
];

#[rustfmt::skip]
const HTTP: &[Key] = &[
    key("path", TEXT, "path with query"),
    like("port", "", "of the HTTP server on the endpoint's host", "the endpoint's own"),
    key("tls", FLAG, "`https`, with the backend's `tls`"),
    key("expect_status", "list of numbers, 100 to 599", "statuses that pass"),
    key("expect_body", TEXT, "what the body must contain"),
    key("primary_only", FLAG, "it passes on the primary alone; `true` for Patroni's `/primary`, `/leader`, `/master`, `/read-write`"),
];

#[rustfmt::skip]
const FAILOVER: &[Key] = &[
    key("automatic", FLAG, "decide without an operator"),
    key("authority", "", "who decides: this daemon; somebody else, whose promotions are followed; or Patroni"),
    key("promoter", "", "who makes a standby writable; `none` by default where `authority` is not `self`"),
    key("promote_command", COMMAND, "with `promoter = \"command\"`, without a shell; `{backend}`, `{address}`, `{epoch}` are replaced; status 0 = promoted"),
    key("promote_timeout", "", "after it a pending promotion alerts; it is watched on and never taken back"),
    key("witness", "", "`required`: nobody is promoted while no standby can testify whether the primary lives; one that says that it lives blocks in any case"),
    key("delay", "", "patience after `fall`, then a last look"),
    key("cooldown", "", "after an episode nothing is decided automatically for this long"),
    key("max_per_day", "", "automatic failovers in 24 h; 0 = never"),
    key("max_lag", "", "a standby that lacks more is not promoted"),
    key("max_disconnect", "", "a standby that had stopped streaming longer before is not promoted"),
    key("hold_timeout", "", "how long a new connection waits while no side may be used"),
    key("max_held", "", "how many wait at most"),
    key("max_held_per_address", "", "how many of one client address"),
    key("release_rate", "", "waiting connections let through per second"),
    key("drain_timeout", "", "how long running work may go on at a switchover"),
    key("fence", "", "`required`: `fence_command` must end with status 0 before anybody is promoted, or `stop_service` of `cockroach_sql` must have worked"),
    key("fence_command", COMMAND, "keeps writes from the old side; placeholders as in `promote_command`"),
    key("soft_fence", FLAG, "an old primary that still serves is made read-only and its clients are ended; by default only where pgpivot promotes PostgreSQL servers"),
    key("rejoin_command", COMMAND, "makes an old primary a standby; `{backend}`, `{address}`, `{primary}`, `{primary_address}`, `{method}`, `{epoch}`"),
    key("rejoin_timeout", "", "how long it may run; only with a `rejoin_command`"),
    key("standby_serves", FLAG, "every side serves already: routing without promotions"),
    like("foreign_promotion", "", "what to do with a promotion that somebody else made", "follows beside other daemons and with `observe`, else once the active side is down"),
    key("sync_after_failover", "", "the new primary's `synchronous_standby_names`: [the guide](postgresql.md#synchronous-replication)"),
    key("survivors", "", "the other standbys are pointed at the new primary, or what to type is said; `repoint` by default with a `follow_command`, too"),
    key("follow_command", COMMAND, "points a standby where SQL may not; `{backend}`, `{primary}`, `{address}`, `{epoch}`"),
    key("recovery_patience", "", "how long a primary in crash recovery does not count as failing"),
    key("restart_grace", "", "how long a restart that the server announced is waited for"),
    key("hung_grace", "", "how long a hung primary that still replicates is watched before a fence may decide"),
    key("verify_wait", "", "how long the other sides are waited for at start"),
];

#[rustfmt::skip]
const PROMOTER_LOGIN: &[Key] = &[
    key("user", TEXT, "who calls `pg_promote`"),
    key("password_file", PATH, "with another user the probe's password is not used"),
    key("database", TEXT, "what is logged in to"),
];

#[rustfmt::skip]
const READ_ONLY: &[Key] = &[
    key("max_lag", "`\"off\"`: however old, while it streams", "how old at most is what readers see; at least two `interval` and a `timeout` of the probe"),
];

#[rustfmt::skip]
const PATRONI: &[Key] = &[
    key("addresses", HOSTS, "REST endpoints of its members"),
    key("tls", FLAG, "`https`, chain and name checked"),
    like("ca_file", PATH, "PEM bundle to check with", "the system's roots"),
    key("certificate", PATH, "our own, PEM; with `key`"),
    key("key", PATH, "its key, PEM"),
    key("user", TEXT, "of `restapi.authentication`, for orders"),
    key("password_file", PATH, "its password. Environment: `PGPIVOT_PATRONI_PASSWORD`"),
    key("interval", "", "between two readings while nothing changes"),
    key("timeout", "", "for one reading of one member"),
    key("order_timeout", "", "for Patroni's word on a switchover or failover"),
];

#[rustfmt::skip]
const CLOUD: &[Key] = &[
    key("api_url", "`https` and a host", "where the Cloud API answers; `http` to this machine alone"),
    must("secret_file", PATH, "the secret key of a service account and nothing else"),
    key("timeout", "", "for one call"),
    like("stream_id", UUID, "the stream from the primary to the standby", "found by its direction"),
    like("failover_at", "time as `2026-01-31T12:00:00Z`", "what an automatic failover goes to", "the latest consistent time"),
    key("replicated_time_refresh", "", "how often `replicated_time` moves; all times of the witness follow from it"),
];

#[rustfmt::skip]
const SQL: &[Key] = &[
    must("user", TEXT, "who logs in to the system virtual cluster; the probe's user will do"),
    like("password_file", PATH, "without any a certificate or trust must do", "the probe's, for the same user"),
    key("database", TEXT, "what is logged in to"),
    key("virtual_cluster", TEXT, "the replicated one, called the same on both sides"),
    key("stop_service", FLAG, "the old primary is stopped where it can be reached"),
    key("default_target", FLAG, "the promoted one becomes its cluster's default target"),
    key("replicated_time_refresh", "", "how often `replicated_time` moves"),
];

#[rustfmt::skip]
const CONNECTION: &[Key] = &[
    key("connect_timeout", "", "for one address of a server"),
    key("first_packet_timeout", "", "for a client's first packet"),
    key("keepalive", "", "idle time until TCP keepalive, on both sides"),
    key("user_timeout", "", "TCP_USER_TIMEOUT on both sides; `\"0s\"` = the kernel's"),
];
