//! Asks the Cloud API where there is no daemon: which cluster is active by its replication streams, and where it is.
//! What that cannot know is said in the room's head.

use super::error::{Error, SettingsError};
use crate::cockroach_cloud::model::{ClusterId, StreamFilter};
use crate::cockroach_cloud::{self, BuildError, Client, Standing, standing};
use crate::types::{BackendName, HostPort, Secret, ServiceName};
use crate::view::sides::{COCKROACH, Cluster, Clusters};
use crate::view::url::Url;

const ENDPOINT: &str = "PRIMARY_CLUSTER_ENDPOINT";
const REQUIRE: &str = "require";
/// The SQL port of a cluster whose port nobody tells.
const SQL_PORT: u16 = 26257;

/// What they are called, as by a daemon that reads the same variables.
const PRIMARY: &str = "primary";
const STANDBY: &str = "standby";

/// Two clusters and the API that knows their streams.
#[derive(Debug, Clone)]
pub struct CloudSettings {
    /// How to talk to it.
    pub api: cockroach_cloud::Settings,
    /// Where traffic is at home.
    pub primary: ClusterId,
    /// The other one.
    pub standby: ClusterId,
    /// Where the primary is reached; `None` = the API is asked.
    pub primary_host: Option<HostPort>,
    /// Where the standby is reached; `None` = the API is asked.
    pub standby_host: Option<HostPort>,
    /// libpq's word. Default `require`; the clusters have certificates of different CAs, so that `verify-ca` and
    /// `verify-full` want a file with both in [`Settings::sslrootcert`](super::Settings::sslrootcert).
    pub sslmode: String,
    /// The file with the CAs to trust where that is `verify-ca` or `verify-full`; `None` = the system's.
    pub sslrootcert: Option<String>,
}

impl CloudSettings {
    /// The defaults, with this API and these clusters.
    pub fn new(api: cockroach_cloud::Settings, primary: ClusterId, standby: ClusterId) -> Self {
        let (sslmode, sslrootcert) = (REQUIRE.to_owned(), None);
        Self { api, primary, standby, primary_host: None, standby_host: None, sslmode, sslrootcert }
    }

    /// `None` = no secret is set.
    pub(super) fn from_variables(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<CloudSettings>, SettingsError> {
        const SECRET: &str = "COCKROACH_API_SECRET_KEY";
        const URL: &str = "COCKROACH_API_URL";
        let Some(secret) = read(SECRET) else { return Ok(None) };
        let id = |variable| {
            let text = read(variable).ok_or(SettingsError::Missing { missing: variable, because: SECRET })?;
            text.parse::<ClusterId>().map_err(|error| SettingsError::BadId { variable, error })
        };
        let host = |variable| match read(variable) {
            None => Ok(None),
            Some(text) => with_port(&text).map(Some).ok_or(SettingsError::BadHost { variable }),
        };
        let mut api = cockroach_cloud::Settings::new(Secret::new(secret));
        if let Some(url) = read(URL) {
            api.base_url = url;
        }
        api.check().map_err(|error| {
            let of_url = matches!(error, BuildError::BadUrl | BuildError::UrlHasMore | BuildError::NotEncrypted { .. });
            SettingsError::BadApi { variable: if of_url { URL } else { SECRET }, error }
        })?;
        let endpoint = read(ENDPOINT).map(|text| Url::parse(text.trim(), SQL_PORT)).transpose();
        let endpoint = endpoint.map_err(|error| SettingsError::BadEndpoint { variable: ENDPOINT, error })?;
        let mode = endpoint.as_ref().and_then(|url| url.tls_mode);
        Ok(Some(Self {
            primary_host: host("PRIMARY_SQL_DNS")?.or(endpoint.as_ref().map(|url| url.address.clone())),
            standby_host: host("STANDBY_SQL_DNS")?,
            sslmode: sslmode(mode, read("DB_SSL").as_deref())?.to_owned(),
            sslrootcert: endpoint.and_then(|url| url.ca_file),
            ..Self::new(api, id("PRIMARY_CLUSTER_ID")?, id("STANDBY_CLUSTER_ID")?)
        }))
    }
}

/// The clusters as the API shows them.
#[derive(Debug)]
pub(super) struct Cloud {
    client: Client,
    settings: CloudSettings,
    service: ServiceName,
}

impl Cloud {
    /// Sends nothing.
    pub(super) fn build(settings: &CloudSettings, service: Option<&str>) -> Result<Self, SettingsError> {
        if settings.primary == settings.standby {
            return Err(SettingsError::OneCluster);
        }
        let client = Client::build(&settings.api)?;
        Ok(Self { client, settings: settings.clone(), service: ServiceName::new(service.unwrap_or("main")) })
    }

