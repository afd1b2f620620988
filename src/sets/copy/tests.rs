//! What a copy carries, what is taken for one, and how it is made: with EC2 in memory and a clock of its own.

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tokio::sync::watch;

use super::existing::{Existing, existing};
use super::forecast::{Expected, forecast};
use super::make::{Copied, Making, PartState, UNSURE, explained};
use super::source::{KEY_TAG, Part, Source};
use super::*;
use crate::clock::{Clock, Pause};
use crate::ec2::copies::{Copies, CopyRequest};
use crate::ec2::images::SnapshotResult;
use crate::ec2::keep::{Binned, ImageUse, Keep, Lock, LockView, Page, Permission, TierView, Wanted};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, RUN_TAG, SnapshotView, TaggedSnapshot};
use crate::ids::{ImageId, InstanceId, RunId, SnapshotId};
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::sets::layout::layout;
use crate::sets::ledger::{FAULT_TAG, VERIFIED_TAG};
use crate::sets::lines::{SetFilesystem, SetVolume};
use crate::sets::read::tests::taken;
use crate::sets::read::{DELETING_TAG, Gathered, KEEP_TAG, SOURCE_TAG};
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tags::tests::{filesystem, plan, volume};
use crate::sets::tags::{MAX_TAGS, Tag};

const HERE: &str = "eu-west-1";
const THERE: &str = "us-east-1";
const NO_VOLUME: &str = "vol-ffffffff";

fn planned(volumes: usize) -> Plan {
    let volumes: Vec<_> = (0..volumes).map(volume).collect();
    let mounts = volumes.iter().enumerate().map(|(n, v)| {
        let mut planned = filesystem(n);
        planned.volumes = vec![v.id.clone()];
        planned
    });
    plan(mounts.collect(), volumes.clone())
}

fn sets_of(region: &str, snapshots: &[TaggedSnapshot]) -> Vec<SnapshotSet> {
    let mut gathered = Gathered::of(region);
    snapshots.iter().cloned().for_each(|s| gathered.add(s));
    let (sets, strangers) = gathered.sets();
    assert!(strangers.is_empty(), "{strangers:?}");
    sets
}

/// A set of so many volumes, changed before it is read.
fn changed(
    volumes: usize,
    change: impl Fn(&mut Vec<TaggedSnapshot>),
) -> Result<(Source, Vec<TaggedSnapshot>), String> {
    let mut snapshots = taken(&RunId::generate(), &planned(volumes), true);
    change(&mut snapshots);
    let set = sets_of(HERE, &snapshots).remove(0);
    Source::of(&set, &snapshots).map(|s| (s, snapshots)).map_err(|r| r.what)
}

fn source(volumes: usize) -> Source {
    changed(volumes, |_| {}).expect("it can be copied").0
}

fn plain() -> How {
    How { encryption: Encryption::AsSource, asked: None, minutes: None, by_default: ByDefault::Off }
}

/// A copy, as EC2 shows it.
fn shown(n: usize, tags: Vec<Tag>, state: &str) -> TaggedSnapshot {
    let view = SnapshotView {
        id: format!("snap-{:017x}", 0xc0_0000 + n).parse().unwrap(),
        volume: NO_VOLUME.parse().unwrap(),
        state: state.to_owned().into(),
        started: Some("2026-11-30T03:00:00Z".parse().unwrap()),
        progress: None,
    };
    TaggedSnapshot { view, tags, detail: Default::default() }
}

