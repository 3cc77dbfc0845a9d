//! The token goes to the server and nowhere else, not even when the server sends it back.

use super::server::{Act, Server, json};
use super::{S, SECRET, client, settings};
use crate::cockroach_cloud::Client;

#[tokio::test]
async fn a_server_that_echoes_the_token_cannot_make_us_print_it() {
    let echo = format!("Authorization: Bearer {SECRET}");
    let status = format!(r#"{{"code":16,"message":"bad {echo}"}}"#);
    let long = format!(r#"{{"code":16,"message":"{}{echo}"}}"#, "x".repeat(270));
    let location = format!("https://{SECRET}.example/");
    let shape = format!(r#"{{"id":"{SECRET}"}}"#);
    let page = format!("<html><title>{}</title>", SECRET.to_lowercase());
    for act in [
        json(401, &status),
        json(401, &long),
        json(401, &echo),
        json(401, &page),
        json(200, &page),
        json(200, &shape),
        Act::reply(302, &[("location", &location)], ""),
        Act::Say(echo.clone().into_bytes()),
    ] {
        let server = Server::start([act.clone()]).await;
        let error = client(&server).stream(S).await.unwrap_err();
        let shown = format!("{error} {error:?} {error:#?}").to_lowercase();
        assert!(!shown.contains(&SECRET.to_lowercase()), "{shown}");
        assert!(!shown.contains("ccdb1_"), "no part of it either: {shown}");
    }
}

#[tokio::test]
async fn a_raw_reply_is_masked() {
    let server = Server::start([Act::reply(200, &[("server", SECRET)], &format!("you said {SECRET}"))]).await;
    let reply = client(&server).raw(&"/api/v1/x".parse().unwrap()).await.unwrap().value;
    assert_eq!(reply.body, "you said ***");
    assert!(reply.headers.contains(&("server".into(), "***".into())), "{:?}", reply.headers);
}

#[test]
fn settings_and_client_do_not_show_it() {
    let settings = settings("http://127.0.0.1:1");
    let client = Client::build(&settings).unwrap();
    let shown = format!("{settings:?} {client:?} {client:#?}");
    assert!(shown.contains("127.0.0.1") && !shown.contains("CCDB1_"), "{shown}");
}
