//! Sets read back as they were written, and what only looks like one is told.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::super::layout::{LayoutError, layout};
use super::super::lines::{SetFilesystem, SetVolume};
use super::super::recorded::Recorded;
use super::super::set::SetState;
use super::super::tags::tests::{defaults, filesystem, identity, plan, volume};
use super::super::tags::{self, MAX_TAGS, Tag, VOLUMES_TAG};
use super::*;
use crate::ec2::SnapshotView;
use crate::plan::Plan;

const THEN: &str = "2026-11-29T03:00:00.123Z";

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

/// The snapshots of a set of this plan, as EC2 shows them after the run.
pub(crate) fn taken(run: &RunId, plan: &Plan, told: bool) -> Vec<TaggedSnapshot> {
    let settings = defaults();
    let created = tags::on_create(run, &identity(), "db-1", plan, &settings, Consistency::Filesystem, 0);
    let volumes: Vec<_> = plan.volumes.iter().map(|v| v.id.clone()).collect();
    let ids = |n: usize| -> SnapshotId { format!("snap-{n:017x}").parse().unwrap() };
    let made: Vec<_> = volumes.iter().enumerate().map(|(n, v)| (ids(n), v.clone())).collect();
    let own = tags::members(&volumes, &created.spread, &made);
    let verdict: Vec<Tag> = vec![
        ("stillpoint:consistency".into(), "filesystem".into()),
        ("stillpoint:part".into(), "filesystem".into()),
    ];
    let snapshot = |((id, volume), (_, own)): (&(SnapshotId, VolumeId), &(SnapshotId, Vec<Tag>))| {
        let mut all = created.common.clone();
        if told {
            all.extend(verdict.iter().chain(own).cloned());
        }
        let view = SnapshotView {
            id: id.clone(),
            volume: volume.clone(),
            state: "completed".into(),
            started: at(THEN),
            progress: Some("100%".into()),
        };
        TaggedSnapshot { view, tags: all, detail: Default::default() }
    };
    made.iter().zip(&own).map(snapshot).collect()
}

fn sets_of(snapshots: &[TaggedSnapshot]) -> (Vec<SnapshotSet>, Vec<Stranger>) {
    let mut gathered = Gathered::of("eu-west-1");
    snapshots.iter().cloned().for_each(|s| gathered.add(s));
    gathered.sets()
}

fn two() -> (RunId, Vec<TaggedSnapshot>) {
    let run = RunId::generate();
    let plan = plan(vec![filesystem(0)], vec![volume(1), volume(2)]);
    let snapshots = taken(&run, &plan, true);
    (run, snapshots)
}

