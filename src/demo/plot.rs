//! The lines of the story that differ from kind to kind: how a side dies, what makes it a standby again, what is worth
//! knowing before. Pure: they are told by `story`.

use std::path::PathBuf;

use super::configuration::pace;
use super::story::Scene;

/// A line to type, and what it does.
pub(super) type Line = (String, String);

/// What kind of sides the story is about.
#[derive(Debug, Clone)]
pub enum Plot {
    /// Servers that can be killed, and rebuilt from one another.
    Servers,
    /// Simulated clusters with physical cluster replication.
    Clusters(Clusters),
}

/// What only the story of the clusters names.
#[derive(Debug, Clone)]
pub struct Clusters {
    /// The Cloud API.
    pub api: String,
    /// The file with the variables that name them to other programs.
    pub environment: PathBuf,
    /// The daemon's file, which names them to proxyctl.
    pub configuration: PathBuf,
}

impl Plot {
    /// The database of the writer.
    pub(super) fn database(&self) -> &'static str {
        match self {
            Self::Servers => "demo",
            Self::Clusters(_) => "defaultdb",
        }
    }

    /// What the opening says below its facts.
    pub(super) fn note(&self) -> Option<String> {
        let Self::Clusters(_) = self else { return None };
        let decided = pace::INTERVAL * pace::FALL + pace::TIMEOUT + pace::DELAY;
        Some(format!(
            "Times are short, so that one can watch: {} checks, {} s apart, and {} s of patience decide\n\
             about {} s after a disruption. The defaults, for real clusters, decide at T+2:30.\n\
             Once the daemon has seen the replication move it says \"armed\" below: then disrupt.",
            pace::FALL,
            pace::INTERVAL.as_secs(),
            pace::DELAY.as_secs(),
            decided.as_secs()
        ))
    }

    /// The lines of the opening after the first.
    pub(super) fn lines(&self, scene: &Scene) -> Vec<Line> {
        let [active, standby, ..] = scene.sides.as_slice() else { return Vec::new() };
        let ctl = &scene.proxyctl;
        let mut lines = Vec::new();
        match self {
            Self::Servers => {
                if let Some(kill) = &active.kill {
                    lines.push((kill.clone(), format!("{} dies, {} is promoted", active.name, standby.name)));
                }
                lines.push((format!("{ctl} failover"), format!("or: promote {} by command", standby.name)));
                lines.push((format!("{ctl} status"), "which side is active, since when and why".to_owned()));
                if let Some(rebuild) = active.rebuild_line(ctl) {
                    lines.push((rebuild, format!("afterwards: make {} a standby again", active.name)));
                }
                lines.push((format!("{ctl} restore"), format!("then: traffic home to {}", active.name)));
            }
            Self::Clusters(clusters) => {
                lines
                    .push((format!("{ctl} status --watch"), "which side is active, and what would happen next".into()));
                lines.push((
                    disrupt(&clusters.ctl(ctl), active.name),
                    format!("the region of {} is cut off by the API; {} takes over", active.name, standby.name),
                ));
                lines.push((
                    format!("{ctl} failover"),
                    format!("or: fail the stream over to {} by command", standby.name),
                ));
            }
        }
        lines
    }

    /// What to type once the side at this position is active. The first one is home.
    pub(super) fn after_switch(&self, scene: &Scene, now: usize) -> String {
        let other = 1 - now.min(1);
        let (Some(side), Some(left)) = (scene.sides.get(now), scene.sides.get(other)) else {
            return String::new();
        };
        let ctl = &scene.proxyctl;
        let mut text = format!("{} is active now.", side.name);
        match self {
            Self::Servers => {
                if let Some(rebuild) = left.rebuild_line(ctl) {
                    text.push_str(&format!(" To make {} a standby again:\n  {rebuild}", left.name));
                }
                if now > 0 {
                    text.push_str(&format!("\nThen bring traffic home:\n  {ctl} restore"));
                }
                if let Some(kill) = &side.kill {
                    text.push_str(&format!("\nOr, once {} is a standby, go on killing:\n  {kill}", left.name));
                }
            }
            Self::Clusters(clusters) => {
                let pcr = clusters.ctl(ctl);
                let (heal, stream) = match now {
                    0 => ("simulate restore --cluster standby", "setup"),
                    _ => ("simulate restore", "failback create-stream"),
                };
                text.push_str(&format!(
                    " {} gets not one byte, even when it is back. If it is cut off, end that:\n  {pcr} {heal}\n\
                     Make it follow {}. What stands only on {} is ERASED:\n  {pcr} {stream}",
                    left.name, side.name, left.name,
                ));
                let (to, line) = match now {
                    0 => ("go on disrupting", disrupt(&pcr, side.name)),
                    _ => ("bring data and traffic home without a lost row", format!("{ctl} restore")),
                };
                text.push_str(&format!("\nOnce it is armed again, {to}:\n  {line}"));
            }
        }
        text
    }
}

impl Clusters {
    /// The client as it speaks to the Cloud API.
    fn ctl(&self, ctl: &str) -> String {
        format!("{ctl} --config {}", self.configuration.display())
    }
}

/// A cluster is disrupted by its full name alone.
fn disrupt(ctl: &str, name: &str) -> String {
    format!("{ctl} simulate disrupt --cluster-name {name}")
}
