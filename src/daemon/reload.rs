//! SIGHUP and `POST /reload`: read, validate, diff, apply; on any problem what runs stays, and why is said.

use super::{Daemon, pairs, refusal, settings, signals};
use crate::config::diff::{diff, live_part};
use crate::config::{Config, Service};
use crate::failover::action::{Receipt, Refusal};
use crate::failover::phase::BlockReason;
use crate::probe::Probes;
use crate::types::BackendName;

impl Daemon {
    /// What a reload would change.
    pub(super) fn explain_reload(&self) -> Result<Receipt, Refusal> {
        let new = self.read_again()?;
        let changes = diff(&self.config, &new);
        Ok(Receipt { sentence: "this is what a reload would do".into(), episode: None, steps: changes.summary() })
    }

    /// Reads and applies. Sessions whose backend does not change are not touched.
    pub(super) async fn reload(&mut self, notify: bool) -> Result<Receipt, Refusal> {
        signals::notify_reloading(notify);
        let answer = self.apply_reload().await;
        signals::notify(notify, sd_notify::NotifyState::Ready);
        match &answer {
            Ok(receipt) => {
                for line in &receipt.steps {
                    tracing::info!("{line}");
                }
                tracing::info!("{}", receipt.sentence);
            }
            Err(refusal) => tracing::error!(why = refusal.sentence, "reload refused"),
        }
        answer
    }

    fn read_again(&self) -> Result<Config, Refusal> {
        let Some(source) = &self.source else {
            return Err(refusal(
                "no_source",
                "this daemon was started without a configuration that could be read again",
            ));
        };
        super::load(source).map_err(|error| {
            let place = source.path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            let problems = count(error.problems.len(), "problem");
            refusal("invalid", format!("what runs stays: {place}{problems}: {error}"))
        })
    }

    async fn apply_reload(&mut self) -> Result<Receipt, Refusal> {
        let new = self.read_again()?;
        let changes = diff(&self.config, &new);
        let applied = live_part(&self.config, &new);
        self.keeps_active(&applied)?;
        let groups = pairs::regroup(&self.config.services, &applied.services)
            .map_err(|why| refusal("pairs_changed", format!("what runs stays: {why}")))?;
        for services in &groups {
            Probes::check(&services[0]).map_err(|error| refusal("probe", format!("what runs stays: {error}")))?;
        }
        self.listeners.apply(&applied).map_err(|error| refusal("listener", format!("what runs stays: {error}")))?;
        self.admin.apply(&settings(&applied));
        for services in groups {
            let name = services[0].name.clone();
            let Some(inbox) = self.inboxes.get(&name) else { continue };
            if inbox.config.send(services).await.is_err() {
                return Err(refusal("ended", format!("the decision loop of {name} has ended")));
            }
        }
        self.shared.board.arrange(applied.services.iter().map(|service| service.name.clone()).collect());
        let mut steps = changes.summary();
        if steps.is_empty() {
            steps.push("nothing changed".into());
        }
        self.config = applied;
        let later = changes.restart_only.len();
        let sentence = match later {
            0 => "reloaded".to_owned(),
            _ => format!(
                "reloaded, but for {} that cannot change without a restart: {}",
                count(later, "setting"),
                changes.restart_only.join(", ")
            ),
        };
        Ok(Receipt { sentence, episode: None, steps })
    }

    /// The active backend of a service may not vanish from its configuration, nor become another cluster.
    fn keeps_active(&self, new: &Config) -> Result<(), Refusal> {
        let status = self.shared.board.status().load_full();
        for shown in &status.services {
            let Some(service) = new.services.iter().find(|service: &&Service| service.name == shown.name) else {
                continue;
            };
            let runs = |name: &BackendName| shown.backends.iter().find(|shown| shown.name == *name);
            let target = shown.episode.as_ref().map(|episode| &episode.to);
            if let Some(to) = target.filter(|to| {
                let backend = service.backends.iter().find(|backend| backend.name == **to);
                backend.is_none_or(|new| runs(to).is_some_and(|is| is.cluster_id != new.cluster_id))
            }) {
                let why = format!("traffic of {} moves to {to}, which cannot be removed or replaced; wait", shown.name);
                return Err(refusal("target_removed", format!("what runs stays: {why}")));
            }
            let Some(active) = &shown.active else { continue };
            let Some(backend) = service.backends.iter().find(|backend| backend.name == *active) else {
                return Err(refusal(
                    "active_removed",
                    format!(
                        "what runs stays: {active} is active for {} and cannot be removed; switch over first",
                        shown.name
                    ),
                ));
            };
            // What was started with may be the mistake: the latch knows which cluster it means.
            let unproven = |block: &crate::view::Blocked| block.reason == BlockReason::LatchUnproven.as_str();
            let starting = !shown.open && shown.blocked.as_ref().is_some_and(unproven);
            if let (Some(was), Some(is)) = (runs(active).and_then(|b| b.cluster_id.as_ref()), &backend.cluster_id)
                && was != is
                && !starting
            {
                return Err(refusal(
                    "active_replaced",
                    format!(
                        "what runs stays: {active} is active for {} as cluster {was} and cannot become cluster {is}; \
                         switch over first",
                        shown.name
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
