//! The text of `pgpivot --check` and `proxyctl check-config`: what the configuration means, how long a failure takes
//! to be decided in the worst case, and what would make it shorter. Shared so that both say the same.

use std::path::Path;
use std::time::Duration;

use super::diff::keys::{authority_word, kind_word, target_word};
use super::source;
use super::validate::form;
use super::validate::form::time_text;
use super::{
    Authority, Backend, Config, ConfiguredRole, Kind, ListenerTls, Patroni, ProbeKind, Promoter, Replication, Service,
    WitnessRule,
};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// For people, with a line end at the end.
    pub text: String,
    /// How many problems.
    pub problems: usize,
    /// 0 = the daemon would start with it, 2 = it would not.
    pub exit: u8,
}

/// Worst cases from a failure of the active side to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// It crashes: its connections end and connects are refused. Where no decision is automatic, until it shows as down.
    pub crash: Duration,
    /// It hangs: nothing answers and nothing ends; `None` = never decided automatically.
    pub hang: Option<Duration>,
}

/// PostgreSQL's default of `wal_receiver_timeout`, taken until a standby has been asked.
const DEFAULT_RECEIVER_TIMEOUT: Duration = Duration::from_secs(60);
/// Every connection of a side ended and connects at 0, 100 and 250 ms refused, with a last look at the standby.
const DEATH_PATH: Duration = Duration::from_millis(400);
/// On top of half of `wal_receiver_timeout`: by then a live sender would have been heard.
const SILENCE_MARGIN: Duration = Duration::from_millis(500);

/// A cluster is not worn by a first packet this often.
const SHORT_INTERVAL: Duration = Duration::from_secs(10);

/// Loads a configuration as the daemon would and says what it means.
pub fn check(path: Option<&Path>) -> CheckReport {
    report(path, source::load(path))
}

fn report(path: Option<&Path>, loaded: Result<source::Loaded, source::ConfigError>) -> CheckReport {
    let name = path.map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    match loaded {
        Ok(loaded) => CheckReport { text: explain(&name, &loaded), problems: 0, exit: 0 },
        Err(error) => {
            let count = error.problems.len();
            let mut text = format!("{name}: {count} {}\n", if count == 1 { "problem" } else { "problems" });
            for problem in &error.problems {
                text.push_str(&format!("  {problem}\n"));
            }
            CheckReport { text, problems: count, exit: 2 }
        }
    }
}

fn explain(name: &str, loaded: &source::Loaded) -> String {
    let Config { admin, state, services } = &loaded.config;
    let mut lines = vec![format!("{name}: ok")];
    let listen = admin.listen.map_or_else(|| "off".to_owned(), |address| format!("http://{address}"));
    let socket = admin.socket.as_ref().map_or(String::new(), |socket| format!(", socket {}", socket.display()));
    let mut operators: Vec<&str> = admin.tokens.iter().map(|(name, _)| name.as_str()).collect();
    operators.dedup();
    let operators = match operators.as_slice() {
        [] => "no tokens".to_owned(),
        names => format!("tokens for {}", names.join(", ")),
    };
    lines.push(format!("admin {listen}{socket}, {operators}"));
    lines.extend(admin.metrics_listen.map(|address| format!("metrics http://{address}/metrics")));
    lines.push(format!("state {}", state.path.display()));
    for service in services {
        lines.push(String::new());
        lines.extend(explain_service(service));
    }
    if !loaded.warnings.is_empty() {
        lines.push(String::new());
        lines.extend(loaded.warnings.iter().map(|warning| format!("warning: {warning}")));
    }
    lines.join("\n") + "\n"
}

