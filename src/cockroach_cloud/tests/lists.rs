//! Lists are read to their end, and no further than it makes sense.

use super::server::{Act, Server, json};
use super::{A, B, S, client};
use crate::cockroach_cloud::model::StreamFilter;
use crate::cockroach_cloud::{Trouble, Unreadable};

fn page(id: u32, next: &str) -> Act {
    let stream = format!(
        r#"{{"id":"00000000-0000-0000-0000-{id:012}","status":"COMPLETED","primary_cluster_id":"{A}",
        "standby_cluster_id":"{B}"}}"#
    );
    json(200, &format!(r#"{{"physical_replication_streams":[{stream}],"pagination":{next}}}"#))
}

#[tokio::test]
async fn all_pages_are_read() {
    let server = Server::start([
        page(1, r#"{"next_page":"a b"}"#),
        page(2, r#"{"next_page":"c","previous_page":"x"}"#),
        page(3, r#"{"next_page":"","previous_page":"y"}"#),
    ])
    .await;
    let filter = StreamFilter { cluster: Some(A), ..StreamFilter::default() };
    let streams = client(&server).streams(&filter).await.unwrap().value;
    let ids: Vec<String> = streams.iter().map(|stream| stream.id.to_string()[35..].to_owned()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    let requests = server.requests();
    assert!(requests[1].contains(&format!("?cluster_id={A}&pagination.page=a+b HTTP")), "{}", requests[1]);
    assert!(requests[2].contains(&format!("?cluster_id={A}&pagination.page=c HTTP")), "{}", requests[2]);
}

#[tokio::test]
async fn a_list_without_pagination_is_one_page() {
    let server = Server::start([page(1, "null")]).await;
    let streams = client(&server).streams(&StreamFilter::default()).await.unwrap().value;
    assert_eq!(streams[0].id, S);
}

#[tokio::test]
async fn pages_that_go_round_or_do_not_end_are_an_error() {
    let round = [page(1, r#"{"next_page":"a"}"#), page(2, r#"{"next_page":"b"}"#), page(3, r#"{"next_page":"a"}"#)];
    let endless = (0..100).map(|n| page(n, &format!(r#"{{"next_page":"{n}"}}"#)));
    for (script, sent) in [(round.to_vec(), 3), (endless.collect(), crate::cockroach_cloud::MAX_PAGES)] {
        let server = Server::start(script).await;
        let error = client(&server).streams(&StreamFilter::default()).await.unwrap_err();
        assert_eq!(error.trouble, Trouble::Unreadable { status: 200, what: Unreadable::EndlessPages });
        assert_eq!(server.requests().len(), sent);
    }
}

#[tokio::test]
async fn a_list_that_breaks_off_is_an_error_and_no_short_list() {
    let server = Server::start([page(1, r#"{"next_page":"a"}"#), json(403, "")]).await;
    let error = client(&server).streams(&StreamFilter::default()).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
}
