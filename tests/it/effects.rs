//! What the daemon's orders do to real servers, without a daemon: promote, lock, freeze, clear, and their undoing.

use crate::harness::{Cluster, Pair, SOON, Shutdown, eventually};
use pgpivot::config::{self, Config, Promoter, Service};
use pgpivot::failover::action::{Latched, LockResult, PromotionResult};
use pgpivot::promote::Effects;
use pgpivot::types::{BackendName, Epoch, Lsn, Secret, SystemId, Timeline};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

mod freezing;
mod locking;
mod promoting;

fn east() -> BackendName {
    "east".into()
}

fn west() -> BackendName {
    "west".into()
}

fn effects(pair: &Pair) -> Effects {
    Effects::build(&service(&[&pair.east, &pair.west]), "test")
}

fn backend(pair: &Pair, name: &str) -> config::Backend {
    let backends = service(&[&pair.east, &pair.west]).backends;
    backends.into_iter().find(|backend| backend.name.as_str() == name).unwrap()
}

async fn app(server: &Cluster) -> tokio_postgres::Client {
    connect(server, "app", "an application").await
}

async fn connect(server: &Cluster, user: &str, name: &str) -> tokio_postgres::Client {
    try_connect(server.address(), user, name).await.unwrap_or_else(|error| panic!("{error}\n{}", server.log_tail()))
}

async fn try_connect(to: SocketAddr, user: &str, name: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(to.ip().to_string())
        .port(to.port())
        .user(user)
        .password(user)
        .dbname(if user == "app" { "app" } else { "postgres" })
        .application_name(name);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// In the database that the daemon logs in to: grants on functions hold for one database.
async fn as_superuser(server: &Cluster, sql: &str) {
    let mut config = tokio_postgres::Config::new();
    config.host_path(server.data().parent().unwrap()).port(server.port).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

fn auto_conf(server: &Cluster) -> String {
    std::fs::read_to_string(server.data().join("postgresql.auto.conf")).unwrap()
}

fn service(servers: &[&Cluster]) -> Service {
    let mut text = String::from("[service.main]\nkind = \"postgres\"\n");
    for server in servers {
        text +=
            &format!("[[service.main.backend]]\nname = \"{}\"\naddresses = [\"{}\"]\n", server.name, server.address());
        text += "tls = { mode = \"disable\" }\n";
    }
    text += "[service.main.probe]\nkind = \"sql\"\nuser = \"pgpivot\"\ndatabase = \"postgres\"\n";
    text += "[service.main.failover]\npromoter = \"postgres\"\n";
    let raw = config::raw::parse(&text);
    let (mut config, _): (Config, _) = config::validate::build(raw, &config::env::Env::default(), 1).unwrap();
    let mut service = config.services.remove(0);
    if let Promoter::Postgres { login } = &mut service.failover.promoter {
        login.password = Some(Secret::new("pgpivot".into()));
    }
    service
}
