//! Members that come, change and go.

use crate::protocol::membership::Member;
use crate::protocol::ring::VNODES_MAX;
use crate::protocol::system::command::SystemReply;
use crate::protocol::system::refusal::{SystemRefusal, rule};
use crate::protocol::system::settings::LABEL_BYTES_MAX;
use crate::protocol::system::state::{Standing, SystemMember, SystemState};
use crate::types::{Epoch, LogIndex, NodeId};

impl SystemState {
    /// A node joins or describes itself anew. The very description that is known is no error, as
    /// the request may have been repeated.
    pub(super) fn describe(
        &mut self,
        index: LogIndex,
        node: NodeId,
        member: &Member,
        joins: bool,
    ) -> Result<SystemReply, SystemRefusal> {
        if self.removed.contains(&node) {
            return Err(SystemRefusal::NodeRemoved { node });
        }
        check_member(member)?;
        let known = self.members.get(&node).map(|known| known.member.clone());
        match known {
            None => self.enrol(node, member.clone(), joins),
            Some(known) if known == *member => {}
            Some(known) if known.revision >= member.revision => {
                let (sent, held) = (member.revision, known.revision);
                return Err(SystemRefusal::StaleDescription { node, sent, held });
            }
            Some(known) => self.replace(index, node, &known, member.clone()),
        }
        let system_replica = self.members[&node].system_replica;
        Ok(SystemReply::Described { system_replica, epoch: self.epoch })
    }

    fn enrol(&mut self, node: NodeId, member: Member, joins: bool) {
        let system_replica = self.replica_ids.fresh();
        let standing = if joins { Standing::Active } else { Standing::Waiting };
        let enrolled = SystemMember { member, system_replica, standing, seat: None };
        self.members.insert(node, enrolled);
        self.follow_members();
    }

    fn replace(&mut self, index: LogIndex, node: NodeId, known: &Member, member: Member) {
        if known.incarnation != member.incarnation {
            self.renew_replicas(index, node);
            let rings = self.rings();
            self.placing.lost_rows(node, &rings);
            self.void_shares();
        }
        let kept = self.members.get_mut(&node);
        kept.expect("invariant: only a member's description is replaced").member = member;
        self.follow_members();
    }

    /// A new incarnation has lost its votes: everything that it was a replica of sees another one.
    fn renew_replicas(&mut self, index: LogIndex, node: NodeId) {
        if let Some(known) = self.members.get_mut(&node) {
            known.system_replica = self.replica_ids.fresh();
        }
        for placement in self.groups.values_mut() {
            placement.renew(node, index, &mut self.replica_ids);
        }
    }

    /// A member goes for good. To remove it again is no error, as the request may have been
    /// repeated.
    pub(super) fn remove(
        &mut self,
        index: LogIndex,
        node: NodeId,
        expected_epoch: Option<Epoch>,
    ) -> Result<SystemReply, SystemRefusal> {
        if !self.removed.contains(&node) {
            self.check_removal(node, expected_epoch)?;
            self.dismiss(index, node);
        }
        Ok(SystemReply::Removed { epoch: self.epoch })
    }

    /// A node is no member any more, for good.
    pub(super) fn dismiss(&mut self, index: LogIndex, node: NodeId) {
        self.members.remove(&node);
        self.removed.insert(node);
        self.placing.give_up_copies_to(node);
        self.retarget();
        self.reshaped(true);
        self.vacate(index, node);
    }

    fn check_removal(
        &self,
        node: NodeId,
        expected_epoch: Option<Epoch>,
    ) -> Result<(), SystemRefusal> {
        let held = self.epoch;
        if !self.members.contains_key(&node) {
            return Err(SystemRefusal::UnknownMember { node });
        }
        if let Some(sent) = expected_epoch.filter(|sent| *sent != held) {
            return Err(SystemRefusal::StaleEpoch { sent, held });
        }
        if self.members.len() == 1 {
            return Err(SystemRefusal::LastMember { node });
        }
        if self.wanted_layout().iter().all(|member| member.node == node) {
            return Err(SystemRefusal::RingEmpty);
        }
        match self.sole_replica_of(node) {
            Some(group) => Err(SystemRefusal::SoleReplica { node, group }),
            None => Ok(()),
        }
    }

    pub(super) fn begin_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
    }
}

/// Checks what a node says of itself, as far as the ring and the operators depend on it.
pub(in crate::protocol::system) fn check_member(member: &Member) -> Result<(), SystemRefusal> {
    check_label("name", &member.name)?;
    rule(!member.name.is_empty(), "name", "", "a member needs a name")?;
    check_label("zone", &member.zone)?;
    let vnodes = (1..=VNODES_MAX).contains(&member.vnodes);
    rule(vnodes, "vnodes", member.vnodes, format!("it must be from 1 to {VNODES_MAX}"))
}

fn check_label(field: &str, text: &str) -> Result<(), SystemRefusal> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
    let allowed = text.len() <= LABEL_BYTES_MAX && text.chars().all(plain);
    let right = format!("it must have at most {LABEL_BYTES_MAX} bytes without spaces or commas");
    rule(allowed, field, format!("{text:?}"), right)
}
