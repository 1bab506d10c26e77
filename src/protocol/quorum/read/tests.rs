mod alongside;
mod at_least;
mod repair;

use bytes::Bytes;

use super::*;
use crate::protocol::quorum::script::{self, DEADLINE, Scripted};
use crate::types::{Incarnation, Timestamp};

/// A read and the script's clock.
struct Reading {
    read: ReadQuorum,
    now: Moment,
}

impl Scripted for Reading {
    fn on_event(&mut self, event: &str) {
        let mut words = event.split_whitespace();
        let (verb, argument, now) = (words.next().expect("an event"), words.next(), self.now);
        let read = &mut self.read;
        match verb {
            "found" | "incomplete" => {
                let found = found(words.next().expect("a holding"), verb == "found");
                read.on_found(script::node(argument), found, now);
            }
            "refuse" => read.on_refusal(script::node(argument), script::refusal(words.next()), now),
            "unsent" => read.on_unsent(script::node(argument), now),
            "lost" => read.on_lost(script::node(argument), now),
            "repaired" => read.on_repaired(script::node(argument), now),
            "unrepaired" => {
                read.on_repair_refused(script::node(argument), script::refusal(words.next()), now);
            }
            "wait" => {
                let ms = argument.and_then(|word| word.parse().ok()).expect("milliseconds");
                self.now = now + Duration::from_millis(ms);
                read.on_tick(self.now);
            }
            "deadline" => read.on_tick(DEADLINE),
            _ => panic!("{event} is no event"),
        }
    }

    fn poll_text(&mut self) -> Option<String> {
        Some(match self.read.poll()? {
            ReadEffect::Ask { to, want } => format!("ask {} {want:?}", to.0).to_lowercase(),
            ReadEffect::Repair { to, record, awaited } => {
                let kind = if awaited { "mend" } else { "repair" };
                format!("{kind} {} {}", to.0, text(&record))
            }
            ReadEffect::Answer(Ok(success)) => format!(
                "ok {} {}{}",
                success.record.as_ref().map_or("none".to_owned(), text),
                script::nodes(&success.answered),
                script::named("repaired", &success.repaired),
            ),
            ReadEffect::Answer(Err(error)) => script::error(&error),
        })
    }

    fn is_done(&self) -> bool {
        self.read.is_done()
    }
}

/// `v5` is a record, `t5` a tombstone, `#5` a version alone, `none` no record.
fn found(text: &str, complete: bool) -> Found {
    let (kind, stamp) = text.split_at(1);
    let version = |stamp: &str| stamped(stamp.parse().expect("a version"));
    let holding = match kind {
        "v" => {
            let value = Some(Bytes::copy_from_slice(stamp.as_bytes()));
            Some(Holding::Record(Record::new(version(stamp), value)))
        }
        "t" => Some(Holding::Record(Record::new(version(stamp), None))),
        "#" => Some(Holding::Version(version(stamp))),
        _ => None,
    };
    Found { holding, complete }
}

fn stamped(stamp: u64) -> Version {
    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) }
}

fn text(record: &Record) -> String {
    let kind = if record.value.is_some() { "v" } else { "t" };
    format!("{kind}{}", record.version.timestamp.0)
}

fn begin(setup: &str) -> Reading {
    let read = ReadSetup {
        primaries: script::primaries(setup),
        required: script::number(setup, "r").expect("r") as u32,
        at_least: script::number(setup, "least").map(stamped),
        merge: Merge::Lww,
        seen: None,
        blocking_repair: setup.contains("blocking"),
        alongside: script::number(setup, "answering").map(|answering| Alongside {
            answering: answering as usize,
            owners: script::numbers(setup, "alongside").iter().map(|n| NodeId(*n as u64)).collect(),
            required: script::number(setup, "hold").expect("how many hold it") as u32,
        }),
        hedge_after: script::number(setup, "hedge").map(Duration::from_millis),
        deadline: DEADLINE,
    };
    Reading { read: ReadQuorum::new(read, Moment(0)), now: Moment(0) }
}

fn check(text: &str) {
    script::check(text, begin);
}

