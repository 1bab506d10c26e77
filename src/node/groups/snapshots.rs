//! The driver's part in snapshots: sending those that are wanted, taking in those that come.

use std::collections::BTreeSet;

use crate::node::groups::driver::Driver;
use crate::node::groups::fetching::{Errand, Need, PageWanted};
use crate::node::groups::group::Group;
use crate::node::groups::incoming::{ChunkWritten, Incoming, Verdict, mark, rows_of};
use crate::node::groups::machine::GroupMachine;
use crate::node::groups::open;
use crate::node::groups::open::OpenError;
use crate::node::groups::outgoing::{Due, Outgoing};
use crate::node::groups::overlay::GroupRowError;
use crate::protocol::message::{
    Class, Message, ScanPage, SnapshotChunk, SnapshotRefusal, SnapshotReply,
};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::raft::entry::{LogPosition, LogStart};
use crate::protocol::system::keyspace::Mode;
use crate::storage::store::StoreError;
use crate::storage::wal::LogRecord;
use crate::types::{GroupId, KeyspaceId, NodeId, ReplicaId, Row};

/// Snapshots that a node sends at once; the others wait for their turn.
const OUTGOING_MAX: usize = 4;

impl Driver {
    /// A replica needs a snapshot of a group that this node leads.
    pub(super) fn begin_snapshot(&mut self, group: GroupId, to: ReplicaId) {
        let keyspaces = self.keyspaces_of(group);
        let Some(hosted) = self.host.group(group) else { return };
        let Some(node) = hosted.node_of(to) else { return };
        let is_full = self.outgoing.len() >= OUTGOING_MAX;
        if is_full || hosted.is_installing() || self.outgoing.contains_key(&(group, to)) {
            // The core asks again when the replica is heard of next. Rows of no single moment are
            // nothing to begin with.
            if let Some(hosted) = self.host.group_mut(group) {
                hosted.raft.snapshot_done(to, None);
            }
            return;
        }
        let transfer = self.seams.env.random();
        let changed = hosted.overlay_keys();
        let chunk_bytes = self.host.limits().snapshot_chunk_bytes;
        let outgoing = Outgoing::new((to, node), transfer, (keyspaces, chunk_bytes), changed);
        self.outgoing.insert((group, to), outgoing);
        self.seams.metrics.group_snapshots_sent.inc();
        tracing::info!(%group, replica = %to, %node, "sends a snapshot");
        self.send_chunk(group, to);
    }

    /// Rows of a group changed: snapshots that passed them already send them again.
    pub(super) fn note_changed(&mut self, group: GroupId, rows: &[Row]) {
        for ((_, _), outgoing) in self.outgoing.range_mut((group, ReplicaId(0))..=(group, LAST)) {
            outgoing.note(rows);
        }
    }

    /// Sends what is due of every snapshot under way, and ends those that nobody wants any more.
    pub(super) fn push_snapshots(&mut self) {
        let up = self.seams.topology.load().up.clone();
        let under_way = self.outgoing.iter().map(|(place, outgoing)| (*place, outgoing.node));
        let under_way: Vec<((GroupId, ReplicaId), NodeId)> = under_way.collect();
        for ((group, to), node) in under_way {
            let Some(hosted) = self.host.group(group).filter(|hosted| hosted.raft.is_leader())
            else {
                self.outgoing.remove(&(group, to));
                continue;
            };
            match up.contains(&node) && hosted.raft.log().membership().contains(to) {
                true => self.send_chunk(group, to),
                // It is begun anew once the replica is heard of.
                false => self.end_snapshot((group, to), None),
            }
        }
    }

    /// A receiver says what became of a chunk.
    pub(super) fn on_chunk_reply(&mut self, reply: &SnapshotReply) {
        let place = (reply.group, reply.from);
        if reply.outcome == Err(SnapshotRefusal::Wanted) {
            return self.begin_snapshot(reply.group, reply.from);
        }
        let Some(outgoing) = self.outgoing.get_mut(&place) else { return };
        if outgoing.transfer != reply.transfer {
            return;
        }
        match reply.outcome {
            Ok(()) => {
                outgoing.on_wanted(reply.next);
                match outgoing.is_done() {
                    Some(through) => self.end_snapshot(place, Some(through)),
                    None => self.send_chunk(reply.group, reply.from),
                }
            }
            // The chunk is sent again when its time comes.
            Err(SnapshotRefusal::Checksum | SnapshotRefusal::Overloaded) => {}
            Err(_) => self.end_snapshot(place, None),
        }
    }

