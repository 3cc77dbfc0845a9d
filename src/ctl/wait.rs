//! Waiting until a command is done: what counts as done, and showing what happens meanwhile. Sends no command.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::CtlError;
use super::api::{Api, ApiError};
use super::history::Line;
use super::render::{duration, plain};
use super::terminal::Terminal;
use crate::types::{BackendName, Epoch, ServiceName};
use crate::view::{ServiceStatus, Status};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// An episode that the receipt names shows within this, or it is over already.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);
/// How often the history is asked for the end of an episode that the status shows to be over.
const LOOKS_AT_HISTORY: u32 = 5;
/// Lines of history that an episode may have written since.
const LINES: u32 = 200;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// This episode has ended.
    Episode(u64),
    /// This backend is the active side.
    Active(BackendName),
    /// No episode is under way.
    NoEpisode,
    /// New decisions are stopped, or are not.
    Paused(bool),
    /// The rejoin of this backend has ended.
    Rejoined(BackendName),
    /// This backend is a standby that streams.
    Streams(BackendName),
    /// It could be promoted.
    Armed(BackendName),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is so; how long it took where the daemon says it.
    Done {
        /// The last event of the episode, or what the status shows.
        sentence: String,
        /// From the decision to the end, by the daemon's clock.
        took: Option<Duration>,
    },
    /// It will not be so.
    Cancelled {
        /// Why.
        sentence: String,
    },
    /// Not within the time that was given; it goes on.
    StillUnderWay {
        /// What it waits for.
        sentence: String,
    },
    /// The person stopped waiting; it goes on.
    Interrupted,
}

/// The services and where they stood when the command was sent.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Which, and their epochs before. One, unless the command was for all.
    pub(super) services: Vec<(ServiceName, Epoch)>,
    /// What is waited for.
    pub(super) goal: Goal,
}

/// One look at the status.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Not yet, and what it does now.
    NotYet(String),
    /// The goal is reached.
    Reached,
    /// No episode is there (any more): the history tells how it ended.
    Gone,
}

/// Waits until the goal is reached, it became impossible, or the time is up.
pub(super) async fn until(
    api: &Api,
    terminal: &Terminal,
    watched: &Watched,
    timeout: Duration,
) -> Result<Ended, CtlError> {
    let began = Instant::now();
    let mut progress = Progress::new(terminal);
    let mut seen = false;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let mut now = String::from("waiting for the daemon");
        match api.status().await {
            Ok(status) => match look(&status, watched) {
                Look::Reached => return ended(api, watched, &status, true).await,
                Look::Gone if seen || began.elapsed() >= APPEARS_WITHIN => {
                    return ended(api, watched, &status, false).await;
                }
                Look::Gone => {}
                Look::NotYet(what) => (now, seen) = (what, true),
            },
            Err(error) if error.refused() || matches!(error, ApiError::NotPgpivot { .. }) => return Err(error.into()),
            Err(error) => now = error.to_string(),
        }
        if began.elapsed() >= timeout {
            return Ok(Ended::StillUnderWay { sentence: now });
        }
        progress.show(&now)?;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = &mut interrupt => return Ok(Ended::Interrupted),
        }
    }
}

/// The first service that is not there yet decides.
fn look(status: &Status, watched: &Watched) -> Look {
    let looks = watched.services.iter().map(|(name, epoch)| match status.services.iter().find(|s| s.name == *name) {
        Some(service) => look_at(service, *epoch, &watched.goal),
        // Taken out of the configuration meanwhile: nothing will come of it.
        None => Look::Gone,
    });
    looks.into_iter().find(|look| *look != Look::Reached).unwrap_or(Look::Reached)
}

