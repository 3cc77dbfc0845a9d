//! Clients' TLS ends at the listener: what they see, what servers see, and who is refused in which words.

mod binding;
mod wire;

use std::time::Duration;

use super::proxy::*;
use crate::config::{self, Kind, Target};
use crate::listener::Listeners;
use crate::net::certificates::Certificate;
use wire::{Encrypted, GSSENC_REQUEST, Guarded};

/// The listener's certificate, the server's, and a proxy between them that trusts the latter.
pub(in crate::listener) struct Stage {
    pub(in crate::listener) ours: Certificate,
    pub(in crate::listener) proxy: Proxy,
    pub(in crate::listener) server: Guarded,
}

impl Stage {
    async fn new() -> Self {
        Self::with(false, |_| ()).await
    }

    async fn with(require: bool, change: impl FnOnce(&mut config::Service)) -> Self {
        let ours = Certificate::make();
        Self::showing(ours, Guarded::start().await, require, change)
    }

    fn showing(ours: Certificate, server: Guarded, require: bool, change: impl FnOnce(&mut config::Service)) -> Self {
        let proxy = Proxy::start(|service| {
            service.listeners[0].tls = ours.terminate(require);
            service.backends = vec![configured("east", server.certificate.trusted())];
            change(service);
        });
        proxy.open(&[server.server.address]);
        Self { ours, proxy, server }
    }

    async fn client(&self) -> Encrypted {
        Encrypted::ask(self.proxy.address(), &self.ours).await
    }

    /// A client and the server that has greeted it.
    async fn logged_in(&self, user: &str) -> (Encrypted, Encrypted) {
        let mut client = self.client().await;
        client.send(&startup(user)).await;
        let mut server = self.server.accept().await;
        server.expect(&startup(user)).await;
        server.send(b"R").await;
        client.expect(b"R").await;
        (client, server)
    }
}

fn configured(name: &str, tls: config::Tls) -> config::Backend {
    let addresses = vec!["localhost:5432".parse().unwrap()];
    config::Backend {
        name: name.into(),
        addresses,
        role: None,
        weight: 100,
        priority: 100,
        promote: true,
        replication_address: None,
        tls,
        cluster_id: None,
        member: None,
    }
}

#[tokio::test]
async fn a_client_sees_our_certificate_the_server_sees_our_tls_and_bytes_pass_in_both() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(b"R first").await;
    client.expect(b"R first").await;
    client.send(b"a question").await;
    server.expect(b"a question").await;
    server.send(b"an answer").await;
    client.expect(b"an answer").await;
    stage.proxy.live(1).await;
    drop(client);
    assert_eq!(server.rest().await, "");
    drop(server);
    stage.proxy.live(0).await;
}

#[tokio::test]
async fn a_client_that_begins_with_tls_names_the_protocol_or_is_closed() {
    let stage = Stage::new().await;
    let mut client = Encrypted::direct(stage.proxy.address(), &stage.ours, true).await.unwrap();
    client.send(&startup("alice")).await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(b"R").await;
    client.expect(b"R").await;
    if let Ok(mut unnamed) = Encrypted::direct(stage.proxy.address(), &stage.ours, false).await {
        assert_eq!(unnamed.rest().await, "");
    }
    stage.server.server.nobody_came().await;
}

#[tokio::test]
async fn what_comes_in_clear_behind_the_request_for_tls_is_refused() {
    let stage = Stage::new().await;
    let mut client = stage.proxy.connect().await;
    client.send(&[SSL_REQUEST, &startup("mallory")].concat()).await;
    assert!(client.expect_refusal("08P01").await.contains("received unencrypted data after the request for TLS"));
    stage.server.server.nobody_came().await;
}

#[tokio::test]
async fn gssapi_is_declined_once_and_tls_may_follow() {
    let stage = Stage::new().await;
    let mut client = stage.proxy.connect().await;
    client.send(GSSENC_REQUEST).await;
    client.expect(b"N").await;
    let mut client = Encrypted::after(client, &stage.ours).await;
    client.send(&startup("alice")).await;
    stage.server.accept().await.expect(&startup("alice")).await;
    let mut twice = stage.proxy.connect().await;
    twice.send(GSSENC_REQUEST).await;
    twice.expect(b"N").await;
    twice.send(GSSENC_REQUEST).await;
    twice.expect_refusal("0A000").await;
}