fn explain_service(service: &Service) -> Vec<String> {
    let failover = &service.failover;
    let decides = match (failover.authority, failover.automatic) {
        (Authority::Observe, _) => "follows promotions made by others",
        (Authority::Patroni, _) => "follows Patroni",
        (Authority::SelfDecides, true) => "decides by itself",
        (Authority::SelfDecides, false) => "waits for an operator",
    };
    let mut lines = vec![format!(
        "service {} ({}), probe {}, promoter {}, authority {}: {decides}",
        service.name,
        kind_word(service.kind),
        service.probe.kind.as_str(),
        failover.promoter.as_str(),
        authority_word(failover.authority),
    )];
    if service.listeners.is_empty() {
        lines.push("  no listener: it only watches".into());
    }
    for listener in &service.listeners {
        let target = target_word(listener.target);
        lines.push(format!(
            "  listener {} → {target}, at most {} connections{}",
            listener.address,
            listener.max_connections,
            explain_tls(&listener.tls),
        ));
    }
    lines.extend(service.backends.iter().map(explain_backend));
    if let Some(replication) = &service.replication {
        lines.push(format!("  replication {}", explain_replication(replication)));
    }
    lines.extend(service.patroni.as_ref().map(explain_patroni));
    lines.extend(explain_promotion(service).into_iter().map(|line| format!("  {line}")));
    lines.push("  from a failure of the active side to the decision, at worst:".into());
    lines.extend(explain_detection(service, None).into_iter().map(|line| format!("    {line}")));
    lines
}

fn explain_tls(tls: &ListenerTls) -> String {
    let ListenerTls::Terminate(tls) = tls else { return String::new() };
    let until = tls.identity.as_ref().and_then(|identity| identity.expires());
    let until = until.map_or_else(String::new, |until| format!(" until {}", time_text(until)));
    let required = if tls.require { ", and nobody passes without" } else { "" };
    format!(", TLS ends here with {}{until}{required}", tls.cert_file.display())
}

fn explain_backend(backend: &Backend) -> String {
    let addresses: Vec<String> = backend.addresses.iter().map(ToString::to_string).collect();
    let role = match backend.role {
        Some(ConfiguredRole::Primary) => ", starts as primary",
        Some(ConfiguredRole::Standby) => ", starts as standby",
        None => "",
    };
    let at = match (&backend.cluster_id, addresses.as_slice()) {
        (Some(id), []) => format!("is cluster {id}, its host read from the API at start"),
        (Some(id), _) => format!("at {} is cluster {id}", addresses.join(", ")),
        (None, _) => format!("at {}", addresses.join(", ")),
    };
    format!("  backend {} {at}, weight {}{role}", backend.name, backend.weight)
}

/// Where Patroni is asked.
fn explain_patroni(patroni: &Patroni) -> String {
    let addresses: Vec<String> = patroni.addresses.iter().map(ToString::to_string).collect();
    let orders = match &patroni.login {
        Some((user, _)) => format!("ordered as {user}"),
        None => "ordered without a login".into(),
    };
    let every = humantime::format_duration(patroni.interval);
    let scheme = if patroni.tls { "https" } else { "http" };
    format!("  patroni asked every {every} by {scheme} at {}, {orders}", addresses.join(", "))
}

/// Where replication is read.
fn explain_replication(replication: &Replication) -> String {
    let how = match replication {
        Replication::Cloud(cloud) => {
            let stream = cloud.stream_id.as_ref();
            let stream = stream.map_or_else(|| "the stream found by its direction".into(), |id| format!("stream {id}"));
            let timeout = humantime::format_duration(cloud.timeout);
            format!("by the Cloud API at {}, calls given up after {timeout}, {stream}", cloud.api_url)
        }
        Replication::Sql(sql) => {
            let password = if sql.login.password.is_some() { "with" } else { "without" };
            format!("of virtual cluster {} by SQL as {} {password} a password", sql.virtual_cluster, sql.login.user)
        }
    };
    format!("{how}, replicated_time refreshed every {}", humantime::format_duration(replication.refresh()))
}

/// What is done with it when the active side dies, where this daemon does it.
fn explain_promotion(service: &Service) -> Vec<String> {
    if service.promotes_blindly() {
        return vec![format!(
            "probe {} cannot show whom a standby follows: after a failover none is promoted before `proxyctl rejoin`, or \
             by force",
            service.probe.kind.as_str()
        )];
    }
    let Some(replication) = &service.replication else { return Vec::new() };
    if !matches!(service.failover.promoter, Promoter::CockroachCloud | Promoter::CockroachSql) {
        return Vec::new();
    }
    let lag = humantime::format_duration(service.failover.max_replication_lag);
    let how = match replication {
        Replication::Cloud(cloud) => match cloud.failover_at {
            None => "an automatic failover goes to the latest consistent time".into(),
            Some(at) => format!(
                "an automatic failover goes to {}, if that can be reached when it is needed",
                form::time_text(at)
            ),
        },
        Replication::Sql(sql) => {
            let name = &sql.virtual_cluster;
            let stop = match sql.stop_service {
                true => format!("stops {name} on the old side when it can be reached"),
                false => format!("leaves {name} on the old side as it is"),
            };
            let target = if sql.default_target { "makes it" } else { "does not make it" };
            format!("a promotion {stop}, and {target} the default target of the new one")
        }
    };
    vec![how, format!("a stream that lacks more than {lag} (max_lag) is failed over by an operator alone")]
}

