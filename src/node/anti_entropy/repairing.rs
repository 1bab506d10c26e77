//! Copies rows that one of two replicas lacks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::node::anti_entropy::{AntiEntropy, Broken};
use crate::node::committer::ReplyTo;
use crate::node::errands::Reply;
use crate::node::replica::Lookup;
use crate::protocol::exchange::schedule::Pair;
use crate::protocol::exchange::{Misfit, Repairs};
use crate::protocol::message::{Class, Found, Holding, Message, Read, Refusal, Want, Write};
use crate::types::{Epoch, Key, Record, Row};

/// Rows on their way at once.
const ROWS_AT_ONCE: usize = 16;

/// How long one of them may take.
const COPY_TIME: Duration = Duration::from_secs(5);

/// Rows that were copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// To the peer.
    pub(super) sent: u64,
    /// From the peer.
    pub(super) fetched: u64,
}

impl Copied {
    pub(super) fn and(self, more: Copied) -> Copied {
        Copied { sent: self.sent + more.sent, fetched: self.fetched + more.fetched }
    }
}

impl AntiEntropy {
    /// Copies what is to be copied.
    ///
    /// # Errors
    /// The first thing that kept a row from being copied; the next exchange finds what is left.
    pub(super) async fn copy(
        &self,
        pair: Pair,
        epoch: Epoch,
        repairs: Repairs,
    ) -> Result<Copied, Broken> {
        let mut copied = Copied::default();
        for keys in repairs.send.chunks(ROWS_AT_ONCE) {
            self.make_way().await;
            copied.sent += self.send_rows(pair, epoch, keys).await?;
        }
        for keys in repairs.fetch.chunks(ROWS_AT_ONCE) {
            self.make_way().await;
            copied.fetched += self.fetch_rows(pair, epoch, keys).await?;
        }
        Ok(copied)
    }

    /// Waits until clients and the rate allow more rows.
    async fn make_way(&self) {
        self.gate.replica.admission.wait(Class::AntiEntropy).await;
        self.rate.ready().await;
    }

    fn pay(&self, row: &Row) {
        self.rate.pay(row.cost_bytes() as u64);
    }

    async fn send_rows(&self, pair: Pair, epoch: Epoch, keys: &[Key]) -> Result<u64, Broken> {
        let Pair { keyspace, partition, peer } = pair;
        let mut errands = Vec::with_capacity(keys.len());
        for key in keys {
            let (want, deadline) = (Want::Value, self.env.now() + COPY_TIME);
            let lookup = Lookup { keyspace, partition, key: key.clone(), want, epoch, deadline };
            let found = self.gate.read_aside(lookup).await;
            let Some(record) = record(found.map_err(|turned| turned.refusal())?) else { continue };
            let row = Row { keyspace, key: key.clone(), record };
            self.pay(&row);
            errands.push(self.errands.send(peer, Class::AntiEntropy, |request| {
                let (class, time_left) = (Class::AntiEntropy, COPY_TIME);
                Message::Write(Write {
                    request,
                    row,
                    epoch,
                    hint_for: None,
                    seen: None,
                    class,
                    time_left,
                })
            })?);
        }
        let mut sent = 0;
        for errand in errands {
            match self.errands.reply(errand, COPY_TIME).await? {
                Reply::Write(outcome) => outcome?,
                _ => return Err(Broken::Misfit(Misfit)),
            }
            sent += 1;
            self.metrics.anti_entropy_rows_sent.inc();
        }
        Ok(sent)
    }

    async fn fetch_rows(&self, pair: Pair, epoch: Epoch, keys: &[Key]) -> Result<u64, Broken> {
        let Pair { keyspace, peer, .. } = pair;
        let mut errands = Vec::with_capacity(keys.len());
        for key in keys {
            let errand = self.errands.send(peer, Class::AntiEntropy, |request| {
                let (key, want, time_left) = (key.clone(), Want::Value, COPY_TIME);
                Message::Read(Read { request, keyspace, key, want, epoch, time_left })
            })?;
            errands.push((key, errand));
        }
        let mut kept = Vec::with_capacity(errands.len());
        for (key, errand) in errands {
            let Reply::Read(found) = self.errands.reply(errand, COPY_TIME).await? else {
                return Err(Broken::Misfit(Misfit));
            };
            if let Some(record) = record(found?) {
                let row = Row { keyspace, key: key.clone(), record };
                self.pay(&row);
                kept.push(self.keep(pair, epoch, row)?);
            }
        }
        let fetched = kept.len() as u64;
        for durable in kept {
            durable.await.unwrap_or(Err(Refusal::NotServing))?;
            self.metrics.anti_entropy_rows_fetched.inc();
        }
        Ok(fetched)
    }

    /// Has a row made durable here.
    fn keep(
        &self,
        pair: Pair,
        epoch: Epoch,
        row: Row,
    ) -> Result<oneshot::Receiver<Result<(), Refusal>>, Broken> {
        let (sender, durable) = oneshot::channel();
        let gate = Arc::clone(&self.gate);
        let how = (Class::AntiEntropy, COPY_TIME);
        let taken = gate.write(row, pair.partition, epoch, how, ReplyTo::Waiter(sender));
        taken.map_err(|turned| Broken::Refused(turned.refusal()))?;
        Ok(durable)
    }
}

/// The record, if there is one.
fn record(found: Found) -> Option<Record> {
    match found.holding {
        Some(Holding::Record(record)) => Some(record),
        _ => None,
    }
}