fn copies(source: &Source, run: &RunId, key: Option<&str>, state: &str) -> Vec<TaggedSnapshot> {
    let one = |part: &Part| shown(part.number, source.tags(part, run, key).tags, state);
    source.parts.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// From the copy alone, all of the set: up to 128 volumes, with as many tags as EC2 allows at the source.
    #[test]
    fn a_copy_reads_back_as_its_source(volumes in 1_usize..=128, own in 0_usize..50, keyed in any::<bool>()) {
        let fill = |snapshots: &mut Vec<TaggedSnapshot>| for s in snapshots {
            let more = own.min(MAX_TAGS - s.tags.len());
            s.tags.extend((0..more).map(|n| (format!("Team{n}"), "x".to_owned())));
        };
        let (source, snapshots) = changed(volumes, fill).unwrap();
        let (run, key) = (RunId::generate(), keyed.then_some("alias/backup"));
        let copies = copies(&source, &run, key, "completed");
        for copy in &copies {
            prop_assert!(copy.tags.len() < MAX_TAGS, "room for the mark of a removal");
            let mut keys: Vec<_> = copy.tags.iter().map(|(k, _)| k).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), copy.tags.len());
        }
        let sets = sets_of(THERE, &copies);
        let [set] = &sets[..] else { panic!("{sets:?}") };
        let of = set.copy_of.as_ref().unwrap();
        prop_assert_eq!((&set.id, &of.id, of.region.as_str()), (&run, &source.set.id, HERE));
        prop_assert_eq!((set.time, set.label(), set.state()), (source.set.time, source.set.label(), SetState::Completed));
        prop_assert!(set.doubts.is_empty() && set.missing.is_empty());
        let volumes = |s: &SnapshotSet| s.members.iter().map(|m| m.volume_id.clone()).collect::<Vec<_>>();
        prop_assert_eq!(volumes(set), volumes(&source.set));
        let of = |all: &[TaggedSnapshot]| layout(all.iter().map(|s| s.tags.as_slice())).unwrap();
        prop_assert_eq!(of(&copies), of(&snapshots));
        let planned = planned(source.parts.len());
        prop_assert_eq!(of(&copies).volumes, planned.volumes.iter().map(SetVolume::from).collect::<Vec<_>>());
        prop_assert_eq!(of(&copies).filesystems, planned.filesystems.iter().map(SetFilesystem::from).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_about_the_source_alone_is_not_carried() {
    let mark = |snapshots: &mut Vec<TaggedSnapshot>| {
        for s in snapshots {
            for key in [
                KEEP_TAG,
                VERIFIED_TAG,
                FAULT_TAG,
                "aws:backup:source-resource",
                "dlm:managed",
                KEY_TAG,
                "Team",
            ] {
                s.tags.push((key.into(), "forever".into()));
            }
        }
    };
    let (source, _) = changed(1, mark).unwrap();
    let copy = source.tags(&source.parts[0], &RunId::generate(), None);
    let has = |key: &str| copy.tags.iter().any(|(k, _)| k == key);
    assert!(!has(VERIFIED_TAG) && !has(FAULT_TAG), "its data is another one");
    assert!(!has(KEEP_TAG) && !has("aws:backup:source-resource") && !has("dlm:managed") && !has(KEY_TAG));
    assert!(has("Team") && has(SOURCE_TAG) && copy.left_out.is_empty());
    // A copy of a copy names the copy.
    let first = copies(&source, &RunId::generate(), Some("default"), "completed");
    let set = sets_of(THERE, &first).remove(0);
    let second = Source::of(&set, &first).unwrap();
    let again = copies(&second, &RunId::generate(), None, "completed");
    let set_again = sets_of("ap-south-1", &again).remove(0);
    assert_eq!(set_again.copy_of.unwrap().id, set.id);
    assert_eq!(set_again.time, source.set.time);
}

#[test]
fn what_cannot_be_copied_is_seen_before_anything_is_asked_for() {
    type Change = fn(&mut Vec<TaggedSnapshot>);
    let cases: [(&str, Change); 8] = [
        ("is not completed yet", |s| s[1].view.state = "pending".into()),
        ("is in error", |s| s[1].view.state = "error".into()),
        ("is not complete: there is no snapshot of", |s| drop(s.remove(0))),
        ("is being removed", |s| s[0].tags.push((DELETING_TAG.into(), "prune".into()))),
        ("in the archive", |s| s[1].detail.archived = true),
        ("is doubtful", |s| s[1].tags.push((KEEP_TAG.into(), "forever".into()))),
        ("has no label yet", |s| {
            s.iter_mut().for_each(|s| s.tags.retain(|(k, _)| k != "stillpoint:consistency"));
        }),
        ("could not be restored from a copy", |s| {
            s.iter_mut().for_each(|s| s.tags.retain(|(k, _)| k != "stillpoint:fs.0"));
        }),
    ];
    for (what, change) in cases {
        let said = changed(2, change).expect_err(what);
        assert!(said.contains(what), "{what}: {said}");
    }
    let newer = changed(2, |s| {
        for s in s {
            s.tags.retain(|(k, _)| k != "stillpoint:schema");
            s.tags.push(("stillpoint:schema".into(), "99".into()));
        }
    });
    assert!(newer.expect_err("newer").contains("version 99"));
}

#[test]
fn what_is_there_already_is_known_by_its_source_and_its_key() {
    let source = source(2);
    let look = |found: &[TaggedSnapshot], key| existing(&source, THERE, found, key);
    let (one, two) = (RunId::generate(), RunId::generate());
    let whole = copies(&source, &one, None, "completed");
    assert_eq!(look(&whole, None).whole.map(|s| s.id), Some(one.clone()));
    assert_eq!(look(&whole, Some("alias/x")), Existing { whole: None, started: None, lost: vec![] });
    let pending = copies(&source, &two, Some("alias/x"), "pending");
    let both: Vec<_> = whole.iter().chain(&pending[..1]).cloned().collect();
    assert_eq!(look(&both, Some("alias/x")).started.map(|s| s.id), Some(two.clone()));
    assert_eq!(look(&both, None).whole.map(|s| s.id), Some(one.clone()));
    let mut failed = copies(&source, &two, None, "completed");
    failed[1].view.state = "error".into();
    let found = look(&failed, None);
    assert_eq!((found.whole, found.started, found.lost.len()), (None, None, 1));
    let mut removed = copies(&source, &two, None, "completed");
    removed[0].tags.push((DELETING_TAG.into(), "prune".into()));
    assert!(look(&removed, None).whole.is_none(), "somebody removes it");
    let other = super::tests::source(2);
    assert_eq!(look(&copies(&other, &one, None, "completed"), None).whole, None, "of another set");
}

#[test]
fn incremental_is_what_ec2_has_the_base_of() {
    let (mut old, mut new) = (source(1), source(1));
    old.set.time = Some("2026-11-28T03:00:00Z".parse().unwrap());
    new.parts[0].full_bytes = Some(10 << 30);
    let key = "arn:aws:kms:us-east-1:1:key/a";
    let of = |new: &Source, how: &How, there: &[TaggedSnapshot], same| {
        forecast(new, how, there, same).parts.remove(0)
    };
    let named = How { encryption: Encryption::Key(key.into()), asked: Some(key.into()), ..plain() };
    let full = |said: Expected| matches!(said, Expected::Full(_));
    assert!(full(of(&new, &plain(), &[], false)), "the first one");
    assert_eq!(of(&new, &plain(), &[], true), Expected::Incremental(None));
    assert!(full(of(&new, &named, &[], true)), "another key");
    let by = |by_default| How { by_default, ..plain() };
    assert!(full(of(&new, &by(ByDefault::On("alias/x".into())), &[], true)), "the account encrypts it");
    let not_known = |said: Expected| matches!(said, Expected::NotKnown(_));
    assert!(not_known(of(&new, &by(ByDefault::NotKnown), &[], true)), "perhaps it does");
    let mut there = copies(&old, &RunId::generate(), None, "completed");
    let base = Expected::Incremental(Some(there[0].view.id.clone()));
    assert_eq!(of(&new, &plain(), &there, false), base);
    assert!(full(of(&new, &named, &there, false)), "the base is not encrypted");
    assert!(
        full(of(&new, &by(ByDefault::On(key.into())), &there, false)),
        "the base is not, and the copy is"
    );
    assert!(not_known(of(&new, &by(ByDefault::NotKnown), &there, false)), "perhaps the copy is");
    there[0].detail.archived = true;
    assert!(full(of(&new, &plain(), &there, false)), "the base is in the archive");
    there[0].detail.archived = false;
    (there[0].detail.encrypted, there[0].detail.kms_key) = (true, Some(key.into()));
    assert_eq!(of(&new, &named, &there, false), base);
    assert_eq!(
        of(&new, &by(ByDefault::On(key.into())), &there, false),
        base,
        "the account's key is the base's"
    );
    there[0].view.state = "pending".into();
    assert!(matches!(of(&new, &named, &there, false), Expected::NotKnown(_)));
    let all = forecast(&new, &plain(), &[], false);
    assert_eq!((all.full_bytes, all.least), (Some(10 << 30), Some(Duration::from_secs(20))));
}

#[test]
fn late_errors_come_with_what_to_do() {
    assert!(explained("Given key ID is not accessible").unwrap().contains("kms:DescribeKey"));
    assert!(explained("Source snapshot is not complete").unwrap().contains("stillpoint wait"));
    assert!(explained("Source snapshot is not found").unwrap().contains("not shared"));
    assert_eq!(explained("Something new"), None);
}

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

/// What EC2 does with the calls that copy, by their number from 0.
type Script = Box<dyn Fn(usize) -> Answer>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Made, and shown after this time.
    Made(Duration),
    /// Made, shown after this time, and the answer is lost.
    Lost(Duration),
    /// Not made, and the answer is lost.
    Dropped,
    /// Made, and it fails.
    Fails,
    Refused(&'static str),
}

/// EC2 at the destination: 20 copies at once, each of which takes ten seconds.
struct Made<'a> {
    clock: &'a Passing,
    script: Script,
    calls: RefCell<usize>,
    made: RefCell<Vec<(CopyRequest, Duration, Duration, bool)>>,
    most: RefCell<usize>,
}

