//! sqlx over pgpivot's pools: writes go to the primary, reads to a replica that has seen them, past the proxy. Build it
//! with `default-features = false, features = ["sqlx"]`.
//!
//! Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that speaks")]

use std::error::Error;
use std::time::Duration;

use pgpivot::client::pool_manager::{PoolBuilder, Session};

/// How often one order is tried.
const TRIES: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // DATABASE_URL, DATABASE_REPLICA_URL; PGPIVOT_URL where a daemon knows the active side.
    let pools = PoolBuilder::from_env()?.acquire_timeout(Duration::from_secs(40)).connect().await?;
    let session = pools.session();
    while let Some(order) = next_order().await? {
        save(&session, order).await?;
        println!("saved {order}");
    }
    let select = "SELECT id FROM orders WHERE client = 'pool_manager' ORDER BY id";
    let ids: Vec<i64> = sqlx::query_scalar(select).fetch_all(session.read()).await?;
    println!("read {}", ids.iter().map(i64::to_string).collect::<Vec<_>>().join(" "));
    pools.close().await;
    Ok(())
}

/// The pools send a write once. It is repeated here because the key makes that harmless.
async fn save(session: &Session, order: i64) -> Result<(), Box<dyn Error>> {
    let insert = "INSERT INTO orders (client, id) VALUES ('pool_manager', $1) ON CONFLICT DO NOTHING";
    for _ in 1..TRIES {
        match sqlx::query(insert).bind(order).execute(session.write()).await {
            Ok(_) => return Ok(()),
            Err(error) => eprintln!("trying again: {error}"),
        }
    }
    sqlx::query(insert).bind(order).execute(session.write()).await?;
    Ok(())
}

async fn next_order() -> Result<Option<i64>, Box<dyn Error>> {
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.transpose()?;
    Ok(line.map(|line| line.parse()).transpose()?)
}
