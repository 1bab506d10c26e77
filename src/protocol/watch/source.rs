//! Which replica a watch asks for a partition, and when what it asks for is lost.
//!
//! Any replica serves: only committed entries are applied. One that does not have what came behind
//! the position any more says so, and another may have it. It is lost once all have said so; or
//! once one has, and for a while none of the others could be asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{LogIndex, NodeId};

/// How often a watch rests, with nobody to ask but those who do not have what it asks for, before
/// it is told that it is lost.
const RESTS_MAX: u32 = 50;

/// Where one partition of a watch is asked for.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Who answered last.
    current: Option<NodeId>,
    /// Who failed since.
    failed: BTreeSet<NodeId>,
    /// Who does not have what came behind the position, and from where on each could go on.
    gone: BTreeMap<NodeId, LogIndex>,
    rests: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Ask this node.
    Ask(NodeId),
    /// Wait a little: nobody can be asked, or all have failed.
    Rest,
    /// Nobody has what came behind the position.
    Lost {
        /// The first position that one of them can go on from.
        oldest: LogIndex,
    },
}

impl Source {
    /// Whom to ask, of those that have a replica, the preferred first.
    pub fn turn(&mut self, replicas: &[NodeId], is_reachable: impl Fn(NodeId) -> bool) -> Turn {
        let may_have_it = |node: &&NodeId| !self.gone.contains_key(node);
        let usable = || {
            let reached = replicas.iter().filter(may_have_it).filter(|node| is_reachable(**node));
            reached.copied()
        };
        let current = self.current.filter(|current| usable().any(|node| node == *current));
        let next = current.or_else(|| usable().find(|node| !self.failed.contains(node)));
        if let Some(node) = next {
            self.current = Some(node);
            return Turn::Ask(node);
        }
        let none_is_left = replicas.iter().find(may_have_it).is_none();
        if usable().next().is_some() {
            self.failed.clear();
            return Turn::Rest;
        }
        match self.gone.values().min() {
            Some(&oldest) if none_is_left || self.rests >= RESTS_MAX => Turn::Lost { oldest },
            _ => {
                self.failed.clear();
                self.rests += 1;
                Turn::Rest
            }
        }
    }

    /// Who was asked has told what came.
    pub fn on_page(&mut self) {
        self.failed.clear();
        self.gone.clear();
        self.rests = 0;
    }

    /// A node does not have all that came behind the position.
    pub fn on_gone(&mut self, node: NodeId, oldest: LogIndex) {
        self.gone.insert(node, oldest);
        self.current = None;
    }

    /// A node refused, or was lost.
    pub fn on_failure(&mut self, node: NodeId) {
        self.failed.insert(node);
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const ALL: [NodeId; 3] = [A, B, C];

    #[test]
    fn who_answers_is_asked_again_and_who_fails_is_not_until_all_have() {
        let mut source = Source::default();
        assert_eq!(source.turn(&ALL, |_| true), Turn::Ask(A));
        source.on_failure(A);
        assert_eq!(source.turn(&ALL, |_| true), Turn::Ask(B));
        source.on_page();
        assert_eq!(source.turn(&ALL, |_| true), Turn::Ask(B), "it stays with who answers");
        assert_eq!(source.turn(&ALL, |node| node != B), Turn::Ask(A));
        source.on_failure(A);
        source.on_failure(C);
        assert_eq!(source.turn(&ALL, |node| node != B), Turn::Rest);
        assert_eq!(source.turn(&ALL, |node| node != B), Turn::Ask(A), "it begins anew");
    }

    #[test]
    fn what_one_does_not_have_another_may() {
        let mut source = Source::default();
        source.on_gone(A, LogIndex(9));
        assert_eq!(source.turn(&ALL, |_| true), Turn::Ask(B));
        source.on_page();
        source.on_failure(B);
        assert_eq!(source.turn(&ALL, |_| true), Turn::Ask(A), "by now it may have what comes");
    }

    #[test]
    fn it_is_lost_when_nobody_has_it() {
        let mut source = Source::default();
        for (node, oldest) in [(A, 9), (B, 7), (C, 8)] {
            source.on_gone(node, LogIndex(oldest));
        }
        assert_eq!(source.turn(&ALL, |_| true), Turn::Lost { oldest: LogIndex(7) });
        // A replica that came to the partition since may have heard of it elsewhere.
        assert_eq!(source.turn(&[A, B, C, NodeId(4)], |_| true), Turn::Ask(NodeId(4)));
    }

    #[test]
    fn it_is_lost_when_those_who_may_have_it_cannot_be_asked_for_long() {
        let mut source = Source::default();
        source.on_gone(A, LogIndex(9));
        let only_a = |node| node == A;
        for _ in 0..RESTS_MAX {
            assert_eq!(source.turn(&ALL, only_a), Turn::Rest);
        }
        assert_eq!(source.turn(&ALL, only_a), Turn::Lost { oldest: LogIndex(9) });
        let mut source = Source::default();
        for _ in 0..=2 * RESTS_MAX {
            assert_eq!(source.turn(&ALL, |_| false), Turn::Rest, "nobody says that it is lost");
        }
        assert_eq!(source.turn(&[], |_| true), Turn::Rest);
    }
}
