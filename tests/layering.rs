//! The house rules that a compiler does not know: which room may import which, what the pure rooms keep out, a head
//! comment in every file, the ceiling of 500 lines, where `unsafe` may stand. Reads source text; runs nothing of it.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "layering/lexer.rs"]
mod lexer;
#[path = "layering/rules.rs"]
mod rules;

use rules::{Source, TABLE, violations};
use std::fs;
use std::path::Path;

#[test]
fn the_tree_keeps_the_house_rules() {
    let tree = read_tree(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(tree.len() > 20, "only {} files found: the walk is broken", tree.len());
    let found = violations(&tree, &dependencies());
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_room_of_the_table_is_listed_once() {
    for (i, room) in TABLE.iter().enumerate() {
        assert!(!TABLE[..i].iter().any(|other| other.name == room.name), "{} is listed twice", room.name);
    }
}

/// Each planted file breaks one rule; the text must be part of the complaint.
#[test]
fn a_planted_violation_is_found() {
    let planted: &[(&str, &str, &str)] = &[
        ("src/store.rs", "use crate::listener::Listeners;", "`store` may not import `listener`"),
        ("src/store/file.rs", "use super::super::listener::Listeners;", "`store` may not import `listener`"),
        ("src/relay/opaque.rs", "fn f() { crate::admin::serve(); }", "`relay` may not import `admin`"),
        ("src/probe.rs", "use crate::{net::Session, promote::Effects};", "`probe` may not import `promote`"),
        ("src/probe.rs", "use crate::failover::machine::Machine;", "`probe` may not import `failover::machine`"),
        ("src/wire.rs", "use crate::net;", "`wire` may not import `net`"),
        ("src/main.rs", "use pgpivot::ctl::run;", "`main` may not import `ctl`"),
        ("src/daemon/driver.rs", "use crate::ctl::args;", "`daemon` may not import `ctl`"),
        ("src/failover/machine.rs", "use tokio::sync::mpsc;", "is pure and may not use `tokio`"),
        ("src/failover/machine.rs", "use std::time::{Duration, Instant};", "may not use `std::time::Instant`"),
        ("src/failover.rs", "fn f() { let t = std::time::SystemTime::now(); }", "may not use `std::time::SystemTime`"),
        ("src/wire/frame.rs", "use std::net::TcpStream;", "may not use `std::net::TcpStream`"),
        ("src/wire/frame.rs", "use std::net;", "may not use `std::net`"),
        ("src/wire/frame.rs", "use std::time::*;", "may not use `std::time::*`"),
        ("src/config/raw.rs", "fn f() { std::fs::read(\"x\"); }", "may not use `std::fs::read`"),
        ("src/config/validate.rs", "use super::source::load;", "is pure and may not import `config::source`"),
        ("src/routing/select.rs", "use getrandom::fill;", "is pure and may not use `getrandom`"),
        ("src/types.rs", "fn f() { jiff::Timestamp::now(); }", "reads a clock"),
        ("src/types.rs", "use crate::config::Config;", "`types` may not import `config`"),
        ("src/cellar.rs", "", "`cellar` is no room of the table"),
        ("src/store.rs", "fn f() { unsafe { g() } }", "`unsafe` may stand only in"),
        ("src/store.rs", "use anyhow::Result;", "`anyhow` may be used only in"),
        ("src/lib.rs", "pub fn f() {}", "lib.rs holds no code"),
        ("src/store/mod.rs", "", "mod.rs"),
        ("src/store/util.rs", "", "says nothing of what it holds"),
    ];
    for (path, body, complaint) in planted {
        let source = Source { path: (*path).into(), text: format!("//! Planted.\n{body}\n") };
        let found = violations(&[source], &dependencies());
        assert!(
            found.iter().any(|v| v.contains(complaint)),
            "{path}: `{body}` should bring `{complaint}`, found {found:?}"
        );
    }
}

#[test]
fn a_file_without_a_head_comment_is_found() {
    for text in ["use std::fmt;\n", "//!\nuse std::fmt;\n", "//! (to be written)\n", ""] {
        let source = Source { path: "src/store.rs".into(), text: text.into() };
        let found = violations(&[source], &dependencies());
        assert!(found.iter().any(|v| v.contains("head comment")), "{text:?}: {found:?}");
    }
}

#[test]
fn the_ceiling_counts_code_and_not_in_file_tests() {
    let lines = |n: usize| "fn f() {}\n".repeat(n);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(400));
    let fits = Source { path: "src/store.rs".into(), text: format!("//! Planted.\n{}{tests}", lines(499)) };
    assert_eq!(violations(&[fits], &dependencies()), Vec::<String>::new());
    let long = Source { path: "src/store.rs".into(), text: format!("//! Planted.\n{}{tests}", lines(500)) };
    let found = violations(&[long], &dependencies());
    assert!(found.iter().any(|v| v.contains("501 lines")), "{found:?}");
}

#[test]
fn what_is_allowed_is_not_complained_of() {
    let allowed: &[(&str, &str)] = &[
        ("src/store.rs", "use crate::failover::phase::Record;\nuse crate::types::Epoch;\nuse tokio::fs;"),
        ("src/store.rs", "// use crate::listener::Listeners;\n/* use crate::admin; /* nested */ */ fn f() {}"),
        (
            "src/store.rs",
            "fn f() -> &'static str { \"crate::listener unsafe\" }\nfn g() { r#\"\"crate::admin\"#; 'u'; }",
        ),
        ("src/store.rs", "#[cfg(test)]\nmod tests { use crate::sim::Backend; use super::*; }"),
        (
            "src/failover/machine.rs",
            "use std::time::Duration;\nuse std::net::{IpAddr, SocketAddr};\nuse super::phase::Phase;",
        ),
        ("src/failover/machine.rs", "#[cfg(test)]\nmod tests { use std::time::Instant; }"),
        ("src/relay/ring.rs", "fn f() { unsafe { g() } }"),
        ("src/store/tests.rs", "use crate::sim::Backend;"),
        ("src/daemon.rs", "use crate::{admin, listener, probe, promote, store};"),
        ("src/main.rs", "use anyhow::Context;\nuse pgpivot::daemon;"),
        ("src/ctl/render.rs", "use super::api::Api;\nuse crate::view::Status;"),
        ("src/lib.rs", "pub mod store;\npub mod types;"),
    ];
    for (path, body) in allowed {
        let source = Source { path: (*path).into(), text: format!("//! Planted.\n{body}\n") };
        assert_eq!(violations(&[source], &dependencies()), Vec::<String>::new(), "{path}: {body}");
    }
}

/// Every `.rs` file of the crate, tests and benches included.
fn read_tree(root: &Path) -> Vec<Source> {
    let mut tree = Vec::new();
    let mut todo = vec![root.join("src"), root.join("tests"), root.join("benches")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            tree.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
    tree.sort_by(|a, b| a.path.cmp(&b.path));
    tree
}

/// The crates that Cargo.toml names, as Rust spells them.
fn dependencies() -> Vec<String> {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let table = manifest["dependencies"].as_table().unwrap();
    table.keys().map(|name| name.replace('-', "_")).collect()
}
