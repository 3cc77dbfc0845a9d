//! Members that are dead, hang, refuse or talk nonsense, on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::types::Secret;

const CLUSTER: &str = r#"{"members": [{"name": "db1", "role": "leader", "state": "running"}]}"#;

/// A member that answers every request with this text and closes; `None`: it never answers. What it was asked comes back.
async fn member(answer: Option<String>) -> (HostPort, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (asked, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&request[..length]).into_owned());
            match &answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => silent.push(stream),
            }
        }
    });
    (address, heard)
}

/// As Python's server writes it.
fn reply(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}"))
}

async fn dead() -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

fn client(addresses: &[&HostPort]) -> Client {
    Client::build(&Patroni {
        addresses: addresses.iter().map(|address| (*address).clone()).collect(),
        tls: false,
        ca_file: None,
        certificate: None,
        login: Some(("operator".into(), Secret::new("hunter2".into()))),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(20),
        order_timeout: Duration::from_secs(20),
    })
    .unwrap()
}

#[tokio::test]
async fn a_member_that_is_dead_or_hangs_does_not_keep_the_others_from_being_heard() {
    let ((hung, _asked), (well, mut heard)) = (member(None).await, member(reply("200 OK", CLUSTER)).await);
    let client = client(&[&dead().await, &hung, &well]);
    let (via, cluster) = client.cluster().await.unwrap();
    assert_eq!((&via, cluster.leader().unwrap().name.as_str()), (&well, "db1"));
    let request = heard.recv().await.unwrap();
    assert!(request.starts_with("GET /cluster ") && !request.to_lowercase().contains("authorization"), "{request}");
    // Who answered is asked first from then on.
    client.cluster().await.unwrap();
    assert!(heard.recv().await.is_some());
}

#[tokio::test]
async fn when_nobody_tells_what_each_of_them_said_is_known() {
    let (closes, _heard) = member(Some(String::new())).await;
    let (stranger, _heard) = member(reply("200 OK", "<html>")).await;
    let troubles = client(&[&dead().await, &closes, &stranger]).cluster().await.unwrap_err();
    let said = troubles.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    for part in
        ["cannot be reached: connection refused", "it closed the connection", "not as Patroni does: it is not JSON"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn an_order_goes_to_one_member_that_can_be_reached_with_the_login() {
    let (well, mut heard) = member(reply("200 OK", "Successfully switched over to \"db2\"")).await;
    let (other, mut idle) = member(reply("200 OK", "never")).await;
    let said = client(&[&dead().await, &well, &other]).order("switchover", r#"{"leader":"db1"}"#).await.unwrap();
    assert_eq!(said, "Successfully switched over to \"db2\"");
    let request = heard.recv().await.unwrap();
    assert!(request.starts_with("POST /switchover "), "{request}");
    assert!(request.to_lowercase().contains("authorization: basic b3blcmf0b3i6ahvudgvymg=="), "{request}");
    assert!(idle.try_recv().is_err(), "what was sent once goes to nobody else");
}

#[tokio::test]
async fn a_refusal_keeps_its_words_and_an_answer_that_is_lost_is_neither_yes_nor_no() {
    let (refuses, _heard) = member(reply("412 Precondition Failed", "leader name does not match")).await;
    let said = client(&[&refuses]).order("switchover", "{}").await.unwrap_err().to_string();
    assert!(said.ends_with("answers 412: leader name does not match"), "{said}");
    let (closes, _heard) = member(Some(String::new())).await;
    let lost = client(&[&closes]).order("failover", "{}").await.unwrap_err();
    assert!(matches!(lost, Trouble::NoAnswer { cause: Cause::Closed, .. }), "{lost:?}");
    let nobody = client(&[&dead().await]).order("failover", "{}").await.unwrap_err();
    assert!(matches!(nobody, Trouble::Unreachable { .. }), "{nobody:?}");
}

#[tokio::test]
async fn a_member_tells_whether_it_is_primary() {
    for (status, is) in [("200 OK", Some(true)), ("503 Service Unavailable", Some(false)), ("404 Not Found", None)] {
        let (api, _heard) = member(reply(status, "{}")).await;
        assert_eq!(client(&[&api]).is_primary(&api).await, is, "{status}");
    }
    assert_eq!(client(&[]).is_primary(&dead().await).await, None);
}

#[test]
fn the_password_is_never_printed() {
    let printed = format!("{:?}", client(&[]));
    assert!(!printed.contains("hunter2") && !printed.contains("b3Bl"), "{printed}");
}
