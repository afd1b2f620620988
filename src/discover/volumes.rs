//! Which disk of this host is which EBS volume.
//!
//! In: block devices and what EC2 says is attached. Out: every attached volume, with its disk where one was
//! found. Must never: give one disk to two volumes, go by a name where the disk can be told otherwise, or
//! drop an attached volume.

use serde::Serialize;

use super::{BlockDevice, DeviceKind, DiskMatch, MatchedBy, Volume};
use crate::ids::VolumeId;

/// NVMe model of an EBS volume (EBS guide, "Identify the EBS device").
pub const EBS_MODEL: &str = "Amazon Elastic Block Store";
/// NVMe model of an instance store disk (EC2 guide, "Instance store volumes").
pub const INSTANCE_STORE_MODEL: &str = "Amazon EC2 NVMe Instance Storage";

/// A volume attached to this instance, from DescribeVolumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedVolume {
    /// The volume.
    pub id: VolumeId,
    /// The attachment's device name, AWS's meaning.
    pub device_name: String,
    /// `gp3`, `io2`, …
    pub volume_type: String,
    /// Size in GiB.
    pub size_gib: i32,
    /// Provisioned IOPS.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s.
    pub throughput: Option<i32>,
    /// Encrypted at rest.
    pub encrypted: bool,
    /// The volume's own tags.
    pub tags: Vec<(String, String)>,
}

/// The volume that a disk's serial number names.
#[must_use]
pub fn serial_volume(device: &BlockDevice) -> Option<VolumeId> {
    match &device.kind {
        DeviceKind::Disk { model, serial, .. } if model == EBS_MODEL => {
            VolumeId::from_nvme_serial(serial).ok()
        }
        _ => None,
    }
}

/// Joins attached volumes with disks: by NVMe serial, and on a Xen instance by Xen's names.
#[must_use]
pub fn join(
    devices: &[BlockDevice],
    attached: Vec<AttachedVolume>,
    root_device_name: Option<&str>,
) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = attached
        .into_iter()
        .map(|a| {
            let by_serial = devices.iter().find(|d| serial_volume(d).as_ref() == Some(&a.id));
            Volume {
                boot: root_device_name == Some(a.device_name.as_str()),
                id: a.id,
                device_name: a.device_name,
                size_gib: a.size_gib,
                volume_type: a.volume_type,
                iops: a.iops,
                throughput: a.throughput,
                encrypted: a.encrypted,
                tags: a.tags,
                disk: by_serial.map(|d| matched(d, MatchedBy::NvmeSerial)),
            }
        })
        .collect();
    volumes.sort_by(|a, b| (&a.device_name, &a.id).cmp(&(&b.device_name, &b.id)));

    // An instance has its EBS volumes on NVMe, all of them, or on Xen, all of them. With one on NVMe, a
    // volume without a disk has none yet, and whatever has its name is something else.
    if devices.iter().any(|d| matches!(&d.kind, DeviceKind::Disk { model, .. } if model == EBS_MODEL)) {
        return volumes;
    }
    // The exact name goes first, so that the attachments /dev/sda1 and /dev/sda each find their own disk.
    for exact in [true, false] {
        for i in 0..volumes.len() {
            let volume = &volumes[i];
            if volume.disk.is_some() {
                continue;
            }
            let taken =
                |d: &BlockDevice| volumes.iter().any(|v| v.disk.as_ref().is_some_and(|m| m.dev == d.dev));
            let names = kernel_names(&volume.device_name, exact);
            let found = names.iter().find_map(|n| {
                devices.iter().find(|d| d.name == *n && is_xen_disk(d) && fits(d, volume) && !taken(d))
            });
            volumes[i].disk = found.map(|d| matched(d, MatchedBy::XenName));
        }
    }
    volumes
}

fn matched(device: &BlockDevice, by: MatchedBy) -> DiskMatch {
    DiskMatch { name: device.name.clone(), dev: device.dev, by }
}

