//! The commands about clusters as their caller sees them: arguments and answers in, words and exit code out, against a
//! simulated cloud and no daemon.

mod failing_back;
mod trying;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cockroach_cloud::model::{StreamFilter, StreamStatus, StreamUpdate};
use crate::cockroach_cloud::{Client, Settings as ClientSettings};
use crate::ctl::args::Args;
use crate::ctl::scripted::{Scripted, ok};
use crate::ctl::target::Environment;
use crate::ctl::terminal::captured;
use crate::ctl::{commands, exit_code, sample};
use crate::pcr::Which;
use crate::sim::cloud::{ApiFault, Cloud, Initial, Operation, Pace, Reach, Settings, Times};

const PATIENCE: Duration = Duration::from_secs(30);

/// A cloud and a configuration that describes it.
struct Stage {
    cloud: Cloud,
    client: Client,
    folder: tempfile::TempDir,
}

/// What a call left behind.
struct Ran {
    code: u8,
    out: String,
    /// The same without line ends.
    words: String,
    /// Without line ends, too.
    err: String,
}

impl Stage {
    async fn start(settings: Settings) -> Self {
        let cloud = Cloud::start(settings).await.unwrap();
        for which in [0, 1] {
            cloud.set_delete_protection(which, false);
        }
        let settings = ClientSettings { base_url: cloud.api_url(), ..ClientSettings::new(cloud.secret().clone()) };
        let stage = Self { client: Client::build(&settings).unwrap(), cloud, folder: tempfile::tempdir().unwrap() };
        stage.configure("");
        stage
    }

    /// Quick, with a stream from east to west that has caught up.
    async fn replicated() -> Self {
        Self::start(quick(Initial::Replicating)).await
    }

