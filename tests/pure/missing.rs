//! What should be mounted and is not: told, and counted by the settings.

use rig::fixture::{Host, plan_with, told};
use stillpoint::config::settings::{Automounts, MissingMounts, PlanSettings};
use stillpoint::plan::{Plan, to_mount};

/// Two volumes that hold something, one of them not mounted; a disk that is no volume.
const HOST: &str = "ebs a 259:0 1024 vol-11111111111111111\nebs b 259:1 1024 vol-22222222222222222\n\
    part b1 259:2 512 of=b\nother ram0 1:0 64\n\
    attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
    mount 1 0 259:0 / / rw - ext4 /dev/a rw\n";
const WAITING: &str = "mount 2 1 0:33 / /b rw - autofs systemd-1 rw,fd=48,timeout=0,direct,pipe_ino=7\n";

fn plan(more: &str, change: impl FnOnce(&mut PlanSettings)) -> Plan {
    plan_with(&Host::of(&format!("{HOST}{more}")).facts(), change).unwrap()
}

fn missing(plan: &Plan) -> Vec<(String, bool)> {
    plan.missing.iter().map(|m| (m.to_string(), m.counts)).collect()
}

#[test]
fn what_fstab_names_and_nothing_shows_is_told_and_counts() {
    let found = plan("fstab /dev/b1 /b ext4 nofail 0 2\n", |_| {});
    let text = "/b (/dev/b1, named by /etc/fstab, line 1): it is not mounted";
    assert_eq!(missing(&found), [(text.to_owned(), true)]);
    assert_eq!(found.missing[0].device.as_deref(), Some("b1"));
    assert_eq!(found.missing[0].volumes, ["vol-22222222222222222".parse().unwrap()]);
    assert!(found.is_incomplete());
    // A volume that is not attached: nobody can know that it is none of this plan.
    let gone = plan("fstab UUID=1-2 /gone xfs defaults\n", |_| {});
    let text = "/gone (UUID=1-2, named by /etc/fstab, line 1): nothing here is UUID=1-2";
    assert_eq!(missing(&gone), [(text.to_owned(), true)]);
    let warned = plan("fstab /dev/b1 /b ext4\n", |s| s.missing_mounts = MissingMounts::Warn);
    assert!(warned.missing.len() == 1 && !warned.is_incomplete());
}

#[test]
fn what_is_mounted_or_is_no_part_of_the_plan_is_not_missing() {
    let none = |more: &str, change: fn(&mut PlanSettings)| {
        let found = plan(more, change);
        assert_eq!(missing(&found), [], "{more}");
    };
    none("fstab /dev/b1 /b ext4\nmount 2 1 259:2 / /b rw - ext4 /dev/b1 rw\n", |_| {});
    // Mounted elsewhere: through a link, or another subvolume of it.
    none("fstab /dev/b1 /b ext4\nmount 2 1 259:2 / /srv/b rw - ext4 /dev/b1 rw\n", |_| {});
    for line in [
        "/dev/b1 /b ext4 noauto",
        "/dev/b1 none swap sw",
        "/srv/x /b none bind",
        "server:/b /b nfs nofail",
        "//server/b /b cifs nofail",
        "tmpfs /b tmpfs",
        // A disk, and none of this instance's volumes.
        "/dev/ram0 /b ext4 nofail",
        // iSCSI that is not there.
        "UUID=1-2 /b ext4 nofail,_netdev",
    ] {
        none(&format!("fstab {line}\n"), |_| {});
    }
    none("fstab /dev/b1 /b ext4\n", |s| s.exclude_mounts = vec!["/b".into()]);
    none("fstab /dev/b1 /b ext4\n", |s| s.exclude_volumes = vec!["vol-22222222222222222".parse().unwrap()]);
    none("fstab /dev/b1 /b ext4\n", |s| s.mounts = vec!["/".into()]);
    none("fstab UUID=1-2 /b ext4\n", |s| s.volumes = vec!["vol-11111111111111111".parse().unwrap()]);
    // A typing error stays one.
    let facts = Host::of(HOST).facts();
    assert!(told(&plan_with(&facts, |s| s.exclude_mounts = vec!["/c".into()]).unwrap_err()).contains("/c"));
}

