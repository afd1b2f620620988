//! Sizes and durations with units.
//!
//! In: text such as `1GiB` or `15s`. Out: bytes, [`Duration`]. A bare number must never pass: it has
//! no unit. Libraries for sizes take it for bytes, so sizes are read by hand here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One mebibyte: what windows in the pool are aligned to.
pub const MIB: u64 = 1 << 20;
/// One gibibyte: what EBS counts volumes in.
pub const GIB: u64 = 1 << 30;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 =
            digits.trim().parse().map_err(|_| format!("{text:?} is not a size such as 1GiB"))?;
        let unit = match &text[digits.len()..] {
            "B" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => MIB,
            "GiB" | "G" => GIB,
            "TiB" | "T" => 1 << 40,
            "" => return Err(format!("{text:?} has no unit: write 1GiB, 512MiB …")),
            unit => {
                return Err(format!("{unit:?} is not a unit of size: use B, KiB, MiB, GiB or TiB"));
            }
        };
        number.checked_mul(unit).map(Bytes).ok_or_else(|| format!("{text:?} is too large"))
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        bytes.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % GIB == 0 => write!(f, "{}GiB", n / GIB),
            n if n > 0 && n % MIB == 0 => write!(f, "{}MiB", n / MIB),
            n => write!(f, "{n}B"),
        }
    }
}

/// Durations with a unit, for `#[serde(with)]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads `15s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a duration: {error}")))
    }

    /// Writes `15s`.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_units() {
        assert_eq!("1GiB".parse(), Ok(Bytes(GIB)));
        assert_eq!("512 MiB".parse(), Ok(Bytes(512 * MIB)));
        assert!("5".parse::<Bytes>().is_err());
        assert!("5GB".parse::<Bytes>().is_err());
        assert!("99999999999TiB".parse::<Bytes>().is_err());
        assert_eq!(Bytes(3 * MIB).to_string(), "3MiB");
    }
}
