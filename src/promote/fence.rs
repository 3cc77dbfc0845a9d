//! The node fence: a command of the operator's that keeps writes from a server by the server's own means (power, cloud
//! API, STONITH). Which orders need it is the machine's business.

use std::time::Duration;

use super::EffectError;
use super::error::Ended;
use super::process::{self, Values};
use crate::config::Backend;
use crate::types::Epoch;

/// After this a fence has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs `fence_command`; only exit status 0 is a fence.
pub(super) async fn fence(command: Option<&[String]>, backend: &Backend, epoch: Epoch) -> Result<(), EffectError> {
    let command = command.ok_or(EffectError::NoFence)?;
    // A fence acts on a server that may answer nothing: it gets the name as configured, not an address proven long ago.
    let address = backend.addresses.first().map(ToString::to_string).unwrap_or_default();
    let argv = process::argv(command, &Values { backend: &backend.name, primary: None, address, epoch });
    let finished = process::run(&argv, TIMEOUT).await?;
    match finished.ended {
        Ended::Exit(0) => Ok(()),
        ended => {
            let program = argv.into_iter().next().unwrap_or_default();
            Err(EffectError::Command { program, ended, said: finished.said })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Tls, TlsMode};

    async fn fenced(script: &str) -> Result<(), String> {
        let argv = ["/bin/sh", "-c", script, "fence", "{backend}", "{address}"].map(str::to_owned);
        let backend = Backend {
            name: "east".into(),
            addresses: vec!["db1.example.com:5432".parse().unwrap()],
            role: None,
            weight: 100,
            priority: 100,
            promote: true,
            replication_address: None,
            tls: Tls { mode: TlsMode::Disable, ca_file: None, server_name: None },
            cluster_id: None,
            member: None,
        };
        fence(Some(&argv), &backend, Epoch(3)).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_exit_status_0_is_a_fence_and_the_last_words_say_why_not() {
        assert_eq!(fenced("test \"$*\" = 'east db1.example.com:5432'").await, Ok(()));
        let failed = fenced("echo trying >&2; echo 'power switch does not answer' >&2; exit 1").await;
        assert_eq!(failed, Err("/bin/sh ended with exit status 1: power switch does not answer".into()));
    }
}
