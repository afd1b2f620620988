//! The files and links of the view.
//!
//! In: the disks, and the real `/sys`. Out: four folders, and later changes in them, which whoever looks at
//! them sees. What changes while the command runs (`stat`
//! above all) must never be copied: it is a link to the real file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::Error;
use super::disks::{Disk, Nvme};

/// The files that are links to the real device's.
const LIVE: [&str; 10] =
    ["stat", "inflight", "ro", "size", "dev", "queue", "removable", "range", "start", "alignment_offset"];

const LINKED: [&str; 3] = ["dev/block", "block", "class/block"];

/// Makes what stays: the folders, and places for the real devices.
pub fn prepare(stage: &Path) -> Result<(), Error> {
    for folder in LINKED {
        make_folder(&stage.join(folder))?;
    }
    let to = stage.join("devices");
    make_folder(&to)?;
    for entry in fs::read_dir(REAL).map_err(Error::io("read /sys/devices"))? {
        let entry = entry.map_err(Error::io("read /sys/devices"))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(Error::io("read /sys/devices"))?;
        if kind.is_dir() {
            make_folder(&to)?;
        } else if kind.is_file() {
            write(&to, "")?;
        } else if let Ok(target) = fs::read_link(&from) {
            link(&target, &to)?;
        }
    }
    Ok(())
}

/// Where the real devices are, as long as nothing covers them.
const REAL: &str = "/sys/devices";

/// The real devices that are shown where they are, by bind mounts: folders and files, as seen now.
pub fn real_devices(stage: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(REAL).map_err(Error::io("read /sys/devices"))? {
        let entry = entry.map_err(Error::io("read /sys/devices"))?;
        let to = stage.join("devices").join(entry.file_name());
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        // What came after the view was made has no place in it.
        if !is_link && to.exists() {
            found.push((entry.path(), to));
        }
    }
    Ok(found)
}

/// Brings the view from the disks that it shows to those that it must show. A link that is
/// there always leads somewhere, also for a reader who looks meanwhile.
pub fn update(stage: &Path, shown: &[Disk], wanted: &[Disk]) -> Result<(), Error> {
    let whole = |disk: &Disk| Disk { partitions: Vec::new(), ..disk.clone() };
    for disk in wanted {
        if shown.iter().any(|old| whole(old) == whole(disk)) {
            for partition in &disk.partitions {
                if !stage.join(&disk.place).join(&partition.1).exists() {
                    make_partition(stage, disk, partition)?;
                }
            }
        } else {
            // What another device left in the same place, if anything did.
            if stage.join(&disk.place).exists() {
                remove_disk(stage, disk)?;
            }
            make_disk(stage, disk)?;
        }
    }
    for folder in LINKED {
        make_links(stage, folder, wanted)?;
    }
    for old in shown {
        match wanted.iter().find(|disk| disk.place == old.place) {
            None => remove_disk(stage, old)?,
            Some(disk) => {
                let gone = old.partitions.iter().filter(|partition| !disk.partitions.contains(partition));
                for (_, name) in gone {
                    remove_folder(&stage.join(&old.place).join(name))?;
                }
            }
        }
    }
    Ok(())
}

/// Takes away a disk with its controller and its place on the bus.
fn remove_disk(stage: &Path, disk: &Disk) -> Result<(), Error> {
    // devices/BUS/FUNCTION/… and devices/vbd-N/…
    let depth = if disk.nvme.is_some() { 3 } else { 2 };
    remove_folder(&stage.join(disk.place.components().take(depth).collect::<PathBuf>()))
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
    for partition in &disk.partitions {
        make_partition(stage, disk, partition)?;
    }
    Ok(())
}

/// A partition's folder in its disk's.
fn make_partition(stage: &Path, disk: &Disk, (real, shown): &(String, String)) -> Result<(), Error> {
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
    write(&folder.join("uevent"), &uevent(&number, shown, "partition", Some(&partition)))
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

/// Copies the real links but those of our loop devices, and adds the made ones. What is there already stays.
fn make_links(stage: &Path, folder: &str, disks: &[Disk]) -> Result<(), Error> {
    let to = stage.join(folder);
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
    for (name, target) in links_in(&to)? {
        if links.get(&name) == Some(&target) {
            links.remove(&name);
        } else if !links.contains_key(&name) {
            remove(&to.join(name))?;
        }
    }
    for (name, target) in links {
        // Under another name first: the old one leads somewhere until the new one does.
        let (name, new) = (to.join(&name), to.join(format!(".{name}.new")));
        link(&target, &new)?;
        fs::rename(&new, &name).map_err(Error::io(format!("link {}", name.display())))?;
    }
    Ok(())
}

fn links_in(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = || Error::io(format!("read {}", folder.display()));
    let mut links = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let target = fs::read_link(entry.path()).map_err(failed())?;
        links.push((entry.file_name().to_string_lossy().into_owned(), target));
    }
    Ok(links)
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

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(Error::io(format!("remove {}", path.display())))
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        // An update that failed half way has removed it before.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io(format!("remove {}", path.display()))),
    }
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
