//! Lines of mountinfo that cannot be read: what is still found, and what can no longer be promised.

use rig::fixture::{Host, plan_with};
use stillpoint::config::settings::UnmountedVolumes;

/// A line that cannot be read may be of a filesystem: what is on its volumes is then not frozen.
#[test]
fn a_mount_that_cannot_be_read_leaves_its_volumes_crash_consistent() {
    let two = "ebs a 259:0 1024 vol-11111111111111111\nebs b 259:1 1024 vol-22222222222222222\nloop loop0 7:0 9\n\
               attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
               mount 1 0 259:0 / / rw - ext4 /dev/a rw\nmount 2 1 259:1 / /b rw - ext4 /dev/b rw\n";
    let one = two.replace("mount 2 1 259:1 / /b rw - ext4 /dev/b rw\n", "");
    let bests = |text: &str, bad: &str| {
        let facts = Host::of(&format!("{text}mount {bad}\n")).facts();
        let plan = plan_with(&facts, |s| s.unmounted_volumes = UnmountedVolumes::Crash).unwrap();
        assert!(plan.notes.iter().any(|n| n.contains("mountinfo, line")), "{:?}", plan.notes);
        plan.volumes.iter().map(|v| v.best.to_string()).collect::<Vec<_>>()
    };
    let (whole, crash) = ("filesystem", "crash");
    // Of what other lines tell of, or of what is on no volume, nothing is hidden.
    assert_eq!(bests(two, "3 1 259:1 / /c rw - ext4 /dev/b"), [whole, whole]);
    assert_eq!(bests(two, "3 1 0:50 / /c rw - overlay overlay"), [whole, whole]);
    assert_eq!(bests(two, "3 1 0:50 / /c rw - tmpfs tmpfs"), [whole, whole]);
    // Of what no other line tells of, as far as it can be told.
    assert_eq!(bests(&one, "3 1 259:1 / /c rw - ext4 /dev/b"), [whole, crash]);
    for bad in [
        "3 1 7:0 / /c rw - ext4 /dev/loop0",
        "3 1 9:9 / /c rw - ext4 /dev/md9",
        "3 1 0:50 / /c rw - btrfs /dev/b",
        "3 1 0:50 / /c rw",
        "3 1 259:1",
        "nonsense",
    ] {
        let known = if bad == "3 1 259:1" { whole } else { crash };
        assert_eq!(bests(two, bad), [known, known], "{bad}");
    }
}
