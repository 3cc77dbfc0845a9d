//! `[service.NAME.failover]`: who decides, who promotes, what keeps the old side out, and how long anybody waits.
//! What must not be combined is refused here with a way out.

use std::time::Duration;

use super::super::raw::{self, Raw, Text};
use super::super::{
    Authority, Failover, ForeignPromotion, HttpProbe, Kind, Login, Probe, ProbeKind, Promoter, Replication, SyncRule,
    WitnessRule,
};
use super::comeback::Comeback;
use super::replication::Table;
use super::section::{Section, parse_size, shown};
use super::service::Defaults;
use super::{Problems, command, probe, standbys};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Word {
    None,
    Command,
    Postgres,
    Replication(Table),
}

/// What depends on nothing but itself.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    automatic: bool,
    pub(super) authority: Authority,
    witness: WitnessRule,
    pub(super) standby_serves: bool,
}

/// What is known of the service already.
#[derive(Clone, Copy)]
pub(super) struct Steered<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) replication: Option<&'a Replication>,
}

impl Steered<'_> {
    /// STOP SERVICE is a fence, too.
    fn stops_service(self) -> bool {
        matches!(self.replication, Some(Replication::Sql(sql)) if sql.stop_service)
    }
}

pub(super) fn build(
    service: &str,
    raw: &raw::Failover,
    steered: Steered<'_>,
    probe: &Probe,
    files: &Raw,
    problems: &mut Problems,
) -> Failover {
    let defaults = steered.defaults;
    let mut section = Section::new(format!("{service}.failover"), problems);
    let s = &mut section;
    let authorities =
        [("self", Authority::SelfDecides), ("observe", Authority::Observe), ("patroni", Authority::Patroni)];
    let witnesses = [("required", WitnessRule::Required), ("optional", WitnessRule::Optional)];
    let policy = Policy {
        automatic: s.flag(&raw.automatic, true),
        authority: s.choice("authority", &raw.authority, &authorities, &[]).unwrap_or(Authority::SelfDecides),
        witness: match s.choice("witness", &raw.witness, &witnesses, &[]) {
            Some(rule) => rule,
            None if raw.witness.is_none() => WitnessRule::Required,
            // That word is the problem, and not what would follow from the default.
            None => WitnessRule::Optional,
        },
        standby_serves: s.flag(&raw.standby_serves, false),
    };
    let word = promoter_word(s, service, raw, policy, defaults, probe);
    let promoter = promoter(s, raw, word, probe, files);
    check_authority(s, service, policy, defaults, probe);
    check_witness(s, service, raw, policy, word, defaults, probe);
    let alone =
        matches!(&probe.kind, ProbeKind::Http(http) if http.primary_only || HttpProbe::is_primary_path(&http.path));
    if word == Word::Command && alone {
        s.problem(
            "promoter",
            format!(
                "\"command\" promotes a standby that is up, and the check of [{service}.probe] passes on the primary \
                 alone; write an http.path that a standby passes, too (\"/health\" of Patroni), or kind = \"sql\""
            ),
        );
    }
    let fence_command = command::argv(s, "fence_command", &raw.fence_command);
    let fences = [("required", true), ("optional", false)];
    let fence_required = s.choice("fence", &raw.fence, &fences, &[]).unwrap_or(false);
    if fence_required && fence_command.is_none() && !steered.stops_service() {
        let stop = match steered.replication {
            Some(Replication::Sql(_)) => ", or stop_service = true",
            Some(Replication::Cloud(_)) | None => "",
        };
        s.missing(
            "fence_command",
            format!(
                "is missing, and fence = \"required\" lets nobody be promoted without it; write the command that stops \
                 the old server, for example [\"/usr/local/bin/fence\", \"{{backend}}\"]{stop}, or fence = \"optional\""
            ),
        );
    }
    let foreign = [("follow", ForeignPromotion::Follow), ("block", ForeignPromotion::Block)];
    let comeback = Comeback::build(s, service, raw, policy, word, sees_lines(defaults, probe));
    let sync = [("report", SyncRule::Report), ("clear", SyncRule::Clear), ("adapt", SyncRule::Adapt)];
    let standbys = standbys::build(s, service, raw, policy, word == Word::Postgres, defaults.kind, probe);
    let waits = Waits::build(s, raw, defaults);
    let lag = Lag::build(s, raw, defaults.kind);
    let max_held = s.number("max_held", &raw.max_held, 0..=1_000_000, 1000);
    Failover {
        automatic: policy.automatic,
        delay: waits.delay,
        cooldown: waits.cooldown,
        max_per_day: s.number("max_per_day", &raw.max_per_day, 0..=100, 3),
        max_lag: lag.bytes,
        max_replication_lag: lag.time,
        max_disconnect: waits.max_disconnect,
        witness: policy.witness,
        hold_timeout: waits.hold_timeout,
        max_held,
        max_held_per_address: s.number("max_held_per_address", &raw.max_held_per_address, 1..=1_000_000, 200),
        release_rate: s.number("release_rate", &raw.release_rate, 1..=1_000_000, 1000),
        drain_timeout: waits.drain_timeout,
        promoter,
        promote_timeout: waits.promote_timeout,
        authority: policy.authority,
        fence_command,
        fence_required,
        soft_fence: comeback.soft_fence,
        rejoin_command: comeback.rejoin_command,
        rejoin_timeout: comeback.rejoin_timeout,
        standby_serves: policy.standby_serves,
        foreign_promotion: s.choice("foreign_promotion", &raw.foreign_promotion, &foreign, &[]),
        sync_after_failover: s
            .choice("sync_after_failover", &raw.sync_after_failover, &sync, &[])
            .unwrap_or(SyncRule::Report),
        survivors: standbys.survivors,
        follow_command: standbys.follow_command,
        recovery_patience: waits.recovery_patience,
        restart_grace: waits.restart_grace,
        hung_grace: waits.hung_grace,
        verify_wait: waits.verify_wait,
    }
}

