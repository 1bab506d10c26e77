//! What must hold in every run, one file each.
//!
//! First the safety phase, in which anything may fail; then all faults stop and the cluster must
//! heal by itself. Each invariant judges the whole evidence and says in words what broke it.
//! Those of groups (`steps`, `session_at_most_once`, `replicas_answer_alike`) are judged after
//! every pass over a group, while the run goes on.

use crate::history::Evidence;

pub(crate) mod acknowledged_write_is_never_lost;
pub(crate) mod additions_are_counted_once;
pub(crate) mod answer_is_never_invented;
pub(crate) mod cluster_serves_after_healing;
pub(crate) mod elections_are_safe;
pub(crate) mod errors_are_honest;
pub(crate) mod groups_serve_after_healing;
pub(crate) mod hints_drain_after_healing;
pub(crate) mod listings_are_whole;
pub(crate) mod quorum_read_sees_acknowledged_quorum_write;
pub(crate) mod quorum_reads_never_go_back;
pub(crate) mod reads_with_a_context_never_answer_older;
pub(crate) mod receipts_are_honest;
pub(crate) mod refused_write_leaves_no_trace;
pub(crate) mod replicas_answer_alike;
pub(crate) mod replicas_converge_unread;
pub(crate) mod replicas_have_one_home;
pub(crate) mod replicas_never_go_back;
pub(crate) mod replicas_of_a_group_agree;
pub(crate) mod replicas_that_were_read_converge;
pub(crate) mod session_at_most_once;
pub(crate) mod sessions_execute_once;
pub(crate) mod sets_have_what_nobody_took_out;
pub(crate) mod siblings_are_the_causal_maximum;
pub(crate) mod stale_reads_are_fresh_enough;
pub(crate) mod stamps_of_a_node_increase;
pub(crate) mod steps;
pub(crate) mod strong_operations_are_linearizable;
pub(crate) mod transactions_are_whole;
pub(crate) mod values_end_in_time;
pub(crate) mod watchers_see_what_is_applied;

/// An invariant: from the evidence to what is wrong with it, in words; empty when it holds.
type Check = fn(&Evidence) -> Vec<String>;

/// All invariants by name.
const ALL: [(&str, Check); 28] = [
    (acknowledged_write_is_never_lost::NAME, acknowledged_write_is_never_lost::check),
    (answer_is_never_invented::NAME, answer_is_never_invented::check),
    (cluster_serves_after_healing::NAME, cluster_serves_after_healing::check),
    (errors_are_honest::NAME, errors_are_honest::check),
    (groups_serve_after_healing::NAME, groups_serve_after_healing::check),
    (hints_drain_after_healing::NAME, hints_drain_after_healing::check),
    (listings_are_whole::NAME, listings_are_whole::check),
    (
        quorum_read_sees_acknowledged_quorum_write::NAME,
        quorum_read_sees_acknowledged_quorum_write::check,
    ),
    (quorum_reads_never_go_back::NAME, quorum_reads_never_go_back::check),
    (reads_with_a_context_never_answer_older::NAME, reads_with_a_context_never_answer_older::check),
    (receipts_are_honest::NAME, receipts_are_honest::check),
    (refused_write_leaves_no_trace::NAME, refused_write_leaves_no_trace::check),
    (replicas_converge_unread::NAME, replicas_converge_unread::check),
    (replicas_that_were_read_converge::NAME, replicas_that_were_read_converge::check),
    (stamps_of_a_node_increase::NAME, stamps_of_a_node_increase::check),
    (strong_operations_are_linearizable::NAME, strong_operations_are_linearizable::check),
    (elections_are_safe::NAME, elections_are_safe::check),
    (replicas_never_go_back::NAME, replicas_never_go_back::check),
    (replicas_have_one_home::NAME, replicas_have_one_home::check),
    (replicas_of_a_group_agree::NAME, replicas_of_a_group_agree::check),
    (sessions_execute_once::NAME, sessions_execute_once::check),
    (siblings_are_the_causal_maximum::NAME, siblings_are_the_causal_maximum::check),
    (additions_are_counted_once::NAME, additions_are_counted_once::check),
    (sets_have_what_nobody_took_out::NAME, sets_have_what_nobody_took_out::check),
    (stale_reads_are_fresh_enough::NAME, stale_reads_are_fresh_enough::check),
    (transactions_are_whole::NAME, transactions_are_whole::check),
    (values_end_in_time::NAME, values_end_in_time::check),
    (watchers_see_what_is_applied::NAME, watchers_see_what_is_applied::check),
];

/// An invariant that a run broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant.
    pub(crate) invariant: &'static str,
    /// What broke it.
    pub(crate) detail: String,
}

/// Judges a run by every invariant.
pub(crate) fn check_all(evidence: &Evidence) -> Vec<Violation> {
    let broken = ALL.iter().flat_map(|(invariant, check)| {
        check(evidence).into_iter().map(|detail| Violation { invariant, detail })
    });
    evidence.steps.iter().cloned().chain(broken).collect()
}
