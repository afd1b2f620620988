//! What the tags say, and that they stay within EC2's limits.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::settings::{CommandHook, Hook, HookKind, OnFailure, SessionHook};

#[test]
fn long_lines_go_on_in_further_tags_and_read_back_whole() {
    let line = "ä".repeat(600);
    let tags = continued("stillpoint:fs.0", &line);
    let keys: Vec<_> = tags.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(keys, ["stillpoint:fs.0", "stillpoint:fs.0.1", "stillpoint:fs.0.2"]);
    assert!(tags.iter().all(|(_, v)| v.chars().count() <= MAX_VALUE));
    assert_eq!(tags.into_iter().map(|(_, v)| v).collect::<String>(), line);
}

#[test]
fn separators_in_paths_are_escaped() {
    assert_eq!(path(Path::new("/a b,c%")), "/a%20b%2Cc%25");
}

fn defaults() -> PlanSettings {
    let nothing = crate::config::Overrides::default();
    crate::config::load(Path::new("/nonexistent"), None, None, &nothing).unwrap().settings.plan
}

fn filesystem(n: usize) -> PlannedFilesystem {
    let mount_point = PathBuf::from(format!("/{}/{n}", "deep/".repeat(40)));
    PlannedFilesystem {
        dev: "7:1".parse().unwrap(),
        mount_points: vec![mount_point.clone()],
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

fn volume(n: usize) -> PlannedVolume {
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
    let plain = volume(0);
    assert_eq!(volume_line(&plain), "vol-00000000000000000 device=/dev/sdf gib=8 type=gp2");
    let full = PlannedVolume {
        volume_type: "gp3".into(),
        iops: Some(3000),
        throughput: Some(125),
        encrypted: true,
        boot: true,
        ..plain
    };
    let line = "vol-00000000000000000 device=/dev/sdf gib=8 type=gp3 iops=3000 throughput=125 encrypted boot";
    assert_eq!(volume_line(&full), line);
}

#[test]
fn the_create_call_and_the_verdict_together_stay_within_fifty_tags() {
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        region: "eu-west-1".into(),
        availability_zone: None,
        account_id: None,
    };
    let plan = |filesystems: usize, volumes: usize| Plan {
        name: "p".into(),
        filesystems: (0..filesystems).map(filesystem).collect(),
        volumes: (0..volumes).map(volume).collect(),
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
    };
    let mut settings = defaults();
    settings.tags = [("Team".to_owned(), "storage".to_owned())].into();
    let tags = |plan: &Plan, copied: usize| {
        on_create(&RunId::generate(), &identity, "h", plan, &settings, Consistency::Filesystem, copied)
    };
    let partial = |tags: &[(String, String)]| tags.iter().any(|(k, _)| k == "stillpoint:layout");
    let few = tags(&plan(3, 0), 0);
    assert!(!partial(&few) && few.contains(&("Team".to_owned(), "storage".to_owned())), "{few:?}");
    for (n, copied) in [(60, 0), (60, 20), (10, 10)] {
        let tags = tags(&plan(n, 0), copied);
        assert!(tags.len() + copied + later(&settings) <= MAX_TAGS, "{} tags", tags.len());
    }
    assert!(partial(&tags(&plan(60, 0), 0)), "and it says so when a line was left out");
    // Lines of one tag each, up to the last that fits: one more, and the last tag says that it is missing.
    for copied in [0, 7] {
        let first = tags(&plan(0, 0), copied).len();
        let fit = MAX_TAGS - later(&settings) - copied - first - 1;
        let (whole, more) = (tags(&plan(0, fit), copied), tags(&plan(0, fit + 1), copied));
        assert_eq!((whole.len(), partial(&whole)), (first + fit, false));
        assert_eq!((more.len(), partial(&more)), (first + fit + 1, true));
        assert_eq!(more.len() + copied + later(&settings), MAX_TAGS);
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
            (
                "stillpoint:volume.0".to_owned(),
                "vol-0aaaaaaaaaaaaaaaa device=/dev/sdf gib=8 type=gp3".to_owned(),
            ),
            ("stillpoint:fs.0".to_owned(), "/data type=ext4".to_owned()),
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
    };
    let (a, b, then) = ("vol-0aaaaaaaaaaaaaaaa", "vol-0bbbbbbbbbbbbbbbb", "2026-11-29T03:00:00.123Z");
    let replaced = |key: &'static str, value: &'static str| {
        move |tags: &mut Tags| tags.iter_mut().filter(|t| t.0 == key).for_each(|t| t.1 = value.into())
    };
    let without = |key: &'static str| move |tags: &mut Tags| tags.retain(|t| t.0 != key);
    let plain = tags(&|_| ());
    let cut = tags(&|t| {
        t.retain(|t| t.0 != "stillpoint:fs.0");
        t.push(("stillpoint:layout".into(), "partial".into()));
    });
    let full = tags(&|t| t.push(("stillpoint:layout".into(), "partial".into())));
    let found = vec![
        snapshot(1, a, then, plain.clone()),
        // Attached after the plan was made: by the same call, so at the same time.
        snapshot(2, b, then, plain.clone()),
        // Not every volume of a large set has a line.
        snapshot(3, b, "2026-11-29T03:00:00.124Z", cut),
        // Tags that were copied to another volume, or with CopySnapshot.
        snapshot(4, b, "2026-11-29T04:00:00Z", plain.clone()),
        snapshot(5, "vol-ffffffff", "2026-11-29T04:00:00Z", plain),
        snapshot(6, b, "2026-11-29T04:00:00Z", full),
        // One key alone.
        snapshot(7, a, then, tags(&without(INSTANCE_TAG))),
        snapshot(8, a, then, tags(&replaced(INSTANCE_TAG, "i-0fedcba9876543210"))),
        snapshot(9, a, then, tags(&replaced(RUN_TAG, "another"))),
        snapshot(
            10,
            b,
            "2026-11-29T04:00:00Z",
            tags(&replaced("stillpoint:volume.0", "vol-0bbbbbbbbbbbbbbbbb x")),
        ),
    ];
    let (made, others) = made_by(&run, &instance, found);
    let ids = |all: &[TaggedSnapshot]| all.iter().map(|s| s.view.id.to_string()).collect::<Vec<_>>();
    let all = |n: std::ops::RangeInclusive<u8>| n.map(|n| format!("snap-{n:017x}")).collect::<Vec<_>>();
    assert_eq!((ids(&made), ids(&others)), (all(1..=3), all(4..=10)));
}