/// `max_lag`: bytes of the log, or where a stream is only known by its time that time.
struct Lag {
    bytes: u64,
    time: Duration,
}

impl Lag {
    fn build(s: &mut Section<'_>, raw: &raw::Failover, kind: Kind) -> Self {
        const KEY: &str = "max_lag";
        let mut lag = Self { bytes: 16 << 20, time: Duration::from_secs(120) };
        let text = raw.max_lag.as_ref().map_or("", |Text(text)| text.as_str());
        let is_time = humantime::parse_duration(text.trim()).is_ok();
        match kind {
            Kind::Postgres if is_time && parse_size(text).is_none() => {
                let message = "is a time, and with kind = \"postgres\" it is a size: what a standby may lack of the \
                               log; write for example \"16MiB\"";
                s.problem(KEY, format!("{} {message}", shown(text)));
            }
            Kind::Postgres => lag.bytes = s.size(KEY, &raw.max_lag, 0..=1 << 50, lag.bytes),
            Kind::Cockroach if !is_time && parse_size(text).is_some() => {
                let message = "is a size, and with kind = \"cockroach\" it is a time: what the stream may lack of what \
                               was committed; write for example \"2m\"";
                s.problem(KEY, format!("{} {message}", shown(text)));
            }
            Kind::Cockroach => {
                let range = Duration::from_secs(1)..=Duration::from_secs(86400);
                lag.time = s.duration(KEY, &raw.max_lag, range, lag.time);
            }
        }
        lag
    }
}

struct Waits {
    delay: Duration,
    cooldown: Duration,
    max_disconnect: Duration,
    hold_timeout: Duration,
    drain_timeout: Duration,
    promote_timeout: Duration,
    recovery_patience: Duration,
    restart_grace: Duration,
    hung_grace: Duration,
    verify_wait: Duration,
}

impl Waits {
    fn build(s: &mut Section<'_>, raw: &raw::Failover, defaults: &Defaults) -> Self {
        let seconds = Duration::from_secs;
        let (none, second, minute, hour, day) = (seconds(0), seconds(1), seconds(60), seconds(3600), seconds(86400));
        Self {
            delay: s.duration("delay", &raw.delay, none..=hour, defaults.delay),
            cooldown: s.duration("cooldown", &raw.cooldown, none..=day, minute),
            max_disconnect: s.duration("max_disconnect", &raw.max_disconnect, second..=hour, seconds(10)),
            hold_timeout: s.duration("hold_timeout", &raw.hold_timeout, none..=hour, defaults.hold_timeout),
            drain_timeout: s.duration("drain_timeout", &raw.drain_timeout, none..=hour, seconds(5)),
            promote_timeout: s.duration(
                "promote_timeout",
                &raw.promote_timeout,
                second..=if defaults.kind == Kind::Cockroach { day } else { hour },
                defaults.promote_timeout,
            ),
            recovery_patience: s.duration("recovery_patience", &raw.recovery_patience, none..=hour, seconds(30)),
            restart_grace: s.duration("restart_grace", &raw.restart_grace, none..=hour, seconds(10)),
            hung_grace: s.duration("hung_grace", &raw.hung_grace, second..=hour, seconds(10)),
            verify_wait: s.duration("verify_wait", &raw.verify_wait, none..=seconds(300), defaults.verify_wait),
        }
    }
}

