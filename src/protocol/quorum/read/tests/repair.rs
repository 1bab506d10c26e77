//! Repairs: awaited ones (`mend`) before the answer, others (`repair`) behind it.

use super::check;

#[test]
fn without_blocking_repair_the_answer_comes_first() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         found 1 v5 > -
         found 2 none > ok v5 [1 2]; repair 2 v5; done",
    );
}

#[test]
fn blocking_repair_waits_for_as_many_holders_as_are_required() {
    check(
        "primaries 1 2 3 r 3 blocking > ask 1 value; ask 2 version; ask 3 version
         found 1 v5 > -
         found 2 #4 > -
         found 3 none > mend 2 v5; mend 3 v5
         repaired 3 > -
         repaired 2 > ok v5 [1 2 3] repaired [2 3]; done",
    );
}

#[test]
fn with_enough_holders_the_stale_are_repaired_behind_the_answer() {
    check(
        "primaries 1 2 3 r 2 blocking hedge 10 > ask 1 value; ask 2 version
         wait 10 > ask 3 value
         found 2 #4 > -
         found 3 v5 > mend 2 v5
         found 1 v5 > ok v5 [1 2 3]; done",
    );
}

#[test]
fn a_repair_that_fails_is_made_up_for_by_one_unasked() {
    for event in ["unrepaired 2 DiskFull", "lost 2", "unsent 2"] {
        check(&format!(
            "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
             found 1 v5 > -
             found 2 #4 > mend 2 v5
             {event} > ask 3 version
             found 3 #4 > mend 3 v5
             repaired 3 > ok v5 [1 2 3] repaired [3]; done"
        ));
    }
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 v5 > -
         found 2 #4 > mend 2 v5
         lost 2 > ask 3 version
         found 3 #5 > ok v5 [1 2 3]; done",
    );
}

#[test]
fn a_repair_that_nobody_can_make_up_for_fails_early() {
    check(
        "primaries 1 2 -3 r 2 blocking > ask 1 value; ask 2 version
         found 1 v5 > -
         found 2 #4 > mend 2 v5
         unrepaired 2 DiskFull > failed 1/2 unknown [2:DiskFull]; done",
    );
}

#[test]
fn a_repair_that_is_never_acknowledged_times_out() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 v5 > -
         found 2 #4 > mend 2 v5
         wait 500 > -
         deadline > timeout 1/2 unknown; done
         repaired 2 > -",
    );
}

#[test]
fn a_newer_record_during_a_repair_is_repaired_in_turn() {
    check(
        "primaries 1 2 3 r 2 blocking hedge 10 > ask 1 value; ask 2 version
         wait 10 > ask 3 value
         found 1 v5 > -
         found 2 #4 > mend 2 v5
         found 3 v6 > mend 1 v6
         repaired 2 > mend 2 v6
         repaired 1 > ok v6 [1 2 3] repaired [1]; done",
    );
}

#[test]
fn late_replies_are_repaired_and_late_news_are_spread() {
    check(
        "primaries 1 2 3 r 1 hedge 10 > ask 1 value
         wait 10 > ask 2 value
         found 2 v5 > ok v5 [2]
         found 1 v4 > repair 1 v5; done",
    );
    check(
        "primaries 1 2 3 r 1 hedge 10 > ask 1 value
         wait 10 > ask 2 value
         found 2 v5 > ok v5 [2]
         found 1 t6 > repair 2 t6; done",
    );
}

#[test]
fn late_news_known_by_version_only_are_fetched_to_be_spread() {
    check(
        "primaries 1 2 3 r 2 hedge 10 > ask 1 value; ask 2 version
         found 1 v5 > -
         wait 10 > ask 3 version
         found 3 #5 > ok v5 [1 3]
         found 2 #6 > ask 2 value
         found 2 v6 > repair 1 v6; repair 3 v6; done",
    );
}

#[test]
fn a_corrupt_copy_counts_for_nothing_and_is_repaired() {
    check(
        "primaries 1 2 3 r 2 > ask 1 value; ask 2 version
         refuse 1 Corrupt > ask 3 value
         found 2 #5 > -
         found 3 v5 > ok v5 [2 3]; repair 1 v5; done",
    );
    check(
        "primaries 1 2 3 r 3 > ask 1 value; ask 2 version; ask 3 version
         refuse 1 Corrupt > failed 0/3 unknown [1:Corrupt]
         found 2 #5 > ask 2 value
         found 3 #4 > -
         found 2 v5 > repair 1 v5; repair 3 v5; done",
    );
}

#[test]
fn an_answer_that_proves_corrupt_counts_no_more() {
    check(
        "primaries 1 2 3 r 2 blocking > ask 1 value; ask 2 version
         found 1 v4 > -
         found 2 #5 > ask 2 value
         refuse 2 Corrupt > ask 3 value
         found 2 #5 > -
         found 3 v5 > mend 1 v5; mend 2 v5
         repaired 2 > ok v5 [1 3] repaired [2]; done",
    );
}
