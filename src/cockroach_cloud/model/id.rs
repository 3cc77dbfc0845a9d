//! The ids of clusters and replication streams: UUIDs, so that no other text can reach a path of the API.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("is empty; the Cloud Console shows the id in the cluster's address, as in {EXAMPLE}")]
    Empty,
    /// Not 32 hexadecimal digits in groups of 8-4-4-4-12.
    #[error("is no UUID; write 32 hexadecimal digits in groups of 8-4-4-4-12, as in {EXAMPLE}")]
    NotUuid,
}

const EXAMPLE: &str = "35c4abb2-bb66-46d7-afed-25ebef5ed2aa";
/// Where the dashes stand.
const DASHES: [usize; 4] = [8, 13, 18, 23];

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(u128);

        impl $name {
            /// From its 128 bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Reads either letter case; spaces around the id are an error.
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            /// In lower case, with dashes.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&print(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&print(self.0))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                print(id.0)
            }
        }
    };
}

id_type! {
    /// A cluster as the Cloud API knows it: neither the id that SQL shows nor the routing id.
    ClusterId
}
id_type! {
    /// A physical replication stream.
    StreamId
}

fn parse(text: &str) -> Result<u128, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() != EXAMPLE.len() {
        return Err(IdError::NotUuid);
    }
    text.bytes().enumerate().try_fold(0_u128, |bits, (i, byte)| match (DASHES.contains(&i), byte) {
        (true, b'-') => Ok(bits),
        (false, digit) => {
            let digit = char::from(digit).to_digit(16).ok_or(IdError::NotUuid)?;
            Ok(bits << 4 | u128::from(digit))
        }
        (true, _) => Err(IdError::NotUuid),
    })
}

fn print(bits: u128) -> String {
    let mut text = format!("{bits:032x}");
    for dash in DASHES {
        text.insert(dash, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_and_prints_as_the_api_writes_it() {
        let id: ClusterId = EXAMPLE.parse().unwrap();
        assert_eq!(id.to_string(), EXAMPLE);
        assert_eq!(format!("{id:?}"), EXAMPLE);
        assert_eq!(EXAMPLE.to_uppercase().parse::<ClusterId>(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<ClusterId>(&format!("\"{EXAMPLE}\"")).unwrap(), id);
        assert_eq!(StreamId::from_bits(1).to_string(), "00000000-0000-0000-0000-000000000001");
    }

    #[test]
    fn what_is_no_id_is_refused_and_told_what_one_looks_like() {
        let wrong = [
            "my-cluster",
            "35c4abb2bb6646d7afed25ebef5ed2aa",
            "35c4abb2-bb66-46d7-afed-25ebef5ed2a",
            "35c4abb2-bb66-46d7-afed-25ebef5ed2ag",
            "35c4abb2-bb66-46d7-afed/25ebef5ed2aa",
            " 35c4abb2-bb66-46d7-afed-25ebef5ed2a",
            "../../../../../../../../../../../../",
            "35c4abb2-bb66-46d7-afed-25ebef5ed2+1",
            "35c4abb2-bb66-46d7-afed-25ebef5edé",
        ];
        for text in wrong {
            assert_eq!(text.parse::<ClusterId>(), Err(IdError::NotUuid), "{text}");
        }
        assert_eq!("".parse::<StreamId>(), Err(IdError::Empty));
        assert!(IdError::NotUuid.to_string().contains("8-4-4-4-12"));
    }
}
