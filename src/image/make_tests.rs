use std::cell::RefCell;
use std::sync::Mutex;

use jiff::Timestamp;
use tokio::sync::watch;

use super::*;
use crate::clock::Pause;
use crate::ec2::images::{IMAGE_OF_TAG, ImageRequest, Machine, PublicImages, SnapshotResult};
use crate::ec2::keep::Permission;
use crate::ids::InstanceId;
use crate::image::plan::tests::{planned, view};
use crate::sets::set::SnapshotSet;
use crate::sets::set::tests_support::set;

/// Time that passes where it is waited for.
#[derive(Debug, Default)]
struct Passing(Mutex<Duration>);

impl Clock for Passing {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn pause(&self, time: Duration) -> Pause<'_> {
        *self.0.lock().unwrap() += time;
        Box::pin(std::future::ready(()))
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Registered, and shown after this time.
    Made(u64),
    /// The same, and the answer is lost.
    Lost(u64),
    /// Not registered, and the answer is lost.
    Dropped,
    Refused(&'static str),
}

/// EC2 that gives each name once.
struct Made2<'a> {
    clock: &'a Passing,
    set: SnapshotSet,
    script: Vec<Answer>,
    calls: RefCell<usize>,
    /// The images, and when each is shown.
    images: RefCell<Vec<(ImageView, Duration)>>,
    change: fn(&mut ImageView),
    deregistered: RefCell<usize>,
}

impl<'a> Made2<'a> {
    fn new(clock: &'a Passing, script: &[Answer], change: fn(&mut ImageView)) -> Self {
        let (calls, images, deregistered) = Default::default();
        Self { clock, set: set(2), script: script.to_vec(), calls, images, change, deregistered }
    }
}

fn unasked<T>() -> Result<T, Ec2Error> {
    Err(Ec2Error::unknown("-", "nothing of this is asked for here"))
}

impl Images for Made2<'_> {
    async fn own_images(&self, which: &WhichImages) -> Result<Vec<ImageView>, Ec2Error> {
        let now = self.clock.elapsed();
        let wanted = |i: &ImageView| match which {
            WhichImages::Named(name) => i.name == *name,
            WhichImages::Ids(ids) => ids.contains(&i.id),
            WhichImages::OfSets => true,
        };
        let images = self.images.borrow();
        let shown = images.iter().filter(|(i, from)| *from <= now && wanted(i));
        Ok(shown.map(|(i, _)| i.clone()).collect())
    }

    async fn register(&self, request: &ImageRequest) -> Result<ImageId, Ec2Error> {
        let n = self.calls.replace_with(|n| *n + 1);
        let lost = || Err(Ec2Error::unknown("RegisterImage", "lost"));
        let answer = self.script.get(n).copied().unwrap_or(Answer::Made(0));
        let after = match answer {
            Answer::Made(after) | Answer::Lost(after) => after,
            Answer::Dropped => return lost(),
            Answer::Refused(code) => return Err(Ec2Error::refused("RegisterImage", code, "no")),
        };
        let taken = self.images.borrow().iter().any(|(i, _)| i.name == request.name);
        if taken {
            return Err(Ec2Error::refused("RegisterImage", "InvalidAMIName.Duplicate", "taken"));
        }
        let mut image = view(&self.set);
        (self.change)(&mut image);
        let id = image.id.clone();
        self.images.borrow_mut().push((image, self.clock.elapsed() + Duration::from_secs(after)));
        if matches!(answer, Answer::Lost(_)) { lost() } else { Ok(id) }
    }

    async fn deregister(&self, id: &ImageId, _: bool) -> Result<Vec<SnapshotResult>, Ec2Error> {
        self.images.borrow_mut().retain(|(i, _)| i.id != *id);
        self.deregistered.replace_with(|n| *n + 1);
        Ok(Vec::new())
    }

    async fn label_image(&self, id: &ImageId, tags: &[(String, String)]) -> Result<(), Ec2Error> {
        for (image, _) in self.images.borrow_mut().iter_mut().filter(|(i, _)| i.id == *id) {
            image.tags.extend(tags.iter().cloned());
        }
        Ok(())
    }

    async fn machine(&self, _: &InstanceId) -> Result<Option<Machine>, Ec2Error> {
        unasked()
    }
    async fn uefi_data(&self, _: &InstanceId) -> Result<Option<String>, Ec2Error> {
        unasked()
    }
    async fn any_image(&self, _: &ImageId) -> Result<Option<ImageView>, Ec2Error> {
        unasked()
    }
    async fn may_register(&self, _: &ImageRequest) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn launched_by(&self, _: &ImageId) -> Result<Vec<String>, Ec2Error> {
        unasked()
    }
    async fn permit_launch(&self, _: &ImageId, _: Permission, _: &[String]) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn public_images(&self) -> Result<PublicImages, Ec2Error> {
        unasked()
    }
    async fn deprecate(&self, _: &ImageId, _: Option<Timestamp>) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn disable(&self, _: &ImageId, _: bool) -> Result<(), Ec2Error> {
        unasked()
    }
}

async fn make(ec2: &Made2<'_>, interrupt: &Interrupt) -> Result<Made, Stopped> {
    let calls = Repeating::new(ec2, ec2.clock, Duration::from_secs(5));
    let making = Making { ec2: &calls, clock: ec2.clock, interrupt, wait: true, tell: &|_| {} };
    making.make(&planned(&ec2.set)).await
}

