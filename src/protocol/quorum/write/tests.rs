use super::*;
use crate::protocol::quorum::script::{self, DEADLINE, Scripted};

impl Scripted for WriteQuorum {
    fn on_event(&mut self, event: &str) {
        let mut words = event.split_whitespace();
        let (verb, now) = (words.next().expect("an event"), Moment(1));
        match verb {
            "ack" => self.on_ack(script::node(words.next()), now),
            "refuse" => {
                self.on_refusal(script::node(words.next()), script::refusal(words.next()), now);
            }
            "unsent" => self.on_unsent(script::node(words.next()), now),
            "lost" => self.on_lost(script::node(words.next()), now),
            "tick" => self.on_tick(now),
            "deadline" => self.on_tick(DEADLINE),
            "late-ack" => self.on_ack(script::node(words.next()), DEADLINE),
            _ => panic!("{event} is no event"),
        }
    }

    fn poll_text(&mut self) -> Option<String> {
        Some(match self.poll()? {
            WriteEffect::Send { to, hint_for: None } => format!("send {}", to.0),
            WriteEffect::Send { to, hint_for: Some(target) } => {
                format!("send {} for {}", to.0, target.0)
            }
            WriteEffect::Hint { target } => format!("hint {}", target.0),
            WriteEffect::Answer(Ok(success)) => format!(
                "ok {}{}{}",
                script::nodes(&success.acknowledged),
                script::named("hinted", &success.hinted),
                script::named("fallbacks", &success.fallbacks),
            ),
            WriteEffect::Answer(Err(error)) => script::error(&error),
        })
    }

    fn is_done(&self) -> bool {
        WriteQuorum::is_done(self)
    }
}

fn begin(setup: &str) -> WriteQuorum {
    let fallbacks = script::numbers(setup, "fallbacks");
    let setup = WriteSetup {
        coming: coming(setup),
        primaries: script::primaries(setup),
        fallbacks: fallbacks.into_iter().map(|n| NodeId(n.unsigned_abs())).collect(),
        required: script::number(setup, "w").expect("w") as u32,
        sloppy: setup.contains("sloppy"),
        deadline: DEADLINE,
    };
    WriteQuorum::new(setup, Moment(0))
}

/// `present 3 coming 2 3 4 cw 2`: the first three primaries own the key now.
fn coming(setup: &str) -> Option<Coming> {
    let present = script::number(setup, "present")? as usize;
    let owners = script::numbers(setup, "coming");
    let owners = owners.into_iter().map(|n| NodeId(n.unsigned_abs())).collect();
    Some(Coming { present, owners, required: script::number(setup, "cw").expect("cw") as u32 })
}

fn check(text: &str) {
    script::check(text, begin);
}

#[test]
fn a_healthy_write_goes_to_all_and_is_answered_at_w() {
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         ack 2 > -
         ack 1 > ok [1 2]
         ack 3 > done",
    );
}

#[test]
fn a_write_to_a_partition_that_moves_needs_both_quorums() {
    check(
        "primaries 1 2 3 4 w 2 present 3 coming 2 3 4 cw 2 > send 1; send 2; send 3; send 4
         ack 1 > -
         ack 2 > -
         ack 4 > ok [1 2 4]
         ack 3 > done",
    );
    check(
        "primaries 1 2 3 4 5 6 w 2 present 3 coming 4 5 6 cw 2 > send 1; send 2; send 3; send 4; \
         send 5; send 6
         ack 1 > -
         ack 2 > -
         refuse 4 Overloaded > -
         refuse 5 Overloaded > failed 0/2 unknown [4:Overloaded 5:Overloaded]
         ack 3 > -
         ack 6 > done",
    );
    check("primaries 1 2 3 -4 -5 w 2 present 3 coming 3 4 5 cw 2 > unavailable 1/2; done");
}

#[test]
fn too_few_reachable_is_unavailable_and_nothing_else() {
    check("primaries 1 -2 -3 w 2 > unavailable 1/2; done");
    check("primaries 1 -2 -3 fallbacks 4 5 w 2 > unavailable 1/2; done");
    check("primaries -1 -2 -3 fallbacks 4 w 2 sloppy > unavailable 1/2; done");
    check("primaries 1 w 2 > unavailable 1/2; done");
}

#[test]
fn a_required_count_of_nothing_means_one() {
    check("primaries -1 w 0 > unavailable 0/1; done");
}

#[test]
fn an_unreachable_primary_is_hinted_once_the_write_exists_and_before_the_answer() {
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         ack 1 > hint 3
         ack 2 > ok [1 2] hinted [3]; done",
    );
    check(
        "primaries 1 -2 -3 w 1 > send 1
         ack 1 > hint 2; hint 3; ok [1] hinted [2 3]; done",
    );
}

