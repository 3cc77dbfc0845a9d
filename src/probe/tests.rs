//! Probes against servers on a script: what each way of answering is taken for, and in which pace probes start.

mod promotion;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::SystemTime;

use tokio::time::timeout_at;

use super::*;
use crate::config::{HttpProbe, env::Env, raw, validate};
use crate::failover::observation::{Facts, Failure, Role, Unknown, Verdict};
use crate::net::resolve::tests::NameServer;
use crate::net::scripted::{Peer, Scripted, complaint, message, ready};
use crate::types::{Moment, WallTime};

#[test]
fn connections_of_a_daemon_bear_its_name_its_service_and_the_epoch() {
    assert_eq!(application_name("host:17", "main", Epoch(4)), "pgpivot/host:17/main/4");
}

#[test]
fn long_names_are_cut_to_what_postgresql_keeps_and_stay_distinct() {
    let long = "a-very-long-host-name.in.some.data.center.example.com:4";
    let name_of = |daemon: String| application_name(&daemon, "main", Epoch(7));
    let (one, two) = (name_of(format!("{long}1")), name_of(format!("{long}2")));
    assert!(one.len() <= MAX_APPLICATION_NAME && one.ends_with("/main/7"), "{one}");
    assert_ne!(one, two);
    let full = application_name(long, "a service with a rather long name, and a / in it", Epoch(u64::MAX));
    assert!(full.len() <= MAX_APPLICATION_NAME, "{full}");
    assert_eq!(full.split('/').count(), 4);
}

#[tokio::test]
async fn the_startup_probe_reads_health_from_the_first_answer() {
    let says = |code: &'static str, text: &'static str| complaint(b'E', code, text, "f");
    let cases = [
        (message(b'R', &3_u32.to_be_bytes()), Verdict::Answered(Box::default())),
        (message(b'R', &[0, 0, 0, 10, b'S', 0, 0]), Verdict::Answered(Box::default())),
        ([message(b'R', &[0; 4]), ready()].concat(), Verdict::Answered(Box::default())),
        ([message(b'R', &[0; 4]), says("3D000", "no")].concat(), Verdict::Unknown(Unknown::NoDatabase)),
        (says("28P01", "no"), Verdict::Answered(Box::default())),
        (says("28000", "no"), Verdict::Unknown(Unknown::Authentication)),
        (says("08000", "service unavailable for target tenant (x)"), Verdict::Failed(Failure::NotServing)),
        (says("57P01", "server is not accepting clients"), Verdict::Failed(Failure::ShuttingDown)),
        (says("57P03", "the database system is starting up"), Verdict::Recovering),
        (says("57P03", "the database system is shutting down"), Verdict::Failed(Failure::ShuttingDown)),
        (says("53300", "sorry, too many clients already"), Verdict::Unknown(Unknown::TooManyConnections)),
        (says("08P01", "SSL connection required"), Verdict::Unknown(Unknown::TlsMismatch)),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Verdict::Failed(Failure::BadReply)),
        (Vec::new(), Verdict::Failed(Failure::Lost)),
    ];
    for (answer, expected) in cases {
        let what = String::from_utf8_lossy(&answer).into_owned();
        let server = Scripted::start(move |mut peer: Peer| {
            let answer = answer.clone();
            async move {
                peer.first_packet().await;
                peer.say(&answer).await;
                if !answer.is_empty() {
                    peer.hang().await;
                }
            }
        })
        .await;
        let mut watch = Watch::start(&[server.address], startup());
        assert_eq!(watch.observation().await.verdict, expected, "{what:?}");
    }
    let silent = Scripted::silent().await;
    assert_eq!(Watch::start(&[silent.address], startup()).observation().await.verdict, TIMED_OUT);
}

