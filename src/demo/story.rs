//! What the demo says: the opening with the lines to type next, one line that moves with every commit, one that stays
//! for every gap. Asks nobody anything.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::plot::{Line, Plot};
use super::writer::Seen;

/// No commit for this long, and the moving line says so.
const SILENCE: Duration = Duration::from_millis(300);
/// Without a terminal a line is printed this often.
const CALM: Duration = Duration::from_secs(10);

/// Columns of a line that stays.
const WIDTH: usize = 90;

/// One side as the story names it.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// The line that kills it; `None` = it does not run.
    pub kill: Option<String>,
    /// What makes it a standby again; `None` = not by one line.
    pub rebuild: Option<Rebuild>,
}

/// What makes a side a standby again.
#[derive(Debug, Clone)]
pub enum Rebuild {
    /// `proxyctl rejoin`.
    Rejoin,
    /// This line.
    Type(String),
}

impl Side {
    /// The line to type.
    pub(super) fn rebuild_line(&self, ctl: &str) -> Option<String> {
        Some(match self.rebuild.as_ref()? {
            // Killed, it cannot be asked what it needs.
            Rebuild::Rejoin => format!("{ctl} rejoin {} --method basebackup", self.name),
            Rebuild::Type(line) => line.clone(),
        })
    }
}

/// Everything the opening names.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What the sides are, one sentence.
    pub pair: String,
    /// Where applications connect.
    pub listen: SocketAddr,
    /// Where the page is.
    pub admin: SocketAddr,
    /// The command line client with the options it needs here.
    pub proxyctl: String,
    /// The temporary folder.
    pub folder: PathBuf,
    /// It stays at the end.
    pub keep: bool,
    /// Both, the active one first.
    pub sides: Vec<Side>,
    /// What is particular to their kind.
    pub plot: Plot,
}

impl Scene {
    /// The first screen.
    pub fn opening(&self) -> String {
        let mut text = format!("{}\n\n", self.pair);
        let mut fact = |name: &str, value: &str| text.push_str(&format!("  {name:<10}{value}\n"));
        fact("proxy", &self.listen.to_string());
        fact("page", &format!("http://{}/stats", self.admin));
        for (i, side) in self.sides.iter().enumerate() {
            let role = if i == 0 { "primary" } else { "standby" };
            fact(side.name, &format!("{}, {role}", side.address));
        }
        if let Plot::Clusters(clusters) = &self.plot {
            fact("cloud API", &clusters.api);
            fact("variables", &clusters.environment.display().to_string());
        }
        let after = if self.keep { "stays" } else { "goes when the demo ends" };
        fact("folder", &format!("{} ({after})", self.folder.display()));
        if let Some(note) = self.plot.note() {
            text.push_str(&format!("\n{note}\n"));
        }
        text.push_str("\nIn another terminal:\n\n");
        for (line, what) in self.lines() {
            text.push_str(&format!("  {line}\n      {what}\n"));
        }
        text.push_str("\nCtrl-C ends it. The writer below sends one row after the other through the proxy.\n");
        text
    }

    /// What to type, and what it does.
    fn lines(&self) -> Vec<Line> {
        let url = format!("postgresql://demo@{}/{}", self.listen, self.plot.database());
        let first = (format!("psql '{url}' -c 'SELECT count(*) FROM commits'"), "as an application would".to_owned());
        std::iter::once(first).chain(self.plot.lines(self)).collect()
    }

    /// What to type once the side at this position is active. The first one is home.
    pub fn after_switch(&self, now: usize) -> String {
        self.plot.after_switch(self, now)
    }
}

/// The screen: lines that stay, and one that moves.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    terminal: bool,
    began: Instant,
    last: Option<Instant>,
    calm: Option<Instant>,
    broken: Option<String>,
}

impl Screen<std::io::Stdout> {
    /// Of this process.
    pub fn of_process() -> Self {
        let out = std::io::stdout();
        let terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self::new(out, terminal)
    }
}

impl<W: Write> Screen<W> {
    /// `terminal`: one line may overwrite itself.
    pub fn new(out: W, terminal: bool) -> Self {
        Self { out, terminal, began: Instant::now(), last: None, calm: None, broken: None }
    }

    /// Lines that stay.
    pub fn say(&mut self, text: &str) -> std::io::Result<()> {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        writeln!(self.out, "{clear}{}", text.trim_end_matches('\n'))?;
        self.out.flush()
    }

