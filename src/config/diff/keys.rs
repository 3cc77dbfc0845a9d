//! A configuration as lines of key and value, under the names the TOML file has. For comparing and for showing; a
//! secret shows as `***`.

use std::time::Duration;

use super::super::validate::form::time_text;
use super::super::validate::size_text;
use super::super::{
    Authority, Backend, ConfiguredRole, Connection, ForeignPromotion, Kind, Listener, ListenerTls, Login, Patroni,
    Probe, ProbeKind, Promoter, Rate, Replication, Service, Survivors, SyncRule, Target, TlsMode, WitnessRule,
};

/// A key below its table, and its value as text.
pub(in crate::config) type Line = (String, String);

/// `kind` and everything that must be the same where services share a pair: what is probed and how it is decided.
/// How long clients wait, how many, and who logs in may differ.
pub(in crate::config) fn policy(service: &Service) -> Vec<Line> {
    const OWN: [&str; 13] = [
        "probe.user",
        "probe.database",
        "probe.password_file",
        "failover.hold_timeout",
        "failover.max_held",
        "failover.max_held_per_address",
        "failover.release_rate",
        "failover.promoter_login",
        "cockroach_sql.user",
        "cockroach_sql.database",
        "cockroach_sql.password_file",
        "patroni.user",
        "patroni.password_file",
    ];
    let mut lines = vec![line("kind", quote(kind_word(service.kind)))];
    lines.extend(probe(&service.probe).into_iter().map(|(key, value)| (format!("probe.{key}"), value)));
    lines.extend(failover(service).into_iter().map(|(key, value)| (format!("failover.{key}"), value)));
    lines.extend(read_only(service).into_iter().map(|(key, value)| (format!("read_only.{key}"), value)));
    if let Some(steered) = &service.replication {
        let (table, keys) = replication(steered);
        lines.extend(keys.into_iter().map(|(key, value)| (format!("{table}.{key}"), value)));
    }
    if let Some(followed) = &service.patroni {
        lines.extend(patroni(followed).into_iter().map(|(key, value)| (format!("patroni.{key}"), value)));
    }
    lines.retain(|(key, _)| !OWN.iter().any(|own| key == own));
    lines
}

