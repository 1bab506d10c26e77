//! Each invariant can fail, and holds for the story that leads there.

use bytes::Bytes;
use coterie::protocol::raft::Options;
use coterie::protocol::raft::entry::{LogStart, Payload, Restored};
use coterie::protocol::raft::membership::Membership;
use coterie::protocol::raft::message::{AppendOutcome, AppendReply, Body};
use coterie::types::NodeId;

use super::*;

const OPTIONS: Options = Options {
    election_ticks: 20,
    heartbeat_ticks: 5,
    append_bytes_max: 1000,
    appends_in_flight_max: 4,
    uncommitted_bytes_max: 10_000,
    lease_reads: false,
};

/// What disks hold: the same on all.
#[derive(Default)]
struct Disks {
    term: Term,
    vote: Option<ReplicaId>,
    last: u64,
}

impl Replicas for Disks {
    fn hard_state(&self, _: ReplicaId) -> HardState {
        HardState { term: self.term, voted_for: self.vote, commit: LogIndex(0) }
    }

    fn vote(&self, _: ReplicaId, term: Term) -> Option<ReplicaId> {
        self.vote.filter(|_| term == self.term)
    }

    fn last(&self, _: ReplicaId) -> LogPosition {
        LogPosition { index: LogIndex(self.last), term: Term(1) }
    }

    fn term_at(&self, _: ReplicaId, index: LogIndex) -> Option<Term> {
        (index.0 <= self.last).then_some(Term(1))
    }

    fn holds(&self, _: ReplicaId, at: LogPosition) -> bool {
        at.index.0 <= self.last
    }

    fn led_term_at(&self, _: ReplicaId, _: Term, _: LogIndex) -> Option<Term> {
        None
    }
}

fn entry(index: u64, term: u64, says: &'static str) -> Entry {
    let payload = Payload::Command(Bytes::from(says));
    Entry { term: Term(term), index: LogIndex(index), payload }
}

fn alone() -> Membership {
    Membership::founding([(ReplicaId(1), NodeId(1))].into_iter().collect())
}

/// A follower in this term that has committed so much.
fn follower(term: u64, commit: u64, entries: Vec<Entry>) -> Raft {
    let (position, membership) = (LogPosition::default(), alone());
    let start = LogStart { position, membership, membership_index: LogIndex(0) };
    let (term, voted_for, commit) = (Term(term), None, LogIndex(commit));
    let hard_state = HardState { term, voted_for, commit };
    let applied = LogIndex(0);
    Raft::new(ReplicaId(1), OPTIONS, Restored { hard_state, start, entries, applied }, 1, 0)
}

/// The leader of this term, before its own first entry is durable.
fn leader(term: u64, commit: u64, entries: Vec<Entry>) -> Raft {
    let mut core = follower(term - 1, commit, entries);
    core.tick(1000);
    while !core.is_leader() {
        core.ready();
        core.advance();
    }
    assert_eq!(core.term(), Term(term));
    core
}

/// A story: what some invariant says of each step.
#[derive(Default)]
struct Story {
    disks: Disks,
    ledger: Ledger,
    replica: u64,
    applied: u64,
}

impl Story {
    fn says(&self, rule: &mut dyn Invariant, core: &Raft, events: &[Event]) -> bool {
        let view = View {
            replica: ReplicaId(self.replica),
            life: 1,
            core,
            applied: LogIndex(self.applied),
            events,
            ledger: &self.ledger,
            replicas: &self.disks,
        };
        rule.check(view).is_ok()
    }
}

fn sent(term: u64, body: Body) -> [Event; 1] {
    let (from, to, term) = (ReplicaId(1), ReplicaId(2), Term(term));
    [Event::Sent(Message { from, to, term, body })]
}

fn acknowledges(term: u64, index: u64) -> [Event; 1] {
    let outcome = AppendOutcome::Matches(LogIndex(index));
    sent(term, Body::AppendReply(AppendReply { round: 1, outcome }))
}

#[test]
fn election_safety_fails_for_two_leaders_of_a_term() {
    let mut rule = election_safety::ElectionSafety::default();
    let mut story = Story { replica: 1, ..Story::default() };
    assert!(story.says(&mut rule, &leader(2, 0, vec![]), &[]));
    story.replica = 2;
    assert!(story.says(&mut rule, &leader(3, 0, vec![]), &[]));
    assert!(!story.says(&mut rule, &leader(2, 0, vec![]), &[]));
}

#[test]
fn leader_append_only_fails_for_a_leader_whose_log_shrinks() {
    let mut rule = leader_append_only::LeaderAppendOnly::default();
    let story = Story::default();
    let longer = leader(2, 0, vec![entry(1, 1, "a")]);
    assert!(story.says(&mut rule, &longer, &[]) && story.says(&mut rule, &longer, &[]));
    assert!(!story.says(&mut rule, &leader(2, 0, vec![]), &[]));
}

#[test]
fn log_matching_fails_for_two_entries_of_one_position() {
    let mut rule = log_matching::LogMatching::default();
    let (story, core) = (Story::default(), follower(1, 0, vec![]));
    assert!(story.says(&mut rule, &core, &[Event::Applied(entry(1, 1, "a"))]));
    assert!(story.says(&mut rule, &core, &[Event::Applied(entry(1, 2, "b"))]));
    assert!(!story.says(&mut rule, &core, &[Event::Applied(entry(1, 1, "b"))]));
}