    /// Takes in a chunk of a snapshot.
    pub(super) fn on_chunk(&mut self, from: NodeId, chunk: SnapshotChunk) {
        let group = chunk.group;
        if !self.is_usable(&chunk) {
            return self.refuse_chunk(from, &chunk, SnapshotRefusal::Unwanted);
        }
        let foreign = !self.incoming.get(&group).is_some_and(|incoming| incoming.is_of(&chunk));
        if foreign && self.host.group(group).is_some_and(Group::is_sealed) {
            // Another snapshot is as good as in place; the sender asks again.
            return;
        }
        if foreign {
            let wanted = self.host.group(group).is_some_and(|hosted| hosted.wants_snapshot(&chunk));
            match Incoming::begin(&chunk, self.host.now()).filter(|_| wanted) {
                Some(incoming) => drop(self.incoming.insert(group, incoming)),
                None => return self.refuse_chunk(from, &chunk, SnapshotRefusal::Unwanted),
            }
        }
        let incoming = self.incoming.get_mut(&group).expect("invariant: it was put there above");
        match incoming.judge(&chunk, self.host.now()) {
            Verdict::Take => self.take_chunk(from, chunk),
            Verdict::Want(next) => self.reply_to_chunk(from, &chunk, next, Ok(())),
            Verdict::Wait => {}
            Verdict::Refuse(refusal) => self.refuse_chunk(from, &chunk, refusal),
        }
    }

    /// Whether a chunk is for a replica of this node, and whole, and may take its place in the log.
    fn is_usable(&self, chunk: &SnapshotChunk) -> bool {
        let hosted = self.host.group(chunk.group).filter(|hosted| hosted.replica == chunk.to);
        hosted.is_some_and(|hosted| match &chunk.start {
            Some(start) => hosted.may_begin_at(start),
            None => !chunk.last,
        })
    }

    fn take_chunk(&mut self, from: NodeId, chunk: SnapshotChunk) {
        let group = chunk.group;
        let clock = &self.seams.clock;
        let stamp = || clock.stamp(None).unwrap_or_else(|_| clock.last());
        let stamps = (stamp(), stamp());
        let partition = group.partition();
        let bytes_max = self.host.record_bytes_max();
        let rows = rows_of(&chunk, partition, stamps, bytes_max);
        let mut records: Vec<LogRecord> = rows.into_iter().map(LogRecord::Rows).collect();
        let Some(hosted) = self.host.group_mut(group) else { return };
        hosted.set_installing();
        if let Some(start) = &chunk.start {
            hosted.seal();
            records.push(hosted.start_record((**start).clone()));
        }
        let written = ChunkWritten { from, chunk: chunk.without_rows() };
        self.host.write_chunk(records, written);
    }

    /// Chunks are durable: their senders hear of it, and a snapshot whose last chunk is among them
    /// takes the place of the log.
    pub(super) fn on_chunks_written(&mut self, chunks: Vec<ChunkWritten>) {
        for ChunkWritten { from, chunk } in chunks {
            if self.host.replica(chunk.group) != Some(chunk.to) {
                continue;
            }
            if let Some(start) = chunk.start.clone() {
                self.install(chunk.group, *start);
            }
            let Some(incoming) = self.incoming.get_mut(&chunk.group) else { continue };
            if !incoming.is_of(&chunk) {
                continue;
            }
            let next = incoming.on_written();
            if chunk.last {
                self.incoming.remove(&chunk.group);
            }
            self.reply_to_chunk(from, &chunk, next, Ok(()));
        }
    }

    /// The log begins at the snapshot's end. The rows are the state there, unless some came from a
    /// sender that was further: then the replica waits for a snapshot that goes as far.
    fn install(&mut self, group: GroupId, start: LogStart) {
        let position = start.position;
        let Some(hosted) = self.host.group_mut(group) else { return };
        let answers = hosted.restore(start);
        self.answer(answers);
        match self.load(group, position) {
            Ok(Some(machine)) => {
                if let Some(hosted) = self.host.group_mut(group) {
                    hosted.install(machine);
                    self.seams.metrics.group_snapshots_installed.inc();
                }
            }
            Ok(None) => {
                tracing::warn!(%group, "a snapshot is older than rows that are here");
                self.write_mark(group);
            }
            Err(error) => tracing::error!(%group, %error, "a snapshot cannot be read back"),
        }
    }

    /// The machine of a group whose rows are the state at this entry; `None` if they are not.
    fn load(
        &self,
        group: GroupId,
        position: LogPosition,
    ) -> Result<Option<GroupMachine>, OpenError> {
        let store = &self.seams.store;
        let applied = open::applied(group, store)?.filter(|applied| applied.position == position);
        let Some(applied) = applied else { return Ok(None) };
        for keyspace in self.keyspaces_of(group) {
            if open::has_rows_above(applied.revision, (keyspace, group.partition()), store)? {
                return Ok(None);
            }
        }
        open::load_machine(group, applied, store).map(Some)
    }

    fn refuse_chunk(&self, to: NodeId, chunk: &SnapshotChunk, refusal: SnapshotRefusal) {
        self.reply_to_chunk(to, chunk, 0, Err(refusal));
    }

