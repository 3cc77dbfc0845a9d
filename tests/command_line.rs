//! The programs as they are typed: what both say of a configuration and how they end; a state directory that is
//! none or somebody's, and a log that nobody reads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn run(program: &str, arguments: &[&str], file: &Path) -> Output {
    // Nothing of the surroundings counts but the secret that an example wants, and there is no `.env` beside the file.
    let mut command = Command::new(program);
    command.args(arguments).arg(file).env_clear().current_dir("/");
    if std::fs::read_to_string(file).is_ok_and(|text| text.contains("export COCKROACH_API_SECRET_KEY=")) {
        command.env("COCKROACH_API_SECRET_KEY", SECRET);
    }
    command.output().unwrap()
}

const SECRET: &str = "CCDB1_0123456789abcdef";

fn both(file: &Path) -> (Output, Output) {
    let daemon = run(env!("CARGO_BIN_EXE_pgpivot"), &["--check"], file);
    (daemon, run(env!("CARGO_BIN_EXE_proxyctl"), &["check-config"], file))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn pgpivot_and_proxyctl_say_the_same_of_every_file_and_end_alike() {
    let missing = PathBuf::from("/nowhere/pgpivot.toml");
    let samples = ["config", "tests/samples/valid", "tests/samples/invalid"].into_iter().flat_map(files);
    for file in samples.chain([missing, PathBuf::from("/")]) {
        let (daemon, ctl) = both(&file);
        let text = |output: &Output| (output.stdout.clone(), output.stderr.clone());
        assert_eq!(text(&daemon), text(&ctl), "{}", file.display());
        assert_eq!(daemon.status.code(), ctl.status.code(), "{}", file.display());
        assert!(matches!(daemon.status.code(), Some(0 | 2)), "{}: {daemon:?}", file.display());
    }
}

#[test]
fn the_examples_are_good_and_say_how_fast_they_decide() {
    for file in files("config") {
        let (daemon, _) = both(&file);
        let said = String::from_utf8(daemon.stdout).unwrap();
        assert_eq!(daemon.status.code(), Some(0), "{}: {said}", file.display());
        assert!(said.contains("crash") && said.contains("hang"), "{}: {said}", file.display());
        assert!(!said.contains(SECRET), "{}: {said}", file.display());
    }
}

/// Ends its daemon.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already: nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn probes_so_far(admin: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.starts_with("pgpivot_probes_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < patience, "not within 30 s: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A daemon that watches one address where nobody is, its state at `state` in `folder`.
fn daemon(folder: &Path, state: &str, admin: SocketAddr) -> Command {
    let (file, closed) = (folder.join("pgpivot.toml"), free());
    let text = format!(
        "admin = {{ listen = '{admin}' }}\nstate = {{ path = '{}' }}\n[service.main]\nkind = 'postgres'\n\
         probe = {{ kind = 'tcp', interval = '100ms', fast_interval = '50ms', down_interval = '100ms', timeout = '100ms' }}\n\
         failover = {{ promoter = 'none' }}\n\
         backend = [ {{ name = 'a', addresses = ['{closed}'], role = 'primary' }} ]\n",
        folder.join(state).display()
    );
    std::fs::write(&file, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_pgpivot"));
    daemon.arg("--config").arg(file).env_clear().current_dir("/");
    daemon
}

#[test]
fn a_state_directory_that_cannot_be_one_ends_the_daemon_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "a file of somebody else").unwrap();
    for state in ["taken", "taken/below"] {
        let output = daemon(folder.path(), state, free()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(folder.path().join("taken").to_str().unwrap()), "{said}");
        assert_eq!(std::fs::read_to_string(folder.path().join("taken")).unwrap(), "a file of somebody else");
    }
}

/// A file system of so little room, mounted for a test.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, room: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let done = Command::new("/usr/bin/mount").args(["-t", "tmpfs", "-o", room, "tmpfs"]).arg(at).output().unwrap();
        assert!(done.status.success(), "as root, mount a tmpfs: {done:?}");
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("/usr/bin/umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_under_the_state_ends_the_start_with_the_reason_and_leaves_what_is_there_alone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder.path().join("disk"), "size=16k");
    let rest = vec![b'x'; 16 << 10];
    let mut file = std::fs::File::create(disk.0.join("somebody-elses")).unwrap();
    assert!(file.write_all(&rest).is_err() || file.write_all(&rest).is_err(), "the disk is full now");
    let kept = std::fs::metadata(disk.0.join("somebody-elses")).unwrap().len();
    let output = daemon(folder.path(), "disk", free()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("No space left on device") && said.contains(disk.0.to_str().unwrap()), "{said}");
    assert_eq!(std::fs::metadata(disk.0.join("somebody-elses")).unwrap().len(), kept);
}