/// Who promotes: as written, else what the rest of the policy makes obvious.
fn promoter_word(
    s: &mut Section<'_>,
    service: &str,
    raw: &raw::Failover,
    policy: Policy,
    defaults: &Defaults,
    probe: &Probe,
) -> Word {
    let words = [
        ("none", Word::None),
        ("command", Word::Command),
        ("postgres", Word::Postgres),
        ("cockroach_cloud", Word::Replication(Table::Cloud)),
        ("cockroach_sql", Word::Replication(Table::Sql)),
    ];
    let written = s.choice("promoter", &raw.promoter, &words, &[]);
    let promotes = policy.authority == Authority::SelfDecides && !policy.standby_serves;
    let by_default = match (promotes, defaults.kind, defaults.table) {
        (false, ..) | (true, Kind::Cockroach, None) => Word::None,
        (true, Kind::Postgres, _) => Word::Postgres,
        (true, Kind::Cockroach, Some(table)) => Word::Replication(table),
    };
    let word = written.unwrap_or(by_default);
    if s.faulty("promoter") {
        return Word::None;
    }
    if let Some(message) = refuse(word, raw.promoter.is_some(), service, policy, defaults, probe) {
        // What is wrong itself will be read anew before this can be judged.
        let unread = match word {
            Word::Replication(table) => format!("{service}.{}", table.word()),
            _ => format!("{service}.probe.kind"),
        };
        if !s.problems.touches(&unread) {
            s.problem("promoter", message);
        }
    }
    word
}

/// Why nobody can promote in that way here, and what would be right.
fn refuse(
    word: Word,
    written: bool,
    service: &str,
    policy: Policy,
    defaults: &Defaults,
    probe: &Probe,
) -> Option<String> {
    let unused = |because: &str| Some(format!("is never used with {because}; remove one of the two"));
    match word {
        Word::None => None,
        _ if policy.authority == Authority::Observe => unused("authority = \"observe\", where somebody else promotes"),
        _ if policy.authority == Authority::Patroni => unused("authority = \"patroni\", where Patroni promotes"),
        _ if policy.standby_serves => unused("standby_serves = true, where every side serves already"),
        Word::Command => None,
        Word::Replication(table) => refuse_replication(table, service, defaults),
        Word::Postgres if defaults.kind == Kind::Cockroach => Some(format!(
            "\"postgres\" promotes PostgreSQL standbys, and this is kind = \"cockroach\"; remove it and write \
             [{service}.cockroach_cloud] or [{service}.cockroach_sql], or write \"none\" or \"command\""
        )),
        Word::Postgres if matches!(probe.kind, ProbeKind::Sql { .. }) => None,
        Word::Postgres => {
            let is = if written { "is" } else { "is by default" };
            Some(format!(
                "{is} \"postgres\", which must see roles, timelines and replication, and a probe of kind {} does not; \
                 write kind = \"sql\" in [{service}.probe], or promoter = \"none\" if nobody is to be promoted here",
                probe.kind.as_str()
            ))
        }
    }
}

/// The promoter and its table come together.
fn refuse_replication(table: Table, service: &str, defaults: &Defaults) -> Option<String> {
    let word = table.word();
    match defaults.table {
        _ if defaults.kind == Kind::Postgres => Some(format!(
            "\"{word}\" fails CockroachDB clusters over, and this is kind = \"postgres\"; write \"postgres\", \
             \"command\" or \"none\""
        )),
        Some(there) if there == table => None,
        Some(there) => Some(format!(
            "\"{word}\" needs [{service}.{word}], and there is [{service}.{0}]; write promoter = \"{0}\", or the other \
             table",
            there.word()
        )),
        None => {
            let needs = match table {
                Table::Cloud => "the API's secret key, and a cluster_id at each backend",
                Table::Sql => "a user for the system virtual cluster",
            };
            Some(format!(
                "\"{word}\" needs [{service}.{word}], which is missing; write it with {needs}, or promoter = \"none\" if \
                 nobody is to be promoted here"
            ))
        }
    }
}

