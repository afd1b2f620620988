//! A filesystem on a device of its own: is it what its label promises?
//!
//! ```text
//! label above crash   its own bytes say that nothing has to be recovered (probe.rs)
//!                     ─▶ it mounts read-only without recovery ─▶ fsck finds nothing ─▶ sound
//!                                                                   └ it does: mounted once, as a restore would
//! any other           mounted once: what it has to recover is ───────▶ fsck finds nothing ─▶ sound
//! ```
//!
//! A file that was open and deleted at the point in time is still on the disk, frozen or not: e2fsck and xfs_repair take
//! that for an error, and a mount removes it. xfs_repair says the same of every log that was not unmounted, also where
//! nothing is in it. So what counts is the second look, after a mount; that nothing had to be recovered is known before.
//!
//! In: a device that is nobody else's and thrown away afterwards. Out: a verdict, in words. Must never: write to a device
//! before the first look, or call sound what fsck has not gone through.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::Verdict;
use super::contained::{self, Ended, Request};
use super::partitions::{ReadError, Source};
use crate::host::block::BlockDevice;
use crate::host::mount_api::NotCreated;
use crate::host::{device, kernel, trust};
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::path_encoding::printable;
use crate::quiesce::query;
use crate::restore::{identity, mounts, options, stack};
use crate::window::guard::process::OWN;

/// What fsck may take for one filesystem: metadata of some TiB that come from S3 for the first time.
const FSCK: Duration = Duration::from_secs(6 * 3600);
/// e2fsck's exit code is a sum: this of it is "errors left uncorrected"; 8 and more is its own failure.
const UNCORRECTED: i32 = 4;

/// A filesystem that is judged.
pub(super) struct Subject<'a> {
    /// Its type.
    pub fstype: &'a str,
    /// Its UUID, where it is known.
    pub uuid: Option<&'a str>,
    /// What it is on.
    pub device: &'a BlockDevice,
    /// Further devices of a btrfs.
    pub others: &'a [BlockDevice],
    /// Its label says that it has nothing to recover.
    pub promises: bool,
}

impl Subject<'_> {
    fn other_numbers(&self) -> Vec<DevNo> {
        self.others.iter().map(|d| d.dev).collect()
    }
}