    /// Quick, and west was promoted.
    async fn failed_over() -> Self {
        let stage = Self::replicated().await;
        let id = stage.cloud.stream_id().unwrap().to_owned();
        stage.client.update_stream(id.parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
        stage.until("the failover", || stage.cloud.stream_status(&id) == Some("COMPLETED")).await;
        stage
    }

    /// Writes the configuration; `more` goes into the table of the API.
    fn configure(&self, more: &str) {
        let folder = self.folder.path().display();
        let secret = self.folder.path().join("secret");
        std::fs::write(&secret, self.cloud.secret().expose()).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let backend = |name: &str, n: usize, role: &str| {
            let (id, at) = (self.cloud.cluster_id(n), self.cloud.sql_address(n));
            format!(
                "[[service.main.backend]]\nname = '{name}'\ncluster_id = '{id}'\naddresses = ['{at}']\nrole = '{role}'\n"
            )
        };
        let text = format!(
            "[admin]\nlisten = 'off'\nsocket = '{folder}/nobody.sock'\n[service.main]\nkind = 'cockroach'\n\
             [service.main.probe]\ntimeout = '1s'\n\
             [service.main.cockroach_cloud]\napi_url = '{}'\nsecret_file = '{folder}/secret'\ntimeout = '2s'\n\
             replicated_time_refresh = '1s'\n{more}\n{}{}",
            self.cloud.api_url(),
            backend("east", 0, "primary"),
            backend("west", 1, "standby"),
        );
        std::fs::write(self.folder.path().join("pgpivot.toml"), text).unwrap();
    }

    /// `answer`: what a person types; `None` = no terminal.
    async fn proxyctl(&self, line: &str, answer: Option<&'static str>) -> Ran {
        let file = self.folder.path().join("pgpivot.toml");
        let words = ["proxyctl", "--config", file.to_str().unwrap()].into_iter().chain(line.split_whitespace());
        let args = Args::try_parse_from(words).unwrap();
        let (terminal, out, err) = captured::terminal(args.global.json, answer);
        let ended = commands::run(&args, &Environment::default(), &terminal).await;
        let code = exit_code(ended, &terminal);
        let flat = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ran { code, words: flat(out.text()), out: out.text(), err: flat(err.text()) }
    }

    async fn yes(&self, line: &str) -> Ran {
        self.proxyctl(&format!("{line} --yes"), None).await
    }

    async fn json(&self, line: &str) -> Value {
        let ran = self.yes(&format!("{line} --json")).await;
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{line}: {error}: {}{}", ran.out, ran.err))
    }

    /// Streams that lead to that cluster.
    async fn streams_to(&self, which: Which, status: StreamStatus) -> usize {
        let filter = StreamFilter { show_completed: Some(true), ..StreamFilter::default() };
        let to = self.cloud.cluster_id(which as usize);
        let all = self.client.streams(&filter).await.unwrap().value;
        all.iter().filter(|stream| stream.standby_cluster_id.to_string() == to && stream.status == status).count()
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < end, "not in time: {what}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn writes(&self) -> u64 {
        [Operation::CreateStream, Operation::PatchStream, Operation::PutDisruption]
            .into_iter()
            .map(|operation| self.cloud.requests(operation))
            .sum()
    }
}

fn quick(initial: Initial) -> Settings {
    Settings { pace: Pace::instant(), rate_limit: None, initial, ..Settings::default() }
}

#[tokio::test]
async fn setup_creates_the_stream_says_what_is_erased_and_waits_until_it_replicates() {
    let stage = Stage::start(quick(Initial::None)).await;
    let ran = stage.proxyctl("setup", Some("y\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.words.contains("replicates east to west, up to 20"), "{}", ran.out);
    assert!(ran.err.contains("ERASES what is on west"), "{}", ran.err);
    assert!(ran.err.contains("EVERYTHING on cluster west (shop-west) is erased"), "{}", ran.err);
    assert!(ran.err.contains("it answers SQL now: whoever uses it loses it"), "{}", ran.err);
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Replicating).await, 1);
}

#[tokio::test]
async fn a_stream_that_is_there_already_is_adopted_without_a_question() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("setup", None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("is there already (REPLICATING): taking it up"), "{}", ran.err);
    let said = stage.json("setup").await;
    assert_eq!(
        (&said["outcome"], &said["stream"]["id"]),
        (&"adopted".into(), &stage.cloud.stream_id().unwrap().into())
    );
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn setup_that_is_declined_dry_or_asked_of_nobody_changes_nothing() {
    let stage = Stage::start(quick(Initial::None)).await;
    let no = stage.proxyctl("setup", Some("n\n")).await;
    assert!(no.code == 1 && no.err.ends_with("nothing was done"), "{}", no.err);
    let nobody = stage.proxyctl("setup", None).await;
    assert!(nobody.code == 2 && nobody.err.contains("say --yes"), "{}", nobody.err);
    let dry = stage.proxyctl("setup --dry-run", None).await;
    assert!(dry.code == 0 && dry.words.contains("1. EVERYTHING on cluster west"), "{}", dry.out);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn an_order_whose_reply_is_lost_is_found_in_the_list_and_not_given_again() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::CreateStream, ApiFault::LostAfter, Times::Next(1));
    let said = stage.json("setup").await;
    assert_eq!(said["outcome"], "adopted");
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Replicating).await, 1);
}

#[tokio::test]
async fn an_order_that_was_lost_on_its_way_is_said_to_have_changed_nothing() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::CreateStream, ApiFault::LostBefore, Times::Next(1));
    let ran = stage.yes("setup").await;
    assert!(ran.code == 1 && ran.err.contains("nothing seems to have changed; run it again"), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    assert_eq!(stage.yes("setup").await.code, 0);
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Replicating).await, 1);
}

#[tokio::test]
async fn a_stream_that_takes_long_is_waited_for_again_by_the_same_command() {
    let slow = Pace { starting: Duration::from_secs(3600), ..Pace::instant() };
    let stage = Stage::start(Settings { pace: slow, ..quick(Initial::None) }).await;
    let late = stage.yes("setup --timeout 300ms").await;
    assert!(late.code == 1 && late.err.contains("run the same command again to go on waiting"), "{}", late.err);
    assert!(late.err.contains("STARTING: networks are being joined"), "{}", late.err);
    // REPLICATING without a replicated_time is not enough.
    stage.cloud.set_pace(Pace { scan: Duration::from_secs(3600), ..Pace::instant() });
    let scanning = stage.yes("setup --timeout 300ms").await;
    assert!(scanning.code == 1 && scanning.err.contains("no replicated_time yet"), "{}", scanning.err);
    stage.cloud.set_pace(Pace::instant());
    assert_eq!(stage.yes("setup").await.code, 0);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
}

