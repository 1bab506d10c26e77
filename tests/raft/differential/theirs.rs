//! The `raft` crate's core as a replica of a schedule, on its own storage in memory.

use raft::eraftpb::{Entry, EntryType, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use super::group::{ELECTION_TICKS, HEARTBEAT_TICKS, Replica};

/// One replica of theirs, whose disk is done at once.
pub(super) struct Theirs {
    pub(super) node: RawNode<MemStorage>,
    applied: Vec<Vec<u8>>,
}

/// What matches our options: ours always has pre-vote and check-quorum.
fn config(own: u64) -> Config {
    let ticks = |ticks: u64| usize::try_from(ticks).expect("a small number");
    Config {
        id: own,
        election_tick: ticks(ELECTION_TICKS),
        heartbeat_tick: ticks(HEARTBEAT_TICKS),
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 16,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    }
}

impl Theirs {
    pub(super) fn on(own: u64, storage: MemStorage) -> Theirs {
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config(own), storage, &silent).expect("the options are valid");
        Theirs { node, applied: Vec::new() }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let commands = entries.into_iter().filter(|entry| {
            entry.get_entry_type() == EntryType::EntryNormal && !entry.get_data().is_empty()
        });
        self.applied.extend(commands.map(|entry| entry.get_data().to_vec()));
    }
}

impl Replica for Theirs {
    type Message = Message;

    fn new(own: u64, voters: u64, _seed: u64) -> Self {
        let voters: Vec<u64> = (1..=voters).collect();
        Theirs::on(own, MemStorage::new_with_conf_state((voters, Vec::new())))
    }

    fn tick(&mut self) {
        self.node.tick();
    }

    fn step(&mut self, message: Message) {
        // Its refusals are about messages that it would rather not have had: they change nothing.
        let _refused = self.node.step(message);
    }

    fn propose(&mut self, command: &[u8]) -> bool {
        self.node.propose(Vec::new(), command.to_vec()).is_ok()
    }

    fn drain(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            messages.extend(ready.take_messages());
            self.apply(ready.take_committed_entries());
            let storage = self.node.raft.raft_log.store.clone();
            storage.wl().append(ready.entries()).expect("entries follow each other");
            if let Some(hard_state) = ready.hs() {
                storage.wl().set_hardstate(hard_state.clone());
            }
            messages.extend(ready.take_persisted_messages());
            let mut light = self.node.advance(ready);
            messages.extend(light.take_messages());
            self.apply(light.take_committed_entries());
            self.node.advance_apply();
        }
        messages
    }

    fn ends(message: &Message) -> (u64, u64) {
        (message.from, message.to)
    }

    fn leads(&self) -> Option<u64> {
        (self.node.raft.state == StateRole::Leader).then_some(self.node.raft.term)
    }

    fn applied(&self) -> &[Vec<u8>] {
        &self.applied
    }
}
