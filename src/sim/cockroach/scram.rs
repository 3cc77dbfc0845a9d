//! The server's side of SCRAM-SHA-256 (RFC 5802, 7677), without channel binding, as CockroachDB has it. Pure: the
//! nonce is an argument. Passwords become verifiers by `postgres_protocol`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The one mechanism.
pub(in crate::sim) const MECHANISM: &str = "SCRAM-SHA-256";

/// What a server keeps of a password.
#[derive(Clone)]
pub(in crate::sim) struct Verifier {
    iterations: u32,
    /// In base64, as it is sent.
    salt: String,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub(in crate::sim) struct Exchange<'a> {
    verifier: &'a Verifier,
    /// As the client must repeat it, in base64.
    header: String,
    nonce: String,
    client_first: String,
    server_first: String,
}

/// Why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::sim) enum ScramError {
    #[error("malformed SCRAM message")]
    Malformed,
    #[error("channel binding is not supported")]
    Binding,
    #[error("password authentication failed")]
    WrongPassword,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Salts and hashes a password.
    pub(in crate::sim) fn of(password: &str) -> Option<Self> {
        // SCRAM-SHA-256$4096:salt$StoredKey:ServerKey
        let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: salt.to_owned(),
            stored_key: STANDARD.decode(stored_key).ok()?,
            server_key: STANDARD.decode(server_key).ok()?,
        })
    }

    /// Takes the client's first message and gives the exchange with the server's first one. `nonce`: the server's part.
    pub(in crate::sim) fn begin(&self, first: &str, nonce: &str) -> Result<Exchange<'_>, ScramError> {
        let mut parts = first.splitn(3, ',');
        let (binding, identity) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        }
        let theirs = attribute(bare, "r").filter(|nonce| !nonce.is_empty()).ok_or(ScramError::Malformed)?;
        let nonce = format!("{theirs}{nonce}");
        Ok(Exchange {
            verifier: self,
            header: STANDARD.encode(format!("{binding},{identity},")),
            server_first: format!("r={nonce},s={},i={}", self.salt, self.iterations),
            nonce,
            client_first: bare.to_owned(),
        })
    }
}

impl Exchange<'_> {
    /// The server's first message.
    pub(in crate::sim) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the client's proof and gives the server's last message.
    pub(in crate::sim) fn finish(self, last: &str) -> Result<String, ScramError> {
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        if attribute(without_proof, "c") != Some(&self.header) || attribute(without_proof, "r") != Some(&self.nonce) {
            return Err(ScramError::Malformed);
        }
        let messages = format!("{},{},{without_proof}", self.client_first, self.server_first);
        let signature = hmac(&self.verifier.stored_key, messages.as_bytes())?;
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let same = Sha256::digest(&key).as_slice().ct_eq(&self.verifier.stored_key);
        if proof.len() != signature.len() || !bool::from(same) {
            return Err(ScramError::WrongPassword);
        }
        Ok(format!("v={}", STANDARD.encode(hmac(&self.verifier.server_key, messages.as_bytes())?)))
    }
}

/// The value of `name=` in a message.
fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn hmac(key: &[u8], message: &[u8]) -> Result<Vec<u8>, ScramError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| ScramError::Malformed)?;
    mac.update(message);
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn attempt(verifier: &Verifier, password: &str) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = String::from_utf8(client.message().to_vec()).unwrap();
        let exchange = verifier.begin(&first, "server")?;
        client.update(exchange.server_first().as_bytes()).unwrap();
        let last = String::from_utf8(client.message().to_vec()).unwrap();
        client.finish(exchange.finish(&last)?.as_bytes()).expect("the client must believe the server");
        Ok(())
    }

    #[test]
    fn the_right_password_is_proven_to_both_sides_and_a_wrong_one_to_none() {
        let verifier = Verifier::of("correct horse").unwrap();
        assert_eq!(attempt(&verifier, "correct horse"), Ok(()));
        assert_eq!(attempt(&verifier, "battery staple"), Err(ScramError::WrongPassword));
    }

    #[test]
    fn a_forged_exchange_is_refused() {
        let verifier = Verifier::of("x").unwrap();
        assert_eq!(verifier.begin("p=tls-unique,,n=,r=abc", "s").unwrap_err(), ScramError::Binding);
        assert_eq!(verifier.begin("n,,n=,r=", "s").unwrap_err(), ScramError::Malformed);
        assert_eq!(verifier.begin("nonsense", "s").unwrap_err(), ScramError::Malformed);
        let last = |text: &str| verifier.begin("n,,n=,r=abc", "s").unwrap().finish(text).unwrap_err();
        assert_eq!(last("c=biws,r=abc,p=AAAA"), ScramError::Malformed, "the server's part of the nonce is missing");
        assert_eq!(last("c=biws,r=abcs,p=AAAA"), ScramError::WrongPassword);
        assert_eq!(last("c=biws,r=abcs"), ScramError::Malformed);
    }
}
