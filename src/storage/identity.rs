//! Who a node is: the few facts that make a data directory this member of this cluster.
//!
//! They lie in `identity.json`, readable to an operator but not to be edited: a checksum covers
//! every byte of the body, since a node that mistook its incarnation or its clock floor would mint
//! versions that were minted before. The file is replaced whole: written beside, synced, renamed.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::config::ClusterSettings;
use crate::protocol::membership::MemberSet;
use crate::storage::files::{FileHandle, Files};
use crate::types::{Incarnation, NodeId, Timestamp};

const NAME: &str = "identity.json";
const TEMPORARY_NAME: &str = "identity.json.new";
const FORMAT: u32 = 1;

/// The file is these three, around the format, the checksum and the body, and a closing brace. So
/// it is JSON, and the body's bytes can be told without parsing.
const BEFORE_FORMAT: &str = "{\"format\":";
const BEFORE_CRC: &str = ",\"crc32c\":\"";
const BEFORE_BODY: &str = "\",\"identity\":";
const AFTER_BODY: &str = "}\n";

/// What a node must remember of itself across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The member that this directory is.
    pub node_id: NodeId,
    /// The life of the directory: part of every version that the node mints.
    pub incarnation: Incarnation,
    /// Grows by at least one on each start, so that gossip tells a node from its former run.
    pub generation: u64,
    /// The cluster that it belongs to; None until it has founded or joined one.
    pub cluster: Option<ClusterSettings>,
    /// Whether it founded that cluster.
    #[serde(default)]
    pub founder: bool,
    /// Every member that it has seen and not forgotten.
    pub members: MemberSet,
    /// No version up to this stamp may be minted again.
    pub clock_floor: Timestamp,
    /// No new write and no hint up to this stamp is taken any more: see
    /// [`crate::protocol::reaping`].
    #[serde(default)]
    pub reap_fence: Timestamp,
    /// Whether the rows were found to be older than what the node has promised since: the next
    /// start counts them as lost.
    #[serde(default)]
    pub outdated: bool,
    /// True while the node lacks rows because its engine was lost: it must refill from its replicas
    /// before it counts as complete.
    pub rebuilding: bool,
}

/// Why the identity could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not what was written.
    #[error(
        "identity.json is damaged ({reason}); restore it from a copy, or set the whole data \
         directory aside: the node then joins as a new member and refills from its replicas"
    )]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Another program wrote the file.
    #[error(
        "identity.json has format {got}, this program knows format {known}; \
         start the program that wrote it, or a newer one"
    )]
    UnknownFormat {
        /// The format of the file.
        got: u32,
        /// The format that this program reads and writes.
        known: u32,
    },
    /// The operating system refused.
    #[error("could not {during} identity.json: {source}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Identity {
    /// Reads the identity; None when the directory is new. What is read may not be durable yet if
    /// the process before was killed: store it anew, with the next generation, before acting on it.
    ///
    /// # Errors
    /// Any [`IdentityError`].
    pub fn load(files: &dyn Files) -> Result<Option<Identity>, IdentityError> {
        let file = match files.open(NAME) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io_error("open"))?,
        };
        let bytes = read_all(file.as_ref()).map_err(io_error("read"))?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        decode(&text).map(Some)
    }

    /// Replaces the identity on disk; durable on return.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; the former identity is then still there, or this one.
    pub fn store(&self, files: &dyn Files) -> Result<(), IdentityError> {
        let text = encode(self)?;
        match files.remove(TEMPORARY_NAME) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("clear what was left of")(error));
            }
            _ => {}
        }
        let file = files.create(TEMPORARY_NAME).map_err(io_error("create"))?;
        file.write_at(0, text.as_bytes()).map_err(io_error("write"))?;
        file.sync_data().map_err(io_error("sync"))?;
        files.rename(TEMPORARY_NAME, NAME).map_err(io_error("replace"))?;
        files.sync_folder("").map_err(io_error("sync the folder of"))
    }
}

fn encode(identity: &Identity) -> Result<String, IdentityError> {
    let body = serde_json::to_string_pretty(identity).map_err(|error| IdentityError::Io {
        during: "serialise",
        source: io::Error::other(error),
    })?;
    let crc = crc32c::crc32c(body.as_bytes());
    Ok(format!("{BEFORE_FORMAT}{FORMAT}{BEFORE_CRC}{crc:08x}{BEFORE_BODY}{body}{AFTER_BODY}"))
}