#[test]
fn one_asks_the_nearest_reachable_for_its_value_and_answers_with_it() {
    check(
        "primaries 1 2 3 r 1 > ask 1 value
         found 1 v5 > ok v5 [1]; done",
    );
    check(
        "primaries -1 2 3 r 1 > ask 2 value
         found 2 none > ok none [2]; done",
    );
}

#[test]
fn a_quorum_that_agrees_needs_one_value_and_no_repair() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 2 #5 > -
         found 1 v5 > ok v5 [1 2]; done",
    );
}

#[test]
fn nothing_anywhere_is_an_answer_without_repair() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 none > -
         found 2 none > ok none [1 2]; done",
    );
}

#[test]
fn a_tombstone_is_a_record_like_any_other() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 t7 > -
         found 2 #5 > mend 2 t7
         repaired 2 > ok t7 [1 2] repaired [2]; done",
    );
}

#[test]
fn too_few_reachable_is_unavailable_and_nobody_is_asked() {
    check("primaries 1 -2 -3 r 2 > unavailable 1/2; done");
    check("primaries -1 r 0 > unavailable 0/1; done");
}

#[test]
fn one_that_fails_is_made_up_for_by_the_next_at_once() {
    for event in ["refuse 2 Overloaded", "unsent 2", "lost 2"] {
        check(&format!(
            "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
             {event} > ask 3 version
             found 1 v5 > -
             found 3 #5 > ok v5 [1 3]; done"
        ));
    }
}

#[test]
fn whoever_replaces_the_value_holder_is_asked_for_its_value() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         lost 1 > ask 3 value
         found 3 v5 > -
         found 2 #5 > ok v5 [2 3]; done",
    );
    check(
        "primaries 1 2 3 r 1 > ask 1 value
         refuse 1 Storage > ask 2 value
         unsent 2 > ask 3 value
         found 3 v5 > ok v5 [3]; done",
    );
}

#[test]
fn when_the_value_holder_fails_a_holder_that_answered_sends_the_value() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         found 2 #5 > -
         lost 1 > ask 2 value; ask 3 version
         found 3 #5 > -
         found 2 v5 > ok v5 [2 3]; done",
    );
}

#[test]
fn a_late_answer_from_a_lost_stream_still_counts() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         lost 2 > ask 3 version
         found 2 #5 > -
         found 1 v5 > ok v5 [1 2]
         found 3 #5 > done",
    );
}

#[test]
fn a_slow_replica_is_hedged_once() {
    check(
        "primaries 1 2 3 r 2 hedge 10 > ask 1 value; ask 2 version
         found 1 v5 > -
         wait 9 > -
         wait 1 > ask 3 version
         wait 100 > -
         found 3 #5 > ok v5 [1 3]
         found 2 #5 > done",
    );
}

#[test]
fn a_slow_value_holder_is_hedged_at_one_who_answered_too() {
    check(
        "primaries 1 2 3 r 2 hedge 10 > ask 1 value; ask 2 version
         found 2 #5 > -
         wait 10 > ask 2 value; ask 3 version
         found 3 #5 > -
         found 2 v5 > ok v5 [2 3]
         deadline > done",
    );
    check(
        "primaries 1 2 3 r 1 hedge 10 > ask 1 value
         wait 10 > ask 2 value
         wait 10 > ask 3 value
         found 2 v5 > ok v5 [2]
         found 1 v5 > -
         found 3 v4 > repair 3 v5; done",
    );
}

#[test]
fn every_slow_one_is_hedged() {
    check(
        "primaries 1 2 3 4 5 r 3 hedge 10 > ask 1 value; ask 2 version; ask 3 version
         found 3 none > -
         wait 10 > ask 4 value; ask 5 version
         found 4 v2 > -
         found 5 none > ok v2 [3 4 5]; repair 3 v2; repair 5 v2
         found 1 v3 > repair 3 v3; repair 4 v3; repair 5 v3
         found 2 #3 > done",
    );
}

#[test]
fn the_newest_version_is_fetched_and_never_an_older_value_answered() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 2 v5 > ok v5 [1 2]; repair 1 v5; done",
    );
}

#[test]
fn a_fetched_value_may_turn_out_newer_still() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 2 v6 > mend 1 v6
         repaired 1 > ok v6 [1 2] repaired [1]; done",
    );
}