/// The detection figures as text, with what would make them shorter. `w` is the `wal_receiver_timeout` read on the
/// standby; until it was read, PostgreSQL's default is assumed.
pub fn explain_detection(service: &Service, w: Option<Duration>) -> Vec<String> {
    let figures = detection(service, w);
    let crash = seconds(figures.crash);
    let Some(why) = not_automatic(service) else {
        let hang = match figures.hang {
            Some(hang) => format!("hang   {}{}", seconds(hang), hang_note(service, w)),
            None => "hang   never: wal_receiver_timeout is 0 on the standby, so its silence proves nothing".into(),
        };
        let mut lines = vec![format!("crash  {crash}{}", crash_note(service)), hang];
        lines.extend(shorter(service, w).into_iter().map(|step| format!("shorter: {step}")));
        return lines;
    };
    vec![format!("crash  shown as down after {crash}, decided by nobody: {why}"), "hang   likewise".into()]
}

/// Worst cases; `w` is the `wal_receiver_timeout` read on the standby, PostgreSQL's 60 s when `None`.
pub fn detection(service: &Service, w: Option<Duration>) -> Detection {
    let probe = &service.probe;
    let automatic = not_automatic(service).is_none();
    let delay = if automatic { service.failover.delay } else { Duration::ZERO };
    let repeats = probe.fast_interval * probe.fall.saturating_sub(1);
    // Without traffic, or where traffic does not count, the next probe is the first to notice; a hang only when its
    // time is up, unless the pace stays the same anyway.
    let next_probe = probe.interval + probe.interval * u32::from(probe.jitter_percent) / 100;
    let (refused, unanswered) = match passive(service) {
        true => (Duration::ZERO, probe.hang_trigger),
        false if probe.fast_interval == probe.interval => (next_probe, next_probe),
        false => (next_probe, next_probe + probe.timeout),
    };
    let crash = if death_path(service) { DEATH_PATH } else { refused + repeats };
    let counted = repeats + probe.timeout;
    if let (true, Some(silence)) = (automatic, stream_silence(service)) {
        // The stream is watched from the first probe that failed: one that hangs fails when its time is up.
        let failed = if passive(service) { probe.hang_trigger } else { next_probe + probe.timeout };
        let hang = (unanswered + counted + delay).max(failed + silence);
        return Detection { crash: (crash + delay).max(refused + silence), hang: Some(hang) };
    }
    let hang = match silence(service, w.unwrap_or(DEFAULT_RECEIVER_TIMEOUT)) {
        _ if !automatic => None,
        Silence::Never => None,
        Silence::NotAsked => Some(unanswered + counted + delay),
        Silence::After(silence) => Some(unanswered + counted.max(silence) + delay),
    };
    Detection { crash: crash + delay, hang }
}

/// With a lag that no stream has shown yet: one and a half refreshes.
fn stream_silence(service: &Service) -> Option<Duration> {
    let replication = service.replication.as_ref()?;
    Some(replication.silence(replication.refresh() * 3 / 2))
}

/// When a standby's receiver proves by silence that the primary hangs.
enum Silence {
    /// No witness is heard here.
    NotAsked,
    /// The receiver waits for ever, and a witness is required.
    Never,
    After(Duration),
}

fn silence(service: &Service, w: Duration) -> Silence {
    let postgres = service.kind == Kind::Postgres;
    let asked = postgres && matches!(service.probe.kind, ProbeKind::Sql { .. }) && !service.failover.standby_serves;
    match service.failover.witness {
        _ if !asked => Silence::NotAsked,
        WitnessRule::Required if w.is_zero() => Silence::Never,
        WitnessRule::Optional if w.is_zero() => Silence::NotAsked,
        _ => Silence::After(w / 2 + SILENCE_MARGIN),
    }
}

fn passive(service: &Service) -> bool {
    service.probe.passive && !service.listeners.is_empty()
}

