//! A write to a keyspace that keeps siblings: an owner of the key mints it into its own row, and
//! then the row goes to all owners like any other.
//!
//! Who coordinates need not own the key: it has an owner mint and replicates what that answers. An
//! owner that certainly did nothing is passed over for the next; after one whose answer was lost
//! nothing is tried again, or the value might become its own sibling.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::node::committer::{self, ReplyTo};
use crate::node::coordinator::Coordinator;
use crate::node::errands::Reply;
use crate::node::gate::Turned;
use crate::node::request::{Receipt, RequestError, RequestOptions};
use crate::protocol::message::{Class, Message, Mint, Refusal};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::write::{WriteEffect, WriteQuorum, WriteSetup};
use crate::protocol::quorum::{Outcome, QuorumError};
use crate::protocol::version::dvv::{Context, SIBLINGS_WARN, Siblings};
use crate::protocol::version::merging::Change;
use crate::types::{Epoch, Key, KeyspaceId, Merge, Moment, NodeId, PartitionId, Record, Row};

/// Why an owner did not mint.
enum Unminted {
    /// It certainly did not.
    Refused(Refusal),
    /// It may have.
    Lost,
}

impl Unminted {
    fn leaves_doubt(&self) -> bool {
        match self {
            Unminted::Refused(refusal) => refusal.leaves_doubt(),
            Unminted::Lost => true,
        }
    }
}

/// What is to be minted, by which version of the ring.
struct Errand<'w> {
    keyspace: KeyspaceId,
    partition: PartitionId,
    key: &'w Key,
    mint: &'w committer::Mint,
    epoch: Epoch,
    deadline: Moment,
}

impl Coordinator {
    /// Changes a key whose copies are joined and waits for its write quorum: what its row is then,
    /// and which guarantee holds.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome tells what is known of the effect.
    pub(crate) async fn change(
        &self,
        (keyspace, key): (KeyspaceId, Key),
        change: Change,
        options: &RequestOptions,
    ) -> Result<(Siblings, Receipt), RequestError> {
        // It counts as long as the client waits.
        let _ticket = self.gate.replica.admission.enter()?;
        let started = self.env.now();
        let deadline = started + self.timeout(options.timeout);
        let merge = keyspace.merge();
        if !change.fits(merge) {
            return Err(RequestError::not_that_change(merge));
        }
        if options.ttl.is_some() {
            return Err(RequestError::no_ttl("what is joined with other values"));
        }
        let context = options.seen_of((keyspace, &key))?;
        if let Some(latest) = context.as_ref().and_then(Context::latest) {
            // An owner could only refuse, and would not say what is wrong.
            let above = self.clock.stamp(Some(latest));
            above.map_err(|error| RequestError::not_that_context(&error.to_string()))?;
        }
        let own_values = usize::from(matches!(change, Change::Put(_)));
        let time = (started, deadline);
        let (context, known) = match change.reads_first(context.is_some()) {
            true => self.seen_now((keyspace, &key), context, options, time).await?,
            false => (context, None),
        };
        let wanted = (keyspace, &key, committer::Mint { change, context });
        let record = self.minted(wanted, known, options, time).await?;
        let siblings = Siblings::of_record(&record).unwrap_or_default();
        if merge == Merge::Siblings && siblings.len() >= SIBLINGS_WARN {
            self.metrics.siblings_many.inc();
            if siblings.len() == SIBLINGS_WARN {
                tracing::warn!(%key, siblings = SIBLINGS_WARN, "a key gathers siblings");
            }
        }
        let row = Row { keyspace, key: key.clone(), record };
        let receipt = self.replicate(row, options, time, true).await?;
        let keeps = merge == Merge::Siblings;
        // Whose write stands beside others must not cover them unread by its next one. What
        // counters and sets have is covered by their changes in any case.
        let may_tell = !keeps || siblings.len() == own_values;
        let context = may_tell.then(|| siblings.context().to_text((keyspace, &key)));
        let count = keeps.then_some(siblings.len() as u32);
        Ok((siblings, Receipt { siblings: count, context, ..receipt }))
    }

    /// What a change takes away by: of what its client had seen that which a read quorum holds, or
    /// all of that where it did not say; and the row that was read.
    async fn seen_now(
        &self,
        (keyspace, key): (KeyspaceId, &Key),
        context: Option<Context>,
        options: &RequestOptions,
        time: (Moment, Moment),
    ) -> Result<(Option<Context>, Option<Row>), RequestError> {
        let options = RequestOptions { keyspace: options.keyspace.clone(), ..Default::default() };
        let read = self.read_row((keyspace, key), context.clone(), &options, time).await;
        // Nothing was changed by then, whatever came of the read.
        let read = read.map_err(RequestError::without_effect)?;
        let record = read.success.record;
        let row = record.as_ref().and_then(|record| Siblings::of_record(record).ok());
        let row = row.unwrap_or_default();
        let context = context.map_or_else(|| row.context(), |context| context.within(&row));
        let known = record.map(|record| Row { keyspace, key: key.clone(), record });
        Ok((Some(context), known))
    }

