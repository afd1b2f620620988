//! Exit codes: one list, from which the documentation's table is made.
//!
//! In: how a command ended. Out: its code. Must never: use one code for two meanings; unknown codes are
//! failures.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// Done; a set was taken at the requested consistency.
    Ok = 0,
    /// A set was taken at a lower consistency, which the policy allows.
    Lower = 10,
    /// A set was taken and is there; something after it failed, or EC2 could not complete a former one.
    After = 11,
    /// A hook failed; nothing was taken.
    Hook = 20,
    /// A freeze or unmount failed; everything is thawed and mounted, nothing was taken.
    Freeze = 21,
    /// The window ran out or a freeze did not hold, and the policy refuses less.
    NotHeld = 22,
    /// EC2 refused or could not be reached; everything is thawed.
    Ec2 = 23,
    /// `verify` found a fault.
    Verify = 24,
    /// The group did not come to one point in time; everything is thawed.
    Group = 25,
    /// A filesystem may still be frozen. Outranks every other code.
    StillFrozen = 40,
    /// A filesystem that was unmounted could not be mounted again.
    NotMounted = 41,
    /// It is not known whether a filesystem is frozen.
    NotKnown = 42,
    /// Wrong use of the command line.
    Usage = 64,
    /// IMDS is not available.
    Imds = 69,
    /// The program panicked; the message says where.
    Bug = 70,
    /// Another run holds the lock.
    Locked = 75,
    /// A permission is missing, on the host or in IAM.
    Permission = 77,
    /// The configuration is wrong, or asks for something that is not there.
    Config = 78,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 18] = [
        Self::Ok,
        Self::Lower,
        Self::After,
        Self::Hook,
        Self::Freeze,
        Self::NotHeld,
        Self::Ec2,
        Self::Verify,
        Self::Group,
        Self::StillFrozen,
        Self::NotMounted,
        Self::NotKnown,
        Self::Usage,
        Self::Imds,
        Self::Bug,
        Self::Locked,
        Self::Permission,
        Self::Config,
    ];

    /// The process's exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The worse of two: 40 outranks every other code, 41 the rest; among the others the higher number is
    /// worse.
    #[must_use]
    pub(crate) fn or_worse(self, other: Self) -> Self {
        let rank = |exit: Self| match exit {
            Self::StillFrozen => u8::MAX,
            Self::NotMounted => u8::MAX - 1,
            other => other.code(),
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// Does this code report damage that lasts until somebody acts? Then no signal may hide it.
    #[must_use]
    pub(crate) fn hurts(self) -> bool {
        matches!(self, Self::StillFrozen | Self::NotMounted)
    }

    /// May there be a set of a run that ended with this? What another code leaves is labelled `crash` and counts for
    /// nothing: the second table in docs/record.md.
    #[must_use]
    pub(crate) fn leaves_a_set(self) -> bool {
        self.hurts() || matches!(self, Self::Ok | Self::Lower | Self::After | Self::NotHeld)
    }

    /// What it says: in two words for `--help`, and as docs/record.md and the manual pages have it, in Markdown.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("done", "done; the set was taken at the requested consistency"),
            Self::Lower => {
                ("lower consistency, allowed", "set taken at a lower consistency, which the policy allows")
            }
            Self::After => (
                "taken, but something after it failed",
                "set taken, and it is there; something after it failed (post or completed hook, tags, record, copies), or a former set was lost",
            ),
            Self::Hook => ("hook failed", "a hook failed, nothing taken"),
            Self::Freeze => {
                ("freeze or unmount failed", "a freeze or unmount failed, everything thawed, nothing taken")
            }
            Self::NotHeld => (
                "freeze did not hold",
                "the window ran out or a freeze did not hold, and the policy refuses less",
            ),
            Self::Ec2 => ("EC2", "EC2 refused or could not be reached; everything thawed"),
            Self::Verify => ("verify found a fault", "`verify` found a fault in a set"),
            Self::Group => (
                "the group came to no point in time",
                "the group came to no point in time: a member or its engine was missing, late or lost; everything thawed",
            ),
            Self::StillFrozen => {
                ("MAY STILL BE FROZEN", "A FILESYSTEM MAY STILL BE FROZEN (outranks every other code)")
            }
            Self::NotMounted => {
                ("could not be mounted again", "a filesystem that was unmounted could not be mounted again")
            }
            Self::NotKnown => (
                "not known if frozen",
                "it is not known whether a filesystem is frozen: it could not be asked in time",
            ),
            Self::Usage => ("usage", "wrong use of the command line"),
            Self::Imds => ("IMDS", "IMDS is not available"),
            Self::Bug => ("bug", "a bug"),
            Self::Locked => ("locked", "another run holds the lock"),
            Self::Permission => ("permission", "a permission is missing (host, IAM or the group's engine)"),
            Self::Config => {
                ("configuration", "the configuration is wrong, or names something that does not exist")
            }
        }
    }

    /// In a line with others.
    #[must_use]
    pub(crate) const fn brief(self) -> &'static str {
        self.words().0
    }

    /// Its line in a list, in Markdown.
    #[must_use]
    pub(crate) const fn meaning(self) -> &'static str {
        self.words().1
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|e| e.code() == code);
        known.ok_or_else(|| format!("{code} is no exit code of stillpoint"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_outranks_every_code_and_forty_one_the_rest() {
        let worst = |all: &[Exit]| all.iter().copied().fold(Exit::Ok, Exit::or_worse);
        assert_eq!(worst(&[]), Exit::Ok);
        for other in Exit::ALL {
            assert_eq!(worst(&[other, Exit::StillFrozen]), Exit::StillFrozen, "{other:?}");
            assert_eq!(worst(&[Exit::StillFrozen, other]), Exit::StillFrozen, "{other:?}");
            if other != Exit::StillFrozen {
                assert_eq!(worst(&[other, Exit::NotMounted]), Exit::NotMounted, "{other:?}");
                assert_eq!(worst(&[Exit::NotMounted, other]), Exit::NotMounted, "{other:?}");
            }
            assert_eq!(other.hurts(), matches!(other.code(), 40 | 41), "{other:?}");
        }
        assert_eq!(worst(&[Exit::Lower, Exit::Ec2, Exit::After]), Exit::Ec2);
    }

    #[test]
    fn the_documented_table_is_this_list() {
        let documented = include_str!("../docs/record.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(documented.contains(&row), "docs/record.md lacks: {row}");
        }
        let rows = documented.lines().filter(|l| l.starts_with("| ") && l.as_bytes()[2].is_ascii_digit());
        assert_eq!(rows.count(), Exit::ALL.len());
    }
}