const TAKES: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::ZERO;

impl<'a> Made<'a> {
    fn new(clock: &'a Passing, script: impl Fn(usize) -> Answer + 'static) -> Self {
        let (calls, made, most) = Default::default();
        Self { clock, script: Box::new(script), calls, made, most }
    }

    fn state(&self, at: Duration, fails: bool) -> &'static str {
        match self.clock.elapsed() {
            now if now < at + TAKES => "pending",
            _ if fails => "error",
            _ => "completed",
        }
    }
}

impl Copies for Made<'_> {
    async fn copy(&self, request: &CopyRequest) -> Result<SnapshotId, Ec2Error> {
        let n = self.calls.replace_with(|n| *n + 1);
        let now = self.clock.elapsed();
        let pending = self.made.borrow().iter().filter(|(_, at, _, _)| now < *at + TAKES).count();
        if pending >= 20 {
            return Err(Ec2Error::refused("CopySnapshot", "ResourceLimitExceeded", "20 at once"));
        }
        let answer = (self.script)(n);
        let (shown, fails) = match answer {
            Answer::Made(after) | Answer::Lost(after) => (after, false),
            Answer::Fails => (SOON, true),
            Answer::Dropped => return Err(Ec2Error::unknown("CopySnapshot", "lost")),
            Answer::Refused(code) => return Err(Ec2Error::refused("CopySnapshot", code, "no")),
        };
        let mut made = self.made.borrow_mut();
        made.push((request.clone(), now, now + shown, fails));
        let most = (*self.most.borrow()).max(pending + 1);
        *self.most.borrow_mut() = most;
        match answer {
            Answer::Lost(_) => Err(Ec2Error::unknown("CopySnapshot", "lost")),
            _ => Ok(format!("snap-{:017x}", 0xc0_0000 + made.len() - 1).parse().unwrap()),
        }
    }

    async fn may_copy(&self, _: &CopyRequest) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn encrypts_by_default(&self) -> Result<bool, Ec2Error> {
        unasked()
    }

    async fn default_key(&self) -> Result<String, Ec2Error> {
        Ok("alias/aws/ebs".into())
    }
}