/// The program that checks a type, its arguments, and the package that it is of.
fn tool(fstype: &str) -> Option<(&'static str, &'static [&'static str], &'static str)> {
    Some(match fstype {
        "ext2" | "ext3" | "ext4" => ("e2fsck", &["-f", "-n"], "e2fsprogs"),
        "xfs" => ("xfs_repair", &["-n"], "xfsprogs"),
        // That nothing of it is mounted is made sure of here: two disks of one UUID are one filesystem to it.
        "btrfs" => ("btrfs", &["check", "--readonly", "--force"], "btrfs-progs"),
        _ => return None,
    })
}

/// Is the program here that checks this type?
///
/// # Errors
/// What to install.
pub fn has_tool(fstype: &str) -> Result<(), String> {
    let Some((name, _, package)) = tool(fstype) else { return Ok(()) };
    identity::installed(name, package)
}

/// What came of a look at it.
enum Checked {
    Clean,
    Errors(String),
    Not(String),
}

/// Judges it.
///
/// # Errors
/// The signal that interrupted it.
pub(super) async fn judge(of: &Subject<'_>, interrupt: &mut Interrupt) -> Result<(Verdict, String), Signal> {
    let Some((program, ..)) = tool(of.fstype) else {
        return Ok((Verdict::NotLooked, format!("{} is not checked here", printable(of.fstype))));
    };
    if let Some(why) = stands_in_the_way(of) {
        return Ok((Verdict::NotLooked, why));
    }
    let mut before = None;
    if of.promises {
        if let Err(why) = write_protect(of, true) {
            return Ok((Verdict::NotLooked, why));
        }
        let looked = as_it_is(of, interrupt).await;
        if let Err(why) = write_protect(of, false) {
            return Ok((Verdict::NotLooked, why));
        }
        match looked? {
            First::Mounts => {}
            First::Checked(Checked::Clean) => {
                return Ok((
                    Verdict::Sound,
                    format!("nothing has to be recovered, and {program} finds nothing"),
                ));
            }
            First::Checked(Checked::Errors(what)) => before = Some(what),
            First::Checked(Checked::Not(why)) => return Ok((Verdict::NotLooked, why)),
            First::Refused(not) => return Ok(not_mounted(&not, "without recovery, it cannot be mounted")),
        }
    }
    if let Err(not) = identity::replay(of.device, &of.other_numbers(), of.fstype).await {
        return Ok(not_mounted(&not, "it cannot be mounted"));
    }
    match fsck(of, interrupt).await? {
        Checked::Clean if of.promises => {
            let what = match before {
                None => "nothing has to be recovered",
                Some(_) => "nothing has to be recovered but files that were open and deleted",
            };
            Ok((Verdict::Sound, format!("{what}, and {program} finds nothing")))
        }
        Checked::Clean => {
            let what = format!("as its label says, a mount recovers it; then {program} finds nothing");
            Ok((Verdict::Sound, what))
        }
        Checked::Errors(what) => Ok((Verdict::Fault, what)),
        Checked::Not(why) => Ok((Verdict::NotLooked, why)),
    }
}

/// What came of the first look, before anything was written.
enum First {
    /// It mounts, and fsck would say nothing that counts.
    Mounts,
    Checked(Checked),
    /// It does not mount.
    Refused(NotCreated),
}

/// A fault of the set is what is wrong with its bytes. That this host cannot mount it says nothing of them.
fn not_mounted(not: &NotCreated, what: &str) -> (Verdict, String) {
    let why = printable(&not.what);
    match not.is_of_the_filesystem() {
        true => (Verdict::Fault, format!("{what}: {why}")),
        false => (Verdict::NotLooked, format!("{what} on this host: {why}")),
    }
}

async fn as_it_is(of: &Subject<'_>, interrupt: &mut Interrupt) -> Result<First, Signal> {
    match mounts_as_it_is(of).await {
        Err(not) => Ok(First::Refused(not)),
        Ok(()) if of.fstype == "xfs" => Ok(First::Mounts),
        Ok(()) => fsck(of, interrupt).await.map(First::Checked),
    }
}

/// The kernel refuses to write to it, or does not any more.
fn write_protect(of: &Subject<'_>, protected: bool) -> Result<(), String> {
    std::iter::once(of.device).chain(of.others).try_for_each(|one| protect(one, protected))
}

fn protect(of: &BlockDevice, protected: bool) -> Result<(), String> {
    let set = || {
        let node = device::node(of.dev, &[]).ok_or(Errno::ENODEV)?;
        let opened = device::open_at(&node, of.dev, OFlag::empty())?;
        kernel::set_read_only(opened.as_fd(), protected)
    };
    set().map_err(|errno| format!("{} cannot be protected from being written to: {}", of.name, errno.desc()))
}

/// Before Linux 6.7, a btrfs is not mounted while another one of its UUID is.
fn stands_in_the_way(of: &Subject<'_>) -> Option<String> {
    let known = |name: &str| std::path::Path::new("/sys/fs/btrfs").join(name).exists();
    let uuid = of.uuid.filter(|_| of.fstype == "btrfs")?;
    let plain = uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (!plain || (known(uuid) && !known("features/temp_fsid"))).then(|| {
        "this kernel cannot mount it beside its original (Linux 6.7 can): verify it on another instance"
            .to_owned()
    })
}

/// Mounts it read-only, without recovery and attached nowhere, and lists its root.
async fn mounts_as_it_is(of: &Subject<'_>) -> Result<(), NotCreated> {
    let node =
        device::node(of.device.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", of.device.name))?;
    let (dev, others, fstype) = (of.device.dev, of.other_numbers(), of.fstype.to_owned());
    let look = move || {
        let options = options::of(&fstype, "", true).filesystem;
        let mounted = mounts::create(&node, dev, &others, &fstype, &options, None)?;
        let said = |e: std::io::Error| NotCreated {
            errno: e.raw_os_error().map(Errno::from_raw),
            what: format!("its root cannot be listed: {e}"),
        };
        let mut entries = std::fs::read_dir(trust::by_descriptor(&mounted)).map_err(said)?;
        entries.try_for_each(|entry| entry.map(drop)).map_err(said)
    };
    // It may read much of a cold volume.
    tokio::task::spawn_blocking(look).await.map_err(|e| e.to_string())?
}

async fn fsck(of: &Subject<'_>, interrupt: &mut Interrupt) -> Result<Checked, Signal> {
    let Some((name, options, _)) = tool(of.fstype) else { return Ok(Checked::Not("no tool".to_owned())) };
    let found = query::program(name).and_then(|program| {
        let node = device::node(of.device.dev, &[]);
        Ok((program, node.ok_or_else(|| format!("/dev has no node of {}", of.device.name))?))
    });
    let (program, node) = match found {
        Ok(found) => found,
        Err(why) => return Ok(Checked::Not(why)),
    };
    // btrfs takes a disk of the original for one of this, which has another UUID and the same metadata.
    let mut argv = match apart(of) {
        Ok(argv) => argv,
        Err(why) => return Ok(Checked::Not(why)),
    };
    argv.push(program.to_string_lossy().into_owned());
    argv.extend(options.iter().map(|o| (*o).to_owned()));
    argv.push(node.to_string_lossy().into_owned());
    let vars = [("PATH", crate::quiesce::PATH), ("LC_ALL", "C"), ("TMPDIR", contained::SCRATCH)];
    let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let request = Request { mounts: Vec::new(), scratch: 64 << 20, user: None, argv, vars, database: None };
    let done = contained::run("", &request, FSCK, interrupt).await;
    said(name, done.ended, &done.output).ok_or_else(|| interrupt.pending().unwrap_or(Signal::SIGTERM))
}

/// What the end of a program says of the filesystem: a fault is only what the program found, not that it failed. None
/// where it was interrupted.
fn said(name: &str, ended: Ended, output: &str) -> Option<Checked> {
    let last = printable(complaint(output));
    Some(match ended {
        Ended::Well => Checked::Clean,
        Ended::Code(127) => Checked::Not(format!("{name} could not be run: {last}")),
        Ended::Code(code) if name == "e2fsck" && code & UNCORRECTED == 0 => {
            Checked::Not(format!("{name} failed (exit code {code}): {last}"))
        }
        Ended::Code(_) if name != "e2fsck" && is_too_old(output) => {
            Checked::Not(format!("{name} is too old for this filesystem: {last}"))
        }
        Ended::Code(code) => Checked::Errors(format!("{name} finds errors (exit code {code}): {last}")),
        // The kernel ends what takes too much memory.
        Ended::Signal(9) => Checked::Not(format!("{name} was killed, perhaps for lack of memory")),
        Ended::Signal(signal) => Checked::Not(format!("{name} was ended by signal {signal}: {last}")),
        Ended::NotStarted(why) => Checked::Not(format!("{name} could not be run: {}", printable(&why))),
        Ended::TimedOut => {
            Checked::Not(format!("{name} did not end within {}", humantime::format_duration(FSCK)))
        }
        Ended::Interrupted => return None,
    })
}

/// Does xfs_repair or btrfs say that it does not know all of this filesystem? A line with the name of a file says what
/// the filesystem's users have chosen.
fn is_too_old(output: &str) -> bool {
    let has_name = |l: &&str| l.contains('"') || l.contains("namelen");
    let says = |l: &str| {
        ["newer version", "more recent xfs_repair", "unsupported"].iter().any(|said| l.contains(said))
    };
    output.lines().filter(|l| !has_name(l)).any(says)
}

/// What is before a program that must not see other disks than those of a filesystem that has several.
fn apart(of: &Subject<'_>) -> Result<Vec<String>, String> {
    if of.others.is_empty() {
        return Ok(Vec::new());
    }
    let all = [std::slice::from_ref(of.device), of.others].concat();
    Ok(std::iter::once(OWN.to_owned()).chain(stack::seeing_only(&all)?).collect())
}

/// The first line that names an error: what comes before it is who speaks, and where it is.
fn complaint(output: &str) -> &str {
    let noise = |l: &&str| {
        let l = l.trim();
        l.is_empty()
            || [
                "Phase ",
                "Pass ",
                "- ",
                "e2fsck ",
                "Opening ",
                "Checking ",
                "UUID:",
                "[",
                "Fix?",
                "ALERT",
                "ignored",
                "which may",
            ]
            .iter()
            .any(|start| l.starts_with(start))
    };
    output.lines().find(|l| !noise(l)).map_or("it gives no reason", str::trim)
}

/// The bytes of a disk.
pub(super) struct Disk {
    file: File,
    /// In bytes.
    pub size: u64,
}

impl Disk {
    /// Opens it for reading.
    ///
    /// # Errors
    /// When it cannot be opened, or its size is not known.
    pub fn open(of: &BlockDevice) -> Result<Self, String> {
        use std::io::{Seek as _, SeekFrom};
        let said = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", of.name);
        let node = device::node(of.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", of.name))?;
        let fd = device::open_at(&node, of.dev, OFlag::empty()).map_err(|e| said(&e.desc()))?;
        let mut file = File::from(fd);
        let size = file.seek(SeekFrom::End(0)).map_err(|e| said(&e))?;
        Ok(Self { file, size })
    }

    /// Lets the next read be one of the device: the kernel's md writes to its members past the page cache.
    pub fn forget_cached(&self) {
        let _ =
            nix::fcntl::posix_fadvise(&self.file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

impl Source for Disk {
    async fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.size);
        end.ok_or(ReadError::Beyond)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).map_err(|_| ReadError::Damaged(at))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fsck_complains_of_is_said_and_not_where_it_is() {
        let ext = "e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\n\
                   Inode 12, i_size is 5, should be 4096.  Fix? no\n\nPass 2: Checking directory structure\n";
        assert_eq!(complaint(ext), "Inode 12, i_size is 5, should be 4096.  Fix? no");
        let xfs = "Phase 1 - find and verify superblock...\n        - zero log...\nALERT: The filesystem\n\
                   agi unlinked bucket 3 is 131 in ag 0 (inode=131)\n";
        assert_eq!(complaint(xfs), "agi unlinked bucket 3 is 131 in ag 0 (inode=131)");
        assert_eq!(complaint(""), "it gives no reason");
    }

    #[test]
    fn a_program_that_fails_says_nothing_of_the_filesystem() {
        let newer = "Superblock has unknown compat/rocompat/incompat features (0x0/0x80/0x0).\n\
                     Using a more recent xfs_repair is recommended.\n\
                     Found unsupported filesystem features.  Exiting now.\n";
        let named = "entry \"unsupported\" in directory inode 128 points to free inode 131\n";
        let btrfs = "couldn't open because of unsupported option features (0x10000)\n";
        let unresolved = "unresolved ref dir 256 index 2 namelen 11 name unsupported filetype 1 errors 4\n";
        for (name, ended, output, is_fault) in [
            ("e2fsck", Ended::Code(4), "", true),
            ("e2fsck", Ended::Code(12), "", true),
            ("e2fsck", Ended::Code(8), "", false),
            ("e2fsck", Ended::Code(16), "", false),
            ("e2fsck", Ended::Code(32), "", false),
            ("e2fsck", Ended::Code(128), "", false),
            ("e2fsck", Ended::Code(4), "Get a newer version of e2fsck!\n", true),
            ("e2fsck", Ended::Code(127), "", false),
            ("e2fsck", Ended::Signal(11), "", false),
            ("xfs_repair", Ended::Code(1), "", true),
            ("xfs_repair", Ended::Code(1), named, true),
            ("xfs_repair", Ended::Code(1), newer, false),
            ("xfs_repair", Ended::Signal(6), "", false),
            ("btrfs", Ended::Code(1), unresolved, true),
            ("btrfs", Ended::Code(1), btrfs, false),
        ] {
            let which = format!("{name}, {ended:?}: {output}");
            match said(name, ended, output) {
                Some(Checked::Errors(_)) => assert!(is_fault, "{which}"),
                Some(Checked::Not(_)) => assert!(!is_fault, "{which}"),
                _ => panic!("{which}"),
            }
        }
    }
}
