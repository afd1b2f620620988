//! Each state of a task, and what is said of it.

use std::cell::RefCell;

use jiff::Timestamp;

use super::*;
use crate::clock::Pause;
use crate::ec2::roots::RootRequest;

#[derive(Debug, Default)]
struct Quick(std::sync::Mutex<Duration>);

impl Clock for Quick {
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

/// Shows one list of tasks after the other, and the last for ever.
struct Shows(RefCell<Vec<Vec<RootTask>>>);

/// The same of the roots of an instance.
struct ShowsRoots(RefCell<Vec<&'static str>>);

impl Roots for ShowsRoots {
    async fn root_of(&self, _: &InstanceId) -> Result<Option<RootView>, Ec2Error> {
        let mut all = self.0.borrow_mut();
        let volume = if all.len() > 1 { all.remove(0) } else { all[0] };
        Ok(Some(RootView { volume: volume.parse().ok(), ..view() }))
    }

    async fn replace_root(&self, _: &RootRequest) -> Result<RootTask, Ec2Error> {
        Err(Ec2Error::unknown("CreateReplaceRootVolumeTask", "not here"))
    }

    async fn may_replace_root(&self, _: &RootRequest) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn root_tasks(&self, _: Option<&InstanceId>) -> Result<Vec<RootTask>, Ec2Error> {
        Ok(Vec::new())
    }
}

impl Roots for Shows {
    async fn root_of(&self, _: &InstanceId) -> Result<Option<RootView>, Ec2Error> {
        Ok(None)
    }

    async fn replace_root(&self, _: &RootRequest) -> Result<RootTask, Ec2Error> {
        Err(Ec2Error::unknown("CreateReplaceRootVolumeTask", "not here"))
    }

    async fn may_replace_root(&self, _: &RootRequest) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn root_tasks(&self, _: Option<&InstanceId>) -> Result<Vec<RootTask>, Ec2Error> {
        let mut all = self.0.borrow_mut();
        Ok(if all.len() > 1 { all.remove(0) } else { all[0].clone() })
    }
}

const ID: &str = "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11";
const OLD: &str = "vol-0000000000000000a";

fn task(state: &str) -> RootTask {
    let Ok(state) = state.parse();
    RootTask {
        id: "replacevol-0123456789abcdef0".parse().unwrap(),
        instance: "i-0123456789abcdef0".parse().unwrap(),
        state,
        snapshot: Some("snap-00000000000000001".parse().unwrap()),
        started: None,
        deletes_replaced: false,
        tags: vec![(ROOT_TAG.into(), ID.into()), (RESTORE_VOLUME_TAG.into(), OLD.into())],
    }
}

async fn followed(states: &[&str]) -> (Result<RootTask, Stopped>, Vec<String>) {
    let shows = states[1..].iter().map(|s| if s.is_empty() { vec![] } else { vec![task(s)] }).collect();
    let (shows, clock, told) = (Shows(RefCell::new(shows)), Quick::default(), RefCell::new(Vec::new()));
    let ec2 = Repeating::new(&shows, &clock, Duration::from_secs(9));
    let tell = |line: &str| told.borrow_mut().push(line.to_owned());
    let task = to_its_end(task(states[0]), &ec2, &clock, &Interrupt::never(), &tell).await;
    (task, told.into_inner())
}

#[tokio::test]
async fn a_task_is_followed_through_its_states_and_shown_late() {
    let (task, told) = followed(&["pending", "", "pending", "in-progress", "in-progress", "succeeded"]).await;
    assert_eq!(task.unwrap().state, TaskState::Succeeded);
    assert_eq!(told.len(), 3, "{told:?}");
    for (last, before) in [("failed", "failing"), ("failed-detached", "failing-detached")] {
        let (task, told) = followed(&["pending", before, last]).await;
        assert_eq!(task.unwrap().state.as_str(), last);
        assert_eq!(told.len(), 3, "{told:?}");
    }
}

#[tokio::test]
async fn what_does_not_end_is_left_to_itself() {
    let (stopped, _) = followed(&["pending", "a state of\u{1b}[0m tomorrow"]).await;
    let said = stopped.unwrap_err().to_string();
    assert!(said.contains("after 60 min") && !said.contains('\u{1b}'), "{said}");
}

#[tokio::test]
async fn a_signal_ends_the_looking() {
    let (shows, clock) = (Shows(RefCell::new(vec![vec![task("pending")]])), Quick::default());
    let ec2 = Repeating::new(&shows, &clock, Duration::from_secs(9));
    let (_to, signal) = tokio::sync::watch::channel(Some(nix::sys::signal::Signal::SIGTERM));
    let stopped = to_its_end(task("pending"), &ec2, &clock, &Interrupt::by(signal), &|_| ()).await;
    assert!(matches!(stopped, Err(Stopped::Signal(_))));
}

#[tokio::test]
async fn the_task_of_a_restore_is_found_by_its_tag_and_is_one() {
    let mut other = task("succeeded");
    other.id = "replacevol-0000000000000000f".parse().unwrap();
    let mut untagged = other.clone();
    untagged.tags.clear();
    let mut hostile = other.clone();
    hostile.tags = vec![(ROOT_TAG.into(), "../../etc".into())];
    let clock = Quick::default();
    let find = async |tasks: Vec<RootTask>, noted: Option<RootTaskId>| {
        let shows = Shows(RefCell::new(vec![tasks]));
        let ec2 = Repeating::new(&shows, &clock, Duration::from_secs(9));
        find(&ec2, &ID.parse().unwrap(), noted.as_ref()).await
    };
    let found = find(vec![untagged.clone(), hostile, task("pending")], None).await.unwrap().unwrap();
    assert_eq!((found.task, found.replaced), (task("pending"), OLD.parse().ok()));
    assert_eq!(find(vec![untagged], None).await.unwrap(), None);
    let both = vec![task("pending"), other.clone()];
    assert!(find(both.clone(), None).await.is_err(), "somebody has tagged another one");
    assert_eq!(find(both, Some(other.id.clone())).await.unwrap().unwrap().task, other);
}

#[tokio::test]
async fn the_old_root_is_not_taken_for_the_new_one_while_ec2_shows_it_still() {
    let after = async |shown: &[&'static str], state: &str| {
        let (shows, clock) = (ShowsRoots(RefCell::new(shown.to_vec())), Quick::default());
        let ec2 = Repeating::new(&shows, &clock, Duration::from_secs(9));
        let of = Replacing::of(task(state)).unwrap();
        let now = root_after(&of, &ec2, &clock).await.unwrap().unwrap();
        (now.volume.clone().unwrap().to_string(), clock.elapsed())
    };
    let new = "vol-0000000000000000b";
    assert_eq!(after(&[OLD, OLD, new], "succeeded").await.0, new);
    // Somebody has put it back since, or it never went.
    assert_eq!(after(&[OLD], "succeeded").await, (OLD.to_owned(), SHOWN));
    assert_eq!(after(&[OLD], "failed").await, (OLD.to_owned(), Duration::ZERO));
}

fn view() -> RootView {
    RootView {
        state: "running".into(),
        instance_type: "m6i.large".into(),
        zone: "us-east-1a".into(),
        root_device_type: "ebs".into(),
        device_name: "/dev/xvda".into(),
        volume: "vol-0000000000000000b".parse().ok(),
        snapshot: "snap-00000000000000001".parse().ok(),
        size_gib: 8,
        attached: vec![],
    }
}

#[test]
fn every_end_says_what_to_do() {
    let now = view();
    let there = Old::There("available".into());
    let of = |state: &str| Replacing::of(task(state)).unwrap();
    let good = ended(&of("succeeded"), Some(&now), Some(&there)).unwrap();
    let said = good.lines.join("\n");
    assert!(said.contains("vol-0000000000000000b, made of snap-00000000000000001, is the root"), "{said}");
    assert!(
        said.contains("billed until you delete it") && said.contains(&format!("--volume-id {OLD}")),
        "{said}"
    );
    let gone = ended(&of("succeeded"), Some(&now), Some(&Old::Gone)).unwrap().lines.join("\n");
    assert!(gone.contains("is deleted"), "{gone}");
    let later = RootView { snapshot: "snap-00000000000000002".parse().ok(), ..now.clone() };
    let said = ended(&of("succeeded"), Some(&later), Some(&there)).unwrap().lines.join("\n");
    assert!(said.contains("by now it is vol-0000000000000000b"), "{said}");
    let unknown = ended(&of("succeeded"), None, None).unwrap();
    assert_eq!((unknown.root, unknown.lines.len()), (None, 1));
    assert!(
        unknown.lines[0].ends_with("was replaced by one of snap-00000000000000001"),
        "{:?}",
        unknown.lines
    );
    assert_eq!(ended(&of("succeeded"), Some(&later), None).unwrap().root, None, "it is not what was made");
    let failed = ended(&of("failed"), Some(&now), Some(&there)).unwrap_err();
    assert_eq!(failed.exit, Exit::After);
    assert!(failed.render().contains(&format!("{OLD} is the root still")), "{}", failed.render());
    let lost = ended(&of("failed-detached"), None, Some(&there)).unwrap_err();
    assert_eq!(lost.exit, Exit::NotMounted);
    assert!(lost.render().contains(&format!("--volume-id {OLD} --device /dev/xvda")), "{}", lost.render());
}
