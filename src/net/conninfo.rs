//! libpq's connection strings, `host=… port=…` and `postgresql://…`, as far as a standby's `primary_conninfo` needs it:
//! read, the place exchanged, written again. Everything else in it stays. Its errors and its `Debug` show no value: a
//! password may stand in one.

use std::fmt;

use crate::types::HostPort;

/// A connection string taken apart, in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct Conninfo {
    pairs: Vec<(String, String)>,
}

/// Why a text is no connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    /// A word without `=`.
    #[error("has a word that no = follows")]
    NoEquals,
    /// A quote that does not end.
    #[error("has a quoted value that does not end")]
    OpenQuote,
    /// A URI whose host or port are none.
    #[error("has a host or port that is none")]
    BadHost,
    /// A parameter whose name is none.
    #[error("has a parameter whose name is none; libpq's names have letters, digits and _")]
    BadName,
    /// A percent sign escapes nothing.
    #[error("has a % that is not followed by two hexadecimal digits of UTF-8 text")]
    BadEscape,
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.pairs.iter().map(|(key, _)| key);
        f.debug_list().entries(keys).finish()
    }
}

/// Where a connection goes: what libpq takes it from.
const PLACE: [&str; 3] = ["host", "hostaddr", "port"];

impl Conninfo {
    /// Reads either form. An empty text is a string that says nothing.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        let uri = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let pairs = match uri {
            Some(rest) => of_uri(rest)?,
            None => of_words(text)?,
        };
        Ok(Self { pairs })
    }

    /// The last value of this key: libpq takes that one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Does it lead there and nowhere else?
    pub fn leads_to(&self, place: &HostPort) -> bool {
        let port = self.get("port").filter(|port| !port.is_empty()).unwrap_or("5432");
        let host = |key| self.get(key).filter(|host| !host.is_empty());
        let leads = |named: &str| named.eq_ignore_ascii_case(&place.host);
        host("hostaddr").is_none_or(leads)
            && host("host").or(host("hostaddr")).is_some_and(leads)
            && port == place.port.to_string()
    }

    /// The same with another place, several hosts replaced by the one.
    pub fn redirected(&self, place: &HostPort) -> Self {
        let at = self.pairs.iter().position(|(key, _)| PLACE.contains(&key.as_str())).unwrap_or(0);
        let mut pairs: Vec<_> = self.pairs.iter().filter(|(key, _)| !PLACE.contains(&key.as_str())).cloned().collect();
        let new = [("host".to_owned(), place.host.to_string()), ("port".to_owned(), place.port.to_string())];
        pairs.splice(at..at, new);
        Self { pairs }
    }
}

/// The form with words, whichever form was read: a server takes both.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.pairs.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{key}={}", quoted(value))?;
        }
        Ok(())
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '\\';
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// libpq's own idea of a space, in either form.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn of_words(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(ConninfoError::NoEquals)?;
        let key = key.trim_end_matches(is_space);
        if key.is_empty() || key.contains(is_space) {
            return Err(ConninfoError::NoEquals);
        }
        check_name(key)?;
        let (value, after) = value(after.trim_start_matches(is_space))?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start_matches(is_space);
    }
    Ok(pairs)
}

/// Else what is written, the form with words, could be read otherwise.
fn check_name(name: &str) -> Result<(), ConninfoError> {
    let usable = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    usable.then_some(()).ok_or(ConninfoError::BadName)
}

/// One value and what comes after it.
fn value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && is_space(c) => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(ConninfoError::OpenQuote) } else { Ok((value, "")) }
}

/// What follows the scheme: `[user[:password]@][host[:port],…][/database][?key=value&…]`.
fn of_uri(rest: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, database) = rest.split_once('/').map_or((rest, ""), |parts| parts);
    let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: &str| -> Result<(), ConninfoError> {
        if !value.is_empty() {
            pairs.push((key.to_owned(), unescaped(value)?));
        }
        Ok(())
    };
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        push("user", user)?;
        push("password", password)?;
    }
    let (hosts, ports) = places(hosts)?;
    push("host", &hosts)?;
    push("port", &ports)?;
    push("dbname", database)?;
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(ConninfoError::NoEquals)?;
        let (key, value) = (unescaped(key)?, unescaped(value)?);
        check_name(&key)?;
        // The one word of JDBC that libpq takes.
        let pair = if (key.as_str(), value.as_str()) == ("ssl", "true") {
            ("sslmode".to_owned(), "require".to_owned())
        } else {
            (key, value)
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

/// All hosts and all ports, each with commas; still escaped.
fn places(text: &str) -> Result<(String, String), ConninfoError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or(ConninfoError::BadHost)?;
                let port =
                    after.strip_prefix(':').or((after.is_empty()).then_some("")).ok_or(ConninfoError::BadHost)?;
                (host, port)
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        if !port.chars().all(|c| c.is_ascii_digit()) {
            return Err(ConninfoError::BadHost);
        }
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    let hosts = if hosts.iter().all(|host| host.is_empty()) { String::new() } else { hosts.join(",") };
    Ok((hosts, ports))
}

