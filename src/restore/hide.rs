//! New disks are hidden from the host until they have identities of their own.
//!
//! A clone has the UUIDs, labels and names of its original. The moment it is attached, udev would let its links in
//! /dev/disk point to either of the two, LVM and md would take its devices for their own, and a systemd mount could go
//! away with it. So the rules are there before AttachVolume: the serial number of an EBS disk is its volume's id.
//!
//! Where a clone keeps a name of its original after that (a label, a partition's UUID, vfat's serial number), the link of
//! that name stays the original's: the priority of the clone's is lower, until it is taken back or the host boots.
//!
//! `SYSTEMD_READY=0` is what systemd's units, md's assembly (64-md-raid-assembly.rules) and btrfs's scan
//! (64-btrfs.rules) leave a device alone for. LVM's autoactivation (69-dm-lvm.rules) does not look at it, but leaves a
//! path of a multipath device alone (`DM_MULTIPATH_DEVICE_PATH`).
//!
//! In: volume ids. Out: files in /run/udev/rules.d. Must never: outlive the restore, or hide another disk.
//! `scripts/test-guest` looks at all this with udev, systemd, LVM and md at work.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::file::{self, Lasts};
use crate::ids::{RunId, VolumeId};
use crate::quiesce::query;

const FOLDER: &str = "run/udev/rules.d";
/// Before and after the rules that make the links (60-persistent-storage.rules).
const PARTS: [&str; 2] = ["59", "61"];
/// How long udev may take to read its rules again.
const LIMIT: Duration = Duration::from_secs(30);

fn path(root: &Path, part: &str, id: &RunId) -> PathBuf {
    root.join(FOLDER).join(format!("{part}-stillpoint-restore-{id}.rules"))
}

/// Before the rules that make links, and after those that make an array's (63-md-raid-arrays.rules), which have a high
/// priority there.
const STACK_PARTS: [&str; 2] = ["59", "89"];

/// Of what is put together on the disks.
fn stack_path(root: &Path, part: &str, id: &RunId) -> PathBuf {
    root.join(FOLDER).join(format!("{part}-stillpoint-restore-{id}-stack.rules"))
}

/// Not of one that goes: without its links, udev would not know which ones to remove.
const CAME: &str = "SUBSYSTEM==\"block\", ACTION!=\"remove\"";
/// A link that another disk has, too, leads to that one.
const BEHIND: &str = "OPTIONS+=\"link_priority=-100\"";

/// What is set for every device on a disk of these volumes. They are ids that were checked: nothing in them ends a
/// string.
fn rules(set: &str, volumes: &[VolumeId]) -> String {
    let mut text = String::from("# These disks were restored by stillpoint, beside their originals.\n");
    for volume in volumes {
        let serial = volume.as_str().replace('-', "");
        // NVMe pads serial numbers with spaces.
        text.push_str(&format!("{CAME}, ATTRS{{serial}}==\"{serial}*\", {set}\n"));
    }
    text
}

fn write(root: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    file::make_folder(&root.join(FOLDER), 0o755)?;
    file::replace(path, text.as_bytes(), 0o644, Lasts::UntilShutdown)
}

/// What is set before the rules that make the links, so that nobody takes a device for its own.
fn aside() -> String {
    format!(
        "ENV{{SYSTEMD_READY}}=\"0\", ENV{{UDISKS_IGNORE}}=\"1\", ENV{{DM_MULTIPATH_DEVICE_PATH}}=\"1\", {BEHIND}"
    )
}

/// Hides the disks of these volumes, which are not attached yet.
///
/// # Errors
/// When the rules cannot be written, or udev does not read them: then nothing may be attached.
pub async fn hide(root: &Path, id: &RunId, volumes: &[VolumeId]) -> std::io::Result<()> {
    let before = aside();
    // All links are taken away: `SYMLINK-=`, for some, is an error to most hosts' udev (Debian 12: systemd 252), which
    // then leaves the whole line out.
    let after = "ENV{SYSTEMD_READY}=\"0\", SYMLINK=\"\"";
    for (part, set) in PARTS.iter().zip([before.as_str(), after]) {
        write(root, &path(root, part, id), &rules(set, volumes))?;
    }
    read_again(root).await
}