#[test]
fn leader_completeness_fails_for_a_leader_without_a_committed_entry() {
    let mut rule = leader_completeness::LeaderCompleteness::default();
    let mut story = Story::default();
    story.ledger.note(&follower(1, 1, vec![entry(1, 1, "a")]));
    assert!(story.says(&mut rule, &leader(2, 1, vec![entry(1, 1, "a")]), &[]));
    assert!(!story.says(&mut rule, &leader(4, 0, vec![entry(1, 3, "b")]), &[]));
}

#[test]
fn state_machine_safety_fails_for_a_gap_and_for_another_entry() {
    let entries = vec![entry(1, 1, "a"), entry(2, 1, "b")];
    let core = follower(1, 2, entries.clone());
    let mut story = Story::default();
    story.ledger.note(&core);
    let applies = |applied: &[Entry]| {
        let applied = applied.iter().cloned().map(Event::Applied);
        let events: Vec<Event> = [Event::Started(LogIndex(0))].into_iter().chain(applied).collect();
        story.says(&mut state_machine_safety::StateMachineSafety::default(), &core, &events)
    };
    assert!(applies(&entries));
    assert!(!applies(&entries[1..]));
    assert!(!applies(&[entry(1, 1, "other")]));
}

#[test]
fn commits_only_its_own_term_fails_for_a_leader_that_counts_for_an_earlier_one() {
    let mut rule = commits_only_its_own_term::CommitsOnlyItsOwnTerm::default();
    let story = Story::default();
    let entries = || vec![entry(1, 1, "a"), entry(2, 1, "b")];
    assert!(story.says(&mut rule, &leader(2, 1, entries()), &[]));
    assert!(!story.says(&mut rule, &leader(2, 2, entries()), &[]));
}

#[test]
fn committed_is_on_a_quorum_fails_when_no_disk_holds_it() {
    let core = follower(1, 1, vec![entry(1, 1, "a")]);
    let mut story = Story::default();
    story.ledger.note(&core);
    let mut rule = committed_is_on_a_quorum::CommittedIsOnAQuorum;
    assert!(!story.says(&mut rule, &core, &[]));
    story.disks.last = 1;
    assert!(story.says(&mut rule, &core, &[]));
}

#[test]
fn applied_is_committed_fails_beyond_the_commit_and_beyond_the_disk() {
    let core = follower(1, 1, vec![entry(1, 1, "a"), entry(2, 1, "b")]);
    let mut rule = applied_is_committed::AppliedIsCommitted;
    let mut story = Story { applied: 1, ..Story::default() };
    assert!(story.says(&mut rule, &core, &[]));
    assert!(!story.says(&mut rule, &core, &[Event::Applied(entry(1, 1, "a"))]));
    story.applied = 2;
    assert!(!story.says(&mut rule, &core, &[]));
}

#[test]
fn terms_and_commits_are_monotone_fails_for_each_that_falls() {
    let fails = |second: &Raft, vote: u64, term: u64| {
        let mut rule = terms_and_commits_are_monotone::TermsAndCommitsAreMonotone::default();
        let mut story = Story::default();
        (story.disks.term, story.disks.vote) = (Term(3), Some(ReplicaId(1)));
        let first = follower(3, 1, vec![entry(1, 1, "a")]);
        assert!(story.says(&mut rule, &first, &[]));
        (story.disks.term, story.disks.vote) = (Term(term), Some(ReplicaId(vote)));
        !story.says(&mut rule, second, &[])
    };
    let same = follower(3, 1, vec![entry(1, 1, "a")]);
    assert!(!fails(&same, 1, 3) && !fails(&same, 2, 4));
    assert!(fails(&same, 2, 3) && fails(&same, 1, 2));
    assert!(fails(&follower(3, 0, vec![]), 1, 3));
    assert!(fails(&follower(2, 1, vec![entry(1, 1, "a")]), 1, 3));
}

#[test]
fn durable_before_acknowledged_fails_for_votes_and_entries_that_are_not() {
    let mut rule = durable_before_acknowledged::DurableBeforeAcknowledged;
    let mut story = Story::default();
    let core = follower(1, 0, vec![]);
    let grants = sent(1, Body::VoteReply { pre_vote: false, granted: true });
    assert!(!story.says(&mut rule, &core, &grants));
    assert!(!story.says(&mut rule, &core, &acknowledges(1, 1)));
    story.disks = Disks { term: Term(1), vote: Some(ReplicaId(2)), last: 1 };
    assert!(story.says(&mut rule, &core, &grants));
    assert!(story.says(&mut rule, &core, &acknowledges(1, 1)));
}

#[test]
fn acknowledged_is_kept_fails_for_a_log_that_shrinks_within_the_term() {
    let mut rule = acknowledged_is_kept::AcknowledgedIsKept::default();
    let story = Story::default();
    let holds = follower(1, 0, vec![entry(1, 1, "a")]);
    assert!(story.says(&mut rule, &holds, &acknowledges(1, 1)));
    assert!(story.says(&mut rule, &follower(2, 0, vec![]), &[]));
    assert!(!story.says(&mut rule, &follower(1, 0, vec![]), &[]));
}

#[test]
fn at_most_one_change_is_uncommitted_fails_for_two() {
    let mut rule = at_most_one_change_is_uncommitted::AtMostOneChangeIsUncommitted;
    let story = Story::default();
    let change = |index| Entry { payload: Payload::Membership(alone()), ..entry(index, 1, "") };
    assert!(story.says(&mut rule, &leader(2, 0, vec![change(1)]), &[]));
    assert!(!story.says(&mut rule, &leader(2, 0, vec![change(1), change(2)]), &[]));
}