fn promoter(s: &mut Section<'_>, raw: &raw::Failover, word: Word, probe: &Probe, files: &Raw) -> Promoter {
    let argv = command::argv(s, "promote_command", &raw.promote_command);
    if argv.is_some() && word != Word::Command && !s.faulty("promoter") {
        s.problem("promote_command", "is never used without promoter = \"command\"; write that, or remove it");
    }
    if raw.promoter_login != raw::PromoterLogin::default() && word != Word::Postgres && !s.faulty("promoter") {
        s.problem("promoter_login", "is never used without promoter = \"postgres\"; write that, or remove it");
    }
    match word {
        Word::None => Promoter::None,
        Word::Command => {
            if argv.is_none() {
                s.missing(
                    "promote_command",
                    "is missing, and promoter = \"command\" runs it; write for example \
                     [\"/usr/local/bin/promote\", \"{backend}\"]",
                );
            }
            Promoter::Command(argv.unwrap_or_default())
        }
        Word::Postgres => Promoter::Postgres { login: promoter_login(s, &raw.promoter_login, probe, files) },
        Word::Replication(Table::Cloud) => Promoter::CockroachCloud,
        Word::Replication(Table::Sql) => Promoter::CockroachSql,
    }
}

/// The probe's login, but for what `promoter_login` says otherwise.
fn promoter_login(s: &mut Section<'_>, raw: &raw::PromoterLogin, probe: &Probe, files: &Raw) -> Login {
    let base = match &probe.kind {
        ProbeKind::Sql { login } => login.clone(),
        // Already refused; any login will do.
        _ => Login { user: "pgpivot".into(), database: "postgres".into(), password: None },
    };
    let file = s.path("promoter_login.password_file", &raw.password_file);
    let own = file.and_then(|file| files.secret(&file));
    let own = own.and_then(|text| probe::password(s, "promoter_login.password_file", text));
    let user = s.text("promoter_login.user", &raw.user);
    // Somebody else's password would only be refused.
    let inherited = if user.as_ref().is_some_and(|user| *user != base.user) { None } else { base.password };
    Login {
        user: user.unwrap_or(base.user),
        database: s.text("promoter_login.database", &raw.database).unwrap_or(base.database),
        password: own.or(inherited),
    }
}

fn check_authority(s: &mut Section<'_>, service: &str, policy: Policy, defaults: &Defaults, probe: &Probe) {
    if policy.authority == Authority::Observe && policy.standby_serves {
        s.problem(
            "authority",
            "\"observe\" follows a promotion, and with standby_serves = true there is none; remove one of the two",
        );
    } else if policy.authority == Authority::Observe && !sees_roles(defaults, probe) {
        let sees = match defaults.kind {
            Kind::Postgres => format!("kind = \"sql\" in [{service}.probe], or"),
            Kind::Cockroach => format!("[{service}.cockroach_cloud] or [{service}.cockroach_sql], or a probe of kind"),
        };
        s.problem(
            "authority",
            format!(
                "\"observe\" must see which side is primary, and this probe of kind {} does not; write {sees} \
                 \"http\" with a path that passes only on the primary and primary_only = true",
                probe.kind.as_str()
            ),
        );
    }
}

fn sees_roles(defaults: &Defaults, probe: &Probe) -> bool {
    sees_replication(defaults, probe) || probe.kind.primary_only()
}

/// A server tells its own; of clusters only the stream does.
fn sees_replication(defaults: &Defaults, probe: &Probe) -> bool {
    sees_lines(defaults, probe) || defaults.table.is_some()
}

fn sees_lines(defaults: &Defaults, probe: &Probe) -> bool {
    defaults.kind == Kind::Postgres && matches!(probe.kind, ProbeKind::Sql { .. })
}

/// A failover without an operator needs somebody who saw the primary die.
fn check_witness(
    s: &mut Section<'_>,
    service: &str,
    raw: &raw::Failover,
    policy: Policy,
    word: Word,
    defaults: &Defaults,
    probe: &Probe,
) {
    let promotes = policy.automatic && policy.authority == Authority::SelfDecides && word == Word::Command;
    let sees = sees_replication(defaults, probe);
    if !promotes || sees || policy.standby_serves || policy.witness == WitnessRule::Optional {
        return;
    }
    let is = if raw.witness.is_some() { "is" } else { "is by default" };
    let way = match defaults.kind {
        Kind::Postgres => format!("kind = \"sql\" in [{service}.probe]"),
        Kind::Cockroach => format!("[{service}.cockroach_cloud] or [{service}.cockroach_sql]"),
    };
    s.problem(
        "witness",
        format!(
            "{is} \"required\", but a probe of kind {} sees no replication, so no failover would ever be automatic; write \
             {way}, or witness = \"optional\" to promote on the probe's word alone, or automatic = false",
            probe.kind.as_str()
        ),
    );
}
