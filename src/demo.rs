//! `pgpivot demo`: a pair in a temporary folder, the daemon in this process, a writer through it, and the lines to type
//! next. Nothing to configure, and nothing left when it ends. The pair is `postgres`'s or `clusters`', the words are
//! `story`'s.

pub mod binaries;
mod clusters;
pub mod configuration;
pub mod folder;
mod narrator;
pub mod plot;
pub mod postgres;
mod rebuild;
mod stage;
pub mod story;
pub mod writer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use self::postgres::PairError;
use self::stage::Stage;
use self::story::{Scene, Screen};
use self::writer::Seen;
use crate::config::Config;
use crate::config::source::ConfigError;
use crate::daemon;
use crate::net::tls::TlsConfigError;

/// Where the daemon is found unless told otherwise.
const USUAL_ADMIN: &str = "127.0.0.1:8404";
/// Open connections may end by themselves for so long.
const DRAIN: Duration = Duration::from_secs(1);
/// The daemon must have ended by then.
const HALT: Duration = Duration::from_secs(10);
/// Between two looks at the silence.
const TICK: Duration = Duration::from_millis(100);

/// What may be chosen.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  pgpivot demo --cockroach\n  pgpivot demo --listen 127.0.0.1:26300 --admin 127.0.0.1:8500"
)]
pub struct Options {
    /// Where applications connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:26257")]
    pub listen: SocketAddr,
    /// Where the page and the API are
    #[arg(long, value_name = "ADDRESS", default_value = USUAL_ADMIN)]
    pub admin: SocketAddr,
    /// Use the built-in simulated pair although PostgreSQL is installed
    #[arg(long)]
    pub built_in: bool,
    /// Two simulated CockroachDB clusters with physical cluster replication, instead of a PostgreSQL pair
    #[arg(long, conflicts_with = "built_in")]
    pub cockroach: bool,
    /// Leave the folder with data and logs behind
    #[arg(long)]
    pub keep: bool,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A port is taken.
    #[error("{address} cannot be used: {cause}; choose another one with {flag} HOST:PORT")]
    Address {
        /// Which.
        address: SocketAddr,
        /// In words.
        cause: String,
        /// The option that changes it.
        flag: &'static str,
    },
    /// See [`PairError`].
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The writer's client cannot be built.
    #[error(transparent)]
    Writer(#[from] TlsConfigError),
    /// The demo's own configuration is refused.
    #[error("the demo's configuration is refused: {0}")]
    Configuration(#[from] ConfigError),
    /// The daemon did not start, or had to end.
    #[error(transparent)]
    Daemon(#[from] daemon::DaemonError),
    /// The daemon or the writer ended although nobody stopped them.
    #[error("{0}; with --keep the daemon's log stays in the folder")]
    Ended(String),
    /// Folder, signals or screen.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs the demo until Ctrl-C. Must not be called on a runtime's thread.
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return fail(&cause.into()),
    };
    let ended = runtime.block_on(async {
        let mut ends = Ends::new()?;
        perform(options, &mut Screen::of_process(), ends.wait()).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &DemoError) -> ExitCode {
    // Nowhere to say it is no reason to panic.
    let _ = io::Write::write_all(&mut io::stderr(), format!("pgpivot demo: {error}\n").as_bytes());
    match error {
        DemoError::Address { .. } => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

/// Everything from the first check to the last cleaning; what was begun is ended whatever happens.
async fn perform<W: io::Write>(
    options: &Options,
    screen: &mut Screen<W>,
    end: impl Future<Output = ()>,
) -> Result<(), DemoError> {
    is_free(options.listen, "--listen")?;
    is_free(options.admin, "--admin")?;
    if options.listen == options.admin {
        let cause = "the applications connect there".to_owned();
        return Err(DemoError::Address { address: options.admin, cause, flag: "--admin" });
    }
    let folder = Folder::create(options.keep)?;
    let mut play = Play::default();
    let shown = tokio::select! {
        shown = play.show(options, folder.path(), screen) => shown,
        () = end => screen.say("Ending the demo.").map_err(DemoError::from),
    };
    // The daemon first: it must not take the end of the servers for a failure.
    play.end().await;
    let path = folder.path().to_owned();
    folder.clean_up().await?;
    if options.keep {
        screen.say(&format!("{} is kept.", path.display()))?;
    }
    shown
}

/// What runs in this process besides the screen.
#[derive(Default)]
struct Play {
    stop: CancellationToken,
    halt: CancellationToken,
    tasks: JoinSet<Result<(), DemoError>>,
    stage: Option<Stage>,
}

impl Play {
    /// Builds the stage and plays until the daemon ends. May be dropped at any time; [`Play::end`] follows.
    async fn show<W: io::Write>(
        &mut self,
        options: &Options,
        folder: &Path,
        screen: &mut Screen<W>,
    ) -> Result<(), DemoError> {
        let stage = self.stage.insert(Stage::build(folder, options, screen).await?);
        let file = folder.join(configuration::FILE);
        std::fs::write(&file, stage.configuration(options, &folder.join("state")))?;
        let config = configuration::read(&file)?;
        log_to(&folder.join("pgpivot.log"))?;

        self.tasks.spawn(run_daemon(config, file, self.stop.clone(), self.halt.clone()));
        let (sender, mut seen) = mpsc::channel(64);
        let scene = scene(stage, options, folder);
        let (listen, database, stop) = (options.listen, scene.plot.database(), self.stop.clone());
        self.tasks.spawn(async move { Ok(writer::run(listen, database, sender, stop).await?) });
        let (teller, told) = mpsc::channel(64);
        if options.cockroach {
            let (admin, stop) = (options.admin, self.stop.clone());
            self.tasks.spawn(async move {
                narrator::run(admin, teller, stop).await;
                Ok(())
            });
        }
        screen.say(&scene.opening())?;
        tokio::select! {
            ended = self.tasks.join_next() => Err(match ended {
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => DemoError::Ended(panic.to_string()),
                Some(Ok(Ok(()))) | None => DemoError::Ended("the daemon ended by itself".to_owned()),
            }),
            told = tell(&mut seen, told, screen, stage, options, folder) => told,
        }
    }

    /// Stops the daemon and the writer, and gives them time to drain.
    async fn end(&mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::pin!(all);
        if timeout(DRAIN, &mut all).await.is_err() {
            self.halt.cancel();
            // Whoever does not end by then is aborted with the runtime.
            let _ = timeout(HALT, all).await;
        }
        // After the daemon, which must not take their end for a failure.
        if let Some(stage) = self.stage.take() {
            stage.end().await;
        }
    }
}

/// The one place where the demo meets the daemon. `file`: what a reload reads again.
async fn run_daemon(
    config: Config,
    file: PathBuf,
    stop: CancellationToken,
    halt: CancellationToken,
) -> Result<(), DemoError> {
    // No SIGHUP here: a hangup ends the demo. `proxyctl reload` does the same.
    let (_hangups, reloads) = mpsc::channel(1);
    let source = Some(daemon::Source { path: Some(file) });
    daemon::run(daemon::Options { config, source, stop, halt, reloads, notify: false }).await?;
    Ok(())
}

/// Shows what the writer sees and what the daemon tells, and what to type once the other side is active.
async fn tell<W: io::Write>(
    seen: &mut mpsc::Receiver<Seen>,
    mut told: mpsc::Receiver<String>,
    screen: &mut Screen<W>,
    stage: &Stage,
    options: &Options,
    folder: &Path,
) -> Result<(), DemoError> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut active = None;
    loop {
        let seen = tokio::select! {
            seen = seen.recv() => seen,
            Some(sentence) = told.recv() => {
                screen.narrate(&sentence)?;
                continue;
            }
            _ = tick.tick() => {
                screen.tick()?;
                continue;
            }
        };
        let Some(seen) = seen else { return Ok(()) };
        let now = seen.port().and_then(|port| stage.position(port)).or(active);
        screen.show(&seen, now.map_or("an unknown side", |i| postgres::NAMES[i]))?;
        if let (Some(before), Some(now)) = (active, now)
            && before != now
        {
            screen.say(&scene(stage, options, folder).after_switch(now))?;
        }
        active = now;
    }
}

/// What the opening tells.
fn scene(stage: &Stage, options: &Options, folder: &Path) -> Scene {
    Scene {
        pair: stage.sentence(),
        listen: options.listen,
        admin: options.admin,
        proxyctl: proxyctl(options),
        folder: folder.to_owned(),
        keep: options.keep,
        sides: stage.sides(),
        plot: stage.plot(),
    }
}

/// The client as it can be typed here, with the address if it is not the usual one.
fn proxyctl(options: &Options) -> String {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("proxyctl")).filter(|p| p.is_file());
    let program = match beside {
        Some(path) => typed(&path),
        // `cargo run` builds one program only.
        None if std::env::var_os("CARGO").is_some() => "cargo run -q --bin proxyctl --".to_owned(),
        None => "proxyctl".to_owned(),
    };
    match options.admin.to_string() == USUAL_ADMIN {
        true => program,
        false => format!("{program} --url http://{}", options.admin),
    }
}

/// As short as it can be typed: by its name where the `PATH` finds it, else from the working directory.
fn typed(path: &Path) -> String {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if std::env::var_os("PATH").is_some_and(|all| std::env::split_paths(&all).any(|f| f == folder)) {
        return path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    }
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or_else(|| path.to_owned()).display().to_string()
}

/// Early, so that the flag can be named before anything was started.
fn is_free(address: SocketAddr, flag: &'static str) -> Result<(), DemoError> {
    let words = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AddrInUse => "it is taken".to_owned(),
        _ => cause.to_string(),
    };
    TcpListener::bind(address).map(drop).map_err(|e| DemoError::Address { address, cause: words(e), flag })
}

/// The daemon's log, which has no place on this screen.
fn log_to(path: &Path) -> Result<(), DemoError> {
    let file = std::fs::File::create(path)?;
    // A second demo in one process keeps the first one's log.
    let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(file)).try_init();
    Ok(())
}

/// The signals that end the demo.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Heard {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        async fn until(&self, wanted: &str) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !self.text().contains(wanted) {
                assert!(Instant::now() < deadline, "no {wanted:?} in:\n{}", self.text());
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    impl io::Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A request to the simulated API, with the variables that the demo writes; gives the status.
    async fn ask_api(text: &str, method: &str, path: &str, body: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let line = text.lines().find_map(|line| line.trim().strip_prefix("variables ")).unwrap();
        let variables = std::fs::read_to_string(line).unwrap();
        let value = |name: &str| {
            let found = variables.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            found.unwrap_or_else(|| panic!("no {name} in:\n{variables}")).to_owned()
        };
        let path = path.replace("PRIMARY", &value("PRIMARY_CLUSTER_ID"));
        let (url, secret) = (value("COCKROACH_API_URL"), value("COCKROACH_API_SECRET_KEY"));
        let mut stream = tokio::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let request = format!(
            "{method} /api/v1/{path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\nauthorization: Bearer {secret}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply.split(' ').nth(1).unwrap().to_owned()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_region_that_is_cut_off_is_a_failover_that_tells_what_is_lost_and_nothing_is_left_at_the_end() {
        let (options, heard) = (Options { built_in: false, cockroach: true, ..options() }, Heard::default());
        let mut screen = Screen::new(heard.clone(), false);
        let typed = async {
            heard.until("rows committed, now on us-east").await;
            heard.until("pgpivot: armed").await;
            let region =
                r#"{"regional_disruptor_specifications":[{"region_code":"us-east-1","is_whole_region":true}]}"#;
            assert_eq!(ask_api(&heard.text(), "PUT", "clusters/PRIMARY/disrupt", region).await, "200");
            heard.until("us-west is active now").await;
        };
        perform(&options, &mut screen, typed).await.unwrap();
        let text = heard.text();
        let told = ["→ suspect", "failover from us-east to us-west", "sent is on disk", "us-west is active in epoch 2"];
        let mut from = 0;
        for part in told {
            let at = text[from..].find(part).unwrap_or_else(|| panic!("no {part:?} in its place in:\n{text}"));
            from += at;
        }
        // What was committed after the last replicated time: there always is some.
        assert!(text.contains("acknowledged are not on the new one"), "{text}");
        assert!(text.contains("SIMULATED") && text.contains("docs/cockroach.md"), "{text}");
        let folder = text.lines().find_map(|l| l.trim().strip_prefix("folder")).unwrap();
        let folder = folder.trim().split(' ').next().unwrap();
        assert!(folder.contains("pgpivot-demo-") && !Path::new(folder).exists(), "{folder} is left");
        let api = text.lines().find_map(|line| line.trim().strip_prefix("cloud API http://")).unwrap();
        for address in [options.listen, options.admin, api.parse().unwrap()] {
            is_free(address, "--listen").unwrap();
        }
    }

    fn options() -> Options {
        let [listen, admin] = postgres::free_ports(&[]).unwrap().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Options { listen, admin, built_in: true, cockroach: false, keep: false }
    }

    /// What the page shows: once it is armed, a death can be survived.
    async fn until_armed(admin: SocketAddr) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
            let request = format!("GET /failover/status HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            let json = reply.split_once("\r\n\r\n").unwrap().1;
            let status: crate::view::Status = serde_json::from_str(json).unwrap();
            if status.services[0].armed {
                return;
            }
            assert!(Instant::now() < deadline, "never armed: {json}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the user types: the crash line of the opening.
    async fn crash(text: &str) {
        let line = text.lines().find(|l| l.contains("sim_crash")).unwrap();
        let address = line.split(['@', '/']).find_map(|part| part.parse().ok()).unwrap();
        let login = crate::config::Login { user: "demo".into(), database: "demo".into(), password: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        let target = postgres::target(address, login).unwrap();
        let mut session = crate::net::session::Session::connect(&target, deadline).await.unwrap();
        // It may go down before it has answered.
        let _ = session.query("SELECT sim_crash()", deadline).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dead_primary_is_one_gap_without_a_lost_row_and_nothing_is_left_at_the_end() {
        let (options, heard) = (options(), Heard::default());
        let mut screen = Screen::new(heard.clone(), false);
        let typed = async {
            heard.until("rows committed, now on us-east").await;
            until_armed(options.admin).await;
            crash(&heard.text()).await;
            heard.until("us-west is active now").await;
        };
        perform(&options, &mut screen, typed).await.unwrap();
        let text = heard.text();
        assert!(text.contains(" 0 acknowledged rows lost, ") && text.contains("writing to us-west"), "{text}");
        assert!(text.contains("apt-get install postgresql"), "it says how to get the real one: {text}");
        let folder = text.lines().find_map(|l| l.trim().strip_prefix("folder")).unwrap();
        let folder = folder.trim().split(' ').next().unwrap();
        assert!(folder.contains("pgpivot-demo-") && !Path::new(folder).exists(), "{folder} is left");
        is_free(options.listen, "--listen").unwrap();
        is_free(options.admin, "--admin").unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = Options { admin: taken.local_addr().unwrap(), ..options() };
        let mut screen = Screen::new(Heard::default(), false);
        let error = perform(&options, &mut screen, std::future::pending()).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{} cannot be used: it is taken; choose another one with --admin HOST:PORT", options.admin)
        );
    }
}
