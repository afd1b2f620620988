//! Why no plan could be made.

use std::path::{Path, PathBuf};

use super::MAX_SET;
use crate::ids::VolumeId;
use crate::path_encoding::shown;

/// Why no plan could be made. Nothing has been touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum PlanError {
    #[error("nothing to snapshot: {0}")]
    Nothing(String),
    /// A setting names a path that is not a mount point.
    #[error("`{key}` names {}, which is not a mount point", shown(mount))]
    UnknownMount { key: &'static str, mount: PathBuf, within: Option<PathBuf>, near: Vec<PathBuf> },
    #[error("`{key}` names {volume}, which is not attached to this instance")]
    UnknownVolume {
        key: &'static str,
        volume: VolumeId,
        /// Attached volumes that are named similarly, or all when there are few.
        near: Vec<VolumeId>,
    },
    #[error("no attached volume carries {wanted}, which `volume_tags` asks for")]
    NoTagMatch { wanted: String },
    #[error("`{key}` asks for {what}, which is {why}")]
    Contradiction { key: &'static str, what: String, why: String },
    #[error("cannot take {} ({fstype}): {reason}", shown(mount))]
    NotOnEbs { mount: PathBuf, fstype: String, reason: String },
    /// A mounted filesystem is on a disk that EC2 does not list.
    #[error("cannot take {} ({fstype}): {volume} ({disk}) is not attached according to EC2", shown(mount))]
    NotAttached { mount: PathBuf, fstype: String, volume: VolumeId, disk: String },
    /// A filesystem on a volume of the set would be only partly in the set.
    #[error("{} on {} would be only partly consistent: {why}", shown(mount), list(volumes))]
    Partial { mount: PathBuf, volumes: Vec<VolumeId>, why: String },
    /// It is not known which devices a filesystem is on, so any volume may have a part of it.
    #[error("cannot tell which devices {} ({fstype}) is on: {why}", shown(mount))]
    UnknownDevices { mount: PathBuf, fstype: String, why: String },
    #[error("`volumes` names {volume} ({device_name}), which has no mounted filesystem")]
    NoFilesystem { volume: VolumeId, device_name: String },
    /// A chosen volume is on no disk of this host.
    #[error("`volumes` names {volume} ({device_name}), but no disk of this host belongs to it")]
    NoDisk { volume: VolumeId, device_name: String },
    #[error("`methods` asks to freeze {}, but {fstype} cannot be frozen", shown(mount))]
    CannotFreeze { mount: PathBuf, fstype: String },
    #[error("`methods` asks to unmount / ({fstype}), which this system runs from")]
    CannotUnmount { fstype: String },
    /// `methods` names one filesystem by two mount points, with different methods.
    #[error(
        "`methods` gives {} and {} different methods, but they are one filesystem",
        shown(.mounts.0.as_path()),
        shown(.mounts.1.as_path())
    )]
    TwoMethods { mounts: (PathBuf, PathBuf) },
    /// `exclude_boot_volume = true`, and it is not known which one that is.
    #[error("`exclude_boot_volume = true`, but it cannot be told which volume is the boot volume")]
    BootUnknown,
    #[error("the set would have {count} volumes, and EC2 takes at most {MAX_SET} together")]
    TooMany { count: usize },
}

impl PlanError {
    /// What the user can change about it.
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
                "as root, everything about it can be read; if it is on no volume of the set, say so with \
                 `exclude_mounts = [\"{}\"]`",
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
