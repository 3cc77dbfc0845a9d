//! The scalars of the mirror. They take what TOML offers and say in plain words what they want; what the text means
//! is not known here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A word, duration, size, address or path. A number or a boolean is kept as its text, so that the validation can
/// say what would be right (`interval = 2` wants `"2s"`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// A list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts(pub Vec<Text>);

/// A count: a whole number of 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub u64);

/// A list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(pub Vec<Number>);

/// A part of the whole, 1 being all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Text, E> {
        Ok(Text(v.to_owned()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number without quotes")
    }

    // The value itself is not repeated: it may be a secret in the wrong place.
    fn visit_str<E: Error>(self, _: &str) -> Result<Number, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Number, E> {
        match u64::try_from(v) {
            Ok(v) => Ok(Number(v)),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(v), &"a whole number of 0 or more")),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NumberVisitor)
    }
}

struct ShareVisitor;

impl Visitor<'_> for ShareVisitor {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share without quotes, for example 0.1")
    }

    // The value itself is not repeated: it may be a secret in the wrong place.
    fn visit_str<E: Error>(self, _: &str) -> Result<Share, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Share, E> {
        i32::try_from(v).map(|v| Share(f64::from(v))).map_err(|_| E::invalid_value(Unexpected::Signed(v), &self))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Share, E> {
        Ok(Share(v))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ShareVisitor)
    }
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false without quotes")
    }

    // The value itself is not repeated: it may be a secret in the wrong place.
    fn visit_str<E: Error>(self, _: &str) -> Result<Flag, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Flag, E> {
        Ok(Flag(v))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(FlagVisitor)
    }
}

/// Collects a sequence; `0` says what the list should look like.
struct ListVisitor<T>(&'static str, std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    // The value itself is not repeated: it may be a secret in the wrong place.
    fn visit_str<E: Error>(self, _: &str) -> Result<Vec<T>, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(list)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wanted = "a list of texts in brackets, for example [\"one\", \"two\"]";
        d.deserialize_any(ListVisitor(wanted, std::marker::PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wanted = "a list of whole numbers in brackets, for example [200, 204]";
        d.deserialize_any(ListVisitor(wanted, std::marker::PhantomData)).map(Self)
    }
}
