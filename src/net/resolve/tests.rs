//! Names against a name server on a script: TTLs, changes, failures.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::*;

#[tokio::test]
async fn literals_and_localhost_need_no_name_server() {
    let resolver = Resolver::with_config(ResolverConfig::default(), PathBuf::from("/nonexistent"));
    for (host, expected) in [("10.0.0.7:1", "10.0.0.7:1"), ("[::1]:2", "[::1]:2"), ("LocalHost:3", "127.0.0.1:3")] {
        assert_eq!(resolver.resolve(&at(host)).await, Ok(vec![expected.parse().unwrap()]));
    }
}

#[tokio::test]
async fn the_hosts_file_outranks_the_name_server_and_is_read_again() {
    let (server, file) = (NameServer::start("10.9.9.9", 60).await, tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), "10.0.0.2 db.test db\n10.0.0.1 db.test # both\n").unwrap();
    let resolver = Resolver::with_config(server.config(), file.path().to_owned());
    let both = vec!["10.0.0.1:5".parse().unwrap(), "10.0.0.2:5".parse().unwrap()];
    assert_eq!(resolver.resolve(&at("db.test:5")).await, Ok(both));
    std::fs::write(file.path(), "").unwrap();
    resolver.expire();
    assert_eq!(resolver.resolve(&at("db.test:5")).await, Ok(vec!["10.9.9.9:5".parse().unwrap()]));
}

#[tokio::test]
async fn an_answer_is_kept_for_its_ttl_within_one_second_and_one_minute() {
    for (ttl, expected) in [(0, 1), (20, 20), (86_400, 60)] {
        let server = NameServer::start("10.0.0.1", ttl).await;
        let resolver = server.resolver();
        resolver.resolve(&at("db.test:5")).await.unwrap();
        let asked = server.asked();
        resolver.resolve(&at("db.test:6")).await.unwrap();
        assert_eq!(server.asked(), asked, "a name is asked for once, whatever the port");
        let left = lock(&resolver.known)["db.test"].until - Instant::now();
        assert_eq!(left.as_secs_f64().ceil() as u64, expected, "{ttl}: {left:?}");
    }
}

#[tokio::test]
async fn a_new_answer_replaces_the_old_one() {
    let server = NameServer::start("10.0.0.1 10.0.0.2", 60).await;
    let resolver = server.resolver();
    assert_eq!(resolver.resolve(&at("db.test:5")).await.unwrap().len(), 2);
    server.says("10.0.0.3");
    resolver.expire();
    assert_eq!(resolver.resolve(&at("db.test:5")).await, Ok(vec!["10.0.0.3:5".parse().unwrap()]));
}

#[tokio::test]
async fn the_last_good_answer_stands_while_name_servers_fail_or_deny() {
    let server = NameServer::start("10.0.0.1", 60).await;
    let resolver = server.resolver();
    let good = resolver.resolve(&at("db.test:5")).await;
    for trouble in ["servfail", "nxdomain"] {
        server.says(trouble);
        resolver.expire();
        assert_eq!(resolver.resolve(&at("db.test:5")).await, good, "{trouble}");
    }
    assert_eq!(resolver.resolve(&at("other.test:5")).await, Err(ResolveError::NotFound));
    server.says("servfail");
    assert_eq!(resolver.resolve(&at("third.test:5")).await, Err(ResolveError::NoAnswer));
    assert_eq!(resolver.resolve(&at("a..b:5")).await, Err(ResolveError::BadName));
}

#[tokio::test]
async fn one_address_family_without_an_answer_does_not_take_its_addresses_away() {
    let server = NameServer::start("10.0.0.1 fd00::1", 60).await;
    let resolver = server.resolver();
    assert_eq!(resolver.resolve(&at("db.test:5")).await.unwrap().len(), 2);
    server.says("10.0.0.2 no-v6");
    resolver.expire();
    let both = vec!["10.0.0.2:5".parse().unwrap(), "[fd00::1]:5".parse().unwrap()];
    assert_eq!(resolver.resolve(&at("db.test:5")).await, Ok(both));
}

impl Resolver {
    fn expire(&self) {
        lock(&self.known).values_mut().for_each(|answer| answer.until = Instant::now());
    }
}

fn at(text: &str) -> HostPort {
    match text.rsplit_once(':') {
        Some((host, port)) if host.contains("..") => HostPort { host: host.into(), port: port.parse().unwrap() },
        _ => text.parse().unwrap(),
    }
}

/// Answers every question with what it was told last: addresses, `nxdomain`, `servfail`, or `no-v6` = fails for AAAA.
pub(crate) struct NameServer {
    port: u16,
    words: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl NameServer {
    pub(crate) async fn start(words: &str, ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let words = Arc::new(Mutex::new(words.to_owned()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (said, count) = (Arc::clone(&words), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                let words = lock(&said).clone();
                let reply = reply(&Message::from_vec(&buffer[..n]).unwrap(), &words, ttl);
                let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
            }
        });
        Self { port, words, asked, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn says(&self, words: &str) {
        *lock(&self.words) = words.to_owned();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn config(&self) -> ResolverConfig {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.port;
        let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![connection]);
        ResolverConfig::from_parts(None, vec![], vec![server])
    }

    pub(crate) fn resolver(&self) -> Resolver {
        Resolver::with_config(self.config(), PathBuf::from("/nonexistent"))
    }
}

fn reply(question: &Message, words: &str, ttl: u32) -> Message {
    let query = question.queries[0].clone();
    let v6 = query.query_type() == RecordType::AAAA;
    let code = match words {
        "nxdomain" => ResponseCode::NXDomain,
        "servfail" => ResponseCode::ServFail,
        _ if words.contains("no-v6") && v6 => ResponseCode::ServFail,
        _ => ResponseCode::NoError,
    };
    let mut reply = Message::error_msg(question.id, question.op_code, code);
    reply.add_query(query.clone());
    for ip in words.split(' ').filter_map(|word| word.parse::<IpAddr>().ok()).filter(|ip| ip.is_ipv6() == v6) {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(ip.into()),
            IpAddr::V6(ip) => RData::AAAA(ip.into()),
        };
        reply.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
    }
    reply
}
