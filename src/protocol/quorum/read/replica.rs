//! One replica as a read sees it: its question, its answer, its repair.

use std::time::Duration;

use crate::protocol::message::{Found, Holding, Want};
use crate::protocol::quorum::Primary;
use crate::types::{Moment, NodeId, Version};

/// The question that a replica is to be asked or owes an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    None,
    Due { want: Want, since: Moment },
    Open { want: Want, since: Moment, slow: bool },
}

/// What a replica has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// It answered, but refills after a loss.
    Incomplete,
    Counted,
}

/// How far the repair of a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    None,
    Due,
    Sent(Version),
    /// The replica has what it was sent.
    Done,
    /// The replica refused, or the repair was lost or never sent.
    Failed,
}

/// What a replica is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its answer counts.
    Answers,
    /// It must hold what is answered, for reads that will ask it.
    Alongside,
}

impl Part {
    pub(super) const BOTH: [Part; 2] = [Part::Answers, Part::Alongside];
}

/// One replica.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) node: NodeId,
    /// Whether it has each [`Part`].
    parts: [bool; 2],
    reachable: bool,
    /// Whether it was ever sent a question.
    asked: bool,
    pub(super) question: Question,
    pub(super) heard: Heard,
    /// The newest version that it is known to hold.
    pub(super) holds: Option<Version>,
    /// Whether its copy failed the checksum.
    corrupt: bool,
    /// Whether it failed to answer a question once; it is not asked again.
    closed: bool,
    pub(super) repair: Repair,
}

impl Replica {
    pub(super) fn new(primary: &Primary, parts: [bool; 2]) -> Self {
        Replica {
            node: primary.node,
            parts,
            reachable: primary.reachable,
            asked: false,
            question: Question::None,
            heard: Heard::Nothing,
            holds: None,
            corrupt: false,
            closed: false,
            repair: Repair::None,
        }
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.parts[part as usize]
    }

    pub(super) fn is_counted(&self) -> bool {
        self.heard == Heard::Counted
    }

    pub(super) fn is_unasked(&self) -> bool {
        self.reachable && !self.asked && self.question == Question::None
    }

    /// Whether it is known what it holds.
    pub(super) fn is_known(&self) -> bool {
        self.heard != Heard::Nothing || self.corrupt
    }

    pub(super) fn is_question_due(&self) -> bool {
        matches!(self.question, Question::Due { .. })
    }

    /// Whether a reply to a question is owed, or will be once the question is sent.
    pub(super) fn owes_answer(&self) -> bool {
        self.question != Question::None
    }

    /// Whether it owes an answer and is not slow with it.
    pub(super) fn is_prompt_question(&self) -> bool {
        self.prompt_want().is_some()
    }

    pub(super) fn is_prompt(&self, want: Want) -> bool {
        self.prompt_want() == Some(want)
    }

    fn prompt_want(&self) -> Option<Want> {
        match self.question {
            Question::Due { want, .. } | Question::Open { want, slow: false, .. } => Some(want),
            _ => None,
        }
    }

    /// When it was asked the question that it owes an answer to.
    pub(super) fn asked_at(&self) -> Option<Moment> {
        match self.question {
            Question::Open { since, .. } => Some(since),
            _ => None,
        }
    }

    /// When it was asked the question that it is not yet slow to answer.
    pub(super) fn prompt_since(&self) -> Option<Moment> {
        match self.question {
            Question::Open { since, slow: false, .. } => Some(since),
            _ => None,
        }
    }

    pub(super) fn mark_slow(&mut self, now: Moment, after: Duration) {
        if let Question::Open { since, slow, .. } = &mut self.question {
            *slow |= now >= *since + after;
        }
    }

    /// Whether it has answered and may be asked for its value.
    pub(super) fn can_be_asked_again(&self) -> bool {
        self.heard != Heard::Nothing && !self.closed && self.question == Question::None
    }

    pub(super) fn poll_question(&mut self) -> Option<(NodeId, Want)> {
        let Question::Due { want, since } = self.question else { return None };
        self.asked = true;
        self.question = Question::Open { want, since, slow: false };
        Some((self.node, want))
    }

    /// Whether an answer from it can be believed: even one that comes after its stream was lost.
    pub(super) fn takes_answers(&self) -> bool {
        self.asked && !self.corrupt
    }

    pub(super) fn note(&mut self, found: &Found) {
        let version = found.holding.as_ref().map(Holding::version);
        if !self.is_repetition(found, version) {
            // What it held and no longer reports, it cannot be asked for.
            self.closed |= version < self.holds;
            self.question = Question::None;
        }
        self.holds = self.holds.max(version);
        if found.complete {
            self.heard = Heard::Counted;
        } else if self.heard == Heard::Nothing {
            self.heard = Heard::Incomplete;
        }
    }

    /// Whether this is its earlier answer again, while its value is being asked for.
    fn is_repetition(&self, found: &Found, version: Option<Version>) -> bool {
        self.heard != Heard::Nothing
            && version == self.holds
            && matches!(self.question, Question::Open { want: Want::Value, .. })
            && !matches!(found.holding, Some(Holding::Record(_)))
    }

    pub(super) fn close_question(&mut self) {
        if self.owes_answer() {
            self.question = Question::None;
            self.asked = true;
            self.closed = true;
        }
    }

    /// Its copy is damaged: whatever it answered before no longer counts, and it needs a repair.
    pub(super) fn mark_corrupt(&mut self) {
        self.corrupt = true;
        self.heard = Heard::Nothing;
        self.holds = None;
    }

    pub(super) fn is_repair_due(&self) -> bool {
        self.repair == Repair::Due
    }

    /// Plans a repair of a replica that is known to be stale. An awaited repair follows another
    /// only once that was acknowledged; behind the answer each newer record is sent once.
    pub(super) fn plan_repair(&mut self, newest: Option<Version>, decided: bool) {
        let may_send = match self.repair {
            Repair::None | Repair::Due | Repair::Done => true,
            Repair::Sent(version) => decided && Some(version) < newest,
            Repair::Failed => false,
        };
        if may_send {
            self.repair = Repair::Due;
        }
    }

    pub(super) fn poll_repair(&mut self, version: Version) -> Option<NodeId> {
        if !self.is_repair_due() {
            return None;
        }
        self.repair = Repair::Sent(version);
        Some(self.node)
    }

    pub(super) fn note_repaired(&mut self) {
        if let Repair::Sent(version) = self.repair {
            self.holds = self.holds.max(Some(version));
            self.repair = Repair::Done;
        }
    }

    /// Expects no acknowledgement of a repair any more; false if none was expected.
    pub(super) fn give_up_repair(&mut self) -> bool {
        let sent = matches!(self.repair, Repair::Sent(_));
        if sent {
            self.repair = Repair::Failed;
        }
        sent
    }

    /// Takes back what was to be sent and has not been.
    pub(super) fn cancel_unsent(&mut self) {
        if self.is_question_due() {
            self.question = Question::None;
        }
        if self.is_repair_due() {
            self.repair = Repair::None;
        }
    }
}
