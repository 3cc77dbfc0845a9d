//! tokio-postgres through the proxy: one connection, made anew when it is lost.
//!
//! Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that speaks")]

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// For one order, a failover included.
const PATIENCE: Duration = Duration::from_secs(60);
/// pgpivot holds new connections while it fails over.
const CONNECT: Duration = Duration::from_secs(40);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config: Config = std::env::var("DATABASE_URL")?.parse()?;
    config.password(std::env::var("PGPASSWORD")?);
    let mut client = None;
    while let Some(order) = next_order().await? {
        save(&config, &mut client, order).await?;
        println!("saved {order}");
    }
    let select = "SELECT id FROM orders WHERE client = 'tokio_postgres' ORDER BY id";
    let rows = connected(&config, &mut client).await?.query(select, &[]).await?;
    let ids: Vec<String> = rows.iter().map(|row| row.get::<_, i64>(0).to_string()).collect();
    println!("read {}", ids.join(" "));
    Ok(())
}

async fn save(config: &Config, client: &mut Option<Client>, order: i64) -> Result<(), Box<dyn Error>> {
    let insert = "INSERT INTO orders (client, id) VALUES ('tokio_postgres', $1) ON CONFLICT DO NOTHING";
    let (deadline, mut wait) = (Instant::now() + PATIENCE, Duration::from_millis(100));
    loop {
        let attempt = async { Ok(connected(config, client).await?.execute(insert, &[&order]).await?) };
        let error: Box<dyn Error> = match attempt.await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        eprintln!("trying again: {error}");
        if Instant::now() > deadline {
            return Err(error);
        }
        *client = None;
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

async fn connected<'c>(config: &Config, client: &'c mut Option<Client>) -> Result<&'c Client, Box<dyn Error>> {
    if client.as_ref().is_none_or(Client::is_closed) {
        let (fresh, connection) = timeout(CONNECT, config.connect(NoTls)).await??;
        // It ends with the client.
        tokio::spawn(connection);
        *client = Some(fresh);
    }
    Ok(client.as_ref().ok_or("no connection")?)
}

async fn next_order() -> Result<Option<i64>, Box<dyn Error>> {
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.transpose()?;
    Ok(line.map(|line| line.parse()).transpose()?)
}
