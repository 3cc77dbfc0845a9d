//! One slot: 4 KiB that hold a record with magic, format, sequence number and a checksum over all of it.
//! Only bytes here; which slot is written when is `slots`' business.
//!
//! ```text
//!    0   8  magic
//!    8   4  format, little endian as all numbers
//!   12   4  length of the payload
//!   16   8  sequence number
//!   24   n  payload: {"pair": …, "record": …} as JSON, then zeros
//! 4092   4  CRC32C of the 4092 bytes before
//! ```

use serde::{Deserialize, Serialize};

use super::{Foreign, SlotDamage, StoreError};
use crate::failover::phase::Record;

/// Bytes of a slot.
pub(super) const SIZE: usize = 4096;
/// Bytes that the JSON of one record may have, its pair's name included.
pub const CAPACITY: usize = SIZE - HEADER - CHECKSUM;

const MAGIC: [u8; 8] = *b"pgpivot\n";
const FORMAT: u32 = 1;
const HEADER: usize = 24;
const CHECKSUM: usize = 4;

/// What a slot was found to hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// A record.
    Valid { sequence: u64, record: Box<Record> },
    /// Nothing that can be trusted.
    Damaged(SlotDamage),
    /// Something intact that is not ours to interpret or to overwrite.
    Foreign(Foreign),
}

#[derive(Serialize)]
struct Outgoing<'a> {
    pair: &'a str,
    record: &'a Record,
}

#[derive(Deserialize)]
struct Incoming {
    pair: String,
    record: Box<Record>,
}

/// How many of the [`CAPACITY`] bytes this record needs: who builds records can shorten in time.
pub fn encoded_len(pair: &str, record: &Record) -> Result<usize, StoreError> {
    Ok(payload(pair, record)?.len())
}

/// The slot's bytes, or `Oversize`.
pub(super) fn encode(pair: &str, sequence: u64, record: &Record) -> Result<Box<[u8; SIZE]>, StoreError> {
    let payload = payload(pair, record)?;
    if payload.len() > CAPACITY {
        return Err(StoreError::Oversize { pair: pair.into(), bytes: payload.len(), limit: CAPACITY });
    }
    let mut bytes = Box::new([0; SIZE]);
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[HEADER..HEADER + payload.len()].copy_from_slice(&payload);
    let checksum = crc32c::crc32c(&bytes[..SIZE - CHECKSUM]);
    bytes[SIZE - CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// What the bytes of a slot say. `bytes` may be short.
pub(super) fn decode(pair: &str, bytes: &[u8]) -> Content {
    let Ok(bytes) = <&[u8; SIZE]>::try_from(bytes) else {
        return Content::Damaged(SlotDamage::Short);
    };
    if bytes.iter().all(|b| *b == 0) {
        return Content::Damaged(SlotDamage::Empty);
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(SIZE - CHECKSUM) != crc32c::crc32c(&bytes[..SIZE - CHECKSUM]) || bytes[..8] != MAGIC {
        return Content::Damaged(SlotDamage::Checksum);
    }
    if number(8) != FORMAT {
        return Content::Foreign(Foreign::Version(number(8)));
    }
    let sequence = u64::from(number(16)) | u64::from(number(20)) << 32;
    let length = (number(12) as usize).min(CAPACITY);
    match serde_json::from_slice::<Incoming>(&bytes[HEADER..HEADER + length]) {
        Ok(found) if found.pair == pair => Content::Valid { sequence, record: found.record },
        Ok(found) => Content::Foreign(Foreign::Pair(found.pair)),
        Err(error) => Content::Foreign(Foreign::Payload { line: error.line(), column: error.column() }),
    }
}

fn payload(pair: &str, record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Outgoing { pair, record }).map_err(|source| StoreError::Encoding { pair: pair.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::WallTime;

    #[test]
    fn a_slot_reads_back_and_any_flipped_bit_is_found() {
        let record = Record { other_daemon_seen: Some(WallTime(77)), ..Record::default() };
        let mut bytes = encode("main", 7, &record).unwrap();
        let sound = Content::Valid { sequence: 7, record: Box::new(record) };
        assert_eq!(decode("main", &bytes[..]), sound);
        for bit in 0..SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode("main", &bytes[..]), Content::Damaged(SlotDamage::Checksum), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(decode("main", &bytes[..]), sound);
    }

    #[test]
    fn what_another_version_wrote_is_told_apart_from_damage() {
        let mut bytes = encode("main", 7, &Record::default()).unwrap();
        bytes[8] = 9;
        reseal(&mut bytes);
        assert_eq!(decode("main", &bytes[..]), Content::Foreign(Foreign::Version(9)));
        bytes[8] = 1;
        bytes[HEADER] = b'?';
        reseal(&mut bytes);
        assert!(matches!(decode("main", &bytes[..]), Content::Foreign(Foreign::Payload { line: 1, .. })));
    }

    #[test]
    fn an_empty_slot_and_a_short_one_say_so() {
        assert_eq!(decode("main", &[0; SIZE]), Content::Damaged(SlotDamage::Empty));
        assert_eq!(decode("main", &[1; 100]), Content::Damaged(SlotDamage::Short));
    }

    fn reseal(bytes: &mut [u8; SIZE]) {
        let checksum = crc32c::crc32c(&bytes[..SIZE - CHECKSUM]);
        bytes[SIZE - CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    }
}
