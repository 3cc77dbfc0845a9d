//! The task of one server: looks at it regularly, tries again on its schedule when it is lost, and at once when somebody
//! asks. Ends with the manager that owns it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use super::clock::wall;
use super::fleet::Fleet;
use super::look::look;
use super::primary::{Role, Seen};
use super::server::{Ask, Server};
use super::sqlx_error::brief;

/// Between two looks at least, however many ask.
const BREATH: Duration = Duration::from_millis(50);

/// Runs until it is aborted, or nobody can ask any more.
pub(super) async fn run(fleet: Arc<Fleet>, index: usize, asks: mpsc::Receiver<Ask>) {
    let span = tracing::info_span!("pool_keeper", server = %fleet.servers[index].name);
    keep(&fleet, index, asks).instrument(span).await;
}

async fn keep(fleet: &Fleet, index: usize, mut asks: mpsc::Receiver<Ask>) {
    let server = &fleet.servers[index];
    let mut own = None;
    loop {
        let mut answers = Vec::new();
        tokio::select! {
            () = until_due(fleet, server) => {}
            () = fleet.retimed.notified() => continue,
            ask = asks.recv() => match ask {
                Some(ask) => answers.push(ask),
                None => return,
            },
        }
        while let Ok(ask) = asks.try_recv() {
            answers.push(ask);
        }
        look_at(fleet, server, &mut own).await;
        for answer in answers.into_iter().flatten() {
            // Who asked may have gone.
            let _ = answer.send(());
        }
        sleep(BREATH).await;
    }
}

async fn until_due(fleet: &Fleet, server: &Server) {
    match server.due(fleet.periodic.load(Relaxed)) {
        Some(due) => sleep_until(fleet.clock.instant(due)).await,
        None => pending().await,
    }
}

/// Over the keeper's own connection, which takes none from the pool; over a new one where the old one is lost.
async fn look_at(fleet: &Fleet, server: &Server, own: &mut Option<PgConnection>) {
    let began = Instant::now();
    let kept = own.take();
    let had_one = kept.is_some();
    let mut found = timeout(fleet.limits.check_timeout, look_over(server, kept)).await;
    if had_one && matches!(found, Ok(Err(_))) {
        // Perhaps only that connection was ended.
        let left = fleet.limits.check_timeout.saturating_sub(began.elapsed());
        found = timeout(left, look_over(server, None)).await;
    }
    match found {
        Ok(Ok((seen, connection))) => {
            *own = Some(connection);
            server.found(seen, wall(), began.elapsed());
            if seen.role == Role::Cockroach && !std::ptr::eq(server, &fleet.servers[0]) {
                tracing::debug!("CockroachDB is used as the primary only, this replica is left alone");
            }
        }
        Ok(Err(error)) => server.missed(&brief(&error), wall()),
        Err(_) => server.missed("no answer in time", wall()),
    }
    fleet.judge();
}

async fn look_over(server: &Server, kept: Option<PgConnection>) -> Result<(Seen, PgConnection), sqlx::Error> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => server.options().connect().await?,
    };
    let seen = look(&mut connection).await?;
    Ok((seen, connection))
}