    /// The row of the key with the change in it, durable at one of its owners. `known` is the row
    /// that the change is about, for owners that have not heard of it.
    async fn minted(
        &self,
        (keyspace, key, mint): (KeyspaceId, &Key, committer::Mint),
        mut known: Option<Row>,
        options: &RequestOptions,
        (started, deadline): (Moment, Moment),
    ) -> Result<Record, RequestError> {
        loop {
            let topology = self.topology.load();
            let aimed = self.aim(&topology, (keyspace, key), options, deadline)?;
            if let Some(error) = out_of_reach(&aimed.setup, started) {
                return Err(self.fail(error, started));
            }
            let (partition, epoch) = (aimed.partition, aimed.epoch);
            let mint = &mint;
            let errand = Errand { keyspace, partition, key, mint, epoch, deadline };
            let required = aimed.setup.required;
            let mut refusals = Vec::new();
            for owner in self.minters(aimed.setup, started) {
                match self.mint_at(owner, &errand).await {
                    Ok(record) => return Ok(record),
                    Err(unminted) if unminted.leaves_doubt() => {
                        let outcome = Outcome::Unknown;
                        let error = QuorumError::Timeout { required, received: 0, outcome };
                        return Err(self.fail(error, started));
                    }
                    Err(Unminted::Refused(Refusal::TooManySiblings)) => {
                        return Err(match keyspace.merge() {
                            Merge::Set => RequestError::SetTooLarge,
                            _ => RequestError::TooManySiblings,
                        });
                    }
                    Err(Unminted::Refused(Refusal::OutOfRange)) => {
                        return Err(RequestError::OutOfRange);
                    }
                    Err(Unminted::Refused(refusal)) => refusals.push((owner, refusal)),
                    Err(Unminted::Lost) => {}
                }
            }
            let is_unheard = refusals.iter().any(|(_, it)| *it == Refusal::ContextUnheard);
            if let Some(row) = known.take_if(|_| is_unheard) {
                // The owners say what came of it.
                let _spread = self.replicate(row, options, (started, deadline), false).await;
                continue;
            }
            let outcome = Outcome::Failed;
            let error = match refusals.is_empty() {
                true => QuorumError::Unavailable { required: 1, reachable: 0 },
                false => QuorumError::Failed { required, received: 0, refusals, outcome },
            };
            let again = error.is_by_stale_ring() && self.hears_news(epoch, deadline).await;
            if !again {
                return Err(self.fail(error, started));
            }
        }
    }

    /// The present owners that can be reached, in the order in which they should be asked.
    fn minters(&self, setup: WriteSetup, now: Moment) -> Vec<NodeId> {
        let WriteSetup { mut primaries, coming, .. } = setup;
        primaries.truncate(coming.map_or(usize::MAX, |coming| coming.present));
        primaries.retain(|primary| primary.reachable);
        self.order(&mut primaries, 1, now);
        primaries.into_iter().map(|primary| primary.node).collect()
    }

    async fn mint_at(&self, owner: NodeId, errand: &Errand<'_>) -> Result<Record, Unminted> {
        let time_left = errand.deadline.since(self.env.now());
        if time_left.is_zero() {
            return Err(Unminted::Refused(Refusal::Expired));
        }
        match owner == self.own {
            true => self.mint_here(errand, time_left).await,
            false => self.mint_there(owner, errand, time_left).await,
        }
    }

    async fn mint_here(
        &self,
        errand: &Errand<'_>,
        time_left: Duration,
    ) -> Result<Record, Unminted> {
        let (sender, minted) = oneshot::channel();
        let Errand { keyspace, partition, key, mint, epoch, deadline } = errand;
        let (place, mint) = ((*keyspace, *partition), ((*key).clone(), (*mint).clone()));
        let reply_to = ReplyTo::Writer(sender);
        let queued = self.gate.mint(place, mint, *epoch, time_left, reply_to);
        queued.map_err(|turned| Unminted::Refused(Turned::refusal(turned)))?;
        tokio::select! { biased;
            minted = minted => match minted {
                Ok(outcome) => outcome.map_err(Unminted::Refused),
                Err(_) => Err(Unminted::Lost),
            },
            () = self.env.sleep_until(*deadline) => Err(Unminted::Lost),
        }
    }

    async fn mint_there(
        &self,
        owner: NodeId,
        errand: &Errand<'_>,
        time_left: Duration,
    ) -> Result<Record, Unminted> {
        let Errand { keyspace, key, mint, epoch, .. } = errand;
        let committer::Mint { change, context } = (*mint).clone();
        let context = context.filter(|_| !planted(Planted::ContextLostOnTheWay));
        let sent = self.mints.send(owner, Class::Client, |request| {
            Message::Mint(Mint {
                request,
                keyspace: *keyspace,
                key: (*key).clone(),
                change,
                context,
                epoch: *epoch,
                time_left,
            })
        });
        let waited = sent.map_err(Unminted::Refused)?;
        match self.mints.reply(waited, time_left).await {
            Ok(Reply::Mint(outcome)) => outcome.map_err(Unminted::Refused),
            Ok(_) | Err(_) => Err(Unminted::Lost),
        }
    }
}

/// Why a write would not even begin: nothing is minted then.
fn out_of_reach(setup: &WriteSetup, now: Moment) -> Option<QuorumError> {
    match WriteQuorum::new(setup.clone(), now).poll() {
        Some(WriteEffect::Answer(Err(error))) => Some(error),
        _ => None,
    }
}
