//! What is on the filesystems of the set and may block while they are frozen, or may lower the label.
//!
//! In: facts of the host. Out: findings. Must never: write, or follow a path of a filesystem outside of the
//! set.

use std::path::Path;

use super::{Finding, Set};
use crate::discover::{Backing, BlockDevice, DeviceKind, Facts, Filesystem, SwapFile};
use crate::exit::Exit;
use crate::host::device_users::Users;
use crate::host::mountinfo::{self, MountTree};
use crate::host::superblock;
use crate::host::trust::{self, Trusted};
use crate::path_encoding::shown;
use crate::plan::{MissingMount, Plan};

/// The journal is written right before the freeze and read by the recovery: it must not be on a frozen
/// filesystem.
#[must_use]
pub fn run_dir(root: &Path, run_dir: &Path, set: &Set<'_>) -> Vec<Finding> {
    const ID: &str = "run-dir";
    let unreadable = |e: String| {
        let what = format!("cannot read /proc/self/mountinfo: {e}");
        vec![Finding::problem(ID, Exit::Permission, what)]
    };
    let table = match std::fs::read(root.join("proc/self/mountinfo")) {
        Ok(table) => table,
        Err(e) => return unreadable(e.to_string()),
    };
    let lines = mountinfo::parse(&table).lines;
    let path = std::fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_path_buf());
    let holder = MountTree::new(&lines).mount_of(&path);
    match holder.and_then(|line| filesystem_in(set, line)) {
        Some(f) => {
            let what = format!(
                "run_dir {} is on {}, which will be frozen",
                run_dir.display(),
                shown(f.mount_point())
            );
            let finding = Finding::problem(ID, Exit::Config, what)
                .at([shown(run_dir), shown(f.mount_point())])
                .why("the journal there is what the rescue reads when a run dies")
                .remedy("keep run_dir on a memory filesystem, such as /run/stillpoint");
            vec![finding]
        }
        None => vec![Finding::ok(ID, format!("run_dir {} is not frozen", shown(run_dir)))],
    }
}

/// The folders in which stillpoint keeps what it reads as root (journals name commands) and writes as root.
/// `setting` is the key in the configuration that names this one.
#[must_use]
pub(crate) fn own_folder(setting: &str, folder: &Path) -> Vec<Finding> {
    const ID: &str = "folder-writable";
    match trust::check(folder, Trusted::own()) {
        Ok(()) => {
            vec![Finding::ok(ID, format!("only root can change what is in {setting} {}", shown(folder)))]
        }
        Err(loose) => {
            let finding = Finding::problem(ID, Exit::Config, format!("{setting} {}: {loose}", shown(folder)))
                .at([shown(folder)])
                .why(
                    "whoever can change what is in it decides what root reads, runs or overwrites: a journal \
                     names commands",
                )
                .remedy(loose.remedy);
            vec![finding]
        }
    }
}

/// Can the record of a set be kept? Snapshots and tags do without it; the exit code of each run would be 11.
pub(crate) fn records(state_dir: &Path) -> Vec<Finding> {
    const ID: &str = "records";
    if !nix::unistd::geteuid().is_root() {
        return vec![Finding::not_checked(ID, "only root may write there")];
    }
    let nearest = state_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    // To root only a filesystem or a file's flag says no.
    match nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => vec![Finding::ok(ID, format!("records can be kept in state_dir {}", shown(state_dir)))],
        Err(e) => {
            let what = format!(
                "no record can be kept in state_dir {}: {}: {}",
                shown(state_dir),
                shown(nearest),
                e.desc()
            );
            let why = "every run would end with 11; its snapshots and their tags are complete without";
            vec![
                Finding::warning(ID, what)
                    .at([shown(state_dir)])
                    .why(why)
                    .remedy("set state_dir to a folder on disk"),
            ]
        }
    }
}