#[tokio::test]
async fn encryption_inside_of_encryption_is_refused() {
    let stage = Stage::new().await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = stage.client().await;
        client.send(request).await;
        assert!(client.expect_refusal("0A000").await.contains("unsupported frontend protocol 1234.5"));
    }
}

#[tokio::test]
async fn where_tls_is_required_plaintext_is_refused_but_a_cancel_in_clear_goes_through() {
    let stage = Stage::with(true, |_| ()).await;
    let mut plain = stage.proxy.login("alice").await;
    assert!(plain.expect_refusal("28000").await.contains("this listener takes encrypted connections only"));
    stage.server.server.nobody_came().await;
    let mut cancel = stage.proxy.connect().await;
    cancel.send(&cancel_request()).await;
    let mut server = stage.server.accept().await;
    server.expect(&cancel_request()).await;
    drop(server);
    cancel.expect_closed().await;
}

#[tokio::test]
async fn where_tls_is_not_required_a_plaintext_client_is_served_over_tls_to_the_server() {
    let stage = Stage::new().await;
    let mut client = stage.proxy.login("alice").await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(b"R").await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_cancel_inside_tls_reaches_the_server_inside_tls() {
    let stage = Stage::new().await;
    let mut cancel = stage.client().await;
    cancel.send(&cancel_request()).await;
    let mut server = stage.server.accept().await;
    server.expect(&cancel_request()).await;
    drop(server);
    let _ = cancel.rest().await;
}

#[tokio::test]
async fn a_backend_without_tls_is_spoken_to_in_clear() {
    let stage = Stage::with(false, |service| service.backends[0].tls.mode = config::TlsMode::Disable).await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut server = stage.server.server.greet().await;
    client.expect(b"R").await;
    client.send(b"a question").await;
    server.expect(b"a question").await;
}

#[tokio::test]
async fn a_held_client_is_served_when_the_gate_opens_and_told_inside_tls_when_it_does_not() {
    let stage = Stage::with(false, |service| service.failover.hold_timeout = Duration::from_millis(500)).await;
    stage.proxy.close();
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    assert!(client.expect_refusal("57P03").await.contains("the primary is gone"));
    let stage = Stage::new().await;
    stage.proxy.close();
    let mut client = stage.client().await;
    client.send(&startup("bob")).await;
    stage.proxy.held(1).await;
    stage.proxy.open_to("east", 2, &[stage.server.server.address]);
    let mut server = stage.server.accept().await;
    server.expect(&startup("bob")).await;
    server.send(b"R").await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_server_that_says_not_now_inside_tls_is_not_the_last_word() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut starting = stage.server.accept().await;
    starting.expect(&startup("alice")).await;
    starting.send(b"E\0\0\0\x1bSFATAL\0C57P03\0Mstarting\0\0").await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(b"R").await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_named_at_once() {
    let stranger = Certificate::make();
    let stage = Stage::with(false, |service| service.backends[0].tls = stranger.trusted()).await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    stage.server.is_refused().await;
    let said = client.expect_refusal("08001").await;
    assert!(said.contains("TLS with east at 127.0.0.1") && said.contains("certificate does not verify"), "{said:?}");
}

#[tokio::test]
async fn a_server_without_tls_where_it_must_have_it_is_named_at_once() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut server = stage.server.server.accept().await;
    server.expect(SSL_REQUEST).await;
    server.send(b"N").await;
    assert_eq!(server.rest().await, "", "nothing is sent in clear");
    assert!(client.expect_refusal("08001").await.contains("the server offers no TLS"));
}

#[tokio::test]
async fn without_a_server_name_the_configured_host_is_verified() {
    let stage = Stage::with(false, |service| service.backends[0].tls.server_name = None).await;
    let address = stage.server.server.address;
    let learn = |host: &str| {
        let host = format!("{host}:{}", address.port()).parse().unwrap();
        stage.proxy.routing.learn(&main(), &east(), &[(host, address)]);
    };
    learn("localhost");
    let _verified = stage.logged_in("alice").await;
    learn("db1.example.com");
    let mut client = stage.client().await;
    client.send(&startup("bob")).await;
    stage.server.is_refused().await;
    client.expect_refusal("08001").await;
}

#[tokio::test]
async fn cockroachs_own_parameters_are_dropped_and_refused_inside_tls_too() {
    let stage = Stage::with(false, |service| service.kind = Kind::Cockroach).await;
    let with = |name: &str| {
        let body = format!("\0\x03\0\0user\0app\0{name}\0x\0options\0-ccluster=main\0\0");
        [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body.as_bytes()].concat()
    };
    let mut client = stage.client().await;
    client.send(&with("CRDB:Remote_Addr")).await;
    let mut server = stage.server.accept().await;
    let passed = b"\0\x03\0\0user\0app\0options\0-ccluster=main\0\0";
    server.expect(&[&u32::try_from(passed.len() + 4).unwrap().to_be_bytes()[..], passed].concat()).await;
    let mut client = stage.client().await;
    client.send(&with("crdb:Session_Revival_Token_Base64")).await;
    client.expect_refusal("08004").await;
}

#[tokio::test]
async fn an_idle_session_that_is_cut_hears_why_inside_tls() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    client.send(&startup("alice")).await;
    let mut server = stage.server.accept().await;
    server.expect(&startup("alice")).await;
    server.send(b"Z\0\0\0\x05I").await;
    client.expect(b"Z\0\0\0\x05I").await;
    stage.proxy.connections.cut(&main(), &east(), crate::relay::Cut::Demoted);
    client.expect_refusal("57P01").await;
}