/// A death seen by everybody at once needs no count.
fn death_path(service: &Service) -> bool {
    matches!(service.probe.kind, ProbeKind::Sql { .. })
        && matches!(service.failover.promoter, Promoter::Postgres { .. })
        && service.probe.passive
        && not_automatic(service).is_none()
}

/// Why nothing is decided without somebody else, if so.
fn not_automatic(service: &Service) -> Option<&'static str> {
    let failover = &service.failover;
    if failover.authority == Authority::Observe {
        return Some("authority = \"observe\" waits for somebody else's promotion and follows it");
    }
    if failover.authority == Authority::Patroni {
        return Some("authority = \"patroni\": Patroni decides, and what it promotes is followed");
    }
    if !failover.automatic {
        return Some("automatic = false");
    }
    if failover.max_per_day == 0 {
        return Some("max_per_day = 0");
    }
    if service.backends.len() < 2 {
        return Some("there is only one backend");
    }
    let promotes = !matches!(failover.promoter, Promoter::None);
    let moves = promotes || failover.standby_serves || service.probe.kind.primary_only();
    (!moves).then_some("promoter = \"none\" promotes nobody")
}

fn crash_note(service: &Service) -> String {
    let fall = service.probe.fall;
    if let (Some(silence), Some(replication)) = (stream_silence(service), &service.replication) {
        let refresh = humantime::format_duration(replication.refresh());
        return format!(
            " (probes in a row that must fail: {fall}; the stream must show nothing of the primary for {} from the first \
             one, with replicated_time refreshed every {refresh})",
            seconds(silence)
        );
    }
    if death_path(service) {
        " (every connection ended, connects refused, the standby's receiver gone)".into()
    } else if passive(service) {
        format!(" (probes in a row that must fail: {fall}; the first one triggered by traffic)")
    } else {
        format!(" (probes in a row that must fail: {fall})")
    }
}

fn hang_note(service: &Service, w: Option<Duration>) -> String {
    match (silence(service, w.unwrap_or(DEFAULT_RECEIVER_TIMEOUT)), w) {
        (Silence::After(_), Some(w)) => {
            let w = humantime::format_duration(w);
            format!(" (with wal_receiver_timeout = {w} on the standby)")
        }
        (Silence::After(_), None) => " (with wal_receiver_timeout = 60s on the standby, PostgreSQL's default)".into(),
        (Silence::NotAsked, _) if matches!(service.probe.kind, ProbeKind::Tcp) => {
            " (of the whole machine; a stopped server still accepts, which a probe of kind tcp takes for life)".into()
        }
        (Silence::NotAsked | Silence::Never, _) => String::new(),
    }
}

/// What would shorten the hang figure, the largest share first.
fn shorter(service: &Service, w: Option<Duration>) -> Vec<String> {
    if let Some(silence) = stream_silence(service) {
        return shorter_than_stream(service, silence);
    }
    let mut steps = Vec::new();
    let probe = &service.probe;
    let counted = probe.fast_interval * probe.fall.saturating_sub(1) + probe.timeout;
    let w = w.unwrap_or(DEFAULT_RECEIVER_TIMEOUT);
    let slow = match silence(service, w) {
        Silence::After(silence) => silence > counted.max(Duration::from_secs(2)),
        Silence::Never => true,
        Silence::NotAsked => false,
    };
    if slow {
        steps
            .push("on each standby: ALTER SYSTEM SET wal_receiver_timeout = '3s'; SELECT pg_reload_conf();".to_owned());
    }
    let fast = probe.fast_interval <= Duration::from_millis(300) && probe.hang_trigger <= Duration::from_millis(500);
    if !fast {
        steps.push(format!("in [service.{}.probe]: detection = \"fast\"", service.name));
    }
    if !service.failover.delay.is_zero() {
        let delay = humantime::format_duration(service.failover.delay);
        steps.push(format!("in [service.{}.failover]: delay = \"0s\" (it adds {delay} to both)", service.name));
    }
    steps
}