#[tokio::test]
async fn the_http_probe_judges_status_and_body() {
    let answers = |text: &'static str| async move {
        Scripted::start(move |mut peer: Peer| async move {
            peer.say(text.as_bytes()).await;
            peer.hang().await;
        })
        .await
    };
    let verdict = async |answer: &'static str, path: &str, body: Option<&str>| {
        let server = answers(answer).await;
        Watch::start(&[server.address], http(path, body)).observation().await.verdict
    };
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"role\":\"primary\"}";
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let primary = Verdict::Answered(Box::new(Facts { role: Role::Primary, ..Facts::default() }));
    assert_eq!(verdict(ok, "/primary?lag=1", Some("\"primary\"")).await, primary);
    assert_eq!(verdict(ok, "/health?ready=1", None).await, Verdict::Answered(Box::default()));
    assert_eq!(verdict(ok, "/primary", Some("leader")).await, Verdict::Failed(Failure::BadReply));
    assert_eq!(verdict(unavailable, "/primary", None).await, Verdict::Failed(Failure::BadReply));
    assert_eq!(verdict("SSH-2.0-OpenSSH_9.2\r\n", "/", None).await, Verdict::Failed(Failure::BadReply));
    assert_eq!(verdict("", "/", None).await, TIMED_OUT);
    assert_eq!(verdict("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", "/", Some("y")).await, TIMED_OUT);

    let resets = Scripted::start(|peer| async move { peer.reset() }).await;
    let verdict = Watch::start(&[resets.address], http("/", None)).observation().await.verdict;
    assert_eq!(verdict, Verdict::Failed(Failure::Lost));
}

#[tokio::test]
async fn an_endless_body_is_searched_only_so_far() {
    let server = Scripted::start(|mut peer| async move {
        peer.say(b"HTTP/1.1 200 OK\r\n\r\n").await;
        for _ in 0..64 {
            peer.say(&[b'x'; 4096]).await;
        }
        peer.say(b"needle").await;
        peer.hang().await;
    })
    .await;
    let verdict = Watch::start(&[server.address], http("/", Some("needle"))).observation().await.verdict;
    assert_eq!(verdict, Verdict::Failed(Failure::BadReply));
}

#[tokio::test]
async fn a_suspect_side_is_probed_on_time_whatever_is_outstanding_but_by_eight_at_most() {
    let silent = Scripted::silent().await;
    let mut service = service(&[silent.address], startup());
    service.probe.fast_interval = Duration::from_millis(20);
    service.probe.timeout = Duration::from_millis(400);
    let mut watch = Watch::of(service);
    watch.suspect(Cadence::Fast);
    let mut seen = Vec::new();
    while seen.len() < 12 {
        let observation = watch.observation().await;
        assert_eq!(observation.verdict, TIMED_OUT);
        seen.push(observation);
    }
    seen.sort_by_key(|o| o.started);
    for pair in seen.windows(9) {
        assert!(pair[8].started >= pair[0].finished, "more than eight at once");
    }
    assert!(seen[7].started < seen[0].finished, "probes overlap");
}

#[tokio::test]
async fn the_death_path_connects_at_once_and_after_100_and_250_ms() {
    let address = closed_port().await;
    let mut watch = Watch::start(&[address], ProbeKind::Tcp);
    assert_eq!(watch.observation().await.verdict, Verdict::Failed(Failure::Refused));
    let entered = now().at;
    watch.suspect(Cadence::Death);
    let mut starts = Vec::new();
    while starts.len() < 4 {
        let observation = watch.observation().await;
        assert_eq!((observation.fresh, observation.verdict), (true, Verdict::Failed(Failure::Refused)));
        starts.push(observation.started.since(entered));
    }
    for (start, due) in starts.iter().zip([0, 100, 250, 500].map(Duration::from_millis)) {
        // Never early; how late depends on the machine.
        assert!(*start + Duration::from_millis(2) >= due && *start < due + Duration::from_millis(250), "{starts:?}");
    }
}

#[tokio::test]
async fn a_probe_ordered_by_hand_starts_at_once() {
    let address = closed_port().await;
    let mut service = service(&[address], ProbeKind::Tcp);
    service.probe.interval = Duration::from_secs(3600);
    let mut watch = Watch::of(service);
    watch.observation().await;
    watch.probes.probe_now(&"b0".into());
    watch.observation().await;
}

#[tokio::test]
async fn a_server_that_lets_in_and_hangs_up_is_not_flooded_with_logins() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&[primary_row(), ready()].concat()).await;
    })
    .await;
    let mut watch = Watch::start(&[server.address], sql());
    let begin = Instant::now();
    for _ in 0..6 {
        watch.evidence().await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
    assert!(server.accepted() <= 8, "{}", server.accepted());
}

