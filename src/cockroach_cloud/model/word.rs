//! The enumerations of the Cloud API. Each keeps a value that it does not know, since the vendor adds some at will.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cockroach_cloud::text::bounded;

/// Characters of a value that this client does not know.
const LONGEST: usize = 100;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A value of later times, or none at all (empty): unknown, never unhealthy.
            Other(String),
        }

        impl $name {
            /// Every value that this client knows, as the API writes it.
            pub const KNOWN: &[&str] = &[$($text),+];

            /// As the API writes it; empty when it wrote nothing.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl Default for $name {
            /// Nothing was said.
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(if self.as_str().is_empty() { "unknown" } else { self.as_str() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                // It goes into sentences and logs.
                Ok(Self::from(bounded(&String::deserialize(d)?, LONGEST).as_str()))
            }
        }
    };
}

words! {
    /// Where a replication stream stands.
    StreamStatus {
        /// Networks are being joined; about five minutes.
        Starting = "STARTING",
        /// Running, **the initial scan included**: without a `replicated_time` there is no usable standby yet.
        Replicating = "REPLICATING",
        /// A failover was ordered.
        FailingOver = "FAILING_OVER",
        /// The standby was activated.
        Completed = "COMPLETED",
        /// Ended without a failover.
        Canceled = "CANCELED",
    }
}

words! {
    /// The control plane's record of a cluster. It says nothing of SQL.
    ClusterState {
        /// Not there yet.
        Creating = "CREATING",
        /// The normal value.
        Created = "CREATED",
        /// Never came up.
        CreationFailed = "CREATION_FAILED",
        /// Gone.
        Deleted = "DELETED",
        /// An exclusive operation holds it; SQL may well be up.
        Locked = "LOCKED",
    }
}

words! {
    /// What the vendor is doing to a cluster. Information, not failure.
    OperationStatus {
        /// Nothing: the normal value.
        Unspecified = "UNSPECIFIED",
        /// A major upgrade runs.
        MajorUpgradeRunning = "CRDB_MAJOR_UPGRADE_RUNNING",
        /// A major upgrade failed.
        MajorUpgradeFailed = "CRDB_MAJOR_UPGRADE_FAILED",
        /// A major upgrade is being undone.
        MajorRollbackRunning = "CRDB_MAJOR_ROLLBACK_RUNNING",
        /// Undoing a major upgrade failed.
        MajorRollbackFailed = "CRDB_MAJOR_ROLLBACK_FAILED",
        /// A patch runs.
        PatchRunning = "CRDB_PATCH_RUNNING",
        /// A patch failed.
        PatchFailed = "CRDB_PATCH_FAILED",
        /// Nodes are being added or removed.
        ScaleRunning = "CRDB_SCALE_RUNNING",
        /// Adding or removing nodes failed.
        ScaleFailed = "CRDB_SCALE_FAILED",
        /// Maintenance runs.
        MaintenanceRunning = "MAINTENANCE_RUNNING",
        /// Machines are being changed.
        InstanceUpdateRunning = "CRDB_INSTANCE_UPDATE_RUNNING",
        /// Changing machines failed.
        InstanceUpdateFailed = "CRDB_INSTANCE_UPDATE_FAILED",
        /// The cluster is being edited.
        EditClusterRunning = "CRDB_EDIT_CLUSTER_RUNNING",
        /// Editing the cluster failed.
        EditClusterFailed = "CRDB_EDIT_CLUSTER_FAILED",
        /// Encryption keys are being changed.
        CmekOperationRunning = "CRDB_CMEK_OPERATION_RUNNING",
        /// Changing encryption keys failed.
        CmekOperationFailed = "CRDB_CMEK_OPERATION_FAILED",
        /// A restore runs.
        TenantRestoreRunning = "TENANT_RESTORE_RUNNING",
        /// A restore failed.
        TenantRestoreFailed = "TENANT_RESTORE_FAILED",
        /// Log export is being changed.
        LogExportOperationRunning = "CRDB_LOG_EXPORT_OPERATION_RUNNING",
        /// Changing log export failed.
        LogExportOperationFailed = "CRDB_LOG_EXPORT_OPERATION_FAILED",
        /// The cluster is disrupted on purpose.
        ClusterDisruptionRunning = "CRDB_CLUSTER_DISRUPTION_RUNNING",
        /// Disrupting it failed.
        ClusterDisruptionFailed = "CRDB_CLUSTER_DISRUPTION_FAILED",
        /// Nodes are being replaced.
        RepaveRunning = "CRDB_REPAVE_RUNNING",
        /// Replacing nodes failed.
        RepaveFailed = "CRDB_REPAVE_FAILED",
        /// The clients' authority is being changed.
        CustomClientCaRunning = "CRDB_CUSTOM_CLIENT_CA_RUNNING",
        /// Changing the clients' authority failed.
        CustomClientCaFailed = "CRDB_CUSTOM_CLIENT_CA_FAILED",
        /// A full restore runs.
        FullRestoreRunning = "DEDICATED_FULL_CLUSTER_RESTORE_RUNNING",
        /// A full restore failed.
        FullRestoreFailed = "DEDICATED_FULL_CLUSTER_RESTORE_FAILED",
    }
}

impl OperationStatus {
    /// Something is under way, also something of later times.
    pub fn is_running(&self) -> bool {
        self.as_str().ends_with("_RUNNING")
    }

    /// Something went wrong, also something of later times. No word on SQL.
    pub fn is_failed(&self) -> bool {
        self.as_str().ends_with("_FAILED")
    }
}

words! {
    /// Where a cluster's version stands.
    UpgradeStatus {
        /// At rest.
        Finalized = "FINALIZED",
        /// Upgrading.
        MajorUpgradeRunning = "MAJOR_UPGRADE_RUNNING",
        /// A newer version can be had.
        UpgradeAvailable = "UPGRADE_AVAILABLE",
        /// Upgraded, and can still go back.
        PendingFinalization = "PENDING_FINALIZATION",
        /// Going back.
        RollbackRunning = "ROLLBACK_RUNNING",
    }
}

words! {
    /// What was bought. Replication streams need [`Plan::Advanced`].
    Plan {
        /// Shared, by use.
        Basic = "BASIC",
        /// Shared, provisioned.
        Standard = "STANDARD",
        /// Machines of its own.
        Advanced = "ADVANCED",
    }
}

words! {
    /// Whose machines.
    CloudProvider {
        /// Google.
        Gcp = "GCP",
        /// Amazon.
        Aws = "AWS",
        /// Microsoft.
        Azure = "AZURE",
    }
}

words! {
    /// Where a cluster can be reached from.
    NetworkVisibility {
        /// The internet, through an allow list.
        Public = "PUBLIC",
        /// Private networks only.
        Private = "PRIVATE",
    }
}

words! {
    /// Whether a cluster can be deleted.
    DeleteProtection {
        /// Not before the protection is lifted.
        Enabled = "ENABLED",
        /// Yes.
        Disabled = "DISABLED",
    }
}

words! {
    /// What the control plane knows of a node. How fresh that is, is not documented.
    NodeStatus {
        /// Serving.
        Live = "LIVE",
        /// Not serving.
        NotReady = "NOT_READY",
    }
}
