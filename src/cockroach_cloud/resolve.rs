//! Looking up the API's host through the system, under a deadline, with errors that tell themselves apart.

use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver.
#[derive(Debug)]
pub(super) struct Resolver {
    timeout: Duration,
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    /// Nobody answered in time.
    #[error("the look-up timed out")]
    TimedOut,
    /// There is none.
    #[error("no address")]
    NoAddress,
}

impl Resolver {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let timeout = self.timeout;
        Box::pin(async move {
            let found = tokio::time::timeout(timeout, tokio::net::lookup_host((name.as_str(), 0))).await;
            match found {
                Err(_) => Err(Unresolved::TimedOut.into()),
                Ok(Err(_)) => Err(Unresolved::NoAddress.into()),
                Ok(Ok(addresses)) => {
                    let addresses: Vec<_> = addresses.collect();
                    if addresses.is_empty() {
                        return Err(Unresolved::NoAddress.into());
                    }
                    Ok(Box::new(addresses.into_iter()) as Addrs)
                }
            }
        })
    }
}
