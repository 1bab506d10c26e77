//! No vote, candidacy or acknowledgement leaves before what it promises is durable (Ongaro 2014,
//! section 3.8). Only a leader may send entries that it has not written itself (section 10.2.1).

use coterie::protocol::raft::message::{AppendOutcome, Body, Message};
use coterie::types::{LogIndex, ReplicaId};

use super::{Event, Invariant, View, ensure};

/// Compares what is said with the disk of the one who says it.
#[derive(Default)]
pub(super) struct DurableBeforeAcknowledged;

impl Invariant for DurableBeforeAcknowledged {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        for event in view.events {
            let Event::Sent(message) = event else { continue };
            match &message.body {
                Body::VoteReply { pre_vote: false, granted: true } => {
                    voted(view, message, message.to)?;
                }
                Body::Vote(vote) if !vote.pre_vote => voted(view, message, view.id())?,
                Body::AppendReply(reply) => {
                    if let AppendOutcome::Matches(index) = reply.outcome {
                        holds(view, message, index)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn voted(view: View<'_>, message: &Message, candidate: ReplicaId) -> Result<(), String> {
    let durable = view.replicas.vote(view.id(), message.term);
    ensure(durable == Some(candidate), || {
        format!("{message:?} leaves while the durable vote is for {durable:?}")
    })
}

/// The sender's disk holds what its leader has up to `index`, as far as that leader can be asked.
fn holds(view: View<'_>, message: &Message, index: LogIndex) -> Result<(), String> {
    let (id, replicas) = (view.id(), view.replicas);
    let last = replicas.last(id);
    ensure(index <= last.index, || format!("{message:?} leaves while the disk ends at {last:?}"))?;
    let asked = replicas.led_term_at(message.to, message.term, index);
    let current = replicas.hard_state(id).term <= message.term;
    let held = replicas.term_at(id, index).filter(|_| current);
    ensure(asked.is_none() || held.is_none() || asked == held, || {
        format!("{message:?} leaves while the disk holds term {held:?} there, not {asked:?}")
    })
}
