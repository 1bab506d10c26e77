//! Bugs planted on purpose, to prove that the invariants can fail.
//!
//! Each is planted below the nodes, in the network or in the disk, so that it works whatever the
//! nodes do; and each names the invariants of which at least one must catch it.

use bytes::Bytes;
use coterie::protocol::group::command::Command;
use coterie::protocol::message::{Ask, Class, Forward, Found, Holding, Message, Write, WriteReply};
use coterie::protocol::planted::Planted as RingPlanted;
use coterie::protocol::raft::planted::Planted as RaftPlanted;

use crate::dice::Dice;
use crate::invariants;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Some writes of clients are acknowledged and never delivered.
    SwallowedWrites,
    /// Syncs do nothing: a power loss takes what was acknowledged, and a node that can tell stays
    /// down.
    ForgetfulDisk,
    /// Some values change on their way to a replica.
    AlteredValues,
    /// Some replicas' answers claim that they hold nothing.
    EmptyAnswers,
    /// Hints never arrive.
    BlockedHints,
    /// Writes of clients never arrive, and nobody hears so.
    LostWrites,
    /// Hints and repairs are acknowledged and never delivered.
    SwallowedRepairs,
    /// The same once clients have stopped: then every write is a repair.
    SwallowedRepairsOfAnyClass,
    /// Hints and repairs forget that their value is to end.
    ForgottenExpiries,
    /// Forwarded commands lose their session: nothing tells them from their repetition.
    StrippedSessions,
}

impl Planted {
    pub(crate) const ALL: [Planted; 7] = [
        Planted::SwallowedWrites,
        Planted::ForgetfulDisk,
        Planted::AlteredValues,
        Planted::EmptyAnswers,
        Planted::BlockedHints,
        Planted::SwallowedRepairs,
        Planted::ForgottenExpiries,
    ];

    /// Those that strong keyspaces show.
    pub(crate) const OF_STRONG: [Planted; 2] = [Planted::ForgetfulDisk, Planted::StrippedSessions];

    /// Invariants of which at least one must fail.
    pub(crate) fn caught_by(self) -> &'static [&'static str] {
        match self {
            Planted::SwallowedWrites => &[
                invariants::acknowledged_write_is_never_lost::NAME,
                invariants::quorum_read_sees_acknowledged_quorum_write::NAME,
            ],
            Planted::ForgetfulDisk => &[
                invariants::acknowledged_write_is_never_lost::NAME,
                invariants::cluster_serves_after_healing::NAME,
                invariants::strong_operations_are_linearizable::NAME,
            ],
            Planted::AlteredValues => &[invariants::answer_is_never_invented::NAME],
            Planted::EmptyAnswers => {
                &[invariants::quorum_read_sees_acknowledged_quorum_write::NAME]
            }
            Planted::BlockedHints => &[invariants::hints_drain_after_healing::NAME],
            Planted::LostWrites => &[invariants::cluster_serves_after_healing::NAME],
            Planted::ForgottenExpiries => &[invariants::values_end_in_time::NAME],
            Planted::StrippedSessions => &[
                invariants::session_at_most_once::NAME,
                invariants::sessions_execute_once::NAME,
                invariants::strong_operations_are_linearizable::NAME,
            ],
            Planted::SwallowedRepairs | Planted::SwallowedRepairsOfAnyClass => {
                &[invariants::replicas_that_were_read_converge::NAME]
            }
        }
    }

    /// What becomes of a message: what goes on to its receiver, and what its sender is told.
    pub(crate) fn meddle(
        self,
        class: Class,
        message: Message,
        dice: &mut Dice,
    ) -> (Option<Message>, Option<Message>) {
        match (self, message) {
            (Planted::SwallowedWrites, Message::Write(write))
                if class == Class::Client && dice.chance(500) =>
            {
                (None, Some(acknowledge(&write)))
            }
            (Planted::AlteredValues, Message::Write(write)) if dice.chance(100) => {
                (Some(Message::Write(altered(write))), None)
            }
            (Planted::EmptyAnswers, Message::ReadReply(mut reply)) if dice.chance(300) => {
                reply.outcome = Ok(Found { holding: None, complete: true });
                (Some(Message::ReadReply(reply)), None)
            }
            (Planted::BlockedHints, _) if class == Class::Hint => (None, None),
            (Planted::LostWrites, Message::Write(_)) if class == Class::Client => (None, None),
            (Planted::SwallowedRepairs, Message::Write(write)) if class != Class::Client => {
                (None, Some(acknowledge(&write)))
            }
            (Planted::ForgottenExpiries, Message::Write(mut write)) if class != Class::Client => {
                write.row.record.expires_at = None;
                (Some(Message::Write(write)), None)
            }
            (Planted::SwallowedRepairsOfAnyClass, Message::Write(write)) => {
                (None, Some(acknowledge(&write)))
            }
            (Planted::StrippedSessions, Message::Forward(forward)) => {
                (Some(Message::Forward(stripped(forward))), None)
            }
            (_, message) => (Some(message), None),
        }
    }

    /// What the bug turns into when clients have stopped.
    pub(crate) fn after_healing(self) -> Planted {
        match self {
            Planted::SwallowedRepairs => Planted::SwallowedRepairsOfAnyClass,
            other => other,
        }
    }
}

