//! What can be asked of the Cloud API: each operation with its method, its path and its words.

use std::fmt;
use std::str::FromStr;

use super::model::{ClusterId, StreamId};

/// One operation on one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Lists clusters.
    Clusters,
    /// Reads a cluster.
    Cluster(ClusterId),
    /// Lists the nodes of a cluster.
    Nodes(ClusterId),
    /// Lists replication streams.
    Streams,
    /// Reads a replication stream.
    Stream(StreamId),
    /// Orders a new replication stream.
    CreateStream {
        /// From which cluster.
        primary: ClusterId,
        /// To which cluster.
        standby: ClusterId,
    },
    /// Changes a replication stream.
    UpdateStream(StreamId),
    /// Reads the disruptions of a cluster.
    Disruptions(ClusterId),
    /// Replaces the disruptions of a cluster.
    SetDisruptions(ClusterId),
    /// Reads the connection string of a cluster.
    ConnectionString(ClusterId),
    /// Reads any path, for people who look for a fault.
    Raw(ApiPath),
}

/// How an operation is sent. Only [`Method::Get`] is ever repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes a part.
    Patch,
    /// Creates.
    Post,
    /// Replaces.
    Put,
}

/// A path of the API with its query, for [`Operation::Raw`]: `/api/v1/clusters?show_inactive=true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPath(String);

/// A text that is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiPathError {
    /// It starts otherwise.
    #[error("does not start with one slash; write a path of the API, as in /api/v1/clusters")]
    NoSlash,
    /// It has characters that must be percent-encoded, or a fragment.
    #[error("has a character that no path has; percent-encode what is not a letter, a digit or one of -._~/?&=:%,+")]
    BadCharacter,
    /// It is longer than 2048 bytes.
    #[error("is longer than 2048 bytes")]
    TooLong,
}

impl FromStr for ApiPath {
    type Err = ApiPathError;

    fn from_str(text: &str) -> Result<Self, ApiPathError> {
        let usable = |b: u8| b.is_ascii_alphanumeric() || b"-._~/?&=:%,+".contains(&b);
        if !text.starts_with('/') || text.starts_with("//") {
            Err(ApiPathError::NoSlash)
        } else if text.len() > 2048 {
            Err(ApiPathError::TooLong)
        } else if !text.bytes().all(usable) {
            Err(ApiPathError::BadCharacter)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl Method {
    /// As HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

impl Operation {
    /// How it is sent.
    pub fn method(&self) -> Method {
        match self {
            Self::CreateStream { .. } => Method::Post,
            Self::UpdateStream(_) => Method::Patch,
            Self::SetDisruptions(_) => Method::Put,
            _ => Method::Get,
        }
    }

    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        self.method() != Method::Get
    }

    /// Its path from the base URL, without a query.
    pub fn path(&self) -> String {
        match self {
            Self::Clusters => "/api/v1/clusters".into(),
            Self::Cluster(id) => format!("/api/v1/clusters/{id}"),
            Self::Nodes(id) => format!("/api/v1/clusters/{id}/nodes"),
            Self::Disruptions(id) | Self::SetDisruptions(id) => format!("/api/v1/clusters/{id}/disrupt"),
            Self::ConnectionString(id) => format!("/api/v1/clusters/{id}/connection-string"),
            Self::Streams | Self::CreateStream { .. } => "/api/v1/physical-replication-streams".into(),
            Self::Stream(id) | Self::UpdateStream(id) => format!("/api/v1/physical-replication-streams/{id}"),
            Self::Raw(path) => path.0.clone(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clusters => f.write_str("listing clusters"),
            Self::Cluster(id) => write!(f, "reading cluster {id}"),
            Self::Nodes(id) => write!(f, "listing the nodes of cluster {id}"),
            Self::Streams => f.write_str("listing replication streams"),
            Self::Stream(id) => write!(f, "reading replication stream {id}"),
            Self::CreateStream { primary, standby } => {
                write!(f, "creating a replication stream from cluster {primary} to cluster {standby}")
            }
            Self::UpdateStream(id) => write!(f, "changing replication stream {id}"),
            Self::Disruptions(id) => write!(f, "reading the disruptions of cluster {id}"),
            Self::SetDisruptions(id) => write!(f, "setting the disruptions of cluster {id}"),
            Self::ConnectionString(id) => write!(f, "reading the connection string of cluster {id}"),
            Self::Raw(path) => write!(f, "reading {}", super::text::bounded(&path.0, 120)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_path_stays_on_the_host_of_the_api() {
        assert!("/api/v1/clusters?pagination.limit=5".parse::<ApiPath>().is_ok());
        for text in ["", "api/v1", "//elsewhere.example/x", "https://elsewhere.example/"] {
            assert_eq!(text.parse::<ApiPath>(), Err(ApiPathError::NoSlash), "{text}");
        }
        for text in ["/a b", "/a\r\nX: y", "/a#b", "/\\elsewhere.example", "/@x", "/é"] {
            assert_eq!(text.parse::<ApiPath>(), Err(ApiPathError::BadCharacter), "{text}");
        }
        assert_eq!(format!("/{}", "a".repeat(2048)).parse::<ApiPath>(), Err(ApiPathError::TooLong));
    }
}
