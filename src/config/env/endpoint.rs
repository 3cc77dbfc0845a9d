//! `PRIMARY_CLUSTER_ENDPOINT` as a login of its own: what an operator's statement is sent with. The pair's addresses and
//! the probe's login are read from it in `servers`.

use std::collections::BTreeMap;

use super::super::raw::problem::Problem;
use super::super::{Login, Tls, TlsMode};
use crate::types::{HostPort, Secret};
use crate::view::url::Url;

const NAME: &str = "PRIMARY_CLUSTER_ENDPOINT";
const PORT: u16 = 26257;

/// Where to log in, as whom, and how it is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlEndpoint {
    /// Of the primary cluster.
    pub address: HostPort,
    /// What the URL does not say comes from `DB_USERNAME` (or `DB_USER`), `DB_PASSWORD` and `DB_NAME`.
    pub login: Login,
    /// As its `sslmode` says; default `require`, on loopback `prefer`.
    pub tls: Tls,
}

/// Reads it; `None` = the variable is not set. An error never shows the text: it may hold a password.
pub fn parse(variables: &BTreeMap<String, String>) -> Result<Option<SqlEndpoint>, Problem> {
    let text = |name: &str| variables.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let Some(url) = text(NAME) else { return Ok(None) };
    let url = Url::parse(url, PORT).map_err(|error| Problem::new(NAME, error.to_string()))?;
    let user = url.user.or_else(|| text("DB_USERNAME").or(text("DB_USER")).map(str::to_owned));
    let user = user.ok_or_else(|| {
        Problem::new(NAME, "names no user; write postgresql://user:password@host:26257/defaultdb, or set DB_USERNAME")
    })?;
    let database = url.database.or_else(|| text("DB_NAME").map(str::to_owned)).unwrap_or_else(|| "defaultdb".into());
    let password = url.password.or_else(|| variables.get("DB_PASSWORD").cloned().map(Secret::new));
    let mode = match url.tls_mode {
        Some("disable") => TlsMode::Disable,
        Some("prefer") => TlsMode::Prefer,
        Some("verify-ca") => TlsMode::VerifyCa,
        Some("verify-full") => TlsMode::VerifyFull,
        // A password must not leave the machine in clear because somebody said nothing.
        None if is_loopback(&url.address) => TlsMode::Prefer,
        _ => TlsMode::Require,
    };
    let tls = Tls { mode, ca_file: url.ca_file.map(Into::into), server_name: None };
    Ok(Some(SqlEndpoint { address: url.address, login: Login { user, database, password }, tls }))
}

fn is_loopback(address: &HostPort) -> bool {
    let host = address.host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<SqlEndpoint>, Problem> {
        parse(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn the_endpoint_is_a_complete_login() {
        let url = "postgresql://app:hunter2@p.example.com/shop?sslmode=verify-full";
        let found = read(&[(NAME, url), ("DB_PASSWORD", "hunter3")]).unwrap().unwrap();
        assert_eq!(found.address.to_string(), "p.example.com:26257");
        assert_eq!((found.login.user.as_str(), found.login.database.as_str()), ("app", "shop"));
        assert_eq!(found.login.password.as_ref().map(|password| password.expose()), Some("hunter2"));
        assert_eq!(found.tls.mode, TlsMode::VerifyFull);
        assert!(!format!("{found:?}").contains("hunter"), "a secret prints itself");
    }

    #[test]
    fn what_the_endpoint_does_not_say_comes_from_the_other_variables() {
        let found = read(&[(NAME, "postgres://127.0.0.1:5"), ("DB_USERNAME", "app"), ("DB_PASSWORD", "x")]);
        let found = found.unwrap().unwrap();
        assert_eq!((found.login.user.as_str(), found.login.database.as_str()), ("app", "defaultdb"));
        assert_eq!(found.tls.mode, TlsMode::Prefer);
        let remote = read(&[(NAME, "postgres://app@p.example.com")]).unwrap().unwrap();
        assert_eq!(remote.tls.mode, TlsMode::Require);
        assert_eq!(read(&[]).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_showing_it() {
        for url in ["hunter2", "postgres://u:hunter2@", "postgres://p.example.com"] {
            let problem = read(&[(NAME, url)]).unwrap_err().to_string();
            assert!(problem.starts_with(NAME) && !problem.contains("hunter"), "{problem}");
        }
    }
}