fn unescaped(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|byte| *byte != 0);
        bytes.push(byte.ok_or(ConninfoError::BadEscape)?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::BadEscape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moved(text: &str) -> String {
        Conninfo::parse(text).unwrap().redirected(&"db2.example.com:6432".parse().unwrap()).to_string()
    }

    #[test]
    fn a_parameter_whose_name_is_none_is_refused() {
        for text in [
            " postgresql://h=c",
            "h\u{f6}st=c",
            "postgres://h/?a%3Db=c",
            "postgres://h/?a b=c",
            "postgres://h/?=c",
            "postgres://h/?%27=c",
        ] {
            assert_eq!(Conninfo::parse(text), Err(ConninfoError::BadName), "{text}");
        }
        assert!(Conninfo::parse("postgres://h/?application_name=%27%20%3D").is_ok());
    }

    #[test]
    fn only_the_place_is_exchanged() {
        for (before, after) in [
            (
                "host=10.0.0.1 port=5432 user=replicator password='it''s' application_name=north",
                "host=db2.example.com port=6432 user=replicator password=it's application_name=north",
            ),
            (
                "user=r  passfile = '/home/a b/.pgpass'",
                "host=db2.example.com port=6432 user=r passfile='/home/a b/.pgpass'",
            ),
            (
                "user=r host=a,b,c hostaddr=1.1.1.1,2.2.2.2,3.3.3.3 port=1,2,3 target_session_attrs=read-write",
                "user=r host=db2.example.com port=6432 target_session_attrs=read-write",
            ),
            (
                "postgresql://rep:p%40ss%20w@[2001:db8::1]:5433,b/db?sslmode=verify-full&application_name=n%2F1",
                "user=rep password='p@ss w' host=db2.example.com port=6432 dbname=db sslmode=verify-full \
                 application_name=n/1",
            ),
            ("postgres://?host=/tmp&ssl=true", "host=db2.example.com port=6432 sslmode=require"),
            ("service=main", "host=db2.example.com port=6432 service=main"),
            ("", "host=db2.example.com port=6432"),
        ] {
            let before = before.replace("it''s", "it\\'s");
            let after = after.replace("password=it's", "password='it\\'s'");
            assert_eq!(moved(&before), after, "{before}");
        }
    }

    #[test]
    fn it_knows_where_it_leads() {
        let leads = |text: &str, to: &str| Conninfo::parse(text).unwrap().leads_to(&to.parse().unwrap());
        assert!(leads("host=db1 user=r", "DB1:5432"));
        assert!(leads("hostaddr=::1 port=6000", "[::1]:6000"));
        assert!(leads("postgres://r@db1:6000", "db1:6000"));
        assert!(!leads("host=db1 hostaddr=10.0.0.9", "db1:5432"));
        assert!(!leads("host=db1,db2", "db1:5432"));
        assert!(!leads("user=r", "localhost:5432"));
        assert!(!leads("host=db1 port=5433", "db1:5432"));
    }

    #[test]
    fn what_is_none_is_refused_without_showing_it() {
        for (text, why) in [
            ("host", ConninfoError::NoEquals),
            ("host secret=1", ConninfoError::NoEquals),
            ("=x", ConninfoError::NoEquals),
            ("password='secret", ConninfoError::OpenQuote),
            ("postgres://a:b@[::1:5432", ConninfoError::BadHost),
            ("postgres://a:b@h:x", ConninfoError::BadHost),
            ("postgres://a:%zz@h", ConninfoError::BadEscape),
            ("postgres://a@h?secret", ConninfoError::NoEquals),
        ] {
            let error = Conninfo::parse(text).unwrap_err();
            assert_eq!(error, why, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
        let shown = format!("{:?}", Conninfo::parse("host=a password=secret").unwrap());
        assert_eq!(shown, "[\"host\", \"password\"]");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(pairs in prop::collection::vec(("[a-z_]{1,12}", "\\PC{0,20}"), 0..6)) {
            let written = Conninfo { pairs };
            prop_assert_eq!(Conninfo::parse(&written.to_string()).unwrap(), written);
        }

        #[test]
        fn a_moved_one_leads_there_and_keeps_the_rest(
            pairs in prop::collection::vec(("[a-z_]{1,12}|host|port|hostaddr", "\\PC{0,20}"), 0..6),
            host in "[a-z][a-z0-9.]{0,20}",
            port in 1_u16..,
        ) {
            let before = Conninfo { pairs };
            let place = HostPort { host: host.as_str().into(), port };
            let after = Conninfo::parse(&before.redirected(&place).to_string()).unwrap();
            prop_assert!(after.leads_to(&place));
            let rest = |c: &Conninfo| -> Vec<_> { c.pairs.iter().filter(|(k, _)| !PLACE.contains(&k.as_str())).cloned().collect() };
            prop_assert_eq!(rest(&after), rest(&before));
        }

        #[test]
        fn no_text_brings_it_down(text in "\\PC{0,60}", uri in any::<bool>()) {
            let text = if uri { format!("postgresql://{text}") } else { text };
            let _ = Conninfo::parse(&text);
        }
    }
}