/// Can metrics be written there? A run does without them.
pub(crate) fn textfile(path: &Path) -> Finding {
    const ID: &str = "textfile";
    let why = "no metrics are written, and alerts that go by their age are raised";
    let way = path.parent().map(|folder| trust::follow(folder, Trusted::own()));
    let end = way.as_ref().and_then(|way| way.end.as_ref().err());
    match (way.as_ref().and_then(|way| way.loose.first()), end) {
        (None, None) => Finding::ok(ID, format!("metrics can be written to textfile {}", shown(path))),
        (Some(loose), _) => Finding::warning(ID, format!("textfile {}: {loose}", shown(path)))
            .at([shown(path)])
            .why(why)
            .remedy(loose.remedy.clone()),
        (None, Some(e)) => Finding::warning(
            ID,
            format!("textfile {}: its folder cannot be used: {e}", shown(path)),
        )
        .at([shown(path)])
        .why(why)
        .remedy("make the folder, as root's, and name it to node_exporter (--collector.textfile.directory)"),
    }
}

/// A btrfs may show several device numbers: the mount id tells which filesystem it is.
fn filesystem_in<'a>(set: &Set<'a>, line: &mountinfo::MountLine) -> Option<&'a Filesystem> {
    set.members().find(|f| f.dev == line.dev || f.mounts.iter().any(|m| m.id == line.id))
}

/// The journal names mount points in JSON, and the recovery has to find them by these names.
#[must_use]
pub fn names(plan: &Plan) -> Vec<Finding> {
    let odd = plan.filesystems.iter().filter(|f| f.mount_point.to_str().is_none());
    odd.map(|f| {
        let what = format!("the mount point {} is not UTF-8", f.mount_point.display());
        Finding::problem("mount-names", Exit::Config, what)
            .at([shown(&f.mount_point)])
            .why("the journal could not name it, and the rescue could not find it")
            .remedy("mount it elsewhere, or leave it out")
    })
    .collect()
}

/// What should be mounted and is not.
#[must_use]
pub fn missing(plan: &Plan) -> Vec<Finding> {
    let finding = |m: &MissingMount| {
        let finding = Finding::warning("not-mounted", format!("should be mounted and is not: {m}"))
            .at([shown(&m.mount_point)]);
        if m.counts {
            finding
                .why("a set without it is less than what was asked for: `on_degraded` decides the exit code")
                .remedy("mount it, or take its line out of fstab, or name it in `exclude_mounts`")
        } else {
            finding
        }
    };
    plan.missing.iter().map(finding).collect()
}

/// What only other mount namespaces, or processes without any mount, have of the attached volumes.
#[must_use]
pub fn elsewhere(facts: &Facts, plan: &Plan, mounts: &Users) -> Vec<Finding> {
    const ID: &str = "other-namespaces";
    let mut found = Vec::new();
    for (dev, who) in &mounts.found {
        let name =
            facts.devices.iter().find(|d| d.dev == *dev).map_or_else(|| dev.to_string(), |d| d.name.clone());
        let volumes = facts.volumes_below(&name);
        let of_set = volumes.iter().any(|v| plan.volumes.iter().any(|p| p.id == *v));
        let who = who.iter().cloned().collect::<Vec<_>>().join("; ");
        found.push(
            Finding::warning(ID, format!("{name} is not mounted here: {who}"))
                .at(volumes.iter().map(ToString::to_string))
                .why(if of_set {
                    "nothing here can freeze it, so its volume is only crash-consistent in the set"
                } else {
                    "nothing here can freeze it, so its volume is not in the set"
                })
                .remedy("mount it here too, by the same options, or end what has it mounted"),
        );
    }
    for device in facts.in_use.iter().filter(|d| !mounts.found.contains_key(&d.dev)) {
        let volumes = facts.volumes_below(&device.name);
        found.push(
            Finding::warning(
                "device-in-use",
                format!("{} cannot be taken for unused: {}", device.name, device.why),
            )
            .at(volumes.iter().map(ToString::to_string))
            .why("nothing here can make it quiet, so its volume is only crash-consistent in the set")
            .remedy("end what uses it before the run, or leave its volume out"),
        );
    }
    match &mounts.incomplete {
        Some(why) => found.push(Finding::not_checked(ID, why)),
        None if found.is_empty() => {
            let what = "no other mount namespace has a filesystem of these volumes that is not mounted here";
            found.push(Finding::ok(ID, what));
        }
        None => {}
    }
    found
}

