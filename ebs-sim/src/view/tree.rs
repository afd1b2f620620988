//! The files and links of the view.
//!
//! In: the disks, and the real `/sys`. Out: four prepared folders. What changes while the command runs (`stat`
//! above all) must never be copied: it is a link to the real file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::disks::{Disk, Nvme};
use super::{Error, bind};

/// The files that are links to the real device's.
const LIVE: [&str; 10] =
    ["stat", "inflight", "ro", "size", "dev", "queue", "removable", "range", "start", "alignment_offset"];

/// Prepares `devices`, `dev/block`, `block` and `class/block` in `stage`.
pub fn build(stage: &Path, disks: &[Disk]) -> Result<(), Error> {
    copy_devices(&stage.join("devices"))?;
    for disk in disks {
        make_disk(stage, disk)?;
    }
    for folder in ["dev/block", "block", "class/block"] {
        make_links(stage, folder, disks)?;
    }
    Ok(())
}

/// Shows every real device where it is: folders and files by bind mounts, links as links.
fn copy_devices(to: &Path) -> Result<(), Error> {
    make_folder(to)?;
    let real = Path::new("/sys/devices");
    for entry in fs::read_dir(real).map_err(Error::io("read /sys/devices"))? {
        let entry = entry.map_err(Error::io("read /sys/devices"))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(Error::io("read /sys/devices"))?;
        if kind.is_dir() {
            make_folder(&to)?;
            bind(&from, &to)?;
        } else if kind.is_file() {
            write(&to, "")?;
            bind(&from, &to)?;
        } else if let Ok(target) = fs::read_link(&from) {
            link(&target, &to)?;
        }
    }
    Ok(())
}

/// One disk with its controller and its partitions.
fn make_disk(stage: &Path, disk: &Disk) -> Result<(), Error> {
    let folder = stage.join(&disk.place);
    make_folder(&folder)?;
    let up = up_to_root(&disk.place);
    link_live(&folder, &up.join(&disk.real), &Path::new("/sys").join(&disk.real))?;
    for name in ["slaves", "holders"] {
        make_folder(&folder.join(name))?;
    }
    link(&up.join("class/block"), &folder.join("subsystem"))?;
    let number = read(&Path::new("/sys").join(&disk.real).join("dev"));
    write(&folder.join("uevent"), &uevent(&number, &disk.name, "disk", None))?;
    match &disk.nvme {
        Some(nvme) => make_controller(stage, disk, nvme)?,
        None => {
            link(Path::new("../.."), &folder.join("device"))?;
            let bus = stage.join(disk.place.ancestors().nth(2).unwrap_or(Path::new("devices")));
            write(&bus.join("devtype"), "vbd\n")?;
            write(&bus.join("modalias"), "xen:vbd\n")?;
        }
    }
    for (real, shown) in &disk.partitions {
        let place = disk.place.join(shown);
        let folder = stage.join(&place);
        make_folder(&folder)?;
        let real = disk.real.join(real);
        let sys = Path::new("/sys").join(&real);
        link_live(&folder, &up_to_root(&place).join(&real), &sys)?;
        make_folder(&folder.join("holders"))?;
        link(&up_to_root(&place).join("class/block"), &folder.join("subsystem"))?;
        let partition = read(&sys.join("partition"));
        write(&folder.join("partition"), &format!("{partition}\n"))?;
        let number = read(&sys.join("dev"));
        write(&folder.join("uevent"), &uevent(&number, shown, "partition", Some(&partition)))?;
    }
    Ok(())
}