#[test]
fn a_state_directory_in_use_ends_the_second_daemon_and_names_the_first() {
    let (folder, admin) = (tempfile::tempdir().unwrap(), free());
    let first = Running(daemon(folder.path(), "state", admin).stderr(Stdio::null()).spawn().unwrap());
    until("the first one serves", || TcpStream::connect(admin).ok());
    let output = daemon(folder.path(), "state", free()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains(&first.0.id().to_string()), "{said}");
}

#[test]
fn a_log_that_nobody_reads_stops_no_probe() {
    let (folder, admin) = (tempfile::tempdir().unwrap(), free());
    let mut daemon = daemon(folder.path(), "state", admin);
    daemon.env("PGPIVOT_LOG", "trace").stderr(Stdio::piped());
    let mut running = Running(daemon.spawn().unwrap());
    let log = running.0.stderr.take().unwrap();
    let room = rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    let admin = admin.to_string();
    let waiting = || rustix::io::ioctl_fionread(&log).unwrap();
    until("the log is full", || (waiting() + 512 >= room as u64).then_some(()));
    let before = until("an exposition", || probes_so_far(&admin));
    until("probes go on", || probes_so_far(&admin).filter(|now| *now >= before + 10.0));
}

/// The commands that the README shows: the lines of its `sh` blocks, and what its table of `proxyctl` names.
fn commands_of_the_readme() -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let typed = blocks.flat_map(str::lines).map(str::to_owned);
    let table = readme.lines().filter(|line| line.starts_with("| `proxyctl ")).flat_map(|line| {
        let cell = line.split('|').nth(1).unwrap();
        let words = cell.split('`').skip(1).step_by(2);
        words.map(|words| format!("proxyctl {}", words.trim_start_matches("proxyctl "))).collect::<Vec<_>>()
    });
    typed.chain(table).collect()
}

#[test]
fn every_command_of_the_readme_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands = commands_of_the_readme();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (program, arguments) = match words.as_slice() {
            // The default binary; what it does is played by a test of its own.
            ["cargo", "run", "--", rest @ ..] => (env!("CARGO_BIN_EXE_pgpivot"), [rest, &["--help"]].concat()),
            ["pgpivot", rest @ ..] => (env!("CARGO_BIN_EXE_pgpivot"), rest.to_vec()),
            ["proxyctl", rest @ ..] => (env!("CARGO_BIN_EXE_proxyctl"), [rest, &["--help"]].concat()),
            // Typed at a daemon by `it`.
            ["curl", ..] => continue,
            [script] => {
                assert!(root.join(script).is_file(), "{command}");
                continue;
            }
            _ => panic!("what is {command}?"),
        };
        let output = Command::new(program).args(&arguments).current_dir(root).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

#[test]
fn the_graph_has_every_phase_and_every_edge_of_the_table_and_no_other() {
    use pgpivot::failover::phase::Phase;
    use pgpivot::failover::transition::EDGES;
    let output = Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .args(["explain", "--graph"])
        .env_clear()
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["stateDiagram-v2", "[*] --> starting"], "{text}");
    lines.drain(..2);
    for edge in EDGES {
        let line = format!("{} --> {}: {}", edge.from.as_str(), edge.to.as_str(), edge.why);
        let at = lines.iter().position(|known| *known == line);
        lines.remove(at.unwrap_or_else(|| panic!("lacks {line:?}: {text}")));
    }
    assert_eq!(lines, [""; 0], "what is no edge of the table");
    for phase in Phase::ALL {
        let (from, to) = (format!("{} --> ", phase.as_str()), format!(" --> {}: ", phase.as_str()));
        assert!(text.contains(&from) && (text.contains(&to) || phase == Phase::Starting), "{phase:?} is not in it");
    }
}