fn unasked<T>() -> Result<T, Ec2Error> {
    Err(Ec2Error::unknown("-", "nothing of this is asked for here"))
}

impl Keep for Made<'_> {
    fn region(&self) -> &str {
        THERE
    }

    async fn page(&self, wanted: &Wanted, _: Option<&str>) -> Result<Page, Ec2Error> {
        let Wanted::Tagged(tags) = wanted else { return unasked() };
        let now = self.clock.elapsed();
        let made = self.made.borrow();
        let all = made.iter().enumerate().filter(|(_, (_, _, from, _))| *from <= now);
        let all = all.map(|(n, (request, at, _, fails))| {
            let mut one = shown(n, request.tags.clone(), self.state(*at, *fails));
            one.detail.message = Some("Metadata not updated".into());
            one
        });
        let all = all.filter(|s| tags.iter().all(|t| s.tags.contains(t))).collect();
        Ok(Page { snapshots: all, next: None })
    }

    async fn clocks(&self) -> Result<(Timestamp, Timestamp), Ec2Error> {
        unasked()
    }
    async fn images(&self, _: &[SnapshotId]) -> Result<Vec<ImageUse>, Ec2Error> {
        unasked()
    }
    async fn locks(&self, _: &[SnapshotId]) -> Result<Vec<LockView>, Ec2Error> {
        unasked()
    }
    async fn shared_with(&self, _: &SnapshotId) -> Result<Vec<String>, Ec2Error> {
        unasked()
    }
    async fn permit(&self, _: &SnapshotId, _: Permission, _: &[String]) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn public_access(&self) -> Result<String, Ec2Error> {
        unasked()
    }
    async fn lock(&self, _: &SnapshotId, _: &Lock) -> Result<LockView, Ec2Error> {
        unasked()
    }
    async fn unlock(&self, _: &SnapshotId) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn tiers(&self, _: &[SnapshotId]) -> Result<Vec<TierView>, Ec2Error> {
        unasked()
    }
    async fn archive(&self, _: &SnapshotId) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn unarchive(&self, _: &SnapshotId, _: Option<u32>) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn regions(&self) -> Result<Vec<String>, Ec2Error> {
        unasked()
    }
    async fn instances(&self, _: &[InstanceId]) -> Result<Vec<InstanceId>, Ec2Error> {
        unasked()
    }
    async fn bin(&self) -> Result<Vec<Binned>, Ec2Error> {
        unasked()
    }
    async fn put_tags(&self, _: &[SnapshotId], _: &[Tag]) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn remove_tags(&self, _: &[SnapshotId], _: &[&str]) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn delete(&self, _: &SnapshotId) -> Result<(), Ec2Error> {
        unasked()
    }
    async fn deregister_image(&self, _: &ImageId) -> Result<Vec<SnapshotResult>, Ec2Error> {
        unasked()
    }
    async fn undelete(&self, _: &SnapshotId) -> Result<(), Ec2Error> {
        unasked()
    }
}

