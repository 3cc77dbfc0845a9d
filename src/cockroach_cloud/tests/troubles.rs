//! Every kind of trouble is told apart and named.

use std::time::Duration;

use super::server::{Act, Server, json};
use super::{A, S, SECRET, client, impatient, settings, stream};
use crate::cockroach_cloud::{Cause, Client, Code, MAX_BODY, Step, Trouble, Unreadable};

#[tokio::test]
async fn a_refusal_keeps_its_status_its_code_and_its_words() {
    for (status, code, name) in [
        (400, 3, "INVALID_ARGUMENT"),
        (401, 16, "UNAUTHENTICATED"),
        (403, 7, "PERMISSION_DENIED"),
        (404, 5, "NOT_FOUND"),
        (409, 10, "ABORTED"),
    ] {
        let body = format!(r#"{{"code":{code},"message":"it is\nso","details":[{{"@type":"x","y":1}}]}}"#);
        let server = Server::start([json(status, &body)]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        assert!(matches!(error.trouble, Trouble::Refused(_)), "{error:?}");
        assert_eq!((error.status(), error.code()), (Some(status), Some(Code(code))));
        assert!(error.is_final() && !error.may_have_taken_effect());
        assert_eq!(error.is_gone(), status == 404);
        let text = format!("reading replication stream {S}: the API refuses ({status} {name}): it is so");
        assert_eq!(error.to_string(), text);
        assert_eq!(server.requests().len(), 1, "{status} is not asked again");
    }
}

#[tokio::test]
async fn a_refusal_is_one_whatever_its_body_is() {
    let cut = b"HTTP/1.1 403 X\r\ncontent-length: 100\r\n\r\n{\"code\":7".to_vec();
    let large = "x".repeat(MAX_BODY + 1);
    for act in [json(403, ""), json(403, "no"), json(403, "[1]"), json(403, &large), Act::SayAndReset(cut)] {
        let server = Server::start([act]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        assert!(matches!(&error.trouble, Trouble::Refused(answer) if answer.status == 403), "{error:?}");
    }
}

#[tokio::test]
async fn a_gateways_page_is_named_by_its_title() {
    let page = "<html><head><title>502 Bad\nGateway</title></head><body>nginx</body></html>";
    let server = Server::start([1, 2, 3].map(|_| json(502, page))).await;
    let error = client(&server).cluster(A).await.unwrap_err();
    assert!(matches!(error.trouble, Trouble::Failed(_)), "{error:?}");
    let text = format!("reading cluster {A}: the API fails (502): an HTML page titled \"502 Bad Gateway\" (3 tries)");
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn an_answer_that_is_none_is_unreadable_and_not_asked_for_again() {
    let whole = stream("REPLICATING");
    let cases = [
        ("<!doctype html><title>Sign in</title>", Unreadable::Html("Sign in".into())),
        (&whole[..whole.len() - 3], Unreadable::Truncated),
        ("", Unreadable::Truncated),
        ("OK", Unreadable::NotJson),
    ];
    for (body, what) in cases {
        let server = Server::start([json(200, body)]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        assert_eq!(error.trouble, Trouble::Unreadable { status: 200, what }, "{body}");
        assert!(error.to_string().contains("the API says something unreadable (200): "), "{error}");
        assert!(!error.is_final() && !error.is_unreachable() && error.status() == Some(200));
        assert_eq!(server.requests().len(), 1);
    }
    for body in ["{}", "[]", "null", r#"{"id":7}"#] {
        let server = Server::start([json(200, body)]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        let shape = matches!(&error.trouble, Trouble::Unreadable { what: Unreadable::Shape(_), .. });
        assert!(shape, "{body}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_a_bound() {
    let pad = |length: usize| format!("{}{}", stream("STARTING"), " ".repeat(length - stream("STARTING").len()));
    let server = Server::start([json(200, &pad(MAX_BODY)), json(200, &pad(MAX_BODY + 1))]).await;
    let client = client(&server);
    client.stream(S).await.unwrap();
    let error = client.stream(S).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreadable { status: 200, what: Unreadable::TooLarge });
    let raw = Server::start([json(200, &pad(MAX_BODY + 1))]).await;
    let error = super::client(&raw).raw(&"/api/v1/x".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreadable { status: 200, what: Unreadable::TooLarge });
}

#[tokio::test]
async fn a_redirect_is_an_error_that_names_the_host_and_is_not_followed() {
    let other = Server::start([json(200, &stream("REPLICATING"))]).await;
    for status in [301, 302, 307, 308] {
        let server = Server::start([Act::reply(status, &[("location", &format!("{}/x", other.url))], "")]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        let what = Unreadable::Redirect("127.0.0.1".into());
        assert_eq!(error.trouble, Trouble::Unreadable { status, what });
        assert!(error.to_string().contains("a redirect to 127.0.0.1, which is never followed"), "{error}");
    }
    assert_eq!(other.requests().len(), 0);
    let server = Server::start([Act::reply(302, &[("location", "https://sso.example/login?x")], "")]).await;
    let error = client(&server).stream(S).await.unwrap_err();
    assert!(error.to_string().contains("a redirect to sso.example"), "{error}");
}

#[tokio::test]
async fn what_speaks_no_http_is_unreadable() {
    let server = Server::start([Act::Say(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())]).await;
    let error = client(&server).stream(S).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreadable { status: 0, what: Unreadable::NotHttp });
    assert_eq!(error.status(), None);
}

#[tokio::test]
async fn a_connection_that_is_reset_is_unreachable_at_the_step_it_was_at() {
    let cut = b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{".to_vec();
    for (act, at) in
        [(Act::ResetUnread, Step::Reply), (Act::ResetRead, Step::Reply), (Act::SayAndReset(cut), Step::Body)]
    {
        let server = Server::start([act.clone(), act.clone(), act.clone()]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        assert!(matches!(error.trouble, Trouble::Unreachable { step, .. } if step == at), "{act:?}: {error:?}");
        assert_eq!((error.tries, error.is_unreachable(), error.is_final()), (3, true, false));
        assert_eq!(server.requests().len(), 3, "a read that was lost is tried again");
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_was_never_used() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::build(&settings(&format!("http://{gone}"))).unwrap();
    let error = client.cancel_stream(S).await.unwrap_err();
    let cause = Cause::Io(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Connect, cause });
    assert!(!error.may_have_taken_effect(), "{error}");
    assert!(error.to_string().ends_with("the API is unreachable (connecting): connection refused"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_does_not_answer() {
    let plain = Act::Say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec());
    for (act, cause) in [
        (plain, Cause::Tls),
        (Act::Say(Vec::new()), Cause::Closed),
        (Act::ResetUnread, Cause::Io(std::io::ErrorKind::ConnectionReset)),
    ] {
        let server = Server::start([act]).await;
        let url = server.url.replace("http://", "https://");
        let error = Client::build(&settings(&url)).unwrap().cancel_stream(S).await.unwrap_err();
        assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Tls, cause });
        assert!(!error.may_have_taken_effect(), "{error}");
    }
}

#[tokio::test]
async fn silence_ends_by_the_deadline() {
    let server = Server::start([Act::Silence]).await;
    let started = std::time::Instant::now();
    let error = impatient(&server).stream(S).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Reply, cause: Cause::TimedOut });
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert_eq!(server.requests().len(), 1);
    assert!(!format!("{error:?}{error}").contains(SECRET));
}

#[tokio::test]
async fn a_reply_that_does_not_end_ends_by_the_deadline() {
    let server = Server::start([Act::SayAndHang(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{".to_vec())]).await;
    let error = impatient(&server).stream(S).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Body, cause: Cause::TimedOut });
    let server = Server::start([Act::SayAndHang(b"HTTP/1.1 403 X\r\ncontent-length: 9\r\n\r\n{".to_vec())]).await;
    assert_eq!(impatient(&server).stream(S).await.unwrap_err().status(), Some(403), "a refusal is one at once");
}

#[tokio::test]
async fn silence_in_a_tls_handshake_sends_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let client = Client::build(&settings(&url)).unwrap().with_timeout(Duration::from_millis(400));
    let error = client.cancel_stream(S).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Connect, cause: Cause::TimedOut });
    assert!(!error.may_have_taken_effect(), "{error}");
}