/// Lets udev see the disks of these volumes, which have identities of their own by now. What names they share with their
/// originals still lead to those.
///
/// # Errors
/// When the rules cannot be written, or udev does not read them.
pub async fn show_behind(root: &Path, id: &RunId, volumes: &[VolumeId]) -> std::io::Result<()> {
    write(root, &path(root, PARTS[0], id), &rules(BEHIND, volumes))?;
    remove(&path(root, PARTS[1], id))?;
    read_again(root).await
}

/// Hides what is put together on the disks of a restore: device mapper's devices with this mark in their names, and
/// these arrays. Of the former, the link stays by which their makers know them: it has the mark, too.
///
/// # Errors
/// As [`hide`].
pub async fn hide_stack(root: &Path, id: &RunId, mark: &str, arrays: &[u32]) -> std::io::Result<()> {
    let before = aside();
    let (mapped, none) = (
        "ENV{SYSTEMD_READY}=\"0\", SYMLINK=\"mapper/$attr{dm/name}\"",
        "ENV{SYSTEMD_READY}=\"0\", SYMLINK=\"\"",
    );
    for (part, of_mapped, of_arrays) in
        [(STACK_PARTS[0], before.as_str(), before.as_str()), (STACK_PARTS[1], mapped, none)]
    {
        write(root, &stack_path(root, part, id), &stack_rules(mark, of_mapped, arrays, of_arrays))?;
    }
    read_again(root).await
}

/// Lets udev see what is put together, as [`show_behind`] does.
///
/// # Errors
/// As [`show_behind`].
pub async fn show_stack_behind(root: &Path, id: &RunId, mark: &str, arrays: &[u32]) -> std::io::Result<()> {
    write(root, &stack_path(root, STACK_PARTS[1], id), &stack_rules(mark, BEHIND, arrays, BEHIND))?;
    remove(&stack_path(root, STACK_PARTS[0], id))?;
    read_again(root).await
}

/// The mark is of hexadecimal digits: nothing in it ends a string, or is a pattern.
fn stack_rules(mark: &str, of_mapped: &str, arrays: &[u32], of_arrays: &str) -> String {
    let mut text =
        String::from("# These were put together by stillpoint of restored disks, beside their originals.\n");
    text.push_str(&format!("{CAME}, KERNEL==\"dm-*\", ATTR{{dm/name}}==\"*_r{mark}*\", {of_mapped}\n"));
    for number in arrays {
        text.push_str(&format!("{CAME}, KERNEL==\"md{number}|md{number}p*\", {of_arrays}\n"));
    }
    text
}

fn remove(path: &Path) -> std::io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Forgets that there were such disks.
///
/// # Errors
/// When a rule cannot be removed, or udev does not answer.
pub async fn reveal(root: &Path, id: &RunId) -> std::io::Result<()> {
    let mut hidden = false;
    let all = PARTS.map(|part| path(root, part, id)).into_iter();
    for path in all.chain(STACK_PARTS.map(|part| stack_path(root, part, id))) {
        hidden |= remove(&path)?;
    }
    if hidden { read_again(root).await } else { Ok(()) }
}

/// Tells the disks of these names to udev once more, now that nothing hides them.
pub async fn look_again(root: &Path, disks: &[String]) {
    if !runs(root) || disks.is_empty() {
        return;
    }
    // The partitions of a disk have its name, a `p` and a number; dm-1 is not to be dm-10, too.
    let names = disks.iter().flat_map(|d| [format!("--sysname-match={d}"), format!("--sysname-match={d}p*")]);
    let arguments: Vec<String> = ["trigger", "--action=change", "--subsystem-match=block"]
        .map(str::to_owned)
        .into_iter()
        .chain(names)
        .collect();
    if let Err(e) = udevadm(&arguments).await {
        tracing::warn!(
            "udev was not told of the restored disks: {e}; links to them in /dev/disk may be missing"
        );
    }
}

