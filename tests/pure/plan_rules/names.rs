//! What the settings name, where more than one thing could be meant, and what is offered where nothing is.

use rig::fixture::{Host, facts, plan_with, told, vol};
use stillpoint::discover::Facts;
use stillpoint::plan::{Method, PlanError};

use super::filesystem;

/// One filesystem on each of `count` volumes, the first of them `/`.
fn volumes(count: usize) -> Facts {
    let mut text = "root-device /dev/d0\n".to_owned();
    for i in 0..count {
        let mount = if i == 0 { "/".to_owned() } else { format!("/m{i}") };
        let (parent, id) =
            (usize::from(i > 0), vol(char::from_digit(u32::try_from(i).unwrap(), 10).unwrap()));
        text += &format!(
            "ebs nvme{i}n1 259:{i} 1024 {id}\nattached {id} /dev/d{i} 1 gp3\n\
             mount {} {parent} 259:{i} / {mount} rw - ext4 /dev/nvme{i}n1 rw\n",
            i + 1
        );
    }
    Host::of(&text).facts()
}

#[test]
fn a_few_volumes_are_all_offered_and_of_many_only_what_may_be_meant() {
    let unknown = |count: usize, volume: &str| {
        let volume = volume.parse().unwrap();
        told(&plan_with(&volumes(count), |s| s.volumes = vec![volume]).unwrap_err())
    };
    let four: Vec<_> = ('0'..='3').map(|d| vol(d).to_string()).collect();
    let far = "vol-fffffffffffffffff";
    assert!(
        unknown(4, far).ends_with(&format!("\nhint: attached are {}", four.join(", "))),
        "{}",
        unknown(4, far)
    );
    assert_eq!(unknown(5, far), format!("`volumes` names {far}, which is not attached to this instance"));
    // Four typing errors, and five.
    assert!(unknown(5, "vol-3333333333333abcd").ends_with(&format!("attached are {}", vol('3'))));
    assert!(!unknown(5, "vol-333333333333abcde").contains("hint"));
}

#[test]
fn a_mount_point_names_what_is_seen_there() {
    let facts = Host::of(
        "ebs nvme0n1 259:0 9 vol-00000000000000000\nebs nvme1n1 259:1 9 vol-11111111111111111\n\
         ebs nvme2n1 259:2 9 vol-22222222222222222\nroot-device /dev/xvda\n\
         mount 1 0 259:0 / / rw - ext4 /dev/nvme0n1 rw\nmount 2 1 259:1 / /a rw - ext4 /dev/nvme1n1 rw\n\
         mount 3 2 259:2 / /a rw - xfs /dev/nvme2n1 rw\nattached vol-00000000000000000 /dev/xvda 8 gp3\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n",
    )
    .facts();
    let plan = plan_with(&facts, |s| s.mounts = vec!["/a".into()]).unwrap();
    let found: Vec<_> = plan.filesystems.iter().map(|f| (f.fstype.as_str(), f.volumes.clone())).collect();
    assert_eq!(found, [("xfs", vec![vol('2')])], "the covered one is under it");
}

#[test]
fn the_options_are_those_of_the_mount_that_is_seen() {
    let facts = Host::of(
        "ebs nvme0n1 259:0 9 vol-00000000000000000\nroot-device /dev/xvda\n\
         mount 1 0 0:20 / / rw - tmpfs tmpfs rw\n\
         mount 2 1 259:0 / /a rw,noexec - ext4 /dev/nvme0n1 rw\n\
         mount 3 2 259:0 / /a ro,nodev - ext4 /dev/nvme0n1 rw\n\
         mount 4 1 259:0 /sub /b rw,noatime - ext4 /dev/nvme0n1 rw\n\
         attached vol-00000000000000000 /dev/xvda 8 gp3\n",
    )
    .facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let found = &plan.filesystems[0];
    assert_eq!((found.mount_point.to_str(), found.options.as_str()), (Some("/a"), "ro,nodev"));
}

#[test]
fn a_method_may_be_said_twice_and_freeze_may_be_said() {
    let nitro = facts("nitro");
    let methods = |methods: [(&str, Method); 2]| {
        let plan = plan_with(&nitro, |s| s.methods.extend(methods.map(|(m, how)| (m.into(), how))));
        plan.map(|p| filesystem(&p, "/srv").method)
    };
    for method in [Method::Freeze, Method::Sync, Method::Unmount] {
        assert_eq!(methods([("/srv", method), ("/srv/logs", method)]), Ok(method));
    }
    let two = methods([("/srv", Method::Freeze), ("/srv/logs", Method::Unmount)]);
    assert!(matches!(two, Err(PlanError::TwoMethods { .. })), "{two:?}");
}
