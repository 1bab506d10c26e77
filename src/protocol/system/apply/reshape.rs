//! Places on the ring that are taken and given up, and the steps by which partitions follow.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::system::command::SystemReply;
use crate::protocol::system::placing::{Placing, Rings};
use crate::protocol::system::refusal::SystemRefusal;
use crate::protocol::system::state::{Standing, SystemState};
use crate::types::{Epoch, Incarnation, LogIndex, NodeId, PartitionId};

impl SystemState {
    /// Members take or give up places. What holds already is no error, as the request may have been
    /// repeated.
    pub(super) fn reshape(
        &mut self,
        join: &BTreeSet<NodeId>,
        leave: &BTreeSet<NodeId>,
        replace: &BTreeMap<NodeId, NodeId>,
        expected_epoch: Option<Epoch>,
    ) -> Result<SystemReply, SystemRefusal> {
        let mut members = self.members.clone();
        std::mem::swap(&mut self.members, &mut members);
        let changed = self.restand(join, leave, replace);
        let wanted = self.wanted_layout();
        let checked = match (changed, members == self.members) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), true) => Ok(()),
            (Ok(()), false) if wanted.is_empty() => Err(SystemRefusal::RingEmpty),
            (Ok(()), false) => self.check_epoch(expected_epoch),
        };
        if let Err(refusal) = checked {
            self.members = members;
            return Err(refusal);
        }
        let retargeted = self.retarget();
        Ok(self.reshaped(retargeted))
    }

    fn restand(
        &mut self,
        join: &BTreeSet<NodeId>,
        leave: &BTreeSet<NodeId>,
        replace: &BTreeMap<NodeId, NodeId>,
    ) -> Result<(), SystemRefusal> {
        for node in join {
            self.check_seat(*node, "join again")?;
            self.stand(*node, Standing::Active, &[Standing::Waiting, Standing::Leaving], "join")?;
        }
        for node in leave {
            self.stand(*node, Standing::Leaving, &[Standing::Active], "leave")?;
        }
        for (old, new) in replace {
            self.replace_seat(*old, *new)?;
        }
        Ok(())
    }

    /// One that was replaced cannot come back to the place that another has now.
    fn check_seat(&self, node: NodeId, asked: &str) -> Result<(), SystemRefusal> {
        let own = self.members.get(&node).and_then(|known| known.seat).unwrap_or(node);
        let mut others = self.members.iter().filter(|(other, _)| **other != node);
        if others.any(|(_, known)| known.seat == Some(own)) {
            let (standing, asked) = ("replaced".to_owned(), asked.to_owned());
            return Err(SystemRefusal::WrongStanding { node, standing, asked });
        }
        Ok(())
    }

    fn stand(
        &mut self,
        node: NodeId,
        wanted: Standing,
        from: &[Standing],
        asked: &str,
    ) -> Result<(), SystemRefusal> {
        let known = self.members.get_mut(&node).ok_or(SystemRefusal::UnknownMember { node })?;
        if known.standing != wanted && !from.contains(&known.standing) {
            let standing = known.standing.name().to_owned();
            return Err(SystemRefusal::WrongStanding { node, standing, asked: asked.to_owned() });
        }
        known.standing = wanted;
        Ok(())
    }

    /// The new node takes exactly the place of the old one. It must not have one of its own, or
    /// what it holds would have to move, too.
    fn replace_seat(&mut self, old: NodeId, new: NodeId) -> Result<(), SystemRefusal> {
        let leaving = self.members.get(&old).ok_or(SystemRefusal::UnknownMember { node: old })?;
        let seat = leaving.seat.unwrap_or(old);
        let done = self.members.get(&new).is_some_and(|known| known.seat == Some(seat));
        if done && leaving.standing == Standing::Leaving {
            return Ok(());
        }
        self.check_seat(old, "be replaced again")?;
        self.stand(old, Standing::Leaving, &[Standing::Active], "be replaced")?;
        let known = self.members.get_mut(&new).ok_or(SystemRefusal::UnknownMember { node: new })?;
        if known.standing != Standing::Waiting {
            let (node, standing) = (new, known.standing.name().to_owned());
            let asked = "replace another (start it with --join manual)".to_owned();
            return Err(SystemRefusal::WrongStanding { node, standing, asked });
        }
        known.standing = Standing::Active;
        known.seat = Some(seat);
        Ok(())
    }

    /// Partitions take the next step.
    pub(super) fn advance(
        &mut self,
        prepare: &BTreeSet<PartitionId>,
        settle: &BTreeSet<PartitionId>,
        expected_epoch: Epoch,
    ) -> Result<SystemReply, SystemRefusal> {
        self.check_epoch(Some(expected_epoch))?;
        let next = Epoch(self.epoch.0 + 1);
        let rings = self.rings();
        let settled = self.placing.settle(settle);
        let began = self.placing.prepare(prepare, &rings, next);
        if settled || began {
            self.reaping.void(&prepare.union(settle).copied().collect(), next);
        }
        Ok(self.reshaped(settled || began))
    }

    /// A node has all rows of partitions that move to it, unless it has lost them since.
    pub(super) fn synced(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        partitions: &BTreeMap<PartitionId, Epoch>,
    ) -> Result<SystemReply, SystemRefusal> {
        let known = self.members.get(&node).ok_or(SystemRefusal::UnknownMember { node })?;
        let lives = known.member.incarnation == incarnation;
        let next = Epoch(self.epoch.0 + 1);
        let changed = lives && self.placing.synced(node, partitions, next);
        Ok(self.reshaped(changed))
    }

    /// A member goes that is not needed any more. To retire again is no error.
    pub(super) fn retire(
        &mut self,
        index: LogIndex,
        node: NodeId,
    ) -> Result<SystemReply, SystemRefusal> {
        if !self.removed.contains(&node) {
            let known = self.members.get(&node).ok_or(SystemRefusal::UnknownMember { node })?;
            if known.standing != Standing::Leaving {
                let standing = known.standing.name().to_owned();
                let asked = "retire; have it leave first".to_owned();
                return Err(SystemRefusal::WrongStanding { node, standing, asked });
            }
            if let Some(holds) = self.needs(node) {
                return Err(SystemRefusal::StillNeeded { node, holds });
            }
            self.dismiss(index, node);
        }
        Ok(SystemReply::Removed { epoch: self.epoch })
    }

    /// What a node still has that others need, as far as the state knows.
    pub fn needs(&self, node: NodeId) -> Option<String> {
        if self.placing.names(node) {
            return Some("partitions lie on it, or move from or to it".to_owned());
        }
        let placed = self.groups.values().filter(|placement| placement.replica_on(node).is_some());
        let placed = placed.count();
        if placed > 0 {
            return Some(format!("{placed} groups have a replica on it"));
        }
        // A group that is on its way may consist of replicas that it was told to give up.
        match self.groups.values().filter(|placement| !placement.is_followed()).count() {
            0 => None,
            groups => Some(format!("{groups} groups are on their way, maybe from it")),
        }
    }

    /// Has the partitions follow what the members say of themselves and what is said of them.
    pub(super) fn follow_members(&mut self) {
        let retargeted = self.retarget();
        self.reshaped(retargeted);
    }

    /// Takes what the ring is to be made of for the target, if it is another; true then.
    pub(super) fn retarget(&mut self) -> bool {
        let wanted = self.wanted_layout();
        if wanted == *self.placing.target_layout() && !self.placing.is_target_outdated() {
            return false;
        }
        let (factors, partitions) = (self.factors(), self.partitions());
        let rings = |placing: &Placing| Rings::new(placing, partitions, &factors);
        self.placing.retarget(wanted, rings, partitions);
        true
    }

    pub(super) fn reshaped(&mut self, changed: bool) -> SystemReply {
        if changed {
            self.tidy_placing();
            self.begin_epoch();
        }
        SystemReply::Reshaped { epoch: self.epoch }
    }

    /// Forgets what no partition lies by any more.
    pub(super) fn tidy_placing(&mut self) {
        self.placing.tidy(self.partitions());
        if self.placing.is_settled() {
            self.keyspaces.values_mut().for_each(|keyspace| keyspace.before = None);
        }
    }

    fn check_epoch(&self, expected: Option<Epoch>) -> Result<(), SystemRefusal> {
        match expected.filter(|sent| *sent != self.epoch) {
            Some(sent) => Err(SystemRefusal::StaleEpoch { sent, held: self.epoch }),
            None => Ok(()),
        }
    }
}