/// A disk of xen-blkfront, which has neither model nor serial number: a name is all that tells such disks
/// apart. The kernel gives names such as `sdb` and `vdb` to disks of any origin (iSCSI, USB, virtio), so
/// there the bus has to say that it is Xen's.
fn is_xen_disk(device: &BlockDevice) -> bool {
    match &device.kind {
        DeviceKind::Disk { model, serial, xen } => {
            model.is_empty() && serial.is_empty() && (*xen || device.name.starts_with("xvd"))
        }
        _ => false,
    }
}

/// Is the disk as large as the volume, which has whole GiB?
fn fits(device: &BlockDevice, volume: &Volume) -> bool {
    u64::try_from(volume.size_gib).is_ok_and(|gib| device.size.div_ceil(1 << 30) == gib)
}

/// What the kernel may call an attachment (EC2 guide, "Device names for volumes": on Xen, /dev/sdX may show
/// as /dev/xvdX). Not exact: /dev/sda1 names the disk that shows as xvda.
fn kernel_names(device_name: &str, exact: bool) -> Vec<String> {
    let name = device_name.strip_prefix("/dev/").unwrap_or(device_name);
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let name = if exact { name } else { disk };
    match name.strip_prefix("sd") {
        Some(letters) => vec![format!("xvd{letters}"), name.to_owned()],
        None => vec![name.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DevNo;
    use std::path::PathBuf;

    fn disk(name: &str, minor: u32, model: &str, serial: &str) -> BlockDevice {
        BlockDevice {
            name: name.into(),
            dev: DevNo { major: 259, minor },
            kind: DeviceKind::Disk { model: model.into(), serial: serial.into(), xen: false },
            below: vec![],
            size: 8 << 30,
            stat: PathBuf::new(),
            swap: false,
        }
    }

    fn attached(digit: char, device_name: &str) -> AttachedVolume {
        AttachedVolume {
            id: format!("vol-{}", digit.to_string().repeat(17)).parse().unwrap(),
            device_name: device_name.into(),
            volume_type: "gp3".into(),
            size_gib: 8,
            iops: None,
            throughput: None,
            encrypted: false,
            tags: vec![],
        }
    }

    fn serial(digit: char) -> String {
        format!("vol{}", digit.to_string().repeat(17))
    }

    fn found<'a>(volumes: &'a [Volume]) -> Vec<(&'a str, Option<(&'a str, MatchedBy)>)> {
        let disk = |v: &'a Volume| v.disk.as_ref().map(|d| (d.name.as_str(), d.by));
        volumes.iter().map(|v| (v.device_name.as_str(), disk(v))).collect()
    }

    #[test]
    fn the_serial_number_decides_and_not_the_order_or_the_name() {
        let devices = [
            disk("nvme0n1", 0, EBS_MODEL, &serial('b')),
            disk("nvme1n1", 1, EBS_MODEL, &serial('a')),
            disk("xvdf", 2, "", ""),
        ];
        let volumes =
            join(&devices, vec![attached('b', "/dev/sdf"), attached('a', "/dev/xvda")], Some("/dev/xvda"));
        assert_eq!(
            found(&volumes),
            [
                ("/dev/sdf", Some(("nvme0n1", MatchedBy::NvmeSerial))),
                ("/dev/xvda", Some(("nvme1n1", MatchedBy::NvmeSerial))),
            ]
        );
        assert_eq!(volumes.iter().map(|v| v.boot).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_serial_counts_only_on_an_ebs_disk() {
        let devices = [
            disk("nvme1n1", 1, INSTANCE_STORE_MODEL, &serial('a')),
            disk("nvme2n1", 2, "QEMU", &serial('a')),
        ];
        assert_eq!(
            found(&join(&devices, vec![attached('a', "/dev/nvme1n1")], None)),
            [("/dev/nvme1n1", None)]
        );
    }

    #[test]
    fn xen_names() {
        let devices = [
            disk("xvda", 1, "", ""),
            disk("xvdf", 2, "", ""),
            disk("xvdba", 3, "", ""),
            disk("xvdb", 4, "", ""),
        ];
        let volumes = join(
            &devices,
            vec![
                attached('a', "/dev/sda1"),
                attached('b', "/dev/sdf"),
                attached('c', "xvdba"),
                attached('d', "sdz"),
            ],
            Some("/dev/sda1"),
        );
        assert_eq!(
            found(&volumes),
            [
                ("/dev/sda1", Some(("xvda", MatchedBy::XenName))),
                ("/dev/sdf", Some(("xvdf", MatchedBy::XenName))),
                ("sdz", None),
                ("xvdba", Some(("xvdba", MatchedBy::XenName))),
            ]
        );
    }

    #[test]
    fn one_disk_is_never_two_volumes_and_the_exact_name_goes_first() {
        let devices = [disk("xvda", 1, "", ""), disk("xvda1", 2, "", "")];
        let volumes = join(&devices, vec![attached('a', "/dev/sda1"), attached('b', "/dev/sda")], None);
        assert_eq!(
            found(&volumes),
            [
                ("/dev/sda", Some(("xvda", MatchedBy::XenName))),
                ("/dev/sda1", Some(("xvda1", MatchedBy::XenName))),
            ]
        );
        let one = [disk("xvdf", 1, "", "")];
        let volumes = join(&one, vec![attached('a', "/dev/sdf"), attached('b', "/dev/xvdf")], None);
        assert_eq!(volumes.iter().filter(|v| v.disk.is_some()).count(), 1);
    }

    /// One volume attached under this name, and this disk alone: is it the one?
    fn is_it(device_name: &str, disk: BlockDevice) -> bool {
        join(&[disk], vec![attached('a', device_name)], None)[0].disk.is_some()
    }

    #[test]
    fn a_name_counts_only_where_nothing_else_can_tell_the_disk() {
        assert!(is_it("/dev/sdb", disk("xvdb", 1, "", "")));
        for (name, model, serial) in [
            ("sdb", "LUN C-Mode", ""),
            ("sdb", "", ""),
            ("sdb", "", "600a0980"),
            ("vdb", "", ""),
            ("hdb", "", ""),
            ("xvdb", "Virtual Disk", ""),
            ("xvdb", "", "vol99999999999999999"),
            ("nvme1n1", "", ""),
        ] {
            let device_name =
                if name.starts_with("xvd") { "/dev/sdb".into() } else { format!("/dev/{name}") };
            assert!(!is_it(&device_name, disk(name, 1, model, serial)), "{name} {model} {serial}");
        }
        let other = |name: &str| BlockDevice { kind: DeviceKind::Other, ..disk(name, 1, "", "") };
        for name in ["zram0", "nbd0", "xvdb"] {
            assert!(!is_it(&format!("/dev/{name}"), other(name)), "{name}");
        }
    }

    #[test]
    fn the_bus_of_xen_makes_an_sd_of_its_own() {
        let on_xen = |name: &str| {
            let kind = DeviceKind::Disk { model: String::new(), serial: String::new(), xen: true };
            BlockDevice { kind, ..disk(name, 1, "", "") }
        };
        assert!(is_it("/dev/sdf", on_xen("sdf")), "older kernels call them so");
        assert!(!is_it("/dev/sdg", on_xen("sdf")));
    }

    #[test]
    fn a_disk_of_another_size_is_another_disk() {
        for (size, fits) in
            [(8 << 30, true), (7 << 30, false), (9 << 30, false), (200 << 30, false), (0, false)]
        {
            assert_eq!(is_it("/dev/sdf", BlockDevice { size, ..disk("xvdf", 1, "", "") }), fits, "{size}");
        }
    }

    #[test]
    fn with_one_ebs_disk_on_nvme_no_name_counts() {
        let devices = [disk("nvme0n1", 0, EBS_MODEL, &serial('a')), disk("xvdf", 1, "", "")];
        let volumes = join(&devices, vec![attached('a', "/dev/xvda"), attached('b', "/dev/sdf")], None);
        assert_eq!(
            found(&volumes),
            [("/dev/sdf", None), ("/dev/xvda", Some(("nvme0n1", MatchedBy::NvmeSerial)))]
        );
        // i3 and f1 are Xen, with instance store on NVMe.
        let i3 = [disk("nvme0n1", 0, INSTANCE_STORE_MODEL, "AWS1"), disk("xvdf", 1, "", "")];
        assert_eq!(
            found(&join(&i3, vec![attached('b', "/dev/sdf")], None)),
            [("/dev/sdf", Some(("xvdf", MatchedBy::XenName)))]
        );
    }
}