/// Its volume is in the set for another reason: then it matters, whatever else was chosen.
#[test]
fn a_missing_mount_on_a_volume_of_the_set_counts() {
    let both = "part b2 259:3 512 of=b\nmount 2 1 259:3 / /b2 rw - xfs /dev/b2 rw\nfstab /dev/b1 /b ext4\n";
    let found = plan(both, |s| s.mounts = vec!["/b2".into()]);
    assert_eq!(found.missing.len(), 1);
    assert!(found.is_incomplete());
}

#[test]
fn an_idle_automount_is_mounted_by_a_run_and_named_by_a_plan() {
    let text = format!("{WAITING}fstab /dev/b1 /b ext4 noauto,x-systemd.automount\n");
    let facts = Host::of(&format!("{HOST}{text}")).facts();
    let settings = |change: fn(&mut PlanSettings)| {
        let mut settings = rig::fixture::settings();
        change(&mut settings);
        settings
    };
    let due = |change: fn(&mut PlanSettings)| to_mount(&facts, &settings(change)).len();
    assert_eq!(due(|_| {}), 1);
    assert_eq!(due(|s| s.automounts = Automounts::Name), 0);
    assert_eq!(due(|s| s.exclude_mounts = vec!["/b".into()]), 0);
    assert_eq!(due(|s| s.mounts = vec!["/".into()]), 0);
    assert_eq!(due(|s| s.mounts = vec!["/b".into()]), 1);
    assert_eq!(due(|s| s.volumes = vec!["vol-22222222222222222".parse().unwrap()]), 1);
    assert_eq!(due(|s| s.volumes = vec!["vol-11111111111111111".parse().unwrap()]), 0);
    let found = plan_with(&facts, |_| {}).unwrap();
    assert!(found.missing[0].why.contains("a run mounts it first"), "{:?}", found.missing);
    assert!(!found.is_incomplete());
    let named = plan_with(&facts, |s| s.automounts = Automounts::Name).unwrap();
    assert!(named.missing[0].why.contains("automounts = \"name\""), "{:?}", named.missing);
    // Chosen by name, it is no mistake: a run mounts it first.
    assert_eq!(plan_with(&facts, |s| s.mounts = vec!["/".into(), "/b".into()]).unwrap().missing.len(), 1);
    // The run has tried.
    let mut tried = facts.clone();
    tried.expected.mounts[0].failed = Some("its automount failed: No such device".to_owned());
    assert!(plan_with(&tried, |_| {}).unwrap().is_incomplete());
}

#[test]
fn only_automounts_of_this_instances_disks_are_set_off() {
    let due =
        |more: &str| to_mount(&Host::of(&format!("{HOST}{more}")).facts(), &rig::fixture::settings()).len();
    let option = "x-systemd.automount";
    assert_eq!(due(&format!("{WAITING}fstab server:/b /b nfs {option}\n")), 0);
    assert_eq!(due(&format!("{WAITING}fstab /dev/ram0 /b ext4 {option}\n")), 0);
    assert_eq!(due(&format!("{WAITING}fstab UUID=1-2 /b ext4 {option}\n")), 0);
    assert_eq!(due(&format!("{WAITING}fstab /dev/b1 /b ext4 {option},_netdev\n")), 0);
    assert_eq!(due(WAITING), 0, "nobody says what it is");
    // An indirect map has no path of its own that could be opened.
    let indirect = WAITING.replace("direct", "indirect");
    assert_eq!(due(&format!("{indirect}fstab /dev/b1 /b ext4 {option}\n")), 0);
    // Something is mounted on it.
    let mounted = "mount 3 2 259:2 / /b rw - ext4 /dev/b1 rw\n";
    assert_eq!(due(&format!("{WAITING}{mounted}fstab /dev/b1 /b ext4 {option}\n")), 0);
    // The automount itself is not there.
    let gone = plan(&format!("fstab /dev/b1 /b ext4 {option}\n"), |_| {});
    assert!(gone.is_incomplete() && gone.missing[0].why == "no automount waits there", "{:?}", gone.missing);
}

