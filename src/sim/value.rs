//! Values of the simulated server and how the wire spells them, as text and as binary. Pure.

use crate::types::{Lsn, WallTime};

/// A type that a column or a parameter can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Decimal,
    Int4,
    Int8,
    Interval,
    Lsn,
    Text,
    Time,
    Void,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Microseconds.
    Interval(i64),
    Lsn(Lsn),
    Text(String),
    Time(WallTime),
    Void,
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Type,
}

/// Microseconds from 1970 to 2000, where PostgreSQL's binary timestamps begin.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Type {
    const ALL: [(Type, u32, i16, &'static [&'static str]); 9] = [
        (Type::Bool, 16, 1, &["bool", "boolean"]),
        (Type::Decimal, 1700, -1, &["decimal", "numeric"]),
        (Type::Interval, 1186, 16, &["interval"]),
        (Type::Int4, 23, 4, &["int4", "int", "integer"]),
        (Type::Int8, 20, 8, &["int8", "bigint"]),
        (Type::Lsn, 3220, 8, &["pg_lsn"]),
        (Type::Text, 25, -1, &["text", "varchar", "name", "regclass"]),
        (Type::Time, 1184, 8, &["timestamptz"]),
        (Type::Void, 2278, 4, &["void"]),
    ];

    pub(super) fn named(name: &str) -> Option<Type> {
        Self::ALL.iter().find(|(.., names)| names.contains(&name)).map(|(kind, ..)| *kind)
    }

    pub(super) fn of_oid(oid: u32) -> Option<Type> {
        Self::ALL.iter().find(|(_, known, ..)| *known == oid).map(|(kind, ..)| *kind)
    }

    /// Its number in `pg_type` and its width in bytes (-1 = varies).
    pub(super) fn wire(self) -> (u32, i16) {
        let known = Self::ALL.iter().find(|(kind, ..)| *kind == self);
        known.map_or((25, -1), |(_, oid, width, _)| (*oid, *width))
    }
}

impl Value {
    /// What `text` is as a value of this type.
    pub(super) fn parse(text: &str, kind: Type) -> Option<Value> {
        Some(match kind {
            Type::Bool => match text {
                "t" | "true" | "on" | "1" => Value::Bool(true),
                "f" | "false" | "off" | "0" => Value::Bool(false),
                _ => return None,
            },
            // Kept as it is spelt: it is more than an integer holds, and nothing is calculated with it.
            Type::Decimal if text.bytes().all(|c| c.is_ascii_digit() || c == b'.') => Value::Text(text.to_owned()),
            Type::Decimal | Type::Interval => return None,
            Type::Int4 | Type::Int8 => Value::Int(text.trim().parse().ok()?),
            Type::Lsn => Value::Lsn(text.parse().ok()?),
            Type::Text => Value::Text(text.to_owned()),
            Type::Time => Value::Time(WallTime(text.parse::<jiff::Timestamp>().ok()?.as_microsecond())),
            Type::Void => Value::Void,
        })
    }

    /// What a client's binary parameter is.
    pub(super) fn from_binary(bytes: &[u8], kind: Type) -> Option<Value> {
        let int = |bytes: &[u8]| match bytes.len() {
            2 => Some(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
            4 => Some(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
            8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
            _ => None,
        };
        Some(match kind {
            Type::Bool => Value::Bool(*bytes.first()? != 0),
            Type::Int4 | Type::Int8 => Value::Int(int(bytes)?),
            Type::Lsn => Value::Lsn(Lsn(int(bytes)?.cast_unsigned())),
            Type::Decimal | Type::Interval => return None,
            Type::Text => Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
            Type::Time => Value::Time(WallTime(int(bytes)?.checked_add(POSTGRES_EPOCH)?)),
            Type::Void => Value::Void,
        })
    }

    /// The value as another type.
    pub(super) fn cast(self, kind: Type) -> Option<Value> {
        match (self, kind) {
            (Value::Null, _) => Some(Value::Null),
            // `boolean::text` is spelled out, unlike its output.
            (Value::Bool(value), Type::Text) => Some(Value::Text(value.to_string())),
            (value, kind) => Self::parse(&value.to_text()?, kind),
        }
    }

    /// As text; `None` = NULL.
    pub(super) fn to_text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(value) => if *value { "t" } else { "f" }.into(),
            Value::Int(value) => value.to_string(),
            Value::Interval(micros) => {
                let (sign, micros) = (if *micros < 0 { "-" } else { "" }, micros.unsigned_abs());
                let seconds = micros / 1_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                format!("{sign}{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, micros % 1_000_000)
            }
            Value::Lsn(value) => value.to_string(),
            Value::Text(value) => value.clone(),
            Value::Time(at) => {
                let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
            }
            Value::Void => String::new(),
        })
    }