/// Safety of strong keyspaces, as clients and replicas show it, or the core's own assertions: a
/// panic keeps a cluster from serving.
const SAFETY: &[&str] = &[
    invariants::cluster_serves_after_healing::NAME,
    invariants::elections_are_safe::NAME,
    invariants::replicas_never_go_back::NAME,
    invariants::replicas_of_a_group_agree::NAME,
    invariants::sessions_execute_once::NAME,
    invariants::strong_operations_are_linearizable::NAME,
    invariants::session_at_most_once::NAME,
    invariants::replicas_answer_alike::NAME,
    "acknowledged_is_kept",
    "applied_is_committed",
    "at_most_one_change_is_uncommitted",
    "commits_only_its_own_term",
    "committed_is_on_a_quorum",
    "durable_before_acknowledged",
    "election_safety",
    "leader_append_only",
    "leader_completeness",
    "log_matching",
    "state_machine_safety",
    "terms_and_commits_are_monotone",
];

/// Bugs of the Raft core, and of what is built on it, that whole nodes show, each with the
/// invariants of which at least one must fail.
pub(crate) const IN_RAFT: [(RaftPlanted, &[&str]); 11] = [
    (RaftPlanted::CommitBeforeMajority, &["committed_is_on_a_quorum"]),
    (RaftPlanted::AckBeforeSync, &["durable_before_acknowledged"]),
    (RaftPlanted::VoteBeforeSync, &["durable_before_acknowledged"]),
    (RaftPlanted::TwoVotesPerTerm, SAFETY),
    (RaftPlanted::CommitBeyondMatched, SAFETY),
    (RaftPlanted::IgnoreHigherTerm, SAFETY),
    (RaftPlanted::ObeyEarlierTerm, SAFETY),
    (RaftPlanted::TruncateOnOverlap, SAFETY),
    (RaftPlanted::ForgetVoteOnRestart, &["terms_and_commits_are_monotone"]),
    (
        RaftPlanted::DedupeOnlyBeforePropose,
        &[
            invariants::session_at_most_once::NAME,
            invariants::sessions_execute_once::NAME,
            invariants::strong_operations_are_linearizable::NAME,
        ],
    ),
    (RaftPlanted::ReusedReplicaId, &[invariants::replicas_have_one_home::NAME]),
];

/// What clients see when rows are lost, or read where they are not.
const ROWS: &[&str] = &[
    invariants::acknowledged_write_is_never_lost::NAME,
    invariants::quorum_read_sees_acknowledged_quorum_write::NAME,
    invariants::quorum_reads_never_go_back::NAME,
];

