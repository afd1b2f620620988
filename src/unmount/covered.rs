//! The folder that a mount covers: which one it is, and whether it is still where it was.
//!
//! ```text
//! mounted: record ──▶ Covered (journal), and the folder held open ─┐
//!          away                                                    │ its number is given to no other
//! to be mounted: find ──▶ Spot ──▶ attach, and look where it went ─┘
//! ```
//!
//! While a filesystem is away, whoever may write to a folder above its mount point can rename that, put a
//! link or another folder in its place, or mount a FUSE there. Root would then mount over a folder of root's.
//!
//! In: a recipe; mountinfo as it is now. Out: what goes into the journal, and later the covered folder, open,
//! to be mounted on. Must never: follow a link, step into a mount that was not there before, mount on another
//! folder than the one that was covered (unless root alone could have put that there), or leave a mount where
//! it was not.
//!
//! The folder is seen below its mount through a copy of the mount that it is in (open_tree(2)), since a copy
//! of one mount has nothing mounted on it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use super::{Make, Mounted, NoRecipe, Recipe};
use crate::host::beneath::{below, entry, link_in, mount_root};
use crate::host::fdinfo::FdInfo;
use crate::host::identity::Identity;
use crate::host::mount_api;
use crate::host::mountinfo::{self, MountLine, MountTree};
use crate::host::trust::{self, Trusted, by_descriptor};
use crate::ids::DevNo;
use crate::path_encoding::shown;

/// What a mount covered before it was unmounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Mount point of the mount that the folder is in, and its `major:minor`.
    on: (PathBuf, DevNo),
    /// Type and `major:minor` of what is mounted between, at the same mount point (an automount), lowest
    /// first. It is not unmounted here.
    between: Vec<(String, DevNo)>,
    /// The folder; none where the kernel does not show it. Then its path is one that root alone can change.
    folder: Option<Identity>,
    /// The root of the mount, where it is a copy of another one: which folder of the filesystem that was.
    pub(super) root: Option<Identity>,
}

/// The mount that a covered folder is in, and what is mounted on that folder, lowest first.
struct Stack<'a> {
    on: &'a MountLine,
    layers: Vec<&'a MountLine>,
}

impl<'a> Stack<'a> {
    fn at(lines: &'a [MountLine], mount_point: &Path) -> Option<Self> {
        let mut on = MountTree::new(lines).mount_of(mount_point)?;
        let mut layers = Vec::new();
        while on.mount_point == mount_point {
            if layers.len() > lines.len() {
                return None; // no table of a kernel goes round in circles
            }
            layers.insert(0, on);
            on = lines.iter().find(|l| l.id == on.parent)?;
        }
        Some(Self { on, layers })
    }

    /// The folder above the covered one, and the name of that.
    fn above<'m>(&self, mount_point: &'m Path) -> nix::Result<(OwnedFd, &'m OsStr)> {
        let rest = mount_point.strip_prefix(&self.on.mount_point).map_err(|_| Errno::ESTALE)?;
        let name = rest.file_name().ok_or(Errno::ESTALE)?;
        let above = below(&mount_root(self.on)?, rest.parent().unwrap_or(Path::new("")))?;
        Ok((above, name))
    }

    /// The root of the mount on top.
    fn top(&self) -> nix::Result<OwnedFd> {
        mount_root(self.layers.last().ok_or(Errno::ESTALE)?)
    }
}

fn is_of(recipe: &Recipe, line: &MountLine) -> bool {
    recipe.mounts.iter().any(|m| m.line_is(&recipe.filesystems[m.of], line))
}

fn now() -> Result<Vec<MountLine>, String> {
    let table =
        mountinfo::read(Path::new("/"), "self").map_err(|e| format!("cannot read the mounts: {e}"))?;
    Ok(table.lines)
}

