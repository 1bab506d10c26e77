//! How siblings lie in a record's value, and how a context looks to clients.
//!
//! Siblings, all numbers big-endian: a version byte (1), the height (2 bytes), how many lives (4),
//! of each its incarnation and stamp (8 each); how many values (4), of each its incarnation and
//! stamp (8 each), its length (4) and its bytes. Lives and values come in order, each once.
//!
//! A context is the version byte, the lives as above, and the CRC32C of the keyspace's id, the key
//! and these bytes, in base64url without padding (RFC 4648, section 5). What is under the checksum
//! tells a context that was given for another key, or the same key of another keyspace: a node
//! writes to all of them under the same life.

use bytes::{Buf, Bytes};

use super::{Context, Siblings};
use crate::types::{Incarnation, Key, KeyspaceId, Timestamp, Version};

const VERSION: u8 = 1;
const SUM_BYTES: usize = 4;
const LIFE_BYTES: usize = 16;
const VALUE_BYTES_MIN: usize = 20;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why bytes are no siblings, or text no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiblingsError {
    /// It is not what a node made.
    #[error("is malformed; give a context back as an answer for the same key had it")]
    Malformed,
    /// It was made by another program.
    #[error(
        "has version {0}, which this node does not know (it knows {VERSION}); read the key anew"
    )]
    Version(u8),
    /// It belongs to another key, or was changed on the way.
    #[error("was made for another key or keyspace; give it back for the key that was read")]
    OtherKey,
}

impl Siblings {
    /// The bytes to keep as a record's value.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend(self.height.to_be_bytes());
        encode_lives(self.clock.iter(), &mut bytes);
        bytes.extend((self.values.len() as u32).to_be_bytes());
        for ((at, life), value) in &self.values {
            bytes.extend(life.0.to_be_bytes());
            bytes.extend(at.0.to_be_bytes());
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value);
        }
        Bytes::from(bytes)
    }

    /// The siblings in a record's value; their values are slices of it, not copies.
    ///
    /// # Errors
    /// [`SiblingsError`].
    pub fn decode(mut bytes: Bytes) -> Result<Siblings, SiblingsError> {
        check_version(&mut bytes)?;
        let height = bytes.try_get_u16().map_err(|_| SiblingsError::Malformed)?;
        let clock = decode_lives(&mut bytes)?.0;
        let mut row = Siblings { clock, height, ..Siblings::default() };
        let count = take_u32(&mut bytes)? as usize;
        if count > bytes.len() / VALUE_BYTES_MIN {
            return Err(SiblingsError::Malformed);
        }
        for _ in 0..count {
            let incarnation = Incarnation(take_u64(&mut bytes)?);
            let timestamp = Timestamp(take_u64(&mut bytes)?);
            let value = take_value(&mut bytes)?;
            let known = row.context().covers(Version { timestamp, incarnation });
            let last = row.values.last_key_value();
            if !known || last.is_some_and(|(dot, _)| *dot >= (timestamp, incarnation)) {
                return Err(SiblingsError::Malformed);
            }
            row.values.insert((timestamp, incarnation), value);
        }
        if bytes.is_empty() { Ok(row) } else { Err(SiblingsError::Malformed) }
    }
}