    /// A sentence of the daemon's.
    pub fn narrate(&mut self, sentence: &str) -> std::io::Result<()> {
        self.happened(&format!("pgpivot: {sentence}"))
    }

    /// What happened now, in lines that fit.
    fn happened(&mut self, sentence: &str) -> std::io::Result<()> {
        let mut text = self.at();
        let indent = text.len();
        let mut width = indent;
        for word in sentence.split(' ') {
            let long = word.chars().count();
            if width + 1 + long > WIDTH && width > indent {
                width = indent;
                text.push_str(&format!("\n{:indent$}", ""));
            }
            text.push_str(&format!(" {word}"));
            width += 1 + long;
        }
        self.say(&text)
    }

    /// What the writer saw; `side` is the name of the server behind its port.
    pub fn show(&mut self, seen: &Seen, side: &str) -> std::io::Result<()> {
        match seen {
            Seen::Commit { rows, took, .. } => {
                (self.last, self.broken) = (Some(Instant::now()), None);
                let line =
                    format!("{rows:>8} rows committed, now on {side}, the last in {:.1} ms", took.as_secs_f64() * 1e3);
                self.moving(&line, false)
            }
            // The daemon is still on its way up.
            Seen::Broken { .. } if self.last.is_none() => Ok(()),
            Seen::Broken { why } => {
                let news = self.broken.is_none();
                self.broken = Some(why.clone());
                match news {
                    true => self.happened(&format!("connection lost: {why}")),
                    false => self.tick(),
                }
            }
            Seen::Gap { lasted, lost, errors, .. } => {
                let errors = if *errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
                let lasted = lasted.as_secs_f64();
                self.happened(&format!(
                    "gap {lasted:.2} s, {lost} acknowledged rows lost, {errors} seen, writing to {side}"
                ))?;
                let rows = match lost {
                    0 => return Ok(()),
                    1 => "1 row that the old primary acknowledged is".to_owned(),
                    _ => format!("{lost} rows that the old primary acknowledged are"),
                };
                self.happened(&format!("{rows} not on the new one"))
            }
        }
    }

    /// Says how long there has been no commit.
    pub fn tick(&mut self) -> std::io::Result<()> {
        let Some(silent) = self.last.map(|l| l.elapsed()).filter(|s| *s > SILENCE) else {
            return Ok(());
        };
        let why = self.broken.clone().unwrap_or_else(|| "held by the proxy or not answered".to_owned());
        self.moving(&format!("no commit for {:.1} s: {why}", silent.as_secs_f64()), true)
    }

    /// Overwrites itself on a terminal; elsewhere it is printed now and then.
    fn moving(&mut self, line: &str, urgent: bool) -> std::io::Result<()> {
        if self.terminal {
            let line: String = line.chars().take(79).collect();
            write!(self.out, "\r{line}\x1b[K")?;
            return self.out.flush();
        }
        let due = self.calm.is_none_or(|c| c.elapsed() >= if urgent { CALM / 10 } else { CALM });
        match due {
            true => {
                self.calm = Some(Instant::now());
                writeln!(self.out, "{line}")?;
                self.out.flush()
            }
            false => Ok(()),
        }
    }

