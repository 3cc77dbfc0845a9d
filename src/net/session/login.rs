//! The startup packet and the password exchange: trust, clear text, md5, SCRAM-SHA-256.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::frames::{Frames, server_error};
use crate::config::Login;
use crate::net::fault::{Cause, ProtocolFault, Step};

/// Sends the startup packet.
pub(super) async fn start(frames: &mut Frames, parameters: &[(&str, &str)]) -> Result<(), Cause> {
    frontend::startup_message(parameters.iter().copied(), &mut frames.outgoing).map_err(|_| ProtocolFault::ZeroByte)?;
    frames.flush().await
}

/// The first answer: `true` = let in without a password, `false` = asked for one.
pub(super) async fn first_answer(frames: &mut Frames) -> Result<bool, Cause> {
    match frames.next().await? {
        Message::AuthenticationOk => Ok(true),
        Message::AuthenticationCleartextPassword
        | Message::AuthenticationMd5Password(_)
        | Message::AuthenticationSasl(_)
        | Message::AuthenticationGss
        | Message::AuthenticationKerberosV5
        | Message::AuthenticationScmCredential
        | Message::AuthenticationSspi => Ok(false),
        Message::ErrorResponse(body) => Err(server_error(body.fields())),
        _ => Err(ProtocolFault::Unexpected.into()),
    }
}

/// After the login: waits for ReadyForQuery.
pub(super) async fn until_ready(frames: &mut Frames) -> Result<(), Cause> {
    loop {
        match frames.next().await? {
            Message::ReadyForQuery(_) => return Ok(()),
            Message::BackendKeyData(_) => {}
            Message::ErrorResponse(body) => return Err(server_error(body.fields())),
            _ => return Err(ProtocolFault::Unexpected.into()),
        }
    }
}

/// Logs in, up to ReadyForQuery. `step` becomes `Authenticate` with the server's first answer.
pub(super) async fn authenticate(frames: &mut Frames, login: &Login, step: &mut Step) -> Result<(), Cause> {
    loop {
        let message = frames.next().await?;
        if !matches!(message, Message::ErrorResponse(_)) {
            *step = Step::Authenticate;
        }
        match message {
            Message::AuthenticationOk | Message::BackendKeyData(_) => {}
            Message::ReadyForQuery(_) => return Ok(()),
            Message::AuthenticationCleartextPassword => send_password(frames, password(login)?.as_bytes()).await?,
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(login.user.as_bytes(), password(login)?.as_bytes(), body.salt());
                send_password(frames, hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => {
                let mut offered = body.mechanisms();
                if !offered.any(|name| Ok(name == SCRAM_SHA_256)).map_err(|_| ProtocolFault::Malformed)? {
                    return Err(Cause::Method);
                }
                scram(frames, password(login)?).await?;
            }
            Message::ErrorResponse(body) => return Err(server_error(body.fields())),
            Message::AuthenticationGss
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential
            | Message::AuthenticationSspi
            | Message::AuthenticationGssContinue(_) => return Err(Cause::Method),
            _ => return Err(ProtocolFault::Unexpected.into()),
        }
    }
}

fn password(login: &Login) -> Result<&str, Cause> {
    login.password.as_ref().map(|secret| secret.expose()).ok_or(Cause::NoPassword)
}

async fn send_password(frames: &mut Frames, password: &[u8]) -> Result<(), Cause> {
    frontend::password_message(password, &mut frames.outgoing).map_err(|_| ProtocolFault::ZeroByte)?;
    frames.flush().await
}

/// SCRAM without channel binding. The key derivation (some ms, more with a high iteration count) leaves the thread,
/// so that no timer of a probe runs late for it.
async fn scram(frames: &mut Frames, password: &str) -> Result<(), Cause> {
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut frames.outgoing)
        .map_err(|_| ProtocolFault::Malformed)?;
    frames.flush().await?;

    let challenge = match frames.next().await? {
        Message::AuthenticationSaslContinue(body) => body,
        Message::ErrorResponse(body) => return Err(server_error(body.fields())),
        _ => return Err(ProtocolFault::Unexpected.into()),
    };
    let derive = move || scram.update(challenge.data()).map(|()| scram);
    let mut scram = match tokio::task::spawn_blocking(derive).await {
        // Mostly more iterations than the library allows: a live server that we cannot log in to.
        Ok(derived) => derived.map_err(|_| Cause::Method)?,
        Err(_) => return Err(ProtocolFault::Abandoned.into()),
    };
    frontend::sasl_response(scram.message(), &mut frames.outgoing).map_err(|_| ProtocolFault::Malformed)?;
    frames.flush().await?;

    match frames.next().await? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(|_| Cause::Impostor),
        Message::ErrorResponse(body) => Err(server_error(body.fields())),
        _ => Err(ProtocolFault::Unexpected.into()),
    }
}
