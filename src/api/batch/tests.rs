use std::cell::Cell;

use bytes::Bytes;

use super::*;

fn answer(value: Option<Bytes>) -> ReadAnswer {
    ReadAnswer { value, ..ReadAnswer::default() }
}

#[tokio::test(start_paused = true)]
async fn slots_come_in_the_order_of_the_items() {
    let items: Vec<u64> = (0..200).collect();
    let slots = run(items, Duration::from_secs(60), |item| async move {
        // Later items finish first.
        tokio::time::sleep(Duration::from_millis(1000 - item)).await;
        item
    })
    .await;
    let expected: Vec<_> = (0..200).map(Slot::Done).collect();
    assert_eq!(slots, expected);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_bound_run_at_once() {
    let (running, most) = (Cell::new(0usize), Cell::new(0usize));
    run(vec![(); 500], Duration::from_secs(60), |()| async {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        tokio::time::sleep(Duration::from_millis(5)).await;
        running.set(running.get() - 1);
    })
    .await;
    assert_eq!(most.get(), CONCURRENCY_MAX);
}

#[tokio::test(start_paused = true)]
async fn when_the_time_is_up_each_item_knows_how_far_it_came() {
    let items: Vec<usize> = (0..CONCURRENCY_MAX + 2).collect();
    let slots = run(items, Duration::from_secs(1), |item| async move {
        let seconds = if item == 1 { 0 } else { 10 };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        item
    })
    .await;
    assert_eq!(slots[0], Slot::CutOff);
    assert_eq!(slots[1], Slot::Done(1));
    assert_eq!(slots[CONCURRENCY_MAX], Slot::CutOff, "started when item 1 was done");
    assert_eq!(slots[CONCURRENCY_MAX + 1], Slot::NotStarted);
}

#[tokio::test]
async fn an_empty_batch_is_done_at_once() {
    assert!(run(Vec::<()>::new(), Duration::from_secs(1), |()| async {}).await.is_empty());
}

#[test]
fn items_cut_off_are_told_apart() {
    let outcome = |slot: Slot<()>, known| slot.finished(known).err().map(|error| error.outcome);
    assert_eq!(outcome(Slot::Done(()), Outcome::Unknown), None);
    assert_eq!(outcome(Slot::CutOff, Outcome::Unknown).as_deref(), Some("unknown"));
    assert_eq!(outcome(Slot::CutOff, Outcome::Failed).as_deref(), Some("failed"));
    assert_eq!(outcome(Slot::NotStarted, Outcome::Unknown).as_deref(), Some("not-attempted"));
}

#[test]
fn too_many_items_name_the_limit_and_the_count() {
    let limits = Limits { batch_keys_max: 2, ..Limits::default() };
    assert_eq!(admit("keys", 2, &limits), Ok(()));
    let error = admit("keys", 3, &limits).expect_err("too many").to_string();
    assert_eq!(error, "keys: batch_keys_max is 2; got 3; send fewer at once");
}

#[test]
fn a_reply_is_full_when_its_bytes_are_spent() {
    let limits = Limits { value_bytes_max: 3 << 20, ..Limits::default() };
    let budget = ReplyBudget::new(&limits);
    let value = Bytes::from(vec![b'x'; 3 << 20]);
    let read = || get_result("k".to_owned(), Ok(answer(Some(value.clone()))));
    assert!(budget.check().is_ok());
    assert!(budget.admit(read()).found);
    let refused = budget.admit(read());
    assert!(!refused.found && refused.data.is_none());
    let error = refused.error.expect("the reply is full");
    assert_eq!((error.code.as_str(), error.outcome.as_str()), ("too_large", "not-attempted"));
    assert!(error.message.starts_with("batch_bytes_max is 4194304 bytes; got "), "{error:?}");
    assert!(budget.check().is_err());
}

#[test]
fn one_value_always_fits_and_its_limit_is_named_when_exceeded() {
    for value_bytes_max in [1 << 10, 1 << 20, 64 << 20] {
        let limits = Limits { value_bytes_max, ..Limits::default() };
        let value = Bytes::from(vec![0xff; value_bytes_max]);
        let budget = ReplyBudget::new(&limits);
        assert!(budget.admit(get_result("k".to_owned(), Ok(answer(Some(value))))).found);
        assert!(request_bytes_max(&limits) > value_bytes_max + limits.key_bytes_max);
    }
}

#[test]
fn results_tell_found_missing_and_failed_apart() {
    let found = get_result("k".to_owned(), Ok(answer(Some(Bytes::from_static(b"v")))));
    assert!(found.found && found.error.is_none() && found.receipt.is_some());
    let missing = get_result("k".to_owned(), Ok(answer(None)));
    assert!(!missing.found && missing.error.is_none() && missing.receipt.is_some());
    let error = RequestError::QuorumUnavailable { required: 2, reachable: 1 };
    let failed = get_result("k".to_owned(), Err(error::batch_error(&error)));
    let sent = failed.error.expect("an error");
    assert_eq!(sent.code, "quorum_unavailable");
    assert_eq!(sent.outcome, "not-attempted");
    assert!(failed.receipt.is_none() && !failed.found);
    let written = put_result("k".to_owned(), Ok(Receipt::default()));
    assert!(written.receipt.is_some() && written.error.is_none());
}