#[tokio::test]
async fn setup_never_erases_the_side_that_was_promoted() {
    let stage = Stage::failed_over().await;
    let before = stage.writes();
    let ran = stage.yes("setup").await;
    assert!(ran.code == 1 && ran.err.contains("west is the active side, and the stream would erase it"), "{}", ran.err);
    assert!(ran.err.contains("proxyctl failback status"), "{}", ran.err);
    // Neither while the way home is being prepared.
    stage.yes("failback create-stream").await;
    let ran = stage.yes("setup").await;
    assert!(ran.code == 1 && ran.err.contains("leads from west to east"), "{}", ran.err);
    assert_eq!(stage.writes(), before + 1);
}

#[tokio::test]
async fn a_side_that_became_active_while_the_question_was_asked_is_not_erased() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::GetCluster, ApiFault::Slow(Duration::from_millis(400)), Times::UntilCleared);
    let others = async {
        // What is erased is read for the question.
        stage.until("the question", || stage.cloud.requests(Operation::GetCluster) == 1).await;
        let id = stage.cloud.create_stream(0, 1).unwrap();
        stage.until("the stream", || stage.cloud.stream_status(&id) == Some("REPLICATING")).await;
        assert!(stage.cloud.fail_over(&id));
        stage.until("the failover", || stage.cloud.stream_status(&id) == Some("COMPLETED")).await;
    };
    let (ran, ()) = tokio::join!(stage.proxyctl("setup", Some("y\n")), others);
    assert!(ran.code == 1 && ran.err.contains("west is the active side, and the stream would erase it"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
    assert!(stage.cloud.is_serving(1));
}

#[tokio::test]
async fn before_a_side_is_erased_the_daemon_is_asked_anew_which_is_active() {
    let stage = Stage::start(quick(Initial::None)).await;
    let mut status = sample::steady();
    for (n, backend) in status.services[0].backends.iter_mut().enumerate() {
        backend.cluster_id = Some(stage.cloud.cluster_id(n));
    }
    let looks = AtomicUsize::new(0);
    let daemon = Scripted::start(move |_| {
        let mut now = status.clone();
        let first = looks.fetch_add(1, Ordering::Relaxed) == 0;
        now.services[0].active = Some(if first { "us-east" } else { "us-west" }.into());
        ok(&now)
    })
    .await;
    let ran = stage.yes(&format!("setup --url {}", daemon.url())).await;
    assert!(ran.code == 1 && ran.err.contains("us-west is the active side, and the stream would"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn an_api_that_says_something_else_changes_nothing_and_is_told_apart() {
    let stage = Stage::start(quick(Initial::None)).await;
    let cases: [(ApiFault, u8, &str); 7] = [
        (ApiFault::Html(200), 1, "check COCKROACH_API_URL"),
        (ApiFault::Truncated, 1, "JSON that ends too early"),
        (ApiFault::Status(401), 1, "check COCKROACH_API_SECRET_KEY"),
        (ApiFault::Status(403), 1, "the role Cluster Admin on both clusters"),
        (ApiFault::Status(404), 1, "check PRIMARY_CLUSTER_ID"),
        (ApiFault::Status(503), 1, "run it again in a while"),
        (ApiFault::RateLimited { retry_after: 7 }, 1, "it asks to wait 7 s"),
    ];
    for (fault, code, words) in cases {
        stage.cloud.fault(Operation::ListStreams, fault.clone(), Times::UntilCleared);
        for line in ["setup", "failback create-stream", "failback initiate", "failback full", "failback status"] {
            let ran = stage.yes(line).await;
            assert_eq!(ran.code, code, "{line}, {fault:?}: {}", ran.err);
            assert!(ran.err.contains(words), "{line}, {fault:?}: {}", ran.err);
        }
        stage.cloud.clear_faults();
    }
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn whoever_is_not_the_first_to_order_takes_the_stream_of_the_first() {
    let stage = Stage::start(quick(Initial::None)).await;
    // Both have looked before either has ordered.
    stage.cloud.fault(Operation::CreateStream, ApiFault::Slow(Duration::from_millis(300)), Times::Next(2));
    let (one, other) = tokio::join!(stage.yes("setup"), stage.yes("setup"));
    assert_eq!((one.code, other.code), (0, 0), "{}\n{}", one.err, other.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 2);
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Replicating).await, 1);
}

#[tokio::test]
async fn an_order_that_comes_too_soon_after_others_is_given_again_when_the_api_allows_it() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::CreateStream, ApiFault::RateLimited { retry_after: 1 }, Times::Next(1));
    let ran = stage.yes("setup").await;
    assert!(ran.code == 0 && ran.err.contains("too many calls"), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 2);
    // Nobody is kept waiting for long.
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::CreateStream, ApiFault::RateLimited { retry_after: 600 }, Times::Next(1));
    let ran = stage.yes("setup").await;
    assert!(ran.code == 1 && ran.err.contains("it asks to wait 600 s"), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
}

#[tokio::test]
async fn a_refused_order_is_the_apis_sentence() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.fault(Operation::CreateStream, ApiFault::Status(403), Times::Next(1));
    let ran = stage.yes("setup").await;
    assert!(
        ran.code == 1 && ran.err.contains("Cluster Admin") && !ran.err.contains("may have taken effect"),
        "{}",
        ran.err
    );
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Starting).await, 0);
}

