//! Asks a daemon, or `proxyctl service`, for the sides of a service: `GET /clusters` over HTTP or a unix socket.

use std::time::Duration;

use reqwest::{StatusCode, Url};

use super::error::{DaemonTrouble, Error, SettingsError};
use crate::cockroach_cloud::plain_http;
use crate::view::Problem;
use crate::view::dsn::percent;
use crate::view::sides::Clusters;

/// A longer reply is refused, bytes.
const REPLY_LIMIT: usize = 4 << 20;
/// For a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Daemon {
    /// As given.
    shown: String,
    url: Url,
    http: reqwest::Client,
}

impl Daemon {
    /// Sends nothing.
    pub(super) fn build(address: &str, service: Option<&str>, timeout: Duration) -> Result<Self, SettingsError> {
        let wrong = |problem| SettingsError::BadUrl { problem };
        let mut builder = plain_http().timeout(timeout).connect_timeout(CONNECT.min(timeout));
        let mut url = match address.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => {
                builder = builder.unix_socket(path);
                Url::parse("http://localhost").map_err(|_| wrong("is none"))?
            }
            Some(_) => return Err(wrong("names no absolute path")),
            None => Url::parse(address).map_err(|_| wrong("is none"))?,
        };
        match url.scheme() {
            "http" => {}
            "https" => return Err(wrong("asks for TLS, which the daemon does not speak")),
            _ => return Err(wrong("is none")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has a login in it"));
        }
        if url.path() != "/" || url.query().is_some() {
            return Err(wrong("has a path, which the daemon's address has not"));
        }
        if address.starts_with("http") && url.port().is_none() && !address.trim_end_matches('/').ends_with(":80") {
            // As proxyctl reads it: a daemon does not listen on 80.
            url.set_port(Some(8404)).map_err(|()| wrong("is none"))?;
        }
        url.set_path("/clusters");
        url.set_query(service.map(|name| format!("service={}", percent(name))).as_deref());
        let http = builder.build().map_err(SettingsError::Http)?;
        Ok(Self { shown: address.to_owned(), url, http })
    }

    /// The sides of the one service.
    pub(super) async fn sides(&self) -> Result<Clusters, Error> {
        let sides = self.ask().await.map_err(|trouble| Error::Daemon { url: self.shown.clone(), trouble })?;
        let first = sides.clusters.first().map(|side| side.service.clone());
        if sides.clusters.iter().all(|side| Some(&side.service) == first.as_ref()) {
            return Ok(sides);
        }
        let mut known: Vec<&str> = sides.clusters.iter().map(|side| side.service.as_str()).collect();
        known.dedup();
        Err(Error::WhichService { known: known.join(", ") })
    }

    async fn ask(&self) -> Result<Clusters, DaemonTrouble> {
        let lost = |error: reqwest::Error| match error.is_connect() {
            true => DaemonTrouble::Unreachable,
            false => DaemonTrouble::Silent,
        };
        let mut response = self.http.get(self.url.clone()).send().await.map_err(lost)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > REPLY_LIMIT {
                return Err(DaemonTrouble::NotPgpivot);
            }
            body.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|_| DaemonTrouble::NotPgpivot);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(DaemonTrouble::Refused(problem.detail.chars().take(300).collect())),
            Err(_) => Err(DaemonTrouble::NotPgpivot),
        }
    }
}
