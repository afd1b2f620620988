//! How mounts and unmounts below a mount spread to other mounts (mount_namespaces(7)).
//!
//! In: mountinfo's optional fields. Out: [`Propagation`]: what is set when the mount is made again, and the
//! word for mount(8). Must never: call a mount private that is in a peer group.

use super::Mounted;

/// How mounts and unmounts below a mount spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    Private,
    Unbindable,
    Shared,
    Slave,
    SharedSlave,
}

impl Propagation {
    pub(super) fn of_mount(mount: &Mounted) -> Self {
        Self::from_optional(&mount.propagation)
    }

    pub(super) fn from_optional(optional: &[String]) -> Self {
        let has = |kind: &str| optional.iter().any(|o| o.starts_with(kind));
        match (has("shared:"), has("master:")) {
            (true, true) => Self::SharedSlave,
            (true, false) => Self::Shared,
            (false, true) => Self::Slave,
            (false, false) if has("unbindable") => Self::Unbindable,
            (false, false) => Self::Private,
        }
    }

    /// The propagation flags to set, one after the other, once the mount is attached. Being a slave is set
    /// up before that; on a shared parent the new mount has also become shared.
    pub(super) fn steps(self) -> &'static [libc::c_ulong] {
        match self {
            Self::Private => &[libc::MS_PRIVATE],
            Self::Unbindable => &[libc::MS_UNBINDABLE],
            Self::Shared | Self::SharedSlave => &[libc::MS_SHARED],
            Self::Slave => &[libc::MS_SLAVE],
        }
    }

    /// For mount(8)'s `--make-…`.
    pub(super) fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::Private => "private",
            Self::Unbindable => "unbindable",
            Self::Shared => "shared",
            Self::Slave => "slave",
            Self::SharedSlave => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slave_that_is_shared_is_neither() {
        let of = |fields: &[&str]| {
            Propagation::from_optional(&fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Propagation::Private);
        assert_eq!(of(&["shared:3"]), Propagation::Shared);
        assert_eq!(of(&["master:3", "propagate_from:2"]), Propagation::Slave);
        assert_eq!(of(&["shared:4", "master:3"]), Propagation::SharedSlave);
        assert_eq!(of(&["unbindable"]), Propagation::Unbindable);
    }
}