/// What became of it; calls; images that are left.
async fn run(script: &[Answer], change: fn(&mut ImageView)) -> (Result<Made, Stopped>, usize, usize) {
    let clock = Passing::default();
    let ec2 = Made2::new(&clock, script, change);
    let made = make(&ec2, &Interrupt::never()).await;
    (made, *ec2.calls.borrow(), ec2.images.borrow().len())
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_no_second_image_is_made() {
    for late in [0, 10, 25, 60] {
        let (made, calls, images) = run(&[Answer::Lost(late)], |_| ()).await;
        assert!(made.is_ok_and(|m| m.differences.is_empty()), "{late}");
        // What is shown late makes a second call, which EC2 answers with the name.
        assert_eq!((calls, images), (if late > 30 { 2 } else { 1 }, 1), "{late}");
    }
    let (made, calls, images) = run(&[Answer::Dropped], |_| ()).await;
    assert!(made.is_ok_and(|m| !m.there));
    assert_eq!((calls, images), (2, 1));
    let (made, calls, images) = run(&[Answer::Dropped, Answer::Dropped], |_| ()).await;
    assert!(matches!(made, Err(Stopped::Ec2(e)) if e.outcome_unknown()));
    assert_eq!((calls, images), (2, 0), "no third call");
}

#[tokio::test]
async fn what_ec2_does_not_show_at_once_is_waited_for_and_a_refusal_ends_it() {
    let (made, calls, _) = run(&[Answer::Made(40)], |_| ()).await;
    assert!(made.is_ok() && calls == 1);
    let (made, ..) = run(&[Answer::Made(200)], |_| ()).await;
    assert!(matches!(made, Err(Stopped::Here(why)) if why.contains("does not show")));
    let (made, calls, _) = run(&[Answer::Refused("UnauthorizedOperation")], |_| ()).await;
    assert!(matches!(made, Err(Stopped::Ec2(e)) if e.denied()) && calls == 1);
    let (made, calls, images) = run(&[Answer::Refused("RequestLimitExceeded")], |_| ()).await;
    assert!(made.is_ok() && calls == 2 && images == 1);
    for state in ["failed", "error", "invalid"] {
        let (made, ..) = match state {
            "failed" => run(&[], |i| (i.state, i.reason) = ("failed".into(), Some("no \u{1b}".into()))).await,
            "error" => run(&[], |i| i.state = "error".into()).await,
            _ => run(&[], |i| i.state = "invalid".into()).await,
        };
        assert!(matches!(&made, Err(Stopped::Here(why)) if why.contains(state) && !why.contains('\u{1b}')));
    }
}

#[tokio::test]
async fn another_price_is_taken_back_and_any_other_difference_is_told() {
    let (made, _, images) = run(&[], |i| i.billing.usage_operation = Some("RunInstances:0010".into())).await;
    let made = made.unwrap();
    assert!(made.discarded && images == 0, "{made:?}");
    let (made, _, images) = run(&[], |i| i.attributes.ena = false).await;
    let made = made.unwrap();
    assert!(!made.discarded && made.differences.len() == 1 && images == 1, "{made:?}");
}

#[tokio::test]
async fn the_same_name_is_made_once_and_never_of_something_else() {
    let clock = Passing::default();
    let ec2 = Made2::new(&clock, &[], |_| ());
    assert!(!make(&ec2, &Interrupt::never()).await.unwrap().there);
    assert!(ec2.images.borrow()[0].0.tag(COMPARED_TAG).is_some());
    assert!(make(&ec2, &Interrupt::never()).await.unwrap().there);
    assert_eq!(*ec2.calls.borrow(), 1);
    // Killed before it was compared: the next one does.
    ec2.images.borrow_mut()[0].0.tags.retain(|(k, _)| k != COMPARED_TAG);
    ec2.images.borrow_mut()[0].0.billing.platform_details = None;
    let old = make(&ec2, &Interrupt::never()).await.unwrap();
    assert!(!old.discarded && old.differences[0].billing, "of unknown age: somebody may use it");
    ec2.images.borrow_mut()[0].0.created = Some(Timestamp::UNIX_EPOCH);
    assert!(make(&ec2, &Interrupt::never()).await.unwrap().discarded);
    assert_eq!(*ec2.deregistered.borrow(), 1);
    // Another set's, by its tag or by its snapshots.
    for n in 0..2 {
        let mut other = view(&ec2.set);
        match n {
            0 => other.tags.retain(|(k, _)| k != IMAGE_OF_TAG),
            _ => other.mappings[0].snapshot = Some("snap-0123456789abcdef0".parse().unwrap()),
        }
        *ec2.images.borrow_mut() = vec![(other, Duration::ZERO)];
        let refused = make(&ec2, &Interrupt::never()).await;
        assert!(matches!(&refused, Err(Stopped::Here(why)) if why.contains("another image")), "{refused:?}");
    }
    assert_eq!((*ec2.calls.borrow(), ec2.images.borrow().len()), (1, 1));
}

#[tokio::test]
async fn a_name_that_is_taken_meanwhile_is_refused() {
    let clock = Passing::default();
    let ec2 = Made2::new(&clock, &[], |_| ());
    let mut other = view(&ec2.set);
    other.tags.clear();
    ec2.images.borrow_mut().push((other, Duration::from_secs(3)));
    let refused = make(&ec2, &Interrupt::never()).await;
    assert!(matches!(&refused, Err(Stopped::Here(why)) if why.contains("another image")), "{refused:?}");
    assert_eq!((*ec2.calls.borrow(), ec2.images.borrow().len()), (1, 1));
}

#[tokio::test]
async fn a_signal_ends_it_before_anything_is_registered() {
    let clock = Passing::default();
    let ec2 = Made2::new(&clock, &[], |_| ());
    let (tx, rx) = watch::channel(Some(nix::sys::signal::Signal::SIGTERM));
    let ended = make(&ec2, &Interrupt::by(rx)).await;
    drop(tx);
    assert!(matches!(ended, Err(Stopped::Signal(_))) && *ec2.calls.borrow() == 0);
}