/// Waits until udev and systemd have seen what came and went: a mount of a device that systemd has not seen yet, or takes
/// for the one that went, is unmounted by it.
pub async fn settle(root: &Path) {
    if !runs(root) {
        return;
    }
    if let Err(e) = udevadm(&["settle".to_owned(), format!("--timeout={}", LIMIT.as_secs())]).await {
        tracing::warn!("udev is still at work: {e}");
    }
}

/// Does udev run here? Without it, nobody would look at the disks.
pub(super) fn runs(root: &Path) -> bool {
    root.join("run/udev/control").exists()
}

async fn read_again(root: &Path) -> std::io::Result<()> {
    if !runs(root) {
        return Ok(());
    }
    udevadm(&["control".to_owned(), "--reload".to_owned()]).await
}

async fn udevadm(arguments: &[String]) -> std::io::Result<()> {
    let program = query::program("udevadm").map_err(Error::other)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().stdin(std::process::Stdio::null()).kill_on_drop(true);
    // It ends by itself before: settle has the same limit.
    let ended = tokio::time::timeout(LIMIT + Duration::from_secs(5), command.output()).await;
    let output = ended.map_err(|_| Error::new(ErrorKind::TimedOut, "udevadm does not answer"))??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::other(format!("udevadm {}: {}", arguments.join(" "), said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_disks_of_a_restore_are_hidden_by_their_serial_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let (id, other) = (RunId::generate(), RunId::generate());
        let volumes: Vec<VolumeId> =
            ["vol-0aaaaaaaaaaaaaaaa", "vol-0bbbbbbbb"].map(|v| v.parse().unwrap()).into();
        hide(root.path(), &other, &volumes[1..]).await.unwrap();
        hide(root.path(), &id, &volumes[..1]).await.unwrap();
        let text = |part| std::fs::read_to_string(path(root.path(), part, &id)).unwrap();
        assert!(text("59").contains("ATTRS{serial}==\"vol0aaaaaaaaaaaaaaaa*\", ENV{SYSTEMD_READY}=\"0\""));
        assert!(text("59").contains("ENV{DM_MULTIPATH_DEVICE_PATH}=\"1\""), "LVM looks at nothing else");
        assert!(text("61").contains("SYMLINK=\"\""), "udev of most hosts knows no other way");
        assert!(
            text("61").lines().skip(1).all(|l| l.contains("ACTION!=\"remove\"")),
            "links of what goes would stay"
        );
        assert!(!text("59").contains("vol0bbbbbbbb"));
        show_behind(root.path(), &id, &volumes[..1]).await.unwrap();
        assert!(
            text("59")
                .ends_with("ATTRS{serial}==\"vol0aaaaaaaaaaaaaaaa*\", OPTIONS+=\"link_priority=-100\"\n")
        );
        assert!(!path(root.path(), "61", &id).exists());
        reveal(root.path(), &id).await.unwrap();
        hide_stack(root.path(), &id, "1a2b3c4d", &[101]).await.unwrap();
        let stack = |part| std::fs::read_to_string(stack_path(root.path(), part, &id)).unwrap();
        assert!(
            stack("59")
                .contains("KERNEL==\"dm-*\", ATTR{dm/name}==\"*_r1a2b3c4d*\", ENV{SYSTEMD_READY}=\"0\"")
        );
        assert!(stack("59").contains("KERNEL==\"md101|md101p*\", ENV{SYSTEMD_READY}=\"0\""));
        assert!(stack("89").contains("SYMLINK=\"mapper/$attr{dm/name}\"\n"), "dm waits for its link");
        show_stack_behind(root.path(), &id, "1a2b3c4d", &[101]).await.unwrap();
        assert!(!stack_path(root.path(), "59", &id).exists() && !stack("89").contains("SYSTEMD_READY"));
        assert!(stack("89").contains("KERNEL==\"md101|md101p*\", OPTIONS+=\"link_priority=-100\""));
        reveal(root.path(), &id).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(root.path().join(FOLDER)).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "those of another restore stay");
        reveal(root.path(), &id).await.unwrap();
    }
}
