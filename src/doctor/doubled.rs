//! Filesystems that are on two disks of this host: a copy of a volume that was left attached beside its original.
//!
//! In: the block devices, what is on them, the volumes that restores of this host have made. Out: findings. Must never: take
//! the parts of one filesystem (mirrors, members, snapshots on the same disks) for two.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::discover::volumes::serial_volume;
use crate::discover::{BlockDevice, DeviceKind};
use crate::host::inspect::{Answer, Inspect, Question};
use crate::ids::{RunId, VolumeId};
use crate::path_encoding::printable;

/// The id of the finding.
pub const ID: &str = "doubled-uuid";

/// Looks at every device that nothing else is made of. `restored`: which restore has made a volume.
#[must_use]
pub fn doubled(
    devices: &[BlockDevice],
    inspect: &dyn Inspect,
    restored: &BTreeMap<VolumeId, RunId>,
) -> Vec<Finding> {
    let tops: Vec<&BlockDevice> = devices.iter().filter(|d| is_top(d, devices)).collect();
    let questions: Vec<Question> =
        tops.iter().map(|d| Question::Identity { dev: d.dev, name: d.name.clone() }).collect();
    let mut same: BTreeMap<(String, String), Vec<&BlockDevice>> = BTreeMap::new();
    let mut unread = Vec::new();
    for (device, answer) in tops.iter().zip(inspect.ask(&questions)) {
        match answer {
            Some(Answer::Identity(Some(identity))) => same.entry(identity).or_default().push(device),
            Some(Answer::Identity(None)) => {}
            Some(Answer::Failed(why) | Answer::NeedsRoot(why)) => {
                unread.push(format!("{}: {why}", device.name))
            }
            _ => unread.push(format!("{}: it does not answer", device.name)),
        }
    }
    // A snapshot of LVM has a part of its own besides the disks of its origin.
    let several = |on: &Vec<&BlockDevice>| {
        let disks: Vec<BTreeSet<&str>> = on.iter().map(|d| disks(d, devices)).collect();
        disks.iter().enumerate().any(|(n, one)| disks[n + 1..].iter().any(|other| one.is_disjoint(other)))
    };
    let doubles = same.into_iter().filter(|(_, on)| several(on));
    let mut found: Vec<Finding> =
        doubles.map(|(identity, on)| finding(&identity, &on, devices, restored)).collect();
    if found.is_empty() && unread.is_empty() {
        found.push(Finding::ok(ID, "no two disks have the same filesystem"));
    }
    if !unread.is_empty() {
        found.push(Finding::not_checked(ID, unread.join("; ")));
    }
    found
}

/// Could a filesystem be on it, and is no other device made of it?
fn is_top(device: &BlockDevice, all: &[BlockDevice]) -> bool {
    let kind = matches!(
        device.kind,
        DeviceKind::Disk { .. }
            | DeviceKind::Partition { .. }
            | DeviceKind::Dm { .. }
            | DeviceKind::Md { .. }
    );
    kind && device.size > 0 && !all.iter().any(|other| other.below.contains(&device.name))
}

/// The disks that it is on.
fn disks<'a>(device: &'a BlockDevice, all: &'a [BlockDevice]) -> BTreeSet<&'a str> {
    let (mut found, mut open, mut seen) = (BTreeSet::new(), vec![device], BTreeSet::new());
    while let Some(one) = open.pop() {
        if !seen.insert(one.name.as_str()) {
            continue;
        }
        if one.below.is_empty() {
            found.insert(one.name.as_str());
        }
        open.extend(all.iter().filter(|d| one.below.contains(&d.name)));
    }
    found
}