/// Copies so many volumes; what became of them, how many calls and copies there were, and how many at once.
async fn run(volumes: usize, script: impl Fn(usize) -> Answer + 'static) -> (Copied, usize, usize, usize) {
    run_as(volumes, Interrupt::never(), true, script).await
}

async fn run_as(
    volumes: usize,
    interrupt: Interrupt,
    wait: bool,
    script: impl Fn(usize) -> Answer + 'static,
) -> (Copied, usize, usize, usize) {
    let (clock, source) = (Passing::default(), source(volumes));
    let ec2 = Made::new(&clock, script);
    let calls = Repeating::new(&ec2, &clock, Duration::from_secs(5));
    let (run, how) = (RunId::generate(), plain());
    let making = Making {
        ec2: &calls,
        clock: &clock,
        interrupt,
        source: &source,
        run,
        how: &how,
        wait,
        tell: &|_| {},
    };
    let copied = making.make(&[], false).await;
    let mut sources: Vec<_> = ec2.made.borrow().iter().map(|(r, ..)| r.source.clone()).collect();
    let made = sources.len();
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), made, "nothing is copied twice");
    for (request, ..) in ec2.made.borrow().iter() {
        assert!(request.tags.contains(&(RUN_TAG.to_owned(), copied.run.to_string())), "{request:?}");
    }
    (copied, *ec2.calls.borrow(), made, *ec2.most.borrow())
}

