//! SCRAM's channel binding where TLS ends here: a login that is bound to our certificate fails at a server that has
//! another. Its offer is taken out of what the server says; a client that would have taken it up says so in its answer,
//! which the server would take for an attack, and is told here what the matter is.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::dial::hand_over;
use super::refuse::Refusal;
use super::seek::Found;
use crate::config::Connection;
use crate::net::channel::Channel;
use crate::net::terminate::ServerTls;
use crate::wire::scram::{self, Answer};

/// A client that does not take a hundred bytes for so long is sent away.
const PATIENCE: Duration = Duration::from_secs(5);
/// One read.
const CHUNK: usize = 1024;

/// Sees to it that server and client do not misunderstand each other about channel binding. With the certificate of
/// the server itself they do not: then everything passes.
pub(super) async fn settle(
    client: &mut Channel,
    found: &mut Found,
    tls: &ServerTls,
    settings: &Connection,
) -> Result<(), Refusal> {
    if client.is_encrypted() && tls.is_shown_by(&found.server) {
        return Ok(());
    }
    let Some(said) = scram::without_binding(&found.said) else { return Ok(()) };
    found.said = said;
    // Without TLS a client does not know of channel binding either.
    if !client.is_encrypted() {
        return Ok(());
    }
    let said = std::mem::take(&mut found.said);
    let pass_on = async {
        client.write_all(&said).await?;
        client.flush().await
    };
    if !matches!(timeout(PATIENCE, pass_on).await, Ok(Ok(()))) {
        return Err(Refusal::ClientLeft);
    }
    let answer = answer(client, &found.server).await?;
    // A server that is gone is the relay's too.
    let _ = hand_over(&mut found.server, &answer, settings).await;
    Ok(())
}

/// The client's answer, as far as it must be known. Without a deadline: server and client have their own.
async fn answer(client: &mut Channel, server: &Channel) -> Result<Vec<u8>, Refusal> {
    let (mut answer, mut more) = (Vec::new(), [0; 1]);
    loop {
        match scram::answer(&answer) {
            Answer::Binds => return Err(Refusal::Binding),
            Answer::Free => return Ok(answer),
            Answer::NeedMore => {}
        }
        tokio::select! {
            biased;
            read = client.read_some(&mut answer, CHUNK) => {
                if !read.is_ok_and(|read| read > 0) {
                    return Err(Refusal::ClientLeft);
                }
            }
            // It speaks on, was cut, or is gone.
            _ = server.socket().peek(&mut more) => return Ok(answer),
        }
    }
}