#[tokio::test]
async fn the_servers_last_word_precedes_the_loss_of_the_kept_connection() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&[primary_row(), ready()].concat()).await;
        peer.say(&complaint(b'E', "57P01", "administrator command", "ProcessInterrupts")).await;
    })
    .await;
    let mut watch = Watch::start(&[server.address], sql());
    let Verdict::Answered(facts) = watch.observation().await.verdict else { panic!("an answer was expected") };
    assert_eq!(facts.role, Role::Primary);
    let word = watch.observation().await;
    assert_eq!((word.fresh, word.verdict), (false, Verdict::Failed(Failure::ShuttingDown)));
    assert_eq!(watch.next().await, ProbeReport::Evidence(Evidence::ProbeConnectionLost { backend: "b0".into() }));
}

#[tokio::test]
async fn a_pooler_that_takes_no_options_is_probed_without_them() {
    let server = Scripted::start(|mut peer| async move {
        let packet = String::from_utf8_lossy(&peer.first_packet().await).into_owned();
        if packet.contains("options\0") {
            return peer.say(&complaint(b'E', "08P01", "unsupported startup parameter: options", "")).await;
        }
        peer.say(&[message(b'R', &[0; 4]), ready()].concat()).await;
        peer.message().await;
        peer.say(&[primary_row(), ready()].concat()).await;
        peer.hang().await;
    })
    .await;
    let verdict = Watch::start(&[server.address], sql()).observation().await.verdict;
    assert!(matches!(verdict, Verdict::Answered(_)), "{verdict:?}");
}

#[tokio::test]
async fn a_query_that_is_answered_with_something_else_is_a_bad_reply() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&[crate::net::scripted::rows(&[Some("1")]), ready()].concat()).await;
        peer.hang().await;
    })
    .await;
    let verdict = Watch::start(&[server.address], sql()).observation().await.verdict;
    assert_eq!(verdict, Verdict::Failed(Failure::BadReply));
}

#[tokio::test]
async fn a_new_address_of_a_name_is_probed_and_a_removed_one_no_more() {
    let names = NameServer::start("127.0.0.1", 1).await;
    let server = Scripted::silent().await;
    let port = server.address.port();
    let mut service = service(&[server.address], ProbeKind::Tcp);
    service.backends[0].addresses = vec![format!("db.test:{port}").parse().unwrap()];
    let mut watch = Watch::with_resolver(service, names.resolver());
    let (one, two) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port)));

    assert_eq!(watch.addresses().await, [one]);
    names.says("127.0.0.1 127.0.0.2");
    assert_eq!(watch.addresses().await, [one, two]);
    let mut probed = watch.observation().await;
    while probed.address != two {
        probed = watch.observation().await;
    }
    names.says("127.0.0.2");
    assert_eq!(watch.addresses().await, [two]);
    watch.reports_so_far();
    for _ in 0..5 {
        assert_eq!(watch.observation().await.address, two);
    }
}

