//! The time zone of a policy, by its IANA name.
//!
//! In: a name. Out: [`Zone`], with the rules that the tzdata of this host has for it. Must never: take the
//! zone of the host, or of whoever started the program; read files that a variable names.

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Serialize, Serializer};

/// Where distributions keep tzdata. The variable `TZDIR` does not count: who sets it would decide which
/// sets go.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// Files beside the zones: they name no place, or what is in them changes.
const NOT_ZONES: [&str; 4] = ["localtime", "posixrules", "Factory", "Etc/Unknown"];

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// This host has no time zone of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a time zone of this host")]
pub struct UnknownZone {
    /// As it was given.
    pub name: String,
    /// The zones of this host; empty where it has no tzdata.
    pub known: Vec<String>,
}

impl Zone {
    /// UTC, which needs no tzdata.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name, in any letter case.
    ///
    /// # Errors
    /// When the tzdata of this host does not have it.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(|| {
            let folder = FOLDERS.iter().find(|folder| Path::new(folder).is_dir());
            folder.and_then(|f| TimeZoneDatabase::from_dir(f).ok()).unwrap_or_else(TimeZoneDatabase::none)
        });
        if name.eq_ignore_ascii_case("UTC") {
            return Ok(Self::UTC);
        }
        let known = |name: &str| !NOT_ZONES.iter().any(|other| other.eq_ignore_ascii_case(name));
        let zone = ZONES.get(name).ok().filter(|zone| known(name) && zone.iana_name().is_some());
        zone.map(Self).ok_or_else(|| UnknownZone {
            name: name.to_owned(),
            known: ZONES.available().map(|n| n.as_str().to_owned()).filter(|n| known(n)).collect(),
        })
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    pub(super) fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
