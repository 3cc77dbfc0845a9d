//! The demo's temporary folder and its caretaker: a shell that outlives a crash of the demo, ends the servers whose
//! pid files stand in the folder, and removes it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Only a folder with this file in it is ever removed.
const MARK: &str = ".pgpivot-demo";
/// A fast shutdown takes this long at most; then the server is ended the hard way.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Reads its standard input, which says nothing and ends with the demo, however that ends. `$1` the folder, `$2` the
/// mark, `$3` `keep` or `remove`. A pid counts only while its process stands in the very data folder.
const CARETAKER: &str = r#"
trap '' INT HUP TERM
read -r _
ours() { [ -f "$1/postmaster.pid" ] && read -r pid <"$1/postmaster.pid" && [ "$(readlink "/proc/$pid/cwd")" = "$1" ]; }
for signal in INT QUIT KILL; do
    for data in "$1"/*/data; do ours "$data" && kill -s "$signal" "$pid" && kill -s CONT "$pid"; done
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        left=
        for data in "$1"/*/data; do ours "$data" && left=1; done
        [ -z "$left" ] && break
        sleep 0.2
    done
    [ -z "$left" ] && break
done
[ "$3" = remove ] && [ -f "$1/$2" ] && rm -rf -- "$1"
exit 0
"#;

/// The folder while the demo runs.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
    caretaker: Option<Child>,
}

impl Folder {
    /// Makes it under the system's temporary folder, and starts its caretaker. `keep`: it stays when all is over.
    pub fn create(keep: bool) -> io::Result<Self> {
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
        // PostgreSQL's pid file and /proc name it without symbolic links.
        let path = std::env::temp_dir().canonicalize()?.join(format!("pgpivot-demo-{name}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        let mut folder = Self { path, keep, caretaker: None };
        // The account of the servers must pass, nobody needs to look.
        std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o711))?;
        std::fs::write(folder.path.join(MARK), "")?;
        let mut command = Command::new("sh");
        command.args(["-c", CARETAKER, "pgpivot-demo"]).arg(&folder.path).arg(MARK).arg(if keep {
            "keep"
        } else {
            "remove"
        });
        // A group of its own: Ctrl-C is for the demo. No output: it must hold no pipe open.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        folder.caretaker = Some(command.spawn()?);
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends every server in it, then removes it unless it is to be kept.
    pub async fn clean_up(mut self) -> io::Result<()> {
        for data in self.data_folders() {
            end_server(&data).await;
        }
        self.remove()?;
        if let Some(mut caretaker) = self.caretaker.take() {
            drop(caretaker.stdin.take());
            // It finds nothing left to do.
            let _ = timeout(SHUTDOWN, caretaker.wait()).await;
        }
        Ok(())
    }

    fn data_folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return Vec::new();
        };
        entries.filter_map(|e| Some(e.ok()?.path().join("data"))).filter(|d| d.is_dir()).collect()
    }

    fn remove(&self) -> io::Result<()> {
        match self.keep || !self.path.join(MARK).is_file() {
            true => Ok(()),
            false => std::fs::remove_dir_all(&self.path),
        }
    }
}

/// The pid of the server that runs in a data folder; a stale pid file names nobody.
pub fn postmaster(data: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let stands_in = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (stands_in == data).then(|| Pid::from_raw(pid)).flatten()
}

/// Fast shutdown, then immediate, then SIGKILL.
async fn end_server(data: &Path) {
    for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
        let Some(pid) = postmaster(data) else { return };
        // A stopped process hears nothing else.
        if kill_process(pid, signal).is_err() || kill_process(pid, Signal::CONT).is_err() {
            return;
        }
        let deadline = Instant::now() + SHUTDOWN;
        while Instant::now() < deadline {
            if test_kill_process(pid).is_err() || postmaster(data).is_none() {
                return;
            }
            sleep(STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_gone_when_all_is_over() {
        let folder = Folder::create(false).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        folder.clean_up().await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn it_stays_when_it_is_to_be_kept() {
        let folder = Folder::create(true).unwrap();
        let path = folder.path().to_owned();
        folder.clean_up().await.unwrap();
        assert!(path.is_dir());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[tokio::test]
    async fn after_a_crash_the_caretaker_removes_it() {
        let mut folder = Folder::create(false).unwrap();
        let path = folder.path().to_owned();
        let mut caretaker = folder.caretaker.take().unwrap();
        // What the kernel does when the process is gone.
        drop(caretaker.stdin.take());
        assert!(timeout(SHUTDOWN, caretaker.wait()).await.unwrap().unwrap().success());
        assert!(!path.exists());
    }
}
