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

/// A link that another disk has, too, leads to that one.
const BEHIND: &str = "OPTIONS+=\"link_priority=-100\"";

/// What is set for every device on a disk of these volumes. They are ids that were checked: nothing in them ends a
/// string.
fn rules(set: &str, volumes: &[VolumeId]) -> String {
    let mut text = String::from("# These disks were restored by stillpoint, beside their originals.\n");
    for volume in volumes {
        let serial = volume.as_str().replace('-', "");
        // NVMe pads serial numbers with spaces.
        text.push_str(&format!("SUBSYSTEM==\"block\", ATTRS{{serial}}==\"{serial}*\", {set}\n"));
    }
    text
}

fn write(root: &Path, part: &str, id: &RunId, text: &str) -> std::io::Result<()> {
    file::make_folder(&root.join(FOLDER), 0o755)?;
    file::replace(&path(root, part, id), text.as_bytes(), 0o644, Lasts::UntilShutdown)
}

/// Hides the disks of these volumes, which are not attached yet.
///
/// # Errors
/// When the rules cannot be written, or udev does not read them: then nothing may be attached.
pub async fn hide(root: &Path, id: &RunId, volumes: &[VolumeId]) -> std::io::Result<()> {
    let before = format!(
        "ENV{{SYSTEMD_READY}}=\"0\", ENV{{UDISKS_IGNORE}}=\"1\", ENV{{DM_MULTIPATH_DEVICE_PATH}}=\"1\", {BEHIND}"
    );
    // All links are taken away: `SYMLINK-=`, for some, is an error to most hosts' udev (Debian 12: systemd 252), which
    // then leaves the whole line out.
    let after = "ENV{SYSTEMD_READY}=\"0\", SYMLINK=\"\"";
    for (part, set) in PARTS.iter().zip([before.as_str(), after]) {
        write(root, part, id, &rules(set, volumes))?;
    }
    read_again(root).await
}

/// Lets udev see the disks of these volumes, which have identities of their own by now. What names they share with their
/// originals still lead to those.
///
/// # Errors
/// When the rules cannot be written, or udev does not read them.
pub async fn show_behind(root: &Path, id: &RunId, volumes: &[VolumeId]) -> std::io::Result<()> {
    write(root, PARTS[0], id, &rules(BEHIND, volumes))?;
    match std::fs::remove_file(path(root, PARTS[1], id)) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    read_again(root).await
}

/// Forgets that there were such disks.
///
/// # Errors
/// When a rule cannot be removed, or udev does not answer.
pub async fn reveal(root: &Path, id: &RunId) -> std::io::Result<()> {
    let mut hidden = false;
    for part in PARTS {
        match std::fs::remove_file(path(root, part, id)) {
            Ok(()) => hidden = true,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if hidden { read_again(root).await } else { Ok(()) }
}

/// Tells the disks of these names to udev once more, now that nothing hides them.
pub async fn look_again(root: &Path, disks: &[String]) {
    if !runs(root) || disks.is_empty() {
        return;
    }
    let names = disks.iter().map(|d| format!("--sysname-match={d}*"));
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
fn runs(root: &Path) -> bool {
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
        assert!(!text("59").contains("vol0bbbbbbbb"));
        show_behind(root.path(), &id, &volumes[..1]).await.unwrap();
        assert!(
            text("59")
                .ends_with("ATTRS{serial}==\"vol0aaaaaaaaaaaaaaaa*\", OPTIONS+=\"link_priority=-100\"\n")
        );
        assert!(!path(root.path(), "61", &id).exists());
        reveal(root.path(), &id).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(root.path().join(FOLDER)).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "those of another restore stay");
        reveal(root.path(), &id).await.unwrap();
    }
}
