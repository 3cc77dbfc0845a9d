//! The promoter that runs a command of the operator's.

use std::time::Duration;

use super::error::Ended;
use super::process::{self, Values};
use super::{EffectError, Order, Promoter};
use crate::failover::action::PromotionResult;

/// Exit status by which a command swears that it did not promote and never will.
const REFUSED: i32 = 3;

/// `promoter = "command"`.
#[derive(Debug)]
pub(super) struct Command {
    argv: Vec<String>,
    timeout: Duration,
}

impl Command {
    pub(super) fn new(argv: Vec<String>, timeout: Duration) -> Self {
        Self { argv, timeout }
    }
}

impl Promoter for Command {
    async fn promote(&self, order: &Order<'_>) -> PromotionResult {
        let values =
            Values { backend: order.backend, primary: None, address: order.address.to_string(), epoch: order.epoch };
        let argv = process::argv(&self.argv, &values);
        let finished = match process::run(&argv, self.timeout).await {
            Ok(finished) => finished,
            // An earlier run, before a restart of ours, may have promoted: not started is not refused.
            Err(error) => return PromotionResult::Unknown(error.to_string()),
        };
        let program = argv.into_iter().next().unwrap_or_default();
        let error = EffectError::Command { program, ended: finished.ended, said: finished.said };
        match finished.ended {
            Ended::Exit(0) => PromotionResult::Done,
            Ended::Exit(REFUSED) => PromotionResult::Refused(error.to_string()),
            _ => PromotionResult::Unknown(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BackendName, Epoch};

    async fn promoted(script: &str) -> PromotionResult {
        let argv = ["/bin/sh", "-c", script, "promote", "{backend}", "{address}", "{epoch}"];
        let command = Command::new(argv.map(str::to_owned).to_vec(), Duration::from_millis(500));
        let backend = BackendName::new("west");
        let order = Order { backend: &backend, address: "10.1.2.3:5432".parse().unwrap(), epoch: Epoch(9) };
        command.promote(&order).await
    }

    #[tokio::test]
    async fn only_status_0_is_done_and_only_status_3_is_a_refusal() {
        assert_eq!(promoted("test \"$*\" = 'west 10.1.2.3:5432 9'").await, PromotionResult::Done);
        let refused = promoted("echo 'is fenced' >&2; exit 3").await;
        assert_eq!(refused, PromotionResult::Refused("/bin/sh ended with exit status 3: is fenced".into()));
        for (script, said) in [
            ("exit 1", "/bin/sh ended with exit status 1"),
            ("kill -9 $$", "/bin/sh was ended by signal 9"),
            ("sleep 60", "/bin/sh did not end within 500ms and was killed"),
            // A refusal that only comes when it is killed is none.
            ("trap 'exit 3' TERM; sleep 60 & wait", "/bin/sh did not end within 500ms and was killed"),
        ] {
            assert_eq!(promoted(script).await, PromotionResult::Unknown(said.into()), "{script}");
        }
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_started_leaves_it_open_whether_an_earlier_one_promoted() {
        let command = Command::new(vec!["/nonexistent".into()], Duration::from_secs(1));
        let backend = BackendName::new("west");
        let order = Order { backend: &backend, address: "10.1.2.3:5432".parse().unwrap(), epoch: Epoch(9) };
        assert!(matches!(command.promote(&order).await, PromotionResult::Unknown(_)));
    }
}