/// The stream's silence is the service's own pace: only what is waited for before and beyond it can be shortened.
fn shorter_than_stream(service: &Service, silence: Duration) -> Vec<String> {
    let (probe, failover) = (&service.probe, &service.failover);
    let mut steps = Vec::new();
    let counted = probe.fast_interval * probe.fall.saturating_sub(1);
    let beyond = (counted + failover.delay).saturating_sub(silence).min(failover.delay);
    if !beyond.is_zero() {
        let (delay, saved) = (failover.delay.saturating_sub(beyond), humantime::format_duration(beyond));
        let delay = humantime::format_duration(delay);
        steps.push(format!("in [service.{}.failover]: delay = \"{delay}\" (it adds {saved} to both)", service.name));
    }
    if probe.interval > SHORT_INTERVAL && !passive(service) {
        let saved = humantime::format_duration(probe.interval.saturating_sub(SHORT_INTERVAL));
        let short = humantime::format_duration(SHORT_INTERVAL);
        steps.push(format!(
            "in [service.{}.probe]: interval = \"{short}\" (the first probe fails {saved} earlier)",
            service.name
        ));
    }
    steps
}

/// `0.4 s`, `32.5 s`, `150 s`.
fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis().div_ceil(100);
    if tenths.is_multiple_of(10) { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::super::env::Env;
    use super::super::validate::Problem;
    use super::super::{raw, validate};
    use super::*;

    const PAIR: &str = "
        [service.main]
        kind = 'postgres'
        [[service.main.listener]]
        address = '127.0.0.1:26257'
        [[service.main.backend]]
        name = 'us-east'
        addresses = ['db1:5432']
        role = 'primary'
        [[service.main.backend]]
        name = 'us-west'
        addresses = ['db2:5432']
        role = 'standby'
        weight = 10
    ";

    fn config(text: &str) -> Config {
        validate::build(raw::parse(text), &Env::default(), 2).unwrap().0
    }

    /// The pair with these lines more.
    fn pair(more: &str) -> Service {
        config(&format!("{PAIR}\n{more}")).services.remove(0)
    }

    /// Crash and hang in milliseconds, with this `wal_receiver_timeout` in seconds.
    fn figures(service: &Service, w: Option<u64>) -> (u128, Option<u128>) {
        let found = detection(service, w.map(Duration::from_secs));
        (found.crash.as_millis(), found.hang.map(|hang| hang.as_millis()))
    }

    #[test]
    fn the_fast_preset_decides_a_crash_in_400_ms_and_a_hang_in_2500() {
        let fast = pair("[service.main.probe]\ndetection = 'fast'");
        assert_eq!(figures(&fast, Some(3)), (400, Some(2500)));
        assert_eq!(figures(&fast, None), (400, Some(31_000)));
    }

    #[test]
    fn the_defaults_decide_as_fast_as_the_standby_notices() {
        let main = pair("");
        assert_eq!(figures(&main, None), (400, Some(32_500)));
        assert_eq!(figures(&main, Some(3)), (400, Some(4000)));
        assert_eq!(figures(&main, Some(10)), (400, Some(7500)));
        assert_eq!(figures(&pair("[service.main.failover]\ndelay = '1s'"), Some(3)), (1400, Some(5000)));
    }

    #[test]
    fn a_receiver_that_waits_for_ever_never_proves_a_hang() {
        assert_eq!(figures(&pair(""), Some(0)), (400, None));
        assert_eq!(figures(&pair("[service.main.failover]\nwitness = 'optional'"), Some(0)), (400, Some(4000)));
    }

    #[test]
    fn without_the_servers_word_failed_probes_are_counted() {
        let serves = "[service.main.probe]\nkind = 'tcp'\n[service.main.failover]\nstandby_serves = true";
        assert_eq!(figures(&pair(serves), None), (1000, Some(4000)));
        let command = "[service.main.failover]\npromoter = 'command'\npromote_command = ['/bin/true']";
        assert_eq!(figures(&pair(command), Some(3)), (1000, Some(4000)));
    }

    #[test]
    fn clusters_keep_two_minutes_and_a_half() {
        let text = PAIR.replace("'postgres'", "'cockroach'") + "[service.main.failover]\nstandby_serves = true";
        let service = config(&text).services.remove(0);
        assert_eq!(figures(&service, None), (150_000, Some(160_000)));
    }

    const CLUSTERS: &str = "
        [service.main]
        kind = 'cockroach'
        [[service.main.listener]]
        address = '127.0.0.1:26257'
        [service.main.cockroach_cloud]
        secret_file = '/s'
        [[service.main.backend]]
        name = 'east'
        cluster_id = '00000000-0000-0000-0000-000000000001'
        role = 'primary'
        [[service.main.backend]]
        name = 'west'
        cluster_id = '00000000-0000-0000-0000-000000000002'
        addresses = ['west.example.com:26257']
        role = 'standby'
        weight = 10
    ";

    fn joined(text: &str) -> Service {
        let mut raw = raw::parse(text);
        raw.files.insert("/s".into(), crate::types::Secret::new("CCDB1_hunter2".into()));
        validate::build(raw, &Env::default(), 2).unwrap().0.services.remove(0)
    }

    /// The clusters with these lines more.
    fn clusters(more: &str) -> Service {
        joined(&format!("{CLUSTERS}\n{more}"))
    }

    #[test]
    fn joined_clusters_decide_at_two_minutes_and_a_half_and_a_hang_adds_the_timeout() {
        assert_eq!(figures(&clusters(""), None), (150_000, Some(160_000)));
        // What PostgreSQL's standbys say of their receivers is none of theirs.
        assert_eq!(figures(&clusters(""), Some(0)), (150_000, Some(160_000)));
        // Nothing is won by asking faster than the stream tells.
        let failover = "[service.main.failover]\ndelay = '0s'\n";
        assert_eq!(figures(&clusters(failover), None), (150_000, Some(160_000)));
        let probe = "[service.main.probe]\ninterval = '10s'\ntimeout = '5s'\n";
        assert_eq!(figures(&clusters(probe), None), (130_000, Some(135_000)));
        // Whoever wants to wait longer does.
        let failover = "[service.main.failover]\ndelay = '5m'\n";
        assert_eq!(figures(&clusters(failover), None), (390_000, Some(400_000)));
        let refresh = CLUSTERS.replace("secret_file = '/s'", "secret_file = '/s'\nreplicated_time_refresh = '1s'");
        assert_eq!(figures(&joined(&refresh), None), (150_000, Some(160_000)));
        let quick = format!("{refresh}{probe}[service.main.failover]\ndelay = '0s'\n");
        assert_eq!(figures(&joined(&quick), None), (30_000, Some(35_000)));
    }

    #[test]
    fn with_traffic_that_counts_the_stream_is_watched_from_the_first_failure() {
        let passive = "[service.main.probe]\npassive = true\nhang_trigger = '2s'\n";
        assert_eq!(figures(&clusters(passive), None), (120_000, Some(132_000)));
    }

    #[test]
    fn a_stream_is_silent_after_three_refreshes_or_later_where_it_lags() {
        let replication = clusters("").replication.unwrap();
        let silence = |lag| replication.silence(Duration::from_secs(lag)).as_secs();
        assert_eq!([0, 15, 30, 45, 120].map(silence), [90, 90, 105, 120, 195]);
    }

    #[test]
    fn joined_clusters_nobody_decides_for_have_no_figure_for_a_hang() {
        for more in ["automatic = false", "authority = 'observe'", "promoter = 'none'"] {
            let service = clusters(&format!("[service.main.failover]\n{more}"));
            assert_eq!(figures(&service, None), (90_000, None), "{more}");
        }
    }

    fn told(service: &Service) -> String {
        explain_service(service).join("\n")
    }

    #[test]
    fn joined_clusters_are_explained() {
        let expected = "\
service main (cockroach), probe startup, promoter cockroach_cloud, authority self: decides by itself
  listener 127.0.0.1:26257 → active, at most 10000 connections
  backend east is cluster 00000000-0000-0000-0000-000000000001, its host read from the API at start, weight 100, starts as primary
  backend west at west.example.com:26257 is cluster 00000000-0000-0000-0000-000000000002, weight 10, starts as standby
  replication by the Cloud API at https://cockroachlabs.cloud, calls given up after 10s, the stream found by its direction, replicated_time refreshed every 30s
  an automatic failover goes to the latest consistent time
  a stream that lacks more than 2m (max_lag) is failed over by an operator alone
  from a failure of the active side to the decision, at worst:
    crash  150 s (probes in a row that must fail: 3; the stream must show nothing of the primary for 120 s from the first one, with replicated_time refreshed every 30s)
    hang   160 s
    shorter: in [service.main.probe]: interval = \"10s\" (the first probe fails 20s earlier)";
        assert_eq!(told(&clusters("")), expected);
        let at = CLUSTERS.replace(
            "secret_file = '/s'",
            "secret_file = '/s'\nstream_id = '00000000-0000-0000-0000-00000000000A'\nfailover_at = '2026-01-31T12:00:00Z'",
        );
        let text = told(&joined(&at));
        assert!(text.contains(", stream 00000000-0000-0000-0000-00000000000a, "), "{text}");
        assert!(text.contains(" goes to 2026-01-31T12:00:00Z, if that can be reached when it is needed\n"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        let delay = told(&clusters("[service.main.failover]\ndelay = '90s'"));
        assert!(delay.contains("shorter: in [service.main.failover]: delay = \"1m\" (it adds 30s to both)"), "{delay}");
        assert!(!told(&clusters("[service.main.failover]\nauthority = 'observe'")).contains("an automatic failover"));
    }

    #[test]
    fn self_hosted_clusters_are_explained() {
        let example = include_str!("../../config/cockroach-self-hosted.toml");
        let text = told(&joined(example));
        for line in [
            "  replication of virtual cluster main by SQL as pgpivot without a password, replicated_time refreshed every 30s\n",
            "  a promotion stops main on the old side when it can be reached, and makes it the default target of the new one\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn what_promotes_without_seeing_whom_a_standby_follows_says_so() {
        let promotes =
            "[service.main.failover]\npromoter = 'command'\npromote_command = ['true']\nwitness = 'optional'";
        let line = "probe tcp cannot show whom a standby follows: after a failover none is promoted before `proxyctl rejoin`, or by force";
        assert!(told(&pair(&format!("[service.main.probe]\nkind = 'tcp'\n{promotes}"))).contains(line));
        assert!(!told(&pair(promotes)).contains("rejoin"));
    }

    #[test]
    fn without_traffic_the_next_probe_is_the_first_to_notice() {
        let idle = PAIR.replace("[[service.main.listener]]", "").replace("address = '127.0.0.1:26257'", "");
        let main = config(&idle).services.remove(0);
        assert_eq!(figures(&main, Some(3)), (400, Some(5200)));
        let text = format!("{idle}\n[service.main.probe]\npassive = false");
        assert_eq!(figures(&config(&text).services[0], Some(3)), (3200, Some(5200)));
    }

    #[test]
    fn what_nobody_decides_has_no_figure_for_a_hang() {
        for more in [
            "[service.main.failover]\nautomatic = false",
            "[service.main.failover]\nauthority = 'observe'",
            "[service.main.failover]\npromoter = 'none'",
            "[service.main.failover]\nmax_per_day = 0",
        ] {
            assert_eq!(figures(&pair(more), Some(3)), (1000, None), "{more}");
        }
    }

    #[test]
    fn a_valid_configuration_is_explained() {
        let loaded = source::Loaded { config: config(PAIR), warnings: vec!["look here".into()], files: Vec::new() };
        let report = report(Some(Path::new("pgpivot.toml")), Ok(loaded));
        let expected = "\
pgpivot.toml: ok
admin http://127.0.0.1:8404, no tokens
state ./pgpivot-state

service main (postgres), probe sql, promoter postgres, authority self: decides by itself
  listener 127.0.0.1:26257 → active, at most 10000 connections
  backend us-east at db1:5432, weight 100, starts as primary
  backend us-west at db2:5432, weight 10, starts as standby
  from a failure of the active side to the decision, at worst:
    crash  0.4 s (every connection ended, connects refused, the standby's receiver gone)
    hang   32.5 s (with wal_receiver_timeout = 60s on the standby, PostgreSQL's default)
    shorter: on each standby: ALTER SYSTEM SET wal_receiver_timeout = '3s'; SELECT pg_reload_conf();
    shorter: in [service.main.probe]: detection = \"fast\"

warning: look here
";
        assert_eq!(report, CheckReport { text: expected.into(), problems: 0, exit: 0 });
    }

    #[test]
    fn when_all_is_as_fast_as_can_be_there_is_nothing_to_advise() {
        let fast = pair("[service.main.probe]\ndetection = 'fast'");
        let lines = explain_detection(&fast, Some(Duration::from_secs(3)));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[1], "hang   2.5 s (with wal_receiver_timeout = 3s on the standby)");
    }

    #[test]
    fn an_invalid_configuration_lists_its_problems() {
        let problems = vec![Problem::new("a.b", "is wrong"), Problem::new("", "and so is this")];
        let report = report(None, Err(source::ConfigError { problems }));
        let text = "environment: 2 problems\n  a.b: is wrong\n  and so is this\n";
        assert_eq!(report, CheckReport { text: text.into(), problems: 2, exit: 2 });
    }
}
