//! The targets: each reads as the daemon would and checks what must be so whatever was read. Bytes that are no UTF-8
//! reach readers of text with replacement characters.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::cockroach_cloud::model;
use crate::cockroach_cloud::{ApiPath, fuzzed};
use crate::config::{Config, diff, env, raw, report, validate};
use crate::failover::sync_names::SyncNames;
use crate::net::conninfo::Conninfo;
use crate::patroni;
use crate::types::{HostPort, Lsn, Secret};
use crate::wire::backend_key::{KeyWatch, Seen};
use crate::wire::startup::{FirstPacket, for_cockroach, parameters, parse};
use crate::wire::{scram, sqlstate};

/// What a client says first.
pub(super) fn first_packet(bytes: &[u8]) {
    let (length, minor) = match parse(bytes) {
        FirstPacket::NeedMore { wanted } => {
            assert!(wanted > bytes.len() && wanted <= 10_000, "{wanted} wanted of {}", bytes.len());
            return;
        }
        FirstPacket::Cancel { length, .. } => (length, None),
        FirstPacket::Startup { length, minor } => (length, Some(minor)),
        _ => return,
    };
    let packet = &bytes[..length];
    assert_eq!(parse(packet), parse(bytes), "what follows a packet changes what it is");
    let Some(minor) = minor else { return };
    parameters(packet).for_each(drop);
    if let Ok(Some(passed)) = for_cockroach(packet) {
        assert_eq!(parse(&passed), FirstPacket::Startup { minor, length: passed.len() });
        assert_eq!(for_cockroach(&passed), Ok(None), "a name that is not for clients was passed on");
    }
}

/// What a server says to a session of ours.
pub(super) fn server_messages(bytes: &[u8]) {
    crate::net::session::fuzzed::read(bytes);
}

/// What server and client say while the one logs in at the other through us.
pub(super) fn login_relay(bytes: &[u8]) {
    if let Some(code) = sqlstate::error_code(bytes) {
        let again = sqlstate::error_response(sqlstate::Severity::Fatal, code, &String::from_utf8_lossy(bytes), None);
        assert_eq!(sqlstate::error_code(&again), Some(code));
    }
    if let Some(passed) = scram::without_binding(bytes) {
        assert_eq!(scram::without_binding(&passed), None, "an offer of channel binding was passed on");
    }
    let _ = scram::answer(bytes);
    let whole = KeyWatch::default().see(bytes);
    let mut watch = KeyWatch::default();
    let byte_by_byte = bytes.iter().map(|byte| watch.see(&[*byte])).find(|seen| *seen != Seen::More);
    if bytes.len() <= 32 << 10 {
        assert_eq!(whole, byte_by_byte.unwrap_or(Seen::More), "pieces make a difference");
    }
}

/// The configuration file.
pub(super) fn config(bytes: &[u8]) {
    let mut raw = raw::parse(&String::from_utf8_lossy(bytes));
    for (_, path) in raw.secret_files() {
        raw.files.insert(path, Secret::new("alice:0123456789abcdef".into()));
    }
    if let Ok((config, _)) = validate::build(raw, &env::Env::default(), 2) {
        differs_not_from_itself(&config);
    }
}

/// The `.env` file.
pub(super) fn dotenv(bytes: &[u8]) {
    let (variables, _) = env::parse_dotenv(&String::from_utf8_lossy(bytes), ".env");
    let _ = env::parse_endpoint(&variables);
    if let Ok((config, _)) = validate::build(raw::Raw::default(), &env::Env::parse(&variables), 2) {
        differs_not_from_itself(&config);
    }
}

fn differs_not_from_itself(config: &Config) {
    assert!(diff::diff(config, config).is_empty(), "a configuration differs from itself");
    for service in &config.services {
        let _ = report::explain_detection(service, None);
    }
}

/// What CockroachDB Cloud's API replies, to whichever call.
pub(super) fn cloud_reply(bytes: &[u8]) {
    fn read<T: DeserializeOwned>(bytes: &[u8]) {
        let _ = serde_json::from_slice::<T>(bytes);
    }
    read::<model::ClusterList>(bytes);
    read::<model::Cluster>(bytes);
    read::<model::NodeList>(bytes);
    read::<model::ReplicationStreamList>(bytes);
    read::<model::ReplicationStream>(bytes);
    read::<model::Disruptions>(bytes);
    read::<model::ConnectionString>(bytes);
    read::<model::Status>(bytes);
    fuzzed::read(&String::from_utf8_lossy(bytes));
}

/// What Patroni's API replies.
pub(super) fn patroni_reply(bytes: &[u8]) {
    if let Ok(cluster) = patroni::model::Cluster::parse(bytes) {
        let leader = cluster.leader().map(|leader| &leader.name);
        assert!(leader.is_none_or(|name| cluster.member(name).is_some()), "a leader that is no member");
    }
    let _ = patroni::model::history(bytes);
}

/// A standby's `primary_conninfo`.
pub(super) fn conninfo(bytes: &[u8]) {
    let Ok(read) = Conninfo::parse(&String::from_utf8_lossy(bytes)) else { return };
    assert_eq!(Conninfo::parse(&read.to_string()).as_ref(), Ok(&read), "what was written reads otherwise");
    let place = HostPort { host: "db2.example.com".into(), port: 5433 };
    let led = read.redirected(&place);
    assert!(led.leads_to(&place), "it does not lead where it was led");
    let written = Conninfo::parse(&led.to_string());
    assert!(written.is_ok_and(|written| written.leads_to(&place)), "once written, it leads elsewhere");
}

/// `synchronous_standby_names`.
pub(super) fn sync_names(bytes: &[u8]) {
    let Ok(Some(read)) = SyncNames::parse(&String::from_utf8_lossy(bytes)) else { return };
    assert_eq!(SyncNames::parse(&read.to_string()), Ok(Some(read.clone())), "what was written reads otherwise");
    if let Some(left) = read.narrowed(&["db2", "walreceiver"]) {
        assert!(left.number >= 1 && left.number <= read.number, "more are waited for than before");
        assert_eq!(SyncNames::parse(&left.to_string()), Ok(Some(left.clone())));
    }
}

/// The body and the query of a command to our own API.
pub(super) fn command(bytes: &[u8]) {
    crate::admin::fuzzed(bytes);
}

/// Single words: places, positions in the log, paths of the Cloud API.
pub(super) fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    reads_again::<HostPort>(&text);
    reads_again::<Lsn>(&text);
    reads_again::<model::ClusterId>(&text);
    let _ = ApiPath::from_str(&text);
    let _ = certificate(bytes);
}

fn reads_again<T: FromStr<Err: Debug + PartialEq> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        assert_eq!(written.parse::<T>().as_ref(), Ok(&read), "{written:?} reads otherwise");
    }
}

/// A listener's certificate and key, in one file.
fn certificate(bytes: &[u8]) -> bool {
    crate::config::certificate::Identity::parse(bytes, bytes).is_ok()
}
