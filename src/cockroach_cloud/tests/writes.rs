//! A write is sent once, and what is said of it afterwards is true.

use super::server::{Act, Server, json};
use super::{A, B, S, client, impatient, stream};
use crate::cockroach_cloud::Error;
use crate::cockroach_cloud::model::{Disruption, StreamUpdate};

async fn failover(server: &Server) -> Error {
    impatient(server).update_stream(S, &StreamUpdate::failover(None)).await.unwrap_err()
}

#[tokio::test]
async fn an_order_whose_reply_is_lost_may_have_taken_effect_and_is_not_repeated() {
    let cut = b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{".to_vec();
    let html = json(200, "<html></html>");
    let whole = stream("FAILING_OVER");
    let truncated = json(200, &whole[..20]);
    for act in [Act::ResetRead, Act::Silence, Act::SayAndReset(cut), html, truncated, json(502, ""), json(408, "")] {
        let server = Server::start([act.clone()]).await;
        let error = failover(&server).await;
        assert!(error.may_have_taken_effect(), "{act:?}: {error:?}");
        assert!(error.to_string().ends_with("it may have taken effect all the same"), "{error}");
        assert_eq!((server.requests().len(), error.tries), (1, 1), "{act:?}");
    }
}

#[tokio::test]
async fn an_order_that_is_refused_took_no_effect() {
    for status in [400, 401, 403, 404, 409, 429] {
        let server = Server::start([json(status, r#"{"code":9,"message":"no"}"#)]).await;
        let error = failover(&server).await;
        assert!(!error.may_have_taken_effect(), "{error:?}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn no_kind_of_write_is_repeated() {
    let server = Server::start([Act::ResetRead, json(503, "")]).await;
    let client = client(&server);
    assert!(client.create_stream(A, B).await.unwrap_err().may_have_taken_effect());
    let set = vec![Disruption::whole_region("us-east1")];
    assert!(client.set_disruptions(A, set).await.unwrap_err().may_have_taken_effect());
    assert_eq!(server.requests().len(), 2);
}
