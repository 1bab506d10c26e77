//! Single replicas: a follower of each implementation with the same log is asked the same, and must
//! answer, commit and hold the same.

use bytes::Bytes;
use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::{Entry, HardState, LogPosition, Payload};
use coterie::protocol::raft::message::{Append, AppendOutcome, Body, Message, Vote};
use coterie::types::{LogIndex, ReplicaId, Term};
use raft::eraftpb;
use raft::storage::MemStorage;

use super::group::Replica;
use super::ours::founded;
use super::theirs::Theirs;
use crate::dice::Dice;
use crate::machine::Machine;

/// How many random questions are compared.
const QUESTIONS: u64 = 4_000;

/// The one who is asked, and the one who asks.
const OWN: u64 = 1;
const OTHER: u64 = 2;

/// A follower as it starts: the terms of its entries and its hard state.
#[derive(Clone, Debug)]
struct Follower {
    terms: Vec<u64>,
    term: u64,
    voted_for: u64,
    commit: u64,
}

/// What it is asked, in a term.
#[derive(Clone, Debug)]
enum Question {
    Vote { term: u64, last_index: u64, last_term: u64, pre_vote: bool },
    Append { term: u64, previous: u64, previous_term: u64, terms: Vec<u64>, commit: u64 },
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Whether a vote is granted.
    granted: bool,
    /// Up to where entries match: None when they were rejected or never looked at.
    matched: Option<u64>,
    term: u64,
    commit: u64,
    terms: Vec<u64>,
}

#[test]
fn single_replicas_answer_alike() {
    let (mut granted, mut matched) = (0, 0);
    for seed in 0..QUESTIONS {
        let mut dice = Dice::new(seed).fork("answers");
        let follower = follower(&mut dice);
        let question = question(&mut dice, &follower);
        let (our, their) = (ask_ours(&follower, &question), ask_theirs(&follower, &question));
        assert_eq!(our, their, "seed {seed}: ours and theirs, {follower:?} asked {question:?}");
        granted += u64::from(our.granted);
        matched += u64::from(our.matched.is_some());
    }
    println!(
        "{QUESTIONS} questions: {granted} votes granted, {matched} appends matched, all alike"
    );
    assert!(granted > QUESTIONS / 20 && matched > QUESTIONS / 20, "hardly anything is compared");
}

/// Terms that rise now and then.
fn rising(dice: &mut Dice, from: u64, count: u64) -> Vec<u64> {
    let mut term = from;
    let terms = (0..count).map(|_| {
        term += u64::from(dice.chance(400));
        term
    });
    terms.collect()
}

fn follower(dice: &mut Dice) -> Follower {
    let count = dice.between(0, 6);
    let terms = rising(dice, 1, count);
    let term = terms.last().copied().unwrap_or(0) + dice.between(0, 2);
    // The very first term begins with a vote.
    let voted_for = if term == 0 { 0 } else { dice.between(0, 3) };
    let commit = dice.between(0, count);
    Follower { terms, term, voted_for, commit }
}

fn question(dice: &mut Dice, follower: &Follower) -> Question {
    if dice.chance(500) { vote(dice, follower) } else { append(dice, follower) }
}

fn vote(dice: &mut Dice, follower: &Follower) -> Question {
    let pre_vote = dice.chance(400);
    let last_index = dice.between(0, 7);
    let last_term = if last_index == 0 { 0 } else { dice.between(1, 5) };
    // A pre-vote is for a term that nobody has yet, or out of date.
    let lowest = if pre_vote { follower.term + 1 } else { follower.term.max(2) - 1 };
    let term = lowest.max(last_term).max(1) + dice.between(0, 1);
    Question::Vote { term, last_index, last_term, pre_vote }
}

/// What a leader sends whose log agrees with all that the follower has committed.
fn append(dice: &mut Dice, follower: &Follower) -> Question {
    let agreed = dice.between(follower.commit, follower.terms.len() as u64);
    let mut log: Vec<u64> = follower.terms[..usize(agreed)].to_vec();
    let highest = follower.terms.last().copied().unwrap_or(1);
    let from = log.last().copied().unwrap_or(1);
    // Behind what is agreed on its terms differ, as two leaders' entries do.
    let more = dice.between(0, 3);
    log.extend(rising(dice, from, more).into_iter().map(|term| term.max(highest) + 1));
    let previous = dice.between(follower.commit, log.len() as u64);
    let through = dice.between(previous, log.len() as u64);
    let term = log.last().copied().unwrap_or(1).max(follower.term) + dice.between(0, 1);
    Question::Append {
        term,
        previous,
        previous_term: previous.checked_sub(1).map_or(0, |at| log[usize(at)]),
        terms: log[usize(previous)..usize(through)].to_vec(),
        commit: dice.between(0, log.len() as u64),
    }
}