fn set_tag(snapshot: &mut TaggedSnapshot, key: &str, value: &str) {
    snapshot.tags.retain(|(k, _)| k != key);
    snapshot.tags.push((key.into(), value.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// From the tags alone, in any order, all of it: up to 128 volumes, with paths of any length.
    #[test]
    fn a_set_reads_back_whole(
        (volumes, mounts) in (1_usize..=128, proptest::collection::vec((0_usize..128, 0_usize..4000), 0..128)),
        seed in any::<u64>(),
    ) {
        let run = RunId::generate();
        let volumes: Vec<_> = (0..volumes).map(volume).collect();
        let on = |n: usize| volumes[n % volumes.len()].id.clone();
        // Very long paths are few: nobody has 128 of them.
        let longest = 4000 / mounts.len().max(1);
        let mounts = mounts.into_iter().enumerate().map(|(n, (v, length))| {
            let mount_point = std::path::PathBuf::from(format!("/{n}/{}", "ü ".repeat(length % longest.max(1) / 7)));
            let mut planned = filesystem(n);
            (planned.mount_points, planned.mount_point) = (vec![mount_point.clone()], mount_point);
            planned.volumes = vec![on(v), on(v + 1)];
            planned.volumes.dedup();
            planned
        });
        let plan = plan(mounts.collect(), volumes.clone());
        let mut snapshots = taken(&run, &plan, true);
        let room = snapshots.iter().all(|s| s.tags.len() + tags::later(&defaults()) <= MAX_TAGS + 3);
        // What does not fit is refused by the preflight.
        prop_assume!(room);
        fastrand::Rng::with_seed(seed).shuffle(&mut snapshots);
        for snapshot in &snapshots {
            prop_assert!(snapshot.tags.len() <= MAX_TAGS);
            prop_assert!(snapshot.tags.iter().all(|(k, v)| k.chars().count() <= 128 && v.chars().count() <= 256));
            prop_assert!(snapshot.tags.iter().all(|(_, v)| v.trim() == v));
        }
        let read = layout(snapshots.iter().map(|s| s.tags.as_slice())).unwrap();
        prop_assert_eq!(&read.volumes, &plan.volumes.iter().map(SetVolume::from).collect::<Vec<_>>());
        prop_assert_eq!(&read.filesystems, &plan.filesystems.iter().map(SetFilesystem::from).collect::<Vec<_>>());
        let (sets, strangers) = sets_of(&snapshots);
        prop_assert!(strangers.is_empty());
        let [set] = &sets[..] else { panic!("{sets:?}") };
        prop_assert_eq!((&set.id, set.state(), set.label()), (&run, SetState::Completed, Consistency::Filesystem));
        prop_assert!(set.members.iter().map(|m| &m.volume_id).eq(volumes.iter().map(|v| &v.id)));
        prop_assert!(set.doubts.is_empty() && set.missing.is_empty());
        // The record of the host says the same.
        let of = |s: &TaggedSnapshot| json!({"id": s.view.id, "volume_id": s.view.volume, "achieved": "filesystem"});
        let record = json!({
            "run_id": run, "identity": identity(), "achieved": "filesystem", "plan": plan,
            "snapshots": snapshots.iter().map(of).collect::<Vec<_>>(),
        });
        let recorded: Recorded = serde_json::from_value(record.clone()).unwrap();
        prop_assert_eq!(recorded.differences(set, Some(&read)), Vec::<String>::new());
        if !plan.filesystems.is_empty() {
            let mut other = record;
            other["plan"]["filesystems"][0]["uuid"] = "other".into();
            let recorded: Recorded = serde_json::from_value(other).unwrap();
            prop_assert_eq!(recorded.differences(set, Some(&read)).len(), 1);
        }
        // Without one tag of its lines, it is not whole, and that is told.
        let is_line = |k: &String| k.starts_with(tags::VOLUME_LINE) || k.starts_with(tags::FILESYSTEM_LINE);
        let lines: Vec<String> =
            snapshots.iter().flat_map(|s| &s.tags).map(|(k, _)| k.clone()).filter(is_line).collect();
        let lost = &lines[usize::try_from(seed % lines.len() as u64).unwrap()];
        snapshots.iter_mut().for_each(|s| s.tags.retain(|(k, _)| k != lost));
        let read = layout(snapshots.iter().map(|s| s.tags.as_slice()));
        prop_assert!(matches!(read, Err(LayoutError::Incomplete(_))), "{:?}", read);
    }

    #[test]
    fn no_tags_make_a_reader_panic(all in proptest::collection::vec(("[a-z:.0-9]{0,20}", any::<String>()), 0..9)) {
        let known = [RUN_TAG, INSTANCE_TAG, SCHEMA_TAG, PLAN_TAG, VOLUMES_TAG, MEMBER_TAG, "stillpoint:layout"];
        let (_, mut snapshots) = two();
        for (n, (key, value)) in all.iter().enumerate() {
            set_tag(&mut snapshots[n % 2], known.get(n).copied().unwrap_or(key), value);
        }
        let _ = (sets_of(&snapshots), layout(snapshots.iter().map(|s| s.tags.as_slice())));
    }
}

#[test]
fn one_key_alone_makes_no_snapshot_a_member() {
    type Change = fn(&mut TaggedSnapshot);
    let cases: [(&str, Change); 9] = [
        ("no marker", |s| s.tags.retain(|(k, _)| k != SCHEMA_TAG)),
        ("no plan", |s| s.tags.retain(|(k, _)| k != PLAN_TAG)),
        ("no instance", |s| s.tags.retain(|(k, _)| k != INSTANCE_TAG)),
        ("no list", |s| s.tags.retain(|(k, _)| k != VOLUMES_TAG)),
        ("another number", |s| set_tag(s, MEMBER_TAG, "0")),
        ("no number", |s| set_tag(s, MEMBER_TAG, "one")),
        ("another volume", |s| {
            s.view.volume = "vol-0cccccccccccccccc".parse().unwrap();
        }),
        ("a copy that nobody of ours made", |s| s.view.volume = NO_VOLUME.parse().unwrap()),
        ("a volume of no set, later", |s| {
            s.view.volume = "vol-0cccccccccccccccc".parse().unwrap();
            s.tags.retain(|(k, _)| k != MEMBER_TAG);
            s.view.started = at("2026-11-29T04:00:00Z");
        }),
    ];
    for (what, change) in cases {
        let (_, mut snapshots) = two();
        change(&mut snapshots[1]);
        let (sets, strangers) = sets_of(&snapshots);
        let [set] = &sets[..] else { panic!("{what}: {sets:?}") };
        assert_eq!((set.members.len(), set.missing.len(), strangers.len()), (1, 1, 1), "{what}");
        assert_eq!(set.state(), SetState::Partial, "{what}");
    }
}

#[test]
fn a_volume_that_nobody_planned_is_of_the_set_by_its_very_start_time() {
    let (_, mut snapshots) = two();
    let mut extra = snapshots[1].clone();
    extra.view.id = "snap-0eeeeeeeeeeeeeeee".parse().unwrap();
    extra.view.volume = "vol-0eeeeeeeeeeeeeeee".parse().unwrap();
    extra.tags.retain(|(k, _)| k != MEMBER_TAG);
    snapshots.push(extra.clone());
    let (sets, strangers) = sets_of(&snapshots);
    assert_eq!((sets[0].members.len(), strangers.len()), (3, 0));
    assert_eq!(sets[0].members[2].number, 2);
    set_tag(snapshots.last_mut().unwrap(), MEMBER_TAG, "2");
    assert_eq!(sets_of(&snapshots).0, sets, "and when it was told its number");
}

#[test]
fn two_snapshots_with_one_number_are_a_doubt() {
    let (_, mut snapshots) = two();
    let mut forged = snapshots[1].clone();
    forged.view.id = "snap-0ffffffffffffffff".parse().unwrap();
    forged.view.started = at("2026-11-29T05:00:00Z");
    snapshots.push(forged);
    let (sets, _) = sets_of(&snapshots);
    assert_eq!(sets[0].doubts.len(), 1, "{:?}", sets[0].doubts);
    assert_eq!(sets[0].time, at(THEN));
    let (_, mut snapshots) = two();
    set_tag(&mut snapshots[0], PLAN_TAG, "other");
    assert_eq!(sets_of(&snapshots).0[0].doubts, ["its snapshots do not agree on the plan"]);
}

#[test]
fn without_a_verdict_on_every_member_there_is_no_label() {
    let (_, mut snapshots) = two();
    set_tag(&mut snapshots[1], "stillpoint:consistency", "crash");
    assert_eq!(sets_of(&snapshots).0[0].achieved, Some(Consistency::Crash), "the lowest");
    snapshots[1].tags.retain(|(k, _)| k != "stillpoint:consistency");
    let set = &sets_of(&snapshots).0[0];
    assert_eq!((set.achieved, set.label()), (None, Consistency::Crash));
}

#[test]
fn a_set_of_a_newer_schema_is_read_as_far_as_it_goes() {
    let (_, mut snapshots) = two();
    snapshots.iter_mut().for_each(|s| set_tag(s, SCHEMA_TAG, "2"));
    let (sets, _) = sets_of(&snapshots);
    assert!(sets[0].is_newer() && sets[0].members.len() == 2);
}

#[test]
fn a_copy_is_of_its_number_and_has_the_time_of_its_source() {
    let (_, mut snapshots) = two();
    let source = RunId::generate();
    for s in &mut snapshots {
        set_tag(s, SOURCE_TAG, &format!("us-east-1/{source}"));
        set_tag(s, SOURCE_TIME_TAG, "2026-11-28T03:00:00Z");
        s.view.volume = NO_VOLUME.parse().unwrap();
    }
    let (sets, strangers) = sets_of(&snapshots);
    assert!(strangers.is_empty());
    let copy_of = CopyOf { region: "us-east-1".into(), id: source };
    assert_eq!((sets[0].copy_of.as_ref(), sets[0].time), (Some(&copy_of), at("2026-11-28T03:00:00Z")));
    assert_eq!(sets[0].members[1].volume_id, volume(2).id);
    // A source is older than its copy.
    snapshots.iter_mut().for_each(|s| set_tag(s, SOURCE_TIME_TAG, "2027-01-01T00:00:00Z"));
    let set = &sets_of(&snapshots).0[0];
    assert_eq!((set.time, set.doubts.len()), (None, 1));
}

#[test]
fn the_states_of_a_set() {
    let state = |change: &dyn Fn(&mut Vec<TaggedSnapshot>)| {
        let (_, mut snapshots) = two();
        change(&mut snapshots);
        sets_of(&snapshots).0[0].state()
    };
    assert_eq!(state(&|s| s[1].view.state = "pending".into()), SetState::Pending);
    assert_eq!(state(&|s| s[1].view.state = "recoverable".into()), SetState::Pending);
    assert_eq!(
        state(&|s| (s[0].view.state, s[1].view.state) = ("pending".into(), "error".into())),
        SetState::Error
    );
    assert_eq!(state(&|s| drop(s.remove(0))), SetState::Partial);
    let torn = |s: &mut Vec<TaggedSnapshot>| {
        s.remove(0);
        set_tag(&mut s[0], DELETING_TAG, THEN);
    };
    assert_eq!(state(&torn), SetState::Torn);
}

#[test]
fn what_cannot_be_shared_is_seen_before_anything_is_changed() {
    use crate::sets::share::refusal;
    let (_, snapshots) = two();
    let set = sets_of(&snapshots).0.remove(0);
    let (one, all) = (vec!["111122223333".to_owned()], vec!["all".to_owned()]);
    let changed = |change: fn(&mut TaggedSnapshot)| {
        let mut snapshots = snapshots.clone();
        change(&mut snapshots[1]);
        snapshots
    };
    let encrypted = changed(|s| s.detail.encrypted = true);
    let archived = changed(|s| s.detail.archived = true);
    let own = changed(|s| s.detail.owner = Some("111122223333".into()));
    let open = Some("unblocked");
    assert_eq!(refusal(&set, &snapshots, &one, None), None);
    assert_eq!(refusal(&set, &snapshots, &all, open), None);
    assert_eq!(refusal(&set, &encrypted, &one, None), None, "its key decides");
    let doubtful = SnapshotSet { doubts: vec!["two claim it".into()], ..set.clone() };
    let deleting = SnapshotSet { deleting: true, ..set.clone() };
    for (set, snapshots, with, blocked, what) in [
        (&set, &encrypted, &all, open, "is encrypted"),
        (&set, &archived, &one, None, "in the archive"),
        (&set, &own, &one, None, "111122223333 owns"),
        (&set, &snapshots, &all, Some("block-all-sharing"), "block-all-sharing"),
        (&set, &snapshots, &all, Some("something-new"), "something-new"),
        (&doubtful, &snapshots, &one, None, "two claim it"),
        (&deleting, &snapshots, &one, None, "is being removed"),
    ] {
        let said = refusal(set, snapshots, with, blocked).map(|r| r.what).unwrap_or_default();
        assert!(said.contains(what), "{what}: {said}");
    }
}