#[test]
fn a_newer_version_is_fetched_without_waiting_for_an_older_fetch() {
    check(
        "primaries 1 2 3 r 3 > ask 1 value; ask 2 version; ask 3 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 3 #6 > ask 3 value
         found 3 v6 > ok v6 [1 2 3]; repair 1 v6; repair 2 v6
         found 2 v5 > done",
    );
}

#[test]
fn a_fetch_that_fails_goes_to_another_holder_then_to_one_unasked() {
    check(
        "primaries 1 2 3 4 r 3 > ask 1 value; ask 2 version; ask 3 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 3 #5 > -
         lost 2 > ask 3 value
         refuse 3 Overloaded > ask 4 value
         found 4 v5 > ok v5 [1 2 3 4]; repair 1 v5; done",
    );
}

#[test]
fn a_value_that_nobody_can_give_is_an_error_not_an_older_value() {
    check(
        "primaries 1 2 r 2 > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         lost 2 > failed 1/2 unknown []; done",
    );
    check(
        "primaries 1 2 r 2 > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         deadline > timeout 1/2 unknown; done",
    );
    check(
        "primaries 1 2 r 2 > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 2 none > failed 1/2 unknown []; done",
    );
}

#[test]
fn a_repeated_answer_is_not_taken_for_the_fetched_value() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         found 2 #5 > -
         found 1 v4 > -
         found 9 v9 > -
         found 3 v9 > -
         found 2 v5 > ok v5 [1 2]; repair 1 v5; done",
    );
}

#[test]
fn a_replica_that_refills_is_merged_but_does_not_count() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         incomplete 1 v5 > ask 3 value
         found 2 #5 > -
         found 3 v5 > ok v5 [2 3]; done",
    );
    check(
        "primaries 1 2 3 r 1 > ask 1 value
         incomplete 1 v5 > ask 2 value
         found 2 v4 > ok v5 [2]; repair 2 v5; done",
    );
    check(
        "primaries 1 2 3 r 1 > ask 1 value
         incomplete 1 none > ask 2 value
         found 2 v4 > ok v4 [2]; repair 1 v4; done",
    );
    check(
        "primaries 1 2 r 2 > ask 1 value; ask 2 version
         incomplete 1 v5 > failed 0/2 unknown []
         found 2 none > repair 2 v5; done",
    );
}

#[test]
fn refused_by_all_is_failed_and_by_some_unknown() {
    check(
        "primaries 1 2 -3 r 1 > ask 1 value
         unsent 1 > ask 2 value
         refuse 2 NotServing > failed 0/1 failed [2:NotServing]; done",
    );
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         refuse 1 Storage > ask 3 value
         lost 3 > failed 0/2 unknown [1:Storage]
         found 2 none > done",
    );
}

#[test]
fn silence_times_out() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         found 2 #5 > -
         deadline > timeout 1/2 unknown; done
         found 1 v5 > -",
    );
}

#[test]
fn an_answer_that_arrives_with_the_deadline_counts() {
    check(
        "primaries 1 r 1 > ask 1 value
         wait 999 > -
         found 1 v5 > ok v5 [1]; done",
    );
    let mut reading = begin("primaries 1 r 1");
    while reading.read.poll().is_some() {}
    reading.read.on_found(NodeId(1), found("v5", true), DEADLINE);
    assert_eq!(reading.poll_text().as_deref(), Some("ok v5 [1]"));
    assert!(reading.read.is_done());
}

#[test]
fn the_machine_asks_to_be_woken_for_hedges_and_the_deadline() {
    let mut read = begin("primaries 1 2 3 r 1 hedge 10").read;
    while read.poll().is_some() {}
    assert_eq!(read.next_deadline(), Some(Moment(10_000)));
    read.on_tick(Moment(12_000));
    while read.poll().is_some() {}
    assert_eq!(read.next_deadline(), Some(Moment(22_000)));
    read.on_found(NodeId(2), found("v5", true), Moment(13_000));
    while read.poll().is_some() {}
    assert_eq!(read.next_deadline(), Some(DEADLINE), "the first may yet reply");
    read.on_found(NodeId(1), found("v5", true), Moment(14_000));
    assert_eq!(read.next_deadline(), None);
}
