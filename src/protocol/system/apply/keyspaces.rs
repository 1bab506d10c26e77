//! Keyspaces that are created, altered and dropped.

use crate::protocol::planted::{Planted, planted};
use crate::protocol::system::command::SystemReply;
use crate::protocol::system::keyspace::{
    DROPPED_KEYSPACES_MAX, KEYSPACES_MAX, Keyspace, Marker, Mode, ReplicationAsked, check_factor,
    check_name, check_replication,
};
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::refusal::{SystemRefusal, rule};
use crate::protocol::system::settings::Replication;
use crate::protocol::system::spread::Before;
use crate::protocol::system::state::SystemState;
use crate::types::{KeyspaceId, LogIndex, Merge};

/// So many alterations of a keyspace are remembered: those whose senders may still repeat them.
const ALTERATIONS_KEPT: usize = 16;

impl SystemState {
    /// A new keyspace. A request that has created one already is answered as it was then, even if
    /// that keyspace has been dropped since.
    pub(super) fn create_keyspace(
        &mut self,
        (index, request_id): (LogIndex, u64),
        name: &str,
        (mode, merge): (Mode, Merge),
        (asked, limits): (ReplicationAsked, LimitsAsked),
    ) -> Result<SystemReply, SystemRefusal> {
        if let Some(before) = self.find_keyspace(|keyspace| keyspace.created.is_by(request_id)) {
            return Ok(SystemReply::Created { keyspace: before });
        }
        self.check_room_for(name)?;
        let merges = mode == Mode::Quorum || !merge.joins();
        let right = "copies in a strong keyspace do not differ; leave it out, or use mode quorum";
        rule(merges, "merge", merge.name(), right)?;
        let replication = match mode {
            Mode::Quorum => asked.for_new(self.default_replication()),
            Mode::Strong => self.strong_replication(asked)?,
        };
        check_replication(replication)?;
        if mode == Mode::Strong {
            self.found_groups(index, replication.factor);
        }
        let created = Marker { index, request_id };
        let id = self.create_keyspace_entry(name.to_owned(), (mode, merge), replication, created);
        if let Some(keyspace) = self.keyspaces.get_mut(&id) {
            keyspace.limits = limits.over(keyspace.limits);
        }
        Ok(SystemReply::Created { keyspace: id })
    }

    fn check_room_for(&self, name: &str) -> Result<(), SystemRefusal> {
        check_name(name)?;
        if let Some(taken) = self.keyspace_named(name) {
            return Err(SystemRefusal::NameTaken { name: name.to_owned(), keyspace: taken.id });
        }
        let count = self.keyspaces().count();
        if count >= KEYSPACES_MAX {
            let keyspaces_max = KEYSPACES_MAX;
            return Err(SystemRefusal::TooManyKeyspaces { count, keyspaces_max });
        }
        Ok(())
    }

    /// N, R and W of a new strong keyspace; until the groups are founded, the factor is free.
    fn strong_replication(&self, asked: ReplicationAsked) -> Result<Replication, SystemRefusal> {
        let held = self.strong_factor;
        let usual = held.unwrap_or(self.default_replication().factor);
        let factor = asked.factor.unwrap_or(usual);
        check_factor(factor)?;
        if let Some(held) = held {
            check_same_factor(factor, held)?;
        }
        asked.check_strong(factor)?;
        Ok(Replication::majority_of(factor))
    }

    /// A keyspace's replication or its limits change. A request that has done so already changes
    /// nothing.
    pub(super) fn alter_keyspace(
        &mut self,
        request_id: u64,
        name: &str,
        (asked, limits): (ReplicationAsked, LimitsAsked),
    ) -> Result<SystemReply, SystemRefusal> {
        if let Some(before) = self.find_keyspace(|it| it.altered_by.contains(&request_id)) {
            return Ok(SystemReply::Altered { keyspace: before });
        }
        let id = self.id_of(name)?;
        let settled = self.placing.is_settled();
        if let Some(keyspace) = self.keyspaces.get_mut(&id) {
            let replication = asked.over(keyspace.replication);
            if keyspace.mode == Mode::Strong {
                check_same_factor(replication.factor, keyspace.replication.factor)?;
                asked.check_strong(replication.factor)?;
            }
            check_replication(replication)?;
            if replication.factor != keyspace.replication.factor && !settled {
                let asked = String::from("change n");
                return Err(SystemRefusal::PartitionsMove { asked });
            }
            let spreads = replication.factor != keyspace.replication.factor;
            if spreads && keyspace.mode == Mode::Quorum && !planted(Planted::OwnersAtOnce) {
                let layout = self.placing.outdate_layouts();
                keyspace.before = Some(Before { layout, replication: keyspace.replication });
            }
            keyspace.replication = replication;
            keyspace.limits = limits.over(keyspace.limits);
            keyspace.altered_by.push(request_id);
            let excess = keyspace.altered_by.len().saturating_sub(ALTERATIONS_KEPT);
            keyspace.altered_by.drain(..excess);
            if spreads {
                self.retarget();
                self.tidy_placing();
                self.void_shares();
            }
        }
        Ok(SystemReply::Altered { keyspace: id })
    }

    /// A keyspace goes. A request that has dropped one already is answered as it was then, even if
    /// the name is used again. The groups stay, even if they serve no keyspace any more.
    pub(super) fn drop_keyspace(
        &mut self,
        index: LogIndex,
        request_id: u64,
        name: &str,
    ) -> Result<SystemReply, SystemRefusal> {
        let is_before = |keyspace: &Keyspace| keyspace.dropped.is_some_and(|d| d.is_by(request_id));
        if let Some(before) = self.find_keyspace(is_before) {
            return Ok(SystemReply::Dropped { keyspace: before });
        }
        let id = self.id_of(name)?;
        if id == KeyspaceId::DEFAULT {
            return Err(SystemRefusal::DefaultKeyspace { name: name.to_owned() });
        }
        if let Some(keyspace) = self.keyspaces.get_mut(&id) {
            keyspace.dropped = Some(Marker { index, request_id });
        }
        self.forget_old_drops();
        Ok(SystemReply::Dropped { keyspace: id })
    }

    fn forget_old_drops(&mut self) {
        let drops = self
            .keyspaces
            .values()
            .filter_map(|keyspace| keyspace.dropped.map(|dropped| (dropped.index, keyspace.id)));
        let (count, oldest) = drops.fold((0, None), |(count, oldest), drop| {
            (
                count + 1,
                Some(oldest.map_or(drop, |oldest: (LogIndex, KeyspaceId)| oldest.min(drop))),
            )
        });
        if let Some((_, id)) = oldest.filter(|_| count > DROPPED_KEYSPACES_MAX) {
            self.keyspaces.remove(&id);
        }
    }

    fn id_of(&self, name: &str) -> Result<KeyspaceId, SystemRefusal> {
        let unknown = || SystemRefusal::UnknownKeyspace { name: name.to_owned() };
        self.keyspace_named(name).map(|keyspace| keyspace.id).ok_or_else(unknown)
    }

    fn find_keyspace(&self, is_it: impl Fn(&Keyspace) -> bool) -> Option<KeyspaceId> {
        self.keyspaces.values().find(|keyspace| is_it(keyspace)).map(|keyspace| keyspace.id)
    }
}

fn check_same_factor(sent: u32, held: u32) -> Result<(), SystemRefusal> {
    if sent == held { Ok(()) } else { Err(SystemRefusal::FactorHeld { sent, held }) }
}