/// The way to it would set off another one, which may be a server's.
#[test]
fn an_automount_below_another_one_is_left_alone() {
    let above = WAITING.replace("mount 2", "mount 3").replace(" /b ", " /srv ").replace("0:33", "0:34");
    let below = WAITING.replace(" /b ", " /srv/b ");
    let lines =
        "fstab server:/b /srv nfs x-systemd.automount\nfstab /dev/b1 /srv/b ext4 x-systemd.automount\n";
    let host = format!("{HOST}{above}{below}{lines}");
    let facts = Host::of(&host).facts();
    assert_eq!(to_mount(&facts, &rig::fixture::settings()).len(), 0);
    let found = plan_with(&facts, |_| {}).unwrap();
    let why = "it is below the automount at /srv, on which nothing is mounted";
    assert_eq!((found.missing[0].why.as_str(), found.missing[0].counts), (why, true));
    let mounted = format!("{host}mount 4 3 0:35 / /srv rw - nfs server:/b rw\n");
    // The inner one is on the share, then.
    let mounted = mounted.replace("mount 2 1 0:33", "mount 2 4 0:33");
    assert_eq!(to_mount(&Host::of(&mounted).facts(), &rig::fixture::settings()).len(), 1);
}

#[test]
fn an_automount_that_nobody_explains_is_noted() {
    let note = |host: &str, units: Option<Result<&str, &str>>| {
        let facts = Host::of(&format!("{HOST}{host}")).facts_with(units);
        plan_with(&facts, |_| {}).unwrap().notes.iter().any(|n| n.contains("An automount waits at"))
    };
    assert!(note(WAITING, None));
    assert!(note(WAITING, Some(Err("no answer"))));
    assert!(note(&WAITING.replace("systemd-1", "/etc/auto.direct"), Some(Ok(""))));
    assert!(!note(WAITING, Some(Ok(""))), "systemd knows it, and it is of no disk");
    assert!(!note(&WAITING.replace(" /b ", " /proc/sys/fs/binfmt_misc "), None));
}

#[test]
fn mount_units_are_looked_at_too() {
    let unit = |id: &str, state: &str, file: &str, what: &str, more: &str| {
        format!(
            "Id={id}\nLoadState=loaded\nActiveState={state}\nUnitFileState={file}\nWhere=/b\nWhat={what}\n{more}\n"
        )
    };
    let found = |units: &str, more: &str| {
        let facts = Host::of(&format!("{HOST}{more}")).facts_with(Some(Ok(units)));
        missing(&plan_with(&facts, |_| {}).unwrap())
    };
    let failed = unit("b.mount", "failed", "static", "/dev/b1", "Result=exit-code\nOptions=rw\n");
    let text = "/b (/dev/b1, named by b.mount): b.mount has failed (exit-code)";
    assert_eq!(found(&failed, ""), [(text.to_owned(), true)]);
    let text = "/b (/dev/b1, named by /etc/fstab, line 1): b.mount has failed (exit-code)";
    assert_eq!(found(&failed, "fstab /dev/b1 /b ext4 nofail\n"), [(text.to_owned(), true)]);
    let enabled = unit("b.mount", "inactive", "enabled", "/dev/b1", "");
    let text = "/b (/dev/b1, named by b.mount): it is not mounted";
    assert_eq!(found(&enabled, ""), [(text.to_owned(), true)]);
    assert_eq!(found(&unit("b.mount", "inactive", "static", "/dev/b1", ""), ""), []);
    assert_eq!(found(&unit("b.mount", "failed", "static", "server:/b", ""), ""), []);
    assert_eq!(found(&unit("b.mount", "failed", "static", "/srv/b", "Options=bind\n"), ""), []);
    // An automount unit: its mount unit says what it is of.
    let automount = "Id=b.automount\nLoadState=loaded\nActiveState=active\nWhere=/b\n\n";
    let pair = format!("{automount}{}", unit("b.mount", "inactive", "static", "/dev/b1", ""));
    let text = "/b (/dev/b1, named by b.mount): an automount waits there; a run mounts it first";
    assert_eq!(found(&pair, WAITING), [(text.to_owned(), false)]);
    // systemd does not answer: that is said.
    let facts = Host::of(HOST).facts_with(Some(Err("systemctl does not answer within 10s")));
    let notes = plan_with(&facts, |_| {}).unwrap().notes;
    assert!(
        notes.iter().any(|n| n.contains("Mount units were not looked at: systemctl does not")),
        "{notes:?}"
    );
}
