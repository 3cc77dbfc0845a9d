//! What reads bytes of strangers, one function each, for the fuzzers: `tests/fuzz.rs` on the stable compiler and
//! `fuzz/` for libFuzzer. Behind the feature `fuzz`; no part of what this crate offers.

mod samples;
mod targets;

/// Something that reads what somebody else wrote.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo fuzz run NAME` knows it.
    pub name: &'static str,
    /// Reads the bytes. Panics when a law of what it reads is broken.
    pub read: fn(&[u8]),
    /// What is really written there; mutations start from these.
    pub samples: &'static [&'static [u8]],
    /// So many bytes may be allocated, all in all, for each byte that is read, besides [`BASE`].
    pub per_byte: usize,
}

/// Bytes that any reading may allocate, however little it reads.
pub const BASE: usize = 256 << 10;

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "first_packet", read: targets::first_packet, samples: samples::FIRST_PACKET, per_byte: 16 },
    Target { name: "server_messages", read: targets::server_messages, samples: samples::SERVER, per_byte: 64 },
    Target { name: "login_relay", read: targets::login_relay, samples: samples::SERVER, per_byte: 64 },
    Target { name: "config", read: targets::config, samples: samples::CONFIG, per_byte: 2048 },
    Target { name: "dotenv", read: targets::dotenv, samples: samples::DOTENV, per_byte: 2048 },
    Target { name: "cloud_reply", read: targets::cloud_reply, samples: samples::CLOUD, per_byte: 1024 },
    Target { name: "patroni_reply", read: targets::patroni_reply, samples: samples::PATRONI, per_byte: 512 },
    Target { name: "conninfo", read: targets::conninfo, samples: samples::CONNINFO, per_byte: 512 },
    Target { name: "sync_names", read: targets::sync_names, samples: samples::SYNC_NAMES, per_byte: 512 },
    Target { name: "command", read: targets::command, samples: samples::COMMAND, per_byte: 1024 },
    Target { name: "words", read: targets::words, samples: samples::WORDS, per_byte: 64 },
];

/// Gives these bytes to the target of that name.
///
/// # Panics
/// When there is none, and when what it reads breaks a law.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    assert!(target.is_some(), "no fuzz target is called {name}");
    if let Some(target) = target {
        (target.read)(bytes);
    }
}
