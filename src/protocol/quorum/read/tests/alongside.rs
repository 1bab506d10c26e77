//! Reads of a key whose partition moves.

use super::check;

#[test]
fn those_that_answer_may_be_holders_enough_for_both_sets() {
    check(
        "primaries 1 2 3 4 r 2 blocking answering 3 alongside 1 2 4 hold 2 \
         > ask 1 value; ask 2 version
         found 1 v5 > -
         found 2 #5 > ok v5 [1 2]; done",
    );
}

#[test]
fn owners_to_come_are_asked_and_mended_before_the_answer() {
    check(
        "primaries 2 3 1 r 2 blocking answering 2 alongside 1 3 hold 2 \
         > ask 2 value; ask 3 version; ask 1 version
         found 2 v5 > -
         found 3 #4 > mend 3 v5
         found 1 #4 > mend 1 v5
         repaired 3 > -
         repaired 1 > ok v5 [2 3] repaired [3 1]; done",
    );
}

#[test]
fn what_only_an_owner_to_come_holds_is_the_answer_and_is_no_answer_that_counts() {
    check(
        "primaries 1 2 r 1 blocking answering 1 alongside 2 hold 1 > ask 1 value; ask 2 version
         found 2 #7 > -
         found 1 v5 > ask 2 value
         found 2 v7 > mend 1 v7
         repaired 1 > ok v7 [1] repaired [1]; done",
    );
}

#[test]
fn a_silent_owner_to_come_is_made_up_for_by_another() {
    check(
        "primaries 1 2 3 4 r 1 blocking hedge 10 answering 1 alongside 2 3 4 hold 2 \
         > ask 1 value; ask 2 version; ask 3 version
         found 1 v5 > -
         found 2 #5 > -
         wait 10 > ask 4 version
         found 4 #5 > ok v5 [1]
         found 3 #5 > done",
    );
}

#[test]
fn without_enough_owners_to_come_nothing_is_asked() {
    check("primaries 1 2 -3 r 2 blocking answering 2 alongside 2 3 hold 2 > unavailable 1/2; done");
}

#[test]
fn owners_to_come_that_refuse_leave_the_read_without_its_answer() {
    check(
        "primaries 1 2 r 1 blocking answering 1 alongside 2 hold 1 > ask 1 value; ask 2 version
         found 1 v5 > -
         refuse 2 StaleRing > failed 0/1 unknown [2:StaleRing]; done",
    );
}