    fn reply_to_chunk(
        &self,
        to: NodeId,
        chunk: &SnapshotChunk,
        next: u32,
        outcome: Result<(), SnapshotRefusal>,
    ) {
        let reply = SnapshotReply {
            group: chunk.group,
            to: chunk.from,
            from: chunk.to,
            transfer: chunk.transfer,
            next,
            outcome,
        };
        self.send_of_snapshot(to, Message::SnapshotReply(reply));
    }

    fn send_chunk(&mut self, group: GroupId, to: ReplicaId) {
        let Some(hosted) = self.host.group(group) else { return };
        let Some(outgoing) = self.outgoing.get_mut(&(group, to)) else { return };
        let (node, replica) = (outgoing.node, hosted.replica);
        match outgoing.due(hosted, &self.seams.store, self.host.now()) {
            Ok(Due::Chunk(chunk)) => self.send_of_snapshot(node, Message::Snapshot(chunk)),
            Ok(Due::Page(page)) => self.fetch(Errand { group, replica, need: Need::Page(page) }),
            Ok(Due::Nothing) => {}
            Err(error) => self.fail_snapshot((group, to), &error),
        }
    }

    /// Rows of a snapshot have come from the disk.
    pub(super) fn on_page(
        &mut self,
        group: GroupId,
        wanted: &PageWanted,
        page: Result<ScanPage, StoreError>,
    ) {
        let place = (group, wanted.to);
        let Some(outgoing) = self.outgoing.get_mut(&place) else { return };
        if outgoing.transfer != wanted.transfer {
            return;
        }
        match page {
            Ok(page) => {
                outgoing.on_page(page);
                self.send_chunk(group, wanted.to);
            }
            Err(error) => self.fail_snapshot(place, &error.into()),
        }
    }

    /// Whose rows are damaged leaves the lead, and the snapshot, to another.
    fn fail_snapshot(&mut self, (group, to): (GroupId, ReplicaId), error: &GroupRowError) {
        tracing::error!(%group, %error, "a snapshot cannot be read");
        if error.is_damage() {
            // While it still counts as on its way, so that the lead does not go to its receiver.
            self.hand_on(group);
        }
        self.end_snapshot((group, to), None);
    }

    /// Replicas some of whose rows are damaged take those of their leader, and serve nothing
    /// meanwhile. One that leads hands the lead on before: until somebody else has it, it serves
    /// what it can.
    pub(super) fn replace_damaged(&mut self) {
        if planted(Planted::DamagedReplicaStays) {
            return;
        }
        let damaged = self.host.groups().filter(|group| group.needs_other_rows());
        let damaged: Vec<(GroupId, bool)> =
            damaged.map(|group| (group.id, group.raft.is_leader())).collect();
        for (group, leads) in damaged {
            if leads {
                self.hand_on(group);
                continue;
            }
            let Some(hosted) = self.host.group_mut(group) else { continue };
            if hosted.raft.leader().is_none() {
                continue;
            }
            tracing::warn!(%group, "rows are damaged here; a snapshot takes their place");
            hosted.set_installing();
            self.write_mark(group);
        }
    }

    /// Has the log say that the rows of a group are of no single moment.
    fn write_mark(&mut self, group: GroupId) {
        let stamp = self.seams.clock.stamp(None);
        let stamp = stamp.unwrap_or_else(|_| self.seams.clock.last());
        let mark = vec![(group.partition(), mark(stamp, true))];
        self.host.write(vec![LogRecord::Rows(mark)]);
    }

    fn end_snapshot(
        &mut self,
        (group, to): (GroupId, ReplicaId),
        through: Option<crate::types::LogIndex>,
    ) {
        self.outgoing.remove(&(group, to));
        if let Some(hosted) = self.host.group_mut(group) {
            hosted.raft.snapshot_done(to, through);
        }
    }

    fn send_of_snapshot(&self, to: NodeId, message: Message) {
        // A chunk that is lost is sent again after a while.
        if let Err(error) = self.seams.transport.send(to, Class::Transfer, message) {
            tracing::debug!(%error, "a message of a snapshot was not sent");
        }
    }

    /// The keyspaces whose rows belong to a group.
    fn keyspaces_of(&self, group: GroupId) -> Vec<KeyspaceId> {
        if group == GroupId::SYSTEM {
            return Vec::new();
        }
        let state = self.newest_system();
        let strong = state.iter().flat_map(|state| state.keyspaces());
        let strong = strong.filter(|keyspace| keyspace.mode == Mode::Strong);
        let ids: BTreeSet<KeyspaceId> = strong.map(|keyspace| keyspace.id).collect();
        ids.into_iter().chain([KeyspaceId::SESSIONS]).collect()
    }
}

/// Above every replica's number.
const LAST: ReplicaId = ReplicaId(u64::MAX);