#[tokio::test]
async fn no_more_than_twenty_at_once_and_all_in_the_end() {
    let (copied, calls, made, most) = run(128, |_| Answer::Made(SOON)).await;
    assert!(copied.completed(), "{copied:?}");
    assert_eq!((calls, made, most), (128, 128, 20));
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_nothing_is_made_twice() {
    // Each third answer is lost; what it made is shown at once, or almost too late.
    for late in [SOON, UNSURE - Duration::from_secs(3)] {
        let script = move |n| if n % 3 == 0 { Answer::Lost(late) } else { Answer::Made(late) };
        let (copied, calls, made, _) = run(25, script).await;
        assert!(copied.completed(), "{copied:?}");
        assert_eq!((calls, made), (25, 25), "{late:?}");
    }
}

#[tokio::test]
async fn what_was_not_made_is_asked_for_again_once_that_is_certain() {
    let (copied, calls, made, _) =
        run(3, |n| if n == 1 { Answer::Dropped } else { Answer::Made(SOON) }).await;
    assert!(copied.completed(), "{copied:?}");
    assert_eq!((calls, made), (4, 3));
}

#[tokio::test]
async fn a_copy_that_fails_ends_the_asking_and_the_others_are_followed() {
    let (copied, calls, made, _) = run(25, |n| if n == 3 { Answer::Fails } else { Answer::Made(SOON) }).await;
    assert!(!copied.completed() && !copied.accepted());
    assert_eq!((calls, made), (20, 20), "the last five would be paid for in vain");
    let state = |n: usize| &copied.parts[n].state;
    assert_eq!(*state(3), PartState::Error("Metadata not updated".into()));
    assert_eq!((state(0), state(24)), (&PartState::Completed, &PartState::Open));
}

#[tokio::test]
async fn a_refusal_ends_the_asking_and_what_was_made_is_followed() {
    let (copied, calls, made, _) = run(9, |n| match n {
        2 => Answer::Refused("UnauthorizedOperation"),
        _ => Answer::Made(SOON),
    })
    .await;
    assert_eq!((calls, made), (3, 2));
    assert!(copied.stopped.as_ref().is_some_and(Ec2Error::denied) && !copied.nothing());
    assert_eq!(copied.parts[1].state, PartState::Completed);
    let (nothing, calls, ..) = run(9, |_| Answer::Refused("UnauthorizedOperation")).await;
    assert!(nothing.nothing() && calls == 1);
}

#[tokio::test]
async fn to_be_throttled_is_a_part_of_the_work() {
    let (copied, _, made, _) = run(9, |n| match n % 4 {
        2 => Answer::Refused("RequestLimitExceeded"),
        _ => Answer::Made(SOON),
    })
    .await;
    assert!(copied.completed() && made == 9, "{copied:?}");
}

#[tokio::test]
async fn a_signal_ends_the_waiting() {
    let (tx, rx) = watch::channel(Some(nix::sys::signal::Signal::SIGTERM));
    let (copied, calls, ..) = run_as(3, Interrupt::by(rx), true, |_| Answer::Made(SOON)).await;
    drop(tx);
    assert_eq!((copied.signal, calls), (Some(nix::sys::signal::Signal::SIGTERM), 0));
    assert!(!copied.completed() && copied.nothing());
}

#[tokio::test]
async fn without_waiting_it_returns_when_all_are_asked_for() {
    let (copied, calls, ..) = run_as(3, Interrupt::never(), false, |_| Answer::Made(SOON)).await;
    assert!(copied.accepted() && !copied.completed());
    assert_eq!(calls, 3);
    // Those beyond EC2's limit are asked for first.
    let (copied, ..) = run_as(21, Interrupt::never(), false, |_| Answer::Made(SOON)).await;
    assert!(copied.accepted() && !copied.completed());
}
