//! What a message is taken to cost in memory and on the wire, in bytes: an estimate that is
//! cheaper than encoding it.

use crate::protocol::message::tree::{Answer, Question};
use crate::protocol::message::{
    Ask, ForwardReply, Holding, ListPage, ListRange, Message, Mint, ReadReply, ScanReply, Told,
};
use crate::protocol::raft::entry::Entry;
use crate::protocol::raft::message::Body;
use crate::protocol::version::dvv::Context;
use crate::protocol::watch::{WatchEntry, WatchPage};
use crate::types::{Key, Record, Row};

/// What every message is taken to cost besides its keys and values.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// The estimate for one message.
pub(crate) fn cost_bytes(message: &Message) -> usize {
    let payload = match message {
        Message::Write(write) => write.row.cost_bytes(),
        Message::Mint(mint) => of_mint(mint),
        Message::MintReply(reply) => reply.outcome.as_ref().map_or(0, Record::value_len),
        Message::Read(read) => read.key.0.len(),
        Message::ReadReply(reply) => of_read_reply(reply),
        Message::ScanReply(reply) => of_scan_reply(reply),
        Message::TreeAsk(ask) => of_question(&ask.question),
        Message::TreeReply(reply) => reply.outcome.as_ref().map_or(0, of_answer),
        Message::List(list) => of_range(&list.range),
        Message::ListReply(reply) => reply.outcome.as_ref().map_or(0, of_page),
        Message::Group(group) => of_body(&group.message.body),
        Message::Forward(forward) => match &forward.ask {
            Ask::Propose(command) => command.len(),
            Ask::Read { key, .. } => key.0.len(),
            Ask::List { range, .. } => of_range(range),
            Ask::Watch(ask) => ask.watched.selection.bytes().len(),
        },
        Message::ForwardReply(reply) => of_forward_reply(reply),
        Message::Snapshot(chunk) => chunk.rows.iter().map(Row::cost_bytes).sum(),
        Message::WriteReply(_) | Message::Scan(_) | Message::SnapshotReply(_) => 0,
    };
    MESSAGE_OVERHEAD_BYTES + payload
}

fn of_mint(mint: &Mint) -> usize {
    let context = mint.context.as_ref().map_or(0, Context::size_bytes);
    mint.key.0.len() + mint.change.size_bytes() + context
}

fn of_read_reply(reply: &ReadReply) -> usize {
    match reply.outcome.as_ref().map(|found| &found.holding) {
        Ok(Some(Holding::Record(record))) => record.value_len(),
        _ => 0,
    }
}

fn of_scan_reply(reply: &ScanReply) -> usize {
    reply.outcome.as_ref().map_or(0, |page| of_rows(&page.rows))
}

fn of_rows(rows: &[(Key, Record)]) -> usize {
    let row_bytes =
        |(key, record): &(Key, Record)| key.0.len() + record.value_len() + MESSAGE_OVERHEAD_BYTES;
    rows.iter().map(row_bytes).sum()
}

fn of_range(range: &ListRange) -> usize {
    range.prefix.len() + range.after.as_ref().map_or(0, |after| after.0.len())
}

fn of_page(page: &ListPage) -> usize {
    of_rows(&page.rows) + page.reached.as_ref().map_or(0, |reached| reached.0.len())
}

fn of_question(question: &Question) -> usize {
    match question {
        Question::Root | Question::Branches => 0,
        Question::Buckets(branches) => branches.len(),
        Question::Rows { buckets, after } => {
            2 * buckets.len() + after.as_ref().map_or(0, |key| key.0.len())
        }
    }
}

fn of_answer(answer: &Answer) -> usize {
    match answer {
        Answer::Hashes(hashes) => size_of_val(&hashes[..]),
        Answer::Rows(list) => {
            list.rows.iter().map(|(key, _)| key.0.len() + MESSAGE_OVERHEAD_BYTES).sum()
        }
    }
}

fn of_body(body: &Body) -> usize {
    match body {
        Body::Append(append) => append.entries.iter().map(Entry::cost_bytes).sum(),
        _ => 0,
    }
}

fn of_forward_reply(reply: &ForwardReply) -> usize {
    match &reply.outcome {
        Ok(Told::Proposed(answer)) => answer.len(),
        Ok(Told::Listed(page)) => of_page(page),
        Ok(Told::Watched(WatchPage::Changed { entries, .. })) => {
            entries.iter().map(WatchEntry::cost_bytes).sum()
        }
        Ok(Told::Watched(WatchPage::Gone { .. })) => 0,
        Ok(Told::Read { record, .. }) => record.as_ref().map_or(0, Record::value_len),
        Err(_) => 0,
    }
}