#[tokio::test]
async fn who_dawdles_in_the_handshake_is_ended_in_time() {
    let short = Duration::from_millis(300);
    let stage = Stage::with(false, |service| service.connection.first_packet_timeout = short).await;
    let mut client = stage.proxy.connect().await;
    client.send(SSL_REQUEST).await;
    client.expect(b"S").await;
    client.expect_closed().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_changes_nothing() {
    let mut stage = Stage::new().await;
    let (mut old, mut server) = stage.logged_in("alice").await;
    // Port 0 was asked for: that is the listener's name.
    let renewed = Certificate::make();
    stage.proxy.config.services[0].listeners[0].tls = renewed.terminate(false);
    stage.proxy.listeners.apply(&stage.proxy.config).unwrap();
    stage.ours = renewed;
    let _new = stage.logged_in("bob").await;
    if let config::ListenerTls::Terminate(tls) = &mut stage.proxy.config.services[0].listeners[0].tls {
        tls.identity = None;
    }
    let error = stage.proxy.listeners.apply(&stage.proxy.config).unwrap_err();
    assert!(error.to_string().contains("the certificate of 127.0.0.1:0 cannot be used"), "{error}");
    let _same = stage.logged_in("carol").await;
    old.send(b"still there").await;
    server.expect(b"still there").await;
}

#[tokio::test]
async fn no_listener_can_be_had_with_a_ca_file_that_is_none() {
    let ours = Certificate::make();
    let mut service = service();
    service.listeners =
        vec![config::Listener { tls: ours.terminate(false), ..listener("127.0.0.1:0", Target::Active) }];
    let tls = config::Tls { ca_file: Some("/nowhere".into()), ..ours.trusted() };
    service.backends = vec![configured("east", tls)];
    let config = config(vec![service]);
    let (sender, _evidence) = tokio::sync::mpsc::unbounded_channel();
    let connections = crate::connections::Connections::new(sender);
    let error = Listeners::start(&config, crate::routing::Routing::new(&config), connections).unwrap_err();
    assert!(
        error.to_string().starts_with("service main: backend east: ca_file \"/nowhere\" cannot be read"),
        "{error}"
    );
}
