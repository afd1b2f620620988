//! Rules of `doctor` on made hosts, and its report as a person reads it.

use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use rig::fixture::{Host, plan_with};
use stillpoint::doctor::{Finding, Set, Severity, cloud, storage};
use stillpoint::ec2::SnapshotView;
use stillpoint::exit::Exit;
use stillpoint::host::process::Process;
use stillpoint::plan::Consistency;
use stillpoint::report::findings::human;
use stillpoint::report::rehearsal::Rehearsal;
use stillpoint::run::rehearsal::{MountRound, Round, Writer, suggest};

/// One volume with `/data` on it, and whatever is added.
fn host(more: &str) -> Host {
    Host::of(&format!(
        "ebs nvme1n1 259:1 8192 vol-0aaaaaaaaaaaaaaaa\n\
         mount 21 1 0:20 / / rw shared:1 - tmpfs tmpfs rw\n\
         mount 31 21 259:1 / /data rw,relatime shared:2 - ext4 /dev/nvme1n1 rw\n\
         attached vol-0aaaaaaaaaaaaaaaa /dev/sdf 8 gp3\n{more}"
    ))
}

fn check(host: &Host, rule: impl Fn(&Set<'_>) -> Vec<Finding>) -> Finding {
    let facts = host.facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let mut found = rule(&Set::planned(&facts, &plan));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn a_swap_file_on_the_set_is_named_and_one_elsewhere_is_not() {
    let on = host("swap /data/swap file 1 0 -2\n");
    let facts = on.facts();
    let found = check(&on, |set| storage::swap(&facts.swap_files, set));
    assert_eq!((found.severity, &found.at), (Severity::Warning, &vec!["/data/swap".into(), "/data".into()]));
    let off = host("swap /swap file 1 0 -2\n");
    let facts = off.facts();
    assert_eq!(check(&off, |set| storage::swap(&facts.swap_files, set)).severity, Severity::Ok);
}

#[test]
fn a_device_over_an_image_file_is_a_warning_where_it_is_not_mounted() {
    let host = host("loop loop3 7:3 64 file=/data/image\nloop loop4 7:4 64 file=/elsewhere/image\n");
    let facts = host.facts();
    let found = check(&host, |set| storage::images(&facts.devices, set));
    assert_eq!((found.severity, &found.at), (Severity::Warning, &vec!["/data/image (loop3)".to_owned()]));
}

#[test]
fn run_dir_is_told_by_the_mount_it_is_on() {
    let host = host("");
    let rule =
        |dir: &'static str| check(&host, |set| storage::run_dir(host.root(), Path::new(dir), set)).severity;
    assert_eq!(rule("/data/run"), Severity::Problem);
    assert_eq!(rule("/database/run"), Severity::Ok);
}

#[test]
fn pending_snapshots_warn_before_they_refuse() {
    let facts = host("").facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let with = |n: usize| {
        let view = SnapshotView {
            id: "snap-0aaaaaaaaaaaaaaaa".parse().unwrap(),
            volume: plan.volumes[0].id.clone(),
            state: "pending".into(),
            started: None,
            progress: None,
        };
        cloud::pending(&plan, &vec![view; n])[0].severity
    };
    assert_eq!(
        [with(0), with(3), with(4), with(5)],
        [Severity::Ok, Severity::Ok, Severity::Warning, Severity::Problem]
    );
}

#[test]
fn a_volume_that_is_not_attached_for_good_is_a_problem() {
    let facts = host("").facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let with = |state: &str, attached: &str| {
        let states = [(plan.volumes[0].id.clone(), state.to_owned(), attached.to_owned())];
        cloud::volumes(&plan, &states)[0].severity
    };
    assert_eq!(with("in-use", "attached"), Severity::Ok);
    assert_eq!(with("in-use", "detaching"), Severity::Problem);
    assert_eq!(with("available", "unknown"), Severity::Problem);
    assert_eq!(cloud::volumes(&plan, &[])[0].severity, Severity::NotChecked);
}

#[test]
fn a_volume_with_tags_that_only_a_run_sets_is_named_and_they_are_not_copied() {
    let facts = |tags: &str| {
        Host::of(&format!(
            "ebs nvme1n1 259:1 8192 vol-0aaaaaaaaaaaaaaaa\n\
         mount 31 1 259:1 / / rw,relatime shared:2 - ext4 /dev/nvme1n1 rw\n\
         attached vol-0aaaaaaaaaaaaaaaa /dev/sdf 8 gp3{tags}\n"
        ))
        .facts()
    };
    let look = |tags: &str, copy: bool| {
        let facts = facts(tags);
        let plan = plan_with(&facts, |s| s.copy_volume_tags = copy).unwrap();
        let note = plan.notes.iter().any(|n| n.starts_with("Not copied") && n.contains("Stillpoint:run"));
        (cloud::volume_tags(&facts, &plan).remove(0), note)
    };
    let (found, note) = look(" Team=x aws:y=z", true);
    assert_eq!((found.severity, note), (Severity::Ok, false));
    let (found, note) = look(" Team=x Stillpoint:run=y", true);
    assert_eq!(
        (found.severity, &found.at, note),
        (Severity::Warning, &vec!["vol-0aaaaaaaaaaaaaaaa".to_owned()], true)
    );
    assert!(found.what.contains("Stillpoint:run") && !found.what.contains("Team"), "{}", found.what);
    assert!(!look(" Stillpoint:run=y", false).1, "nothing is copied anyway");
}

#[test]
fn a_clock_that_is_off_is_a_warning_and_then_a_problem() {
    let here = Timestamp::now();
    let off = |seconds| {
        cloud::clock(here, Some(here.checked_add(SignedDuration::from_secs(seconds)).unwrap())).severity
    };
    assert_eq!([off(0), off(-4), off(60), off(-299), off(300)], {
        use Severity::{Ok, Problem, Warning};
        [Ok, Ok, Warning, Warning, Problem]
    });
    assert_eq!(cloud::clock(here, None).severity, Severity::NotChecked);
}

#[test]
fn the_report_is_readable_at_80_columns() {
    let policy = stillpoint::ec2::policy_hint("aws", "CreateTags");
    let found = [
        Finding::ok("privileges", "every capability is there, and memory can be locked"),
        Finding::problem("iam", Exit::Permission, "CreateTags: UnauthorizedOperation: You are not \
            authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/db/i-0123456789abcdef0 is not authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-west-1::snapshot/*")
            .at(["ec2:CreateTags"])
            .why("a run needs this call")
            .remedy(policy),
        Finding::warning("fanotify", "fapolicyd (pid 812) is asked by the kernel to permit opens or reads \
            on /, /data")
            .at(["pid 812", "/", "/data"])
            .why("when it stops answering, every open hangs: a run then ends with code 21 before anything \
                is frozen")
            .remedy("keep its log and its state off the set's filesystems; or exclude those in its \
                configuration, or stop it by a hook"),
        Finding::warning("swap", "the swap file /data/a folder/swap is on /data, which is frozen"),
        Finding::not_checked("unit", "systemd does not run here"),
        Finding::ok("clock", "this host's clock agrees with EC2's"),
    ];
    let text = human("default", &found, 80);
    for line in text.lines() {
        // A policy stays whole, to be copied.
        assert!(line.chars().count() <= 80 || line.contains("\"Effect\"") || line.contains("arn:"), "{line}");
        assert_eq!(line, line.trim_end());
    }
    assert_snapshot!(text);
}

#[test]
fn a_rehearsal_is_readable_at_80_columns() {
    let ms = Duration::from_millis;
    let mount = |path: &str, freeze: Option<u64>, stall: u64, writers: Vec<Writer>| MountRound {
        mount_point: path.into(),
        fstype: "ext4".into(),
        flush: ms(47),
        freeze: freeze.map(ms),
        stall: freeze.map(|_| ms(stall)),
        writers,
    };
    let process = Process { pid: 4711, comm: "postgres".into() };
    let path = "/var/lib/postgresql/15/main/pg_wal/000000010000000000000001".into();
    let busy = Writer { process, path, written: Some(40 << 20) };
    let round = Round {
        window: ms(1900),
        hold: ms(500),
        mounts: vec![
            mount("/var/lib/postgresql", Some(235), 1800, vec![busy]),
            mount("/", Some(30), 1100, vec![]),
            mount("/boot/efi", None, 0, vec![]),
        ],
        hooks: vec![],
        achieved: Some(Consistency::Filesystem),
        reason: Some("pre command of hook `db` failed with exit code 3 after 10ms".into()),
        unwitnessed: vec![],
        still_frozen: vec![],
        missing: Vec::new(),
        after: vec![],
        exit: Exit::Lower,
        hint: None,
        signal: None,
    };
    let dry_runs = vec![ms(20), ms(12), ms(90)];
    let rounds = vec![round];
    let rehearsal = Rehearsal {
        version: 1,
        plan: "default".into(),
        configured_window: ms(4000),
        suggestion: suggest(&rounds, &[&dry_runs[..], &[ms(700)]].concat()),
        rounds,
        dry_runs,
        calls: vec![ms(700)],
    };
    let text = stillpoint::report::rehearsal::human(&rehearsal);
    assert!(text.lines().all(|l| l.chars().count() <= 80 && l == l.trim_end()), "{text}");
    assert_snapshot!(text);
}
