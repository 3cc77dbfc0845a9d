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
        match client.order(order.path(), &order.body()).await {
            Ok(text) => PatroniSays::Taken(text),
            Err(trouble @ (Trouble::Unreachable { .. } | Trouble::Nobody)) => PatroniSays::NotSent(trouble.to_string()),
            Err(Trouble::Says { address, status: status @ (401 | 403), text }) => PatroniSays::Refused(format!(
                "{address} answers {status}: {text}; user and password_file of [service.NAME.patroni] are those of \
                 Patroni's restapi.authentication"
            )),
            // Of whoever stands before it: the order may have passed him.
            Err(trouble @ Trouble::Says { status: 500 | 502 | 504, .. }) => PatroniSays::Unknown(trouble.to_string()),
            Err(trouble @ Trouble::Says { .. }) => PatroniSays::Refused(trouble.to_string()),
            Err(trouble) => PatroniSays::Unknown(trouble.to_string()),
        }
    }
}