#[tokio::test]
async fn a_probe_that_panics_is_told_and_goes_on() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    fn clock() -> Now {
        assert!(PANICKED.swap(true, SeqCst), "once");
        now()
    }
    for names in [vec!["127.0.0.1:1".parse().unwrap()], vec!["db.test:5432".parse().unwrap()]] {
        PANICKED.store(false, SeqCst);
        let server = NameServer::start("nxdomain", 1).await;
        let mut service = service(&["127.0.0.1:1".parse().unwrap()], ProbeKind::Tcp);
        service.backends[0].addresses = names;
        let (sender, reports) = mpsc::channel(1024);
        let probes = Probes::start_with(&service, "test", sender, clock, server.resolver()).unwrap();
        let mut watch = Watch { probes, reports };
        while !matches!(watch.next().await, ProbeReport::TaskFailed { .. }) {}
        assert_eq!(watch.observation().await.backend, "b0".into());
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_unknown_not_down() {
    let names = NameServer::start("nxdomain", 1).await;
    let mut service = service(&["127.0.0.1:1".parse().unwrap()], ProbeKind::Tcp);
    service.backends[0].addresses = vec!["db.test:5432".parse().unwrap()];
    let mut watch = Watch::with_resolver(service, names.resolver());
    assert_eq!(watch.addresses().await, []);
    assert_eq!(watch.observation().await.verdict, Verdict::Unknown(Unknown::NoAddress));
}

#[tokio::test]
async fn probes_end_when_they_are_stopped() {
    let silent = Scripted::silent().await;
    let mut watch = Watch::start(&[silent.address], startup());
    watch.observation().await;
    watch.probes.stop().await;
    while watch.reports.recv().await.is_some() {}
}

const TIMED_OUT: Verdict = Verdict::Failed(Failure::TimedOut);

/// Probes and what they reported.
struct Watch {
    probes: Probes,
    reports: mpsc::Receiver<ProbeReport>,
}

impl Watch {
    fn start(addresses: &[SocketAddr], kind: ProbeKind) -> Self {
        Self::of(service(addresses, kind))
    }

    fn of(service: Service) -> Self {
        Self::with_resolver(service, Resolver::default())
    }

    fn with_resolver(service: Service, resolver: Resolver) -> Self {
        let (sender, reports) = mpsc::channel(1024);
        let probes = Probes::start_with(&service, "test", sender, now, resolver).unwrap();
        Self { probes, reports }
    }

    fn suspect(&mut self, cadence: Cadence) {
        self.reports_so_far();
        self.probes.set_active(Some("b0".into()), Epoch(1));
        self.probes.set_cadence(cadence);
    }

    async fn next(&mut self) -> ProbeReport {
        let soon = Instant::now() + Duration::from_secs(10);
        timeout_at(soon, self.reports.recv()).await.expect("a report within 10 s").unwrap()
    }

    async fn observation(&mut self) -> Observation {
        loop {
            if let ProbeReport::Observation(observation) = self.next().await {
                return observation;
            }
        }
    }

    async fn evidence(&mut self) -> Evidence {
        loop {
            if let ProbeReport::Evidence(evidence) = self.next().await {
                return evidence;
            }
        }
    }

    async fn addresses(&mut self) -> Vec<SocketAddr> {
        loop {
            if let ProbeReport::Addresses { addresses, .. } = self.next().await {
                return addresses.into_iter().map(|(_, address)| address).collect();
            }
        }
    }

    fn reports_so_far(&mut self) {
        while self.reports.try_recv().is_ok() {}
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Now { at: Moment(since), wall: WallTime(0) }
}

/// One backend `b0`, `b1` … per address.
fn service(addresses: &[SocketAddr], kind: ProbeKind) -> Service {
    let backend = |(i, address): (usize, &SocketAddr)| {
        format!("[[service.main.backend]]\nname = \"b{i}\"\naddresses = [\"{address}\"]\n")
    };
    let backends: String = addresses.iter().enumerate().map(backend).collect();
    let text = format!("[service.main]\nkind = \"postgres\"\n{backends}");
    let (mut config, _) = validate::build(raw::parse(&text), &Env::default(), 1).unwrap();
    let mut service = config.services.remove(0);
    service.probe.kind = kind;
    service.probe.interval = Duration::from_millis(300);
    service.probe.fast_interval = Duration::from_millis(300);
    service.probe.down_interval = Duration::from_millis(300);
    service.probe.timeout = Duration::from_millis(600);
    for backend in &mut service.backends {
        backend.tls.mode = TlsMode::Disable;
    }
    service
}

fn login() -> Login {
    Login { user: "u".into(), database: "d".into(), password: None }
}

fn startup() -> ProbeKind {
    ProbeKind::Startup { login: login() }
}

fn sql() -> ProbeKind {
    ProbeKind::Sql { login: login() }
}

fn http(path: &str, body: Option<&str>) -> ProbeKind {
    ProbeKind::Http(HttpProbe {
        path: path.into(),
        port: None,
        tls: false,
        expect_status: vec![200],
        expect_body: body.map(str::to_owned),
        primary_only: true,
    })
}

/// An answer to the probe's query.
fn primary_row() -> Vec<u8> {
    row_of("f|5|00000001|2/0|~|10.0.0.1:5432|1|0|~|~|~|~|~|~|0|~|t||~|~|~|~|on")
}

/// The same, its columns between bars; `~` = NULL.
fn row_of(values: &str) -> Vec<u8> {
    let values: Vec<Option<&str>> = values.split('|').map(|v| (v != "~").then_some(v)).collect();
    crate::net::scripted::row(&values)
}

async fn closed_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
