//! What the simulated cloud refuses to do, and how the Cloud API says so. Pure.

/// Why a change was refused; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::sim) enum Refusal {
    #[error("no such cluster: {0:?}")]
    NoCluster(String),
    #[error("no such physical replication stream")]
    NoStream,
    #[error("job with ID {0} does not exist")]
    NoJob(i64),
    #[error("primary_cluster_id and standby_cluster_id must be two clusters")]
    SameCluster,
    #[error("the cluster is already part of a physical replication stream that has not ended")]
    InUse,
    #[error("the source is a standby itself or does not serve")]
    SourceNotServing,
    #[error("a stream in status {from} cannot be set to {to}")]
    Transition { from: &'static str, to: &'static str },
    #[error("the initial scan has not finished: there is no replicated time yet")]
    NotScanned,
    #[error("invalid failover time: {0}")]
    BadTime(&'static str),
    #[error("invalid value for {0}")]
    BadField(&'static str),
    #[error("{0:?} is no region of this cluster")]
    NoRegion(String),
    #[error(
        "each regional disruptor specification must disrupt something, and a whole region has neither azs nor pods"
    )]
    BadDisruption,
    #[error("virtual cluster {0:?} already exists")]
    Exists(String),
    #[error("virtual cluster {0:?} is not replicating")]
    NotReplicating(String),
    #[error("virtual cluster {0:?} is replicating and cannot be served")]
    Replicating(String),
    #[error("the service of virtual cluster {0:?} must be stopped first")]
    Serving(String),
    #[error("the source was never replicated from this virtual cluster: there is no way back but a new stream")]
    NoWayBack,
    #[error("the replication job has failed")]
    JobFailed,
}

impl Refusal {
    /// HTTP status and gRPC code.
    pub(in crate::sim) fn codes(&self) -> (u16, i32) {
        const INVALID_ARGUMENT: i32 = 3;
        const NOT_FOUND: i32 = 5;
        const FAILED_PRECONDITION: i32 = 9;
        match self {
            Refusal::NoCluster(_) | Refusal::NoStream | Refusal::NoJob(_) => (404, NOT_FOUND),
            Refusal::SameCluster
            | Refusal::BadTime(_)
            | Refusal::BadField(_)
            | Refusal::NoRegion(_)
            | Refusal::BadDisruption => (400, INVALID_ARGUMENT),
            _ => (400, FAILED_PRECONDITION),
        }
    }
}