fn decode(text: &str) -> Result<Identity, IdentityError> {
    let rest = text.strip_prefix(BEFORE_FORMAT).ok_or_else(|| damaged("its beginning is wrong"))?;
    let (format, rest) = rest.split_once(',').ok_or_else(|| damaged("it ends early"))?;
    match format.parse::<u32>() {
        Ok(FORMAT) => {}
        Ok(got) => return Err(IdentityError::UnknownFormat { got, known: FORMAT }),
        Err(_) => return Err(damaged("its format is no number")),
    }
    let (crc, body) = body_of(rest).ok_or_else(|| damaged("its frame is wrong"))?;
    if crc != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_str(body).map_err(|error| damaged(error.to_string()))
}

/// The checksum's digits and the body.
fn body_of(rest: &str) -> Option<(&str, &str)> {
    let after_comma = &BEFORE_CRC[1..];
    let (crc, rest) = rest.strip_prefix(after_comma)?.split_once(BEFORE_BODY)?;
    Some((crc, rest.strip_suffix(AFTER_BODY)?))
}

fn read_all(file: &dyn FileHandle) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn damaged(reason: impl Into<String>) -> IdentityError {
    IdentityError::Damaged { reason: reason.into() }
}

fn io_error(during: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { during, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Replication;
    use crate::storage::files::testing::{MemoryFiles, Op};
    use crate::types::ClusterId;

    fn identity(generation: u64) -> Identity {
        Identity {
            node_id: NodeId(0xfeed),
            incarnation: Incarnation(u64::MAX),
            generation,
            cluster: Some(ClusterSettings {
                cluster_id: ClusterId(3),
                partitions: 256,
                replication: Replication::default(),
            }),
            founder: false,
            members: MemberSet::default(),
            clock_floor: Timestamp(u64::MAX - 1),
            reap_fence: Timestamp(u64::MAX - 2),
            outdated: true,
            rebuilding: false,
        }
    }

    fn stored(generation: u64) -> MemoryFiles {
        let files = MemoryFiles::default();
        identity(generation).store(&files).unwrap();
        files
    }

    #[test]
    fn a_new_directory_has_none() {
        assert_eq!(Identity::load(&MemoryFiles::default()).unwrap(), None);
    }

    #[test]
    fn an_identity_survives_its_file_and_a_power_loss() {
        for seed in 0..8 {
            let files = stored(1);
            identity(2).store(&files).unwrap();
            let found = Identity::load(&files.power_loss(seed)).unwrap();
            assert_eq!(found, Some(identity(2)));
        }
    }

    #[test]
    fn the_file_is_json_that_an_operator_can_read() {
        let file: serde_json::Value =
            serde_json::from_slice(&stored(7).bytes("identity.json")).unwrap();
        assert_eq!(file["identity"]["generation"], 7);
        assert_eq!(file["identity"]["cluster"]["cluster_id"], "0000000000000003");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = stored(1);
        for bit in 0..sound.bytes(NAME).len() * 8 {
            let files = sound.copy();
            files.edit(NAME, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(Identity::load(&files).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_damage() {
        let sound = stored(1);
        for len in 0..sound.bytes(NAME).len() {
            let files = sound.copy();
            files.edit(NAME, |bytes| bytes.truncate(len));
            assert!(matches!(Identity::load(&files), Err(IdentityError::Damaged { .. })), "{len}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let files = stored(1);
        files.edit(NAME, |bytes| bytes[BEFORE_FORMAT.len()] = b'2');
        let error = Identity::load(&files).unwrap_err();
        assert!(matches!(error, IdentityError::UnknownFormat { got: 2, known: 1 }), "{error}");
    }

    #[test]
    fn damage_tells_what_to_do() {
        let files = stored(1);
        files.edit(NAME, |bytes| bytes[60] ^= 1);
        let text = Identity::load(&files).unwrap_err().to_string();
        assert!(text.contains("set the whole data directory aside"), "{text}");
    }

    #[test]
    fn a_crash_anywhere_leaves_the_former_or_the_new_one() {
        for operations in 0..6 {
            for seed in 0..16 {
                let files = stored(1);
                files.crash_after(operations);
                let done = identity(2).store(&files).is_ok();
                let found = Identity::load(&files.power_loss(seed)).unwrap();
                let accepted = found == Some(identity(2)) || (!done && found == Some(identity(1)));
                assert!(accepted, "{operations} {seed} {found:?}");
            }
        }
    }

    #[test]
    fn a_failed_store_leaves_the_former_and_can_be_repeated() {
        for op in [Op::Create, Op::Write, Op::Sync, Op::Rename] {
            let files = stored(1);
            files.fail(op, 0, ErrorKind::StorageFull);
            assert!(identity(2).store(&files).is_err(), "{op:?}");
            assert_eq!(Identity::load(&files).unwrap(), Some(identity(1)), "{op:?}");
            identity(2).store(&files).unwrap();
            assert_eq!(Identity::load(&files).unwrap(), Some(identity(2)), "{op:?}");
        }
    }
}
