//! The network between bare cores: everything that it carries may be lost, repeated, delayed and
//! reordered, and single directions may be cut.

use std::collections::{BTreeMap, BTreeSet};

use coterie::protocol::raft::entry::LogStart;
use coterie::protocol::raft::message::Message;
use coterie::types::{LogIndex, ReplicaId};

use crate::dice::Dice;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Message(Message),
    /// Rows of a snapshot, sent by that life of the sender.
    Snapshot {
        start: LogStart,
        life: u64,
    },
    /// What became of a snapshot, told to the life that sent it.
    Report {
        through: Option<LogIndex>,
        life: u64,
    },
}

/// One parcel on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) parcel: Parcel,
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) lost_per_mille: u64,
    pub(crate) repeated_per_mille: u64,
    pub(crate) delay_max: u64,
    /// Some messages take ten or forty times as long, and so do all snapshots.
    pub(crate) late_per_mille: u64,
}

impl Weather {
    pub(crate) const CALM: Weather =
        Weather { lost_per_mille: 0, repeated_per_mille: 0, delay_max: 2, late_per_mille: 0 };
}

/// What is on its way, by when it arrives.
pub(crate) struct Network {
    dice: Dice,
    pub(crate) weather: Weather,
    under_way: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
}

impl Network {
    pub(crate) fn new(dice: Dice, weather: Weather) -> Network {
        let (under_way, cut) = Default::default();
        Network { dice, weather, under_way, sent: 0, cut }
    }

    /// Takes a parcel at `now`; false when it is lost for sure.
    pub(crate) fn send(&mut self, now: u64, packet: Packet) -> bool {
        let lost = self.dice.chance(self.weather.lost_per_mille);
        if lost || self.cut.contains(&(packet.from, packet.to)) {
            return false;
        }
        if self.dice.chance(self.weather.repeated_per_mille) {
            self.put(now, packet.clone());
        }
        self.put(now, packet);
        true
    }

    fn put(&mut self, now: u64, packet: Packet) {
        let late = self.dice.chance(self.weather.late_per_mille);
        let heavy = matches!(packet.parcel, Parcel::Snapshot { .. });
        let slow = if late || heavy { self.dice.pick(&[10, 40]) } else { 1 };
        let due = now + slow * self.dice.between(1, self.weather.delay_max);
        self.sent += 1;
        self.under_way.insert((due, self.sent), packet);
    }

    /// The next parcel that has arrived by `now`; a cut made meanwhile swallows it.
    pub(crate) fn arrived(&mut self, now: u64) -> Option<Packet> {
        loop {
            let entry = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
            let packet = entry.remove();
            if !self.cut.contains(&(packet.from, packet.to)) {
                return Some(packet);
            }
        }
    }

    /// Puts a parcel back: its receiver cannot take it yet.
    pub(crate) fn defer(&mut self, until: u64, packet: Packet) {
        self.sent += 1;
        self.under_way.insert((until, self.sent), packet);
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cut.insert((from, to));
    }

    /// Cuts both directions between one side and all others.
    pub(crate) fn split(&mut self, side: &BTreeSet<ReplicaId>, all: &BTreeSet<ReplicaId>) {
        for here in side {
            for there in all.difference(side) {
                self.cut.insert((*here, *there));
                self.cut.insert((*there, *here));
            }
        }
    }

    /// Mends every cut.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
    }
}
