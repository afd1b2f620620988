//! What can go wrong while looking at the host.

use std::path::{Path, PathBuf};

use super::mountinfo::BadLine;

/// The host could not be read. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum HostError {
    /// A file or folder of `/proc` or `/sys` could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot understand {}", path.display())]
    Mountinfo {
        path: PathBuf,
        #[source]
        source: BadLine,
    },
    /// There are no block devices at all: sysfs is not the host's.
    #[error("no block device in {}", path.display())]
    NoBlockDevices { path: PathBuf },
}

impl HostError {
    /// What the user can do about it; none when the message says all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run as root".to_owned())
            }
            Self::Read { path, .. } if path.starts_with("/sys") || path.starts_with("/proc") => {
                Some("/proc and /sys must be mounted, and must be the host's own".to_owned())
            }
            Self::Read { .. } => None,
            Self::Mountinfo { .. } => {
                Some("this is a kernel that writes mountinfo differently: please report the line".to_owned())
            }
            Self::NoBlockDevices { .. } => {
                Some("run on the instance itself, not in a container that hides its devices".to_owned())
            }
        }
    }

    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}