    /// Both clusters. `hosts` are those of an earlier answer.
    pub(super) async fn sides(&self, earlier: Option<&Clusters>) -> Result<Clusters, Error> {
        let boxed = |error| Error::Cloud(Box::new(error));
        let filter = StreamFilter {
            cluster: Some(self.settings.primary),
            show_completed: Some(true),
            ..StreamFilter::default()
        };
        let listed = self.client.streams(&filter).await.map_err(boxed)?;
        let found = standing(&listed.value, self.settings.primary, self.settings.standby, listed.date);
        let known = |id: ClusterId| {
            let id = id.to_string();
            let side = earlier?.clusters.iter().find(|side| side.cluster_id.as_ref() == Some(&id))?;
            side.dns.first().cloned()
        };
        let (primary, standby) = (self.settings.primary, self.settings.standby);
        let mut clusters = Vec::new();
        for (id, name, host) in
            [(primary, PRIMARY, &self.settings.primary_host), (standby, STANDBY, &self.settings.standby_host)]
        {
            let host = match host.clone().or_else(|| known(id)) {
                Some(host) => Ok(host),
                None => self.host(id).await,
            };
            let host = match host {
                Ok(host) => Some(host),
                // Nobody needs the other side's address to connect.
                Err(_) if id != found.active => None,
                Err(error) => return Err(boxed(error)),
            };
            clusters.push(self.cluster(id, name, host, &found));
        }
        Ok(Clusters { clusters })
    }

    /// From the one operation that tells a port; where that is not allowed, from the cluster's record.
    async fn host(&self, id: ClusterId) -> Result<HostPort, cockroach_cloud::Error> {
        let refused = match self.client.connection_string(id, None, None).await {
            Ok(reply) => {
                let host = reply.value.params.host.trim_matches(['[', ']']).into();
                return Ok(HostPort { host, port: reply.value.params.port });
            }
            Err(error) => error,
        };
        let record = self.client.cluster(id).await?.value;
        let regional = record.regions.iter().map(|region| &region.sql_dns);
        let mut hosts = record.sql_dns.iter().chain(regional).filter(|host| !host.is_empty());
        hosts.find_map(|host| with_port(host)).ok_or(refused)
    }

    fn name_of(&self, id: Option<ClusterId>) -> Option<BackendName> {
        Some(BackendName::new(if id? == self.settings.primary { PRIMARY } else { STANDBY }))
    }

    fn cluster(&self, id: ClusterId, name: &str, host: Option<HostPort>, found: &Standing) -> Cluster {
        let active = id == found.active;
        let role = match active {
            true => "primary",
            false if found.filled == Some(id) => "standby",
            false => "unknown",
        };
        Cluster {
            service: self.service.clone(),
            kind: COCKROACH.into(),
            name: BackendName::new(name),
            cluster_id: Some(id.to_string()),
            active,
            primary: id == self.settings.primary,
            role: role.into(),
            // No field of the API tells who serves SQL.
            health: "unknown".into(),
            healthy: false,
            fit: active,
            open: found.open,
            moves_to: self.name_of(found.filled.filter(|_| active && !found.open)),
            dns: host.into_iter().collect(),
            addresses: Vec::new(),
            sslmode: self.settings.sslmode.clone(),
            sslrootcert: self.settings.sslrootcert.clone(),
        }
    }
}

/// As the daemon lays `DB_SSL` over the endpoint's word, and as it tells what it uses: a cluster is never offered a
/// connection in clear unless somebody says so.
fn sslmode(endpoint: Option<&'static str>, db_ssl: Option<&str>) -> Result<&'static str, SettingsError> {
    let wrong = |problem| SettingsError::BadSsl { problem };
    let encrypt = match db_ssl.map(|word| word.trim().to_ascii_lowercase()).as_deref() {
        None => None,
        Some("true" | "1" | "yes" | "on") => Some(true),
        Some("false" | "0" | "no" | "off") => Some(false),
        Some(_) => return Err(wrong("neither true nor false; write one of them")),
    };
    match (encrypt, endpoint) {
        (Some(true), Some("disable")) => {
            Err(wrong("true, but PRIMARY_CLUSTER_ENDPOINT says sslmode=disable; change one of them"))
        }
        (Some(false), None | Some("prefer" | "disable")) => Ok("disable"),
        (Some(false), Some(_)) => {
            Err(wrong("false, but PRIMARY_CLUSTER_ENDPOINT wants encryption by its sslmode; change one of them"))
        }
        (_, None | Some("prefer")) => Ok(REQUIRE),
        (_, Some(mode)) => Ok(mode),
    }
}

fn with_port(text: &str) -> Option<HostPort> {
    text.parse().or_else(|_| format!("{text}:{SQL_PORT}").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_port_gets_that_of_the_product() {
        assert_eq!(with_port("db.example.com").unwrap().to_string(), "db.example.com:26257");
        assert_eq!(with_port("db.example.com:5432").unwrap().to_string(), "db.example.com:5432");
        assert_eq!(with_port("db example"), None);
    }
}
