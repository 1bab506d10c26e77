//! One primary's place in a write quorum: how far the primary is, and what stands in for it.

use super::{Role, WriteEffect};
use crate::protocol::quorum::Primary;
use crate::types::NodeId;

/// How far the primary itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It cannot be reached and is not asked.
    Unasked,
    /// It is to be asked.
    Due,
    /// It was asked and owes a reply.
    Asked,
    /// It has the write.
    Acked,
    /// It refused, was lost, was never sent the write, or kept silent until the deadline.
    Ended,
}

/// What stands in for the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandIn {
    /// Nothing: the primary may yet answer for itself.
    None,
    /// Nothing, ever: it refused in a way that forbids a hint.
    Waived,
    /// This fallback is to be asked.
    Due(NodeId),
    /// This fallback was asked and owes a reply.
    Asked(NodeId),
    /// This fallback holds the hint.
    Holds(NodeId),
    /// This node is to keep a hint once the write may exist.
    HintDue,
    /// This node was told to keep a hint.
    Hinted,
}

/// One primary's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) primary: NodeId,
    pub(super) own: Progress,
    pub(super) stand_in: StandIn,
}

impl Place {
    pub(super) fn new(primary: &Primary) -> Self {
        let own = if primary.reachable { Progress::Due } else { Progress::Unasked };
        Place { primary: primary.node, own, stand_in: StandIn::None }
    }

    /// Notes an acknowledgement; false if none was owed.
    pub(super) fn acknowledge(&mut self, from: NodeId) -> bool {
        if from == self.primary && matches!(self.own, Progress::Asked | Progress::Ended) {
            self.own = Progress::Acked;
            if matches!(self.stand_in, StandIn::HintDue | StandIn::Due(_)) {
                self.stand_in = StandIn::None;
            }
            return true;
        }
        let held = self.stand_in == StandIn::Asked(from);
        if held {
            self.stand_in = StandIn::Holds(from);
        }
        held
    }

    /// Expects no reply any more of the node that was asked in this role.
    pub(super) fn end(&mut self, role: Role) {
        match role {
            Role::Primary => self.own = Progress::Ended,
            Role::Fallback => self.stand_in = StandIn::None,
        }
    }

    /// The node whose acknowledgement lets this place count.
    pub(super) fn counted(&self) -> Option<NodeId> {
        match (self.own, self.stand_in) {
            (Progress::Acked, _) => Some(self.primary),
            (_, StandIn::Holds(fallback)) => Some(fallback),
            _ => None,
        }
    }

    /// Whether this place does not count yet but may.
    pub(super) fn is_open(&self) -> bool {
        self.counted().is_none() && (self.is_send_due() || self.is_in_flight())
    }

    /// Whether some node owes a reply that may still matter.
    pub(super) fn is_in_flight(&self) -> bool {
        match self.own {
            Progress::Asked => true,
            Progress::Acked => false,
            _ => matches!(self.stand_in, StandIn::Asked(_)),
        }
    }

    pub(super) fn is_send_due(&self) -> bool {
        self.own == Progress::Due || matches!(self.stand_in, StandIn::Due(_))
    }

    pub(super) fn is_hint_due(&self) -> bool {
        self.stand_in == StandIn::HintDue
    }

    /// Whether a hint for the primary is kept, or comes out before the next answer does.
    pub(super) fn is_hinted(&self) -> bool {
        self.own != Progress::Acked
            && matches!(self.stand_in, StandIn::HintDue | StandIn::Hinted | StandIn::Holds(_))
    }

    pub(super) fn poll_send(&mut self) -> Option<WriteEffect> {
        if self.own == Progress::Due {
            self.own = Progress::Asked;
            return Some(WriteEffect::Send { to: self.primary, hint_for: None });
        }
        let StandIn::Due(fallback) = self.stand_in else { return None };
        self.stand_in = StandIn::Asked(fallback);
        Some(WriteEffect::Send { to: fallback, hint_for: Some(self.primary) })
    }

    pub(super) fn poll_hint(&mut self) -> Option<WriteEffect> {
        if !self.is_hint_due() {
            return None;
        }
        self.stand_in = StandIn::Hinted;
        Some(WriteEffect::Hint { target: self.primary })
    }

    /// Takes back what was to be sent and has not been.
    pub(super) fn cancel_due(&mut self) {
        if self.is_send_due() {
            self.own = Progress::Ended;
            self.stand_in = StandIn::HintDue;
        }
    }

    /// Expects nothing more of anybody; a primary that is neither here nor covered gets a hint.
    pub(super) fn give_up(&mut self) {
        if self.own == Progress::Acked {
            return;
        }
        self.own = Progress::Ended;
        if matches!(self.stand_in, StandIn::None | StandIn::Due(_) | StandIn::Asked(_)) {
            self.stand_in = StandIn::HintDue;
        }
    }
}