#[test]
fn sloppy_fallbacks_stand_in_for_the_unreachable_and_count() {
    check(
        "primaries 1 -2 -3 fallbacks 4 5 6 w 3 sloppy > send 1; send 4 for 2; send 5 for 3
         ack 5 > -
         ack 4 > -
         ack 1 > ok [1 4 5] hinted [2 3] fallbacks [4 5]; done",
    );
}

#[test]
fn sloppy_with_too_few_fallbacks_hints_the_rest_here() {
    check(
        "primaries 1 -2 -3 fallbacks 4 w 2 sloppy > send 1; send 4 for 2
         ack 4 > hint 3
         ack 1 > ok [1 4] hinted [2 3] fallbacks [4]; done",
    );
}

#[test]
fn a_silent_primary_is_hinted_at_the_deadline_only() {
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         ack 1 > -
         ack 2 > ok [1 2]
         tick > -
         deadline > hint 3; done",
    );
}

#[test]
fn a_late_ack_spares_the_hint_and_later_ones_are_harmless() {
    check(
        "primaries 1 2 3 w 1 > send 1; send 2; send 3
         ack 1 > ok [1]
         ack 3 > -
         deadline > hint 2; done
         late-ack 2 > -
         late-ack 9 > -",
    );
}

#[test]
fn an_ack_that_arrives_with_the_deadline_counts() {
    check(
        "primaries 1 2 w 2 > send 1; send 2
         ack 1 > -
         late-ack 2 > ok [1 2]; done",
    );
}

#[test]
fn duplicate_and_strange_acks_do_not_count() {
    check(
        "primaries 1 2 -3 fallbacks 4 w 2 > send 1; send 2
         ack 1 > hint 3
         ack 1 > -
         ack 9 > -
         ack 3 > -
         ack 4 > -
         ack 2 > ok [1 2] hinted [3]; done
         ack 2 > -",
    );
}

#[test]
fn a_primary_and_its_fallback_count_once() {
    check(
        "primaries 1 2 3 fallbacks 4 w 3 sloppy > send 1; send 2; send 3
         lost 3 > send 4 for 3
         ack 4 > -
         ack 3 > -
         ack 1 > -
         ack 2 > ok [1 2 3]; done",
    );
}

#[test]
fn a_primary_that_answers_after_all_makes_its_fallback_irrelevant() {
    check(
        "primaries 1 2 3 fallbacks 4 w 3 sloppy > send 1; send 2; send 3
         lost 3 > send 4 for 3
         ack 3 > -
         ack 1 > -
         ack 2 > ok [1 2 3]; done",
    );
}

#[test]
fn a_lost_primary_is_hinted_at_once_since_the_write_may_exist() {
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         lost 3 > hint 3
         ack 1 > -
         ack 2 > ok [1 2] hinted [3]; done",
    );
}

#[test]
fn an_unsent_primary_is_hinted_at_once_after_an_ack_but_not_before() {
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         unsent 3 > -
         ack 1 > hint 3
         ack 2 > ok [1 2] hinted [3]; done",
    );
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         ack 1 > -
         unsent 3 > hint 3
         ack 2 > ok [1 2] hinted [3]; done",
    );
}

#[test]
fn only_some_refusals_are_hinted() {
    for refusal in Refusal::ALL {
        let never = ["Overloaded", "Expired", "ClockOffset", "KeyspaceDropped"];
        let (hint, hinted) = if never.contains(&format!("{refusal:?}").as_str()) {
            ("-", "")
        } else {
            ("hint 3", " hinted [3]")
        };
        check(&format!(
            "primaries 1 2 3 w 2 > send 1; send 2; send 3
             ack 1 > -
             refuse 3 {refusal:?} > {hint}
             ack 2 > ok [1 2]{hinted}; done
             deadline > -"
        ));
    }
}

#[test]
fn sloppy_replaces_what_fails_but_never_an_overloaded_primary() {
    check(
        "primaries 1 2 3 fallbacks 4 5 w 2 sloppy > send 1; send 2; send 3
         unsent 1 > send 4 for 1
         refuse 2 Overloaded > -
         refuse 3 DiskFull > send 5 for 3
         ack 4 > -
         ack 5 > ok [4 5] hinted [1 3] fallbacks [4 5]; done",
    );
}

#[test]
fn a_failing_fallback_makes_way_for_the_next_and_then_for_a_hint() {
    check(
        "primaries 1 2 -3 fallbacks 4 5 6 w 2 sloppy > send 1; send 2; send 4 for 3
         refuse 4 Overloaded > send 5 for 3
         unsent 5 > send 6 for 3
         lost 6 > hint 3
         ack 1 > -
         ack 2 > ok [1 2] hinted [3]; done",
    );
}