fn look_at(s: &ServiceStatus, before: Epoch, goal: &Goal) -> Look {
    let reached = |yes: bool| if yes { Look::Reached } else { Look::NotYet(now(s)) };
    match goal {
        Goal::Paused(paused) => reached(s.paused.is_some() == *paused),
        Goal::Active(backend) => reached(s.episode.is_none() && s.open && s.active.as_ref() == Some(backend)),
        Goal::NoEpisode => reached(s.episode.is_none()),
        Goal::Armed(backend) => reached(s.backends.iter().any(|b| b.name == *backend && b.armed)),
        Goal::Streams(backend) if streams(s, backend) => Look::Reached,
        Goal::Streams(backend) => Look::NotYet(format!("{backend} does not stream yet")),
        Goal::Rejoined(backend) => match s.rejoin.as_ref().filter(|rejoin| rejoin.backend == *backend) {
            Some(rejoin) if rejoin.runs() => {
                let said = rejoin.said.as_ref().map_or_else(String::new, |said| format!(": {said}"));
                Look::NotYet(format!("rejoin of {backend} by {} ({}){said}", rejoin.method, rejoin.stage))
            }
            Some(rejoin) if rejoin.stage == "done" => Look::Reached,
            // The daemon may have been started again since it ended.
            None if streams(s, backend) => Look::Reached,
            _ => Look::Gone,
        },
        Goal::Episode(id) => match &s.episode {
            Some(e) if e.id <= *id => Look::NotYet(now(s)),
            _ if s.epoch > before => Look::Reached,
            _ => Look::Gone,
        },
    }
}

/// It is a standby that receives, and is not quarantined.
pub(super) fn streams(s: &ServiceStatus, backend: &BackendName) -> bool {
    let receives = |word: &str| matches!(word, "streaming" | "writing" | "idle");
    s.backends.iter().any(|b| {
        b.name == *backend
            && b.role == "standby"
            && b.quarantined.is_none()
            && b.witness.as_deref().is_some_and(receives)
    })
}

/// What the service does now, in one line.
fn now(s: &ServiceStatus) -> String {
    match (&s.blocked, &s.episode) {
        (Some(blocked), _) => format!("{}: {}", s.phase, blocked.sentence),
        (None, Some(e)) => format!("{} to {} ({}): {}", e.kind, e.to, s.phase, s.next),
        (None, None) => format!("{}: {}", s.phase, s.next),
    }
}

/// How an episode ended, by its history; the status is the fallback.
async fn ended(api: &Api, watched: &Watched, status: &Status, reached: bool) -> Result<Ended, CtlError> {
    let ours: Vec<_> =
        watched.services.iter().filter_map(|(name, _)| status.services.iter().find(|s| s.name == *name)).collect();
    let now = ours.iter().map(|s| stands(s)).collect::<Vec<_>>().join("; ");
    let id = match (&watched.goal, ours.as_slice()) {
        (Goal::Rejoined(backend), [service]) => {
            let last = service.rejoin.as_ref().filter(|rejoin| rejoin.backend == *backend);
            let sentence = last.and_then(|rejoin| rejoin.said.clone());
            return Ok(match reached {
                true => Ended::Done { sentence: sentence.unwrap_or_else(|| format!("{backend} streams")), took: None },
                false => Ended::Cancelled {
                    sentence: sentence.unwrap_or_else(|| format!("nothing is known of a rejoin of {backend} any more")),
                },
            });
        }
        (Goal::Streams(backend), [_]) if reached => {
            return Ok(Ended::Done {
                sentence: format!("{backend} streams, and is no longer quarantined"),
                took: None,
            });
        }
        (Goal::Episode(id), [_]) => *id,
        _ if reached => {
            return Ok(Ended::Done { sentence: now, took: None });
        }
        _ => {
            return Ok(Ended::Cancelled { sentence: "the daemon does not have this service any more".to_owned() });
        }
    };
    let lines = lines_of(api, watched, id).await;
    Ok(match lines.iter().rfind(|l| l.switched() || l.cancelled()) {
        Some(last) if last.cancelled() && !reached => Ended::Cancelled { sentence: last.sentence.clone() },
        Some(last) if last.switched() => {
            let took = lines.first().map(|first| last.at.since(first.at));
            Ended::Done { sentence: last.sentence.clone(), took }
        }
        _ if reached => Ended::Done { sentence: now, took: None },
        _ => Ended::Cancelled { sentence: format!("episode {id} has ended: {now}") },
    })
}