/// Records, while everything is mounted, what each mount covers. The descriptors keep the folders: as long as
/// they are open, no other folder gets the number of one of them.
///
/// # Errors
/// When the kernel does not show a folder, and others than root could put another one in its place.
pub fn record(lines: &[MountLine], recipe: &mut Recipe) -> Result<Vec<OwnedFd>, NoRecipe> {
    let (mut all, mut held) = (Vec::new(), Vec::new());
    for mount in &recipe.mounts {
        let refuse = |why: String| NoRecipe { mount_point: mount.mount_point.clone(), why };
        let stack = Stack::at(lines, &mount.mount_point)
            .ok_or_else(|| refuse("what it is mounted on is not in the mount table".to_owned()))?;
        // The mount that the folder is in goes away too, with its numbers: then nothing must hold it.
        let goes = is_of(recipe, stack.on);
        let folder = match folder(&stack, &mount.mount_point) {
            Ok((identity, _)) if goes => Some(identity.on_any_device()),
            Ok((identity, fd)) => {
                held.push(fd);
                Some(identity)
            }
            Err(errno) => {
                let above = mount.mount_point.parent().unwrap_or(Path::new("/"));
                trust::check(above, Trusted::own()).map_err(|loose| {
                    let why = format!("the folder that it covers cannot be seen ({})", errno.desc());
                    refuse(format!("{why}, and {loose}, so another could be there afterwards"))
                })?;
                None
            }
        };
        let root = match mount.make {
            Make::New => None,
            // Of two mounts of the filesystem at one place only the upper one is reached; both are checked.
            Make::CopyOf(_) => Some(
                stack
                    .top()
                    .and_then(|top| Identity::of(&top))
                    .map_err(|errno| refuse(format!("its root cannot be opened: {}", errno.desc())))?
                    .on_any_device(),
            ),
        };
        let between = stack.layers.iter().filter(|l| !is_of(recipe, l));
        all.push(Covered {
            on: (stack.on.mount_point.clone(), stack.on.dev),
            between: between.map(|l| (l.fstype.clone(), l.dev)).collect(),
            folder,
            root,
        });
    }
    for (mount, covered) in recipe.mounts.iter_mut().zip(all) {
        mount.covered = Some(covered);
    }
    Ok(held)
}

/// The covered folder, seen as if nothing were mounted on it.
fn folder(stack: &Stack<'_>, mount_point: &Path) -> nix::Result<(Identity, OwnedFd)> {
    let (above, name) = stack.above(mount_point)?;
    let folder = below(&mount_api::copy_of(&above)?, Path::new(name))?;
    Ok((Identity::of(&folder)?, folder))
}

/// Unmounts what is on top at this place, neither forced nor lazily: past no link, and only if it is the mount
/// with this id.
pub(crate) fn unmount(lines: &[MountLine], mount_point: &Path, id: u32) -> nix::Result<()> {
    let stack = Stack::at(lines, mount_point).ok_or(Errno::ESTALE)?;
    let (above, name) = stack.above(mount_point)?;
    let top = entry(&above, name)?;
    if FdInfo::of_fd(&top).and_then(|i| i.mount()) != Some(id) {
        return Err(Errno::ESTALE);
    }
    drop(top); // it would keep the mount busy
    umount2(&by_descriptor(&above).join(name), MntFlags::UMOUNT_NOFOLLOW)
}

/// Why a mount is not made: the covered folder is not at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum NotThere {
    #[error("{} is a link to {} now, and a mount follows none", shown(place), shown(target))]
    Link { place: PathBuf, target: PathBuf },
    #[error("{fstype} is mounted on {} now", shown(place))]
    Mounted { place: PathBuf, fstype: String },
    #[error("another folder is there now than the one that it was mounted on, and {loose}")]
    Another { loose: trust::Loose },
    #[error("it is not known which folder it was mounted on, and {loose}")]
    Unknown { loose: trust::Loose },
    #[error("its mount point cannot be reached: {0}")]
    Unreachable(String),
    #[error("somebody has moved its mount point to {} in that moment{undone}", shown(to))]
    Moved { to: PathBuf, undone: String },
    #[error("somebody has mounted something on its mount point in that moment{undone}")]
    Overtaken { undone: String },
    #[error("{0}")]
    NotAttached(String),
}

/// A [`NotThere`], with the place where the folder is now, if that could be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", found.as_ref().map(|f| format!("; the folder that it was mounted on is {} now: move it back", shown(f))).unwrap_or_default())]
pub struct NoSpot {
    /// What is there instead.
    why: NotThere,
    found: Option<PathBuf>,
}

impl NoSpot {
    /// Does the path lead elsewhere now? Then the command by hand, which follows it, would mount there.
    pub(super) fn leads_astray(&self) -> bool {
        !matches!(self.why, NotThere::Unreachable(_) | NotThere::NotAttached(_))
    }
}

/// Where a mount is to be attached: open, and what was at the path when it was opened.
#[derive(Debug)]
pub struct Spot {
    fd: OwnedFd,
    /// Id of the mount that it is on.
    on: u32,
}

/// Finds the folder that this mount covered, at the place where it was.
///
/// # Errors
/// When something else is there by now.
pub fn find(recipe: &Recipe, mount: &Mounted) -> Result<Spot, NoSpot> {
    let lines = now().map_err(|e| NoSpot { why: NotThere::Unreachable(e), found: None })?;
    at_its_place(&lines, recipe, mount).map_err(|why| NoSpot { found: elsewhere(&lines, recipe, mount), why })
}