/// The commands of a service in full, for comparing only: arguments may hold what must not be shown.
pub(in crate::config) fn commands(service: &Service) -> [(&'static str, &[String]); 4] {
    let promote = match &service.failover.promoter {
        Promoter::Command(argv) => argv.as_slice(),
        _ => &[],
    };
    let fence = service.failover.fence_command.as_deref().unwrap_or_default();
    let rejoin = service.failover.rejoin_command.as_deref().unwrap_or_default();
    let follow = service.failover.follow_command.as_deref().unwrap_or_default();
    [
        ("failover.promote_command", promote),
        ("failover.fence_command", fence),
        ("failover.rejoin_command", rejoin),
        ("failover.follow_command", follow),
    ]
}

/// `[[service.NAME.listener]]` but for its address.
pub(in crate::config) fn listener(listener: &Listener) -> Vec<Line> {
    let (mode, files, require) = match &listener.tls {
        ListenerTls::PassThrough => ("pass-through", None, false),
        ListenerTls::Terminate(tls) => ("terminate", Some([&tls.cert_file, &tls.key_file]), tls.require),
    };
    let [cert_file, key_file] = match files {
        Some(files) => files.map(|file| quote(&file.display().to_string())),
        None => [(); 2].map(|()| option(None)),
    };
    let limits = &listener.limits;
    let rate = |rate: Option<Rate>, part: fn(Rate) -> u32| option(rate.map(|rate| part(rate).to_string()));
    vec![
        line("mode", quote("opaque")),
        line("target", quote(target_word(listener.target))),
        line("max_connections", listener.max_connections.to_string()),
        line("max_connections_per_address", option(limits.per_address.map(|limit| limit.to_string()))),
        line("connection_rate", rate(limits.rate, |rate| rate.per_second)),
        line("connection_burst", rate(limits.rate, |rate| rate.burst)),
        line("connection_rate_per_address", rate(limits.rate_per_address, |rate| rate.per_second)),
        line("connection_burst_per_address", rate(limits.rate_per_address, |rate| rate.burst)),
        line("tls.mode", quote(mode)),
        line("tls.cert_file", cert_file),
        line("tls.key_file", key_file),
        line("tls.require", require.to_string()),
    ]
}

/// `[[service.NAME.backend]]` but for its name and `tls`.
pub(in crate::config) fn backend(backend: &Backend) -> Vec<Line> {
    let mut addresses: Vec<String> = backend.addresses.iter().map(|a| quote(&a.to_string().to_lowercase())).collect();
    addresses.sort();
    let role = match backend.role {
        None => "not set".into(),
        Some(ConfiguredRole::Primary) => quote("primary"),
        Some(ConfiguredRole::Standby) => quote("standby"),
    };
    vec![
        line("addresses", format!("[{}]", addresses.join(", "))),
        line("cluster_id", option(backend.cluster_id.as_deref().map(quote))),
        line("member", option(backend.member.as_deref().map(quote))),
        line("role", role),
        line("weight", backend.weight.to_string()),
        line("priority", backend.priority.to_string()),
        line("promote", backend.promote.to_string()),
        line("replication_address", option(backend.replication_address.as_ref().map(|a| quote(&a.to_string())))),
    ]
}

/// `tls = { … }` of a backend.
pub(in crate::config) fn tls(backend: &Backend) -> Vec<Line> {
    let tls = &backend.tls;
    vec![
        line("tls.mode", quote(TlsMode::as_str(tls.mode))),
        line("tls.ca_file", option(tls.ca_file.as_ref().map(|file| quote(&file.display().to_string())))),
        line("tls.server_name", option(tls.server_name.as_deref().map(quote))),
    ]
}

/// `[service.NAME.probe]`.
pub(in crate::config) fn probe(probe: &Probe) -> Vec<Line> {
    let mut lines = vec![line("kind", quote(probe.kind.as_str()))];
    match &probe.kind {
        ProbeKind::Tcp => {}
        ProbeKind::Startup { login } | ProbeKind::Sql { login } => {
            lines.push(line("user", quote(&login.user)));
            lines.push(line("database", quote(&login.database)));
            lines.push(line("password_file", password(login)));
        }
        ProbeKind::Http(http) => {
            lines.push(line("http.path", quote(&http.path)));
            lines.push(line("http.port", option(http.port.map(|port| port.to_string()))));
            lines.push(line("http.tls", http.tls.to_string()));
            lines.push(line("http.expect_status", format!("{:?}", http.expect_status)));
            lines.push(line("http.expect_body", option(http.expect_body.as_deref().map(quote))));
            lines.push(line("http.primary_only", http.primary_only.to_string()));
        }
    }
    lines.extend([
        line("interval", time(probe.interval)),
        line("fast_interval", time(probe.fast_interval)),
        line("down_interval", time(probe.down_interval)),
        line("timeout", time(probe.timeout)),
        line("fall", probe.fall.to_string()),
        line("rise", probe.rise.to_string()),
        line("jitter", format!("{:.2}", f64::from(probe.jitter_percent) / 100.0)),
        line("hang_trigger", time(probe.hang_trigger)),
        line("passive", probe.passive.to_string()),
    ]);
    lines
}

/// `[service.NAME.failover]`.
pub(in crate::config) fn failover(service: &Service) -> Vec<Line> {
    let failover = &service.failover;
    let max_lag = match service.kind {
        Kind::Postgres => quote(&size_text(failover.max_lag)),
        Kind::Cockroach => time(failover.max_replication_lag),
    };
    let mut lines = promoter(&failover.promoter);
    lines.extend([
        line("automatic", failover.automatic.to_string()),
        line("delay", time(failover.delay)),
        line("cooldown", time(failover.cooldown)),
        line("max_per_day", failover.max_per_day.to_string()),
        line("max_lag", max_lag),
        line("max_disconnect", time(failover.max_disconnect)),
        line("witness", quote(witness_word(failover.witness))),
        line("hold_timeout", time(failover.hold_timeout)),
        line("max_held", failover.max_held.to_string()),
        line("max_held_per_address", failover.max_held_per_address.to_string()),
        line("release_rate", failover.release_rate.to_string()),
        line("drain_timeout", time(failover.drain_timeout)),
        line("promote_timeout", time(failover.promote_timeout)),
        line("authority", quote(authority_word(failover.authority))),
        line("fence", quote(if failover.fence_required { "required" } else { "optional" })),
        line("fence_command", argv(failover.fence_command.as_deref())),
        line("soft_fence", failover.soft_fence.to_string()),
        line("rejoin_command", argv(failover.rejoin_command.as_deref())),
        line("rejoin_timeout", time(failover.rejoin_timeout)),
        line("standby_serves", failover.standby_serves.to_string()),
        line("foreign_promotion", option(failover.foreign_promotion.map(foreign_word).map(quote))),
        line("sync_after_failover", quote(sync_word(failover.sync_after_failover))),
        line("survivors", quote(survivors_word(failover.survivors))),
        line("follow_command", argv(failover.follow_command.as_deref())),
        line("recovery_patience", time(failover.recovery_patience)),
        line("restart_grace", time(failover.restart_grace)),
        line("hung_grace", time(failover.hung_grace)),
        line("verify_wait", time(failover.verify_wait)),
    ]);
    lines
}

/// `[service.NAME.cockroach_cloud]` or `[service.NAME.cockroach_sql]`: which of them, and its keys.
pub(in crate::config) fn replication(replication: &Replication) -> (&'static str, Vec<Line>) {
    let refresh = line("replicated_time_refresh", time(replication.refresh()));
    match replication {
        Replication::Cloud(cloud) => (
            "cockroach_cloud",
            vec![
                line("api_url", quote(&cloud.api_url)),
                line("secret_file", "***".into()),
                line("timeout", time(cloud.timeout)),
                line("stream_id", option(cloud.stream_id.as_deref().map(quote))),
                line("failover_at", option(cloud.failover_at.map(|at| quote(&time_text(at))))),
                refresh,
            ],
        ),
        Replication::Sql(sql) => (
            "cockroach_sql",
            vec![
                line("user", quote(&sql.login.user)),
                line("database", quote(&sql.login.database)),
                line("password_file", password(&sql.login)),
                line("virtual_cluster", quote(&sql.virtual_cluster)),
                line("stop_service", sql.stop_service.to_string()),
                line("default_target", sql.default_target.to_string()),
                refresh,
            ],
        ),
    }
}

/// `[service.NAME.read_only]`.
pub(in crate::config) fn read_only(service: &Service) -> Vec<Line> {
    vec![line("max_lag", service.read_only.max_lag.map_or_else(|| quote("off"), time))]
}

/// `[service.NAME.patroni]`.
pub(in crate::config) fn patroni(patroni: &Patroni) -> Vec<Line> {
    let addresses: Vec<String> = patroni.addresses.iter().map(|address| quote(&address.to_string())).collect();
    let file = |path: Option<&std::path::PathBuf>| option(path.map(|path| quote(&path.display().to_string())));
    let (certificate, key) = patroni.certificate.as_ref().map_or((None, None), |(one, other)| (Some(one), Some(other)));
    vec![
        line("addresses", format!("[{}]", addresses.join(", "))),
        line("tls", patroni.tls.to_string()),
        line("ca_file", file(patroni.ca_file.as_ref())),
        line("certificate", file(certificate)),
        line("key", file(key)),
        line("user", option(patroni.login.as_ref().map(|(user, _)| quote(user)))),
        line("password_file", option(patroni.login.as_ref().map(|_| "***".into()))),
        line("interval", time(patroni.interval)),
        line("timeout", time(patroni.timeout)),
        line("order_timeout", time(patroni.order_timeout)),
    ]
}

/// `[service.NAME.connection]`.
pub(in crate::config) fn connection(connection: &Connection) -> Vec<Line> {
    vec![
        line("connect_timeout", time(connection.connect_timeout)),
        line("first_packet_timeout", time(connection.first_packet_timeout)),
        line("keepalive", time(connection.keepalive)),
        line("user_timeout", time(connection.user_timeout)),
    ]
}

fn promoter(promoter: &Promoter) -> Vec<Line> {
    let (command, login) = match promoter {
        Promoter::None => (None, None),
        Promoter::Command(command) => (Some(command.as_slice()), None),
        Promoter::Postgres { login } => (None, Some(login)),
        Promoter::CockroachCloud | Promoter::CockroachSql => (None, None),
    };
    let login = login.map(|login| format!("{} on {}, password {}", login.user, login.database, password(login)));
    vec![
        line("promoter", quote(promoter.as_str())),
        line("promote_command", argv(command)),
        line("promoter_login", option(login)),
    ]
}

fn line(key: &str, value: String) -> Line {
    (key.to_owned(), value)
}

fn quote(text: &str) -> String {
    format!("{text:?}")
}

fn option(value: Option<String>) -> String {
    value.unwrap_or_else(|| "not set".into())
}

fn time(duration: Duration) -> String {
    format!("\"{}\"", humantime::format_duration(duration))
}

fn password(login: &Login) -> String {
    option(login.password.as_ref().map(|_| "***".into()))
}

/// The program, and how much follows: arguments may hold what must not be shown.
fn argv(command: Option<&[String]>) -> String {
    match command {
        None | Some([]) => "not set".into(),
        Some([program]) => quote(program),
        Some([program, arguments @ ..]) => format!("{program:?} with {} arguments", arguments.len()),
    }
}

/// `kind`.
pub(in crate::config) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgres",
        Kind::Cockroach => "cockroach",
    }
}

/// `target`.
pub(in crate::config) fn target_word(target: Target) -> &'static str {
    match target {
        Target::Active => "active",
        Target::ReadOnly => "read_only",
    }
}

/// `authority`.
pub(in crate::config) fn authority_word(authority: Authority) -> &'static str {
    match authority {
        Authority::SelfDecides => "self",
        Authority::Observe => "observe",
        Authority::Patroni => "patroni",
    }
}

fn witness_word(witness: WitnessRule) -> &'static str {
    match witness {
        WitnessRule::Required => "required",
        WitnessRule::Optional => "optional",
    }
}

fn foreign_word(foreign: ForeignPromotion) -> &'static str {
    match foreign {
        ForeignPromotion::Follow => "follow",
        ForeignPromotion::Block => "block",
    }
}

fn sync_word(sync: SyncRule) -> &'static str {
    match sync {
        SyncRule::Report => "report",
        SyncRule::Clear => "clear",
        SyncRule::Adapt => "adapt",
    }
}

fn survivors_word(survivors: Survivors) -> &'static str {
    match survivors {
        Survivors::Repoint => "repoint",
        Survivors::Report => "report",
    }
}