/// The episode's part of the history. It is written behind the decision, so its last line may come a little later.
async fn lines_of(api: &Api, watched: &Watched, id: u64) -> Vec<Line> {
    let service = watched.services.first().map(|(name, _)| name.as_str());
    let mut lines = Vec::new();
    for _ in 0..LOOKS_AT_HISTORY {
        // It may be unreadable although the switch was made: its absence is no failure of the switch.
        let all = api.history(service, LINES).await.unwrap_or_default();
        lines = all.iter().map(Line::read).filter(|l| l.episode == Some(id)).collect();
        if lines.iter().any(|l| l.switched() || l.cancelled()) {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    lines
}

fn stands(s: &ServiceStatus) -> String {
    let paused = if s.paused.is_some() { ", automatic decisions are paused" } else { "" };
    match &s.active {
        Some(active) => format!("{}: {active} is active, epoch {}{paused}", s.name, s.epoch),
        None => format!("{}: no side is active{paused}", s.name),
    }
}

/// A spinner on a terminal; elsewhere one line of talk at every change.
struct Progress<'t> {
    terminal: &'t Terminal,
    bar: Option<ProgressBar>,
    shown: String,
    began: Instant,
}

impl<'t> Progress<'t> {
    fn new(terminal: &'t Terminal) -> Self {
        let bar = terminal.progress.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { terminal, bar, shown: String::new(), began: Instant::now() }
    }

    fn show(&mut self, now: &str) -> Result<(), CtlError> {
        let now = plain(now);
        match &self.bar {
            Some(bar) => bar.set_message(now),
            None if now != self.shown => {
                self.terminal.talk(&format!("{:>8}  {now}", duration(self.began.elapsed())))?;
                self.shown = now;
            }
            None => {}
        }
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;

    fn watched(goal: Goal) -> Watched {
        Watched { services: vec![("main".into(), Epoch(3))], goal }
    }

    #[test]
    fn an_episode_is_over_when_it_is_gone_and_the_epoch_has_moved() {
        let look_at = |status: Status, id| look(&status, &watched(Goal::Episode(id)));
        assert!(
            matches!(look_at(sample::promoting(), 5), Look::NotYet(what) if what.starts_with("failover to us-west (promoting)"))
        );
        assert_eq!(look_at(sample::switched(), 5), Look::Reached);
        assert_eq!(look_at(sample::steady(), 5), Look::Gone);
        // Another one was begun since: ours is over.
        assert_eq!(look_at(sample::promoting(), 4), Look::Gone);
    }

    #[test]
    fn what_blocks_a_promotion_is_shown_while_it_is_waited_for() {
        let mut status = sample::promoting();
        status.services[0].blocked = sample::blocked().services[0].blocked.clone();
        let Look::NotYet(what) = look(&status, &watched(Goal::Episode(5))) else { panic!("it goes on") };
        assert!(what.contains("it lives, we cannot see it"), "{what}");
    }

    #[test]
    fn a_rejoin_is_waited_for_until_its_daemon_says_how_it_ended() {
        let goal = Goal::Rejoined("us-east".into());
        let with = |stage: &str, said: &str| {
            let mut status = sample::switched();
            status.services[0].rejoin = Some(crate::view::RejoinStatus {
                backend: "us-east".into(),
                method: "rewind".into(),
                stage: stage.into(),
                since: status.at,
                operator: "alice".into(),
                parted_at: Some(crate::types::Lsn(0x3000)),
                bytes_given_up: Some(256),
                said: Some(said.into()),
            });
            look(&status, &watched(goal.clone()))
        };
        assert_eq!(with("done", "us-east streams"), Look::Reached);
        assert_eq!(with("failed", "no such slot"), Look::Gone);
        for stage in ["ordered", "running", "waiting"] {
            let Look::NotYet(what) = with(stage, "42% copied") else { panic!("it goes on") };
            assert_eq!(what, format!("rejoin of us-east by rewind ({stage}): 42% copied"));
        }
    }

    #[test]
    fn pause_and_adoption_are_seen_in_the_status() {
        let mut status = sample::switched();
        assert_eq!(look(&status, &watched(Goal::Active("us-west".into()))), Look::Reached);
        assert!(matches!(look(&status, &watched(Goal::Paused(true))), Look::NotYet(_)));
        status.services[0].paused = Some("alice".into());
        assert_eq!(look(&status, &watched(Goal::Paused(true))), Look::Reached);
        assert_eq!(look(&status, &watched(Goal::NoEpisode)), Look::Reached);
    }
}
