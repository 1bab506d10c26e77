//! When each group's clock must next be looked at: idle groups cost nothing in between.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::GroupId;

/// The next tick of each group. A group's deadline may move later without notice: it is looked at
/// once too often then, and asked anew.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(u64, GroupId)>,
    by_group: BTreeMap<GroupId, u64>,
}

impl Timers {
    /// Sees to it that the group is looked at by `deadline`.
    pub(crate) fn look_by(&mut self, group: GroupId, deadline: u64) {
        match self.by_group.get(&group).copied() {
            Some(known) if known <= deadline => {}
            known => {
                if let Some(later) = known {
                    self.due.remove(&(later, group));
                }
                self.due.insert((deadline, group));
                self.by_group.insert(group, deadline);
            }
        }
    }

    /// Takes the groups whose time has come.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<GroupId> {
        let mut groups = Vec::new();
        while let Some(&(deadline, group)) = self.due.first()
            && deadline <= now
        {
            self.due.pop_first();
            self.by_group.remove(&group);
            groups.push(group);
        }
        groups
    }

    /// Forgets a group.
    pub(crate) fn remove(&mut self, group: GroupId) {
        if let Some(deadline) = self.by_group.remove(&group) {
            self.due.remove(&(deadline, group));
        }
    }

    /// The first tick at which any group wants to be looked at.
    pub(crate) fn next(&self) -> Option<u64> {
        self.due.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_until_it_was_taken() {
        let mut timers = Timers::default();
        timers.look_by(GroupId(1), 10);
        timers.look_by(GroupId(1), 20);
        timers.look_by(GroupId(2), 15);
        timers.look_by(GroupId(2), 12);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.take_due(9), vec![]);
        assert_eq!(timers.take_due(12), vec![GroupId(1), GroupId(2)]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_group_that_was_removed_is_not_due() {
        let mut timers = Timers::default();
        timers.look_by(GroupId(1), 1);
        timers.remove(GroupId(1));
        assert_eq!(timers.take_due(5), vec![]);
    }
}