#[test]
fn after_the_answer_no_more_fallbacks_are_asked() {
    check(
        "primaries 1 2 -3 fallbacks 4 5 w 1 sloppy > send 1; send 2; send 4 for 3
         ack 1 > ok [1]
         refuse 4 HintNotAdmitted > hint 3
         lost 2 > hint 2; done",
    );
}

#[test]
fn a_silent_fallback_leads_to_a_hint_at_the_deadline() {
    check(
        "primaries 1 2 -3 fallbacks 4 w 2 sloppy > send 1; send 2; send 4 for 3
         ack 1 > -
         ack 2 > ok [1 2]
         deadline > hint 3; done",
    );
}

#[test]
fn refused_by_all_is_failed_and_leaves_no_hint() {
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         unsent 1 > failed 0/2 unknown []
         refuse 2 DiskFull > done
         deadline > -",
    );
    check(
        "primaries 1 -2 -3 w 1 > send 1
         refuse 1 DiskFull > failed 0/1 failed [1:DiskFull]; done
         deadline > -",
    );
    check(
        "primaries 1 2 3 w 1 > send 1; send 2; send 3
         refuse 2 Storage > -
         unsent 1 > -
         refuse 3 Overloaded > failed 0/1 failed [2:Storage 3:Overloaded]; done",
    );
}

#[test]
fn a_failure_with_replies_outstanding_or_lost_is_unknown() {
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         lost 1 > hint 1
         refuse 2 DiskFull > hint 2; failed 0/2 unknown [2:DiskFull]
         refuse 3 DiskFull > hint 3; done",
    );
}

/// A log that failed while it took the row may show it after the next start.
#[test]
fn a_refusal_that_leaves_doubt_makes_a_failure_unknown_and_is_hinted() {
    check(
        "primaries 1 w 1 > send 1
         refuse 1 InDoubt > hint 1; failed 0/1 unknown [1:InDoubt]; done",
    );
    check(
        "primaries 1 2 3 w 2 > send 1; send 2; send 3
         refuse 1 InDoubt > hint 1
         refuse 2 LogFailed > hint 2; failed 0/2 unknown [1:InDoubt 2:LogFailed]
         refuse 3 LogFailed > hint 3; done",
    );
}

#[test]
fn a_failure_that_turns_out_to_exist_is_hinted_after_all() {
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         refuse 1 DiskFull > failed 0/2 unknown [1:DiskFull]
         ack 2 > hint 1; hint 3; done",
    );
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         refuse 1 DiskFull > failed 0/2 unknown [1:DiskFull]
         deadline > hint 1; hint 2; hint 3; done",
    );
}

#[test]
fn a_failure_after_acks_is_unknown_and_hinted() {
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         ack 1 > hint 3
         refuse 2 Overloaded > failed 1/2 unknown [2:Overloaded]; done",
    );
}

#[test]
fn a_timeout_is_unknown_and_hints_everybody_who_missed_it() {
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         ack 1 > hint 3
         deadline > hint 2; timeout 1/2 unknown; done",
    );
    check(
        "primaries 1 2 -3 w 2 > send 1; send 2
         deadline > hint 1; hint 2; hint 3; timeout 0/2 unknown; done",
    );
}

#[test]
fn the_machine_asks_to_be_woken_at_its_deadline_until_it_is_done() {
    let mut write = begin("primaries 1 2 w 1");
    assert_eq!(write.next_deadline(), Some(DEADLINE));
    while write.poll().is_some() {}
    write.on_ack(NodeId(1), Moment(1));
    while write.poll().is_some() {}
    assert_eq!(write.next_deadline(), Some(DEADLINE), "the second may yet reply");
    write.on_ack(NodeId(2), Moment(2));
    assert_eq!(write.next_deadline(), None);
}

#[test]
fn what_was_never_polled_is_not_sent_after_the_deadline() {
    let mut write = begin("primaries 1 2 -3 w 2");
    write.on_tick(DEADLINE);
    let error = QuorumError::Timeout { required: 2, received: 0, outcome: Outcome::Failed };
    assert_eq!(write.poll(), Some(WriteEffect::Answer(Err(error))));
    assert_eq!(write.poll(), None);
    assert!(write.is_done());
}

#[test]
fn a_fallback_that_was_not_sent_to_before_the_failure_is_left_out() {
    let mut write = begin("primaries 1 2 fallbacks 4 w 2 sloppy");
    while write.poll().is_some() {}
    write.on_refusal(NodeId(1), Refusal::DiskFull, Moment(1));
    write.on_refusal(NodeId(2), Refusal::DiskFull, Moment(1));
    let answer = write.poll_text();
    assert_eq!(answer.as_deref(), Some("failed 0/2 failed [1:DiskFull 2:DiskFull]"));
    assert_eq!(write.poll(), None);
    assert!(write.is_done());
}