fn finding(
    (fstype, uuid): &(String, String),
    on: &[&BlockDevice],
    all: &[BlockDevice],
    restored: &BTreeMap<VolumeId, RunId>,
) -> Finding {
    let names: Vec<String> = on.iter().map(|d| printable(&d.name).into_owned()).collect();
    let volume = |disk: &str| serial_volume(all.iter().find(|d| d.name == disk)?);
    let volumes: BTreeSet<VolumeId> = on.iter().flat_map(|d| disks(d, all)).filter_map(volume).collect();
    let made: BTreeSet<&RunId> = volumes.iter().filter_map(|v| restored.get(v)).collect();
    let anew = match fstype.as_str() {
        "ext4" => " (`tune2fs -U random`)",
        "xfs" => " (`xfs_admin -U generate`)",
        "btrfs" => " (`btrfstune -m`)",
        _ => "",
    };
    let remedy = match made.first() {
        Some(id) => {
            format!("`stillpoint restore --undo {id}` takes back the restore that has made one of them")
        }
        None => format!("detach the one that is the copy, or give it, unmounted, a UUID of its own{anew}"),
    };
    let what = format!("{} are the same {fstype} by their UUID {uuid}", names.join(" and "));
    Finding::warning(ID, what)
        .at(names.iter().cloned().chain(volumes.iter().map(ToString::to_string)))
        .why(
            "what goes by the UUID (a boot, fstab, a unit) may take one for the other, and systemd may unmount one when \
             the other goes",
        )
        .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::volumes::EBS_MODEL;
    use crate::doctor::Severity;
    use crate::ids::DevNo;

    #[derive(Debug)]
    struct On(Vec<(&'static str, Option<Answer>)>);

    impl Inspect for On {
        fn ask(&self, questions: &[Question]) -> Vec<Option<Answer>> {
            let answer = |q: &Question| {
                let Question::Identity { name, .. } = q else { panic!("{q:?}") };
                let known = self.0.iter().find(|(of, _)| of == name);
                known.map_or(Some(Answer::Identity(None)), |(_, a)| a.clone())
            };
            questions.iter().map(answer).collect()
        }
    }

    fn is(fstype: &str, uuid: &str) -> Option<Answer> {
        Some(Answer::Identity(Some((fstype.to_owned(), uuid.to_owned()))))
    }

    fn device(name: &str, kind: DeviceKind, below: &[&str]) -> BlockDevice {
        let minor = u32::from(name.bytes().fold(0u16, |n, b| n.wrapping_mul(31).wrapping_add(b.into())));
        BlockDevice {
            name: name.to_owned(),
            dev: DevNo { major: 259, minor },
            kind,
            below: below.iter().map(|b| (*b).to_owned()).collect(),
            size: 1 << 30,
            stat: "/stat".into(),
            swap: false,
        }
    }

    fn disk(name: &str, serial: &str) -> BlockDevice {
        let model = EBS_MODEL.to_owned();
        device(name, DeviceKind::Disk { model, serial: serial.to_owned(), xen: false }, &[])
    }

    fn warnings(devices: &[BlockDevice], on: On) -> Vec<Finding> {
        let all = doubled(devices, &on, &BTreeMap::new());
        all.into_iter().filter(|f| f.severity == Severity::Warning).collect()
    }

    #[test]
    fn a_copy_beside_its_original_is_told_with_both_and_the_way_out() {
        let two = [disk("nvme1n1", "vol0aaaaaaaaaaaaaaaa"), disk("nvme2n1", "vol0bbbbbbbbbbbbbbbb")];
        let both = || On(vec![("nvme1n1", is("xfs", "u")), ("nvme2n1", is("xfs", "u"))]);
        let found = warnings(&two, both());
        assert_eq!(found[0].what, "nvme1n1 and nvme2n1 are the same xfs by their UUID u");
        assert!(found[0].remedy.as_ref().unwrap().contains("xfs_admin -U generate"), "{found:?}");
        let volume: VolumeId = "vol-0bbbbbbbbbbbbbbbb".parse().unwrap();
        assert!(found[0].at.contains(&volume.to_string()), "{found:?}");
        let id = RunId::generate();
        let of_restore = doubled(&two, &both(), &BTreeMap::from([(volume, id.clone())]));
        assert!(of_restore[0].remedy.as_ref().unwrap().contains(&format!("restore --undo {id}")));
        let other = On(vec![("nvme1n1", is("xfs", "u")), ("nvme2n1", is("xfs", "v"))]);
        assert!(warnings(&two, other).is_empty());
        assert_eq!(doubled(&two, &On(vec![]), &BTreeMap::new())[0].severity, Severity::Ok);
    }

    #[test]
    fn parts_of_one_are_not_two() {
        let partition = |name: &str, of: &str| device(name, DeviceKind::Partition { number: 1 }, &[of]);
        let md = device("md0", DeviceKind::Md { level: "raid1".into() }, &["a1", "b1"]);
        let lv =
            |name: &str| device(name, DeviceKind::Dm { name: name.into(), uuid: "LVM-x".into() }, &["c"]);
        let all = [
            disk("a", ""),
            disk("b", ""),
            disk("c", ""),
            partition("a1", "a"),
            partition("b1", "b"),
            md,
            lv("dm-0"),
            lv("dm-1"),
        ];
        // Members of a mirror look like the whole, and so does an LVM snapshot of the same disk.
        let same = ["a", "a1", "b1", "md0"].map(|n| (n, is("ext4", "u")));
        let snapshot = ["dm-0", "dm-1"].map(|n| (n, is("xfs", "v")));
        assert!(warnings(&all, On(same.into_iter().chain(snapshot).collect())).is_empty());
        // What has changed since an LVM snapshot may be on another disk.
        let wider = device("dm-2", DeviceKind::Dm { name: "s".into(), uuid: "LVM-y".into() }, &["c", "d"]);
        let both = [&all[..], &[disk("d", ""), wider]].concat();
        assert!(warnings(&both, On(["dm-0", "dm-2"].map(|n| (n, is("xfs", "v"))).to_vec())).is_empty());
        // Partitions of two disks are.
        let two = [disk("a", ""), disk("b", ""), partition("a1", "a"), partition("b1", "b")];
        let on = ["a1", "b1"].map(|n| (n, is("ext4", "u")));
        assert_eq!(warnings(&two, On(on.to_vec())).len(), 1);
    }

    #[test]
    fn what_does_not_answer_is_not_called_fine() {
        let two = [disk("a", ""), disk("b", "")];
        let on = On(vec![("a", None), ("b", Some(Answer::Failed("no node".into())))]);
        let found = doubled(&two, &on, &BTreeMap::new());
        let [unread] = &found[..] else { panic!("{found:?}") };
        assert_eq!(unread.severity, Severity::NotChecked);
        assert_eq!(unread.what, "not checked: a: it does not answer; b: no node");
    }
}
