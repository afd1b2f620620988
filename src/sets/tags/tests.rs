//! What the tags say, and that they stay within EC2's limits.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::settings::{CommandHook, Hook, HookKind, OnFailure, SessionHook};
use crate::plan::{PlannedFilesystem, PlannedVolume};

pub(crate) fn defaults() -> PlanSettings {
    let nothing = crate::config::Overrides::default();
    crate::config::load(Path::new("/nonexistent"), None, None, &nothing).unwrap().settings.plan
}

pub(crate) fn filesystem(n: usize) -> PlannedFilesystem {
    let mount_point = PathBuf::from(format!("/{}/{n}", "deep/".repeat(40)));
    PlannedFilesystem {
        dev: "7:1".parse().unwrap(),
        mount_points: vec![mount_point.clone()],
        roots: vec!["/".into()],
        mount_point,
        fstype: "ext4".into(),
        uuid: Some("0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".into()),
        options: "rw,relatime".into(),
        method: crate::plan::Method::Freeze,
        wave: crate::plan::Wave::Data,
        stack: "nvme1n1".into(),
        witnesses: vec![],
        volumes: vec!["vol-0123456789abcdef0".parse().unwrap()],
        reason: String::new(),
    }
}

pub(crate) fn volume(n: usize) -> PlannedVolume {
    PlannedVolume {
        id: format!("vol-{n:017x}").parse().unwrap(),
        device_name: "/dev/sdf".into(),
        disk: None,
        boot: false,
        size_gib: 8,
        volume_type: "gp2".into(),
        iops: None,
        throughput: None,
        encrypted: false,
        mount_points: vec![],
        best: Consistency::Filesystem,
        reason: String::new(),
        limited_by: None,
    }
}

fn hook(kind: HookKind) -> Hook {
    Hook { name: "x".into(), kind, timeout: std::time::Duration::ZERO, on_failure: OnFailure::Abort }
}

fn session() -> Hook {
    hook(HookKind::Session(SessionHook {
        release: None,
        command: vec![],
        user: None,
        environment: Default::default(),
    }))
}

fn command() -> Hook {
    hook(HookKind::Hook(CommandHook::default()))
}

fn app(name: &str, facts: &[(&str, String)]) -> ApplicationRecord {
    ApplicationRecord {
        name: name.into(),
        kind: "session".into(),
        achieved: Some(Consistency::Application),
        reason: None,
        facts: facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    }
}

#[test]
fn applications_have_their_positions_in_tags_and_never_more_than_was_kept_for_them() {
    let mut settings = defaults();
    settings.hooks = vec![session()];
    let tags =
        applications(&[app("my db", &[("lsn", "0/30".into()), ("label", "A\nB c".into())])], &settings);
    assert_eq!(
        tags,
        [(
            "stillpoint:app.0".to_owned(),
            "my%20db type=session label=application lsn=0/30 label=A%0AB%20c".to_owned()
        )]
    );
    // A fact that is too long is left out as a whole, with a tag that says so; positions stay.
    let long = app("a", &[("huge", "x".repeat(2000)), ("gtid", "0-1-7".into())]);
    let tags = applications(&[long], &settings);
    assert_eq!(tags.last().unwrap(), &("stillpoint:apps".to_owned(), "partial".to_owned()));
    assert!(tags[0].1.ends_with("gtid=0-1-7"), "{tags:?}");
    for n in [1, 2, 5, 40] {
        settings.hooks = vec![session(); n];
        let half = app("h", &[("half", "y".repeat(700))]);
        let tags = applications(&vec![half; n], &settings);
        assert!(tags.len() + VERDICT_TAGS <= later(&settings), "{n}: {}", tags.len());
        assert!(later(&settings) <= VERDICT_TAGS + MAX_APP_TAGS);
    }
    settings.hooks = Vec::new();
    assert!(applications(&[], &settings).is_empty() && later(&settings) == VERDICT_TAGS);
}

#[test]
fn what_is_kept_for_applications_is_used_to_the_last_tag_and_no_further() {
    let mut settings = defaults();
    let kept = |hooks: &[Hook]| {
        let mut settings = defaults();
        settings.hooks = hooks.to_vec();
        later(&settings) - VERDICT_TAGS
    };
    // A line each, and the tag that says that one was left out.
    assert_eq!(kept(&[command()]), 2);
    assert_eq!(kept(&[command(), command(), session()]), 1 + 1 + SESSION_TAGS + 1);
    assert_eq!(kept(&vec![session(); 9]), MAX_APP_TAGS);

    settings.hooks = vec![command()];
    let partial = ("stillpoint:apps".to_owned(), "partial".to_owned());
    let one = applications(&[app("a", &[])], &settings);
    assert_eq!((one.len(), one.contains(&partial)), (1, false), "{one:?}");
    // A folder of executables is one hook and may be several applications.
    let two = applications(&[app("a", &[]), app("b", &[])], &settings);
    assert_eq!((two.len(), two.contains(&partial)), (2, true), "{two:?}");

    settings.hooks = vec![session()];
    let start = "a type=session label=application fact=".len();
    for (over, partly) in [(0, false), (1, true)] {
        let fact = "y".repeat(SESSION_TAGS * MAX_VALUE - start + over);
        let tags = applications(&[app("a", &[("fact", fact)])], &settings);
        assert_eq!(tags.contains(&partial), partly, "{over} characters more than fit: {tags:?}");
    }
}

