//! The client against servers on a script: what it takes, what it refuses, and how it names what went wrong.

use std::time::Duration;

use super::*;
use crate::config::Tls;
use crate::net::scripted::{Peer, Scripted, complaint, message, ready, rows, table};
use crate::types::Secret;

#[tokio::test]
async fn a_query_gives_its_rows_and_an_error_leaves_the_session_usable() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&[rows(&[Some("one"), None]), ready()].concat()).await;
        peer.message().await;
        peer.say(&[complaint(b'E', "42501", "not yours", "f"), ready()].concat()).await;
        peer.message().await;
        peer.trickle(&[rows(&[Some("two")]), ready()].concat()).await;
        peer.hang().await;
    })
    .await;
    let mut session = connect(&server).await.unwrap();
    assert_eq!(query(&mut session).await, Ok(vec![vec![Some("one".into())], vec![None]]));
    assert_eq!(query(&mut session).await.unwrap_err().sqlstate(), Some("42501"));
    assert!(session.is_usable());
    assert_eq!(query(&mut session).await, Ok(vec![vec![Some("two".into())]]));
}

#[tokio::test]
async fn the_columns_of_an_answer_are_found_by_their_names() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&[table(&["id", "state"], &[vec![Some("1"), None], vec![Some("2"), Some("on")]]), ready()].concat())
            .await;
        peer.hang().await;
    })
    .await;
    let mut session = connect(&server).await.unwrap();
    let answer = session.query_table("SHOW x", Instant::now() + Duration::from_secs(5)).await.unwrap();
    assert_eq!(answer.column("state").collect::<Vec<_>>(), [None, Some("on")]);
    assert_eq!(answer.column("id").collect::<Vec<_>>(), [Some("1"), Some("2")]);
    assert_eq!(answer.column("none").collect::<Vec<_>>(), [None, None]);
    assert!(answer.has("state") && !answer.has("State"));
}

#[tokio::test]
async fn a_server_that_dies_while_it_answers_leaves_an_unusable_session() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        peer.say(&complaint(b'E', "57P01", "administrator command", "ProcessInterrupts")).await;
    })
    .await;
    let mut session = connect(&server).await.unwrap();
    assert_eq!(query(&mut session).await.unwrap_err().sqlstate(), Some("57P01"));
    assert!(!session.is_usable());
    let cause = query(&mut session).await.unwrap_err().cause;
    assert_eq!(cause, Cause::Protocol(ProtocolFault::Abandoned));
}

#[tokio::test]
async fn the_end_of_an_idle_session_is_noticed_with_the_servers_last_word() {
    let word = |kind: u8, code: &'static str, routine: &'static str| async move {
        let server = Scripted::start(move |mut peer| async move {
            peer.let_in().await;
            peer.say(&message(b'S', b"is_superuser\0off\0")).await;
            peer.say(&complaint(kind, code, "text in any language", routine)).await;
        })
        .await;
        let mut session = connect(&server).await.unwrap();
        session.closed().await
    };
    assert_eq!(word(b'E', "57P01", "ProcessInterrupts").await.sqlstate(), Some("57P01"));
    assert_eq!(word(b'N', "57P02", "quickdie").await.sqlstate(), Some("57P02"));
    assert_eq!(word(b'N', "00000", "whatever").await.cause, Cause::Closed);
    assert_eq!(word(b'E', "57P01", "secure_read").await.cause, Cause::PostmasterDied);
}

#[tokio::test]
async fn silence_is_blamed_on_the_step_it_happens_in() {
    let silent = Scripted::silent().await;
    assert_eq!(connect(&silent).await.unwrap_err(), SessionError { step: Step::Startup, cause: Cause::TimedOut });
    let with_tls = connect_to(&target(&silent, TlsMode::Require)).await.unwrap_err();
    assert_eq!(with_tls, SessionError { step: Step::Tls, cause: Cause::TimedOut });
    let asks = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.say(&message(b'R', &0_u32.to_be_bytes())).await;
        peer.hang().await;
    })
    .await;
    assert_eq!(connect(&asks).await.unwrap_err(), SessionError { step: Step::Authenticate, cause: Cause::TimedOut });
    let logged_in = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.hang().await;
    })
    .await;
    let mut session = connect(&logged_in).await.unwrap();
    assert_eq!(query(&mut session).await.unwrap_err(), SessionError { step: Step::Query, cause: Cause::TimedOut });
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_connection_that_ends_early_is_closed_or_reset_never_refused() {
    let closes = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
    })
    .await;
    assert_eq!(connect(&closes).await.unwrap_err(), SessionError { step: Step::Startup, cause: Cause::Closed });
    let resets = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.reset();
    })
    .await;
    let error = connect(&resets).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Io { kind: std::io::ErrorKind::ConnectionReset, .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_used_plain_by_prefer_and_refused_by_require() {
    let server = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.say(b"N").await;
        peer.let_in().await;
        peer.hang().await;
    })
    .await;
    let session = connect_to(&target(&server, TlsMode::Prefer)).await.unwrap();
    assert!(!session.is_encrypted());
    let error = connect_to(&target(&server, TlsMode::Require)).await.unwrap_err();
    assert_eq!(error, SessionError { step: Step::Tls, cause: Cause::NoTls });
}