fn usize(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

fn ask_ours(follower: &Follower, question: &Question) -> Answer {
    let mut machine = Machine::new(ReplicaId(OWN), founded(3));
    machine.disk.entries = our_entries(0, &follower.terms);
    let voted_for = Some(ReplicaId(follower.voted_for)).filter(|voted| voted.0 != 0);
    let (term, commit) = (Term(follower.term), LogIndex(follower.commit));
    machine.disk.hard_state = HardState { term, voted_for, commit };
    machine.start(super::ours::options(), 1);
    machine.act(|core| core.step(our_message(question)));
    let mut messages = Vec::new();
    while let Some(ready) = machine.take(0) {
        messages.extend(ready.messages);
        machine.sync();
    }
    our_answer(machine.core.as_ref().expect("it is up"), &messages)
}

fn our_entries(before: u64, terms: &[u64]) -> Vec<Entry> {
    let numbered = (before + 1..).zip(terms);
    let entries = numbered.map(|(index, term)| Entry {
        term: Term(*term),
        index: LogIndex(index),
        payload: Payload::Command(Bytes::from_static(b"x")),
    });
    entries.collect()
}

fn our_message(question: &Question) -> Message {
    let at = |index, term| LogPosition { index: LogIndex(index), term: Term(term) };
    let (term, body) = match question {
        Question::Vote { term, last_index, last_term, pre_vote } => {
            let last = at(*last_index, *last_term);
            (*term, Body::Vote(Vote { last, pre_vote: *pre_vote, transfer: false }))
        }
        Question::Append { term, previous, previous_term, terms, commit } => {
            let entries = our_entries(*previous, terms);
            let (previous, commit) = (at(*previous, *previous_term), LogIndex(*commit));
            (*term, Body::Append(Append { previous, entries, commit, round: 0 }))
        }
    };
    Message { from: ReplicaId(OTHER), to: ReplicaId(OWN), term: Term(term), body }
}

fn our_answer(core: &Raft, messages: &[Message]) -> Answer {
    let granted = |body: &Body| matches!(body, Body::VoteReply { granted: true, .. });
    let matched = |body: &Body| match body {
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matches(index) => Some(index.0),
            AppendOutcome::Rejected { .. } => None,
        },
        _ => None,
    };
    let log = core.log();
    Answer {
        granted: messages.iter().any(|message| granted(&message.body)),
        matched: messages.iter().find_map(|message| matched(&message.body)),
        term: core.term().0,
        commit: core.commit().0,
        terms: log.entries_from(LogIndex(1)).iter().map(|entry| entry.term.0).collect(),
    }
}

fn ask_theirs(follower: &Follower, question: &Question) -> Answer {
    let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], Vec::new()));
    storage.wl().append(&their_entries(0, &follower.terms)).expect("entries follow each other");
    let hard_state = eraftpb::HardState {
        term: follower.term,
        vote: follower.voted_for,
        commit: follower.commit,
        ..Default::default()
    };
    storage.wl().set_hardstate(hard_state);
    let mut theirs = Theirs::on(OWN, storage);
    theirs.step(their_message(question));
    let messages = theirs.drain();
    their_answer(&theirs, &messages)
}

fn their_entries(before: u64, terms: &[u64]) -> Vec<eraftpb::Entry> {
    let numbered = (before + 1..).zip(terms);
    let entries = numbered.map(|(index, term)| eraftpb::Entry {
        term: *term,
        index,
        data: b"x".to_vec().into(),
        ..Default::default()
    });
    entries.collect()
}

fn their_message(question: &Question) -> eraftpb::Message {
    let mut message = eraftpb::Message { from: OTHER, to: OWN, ..Default::default() };
    match question {
        Question::Vote { term, last_index, last_term, pre_vote } => {
            let pre = eraftpb::MessageType::MsgRequestPreVote;
            let kind = if *pre_vote { pre } else { eraftpb::MessageType::MsgRequestVote };
            message.set_msg_type(kind);
            message.term = *term;
            message.index = *last_index;
            message.log_term = *last_term;
        }
        Question::Append { term, previous, previous_term, terms, commit } => {
            message.set_msg_type(eraftpb::MessageType::MsgAppend);
            message.term = *term;
            message.index = *previous;
            message.log_term = *previous_term;
            message.entries = their_entries(*previous, terms).into();
            message.commit = *commit;
        }
    }
    message
}

fn their_answer(theirs: &Theirs, messages: &[eraftpb::Message]) -> Answer {
    use eraftpb::MessageType::MsgRequestVoteResponse;
    use eraftpb::MessageType::{MsgAppendResponse, MsgRequestPreVoteResponse};
    let log = &theirs.node.raft.raft_log;
    let entries = log.all_entries();
    let agreeing = || messages.iter().filter(|message| !message.reject);
    let votes = [MsgRequestVoteResponse, MsgRequestPreVoteResponse];
    let appended = agreeing().find(|message| message.get_msg_type() == MsgAppendResponse);
    Answer {
        granted: agreeing().any(|message| votes.contains(&message.get_msg_type())),
        matched: appended.map(|message| message.index),
        term: theirs.node.raft.term,
        commit: log.committed,
        terms: entries.iter().map(|entry| entry.term).collect(),
    }
}