#[test]
fn the_line_of_a_volume_has_all_that_it_takes_to_make_it_again() {
    let line = |v: &PlannedVolume| SetVolume::from(v).line();
    let plain = volume(0);
    assert_eq!(line(&plain), "vol-00000000000000000 device=/dev/sdf gib=8 type=gp2");
    let full = PlannedVolume {
        volume_type: "gp3".into(),
        iops: Some(3000),
        throughput: Some(125),
        encrypted: true,
        boot: true,
        ..plain
    };
    let wanted =
        "vol-00000000000000000 device=/dev/sdf gib=8 type=gp3 iops=3000 throughput=125 encrypted boot";
    assert_eq!(line(&full), wanted);
}

pub(crate) fn identity() -> Identity {
    Identity {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        region: "eu-west-1".into(),
        availability_zone: None,
        account_id: None,
    }
}

pub(crate) fn plan(filesystems: Vec<PlannedFilesystem>, volumes: Vec<PlannedVolume>) -> Plan {
    Plan {
        name: "p".into(),
        filesystems,
        volumes,
        witnesses: vec![],
        beneath: vec![],
        left_out: vec![],
        missing: vec![],
        call: crate::plan::PointInTimeCall::CreateSnapshot {
            volume: "vol-0123456789abcdef0".parse().unwrap(),
        },
        expedite: crate::plan::Expediting::default(),
        notes: vec![],
        best: Consistency::Filesystem,
    }
}

#[test]
fn the_create_call_and_the_verdict_together_stay_within_fifty_tags() {
    let mut settings = defaults();
    settings.tags = [("Team".to_owned(), "storage".to_owned())].into();
    let made = |filesystems: usize, volumes: usize, copied: usize| {
        let plan = plan((0..filesystems).map(filesystem).collect(), (0..volumes).map(volume).collect());
        on_create(&RunId::generate(), &identity(), "h", &plan, &settings, Consistency::Filesystem, copied)
    };
    let few = made(3, 1, 0);
    assert!(
        few.spread.is_empty() && few.common.contains(&("Team".to_owned(), "storage".to_owned())),
        "{few:?}"
    );
    // As many as EC2 takes into one set, with a path of 200 characters each.
    for (n, copied) in [(1, 20), (40, 0), (128, 0), (128, 2)] {
        let Created { common, spread } = made(n, n, copied);
        let most = spread.values().map(Vec::len).max().unwrap_or_default();
        let all = common.len() + most + copied + later(&settings);
        assert!(all <= MAX_TAGS, "{n} volumes: {all} tags");
    }
    // Up to the last tag that fits on every snapshot, and one more: then each has its share.
    let short = |n: usize| PlannedFilesystem { mount_point: format!("/{n}").into(), ..filesystem(n) };
    let lines = |n: usize, copied: usize| {
        let plan = plan((0..n).map(short).collect(), vec![volume(0)]);
        on_create(&RunId::generate(), &identity(), "h", &plan, &settings, Consistency::Filesystem, copied)
    };
    for copied in [0, 7] {
        let first = lines(0, copied).common.len();
        let fit = (MAX_TAGS - later(&settings) - copied - first) / per_line(&short(0));
        let (whole, more) = (lines(fit, copied), lines(fit + 1, copied));
        assert_eq!((whole.common.len(), whole.spread.len()), (first + fit * per_line(&short(0)), 0));
        assert_eq!(more.spread[&volume(0).id].len(), 1 + (fit + 1) * per_line(&short(0)));
    }
}