#[tokio::test]
async fn what_is_not_the_protocol_is_named_and_never_grows_without_bound() {
    let says = |bytes: Vec<u8>| async move {
        let server = Scripted::start(move |mut peer: Peer| {
            let bytes = bytes.clone();
            async move {
                peer.first_packet().await;
                peer.say(&bytes).await;
                peer.hang().await;
            }
        })
        .await;
        connect(&server).await.unwrap_err().cause
    };
    assert_eq!(says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, ProtocolFault::TooLarge(0x5454_5030).into());
    assert_eq!(says(vec![b'R', 0, 0, 0, 1]).await, ProtocolFault::Malformed.into());
    assert_eq!(says(message(b'C', b"SELECT\0")).await, ProtocolFault::Unexpected.into());
    assert_eq!(says(vec![b'D', 0x7f, 0xff, 0xff, 0xff]).await, ProtocolFault::TooLarge(1 << 31).into());
    assert_eq!(says(message(b'R', &7_u32.to_be_bytes())).await, Cause::Method);
    assert_eq!(says(message(b'R', &3_u32.to_be_bytes())).await, Cause::NoPassword);
}

#[tokio::test]
async fn a_result_that_is_too_large_is_given_up() {
    let server = Scripted::start(|mut peer| async move {
        peer.let_in().await;
        peer.message().await;
        let piece = "x".repeat(MAX_MESSAGE / 2);
        peer.say(&rows(&[Some(&piece), Some(&piece), Some(&piece)])).await;
        peer.hang().await;
    })
    .await;
    let mut session = connect(&server).await.unwrap();
    let cause = query(&mut session).await.unwrap_err().cause;
    assert!(matches!(cause, Cause::Protocol(ProtocolFault::TooLarge(_))), "{cause:?}");
}

#[tokio::test]
async fn a_negotiated_protocol_version_is_no_failure() {
    let server = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.say(&message(b'v', &[0, 0, 0, 0, 0, 0, 0, 0])).await;
        peer.say(&[message(b'R', &0_u32.to_be_bytes()), ready()].concat()).await;
        peer.hang().await;
    })
    .await;
    assert!(connect(&server).await.is_ok());
}

#[tokio::test]
async fn a_server_that_cannot_prove_the_password_is_an_impostor() {
    let server = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.say(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await;
        let (_, first) = peer.message().await;
        let first = String::from_utf8_lossy(&first).into_owned();
        let nonce = first.rsplit("r=").next().unwrap_or_default().to_owned();
        let challenge = format!("r={nonce}server,s=c2FsdHNhbHQ=,i=4096");
        peer.say(&message(b'R', &[b"\0\0\0\x0b", challenge.as_bytes()].concat())).await;
        peer.message().await;
        peer.say(&message(b'R', b"\0\0\0\x0cv=bm90IHRoZSBzaWduYXR1cmUgb2YgYSBzZXJ2ZXIuLg==")).await;
        peer.hang().await;
    })
    .await;
    let mut target = target(&server, TlsMode::Disable);
    target.login.password = Some(Secret::new("right".into()));
    let error = connect_to(&target).await.unwrap_err();
    assert_eq!(error, SessionError { step: Step::Authenticate, cause: Cause::Impostor });
}

#[tokio::test]
async fn saying_hello_ends_at_the_first_answer_and_never_sends_the_password() {
    let server = Scripted::start(|mut peer| async move {
        peer.first_packet().await;
        peer.say(&message(b'R', &3_u32.to_be_bytes())).await;
        let (kind, _) = peer.message().await;
        assert_eq!(kind, 0, "nothing may follow");
    })
    .await;
    let mut target = target(&server, TlsMode::Disable);
    target.login.password = Some(Secret::new("secret".into()));
    assert_eq!(Session::greet(&target, soon()).await, Ok(()));
}

async fn connect(server: &Scripted) -> Result<Session, SessionError> {
    connect_to(&target(server, TlsMode::Disable)).await
}

async fn connect_to(target: &Target) -> Result<Session, SessionError> {
    Session::connect(target, soon()).await
}

async fn query(session: &mut Session) -> Result<Rows, SessionError> {
    session.query("SELECT 1", soon()).await
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn target(server: &Scripted, mode: TlsMode) -> Target {
    Target {
        address: server.address,
        server_name: "localhost".into(),
        tls: ClientTls::build(&Tls { mode, ca_file: None, server_name: None }).unwrap(),
        login: Login { user: "u".into(), database: "d".into(), password: None },
        application_name: "test".into(),
        replication: false,
    }
}