/// Bugs of nodes while the ring changes, each with the invariants of which at least one must fail.
pub(crate) const IN_RING: [(RingPlanted, &[&str]); 6] = [
    (RingPlanted::OwnersAtOnce, ROWS),
    (RingPlanted::ReadsFlippedBeforeSync, ROWS),
    (RingPlanted::WritesToOldOwnersOnly, ROWS),
    (RingPlanted::QuorumsOfAMoveAdded, ROWS),
    (RingPlanted::WriteFenceIgnored, ROWS),
    (RingPlanted::DroppedWhileMoving, ROWS),
];

/// Bugs of listings, each with the invariants of which at least one must fail.
pub(crate) const IN_LISTINGS: [(RingPlanted, &[&str]); 1] =
    [(RingPlanted::ListedBeyondComplete, &[invariants::listings_are_whole::NAME])];

/// Bugs of watches, each with the invariants of which at least one must fail.
pub(crate) const IN_WATCHES: [(RaftPlanted, &[&str]); 1] =
    [(RaftPlanted::WatchGapOverlooked, &[invariants::watchers_see_what_is_applied::NAME])];

/// Bugs of contexts, each with the invariants of which at least one must fail.
pub(crate) const IN_CONTEXTS: [(RingPlanted, &[&str]); 1] =
    [(RingPlanted::ContextIgnored, &[invariants::reads_with_a_context_never_answer_older::NAME])];

/// Bugs of siblings, each with the invariants of which at least one must fail.
pub(crate) const IN_SIBLINGS: [(RingPlanted, &[&str]); 4] = [
    (RingPlanted::RowsReplacedUnjoined, SIBLINGS),
    (RingPlanted::MintIgnoresContext, SIBLINGS),
    (RingPlanted::ContextLostOnTheWay, SIBLINGS),
    (RingPlanted::ContextIgnored, SIBLINGS),
];

/// Bugs of counters and sets, each with the invariants of which at least one must fail.
pub(crate) const IN_MERGEABLE: [(RingPlanted, &[&str]); 3] = [
    (RingPlanted::TallyStays, &[invariants::additions_are_counted_once::NAME]),
    (RingPlanted::RowsReplacedUnjoined, &[invariants::additions_are_counted_once::NAME]),
    (RingPlanted::RowsReplacedUnjoined, &[invariants::sets_have_what_nobody_took_out::NAME]),
];

const SIBLINGS: &[&str] = &[invariants::siblings_are_the_causal_maximum::NAME];

fn acknowledge(write: &Write) -> Message {
    Message::WriteReply(WriteReply { request: write.request, outcome: Ok(None) })
}

fn stripped(mut forward: Forward) -> Forward {
    if let Ask::Propose(bytes) = &forward.ask
        && let Ok(command) = Command::decode(bytes)
    {
        forward.ask = Ask::Propose(Command { session: None, ..command }.encode());
    }
    forward
}

fn altered(mut write: Write) -> Write {
    write.row.record.value = Some(Bytes::from_static(b"nobody wrote this"));
    write
}

/// The part of an answer that a reader sees, for tests of the meddling itself.
#[cfg(test)]
fn holding(message: &Message) -> Option<&Holding> {
    match message {
        Message::ReadReply(reply) => reply.outcome.as_ref().ok()?.holding.as_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use coterie::protocol::message::{ReadReply, RequestId};
    use coterie::types::{Incarnation, Timestamp, Version};

    use super::*;

    #[test]
    fn an_emptied_answer_holds_nothing() {
        let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(1) };
        let found = Found { holding: Some(Holding::Version(version)), complete: true };
        let reply = Message::ReadReply(ReadReply { request: RequestId(1), outcome: Ok(found) });
        let mut dice = Dice::new(1);
        let emptied = (0..50).any(|_| {
            let (passed, _) = Planted::EmptyAnswers.meddle(Class::Client, reply.clone(), &mut dice);
            passed.is_some_and(|message| holding(&message).is_none())
        });
        assert!(emptied);
    }
}
