//! The table of rooms and the check against it. The table is the one place that says who may import whom.

use super::lexer::{Token, UsedPath, paths, tokens_without_tests};

/// One source file.
#[derive(Debug)]
pub struct Source {
    /// From the crate's root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A room: `src/NAME.rs` and everything under `src/NAME/`.
#[derive(Debug)]
pub struct Room {
    /// As in `crate::NAME`.
    pub name: &'static str,
    /// Which of its files keep runtime, socket, file, clock and chance out.
    pub pure: Pure,
    /// What it may import besides itself, `types`, `view` and `backoff`.
    pub may: May,
}

/// Which files of a room are pure.
#[derive(Debug)]
pub enum Pure {
    /// Every one.
    All,
    /// These (as in `crate::config::raw`).
    These(&'static [&'static str]),
    /// None.
    None,
}

/// What a room may import.
#[derive(Debug)]
pub enum May {
    /// These rooms, or only these parts of them (`failover::action`).
    Import(&'static [&'static str]),
    /// Every room but these.
    ImportAllBut(&'static [&'static str]),
}

use May::{Import, ImportAllBut};

/// Everybody's words.
const SHARED: [&str; 3] = ["types", "view", "backoff"];

/// Who may import whom. A room that is not listed is an error. Rooms of later work are listed so that nothing built
/// before them stands in their way.
pub const TABLE: &[Room] = &[
    room("types", Pure::All, Import(&[])),
    room("backoff", Pure::All, Import(&[])),
    room("view", Pure::All, Import(&["types"])),
    room(
        "config",
        Pure::These(&["config", "config::raw", "config::env", "config::validate", "config::diff"]),
        Import(&[]),
    ),
    room("wire", Pure::All, Import(&[])),
    // `model` for what Patroni says.
    room("failover", Pure::All, Import(&["config", "patroni::model"])),
    // `config` for where its members answer.
    room("patroni", Pure::These(&["patroni::model"]), Import(&["config"])),
    room("routing", Pure::These(&["routing::snapshot", "routing::select"]), Import(&["config", "failover::action"])),
    room("net", Pure::None, Import(&["wire", "config"])),
    // `action` for the cadence at which the machine wants to be told.
    room(
        "probe",
        Pure::None,
        Import(&[
            "net",
            "wire",
            "config",
            "cockroach_cloud",
            "patroni",
            "failover::patroni",
            "failover::observation",
            "failover::replication",
            "failover::action",
        ]),
    ),
    // `observation` for the evidence it sends; `relay` for the orders it gives and the meters it reads.
    room("connections", Pure::None, Import(&["relay", "failover::observation"])),
    // `config` for the service whose effects it carries out.
    room(
        "promote",
        Pure::None,
        Import(&["net", "wire", "config", "cockroach_cloud", "patroni", "failover::action", "failover::phase"]),
    ),
    room(
        "cockroach_cloud",
        Pure::These(&[
            "cockroach_cloud::model",
            "cockroach_cloud::model::id",
            "cockroach_cloud::model::reading",
            "cockroach_cloud::model::word",
            "cockroach_cloud::operation",
            "cockroach_cloud::text",
        ]),
        Import(&[]),
    ),
    // `action` for the events of the history.
    room("store", Pure::None, Import(&["failover::phase", "failover::action"])),
    // `observation` for how a dial failed.
    room(
        "listener",
        Pure::None,
        Import(&[
            "config",
            "net",
            "wire",
            "routing",
            "relay",
            "connections",
            "failover::observation",
            "failover::action",
        ]),
    ),
    room("relay", Pure::None, Import(&["net"])),
    room("session", Pure::None, Import(&["net", "wire", "config", "routing", "relay", "connections"])),
    // `config` for its own addresses and tokens.
    room("admin", Pure::None, Import(&["view", "routing", "config", "failover::action", "failover::phase"])),
    room("follow", Pure::None, Import(&["routing::snapshot"])),
    // `config` for the pair of clusters that it works on; `failover` for the judge of a primary's silence.
    room(
        "pcr",
        Pure::These(&["pcr::survey", "pcr::schedule", "pcr::settings"]),
        Import(&["cockroach_cloud", "net", "wire", "view", "config", "failover::replication", "failover::witness"]),
    ),
    room(
        "client",
        Pure::These(&[
            "client::pool_manager::balance",
            "client::pool_manager::breaker",
            "client::pool_manager::primary",
            "client::pool_manager::reconnect",
            "client::pool_manager::report",
            "client::pool_manager::retry",
            "client::pool_manager::token",
        ]),
        Import(&["view", "backoff", "cockroach_cloud"]),
    ),
    // `config` for `check-config`, `action` for the commands it sends, `cockroach_cloud` for what `pcr` shows of the
    // cloud, `client` for `service`.
    room(
        "ctl",
        Pure::None,
        Import(&[
            "view",
            "pcr",
            "daemon",
            "client",
            "config",
            "cockroach_cloud",
            "failover::action",
            "failover::explain",
            "failover::phase",
        ]),
    ),
    // Feeds what reads bytes of strangers, wherever that stands.
    room(
        "fuzz",
        Pure::None,
        Import(&["admin", "cockroach_cloud", "config", "failover::sync_names", "net", "patroni", "wire"]),
    ),
    // `net` for the writer that it shows at work.
    room("demo", Pure::None, Import(&["daemon", "sim", "config", "net"])),
    room("sim", Pure::None, Import(&["wire", "cockroach_cloud::model"])),
    room("daemon", Pure::None, ImportAllBut(&["ctl", "client", "fuzz"])),
    room("main", Pure::None, Import(&["daemon", "demo", "config"])),
    room("proxyctl", Pure::None, Import(&["ctl"])),
];

