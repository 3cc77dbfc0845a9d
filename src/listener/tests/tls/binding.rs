//! SCRAM's channel binding through a proxy that ends TLS.

use super::super::proxy::startup;
use super::Stage;
use super::wire::{Encrypted, Guarded};

const BOTH: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const PLAIN: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

fn first(mechanism: &str, gs2: &str) -> Vec<u8> {
    let data = format!("{gs2},,n=,r=nonce");
    let count = u32::try_from(data.len()).unwrap().to_be_bytes();
    let body = [mechanism.as_bytes(), b"\0", &count, data.as_bytes()].concat();
    [b"p", &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// A client and a server that has just made its offer.
async fn offered(stage: &Stage) -> (Encrypted, Encrypted) {
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(BOTH).await;
    (client, server)
}

#[tokio::test]
async fn a_client_that_does_without_channel_binding_logs_in() {
    let stage = Stage::new().await;
    let (mut client, mut server) = offered(&stage).await;
    client.expect(PLAIN).await;
    client.send(&first("SCRAM-SHA-256", "n")).await;
    server.expect(&first("SCRAM-SHA-256", "n")).await;
    server.send(b"R on").await;
    client.expect(b"R on").await;
}

#[tokio::test]
async fn a_client_that_would_bind_is_told_what_to_do_and_the_server_hears_nothing() {
    let stage = Stage::new().await;
    let (mut client, mut server) = offered(&stage).await;
    client.expect(PLAIN).await;
    client.send(&first("SCRAM-SHA-256", "y")).await;
    let said = client.expect_refusal("28000").await;
    assert!(said.contains("channel_binding=disable"), "{said:?}");
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn with_the_servers_own_certificate_channel_binding_passes() {
    let server = Guarded::start().await;
    let ours = server.certificate.copy();
    let stage = Stage::showing(ours, server, false, |_| ());
    let (mut client, mut server) = offered(&stage).await;
    client.expect(BOTH).await;
    let bound = first("SCRAM-SHA-256-PLUS", "p=tls-server-end-point");
    client.send(&bound).await;
    server.expect(&bound).await;
}

#[tokio::test]
async fn a_plaintext_client_is_not_offered_what_it_could_not_take() {
    let stage = Stage::new().await;
    let mut client = stage.proxy.login("alice").await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(BOTH).await;
    client.expect(PLAIN).await;
    client.send(&first("SCRAM-SHA-256", "n")).await;
    server.expect(&first("SCRAM-SHA-256", "n")).await;
}

#[tokio::test]
async fn a_side_that_is_cut_in_the_middle_of_a_login_lets_its_client_go() {
    let stage = Stage::new().await;
    let (mut client, _server) = offered(&stage).await;
    client.expect(PLAIN).await;
    stage.proxy.connections.cut(&super::main(), &super::east(), crate::relay::Cut::Demoted);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_login_takes_its_server_with_it() {
    let stage = Stage::new().await;
    let (mut client, mut server) = offered(&stage).await;
    client.expect(PLAIN).await;
    drop(client);
    assert_eq!(server.rest().await, "");
    stage.proxy.live(0).await;
}

#[test]
fn the_messages_are_as_long_as_they_say() {
    for message in [BOTH, PLAIN] {
        assert_eq!(message.len() - 1, usize::from(message[4]));
    }
}
