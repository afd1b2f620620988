//! The ids that EC2 hands out.
//!
//! In: text from requests and scenarios, or nothing. Out: ids that are well-formed. An id must never
//! be made from text that EC2 would call malformed.

use serde::{Deserialize, Serialize};

/// 16 random hexadecimal digits; the zero in front makes them the 17 that EC2 uses today.
pub fn random_hex() -> String {
    let mut digits = uuid::Uuid::new_v4().simple().to_string();
    digits.truncate(16);
    format!("0{digits}")
}

fn well_formed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        (digits.len() == 8 || digits.len() == 17)
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id that no other resource has.
            pub fn random() -> Self {
                Self(format!("{}{}", Self::PREFIX, random_hex()))
            }

            /// The id in `text`, when it is well-formed.
            pub fn parse(text: &str) -> Option<Self> {
                well_formed(text, Self::PREFIX).then(|| Self(text.to_owned()))
            }

            /// The id as EC2 writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text).ok_or_else(|| {
                    format!("{text:?} is not an id: expected {}<8 or 17 hexadecimal digits>", Self::PREFIX)
                })
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// An instance: `i-…`.
    InstanceId,
    "i-"
);
id!(
    /// A volume: `vol-…`.
    VolumeId,
    "vol-"
);
id!(
    /// A snapshot: `snap-…`.
    SnapshotId,
    "snap-"
);
id!(
    /// An AMI: `ami-…`.
    ImageId,
    "ami-"
);
id!(
    /// A replacement of a root volume: `replacevol-…`.
    TaskId,
    "replacevol-"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_well_formed_and_differ() {
        let (a, b) = (VolumeId::random(), VolumeId::random());
        assert_eq!(VolumeId::parse(a.as_str()), Some(a.clone()));
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), "vol-0123456789abcdef0".len());
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "vol-", "vol-xyz", "snap-0123456789abcdef0", "vol-0123456789ABCDEF0"] {
            assert_eq!(VolumeId::parse(text), None, "{text}");
        }
        assert!(VolumeId::parse("vol-1234abcd").is_some());
    }
}