    /// As binary, in a column of this type; `None` = NULL.
    pub(super) fn to_binary(&self, kind: Type) -> Option<Vec<u8>> {
        Some(match (self, kind) {
            (Value::Null, _) => return None,
            (Value::Bool(value), _) => vec![u8::from(*value)],
            (Value::Int(value), Type::Int4) => i32::try_from(*value).unwrap_or(i32::MAX).to_be_bytes().into(),
            (Value::Int(value), _) => value.to_be_bytes().into(),
            (Value::Interval(micros), _) => [&micros.to_be_bytes()[..], &[0; 8]].concat(),
            (Value::Text(digits), Type::Decimal) => decimal(digits),
            (Value::Lsn(value), _) => value.0.to_be_bytes().into(),
            (Value::Time(at), _) => at.0.saturating_sub(POSTGRES_EPOCH).to_be_bytes().into(),
            (Value::Text(_) | Value::Void, _) => self.to_text()?.into_bytes(),
        })
    }
}

/// A decimal number's digits as the wire has them: groups of four around the point, and their weight.
fn decimal(text: &str) -> Vec<u8> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let padded = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let tail = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let weight = i16::try_from(padded.len() / 4).unwrap_or(i16::MAX) - 1;
    let digits: Vec<u8> = padded.bytes().chain(tail.bytes()).map(|digit| digit.saturating_sub(b'0')).collect();
    let groups = digits.chunks(4).map(|group| group.iter().fold(0_i16, |sum, digit| sum * 10 + i16::from(*digit)));
    let groups: Vec<i16> = groups.collect();
    let count = i16::try_from(groups.len()).unwrap_or(i16::MAX);
    let scale = i16::try_from(fraction.len()).unwrap_or(i16::MAX);
    [count, weight, 0, scale].into_iter().chain(groups).flat_map(i16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_text() {
        let values = [
            (Value::Bool(true), Type::Bool),
            (Value::Int(-7), Type::Int8),
            (Value::Lsn(Lsn(0x300_0060)), Type::Lsn),
            (Value::Text("hé".into()), Type::Text),
            (Value::Time(WallTime(1_763_637_653_488_119)), Type::Time),
        ];
        for (value, kind) in values {
            assert_eq!(Value::parse(&value.to_text().unwrap(), kind), Some(value));
        }
        assert_eq!(Value::Time(WallTime(1_500_000)).to_text().unwrap(), "1970-01-01 00:00:01.500000+00");
    }

    #[test]
    fn values_survive_their_binary_form() {
        let values = [
            (Value::Bool(false), Type::Bool),
            (Value::Int(-7), Type::Int8),
            (Value::Int(1 << 20), Type::Int4),
            (Value::Lsn(Lsn(0x300_0060)), Type::Lsn),
            (Value::Text("hé".into()), Type::Text),
            (Value::Time(WallTime(1_763_637_653_488_119)), Type::Time),
        ];
        for (value, kind) in values {
            assert_eq!(Value::from_binary(&value.to_binary(kind).unwrap(), kind), Some(value));
        }
        assert_eq!(Value::from_binary(&[1, 2, 3], Type::Int4), None);
    }

    #[test]
    fn decimals_and_intervals_are_spelt_as_the_wire_has_them() {
        let decimal = Value::Text("12345.0600".into()).to_binary(Type::Decimal).unwrap();
        assert_eq!(decimal, [0, 3, 0, 1, 0, 0, 0, 4, 0, 1, 9, 41, 2, 88]);
        let lag = Value::Interval(3_723_000_500);
        assert_eq!(lag.to_text().unwrap(), "01:02:03.000500");
        assert_eq!(lag.to_binary(Type::Interval).unwrap().len(), 16);
    }

    #[test]
    fn casts_are_postgresqls() {
        assert_eq!(Value::Bool(true).cast(Type::Text), Some(Value::Text("true".into())));
        assert_eq!(Value::Int(5432).cast(Type::Text), Some(Value::Text("5432".into())));
        assert_eq!(Value::Text("12".into()).cast(Type::Int8), Some(Value::Int(12)));
        assert_eq!(Value::Text("x".into()).cast(Type::Int8), None);
        assert_eq!(Value::Null.cast(Type::Int8), Some(Value::Null));
    }
}