const fn room(name: &'static str, pure: Pure, may: May) -> Room {
    Room { name, pure, may }
}

/// The only files where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["src/net/sockopt.rs", "src/relay/ring.rs"];
/// The only files where errors need no type.
const ANYHOW: [&str; 2] = ["src/main.rs", "src/bin/proxyctl.rs"];
/// What the pure rooms may use of other crates: data and text.
const PURE_CRATES: [&str; 12] = [
    "bytes",
    "crc32c",
    "fallible_iterator",
    "humantime",
    "jiff",
    "postgres_protocol",
    "secrecy",
    "serde",
    "serde_json",
    "subtle",
    "thiserror",
    "toml",
];
/// Parts of the standard library that touch the world, and what of them is only data.
const WORLD: [(&str, &[&str]); 8] = [
    ("net", &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError"]),
    ("time", &["Duration"]),
    ("io", &["ErrorKind"]),
    ("fs", &[]),
    ("os", &[]),
    ("env", &[]),
    ("process", &[]),
    ("thread", &[]),
];
/// Lines a file may have, in-file tests apart.
const CEILING: usize = 500;
/// File names that say nothing.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "manager", "misc", "shared"];

/// Every breach of the house rules in these files, one line each.
pub fn violations(tree: &[Source], dependencies: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for source in tree {
        let (tokens, test_lines) = tokens_without_tests(&source.text);
        let file = File { source, module: module_of(&source.path), tokens, dependencies };
        let mut say = |line: usize, what: String| found.push(format!("{}:{line}: {what}", source.path));
        check_shape(&file, test_lines, &mut say);
        if source.path.starts_with("src/") && !is_tests_of_a_room(&source.path) {
            check_escapes(&file, &mut say);
            check_imports(&file, &mut say);
        }
    }
    found.dedup();
    found
}

struct File<'a> {
    source: &'a Source,
    /// `["config", "raw"]` for `src/config/raw.rs`.
    module: Vec<String>,
    tokens: Vec<Token>,
    dependencies: &'a [String],
}

fn check_shape(file: &File<'_>, test_lines: usize, say: &mut impl FnMut(usize, String)) {
    let head = file.source.text.lines().next().unwrap_or_default();
    let words = head.strip_prefix("//!").map(str::trim).unwrap_or_default();
    if words.is_empty() || words == "(to be written)" {
        say(1, "has no head comment (`//!`) that says what it holds".into());
    }
    let lines = file.source.text.lines().count() - test_lines;
    if lines > CEILING && !is_tests_of_a_room(&file.source.path) {
        say(1, format!("has {lines} lines, tests apart; the ceiling is {CEILING}"));
    }
    let stem = file.source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if stem == "mod" {
        say(1, "write foo.rs beside foo/ instead of foo/mod.rs".into());
    }
    if EMPTY_NAMES.contains(&stem) {
        say(1, format!("the name `{stem}` says nothing of what it holds"));
    }
}

fn check_escapes(file: &File<'_>, say: &mut impl FnMut(usize, String)) {
    let path = file.source.path.as_str();
    for token in &file.tokens {
        if token.text == "unsafe" && !UNSAFE.contains(&path) {
            say(token.line, format!("`unsafe` may stand only in {}", UNSAFE.join(", ")));
        }
        if token.text == "anyhow" && !ANYHOW.contains(&path) {
            say(token.line, format!("`anyhow` may be used only in {}", ANYHOW.join(", ")));
        }
        if path == "src/lib.rs"
            && matches!(token.text.as_str(), "fn" | "struct" | "enum" | "trait" | "impl" | "use" | "{")
        {
            say(token.line, "lib.rs holds no code, only the map".into());
        }
    }
}

