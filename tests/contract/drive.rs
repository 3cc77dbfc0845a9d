//! Every operation of the client, with every parameter and field that it can send. The API behind it must know both
//! clusters and let `stream` fail over.

use std::time::Duration;

use pgpivot::cockroach_cloud::model::{ClusterId, Disruption, StreamFilter, StreamId, StreamUpdate};
use pgpivot::cockroach_cloud::{Client, Error, Settings};
use pgpivot::types::Secret;

/// A client of a server on loopback, patient enough for its own rate limit.
pub fn client(url: &str) -> Client {
    let secret = Secret::new("CCDB1_contract".into());
    let settings = Settings { base_url: url.into(), timeout: Duration::from_secs(60), ..Settings::new(secret) };
    Client::build(&settings).unwrap()
}

/// Reads everything.
pub async fn reads(client: &Client, cluster: ClusterId, stream: StreamId) -> Result<(), Error> {
    client.clusters().await?;
    client.cluster(cluster).await?;
    client.nodes(cluster).await?;
    client.disruptions(cluster).await?;
    client.connection_string(cluster, None, None).await?;
    client.connection_string(cluster, Some("defaultdb"), Some("maxroach")).await?;
    client.streams(&StreamFilter::default()).await?;
    let id = Some(cluster);
    client.streams(&StreamFilter { primary: id, standby: id, cluster: id, show_completed: Some(true) }).await?;
    client.stream(stream).await?;
    Ok(())
}

/// Changes everything.
pub async fn writes(client: &Client, primary: ClusterId, standby: ClusterId, stream: StreamId) -> Result<(), Error> {
    client.create_stream(primary, standby).await?;
    let at = "2026-01-02T15:04:05Z".parse().unwrap();
    client.update_stream(stream, &StreamUpdate::failover(None)).await?;
    client.update_stream(stream, &StreamUpdate::failover(Some(at))).await?;
    client.cancel_stream(stream).await?;
    let part = Disruption {
        is_whole_region: false,
        azs: vec!["us-east1-a".into()],
        pods: vec!["cockroachdb-0".into()],
        ..Disruption::whole_region("us-east1")
    };
    client.set_disruptions(primary, vec![Disruption::whole_region("us-west1"), part]).await?;
    client.set_disruptions(primary, Vec::new()).await?;
    Ok(())
}
