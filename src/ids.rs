//! Names of things: EC2 ids, device numbers, the id of a run.
//!
//! In: text from IMDS, EC2, `/proc`, `/sys` or a person. Out: newtypes that cannot be mixed up.
//! Must never: accept text that is not such an id, since ids end up in API calls and file names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what} (expected something like {example})")]
pub struct InvalidId {
    /// As it was given.
    pub text: String,
    /// What was expected, with its article.
    pub what: &'static str,
    /// A well-formed example.
    pub example: &'static str,
}

macro_rules! ec2_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Text<{ $prefix.len() + 17 }>);

        impl $name {
            /// The id as EC2 writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let hex = s.strip_prefix($prefix).unwrap_or_default();
                // Resources from before 2016 have 8 digits, later ones 17.
                let well_formed = (8..=17).contains(&hex.len())
                    && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let text = if well_formed { Text::new(s) } else { None };
                text.map(Self).ok_or_else(|| InvalidId { text: s.to_owned(), what: $what, example: $example })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(s: String) -> Result<Self, InvalidId> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// The text of an id of at most N bytes, in place: an account has 100,000 snapshots, and each has several ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Text<const N: usize> {
    /// Zeros after the text, so that ids are in the order of their texts.
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Text<N> {
    /// None when it is longer.
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; N];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    fn as_str(&self) -> &str {
        // Made from a str, it is one.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

ec2_id!(
    /// An EBS volume, `vol-0123456789abcdef0`.
    VolumeId, "vol-", "a volume id", "vol-0123456789abcdef0"
);
ec2_id!(
    /// An EBS snapshot, `snap-0123456789abcdef0`.
    SnapshotId, "snap-", "a snapshot id", "snap-0123456789abcdef0"
);
ec2_id!(
    /// An EC2 instance, `i-0123456789abcdef0`.
    InstanceId, "i-", "an instance id", "i-0123456789abcdef0"
);
ec2_id!(
    /// An AMI, `ami-0123456789abcdef0`.
    ImageId, "ami-", "an image id", "ami-0123456789abcdef0"
);
ec2_id!(
    /// A task that replaces a root volume, `replacevol-0123456789abcdef0`.
    RootTaskId, "replacevol-", "the id of a task", "replacevol-0123456789abcdef0"
);

impl VolumeId {
    /// The id from an NVMe serial number, which is the id without its dash
    /// (`vol0123456789abcdef0`; EBS guide, "Identify the EBS device").
    ///
    /// # Errors
    /// When the serial is not that of an EBS volume.
    pub(crate) fn from_nvme_serial(serial: &str) -> Result<Self, InvalidId> {
        let serial = serial.trim();
        match serial.strip_prefix("vol") {
            Some(hex) if !hex.starts_with('-') => format!("vol-{hex}").parse(),
            _ => serial.parse(),
        }
    }
}

/// A block device number as the kernel prints it, `major:minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevNo {
    /// Major number; 0 for filesystems without a block device of their own.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DevNo {
    /// From `st_dev` or `st_rdev`.
    #[must_use]
    pub fn from_raw(number: u64) -> Self {
        let part = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { major: part(nix::sys::stat::major(number)), minor: part(nix::sys::stat::minor(number)) }
    }
}

impl FromStr for DevNo {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        s.trim()
            .split_once(':')
            .and_then(|(a, b)| Some(Self { major: a.parse().ok()?, minor: b.parse().ok()? }))
            .ok_or_else(|| InvalidId { text: s.to_owned(), what: "a device number", example: "259:1" })
    }
}

impl TryFrom<String> for DevNo {
    type Error = InvalidId;

    fn try_from(s: String) -> Result<Self, InvalidId> {
        s.parse()
    }
}

impl From<DevNo> for String {
    fn from(d: DevNo) -> Self {
        d.to_string()
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One run of `snapshot`: the key by which everything it made is found again.
///
/// A version 7 UUID, so that ids sort by the time of the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Text<36>);

impl RunId {
    /// A new id, from the clock and the kernel's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self::of(uuid::Uuid::now_v7())
    }

    fn of(id: uuid::Uuid) -> Self {
        let mut text = Text { bytes: [0; 36], len: 36 };
        id.hyphenated().encode_lower(&mut text.bytes);
        Self(text)
    }

    /// The UUID as it is written in tags, with hyphens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for RunId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        uuid::Uuid::parse_str(s).map(Self::of).map_err(|_| InvalidId {
            text: s.to_owned(),
            what: "a run id",
            example: "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11",
        })
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidId;

    fn try_from(s: String) -> Result<Self, InvalidId> {
        s.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_ids_come_from_nvme_serials() {
        let id = VolumeId::from_nvme_serial("vol0123456789abcdef0 ").unwrap();
        assert_eq!(id.as_str(), "vol-0123456789abcdef0");
        assert!(VolumeId::from_nvme_serial("AWS2280C3B1D5E1A2F4A1").is_err());
        assert!(VolumeId::from_nvme_serial("").is_err());
    }

    #[test]
    fn ids_refuse_what_is_not_one() {
        for bad in
            ["vol-", "vol-xyz", "snap-0123456789abcdef0", "vol-0123456789ABCDEF0", "vol-0/../../etc/pas"]
        {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
        assert_eq!("259:1".parse(), Ok(DevNo { major: 259, minor: 1 }));
        assert!("259".parse::<DevNo>().is_err());
        assert!("../x".parse::<RunId>().is_err());
    }
}
