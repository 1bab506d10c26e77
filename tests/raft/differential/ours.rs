//! Our core as a replica of a schedule.

use bytes::Bytes;
use coterie::protocol::raft::entry::{LogStart, Payload};
use coterie::protocol::raft::membership::Membership;
use coterie::protocol::raft::message::Message;
use coterie::protocol::raft::{Options, Raft};
use coterie::types::ReplicaId;

use super::group::{ELECTION_TICKS, HEARTBEAT_TICKS, Replica};
use crate::machine::Machine;
use crate::setup::{empty_log, node_of};

/// One replica of ours, whose disk is done at once.
pub(super) struct Ours {
    machine: Machine,
    applied: Vec<Vec<u8>>,
}

/// The options that match the other implementation's.
pub(super) fn options() -> Options {
    Options {
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        append_bytes_max: 1 << 20,
        appends_in_flight_max: 16,
        uncommitted_bytes_max: 1 << 20,
        lease_reads: false,
    }
}

/// Where the logs of a new group begin.
pub(super) fn founded(voters: u64) -> LogStart {
    let placed = (1..=voters).map(|own| (ReplicaId(own), node_of(ReplicaId(own))));
    empty_log(Membership::founding(placed.collect()))
}

impl Ours {
    fn core(&self) -> &Raft {
        self.machine.core.as_ref().expect("it never goes down")
    }
}

impl Replica for Ours {
    type Message = Message;

    fn new(own: u64, voters: u64, seed: u64) -> Self {
        let mut machine = Machine::new(ReplicaId(own), founded(voters));
        machine.start(options(), seed * 16 + own);
        Ours { machine, applied: Vec::new() }
    }

    fn tick(&mut self) {
        self.machine.ticks += 1;
        self.machine.act(|_| ());
    }

    fn step(&mut self, message: Message) {
        self.machine.act(|core| core.step(message));
    }

    fn propose(&mut self, command: &[u8]) -> bool {
        let command = Bytes::copy_from_slice(command);
        self.machine.act(|core| core.propose(command).is_ok()) == Some(true)
    }

    fn drain(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(ready) = self.machine.take(0) {
            messages.extend(ready.messages);
            for entry in ready.committed {
                if let Payload::Command(command) = entry.payload {
                    self.applied.push(command.to_vec());
                }
            }
            self.machine.sync();
        }
        messages
    }

    fn ends(message: &Message) -> (u64, u64) {
        (message.from.0, message.to.0)
    }

    fn leads(&self) -> Option<u64> {
        self.core().is_leader().then(|| self.core().term().0)
    }

    fn applied(&self) -> &[Vec<u8>] {
        &self.applied
    }
}
