//! A change of leader ordered from Patroni: nothing is promoted here, and its answer is a word, not a proof.

use super::Effects;
use crate::failover::action::{PatroniOrder, PatroniSays};
use crate::patroni::Trouble;

impl Effects {
    /// Orders it from the first member that can be reached, and hears its answer: it comes when the change is made or has
    /// failed. At most `order_timeout` for each that is tried.
    pub async fn order_patroni(&self, order: &PatroniOrder) -> PatroniSays {
        let Some(client) = &self.patroni else {
            return PatroniSays::NotSent(
                "the settings of [service.NAME.patroni] cannot be used; the log says why".into(),
            );
        };
        heard(client.order(order.path(), &order.body()).await)
    }
}

/// Only a word that nothing was or will be done is a refusal.
fn heard(answer: Result<String, Trouble>) -> PatroniSays {
    match answer {
        Ok(text) => PatroniSays::Taken(text),
        Err(trouble @ (Trouble::Unreachable { .. } | Trouble::Nobody)) => PatroniSays::NotSent(trouble.to_string()),
        Err(Trouble::Says { address, status: status @ (401 | 403), text }) => PatroniSays::Refused(format!(
            "{address} answers {status}: {text}; user and password_file of [service.NAME.patroni] are those of \
                 Patroni's restapi.authentication"
        )),
        // It waited for the change for as long as it does, and does not know: the change may still come.
        Err(Trouble::Says { address, status: 503, text }) if text.contains("status unknown") => {
            PatroniSays::Unknown(format!("{address} answers 503: {text}"))
        }
        // Of whoever stands before it: the order may have passed him.
        Err(trouble @ Trouble::Says { status: 500 | 502 | 504, .. }) => PatroniSays::Unknown(trouble.to_string()),
        Err(trouble @ Trouble::Says { .. }) => PatroniSays::Refused(trouble.to_string()),
        Err(trouble) => PatroniSays::Unknown(trouble.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(status: u16, text: &str) -> PatroniSays {
        heard(Err(Trouble::Says { address: "db1:8008".parse().unwrap(), status, text: text.into() }))
    }

    #[test]
    fn patroni_that_does_not_know_whether_the_leader_changes_has_not_refused() {
        for (status, text) in [(503, "Switchover status unknown"), (503, "Failover status unknown"), (504, "")] {
            assert!(matches!(says(status, text), PatroniSays::Unknown(_)), "{status} {text}");
        }
        for (status, text) in [(503, "Switchover failed"), (412, "no good candidates have been found"), (401, "")] {
            assert!(matches!(says(status, text), PatroniSays::Refused(_)), "{status} {text}");
        }
    }
}
