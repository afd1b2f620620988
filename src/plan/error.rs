//! Why no plan could be made.

use std::path::{Path, PathBuf};

use super::MAX_SET;
use crate::ids::VolumeId;
use crate::path_encoding::shown;

/// Why no plan could be made. Nothing has been touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No volume is left in the set.
    #[error("nothing to snapshot: {0}")]
    Nothing(
        /// What was found, and why each stays out.
        String,
    ),
    /// A setting names a path that is not a mount point.
    #[error("`{key}` names {}, which is not a mount point", shown(mount))]
    UnknownMount {
        /// The setting.
        key: &'static str,
        /// The path.
        mount: PathBuf,
        /// The mount point that holds it.
        within: Option<PathBuf>,
        /// Mount points with a similar name.
        near: Vec<PathBuf>,
    },
    /// A setting names a volume that is not attached.
    #[error("`{key}` names {volume}, which is not attached to this instance")]
    UnknownVolume {
        /// The setting.
        key: &'static str,
        /// The volume.
        volume: VolumeId,
        /// Attached volumes that are named similarly, or all when there are few.
        near: Vec<VolumeId>,
    },
    /// No attached volume has the requested tags.
    #[error("no attached volume carries {wanted}, which `volume_tags` asks for")]
    NoTagMatch {
        /// The tags.
        wanted: String,
    },
    /// Two settings contradict each other.
    #[error("`{key}` asks for {what}, which is {why}")]
    Contradiction {
        /// The setting that asks.
        key: &'static str,
        /// For what.
        what: String,
        /// Why that is impossible.
        why: String,
    },
    /// A chosen mount is not on EBS.
    #[error("cannot take {} ({fstype}): {reason}", shown(mount))]
    NotOnEbs {
        /// The mount point.
        mount: PathBuf,
        /// Its type.
        fstype: String,
        /// What it is on.
        reason: String,
    },
    /// A mounted filesystem is on a disk that EC2 does not list.
    #[error("cannot take {} ({fstype}): {volume} ({disk}) is not attached according to EC2", shown(mount))]
    NotAttached {
        /// The mount point.
        mount: PathBuf,
        /// Its type.
        fstype: String,
        /// The volume that the disk's serial number names.
        volume: VolumeId,
        /// The disk.
        disk: String,
    },
    /// A filesystem on a volume of the set would be only partly in the set.
    #[error("{} on {} would be only partly consistent: {why}", shown(mount), list(volumes))]
    Partial {
        /// The mount point.
        mount: PathBuf,
        /// The volumes of the set that it is on.
        volumes: Vec<VolumeId>,
        /// What is missing.
        why: String,
    },
    /// It is not known which devices a filesystem is on, so any volume may have a part of it.
    #[error("cannot tell which devices {} ({fstype}) is on", shown(mount))]
    UnknownDevices {
        /// The mount point.
        mount: PathBuf,
        /// Its type.
        fstype: String,
    },
    /// A volume chosen by id has no mounted filesystem.
    #[error("`volumes` names {volume} ({device_name}), which has no mounted filesystem")]
    NoFilesystem {
        /// The volume.
        volume: VolumeId,
        /// Its device name.
        device_name: String,
    },
    /// A chosen volume is on no disk of this host.
    #[error("`volumes` names {volume} ({device_name}), but no disk of this host belongs to it")]
    NoDisk {
        /// The volume.
        volume: VolumeId,
        /// Its device name.
        device_name: String,
    },
    /// `methods` asks to freeze what cannot freeze.
    #[error("`methods` asks to freeze {}, but {fstype} cannot be frozen", shown(mount))]
    CannotFreeze {
        /// The mount point.
        mount: PathBuf,
        /// Its type.
        fstype: String,
    },
    /// `methods` asks to unmount what the system runs from.
    #[error("`methods` asks to unmount / ({fstype}), which this system runs from")]
    CannotUnmount {
        /// Its type.
        fstype: String,
    },
    /// `methods` names one filesystem by two mount points, with different methods.
    #[error(
        "`methods` gives {} and {} different methods, but they are one filesystem",
        shown(.mounts.0.as_path()),
        shown(.mounts.1.as_path())
    )]
    TwoMethods {
        /// The two mount points.
        mounts: (PathBuf, PathBuf),
    },
    /// `exclude_boot_volume = true`, and it is not known which one that is.
    #[error("`exclude_boot_volume = true`, but it cannot be told which volume is the boot volume")]
    BootUnknown,
    /// More volumes than a set can have.
    #[error("the set would have {count} volumes, and EC2 takes at most {MAX_SET} together")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl PlanError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing(_) => Some(
                "every mounted filesystem on an attached EBS volume is taken unless a setting leaves it out; \
                 volumes without one need `unmounted_volumes = \"crash\"`"
                    .to_owned(),
            ),
            Self::UnknownMount { within, near, .. } => {
                let within = within.as_deref().map(|w| format!("it is a folder of the mount {}", shown(w)));
                let near = (!near.is_empty()).then(|| {
                    let names: Vec<_> = near.iter().map(|n| shown(n)).collect();
                    format!("named similarly: {}", names.join(", "))
                });
                let parts: Vec<_> = within.into_iter().chain(near).collect();
                (!parts.is_empty()).then(|| parts.join("; "))
            }
            Self::UnknownVolume { near, .. } if near.is_empty() => None,
            Self::UnknownVolume { near, .. } => Some(format!("attached are {}", list(near))),
            Self::NoTagMatch { .. } => {
                Some("tags are those of the volumes, not of the instance; an empty value \
                      matches any".to_owned())
            }
            Self::Contradiction { .. } => Some("drop one of the two settings".to_owned()),
            Self::NotOnEbs { .. } | Self::BootUnknown => None,
            Self::NotAttached { mount, .. } => Some(format!(
                "if it was attached or detached just now, try again; otherwise leave it out with \
                 `exclude_mounts = [\"{}\"]`",
                quotable(mount)
            )),
            Self::Partial { .. } => Some(
                "take the filesystem whole, leave out its other volumes too, or set `allow_partial = true`, \
                 which makes the set crash-consistent at best"
                    .to_owned(),
            ),
            Self::UnknownDevices { mount, .. } => Some(format!(
                "if it is on no volume of the set, say so with `exclude_mounts = [\"{}\"]`",
                quotable(mount)
            )),
            Self::NoFilesystem { .. } => {
                Some("take it at crash consistency with `unmounted_volumes = \"crash\"`".to_owned())
            }
            Self::NoDisk { .. } => Some("if it was attached just now, try again".to_owned()),
            Self::CannotFreeze { .. } => {
                Some("use the method `sync`, which proves it quiet by its write counter".to_owned())
            }
            Self::CannotUnmount { .. } => Some("freeze it, which is the default".to_owned()),
            Self::TwoMethods { .. } => Some("keep one of the two".to_owned()),
            Self::TooMany { .. } => Some(
                "split it into several plans with `mounts` or `volumes`; each plan is one \
                 point in time".to_owned(),
            ),
        }
    }
}

fn list(volumes: &[VolumeId]) -> String {
    volumes.iter().map(VolumeId::as_str).collect::<Vec<_>>().join(", ")
}

fn quotable(path: &Path) -> String {
    shown(path).replace('"', "\\\"")
}
