//! What the demo says: the opening with the lines to type next, one line that moves with every commit, one that stays
//! for every gap. Asks nobody anything.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::writer::Seen;

/// No commit for this long, and the moving line says so.
const SILENCE: Duration = Duration::from_millis(300);
/// Without a terminal a line is printed this often.
const CALM: Duration = Duration::from_secs(10);

/// One side as the story names it.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// The line that kills it; `None` = it does not run.
    pub kill: Option<String>,
    /// The line that makes it a standby again.
    pub rebuild: Option<String>,
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
        let after = if self.keep { "stays" } else { "goes when the demo ends" };
        fact("folder", &format!("{} ({after})", self.folder.display()));
        text.push_str("\nIn another terminal:\n\n");
        for (line, what) in self.lines() {
            text.push_str(&format!("  {line}\n      {what}\n"));
        }
        text.push_str("\nCtrl-C ends it. The writer below sends one row after the other through the proxy.\n");
        text
    }

    /// What to type, and what it does.
    fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![(
            format!("psql 'postgresql://demo@{}/demo' -c 'SELECT count(*) FROM commits'", self.listen),
            "as an application would".to_owned(),
        )];
        if let [active, standby, ..] = self.sides.as_slice() {
            if let Some(kill) = &active.kill {
                lines.push((kill.clone(), format!("{} dies, {} is promoted", active.name, standby.name)));
            }
            let ctl = &self.proxyctl;
            lines.push((format!("{ctl} failover"), format!("or: promote {} by command", standby.name)));
            lines.push((format!("{ctl} status"), "which side is active, since when and why".to_owned()));
            if let Some(rebuild) = &active.rebuild {
                lines.push((rebuild.clone(), format!("afterwards: make {} a standby again", active.name)));
            }
            lines.push((format!("{ctl} restore"), format!("then: traffic home to {}", active.name)));
        }
        lines
    }

    /// What to type once the side at this position is active. The first one is home.
    pub fn after_switch(&self, now: usize) -> String {
        let (Some(side), Some(other)) = (self.sides.get(now), self.sides.get(1 - now.min(1))) else {
            return String::new();
        };
        let mut text = format!("{} is active now.", side.name);
        if let Some(rebuild) = &other.rebuild {
            text.push_str(&format!(" To make {} a standby again:\n  {rebuild}", other.name));
        }
        if now > 0 {
            text.push_str(&format!("\nThen bring traffic home:\n  {} restore", self.proxyctl));
        }
        if let Some(kill) = &side.kill {
            text.push_str(&format!("\nOr, once {} is a standby, go on killing:\n  {kill}", other.name));
        }
        text
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
                    true => {
                        let at = self.at();
                        self.say(&format!("{at} connection lost: {why}"))
                    }
                    false => self.tick(),
                }
            }
            Seen::Gap { lasted, lost, errors, .. } => {
                let at = self.at();
                let errors = if *errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
                self.say(&format!(
                    "{at} gap {:.2} s, {lost} acknowledged rows lost, {errors} seen, writing to {side}",
                    lasted.as_secs_f64()
                ))
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
    use super::*;

    fn scene() -> Scene {
        let side = |name, port: u16| Side {
            name,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            kill: Some(format!("kill -9 {port}")),
            rebuild: Some(format!("/tmp/d/{name}/rebuild")),
        };
        Scene {
            pair: "A pair.".into(),
            listen: "127.0.0.1:26257".parse().unwrap(),
            admin: "127.0.0.1:8404".parse().unwrap(),
            proxyctl: "proxyctl".into(),
            folder: "/tmp/d".into(),
            keep: false,
            sides: vec![side("us-east", 15433), side("us-west", 15434)],
        }
    }

    #[test]
    fn the_opening_has_every_line_to_type_next() {
        let text = scene().opening();
        for line in [
            "psql 'postgresql://demo@127.0.0.1:26257/demo'",
            "kill -9 15433",
            "proxyctl failover",
            "/tmp/d/us-east/rebuild",
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
        let first = "us-west is active now. To make us-east a standby again:\n  /tmp/d/us-east/rebuild\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("proxyctl restore") && text.contains("kill -9 15434"), "{text}");
        let home = scene.after_switch(0);
        assert!(home.contains("/tmp/d/us-west/rebuild") && !home.contains("restore"), "{home}");
    }
}