impl Context {
    /// What another node is given.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        encode_lives(self.0.iter(), &mut bytes);
        Bytes::from(bytes)
    }

    /// What another node has given.
    ///
    /// # Errors
    /// [`SiblingsError`].
    pub fn decode(mut bytes: Bytes) -> Result<Context, SiblingsError> {
        check_version(&mut bytes)?;
        let context = decode_lives(&mut bytes)?;
        if bytes.is_empty() { Ok(context) } else { Err(SiblingsError::Malformed) }
    }

    /// What a client is given for a key.
    pub fn to_text(&self, of: (KeyspaceId, &Key)) -> String {
        let mut bytes = self.encode().to_vec();
        bytes.extend(sum(of, &bytes).to_be_bytes());
        to_base64(&bytes)
    }

    /// What a client gives back for that key.
    ///
    /// # Errors
    /// [`SiblingsError`].
    pub fn from_text(text: &str, of: (KeyspaceId, &Key)) -> Result<Context, SiblingsError> {
        let (context, body, told) = Context::parse(text)?;
        match sum(of, &body) == told {
            true => Ok(context),
            false => Err(SiblingsError::OtherKey),
        }
    }

    /// Whether a text is a context, of whatever key.
    pub fn is_text(text: &str) -> bool {
        Context::parse(text).is_ok()
    }

    /// A context, its bytes, and the sum that came with them.
    fn parse(text: &str) -> Result<(Context, Bytes, u32), SiblingsError> {
        let bytes = from_base64(text).ok_or(SiblingsError::Malformed)?;
        let split = bytes.split_last_chunk::<SUM_BYTES>();
        let (body, told) = split.ok_or(SiblingsError::Malformed)?;
        let body = Bytes::copy_from_slice(body);
        Ok((Context::decode(body.clone())?, body, u32::from_be_bytes(*told)))
    }
}

fn sum((keyspace, key): (KeyspaceId, &Key), body: &[u8]) -> u32 {
    let parts = [&keyspace.0.to_be_bytes()[..], key.as_bytes(), body];
    parts.into_iter().fold(0, crc32c::crc32c_append)
}

fn encode_lives<'a>(
    lives: impl ExactSizeIterator<Item = (&'a Incarnation, &'a Timestamp)>,
    to: &mut Vec<u8>,
) {
    to.extend((lives.len() as u32).to_be_bytes());
    for (life, seen) in lives {
        to.extend([life.0, seen.0].iter().flat_map(|it| it.to_be_bytes()));
    }
}

fn decode_lives(bytes: &mut Bytes) -> Result<Context, SiblingsError> {
    let count = take_u32(bytes)? as usize;
    if count > bytes.len() / LIFE_BYTES {
        return Err(SiblingsError::Malformed);
    }
    let mut context = Context::default();
    for _ in 0..count {
        let life = Incarnation(take_u64(bytes)?);
        let seen = Timestamp(take_u64(bytes)?);
        if context.0.last_key_value().is_some_and(|(last, _)| *last >= life) {
            return Err(SiblingsError::Malformed);
        }
        context.0.insert(life, seen);
    }
    Ok(context)
}

fn check_version(bytes: &mut Bytes) -> Result<(), SiblingsError> {
    match bytes.try_get_u8() {
        Ok(VERSION) => Ok(()),
        Ok(other) => Err(SiblingsError::Version(other)),
        Err(_) => Err(SiblingsError::Malformed),
    }
}

fn take_u32(bytes: &mut Bytes) -> Result<u32, SiblingsError> {
    bytes.try_get_u32().map_err(|_| SiblingsError::Malformed)
}

fn take_u64(bytes: &mut Bytes) -> Result<u64, SiblingsError> {
    bytes.try_get_u64().map_err(|_| SiblingsError::Malformed)
}

fn take_value(bytes: &mut Bytes) -> Result<Bytes, SiblingsError> {
    let length = take_u32(bytes)? as usize;
    match length > bytes.len() {
        true => Err(SiblingsError::Malformed),
        false => Ok(bytes.split_to(length)),
    }
}

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let digit = (bits >> (18 - 6 * at)) & 63;
            text.push(char::from(ALPHABET[digit as usize]));
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for digit in chunk {
            bits = (bits << 6) | ALPHABET.iter().position(|known| known == digit)? as u32;
        }
        let whole = bits << (6 * (4 - chunk.len()));
        let count = chunk.len().checked_sub(1).filter(|count| *count > 0)?;
        let [_, first, second, third] = whole.to_be_bytes();
        bytes.extend_from_slice(&[first, second, third][..count]);
    }
    // One text for one context: bits that stand for nothing are zero.
    (to_base64(&bytes) == text).then_some(bytes)
}