/// Finds loop images that join a filesystem of the set with one outside of it.
#[must_use]
pub fn images(devices: &[BlockDevice], set: &Set<'_>) -> Vec<Finding> {
    const ID: &str = "loop-images";
    let mut found = Vec::new();
    let (mut inner_first, mut unmounted) = (Vec::new(), Vec::new());
    for device in devices {
        let DeviceKind::Loop { backing_file: Some(file), superblock: Some(holder) } = &device.kind else {
            continue;
        };
        if !set.has(*holder) {
            continue;
        }
        let on = set
            .filesystems
            .iter()
            .find(|f| matches!(&f.backing, Backing::Devices { devices } if devices.contains(&device.name)));
        let image = format!("{} ({})", shown(file), device.name);
        match on {
            Some(inner) if set.has(inner.dev) => inner_first.push(shown(inner.mount_point())),
            Some(inner) => found.push(
                Finding::warning(
                    ID,
                    format!(
                        "{}, which is not frozen, is in an image file on {}, which is",
                        shown(inner.mount_point()),
                        set.name(*holder)
                    ),
                )
                .at([shown(inner.mount_point()), image])
                .why(
                    "its writes hang in the window all the same, and its image is only crash-consistent in \
                     the set",
                )
                .remedy("take it into the set too, or move the image file elsewhere"),
            ),
            None => unmounted.push(image),
        }
    }
    if !unmounted.is_empty() {
        let n = unmounted.len();
        let what = format!(
            "{n} image file{} on the set {} in use without a mounted filesystem",
            if n == 1 { "" } else { "s" },
            if n == 1 { "is" } else { "are" }
        );
        found.push(
            Finding::warning(ID, what)
                .at(unmounted)
                .why(
                    "whatever writes to such a device waits in the window, and its contents are only \
                     crash-consistent",
                )
                .remedy("detach it before the window (losetup -d), or quiesce its user by a hook"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(
            ID,
            match inner_first.as_slice() {
                [] => "no image files in use lie on the set".to_owned(),
                inner => format!("in image files on the set, and frozen before them: {}", inner.join(", ")),
            },
        ));
    }
    found
}

/// Swap files that raise the write counter of a frozen device.
#[must_use]
pub fn swap(swap_files: &[SwapFile], set: &Set<'_>) -> Vec<Finding> {
    const ID: &str = "swap";
    let on = swap_files.iter().filter(|s| s.superblock.is_some_and(|dev| set.has(dev)));
    let found: Vec<Finding> = on
        .map(|s| {
            let holder = s.superblock.map(|dev| set.name(dev)).unwrap_or_default();
            Finding::warning(ID, format!("the swap file {} is on {holder}, which is frozen", shown(&s.path)))
                .at([shown(&s.path), holder])
                .why(
                    "swapping goes past the freeze and moves the write counter that witnesses it: a set is \
                     then only called crash-consistent",
                )
                .remedy("swap to a partition or volume of its own, or to none (swapoff)")
        })
        .collect();
    if found.is_empty() { vec![Finding::ok(ID, "no swap file is on the set")] } else { found }
}

/// What else writes to the set's filesystems: overlays, journald, standard error.
#[must_use]
pub fn others(root: &Path, state_dir: &Path, set: &Set<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let overlays: Vec<_> = set
        .filesystems
        .iter()
        .filter(|f| matches!(f.backing, Backing::Overlay { upper: Some(dev) } if set.has(dev)))
        .map(|f| shown(f.mount_point()))
        .collect();
    if !overlays.is_empty() {
        let what = format!(
            "{} write to the set: containers in them wait in the window",
            if overlays.len() == 1 { "1 overlay".to_owned() } else { format!("{} overlays", overlays.len()) }
        );
        found.push(Finding::ok("overlays", what).at(overlays));
    }
    let read_only = |f: &&Filesystem| f.mounts.iter().all(|m| m.options.split(',').any(|o| o == "ro"));
    let read_only: Vec<_> = set.members().filter(read_only).map(|f| shown(f.mount_point())).collect();
    if !read_only.is_empty() {
        found.push(Finding::ok("read-only", "read-only filesystems freeze like all others").at(read_only));
    }
    let table = std::fs::read(root.join("proc/self/mountinfo")).unwrap_or_default();
    let lines = mountinfo::parse(&table).lines;
    let tree = MountTree::new(&lines);
    let on_set = |path: &Path| {
        tree.mount_of(path).and_then(|line| filesystem_in(set, line)).map(|f| shown(f.mount_point()))
    };
    let journald = Path::new("/var/log/journal");
    if let Some(mount) = on_set(journald).filter(|_| root.join("var/log/journal").is_dir()) {
        let what = format!(
            "journald writes to {mount} and waits in the window; stillpoint sends it nothing until the thaw"
        );
        found.push(Finding::ok("log", what).at([shown(journald)]));
    }
    let stderr = superblock::of_fd(std::io::stderr()).filter(|dev| set.has(*dev));
    if let Some(dev) = stderr {
        let what = format!("standard error goes to a file on {}, which will be frozen", set.name(dev));
        found.push(
            Finding::warning("log", what)
                .at([set.name(dev)])
                .why(
                    "messages are held back until the thaw; if a filesystem stays frozen, none can be \
                     written there",
                )
                .remedy("send it to the journal or to a memory filesystem"),
        );
    }
    found.extend(full(root, state_dir, set));
    found
}

/// Less free space than this share of a filesystem is a warning.
const LEAST_PERCENT: u64 = 2;
/// Less free space than this for records is a warning.
const LEAST_BYTES: u64 = 8 << 20;

fn full(root: &Path, state_dir: &Path, set: &Set<'_>) -> Vec<Finding> {
    let free = |path: &Path| {
        let s = nix::sys::statvfs::statvfs(path).ok()?;
        Some((s.blocks_available() * s.fragment_size(), s.blocks() * s.fragment_size()))
    };
    let mut found = Vec::new();
    // Read-only images are always full.
    let writable = set.members().filter(|f| f.mounts.iter().any(|m| m.options.split(',').any(|o| o == "rw")));
    for filesystem in writable {
        let mount = filesystem.mount_point();
        let Some((available, size)) = free(&below(root, mount)) else { continue };
        if size > 0 && available * 100 / size < LEAST_PERCENT {
            let what = format!("{} has {} MiB left of {} MiB", shown(mount), available >> 20, size >> 20);
            found.push(
                Finding::warning("free-space", what)
                    .at([shown(mount)])
                    .why("a restored copy of it is as full: applications may not start on it")
                    .remedy("make room, or grow the volume"),
            );
        }
    }
    let nearest = state_dir.ancestors().find(|p| below(root, p).exists()).unwrap_or(Path::new("/"));
    if let Some((available, _)) =
        free(&below(root, nearest)).filter(|(available, _)| *available < LEAST_BYTES)
    {
        let what = format!("{} KiB are left where records are kept", available >> 10);
        found.push(
            Finding::warning("free-space", what)
                .at([shown(state_dir)])
                .why("a set whose record cannot be kept ends with code 11")
                .remedy("make room, or set state_dir"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok("free-space", "there is room on the set's filesystems and for records"));
    }
    found
}

fn below(root: &Path, path: &Path) -> std::path::PathBuf {
    path.strip_prefix("/").map_or_else(|_| path.to_path_buf(), |p| root.join(p))
}
