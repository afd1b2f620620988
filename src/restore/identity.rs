//! A restored filesystem gets an identity of its own, so that it and its original can be on one host.
//!
//! ```text
//! ext4    mount and let go (its journal is replayed) → tune2fs -O metadata_csum_seed, -U random
//! XFS     mount with nouuid and let go               → xfs_admin -U generate
//! btrfs   btrfstune -m, before any mount: two of one identity are one filesystem to the kernel
//! ```
//!
//! In: a device of a restored volume, which nothing else uses. Out: the new UUID. Must never: touch a device that is
//! mounted or claimed, or make a filesystem: what cannot be read is an error.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;

use super::disks;
use super::mounts;
use crate::host::block::BlockDevice;
use crate::host::device;
use crate::host::mount_api::NotCreated;
use crate::ids::DevNo;
use crate::path_encoding::printable;
use crate::quiesce::query;

/// The program that changes a UUID, for a type.
#[must_use]
pub fn tool(fstype: &str) -> Option<&'static str> {
    match fstype {
        "ext2" | "ext3" | "ext4" => Some("tune2fs"),
        "xfs" => Some("xfs_admin"),
        "btrfs" => Some("btrfstune"),
        _ => None,
    }
}

/// Is the program here?
///
/// # Errors
/// What to install.
pub fn has_tool(fstype: &str) -> Result<(), String> {
    let Some(name) = tool(fstype) else { return Ok(()) };
    let package = match name {
        "tune2fs" => "e2fsprogs",
        "xfs_admin" => "xfsprogs",
        _ => "btrfs-progs",
    };
    installed(name, package)
}

/// Is this program of this package here?
pub(super) fn installed(name: &str, package: &str) -> Result<(), String> {
    query::program(name).map(drop).map_err(|e| format!("{e}: install {package}"))
}

/// Gives the filesystem on this device a new UUID, and returns it.
///
/// # Errors
/// When it could not be changed: what was said, and the command that does it by hand.
pub async fn renew(on: &BlockDevice, fstype: &str) -> Result<String, String> {
    let before = disks::uuid(on, fstype)?.ok_or_else(|| format!("{} has no {fstype}", on.name))?;
    let node = device::node(on.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", on.name))?;
    // Nobody else may have it: mounted by its old identity, it would be changed under a mount.
    let claim = device::claim(on.dev).map_err(|e| format!("{} is in use: {}", on.name, e.desc()))?;
    drop(claim);
    if fstype == "btrfs" {
        return by_tool(on, fstype, &node, &before).await;
    }
    replay(on, &[], fstype).await?;
    by_tool(on, fstype, &node, &before).await
}

/// Mounts the filesystem on this device once, attached nowhere, and lets go: its journal is replayed. `others`: as of
/// [`mounts::create`].
///
/// # Errors
/// When it cannot be mounted.
pub(crate) async fn replay(on: &BlockDevice, others: &[DevNo], fstype: &str) -> Result<(), NotCreated> {
    let node = device::node(on.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", on.name))?;
    let options: &[&str] = if fstype == "xfs" { &["nouuid"] } else { &[] };
    let ext = matches!(fstype, "ext2" | "ext3" | "ext4");
    if ext && ExtFeatures::read(on, &node)?.has_mmp() {
        // A clone of a mounted filesystem carries its host's sequence: the kernel would take it for mounted there.
        run("tune2fs", &["-f", "-E", "clear_mmp"], &node).await?;
    }
    let (dev, others, fs) = (on.dev, others.to_vec(), fstype.to_owned());
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    // It may read much of a cold volume: not on the thread that everything else is done by.
    let mounted =
        tokio::task::spawn_blocking(move || mounts::create(&node, dev, &others, &fs, &options, None));
    drop::<OwnedFd>(mounted.await.map_err(|e| NotCreated::from(e.to_string()))??);
    Ok(())
}

async fn by_tool(on: &BlockDevice, fstype: &str, node: &Path, before: &str) -> Result<String, String> {
    match fstype {
        "xfs" => run("xfs_admin", &["-U", "generate"], node).await?,
        "btrfs" => run("btrfstune", &["-f", "-m"], node).await?,
        _ => {
            // The seed of the checksums is kept apart then, as XFS keeps its first UUID: nothing is rewritten, however
            // large the filesystem is (kernel 4.4 and later).
            if ExtFeatures::read(on, node)?.sums_with_uuid() {
                run("tune2fs", &["-O", "metadata_csum_seed"], node).await?;
            }
            run("tune2fs", &["-U", "random"], node).await?;
        }
    }
    match disks::uuid(on, fstype)? {
        Some(uuid) if uuid != before => Ok(uuid),
        _ => Err(format!("{} still has the UUID {before}", on.name)),
    }
}

/// What an ext filesystem has (fs/ext4/ext4.h: `s_feature_incompat` +0x60, `s_feature_ro_compat` +0x64).
struct ExtFeatures {
    incompat: u32,
    ro_compat: u32,
}

impl ExtFeatures {
    const MMP: u32 = 0x100;
    const CSUM_SEED: u32 = 0x2000;
    const METADATA_CSUM: u32 = 0x400;

    fn read(on: &BlockDevice, node: &Path) -> Result<Self, String> {
        use std::os::unix::fs::FileExt as _;
        let said = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", on.name);
        let fd = device::open_at(node, on.dev, OFlag::empty()).map_err(|e| said(&e.desc()))?;
        let mut words = [0; 8];
        File::from(fd).read_exact_at(&mut words, 1024 + 0x60).map_err(|e| said(&e))?;
        let word =
            |at: usize| words.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
        Ok(Self { incompat: word(0), ro_compat: word(4) })
    }

    fn has_mmp(&self) -> bool {
        self.incompat & Self::MMP != 0
    }

    /// Are its checksums made with its UUID? Then all of them would have to be rewritten with it.
    fn sums_with_uuid(&self) -> bool {
        self.ro_compat & Self::METADATA_CSUM != 0 && self.incompat & Self::CSUM_SEED == 0
    }
}

/// Runs a tool on a device until it ends: what it does must not be broken off. No time is too long on a volume whose
/// blocks still come from the snapshot.
pub(super) async fn run(name: &str, arguments: &[&str], node: &Path) -> Result<(), String> {
    run_to(name, arguments, node, &[0]).await
}

/// The same of a tool for which these codes are no failure.
pub(super) async fn run_to(name: &str, arguments: &[&str], node: &Path, good: &[i32]) -> Result<(), String> {
    let program: PathBuf = query::program(name)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).arg(node).env_clear().env("PATH", crate::quiesce::PATH).env("LC_ALL", "C");
    // A question is answered by the end of its input.
    command.stdin(Stdio::null()).current_dir("/");
    let output = command.output().await.map_err(|e| format!("{name}: {e}"))?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it gives no reason");
    let words = [&[name], arguments].concat().join(" ");
    Err(format!("{words} {}: {}", node.display(), printable(last.trim())))
}
