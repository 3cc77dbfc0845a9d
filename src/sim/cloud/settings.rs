//! What a simulated cloud is made of, and the conditions its clusters can be put into. Pure data.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::super::model::Side;
use super::pace::Pace;
use crate::types::Secret;

/// What a simulated cloud is made of. The default: two clusters of one provider, a stream that has caught up, no
/// passwords, no TLS, the pace of life, every port free.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the API listens, in plain HTTP. Port 0 = any free one.
    pub api: SocketAddr,
    /// Two or more.
    pub clusters: Vec<ClusterSettings>,
    /// The API's bearer token.
    pub secret: Secret,
    /// Who may log in.
    pub auth: Auth,
    /// With it an SSLRequest is answered `S`.
    pub tls: Option<Arc<ServerConfig>>,
    /// With `tls`: also without encryption. Default false: such a login is refused with 08P01.
    pub accepts_plain: bool,
    /// How long everything takes.
    pub pace: Pace,
    /// Who starts the service of a promoted cluster.
    pub mode: Mode,
    /// The stream from the first cluster to the second one.
    pub initial: Initial,
    /// What a disruption looks like from outside.
    pub outage: Outage,
    /// Entries of an API list's page at most. Default 500.
    pub page_size: usize,
    /// API requests a second before 429; `None` = any number. Default 10, as in life.
    pub rate_limit: Option<u32>,
    /// Sessions of a cluster before 53300. Default 500.
    pub max_sessions: usize,
    /// Of CockroachDB. Default `v25.4.0`.
    pub version: String,
    /// GCP, AWS or AZURE. Default AWS.
    pub cloud_provider: String,
}

/// One cluster of a simulated cloud.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// As the API shows it.
    pub name: String,
    /// The provider's code of its only region.
    pub region: String,
    /// Where it listens for SQL. Port 0 = any free one.
    pub sql: SocketAddr,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Anybody, without a password.
    Trust,
    /// These users with these passwords (ASCII), by SCRAM-SHA-256; the same at every cluster.
    Scram(Vec<(String, Secret)>),
}

/// Who starts the service of a promoted cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The cloud: it serves as soon as its stream is COMPLETED.
    Cloud,
    /// The operator, by START SERVICE.
    SelfHosted,
}

/// The stream from the first cluster to the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// There is none. In mode `Cloud` both clusters serve, in mode `SelfHosted` the second one has no `main`.
    None,
    /// It is created at the start.
    Starting,
    /// It replicates, and has caught up but for the lag.
    Replicating,
}

/// What those meet who connect to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What its state says.
    Normal,
    /// No listener.
    Refused,
    /// Connections are accepted and hear nothing; sessions hang.
    Silent,
    /// Nothing is answered before this time is over; sessions are as usual.
    Slow(Duration),
    /// 57P01; sessions are as usual.
    Draining,
    /// 53300; sessions are as usual.
    Full,
    /// Connections are accepted and reset; sessions are as usual.
    Reset,
    /// 28P01, whatever the password; sessions are as usual.
    WrongPassword,
    /// 28000: no rule of the cluster lets them in; sessions are as usual.
    NotPermitted,
}

/// What a disruption does to the sessions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// They hear nothing until it ends, and then go on.
    Hang,
    /// They are reset.
    Reset,
}

/// What a disruption of a whole region looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// For newcomers: `Silent` (the default) or `Refused`.
    pub newcomers: Reach,
    /// For those who are in. Default `Hang`.
    pub sessions: Sessions,
}

/// A cluster by its number: `Side::East` is 0, `Side::West` 1, further ones go by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub usize);

impl From<Side> for Number {
    fn from(side: Side) -> Self {
        Self(side as usize)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self(number)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let cluster = |name: &str, region: &str| ClusterSettings { name: name.into(), region: region.into(), sql: any };
        Self {
            api: any,
            clusters: vec![cluster("shop-east", "us-east-1"), cluster("shop-west", "us-west-2")],
            secret: Secret::new("CCDB1_simulated".into()),
            auth: Auth::Trust,
            tls: None,
            accepts_plain: false,
            pace: Pace::default(),
            mode: Mode::Cloud,
            initial: Initial::Replicating,
            outage: Outage { newcomers: Reach::Silent, sessions: Sessions::Hang },
            page_size: 500,
            rate_limit: Some(10),
            max_sessions: 500,
            version: "v25.4.0".into(),
            cloud_provider: "AWS".into(),
        }
    }
}
