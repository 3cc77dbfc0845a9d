//! How single fields are read: what the API is known to leave out, to null or to write as text.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::cockroach_cloud::text::bounded;

/// Characters of a text, which is a name of some kind.
const LONGEST_LINE: usize = 300;

/// `null` as the default.
pub(super) fn or_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A text of one line, since it goes into sentences and logs; nothing and `null` are the empty one.
pub(super) fn line<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Ok(bounded(&Option::<String>::deserialize(d)?.unwrap_or_default(), LONGEST_LINE))
}

/// A time. Nothing, `null`, the empty text and the first of January of the year 1 (a time that Go never set) are none.
pub(super) fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let time: Timestamp =
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"an RFC 3339 time"))?;
    Ok(Some(time).filter(|time| *time > NEVER))
}

/// Later than what Go writes for no time at all.
const NEVER: Timestamp = Timestamp::UNIX_EPOCH;

/// A whole number, as a number or as text; `null` is 0.
pub(super) fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    Ok(maybe_whole(d)?.unwrap_or(0))
}

/// A whole number, as a number or as text, or none.
pub(super) fn maybe_whole<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    d.deserialize_any(Whole)
}

/// A number; `null` is 0.
pub(super) fn number<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    or_default(d)
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, as a number or as text")
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Self::Value, E> {
        Ok(Some(n))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Self::Value, E> {
        i64::try_from(n).map(Some).map_err(|_| E::invalid_value(Unexpected::Unsigned(n), &self))
    }

    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
    fn visit_f64<E: Error>(self, n: f64) -> Result<Self::Value, E> {
        if n.fract() == 0.0 && n.abs() < 9e15 {
            Ok(Some(n as i64))
        } else {
            Err(E::invalid_value(Unexpected::Float(n), &self))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A port, text on the wire.
pub(super) mod port {
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    /// As text.
    pub(crate) fn serialize<S: Serializer>(port: &u16, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(port)
    }

    /// As text or as a number, 1 to 65535.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
        let port = super::maybe_whole(d)?.and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0);
        port.ok_or_else(|| D::Error::custom("Port is not a number from 1 to 65535"))
    }
}
