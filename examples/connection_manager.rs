//! pgpivot's own library instead of the proxy: the application connects to the active side itself and asks again where
//! that is when its connection is lost. Build it with `default-features = false`.
//!
//! Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that speaks")]

use std::error::Error;

use pgpivot::client::ConnectionManager;
use tokio_postgres::{Client, NoTls};

/// How often one order is tried.
const TRIES: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // PGPIVOT_URL, DB_USERNAME, DB_PASSWORD, DB_NAME.
    let manager = ConnectionManager::from_env()?;
    let mut client = connect(&manager).await?;
    while let Some(order) = next_order().await? {
        save(&manager, &mut client, order).await?;
        println!("saved {order}");
    }
    let select = "SELECT id FROM orders WHERE client = 'connection_manager' ORDER BY id";
    let rows = client.query(select, &[]).await?;
    let ids: Vec<String> = rows.iter().map(|row| row.get::<_, i64>(0).to_string()).collect();
    println!("read {}", ids.join(" "));
    Ok(())
}

/// A write is repeated because the key makes that harmless.
async fn save(manager: &ConnectionManager, client: &mut Client, order: i64) -> Result<(), Box<dyn Error>> {
    let insert = "INSERT INTO orders (client, id) VALUES ('connection_manager', $1) ON CONFLICT DO NOTHING";
    for _ in 1..TRIES {
        match client.execute(insert, &[&order]).await {
            Ok(_) => return Ok(()),
            Err(error) => eprintln!("trying again: {error}"),
        }
        manager.report_failure();
        *client = connect(manager).await?;
    }
    client.execute(insert, &[&order]).await?;
    Ok(())
}

async fn connect(manager: &ConnectionManager) -> Result<Client, Box<dyn Error>> {
    let connected = manager
        .with_retry(async |dsn: String| {
            let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
            // It ends with the client.
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })
        .await?;
    Ok(connected)
}

async fn next_order() -> Result<Option<i64>, Box<dyn Error>> {
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.transpose()?;
    Ok(line.map(|line| line.parse()).transpose()?)
}
