//! One statement at a cluster, by a login of the operator's own.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Error;
use crate::config::env::SqlEndpoint;
use crate::net::resolve::{ResolveError, Resolver};
use crate::net::session::{Cause, Session, SessionError, Step, Target};
use crate::net::tls::ClientTls;

/// For everything: finding the address, the login, each statement.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a statement that sets a setting, and reads what the setting is then.
pub async fn set(endpoint: &SqlEndpoint, statement: &str, setting: &str) -> Result<Option<String>, Error> {
    let deadline = Instant::now() + DEADLINE;
    let at = &endpoint.address;
    let failed = |what: &str, cause| Error::Sql {
        what: format!("{what} at {at} as {}", endpoint.login.user),
        cause: Box::new(cause),
    };
    let mut session = login(endpoint, deadline).await?;
    session.query(statement, deadline).await.map_err(|cause| failed("setting it", cause))?;
    let shown = session.query(&format!("SHOW CLUSTER SETTING {setting}"), deadline).await;
    session.close(deadline).await;
    // It is set; that it cannot be read is no failure of that.
    Ok(shown.ok().and_then(|rows| rows.into_iter().next()?.into_iter().next()?))
}

async fn login(endpoint: &SqlEndpoint, deadline: Instant) -> Result<Session, Error> {
    let host = &endpoint.address.host;
    let unresolved = |cause| Error::Resolve { host: host.to_string(), cause };
    let resolver = Resolver::default();
    let addresses = timeout_at(deadline, resolver.resolve(&endpoint.address)).await;
    let addresses = addresses.unwrap_or(Err(ResolveError::NoAnswer)).map_err(unresolved)?;
    let tls = ClientTls::build(&endpoint.tls).map_err(|error| Error::Tls(Box::new(error)))?;
    let mut last = SessionError { step: Step::Connect, cause: Cause::TimedOut };
    for address in addresses {
        let target = Target {
            address,
            server_name: tls.name_for(host),
            tls: tls.clone(),
            login: endpoint.login.clone(),
            application_name: "proxyctl".into(),
            replication: false,
        };
        match Session::connect(&target, deadline).await {
            Ok(session) => return Ok(session),
            Err(error) => last = error,
        }
    }
    let what = format!("logging in at {} as {}", endpoint.address, endpoint.login.user);
    Err(Error::Sql { what, cause: Box::new(last) })
}