#[tokio::test]
async fn status_without_a_daemon_shows_both_clusters_and_their_stream() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("status", None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    for words in ["east", "shop-east", "serves", "does not serve (08000)", "REPLICATING", "0 s", "us-west-2"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
    stage.cloud.crash(0).await.unwrap();
    let json = stage.json("status").await;
    assert_eq!(json["clusters"][0]["sql"]["answer"], "refused");
    assert_eq!(json["clusters"][1]["sql"]["answer"], "not_serving");
    assert_eq!(json["streams"][0]["status"], "REPLICATING");
    stage.cloud.set_reach(1, crate::sim::cloud::Reach::Silent).await.unwrap();
    assert_eq!(stage.json("status").await["clusters"][1]["sql"]["answer"], "silent");
    stage.cloud.fault(None, ApiFault::Status(401), Times::UntilCleared);
    let ran = stage.proxyctl("status", None).await;
    assert!(ran.code == 2 && ran.out.contains("COCKROACH_API_SECRET_KEY"), "{}", ran.out);
}

#[tokio::test]
async fn debug_shows_raw_replies_and_never_the_secret() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("debug", None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    for words in ["/nodes", "/disrupt", "physical-replication-streams", "x_added_later", "GET /api/v1/clusters/"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    assert!(!ran.out.contains(stage.cloud.secret().expose()), "{}", ran.out);
    let one = stage.json("debug /api/v1/clusters").await;
    assert_eq!(one[0]["status"], 200);
    assert_eq!(stage.proxyctl("debug /api/v1/nothing", None).await.code, 1);
    let wrong = stage.proxyctl("debug clusters", None).await;
    assert!(wrong.code == 2 && wrong.err.contains("write a path of the API"), "{}", wrong.err);
}

#[tokio::test]
async fn between_two_streams_nothing_is_chosen_and_nothing_ordered() {
    let stage = Stage::replicated().await;
    let (from, to) = (stage.cloud.cluster_id(0), stage.cloud.cluster_id(1));
    let stream = move |n: u32, from: &str, to: &str| {
        serde_json::json!({
            "id": format!("00000000-0000-0000-0000-00000000000{n}"), "status": "REPLICATING",
            "primary_cluster_id": from, "standby_cluster_id": to, "replicated_time": jiff::Timestamp::now().to_string(),
        })
    };
    // Two in each direction, which the simulated cloud would not allow.
    let all = [stream(1, &from, &to), stream(2, &from, &to), stream(3, &to, &from), stream(4, &to, &from)];
    let api = Scripted::start(move |_| ok(&serde_json::json!({ "physical_replication_streams": all }))).await;
    let file = stage.folder.path().join("pgpivot.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&stage.cloud.api_url(), &api.url())).unwrap();
    for line in ["setup", "failback create-stream", "failback initiate", "failback full", "failover", "failback status"]
    {
        let ran = stage.yes(line).await;
        assert!(ran.code == 1 && ran.err.contains("there are 2 streams from"), "{line}: {}", ran.err);
    }
    assert!(api.asked().iter().all(|asked| asked.line.starts_with("GET ")));
}
