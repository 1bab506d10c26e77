//! Bytes of a group's own: read with every length checked, written little-endian.
//!
//! Each form begins with its version. New kinds come with a new version, so that a program that is
//! too old for a form says so and never takes it for damage.

use bytes::{Buf, BufMut, Bytes, TryGetError};

/// Why bytes are not what they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program.
    #[error("{what} has version {version}, which this program does not know")]
    UnknownVersion {
        /// What was read.
        what: &'static str,
        /// Its version.
        version: u8,
    },
    /// A kind that the version does not have.
    #[error("{what} has the unknown kind {kind}")]
    UnknownKind {
        /// What was read.
        what: &'static str,
        /// Its kind.
        kind: u8,
    },
    /// Bytes are missing.
    #[error("it ends early")]
    EndsEarly,
    /// There is more than one of it.
    #[error("{bytes} bytes follow its end")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Its parts contradict each other.
    #[error("{reason}")]
    Malformed {
        /// In what.
        reason: &'static str,
    },
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        DecodeError::EndsEarly
    }
}

/// Takes values off the front of bytes.
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads a form that begins with a version, the only known one of which is `version`.
    pub(super) fn versioned(
        what: &'static str,
        version: u8,
        bytes: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader { left: bytes };
        match reader.u8()? {
            found if found == version => Ok(reader),
            found => Err(DecodeError::UnknownVersion { what, version: found }),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.left.try_get_u8()?)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.left.try_get_u32_le()?)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(self.left.try_get_u64_le()?)
    }

    /// A byte of 0 or 1.
    pub(super) fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            kind => Err(DecodeError::UnknownKind { what, kind }),
        }
    }

    /// A length and as many bytes; a copy, as a slice would keep all that surrounds it in memory.
    pub(super) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u32()? as usize;
        let (taken, left) = self.left.split_at_checked(length).ok_or(DecodeError::EndsEarly)?;
        self.left = left;
        Ok(Bytes::copy_from_slice(taken))
    }

    /// What a flag says is there, or not.
    pub(super) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(what)? { read(self).map(Some) } else { Ok(None) }
    }

    /// A count and as many items. What is set aside for them never exceeds what was received.
    pub(super) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.left.len() {
            return Err(DecodeError::EndsEarly);
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// Nothing may be left.
    pub(super) fn finish<T>(self, read: T) -> Result<T, DecodeError> {
        match self.left.len() {
            0 => Ok(read),
            bytes => Err(DecodeError::TooLong { bytes }),
        }
    }
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_count(bytes.len(), out);
    out.put_slice(bytes);
}

/// Appends a flag and, if there is one, the item.
pub(super) fn put_option<T>(
    item: Option<&T>,
    out: &mut Vec<u8>,
    put: impl FnOnce(&T, &mut Vec<u8>),
) {
    out.put_u8(u8::from(item.is_some()));
    if let Some(item) = item {
        put(item, out);
    }
}

/// Appends a count and the items.
pub(super) fn put_list<T>(
    items: impl ExactSizeIterator<Item = T>,
    out: &mut Vec<u8>,
    mut put: impl FnMut(T, &mut Vec<u8>),
) {
    put_count(items.len(), out);
    for item in items {
        put(item, out);
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("invariant: limits keep entries far below 4 GiB");
    out.put_u32_le(count);
}