fn per_line(f: &PlannedFilesystem) -> usize {
    continued("x", &SetFilesystem::from(f).line()).len()
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_touched() {
    let mut settings = defaults();
    settings.tags = (0..30).map(|n| (format!("Tag{n}"), String::new())).collect();
    let plan = plan((0..60).map(filesystem).collect(), vec![volume(0)]);
    let made = on_create(&RunId::generate(), &identity(), "h", &plan, &settings, Consistency::Crash, 0);
    assert!(made.common.len() + made.spread[&plan.volumes[0].id].len() > MAX_TAGS);
}

#[test]
fn a_description_names_its_set_whatever_else_it_says() {
    let run = RunId::generate();
    let said = described(&run, &"nightly ä ".repeat(40));
    assert_eq!((said.chars().count(), set_of_description(&said)), (MAX_DESCRIPTION, Some(run)));
    for other in ["", "stillpoint", "stillpoint nightly", "backup 0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11"] {
        assert_eq!(set_of_description(other), None);
    }
}

#[test]
fn keys_of_this_tool_and_of_aws_come_from_no_volume_in_any_letter_case() {
    let tags = [
        "Team",
        "stillpoint",
        "stillpoints:x",
        "a stillpoint:run",
        "aws",
        "ägypten", // the volume's own
        "stillpoint:consistency",
        "Stillpoint:run",
        "STILLPOINT:",
        "aws:cloudformation:stack-id",
        "AWS:x",
    ];
    let volume = Volume {
        id: "vol-0123456789abcdef0".parse().unwrap(),
        device_name: "/dev/sdf".into(),
        disk: None,
        boot: false,
        volume_type: "gp3".into(),
        size_gib: 1,
        iops: None,
        throughput: None,
        encrypted: false,
        tags: tags.iter().map(|k| ((*k).to_owned(), "v".to_owned())).collect(),
    };
    let keys =
        |taken: &[(String, String)]| copied(&volume, taken).into_iter().map(|(k, _)| k).collect::<Vec<_>>();
    assert_eq!(keys(&[]), tags[..6]);
    assert_eq!(keys(&[("Team".into(), "mine".into())]), tags[1..6], "the configuration's wins");
    assert_eq!(strange(&volume), tags[6..9]);
}

#[test]
fn of_a_run_is_only_what_run_instance_and_volume_agree_on() {
    let run = RunId::generate();
    let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    type Tags = Vec<(String, String)>;
    let tags = |change: &dyn Fn(&mut Tags)| {
        let mut tags = vec![
            (RUN_TAG.to_owned(), run.to_string()),
            (INSTANCE_TAG.to_owned(), instance.to_string()),
            (VOLUMES_TAG.to_owned(), "0aaaaaaaaaaaaaaaa 0cccccccccccccccc".to_owned()),
        ];
        change(&mut tags);
        tags
    };
    let started = |t: &str| Some(t.parse().unwrap());
    let snapshot = |n: u8, volume: &str, at: &str, tags| TaggedSnapshot {
        view: crate::ec2::SnapshotView {
            id: format!("snap-{n:017x}").parse().unwrap(),
            volume: volume.parse().unwrap(),
            state: "completed".into(),
            started: started(at),
            progress: None,
        },
        tags,
        detail: Default::default(),
    };
    let (a, b, then) = ("vol-0aaaaaaaaaaaaaaaa", "vol-0bbbbbbbbbbbbbbbb", "2026-11-29T03:00:00.123Z");
    let replaced = |key: &'static str, value: &'static str| {
        move |tags: &mut Tags| tags.iter_mut().filter(|t| t.0 == key).for_each(|t| t.1 = value.into())
    };
    let without = |key: &'static str| move |tags: &mut Tags| tags.retain(|t| t.0 != key);
    let plain = tags(&|_| ());
    let found = vec![
        snapshot(1, a, then, plain.clone()),
        // Attached after the plan was made: by the same call, so at the same time.
        snapshot(2, b, then, plain.clone()),
        // Tags that were copied to another volume, or with CopySnapshot.
        snapshot(4, b, "2026-11-29T04:00:00Z", plain.clone()),
        snapshot(5, "vol-ffffffff", "2026-11-29T04:00:00Z", plain),
        // One key alone.
        snapshot(7, a, then, tags(&without(INSTANCE_TAG))),
        snapshot(8, a, then, tags(&replaced(INSTANCE_TAG, "i-0fedcba9876543210"))),
        snapshot(9, a, then, tags(&replaced(RUN_TAG, "another"))),
        snapshot(10, b, "2026-11-29T04:00:00Z", tags(&replaced(VOLUMES_TAG, "0bbbbbbbbbbbbbbbbb"))),
    ];
    let (made, others) = made_by(&run, &instance, found);
    let ids = |all: &[TaggedSnapshot]| all.iter().map(|s| s.view.id.to_string()).collect::<Vec<_>>();
    let all = |n: &[u8]| n.iter().map(|n| format!("snap-{n:017x}")).collect::<Vec<_>>();
    assert_eq!((ids(&made), ids(&others)), (all(&[1, 2]), all(&[4, 5, 7, 8, 9, 10])));
}
