//! Reads whose reader has seen a version.

use super::check;

#[test]
fn one_goes_on_to_other_replicas_until_one_has_what_was_seen() {
    check(
        "primaries 1 2 3 r 1 least 5 > ask 1 value
         found 1 v5 > ok v5 [1]; done",
    );
    check(
        "primaries 1 2 3 r 1 least 5 > ask 1 value
         found 1 v4 > ask 2 value
         found 2 none > ask 3 value
         found 3 v7 > ok v7 [1 2 3]; repair 1 v7; repair 2 v7; done",
    );
}

#[test]
fn what_no_replica_has_is_not_answered_with_something_older() {
    check(
        "primaries 1 2 3 r 1 least 5 > ask 1 value
         found 1 v4 > ask 2 value
         found 2 v3 > ask 3 value
         found 3 none > behind 5 newest 4 of 3; done",
    );
    check(
        "primaries 1 2 -3 r 2 least 5 blocking > ask 1 value; ask 2 version
         found 2 none > -
         found 1 none > behind 5 newest none of 2; done",
    );
}

#[test]
fn a_quorum_asks_one_more_and_mends_the_others_before_it_answers() {
    check(
        "primaries 1 2 3 r 2 least 5 blocking > ask 1 value; ask 2 version
         found 1 v4 > ask 3 value
         found 2 #4 > -
         found 3 v5 > mend 1 v5; mend 2 v5
         repaired 1 > ok v5 [1 2 3] repaired [1]; done",
    );
}

#[test]
fn a_version_that_is_found_has_its_value_fetched() {
    check(
        "primaries 1 2 r 2 least 5 blocking > ask 1 value; ask 2 version
         found 2 #5 > -
         found 1 v4 > ask 2 value
         found 2 v5 > mend 1 v5
         repaired 1 > ok v5 [1 2] repaired [1]; done",
    );
}

#[test]
fn a_refusal_for_a_newer_ring_is_told_as_such() {
    check(
        "primaries 1 2 r 1 least 5 > ask 1 value
         found 1 v4 > ask 2 value
         refuse 2 StaleRing > failed 0/1 unknown [2:StaleRing]; done",
    );
}

#[test]
fn one_that_stays_silent_may_have_it_so_the_read_waits() {
    check(
        "primaries 1 2 r 1 least 5 > ask 1 value
         found 1 v4 > ask 2 value
         deadline > timeout 0/1 unknown; done",
    );
    check(
        "primaries 1 2 r 1 least 5 > ask 1 value
         found 1 v4 > ask 2 value
         lost 2 > behind 5 newest 4 of 1; done",
    );
}