fn check_imports(file: &File<'_>, say: &mut impl FnMut(usize, String)) {
    if file.source.path == "src/lib.rs" {
        return;
    }
    let Some(room) = TABLE.iter().find(|room| room.name == file.module[0]) else {
        say(1, format!("`{}` is no room of the table in tests/layering/rules.rs", file.module[0]));
        return;
    };
    let this = file.module.join("::");
    for used in paths(&file.tokens) {
        if is_pure(&this)
            && let Some(outside) = touches_world(&used, file.dependencies)
        {
            say(used.line, format!("`{this}` is pure and may not use `{outside}`"));
        }
        if is_pure(&this) && used.segments[0] == "jiff" && used.segments.last().is_some_and(|s| s == "now") {
            say(used.line, format!("`{this}` is pure, and `{}` reads a clock", used.segments.join("::")));
        }
        let Some(target) = inside_crate(&file.module, &used) else {
            continue;
        };
        let Some(head) = target.first() else { continue };
        let named = target.iter().take(2).cloned().collect::<Vec<_>>().join("::");
        if *head == file.module[0] {
            if is_pure(&this) && target.len() > 1 && is_module(&named) && !is_pure(&named) {
                say(used.line, format!("`{this}` is pure and may not import `{named}`, which is not"));
            }
        } else if !may_import(room, &target) {
            let shown = if is_part_listed(head) { &named } else { head };
            say(used.line, format!("`{}` may not import `{shown}`", room.name));
        }
    }
}

fn may_import(room: &Room, target: &[String]) -> bool {
    let head = target[0].as_str();
    // The bare crate root (`crate::*`, a macro of ours) names no room.
    if !TABLE.iter().any(|r| r.name == head) || (SHARED.contains(&head) && !SHARED.contains(&room.name)) {
        return true;
    }
    match &room.may {
        ImportAllBut(rooms) => !rooms.contains(&head) && !matches!(head, "main" | "proxyctl"),
        Import(rooms) => rooms.iter().any(|allowed| match allowed.split_once("::") {
            None => *allowed == head,
            Some((outer, part)) => outer == head && target.get(1).is_some_and(|t| t == part),
        }),
    }
}

/// Where a path leads inside this crate, from its root; `None` when it leads outside or stays local.
fn inside_crate(module: &[String], used: &UsedPath) -> Option<Vec<String>> {
    let ups = used.segments.iter().take_while(|s| *s == "super").count();
    match used.segments[0].as_str() {
        "crate" | "pgpivot" => Some(used.segments[1..].to_vec()),
        "super" if ups > used.depth => {
            let kept = (module.len() + used.depth).checked_sub(ups)?;
            let mut target = module.get(..kept)?.to_vec();
            target.extend(used.segments[ups..].iter().cloned());
            Some(target)
        }
        _ => None,
    }
}

/// The path, when it leads to a runtime, a socket, a file, a clock or chance.
fn touches_world(used: &UsedPath, dependencies: &[String]) -> Option<String> {
    let head = used.segments[0].as_str();
    if dependencies.iter().any(|d| d == head) && !PURE_CRATES.contains(&head) {
        return Some(head.to_owned());
    }
    if head != "std" {
        return None;
    }
    let (_, data) = WORLD.iter().find(|(part, _)| used.segments.get(1).is_some_and(|s| s == part))?;
    let item = used.segments.get(2).map(String::as_str);
    let harmless = item.is_some_and(|item| data.contains(&item));
    (!harmless).then(|| used.segments[..used.segments.len().min(3)].join("::"))
}

fn is_pure(module: &str) -> bool {
    let head = module.split("::").next().unwrap_or_default();
    TABLE.iter().find(|room| room.name == head).is_some_and(|room| match room.pure {
        Pure::All => true,
        Pure::These(files) => files.contains(&module),
        Pure::None => false,
    })
}

/// Does `config::source` name a file, as opposed to an item of `config`?
fn is_module(path: &str) -> bool {
    path.rsplit("::").next().is_some_and(|last| last.starts_with(|c: char| c.is_lowercase()))
}

fn is_part_listed(head: &str) -> bool {
    TABLE
        .iter()
        .any(|room| matches!(&room.may, Import(rooms) if rooms.iter().any(|r| r.starts_with(&format!("{head}::")))))
}

/// In-file tests that were given a file of their own.
fn is_tests_of_a_room(path: &str) -> bool {
    path.starts_with("src/") && (path.ends_with("/tests.rs") || path.contains("/tests/"))
}

fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_start_matches("bin/").trim_end_matches(".rs");
    inner.split('/').map(str::to_owned).collect()
}