/// The controller's folder above the disk's, and the PCI function's above that.
fn make_controller(stage: &Path, disk: &Disk, nvme: &Nvme) -> Result<(), Error> {
    let controller = stage.join(disk.place.parent().unwrap_or(Path::new("devices")));
    link(&Path::new("../..").join(&nvme.controller), &stage.join(&disk.place).join("device"))?;
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let wwid = format!("nvme.1d0f-{}-{}-00000001\n", hex(&nvme.serial), hex(nvme.model));
    write(&stage.join(&disk.place).join("wwid"), &wwid)?;
    write(&stage.join(&disk.place).join("nsid"), "1\n")?;
    for (name, text) in [
        // The kernel shows the model padded, as the controller sends it.
        ("model", format!("{:<40}\n", nvme.model)),
        ("serial", format!("{:<20}\n", nvme.serial)),
        ("firmware_rev", "1.0     \n".to_owned()),
        ("state", "live\n".to_owned()),
        ("transport", "pcie\n".to_owned()),
        ("address", format!("{}\n", nvme.function)),
        ("cntlid", "1\n".to_owned()),
    ] {
        write(&controller.join(name), &text)?;
    }
    link(&Path::new("../../..").join(&nvme.function), &controller.join("device"))?;
    let function = controller.join("../..");
    for (name, text) in [("vendor", "0x1d0f\n"), ("device", nvme.device_id), ("class", "0x010802\n")] {
        write(&function.join(name), &format!("{}\n", text.trim_end()))?;
    }
    Ok(())
}

/// Links to the real files, where the real device has them.
fn link_live(folder: &Path, target: &Path, real: &Path) -> Result<(), Error> {
    for name in LIVE {
        if real.join(name).exists() {
            link(&target.join(name), &folder.join(name))?;
        }
    }
    Ok(())
}

/// Copies the real links but those of our loop devices, and adds the made ones.
fn make_links(stage: &Path, folder: &str, disks: &[Disk]) -> Result<(), Error> {
    let to = stage.join(folder);
    make_folder(&to)?;
    let real = Path::new("/sys").join(folder);
    let mut links = BTreeMap::new();
    for entry in fs::read_dir(&real).map_err(Error::io(format!("read {}", real.display())))? {
        let entry = entry.map_err(Error::io(format!("read {}", real.display())))?;
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let resolved = fs::canonicalize(entry.path()).unwrap_or_default();
        let ours = |disk: &Disk| resolved.starts_with(Path::new("/sys").join(&disk.real));
        if !disks.iter().any(ours) {
            links.insert(entry.file_name().to_string_lossy().into_owned(), target);
        }
    }
    let up = up_to_root(Path::new(folder));
    for disk in disks {
        let mut add = |name: &str, place: &Path, real: &Path| {
            let key = match folder {
                "dev/block" => read(&Path::new("/sys").join(real).join("dev")),
                _ => name.to_owned(),
            };
            links.insert(key, up.join(place));
        };
        add(&disk.name, &disk.place, &disk.real);
        for (real, shown) in &disk.partitions {
            // /sys/block has no partitions.
            if folder != "block" {
                add(shown, &disk.place.join(shown), &disk.real.join(real));
            }
        }
    }
    for (name, target) in links {
        link(&target, &to.join(name))?;
    }
    Ok(())
}

/// `../../..`, as many as it takes from a folder in `/sys` to `/sys`.
fn up_to_root(place: &Path) -> PathBuf {
    place.components().map(|_| Component::ParentDir).collect()
}

fn uevent(number: &str, name: &str, kind: &str, partition: Option<&str>) -> String {
    let (major, minor) = number.split_once(':').unwrap_or(("", ""));
    let mut text = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\nDEVTYPE={kind}\n");
    if let Some(number) = partition {
        text.push_str(&format!("PARTN={number}\n"));
    }
    text
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io(format!("create {}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

fn link(target: &Path, path: &Path) -> Result<(), Error> {
    symlink(target, path).map_err(Error::io(format!("link {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_up_to_sys() {
        assert_eq!(up_to_root(Path::new("dev/block")), Path::new("../.."));
        assert_eq!(up_to_root(Path::new("block")), Path::new(".."));
    }

    #[test]
    fn uevents_name_the_number() {
        assert_eq!(
            uevent("259:3", "nvme1n1p1", "partition", Some("1")),
            "MAJOR=259\nMINOR=3\nDEVNAME=nvme1n1p1\nDEVTYPE=partition\nPARTN=1\n"
        );
    }
}
