//! A committed entry is durable on a quorum: a majority of the voters, and in a joint membership
//! of the outgoing ones too (Ongaro 2014, sections 3.5 and 4.3). Learners do not count.

use std::collections::BTreeSet;

use coterie::protocol::raft::entry::LogPosition;
use coterie::types::ReplicaId;

use super::{Invariant, Replicas, View, ensure};

/// Looks at entries when somebody regards them as committed for the first time.
#[derive(Default)]
pub(super) struct CommittedIsOnAQuorum;

impl Invariant for CommittedIsOnAQuorum {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let membership = view.core.log().membership();
        for chosen in view.ledger.added() {
            let at = chosen.position();
            let agreed = is_on_majority(view.replicas, &membership.voters, at)
                && (membership.outgoing.is_empty()
                    || is_on_majority(view.replicas, &membership.outgoing, at));
            ensure(agreed, || {
                format!("{} committed {at:?}, on no quorum of {membership:?}", view.id())
            })?;
        }
        Ok(())
    }
}

fn is_on_majority(replicas: &dyn Replicas, voters: &BTreeSet<ReplicaId>, at: LogPosition) -> bool {
    let holders = voters.iter().filter(|voter| replicas.holds(**voter, at)).count();
    2 * holders > voters.len()
}
