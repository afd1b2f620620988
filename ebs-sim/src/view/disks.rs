//! How the volumes look: names, places on the bus, partitions.
//!
//! In: the volumes with their numbers and a bus. Out: a list of disks. A disk's name must never depend on
//! which other disks there are: those come and go.

use std::path::{Path, PathBuf};

use crate::ready::Volume;
use crate::scenario::VolumeKind;

/// A disk of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `nvme1n1`, `xvdf`
    pub name: String,
    /// Its folder, relative to `/sys`.
    pub place: PathBuf,
    /// What `device/model` and `device/serial` say; Xen disks have neither.
    pub nvme: Option<Nvme>,
    /// The real loop device's folder, relative to `/sys`.
    pub real: PathBuf,
    /// The partitions: the real folder's name and the name to show.
    pub partitions: Vec<(String, String)>,
}

/// What an NVMe controller says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nvme {
    /// `nvme1`
    pub controller: String,
    /// The PCI function, `0000:00:04.0`.
    pub function: String,
    pub model: &'static str,
    pub serial: String,
    /// The PCI device id.
    pub device_id: &'static str,
}

/// The bus of the made disks. Real Nitro instances use pci0000:00; where this machine has one, it is a bus
/// that it does not have.
pub fn free_bus(devices: &Path) -> String {
    (0..256u32)
        .map(|n| format!("pci0000:{n:02x}"))
        .find(|bus| !devices.join(bus).exists())
        .unwrap_or_else(|| "pci0001:00".into())
}

/// Gives every volume its name and its place.
pub fn plan(volumes: &[Volume], bus: &str) -> Vec<Disk> {
    let number = bus.rsplit(':').next().unwrap_or("00").to_owned();
    volumes
        .iter()
        .map(|volume| {
            let n = volume.disk;
            let real = loop_folder(volume);
            let (name, place, nvme) = match volume.kind {
                VolumeKind::Xen => {
                    let name = xen_name(&volume.device_name);
                    // The bus address only has to differ from disk to disk.
                    let address = 51712 + 16 * n;
                    let place = PathBuf::from(format!("devices/vbd-{address}/block/{name}"));
                    (name, place, None)
                }
                kind => {
                    let controller = format!("nvme{n}");
                    let name = format!("{controller}n1");
                    // A bus has 32 slots, each of eight functions.
                    let (slot, of_slot) = ((n + 4) % 32, (n + 4) / 32);
                    let function = format!("0000:{number}:{slot:02x}.{of_slot}");
                    let place = Path::new("devices")
                        .join(bus)
                        .join(&function)
                        .join("nvme")
                        .join(&controller)
                        .join(&name);
                    let nvme = nvme(kind, volume, controller, function);
                    (name, place, Some(nvme))
                }
            };
            Disk { partitions: partitions(&Path::new("/sys").join(&real), &name), name, place, nvme, real }
        })
        .collect()
}

fn nvme(kind: VolumeKind, volume: &Volume, controller: String, function: String) -> Nvme {
    let id = volume.id.as_str();
    let digits = id.strip_prefix("vol-").unwrap_or(id);
    let (model, serial, device_id) = match kind {
        VolumeKind::InstanceStore => {
            ("Amazon EC2 NVMe Instance Storage", format!("AWS{}", digits.to_uppercase()), "0xcd01")
        }
        _ => ("Amazon Elastic Block Store", format!("vol{digits}"), "0x8061"),
    };
    Nvme { controller, function, model, serial, device_id }
}

/// `/dev/sdf` and `xvdf` are `xvdf`; `/dev/sda1` is the disk `xvda`.
fn xen_name(device_name: &str) -> String {
    let bare = device_name.strip_prefix("/dev/").unwrap_or(device_name);
    let letters = bare.strip_prefix("xvd").or_else(|| bare.strip_prefix("sd")).unwrap_or(bare);
    match letters {
        "a1" => "xvda".into(),
        letters => format!("xvd{letters}"),
    }
}

fn loop_folder(volume: &Volume) -> PathBuf {
    let name = volume.loop_device.file_name().unwrap_or_default();
    Path::new("devices/virtual/block").join(name)
}

/// The partitions that the loop device has now. NVMe puts a p before the number, Xen does not.
fn partitions(real: &Path, shown: &str) -> Vec<(String, String)> {
    let separator = if shown.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    let mut found: Vec<(String, String)> = std::fs::read_dir(real)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = std::fs::read_to_string(entry.path().join("partition")).ok()?;
            Some((
                entry.file_name().to_string_lossy().into_owned(),
                format!("{shown}{separator}{}", number.trim()),
            ))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeId;

    fn volume(disk: u32, device: &str, kind: VolumeKind) -> Volume {
        Volume {
            id: VolumeId::parse("vol-0123456789abcdef0").expect("an id"),
            name: device.into(),
            device_name: device.into(),
            loop_device: "/dev/loop999".into(),
            size_bytes: 1 << 30,
            kind,
            boot: disk == 0,
            offset: 0,
            disk,
        }
    }

    #[test]
    fn disks_are_named_by_their_numbers() {
        let disks = plan(
            &[
                volume(3, "/dev/sdf", VolumeKind::Nvme),
                volume(0, "/dev/xvda", VolumeKind::Nvme),
                volume(130, "/dev/sdg", VolumeKind::Nvme),
                volume(1, "", VolumeKind::InstanceStore),
            ],
            "pci0000:00",
        );
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["nvme3n1", "nvme0n1", "nvme130n1", "nvme1n1"]);
        let nvme = disks[0].nvme.as_ref().expect("an NVMe disk");
        assert_eq!(nvme.serial, "vol0123456789abcdef0");
        assert_eq!(disks[0].place, Path::new("devices/pci0000:00/0000:00:07.0/nvme/nvme3/nvme3n1"));
        let last = disks[2].nvme.as_ref().expect("an NVMe disk");
        assert_eq!(last.function, "0000:00:06.4");
        let scratch = disks[3].nvme.as_ref().expect("an NVMe disk");
        assert!(scratch.serial.starts_with("AWS"));
    }

    #[test]
    fn the_bus_is_one_that_is_not_there() {
        let folder = tempfile::TempDir::new().expect("a folder");
        assert_eq!(free_bus(folder.path()), "pci0000:00");
        std::fs::create_dir(folder.path().join("pci0000:00")).expect("a folder");
        assert_eq!(free_bus(folder.path()), "pci0000:01");
    }

    #[test]
    fn xen_disks_are_named_after_their_attachment() {
        for (device, name) in
            [("/dev/sdf", "xvdf"), ("/dev/xvda", "xvda"), ("/dev/sda1", "xvda"), ("xvdba", "xvdba")]
        {
            assert_eq!(xen_name(device), name, "{device}");
        }
        let disks = plan(&[volume(1, "/dev/sdf", VolumeKind::Xen)], "pci0000:00");
        assert_eq!((disks[0].name.as_str(), &disks[0].nvme), ("xvdf", &None));
    }
}