fn at_its_place(lines: &[MountLine], recipe: &Recipe, mount: &Mounted) -> Result<Spot, NotThere> {
    let place = &mount.mount_point;
    let kernel = |errno: Errno| NotThere::Unreachable(errno.desc().to_owned());
    let stack = Stack::at(lines, place).ok_or_else(|| kernel(Errno::ENOENT))?;
    let over =
        |line: &MountLine| NotThere::Mounted { place: line.mount_point.clone(), fstype: line.fstype.clone() };
    if let Some(covered) = &mount.covered {
        let same = stack.on.dev == covered.on.1 || is_of(recipe, stack.on);
        if stack.on.mount_point != covered.on.0 || !same {
            return Err(over(stack.on));
        }
    }
    let between = mount.covered.iter().flat_map(|c| &c.between);
    let known = |line: &&&MountLine| {
        // An automount that was stopped meanwhile has another number.
        let was = |(fstype, dev): &(String, DevNo)| {
            *fstype == line.fstype && (fstype == "autofs" || *dev == line.dev)
        };
        between.clone().any(was)
            || is_of(recipe, line)
            || (mount.covered.is_none() && line.fstype == "autofs")
    };
    if let Some(unknown) = stack.layers.iter().find(|l| !known(l)) {
        return Err(over(unknown));
    }
    if let Some(top) = stack.layers.last() {
        return Ok(Spot { fd: stack.top().map_err(kernel)?, on: top.id });
    }
    let folder = mount.covered.as_ref().and_then(|c| c.folder.as_ref());
    let rest = place.strip_prefix(&stack.on.mount_point).unwrap_or(place);
    let root = mount_root(stack.on).map_err(kernel)?;
    let fd = below(&root, rest).map_err(|errno| match link_in(&root, rest) {
        Some((link, target)) if errno == Errno::ELOOP => {
            NotThere::Link { place: stack.on.mount_point.join(link), target }
        }
        _ => kernel(errno),
    })?;
    let is = Identity::of(&fd).map_err(kernel)?;
    if folder.is_none_or(|was| !was.is(&is)) {
        // Root has made it anew, say. What only root can change leads nobody astray.
        put_by_root(place).map_err(|loose| match folder {
            Some(_) => NotThere::Another { loose },
            None => NotThere::Unknown { loose },
        })?;
    }
    Ok(Spot { fd, on: stack.on.id })
}

/// Could root alone have put there what is there?
fn put_by_root(place: &Path) -> Result<(), trust::Loose> {
    let own = Trusted::own();
    // In a sticky folder everybody makes folders, and nobody moves one of root's.
    let above = trust::check(place.parent().unwrap_or(place), own);
    above.or_else(|loose| trust::check(place, own).map_err(|_| loose))
}

/// Where the folder is by now; none when it cannot be told.
fn elsewhere(lines: &[MountLine], recipe: &Recipe, mount: &Mounted) -> Option<PathBuf> {
    let covered = mount.covered.as_ref()?;
    let same = |l: &&MountLine| l.dev == covered.on.1 || is_of(recipe, l);
    let on = lines.iter().filter(|l| l.mount_point == covered.on.0).find(same)?;
    let found = covered.folder.as_ref()?.find(&mount_root(on).ok()?)?;
    let path = std::fs::read_link(by_descriptor(&found)).ok()?;
    (path != mount.mount_point && nix::sys::stat::fstat(&found).ok()?.st_nlink > 0).then_some(path)
}

impl Spot {
    /// Is it a folder?
    #[must_use]
    pub fn is_folder(&self) -> bool {
        use nix::sys::stat::{SFlag, fstat};
        fstat(&self.fd).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
    }

    /// Attaches a mount here, and takes it away again if it did not come to `mount_point`: somebody may have
    /// moved the folder, or mounted on it, a moment before.
    ///
    /// # Errors
    /// When it is not mounted.
    pub fn attach(&self, made: &OwnedFd, mount_point: &Path) -> Result<(), NoSpot> {
        let no = |why| NoSpot { why, found: None };
        mount_api::attach(made.as_fd(), self.fd.as_fd()).map_err(|errno| {
            // The kernel says EINVAL when one is a folder and the other is not.
            let what = if errno == Errno::EINVAL && !self.is_folder() {
                "its mount point is not a folder any more"
            } else {
                "cannot attach the mount to its mount point"
            };
            no(NotThere::NotAttached(format!("{what}: {}", errno.desc())))
        })?;
        let id = FdInfo::of_fd(made).and_then(|i| i.mount());
        let lines = now().map_err(|e| no(NotThere::NotAttached(e)))?;
        let line = lines.iter().find(|l| Some(l.id) == id);
        if line.is_some_and(|l| l.mount_point == mount_point && l.parent == self.on) {
            return Ok(());
        }
        // Lazily, because this process has it open. Nobody else had the time to.
        let undone = match umount2(&by_descriptor(made), MntFlags::MNT_DETACH) {
            Ok(()) => String::new(),
            Err(errno) => format!(", and it cannot be unmounted from there: {}", errno.desc()),
        };
        Err(no(match line {
            Some(l) if l.mount_point != mount_point => NotThere::Moved { to: l.mount_point.clone(), undone },
            _ => NotThere::Overtaken { undone },
        }))
    }
}