    /// Time since the start.
    fn at(&self) -> String {
        format!("[{:>7.2} s]", self.began.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plot::Clusters;
    use super::*;

    fn scene() -> Scene {
        let side = |name, port: u16| Side {
            name,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            kill: Some(format!("kill -9 {port}")),
            rebuild: Some(Rebuild::Rejoin),
        };
        Scene {
            pair: "A pair.".into(),
            listen: "127.0.0.1:26257".parse().unwrap(),
            admin: "127.0.0.1:8404".parse().unwrap(),
            proxyctl: "proxyctl".into(),
            folder: "/tmp/d".into(),
            keep: false,
            sides: vec![side("us-east", 15433), side("us-west", 15434)],
            plot: Plot::Servers,
        }
    }

    fn of_clusters() -> Scene {
        let clusters = Clusters {
            api: "http://127.0.0.1:15435".into(),
            environment: "/tmp/d/env".into(),
            configuration: "/tmp/d/pgpivot.toml".into(),
        };
        let side = |side: Side| Side { kill: None, rebuild: None, ..side };
        let scene = scene();
        Scene { sides: scene.sides.into_iter().map(side).collect(), plot: Plot::Clusters(clusters), ..scene }
    }

    #[test]
    fn the_opening_of_the_clusters_has_the_environment_the_api_and_the_times_of_life() {
        let text = of_clusters().opening();
        for line in [
            "psql 'postgresql://demo@127.0.0.1:26257/defaultdb'",
            "http://127.0.0.1:15435",
            "variables /tmp/d/env",
            "proxyctl --config /tmp/d/pgpivot.toml simulate disrupt --cluster-name us-east",
            "proxyctl status --watch",
            "proxyctl failover",
            "T+2:30",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        assert!(!text.contains("kill") && !text.contains("rebuild"), "{text}");
    }

    #[test]
    fn once_the_other_cluster_is_active_the_way_back_is_told() {
        let away = of_clusters().after_switch(1);
        assert!(away.starts_with("us-west is active now. us-east gets not one byte"), "{away}");
        for line in ["ERASED", ".toml simulate restore\n", ".toml failback create-stream", "proxyctl restore"] {
            assert!(away.contains(line), "{line} is missing:\n{away}");
        }
        let home = of_clusters().after_switch(0);
        for line in [".toml simulate restore --cluster standby", ".toml setup", "disrupt --cluster-name us-east"] {
            assert!(home.contains(line), "{line} is missing:\n{home}");
        }
    }

    #[test]
    fn what_the_daemon_tells_is_told_in_lines_that_fit() {
        let mut screen = Screen::new(Vec::new(), false);
        screen.narrate(&"us-east failed another probe, ".repeat(6)).unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 3 && lines[0].contains("s] pgpivot: us-east failed"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        let indented = |line: &&str| line.starts_with(&" ".repeat(12));
        assert!(lines[1..].iter().all(indented) && text.matches("another").count() == 6, "{text}");
    }

    #[test]
    fn rows_that_are_gone_are_told_apart() {
        let said = |lost| {
            let mut screen = Screen::new(Vec::new(), false);
            let gap = Seen::Gap { lasted: Duration::from_secs(14), lost, errors: 1, port: 1 };
            screen.show(&gap, "us-west").unwrap();
            String::from_utf8(screen.out).unwrap()
        };
        assert!(said(3).contains("s] 3 rows that the old primary acknowledged are not on the new one"), "{}", said(3));
        assert!(said(1).contains("1 row that the old primary acknowledged is not on the new one"));
        assert!(!said(0).contains("new one"));
    }

    #[test]
    fn the_opening_has_every_line_to_type_next() {
        let text = scene().opening();
        for line in [
            "psql 'postgresql://demo@127.0.0.1:26257/demo'",
            "kill -9 15433",
            "proxyctl failover",
            "proxyctl rejoin us-east --method basebackup",
            "proxyctl restore",
            "http://127.0.0.1:8404/stats",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        assert!(text.lines().all(|l| l.chars().count() <= 90), "{text}");
    }

    #[test]
    fn a_gap_is_a_line_that_stays() {
        let mut screen = Screen::new(Vec::new(), false);
        let (took, port) = (Duration::from_micros(800), 15433);
        screen.show(&Seen::Commit { rows: 41, took, port }, "us-east").unwrap();
        screen.show(&Seen::Broken { why: "the server ended the connection".into() }, "us-east").unwrap();
        screen.show(&Seen::Gap { lasted: Duration::from_millis(1340), lost: 0, errors: 2, port }, "us-west").unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert!(text.starts_with("      41 rows committed, now on us-east, the last in 0.8 ms\n"), "{text}");
        assert!(text.contains("connection lost: the server ended the connection\n"), "{text}");
        assert!(text.contains("gap 1.34 s, 0 acknowledged rows lost, 2 errors seen, writing to us-west\n"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn once_the_other_side_is_active_the_next_lines_are_told() {
        let scene = scene();
        let text = scene.after_switch(1);
        let first =
            "us-west is active now. To make us-east a standby again:\n  proxyctl rejoin us-east --method basebackup\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("proxyctl restore") && text.contains("kill -9 15434"), "{text}");
        let home = scene.after_switch(0);
        assert!(home.contains("proxyctl rejoin us-west") && !home.contains("restore"), "{home}");
    }
}
