use super::super::Fault;
use super::*;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

fn start(held: &Held, request: u64, id: u64) -> tokio::task::JoinHandle<()> {
    start_for(LONG, held, request, id)
}

fn start_for(at_most: Duration, held: &Held, request: u64, id: u64) -> tokio::task::JoinHandle<()> {
    let mut fault = Fault::new("CreateSnapshots", Kind::HoldBefore);
    fault.at_most_ms = u64::try_from(at_most.as_millis()).ok();
    tokio::spawn(held.hold(request, "CreateSnapshots", &Hit { id, fault }).until_released())
}

fn numbers(held: &[HeldRequest]) -> Vec<u64> {
    held.iter().map(|request| request.request).collect()
}

#[tokio::test]
async fn a_request_waits_until_its_own_fault_is_released() {
    let held = Held::default();
    let (one, other) = (start(&held, 7, 1), start(&held, 8, 2));
    assert_eq!(numbers(&held.wait(1, 1, LONG).await), [7]);
    assert_eq!(numbers(&held.wait(2, 1, LONG).await), [8]);
    assert_eq!(held.release(3), 0);
    assert_eq!(held.release(1), 1);
    one.await.expect("it goes on");
    assert!(!other.is_finished());
    assert_eq!(numbers(&held.list()), [8]);
    assert_eq!(held.release(1), 0, "a second time there is nothing to release");
    held.release_all();
    other.await.expect("it goes on");
}

#[tokio::test]
async fn it_waits_for_as_many_as_are_asked_for_but_not_for_ever() {
    let held = Held::default();
    let waits = tokio::spawn({
        let held = held.clone();
        async move { held.wait(1, 2, LONG).await }
    });
    start(&held, 1, 1);
    assert_eq!(numbers(&held.wait(1, 1, LONG).await), [1]);
    assert_eq!(numbers(&held.wait(1, 2, SHORT).await), [1], "what there is when the time is up");
    assert!(!waits.is_finished());
    start(&held, 2, 1);
    assert_eq!(numbers(&waits.await.expect("it ends")), [1, 2]);
    assert_eq!(held.release(1), 2);
}

#[tokio::test]
async fn what_nobody_releases_goes_on_by_itself() {
    assert_eq!(Fault::new("*", Kind::HoldAfter).at_most(), Duration::from_secs(60));
    let held = Held::default();
    start_for(SHORT, &held, 1, 1).await.expect("it goes on");
    assert_eq!(held.list(), []);
    assert_eq!(held.release(1), 0);
}

#[tokio::test]
async fn a_hold_that_is_given_up_holds_nothing() {
    let held = Held::default();
    let task = start(&held, 1, 1);
    assert_eq!(held.wait(1, 1, LONG).await.len(), 1);
    task.abort();
    assert!(task.await.expect_err("it was given up").is_cancelled());
    assert_eq!(held.list(), []);
}
