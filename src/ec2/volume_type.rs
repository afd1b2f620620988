//! Types of EBS volumes, and what EC2 accepts of each.
//!
//! In: what a volume had, what is asked for of its copy. Out: what the copy is asked for with, or a [`Misfit`]. Pure. Must
//! never: refuse what a volume had, for EC2 has accepted that, whatever is known of it here.

use std::ops::RangeInclusive;

use crate::error::Error;
use crate::exit::Exit;

/// Types of volumes (EBS guide, "Amazon EBS volume types").
pub const TYPES: [&str; 7] = ["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"];

/// IOPS that every gp3 has, whatever its size (EBS guide, "General Purpose SSD volumes").
const FREE_IOPS: i32 = 3_000;
/// IOPS that gp3 needs for each MiB/s of throughput (the same guide).
const IOPS_PER_MIB: i32 = 4;

/// What a type has (EBS guide, "Amazon EBS volume types"; EC2 API reference, CreateVolume).
struct Limits {
    gib: RangeInclusive<i32>,
    iops: Option<RangeInclusive<i32>>,
    iops_per_gib: i32,
    throughput: Option<RangeInclusive<i32>>,
}

fn limits(kind: &str) -> Limits {
    let plain = |gib| Limits { gib, iops: None, iops_per_gib: 0, throughput: None };
    let io = |gib, iops, iops_per_gib| Limits { iops: Some(iops), iops_per_gib, ..plain(gib) };
    match kind {
        "gp3" => Limits { throughput: Some(125..=2_000), ..io(1..=65_536, FREE_IOPS..=80_000, 500) },
        "io2" => io(4..=65_536, 100..=256_000, 1_000),
        "io1" => io(4..=16_384, 100..=64_000, 50),
        "st1" | "sc1" => plain(125..=16_384),
        "standard" => plain(1..=1_024),
        _ => plain(1..=16_384),
    }
}

/// Why EC2 would refuse a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Misfit {
    /// What cannot be.
    pub what: String,
    /// The way out, in options of the command line.
    pub hint: String,
}

impl From<Misfit> for Error {
    fn from(Misfit { what, hint }: Misfit) -> Self {
        Self::new(Exit::Config, what).hint(hint)
    }
}

/// Refuses it.
pub(crate) fn no<T>(what: String, hint: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit { what, hint: hint.into() })
}

/// Type, IOPS and throughput of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Performance {
    /// Such as `gp3`.
    pub kind: String,
    /// Provisioned IOPS; none for what the type has.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s; none for what the type has.
    pub throughput: Option<i32>,
}

/// What is asked for in the place of what a volume had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instead {
    /// Its type.
    pub kind: Option<String>,
    /// Its IOPS.
    pub iops: Option<i32>,
    /// Its throughput in MiB/s.
    pub throughput: Option<i32>,
}

impl Performance {
    /// What a copy of the volume `of` is asked for with. EC2 reports IOPS of other types too, and refuses to be asked for
    /// them; and what another type had says nothing of this one.
    ///
    /// # Errors
    /// Where the type has not what is asked for.
    pub fn with(&self, instead: &Instead, of: &str) -> Result<Self, Misfit> {
        let kind = instead.kind.as_deref().unwrap_or(&self.kind);
        let (same, limits) = (kind == self.kind, limits(kind));
        let had = |value: Option<i32>, can: &Option<_>| value.filter(|_| same && can.is_some());
        for (asked, can, what, option) in [
            (instead.iops, &limits.iops, "IOPS", "--iops"),
            (instead.throughput, &limits.throughput, "throughput", "--throughput"),
        ] {
            match (asked, can) {
                (Some(_), None) => {
                    return no(
                        format!("{of} would be {kind}, of which no {what} can be asked for"),
                        format!("leave {option} out, or --type gp3"),
                    );
                }
                (Some(asked), Some(can)) if !can.contains(&asked) => {
                    let (least, most) = (can.start(), can.end());
                    return no(
                        format!("a {kind} has {least} to {most} of {what}, and {of} would have {asked}"),
                        format!("{option} {}", asked.clamp(*least, *most)),
                    );
                }
                _ => {}
            }
        }
        let made = Self {
            iops: instead.iops.or(had(self.iops, &limits.iops)),
            throughput: instead.throughput.or(had(self.throughput, &limits.throughput)),
            kind: kind.to_owned(),
        };
        if matches!(kind, "io1" | "io2") && made.iops.is_none() {
            return no(format!("{kind} needs IOPS"), "--iops 3000");
        }
        let iops = made.iops.unwrap_or(FREE_IOPS);
        match made.throughput {
            Some(mib)
                if (instead.iops.is_some() || instead.throughput.is_some()) && mib > iops / IOPS_PER_MIB =>
            {
                no(
                    format!("{mib} MiB/s need {} IOPS, and {of} would have {iops}", mib * IOPS_PER_MIB),
                    format!("--iops {}, or --throughput {}", mib * IOPS_PER_MIB, iops / IOPS_PER_MIB),
                )
            }
            _ => Ok(made),
        }
    }

    /// Can a copy of the volume `of` have this size and these IOPS? `size`: the option that names another size.
    ///
    /// # Errors
    /// Where EC2 makes none of that size, or not with so many IOPS.
    pub fn fits(&self, gib: i32, of: &str, size: &str) -> Result<(), Misfit> {
        let (kind, limits) = (&self.kind, limits(&self.kind));
        let (least, most) = (*limits.gib.start(), *limits.gib.end());
        if !limits.gib.contains(&gib) {
            return no(
                format!("a {kind} has {least} to {most} GiB, and {of} would have {gib}"),
                format!("--type names another type, {size}={} another size", gib.clamp(least, most)),
            );
        }
        let at_most = gib.saturating_mul(limits.iops_per_gib);
        let free = if kind == "gp3" { FREE_IOPS } else { 0 };
        match self.iops {
            Some(iops) if limits.iops.is_some() && iops > at_most.max(free) => no(
                format!(
                    "a {kind} of {gib} GiB has at most {} IOPS, and {of} would have {iops}",
                    at_most.max(free)
                ),
                format!("--iops {}, or a larger volume ({size}=GIB)", at_most.max(free)),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn had(kind: &str, iops: Option<i32>, throughput: Option<i32>) -> Performance {
        Performance { kind: kind.into(), iops, throughput }
    }

    fn asked(kind: Option<&str>, iops: Option<i32>, throughput: Option<i32>) -> Instead {
        Instead { kind: kind.map(Into::into), iops, throughput }
    }

    #[test]
    fn a_copy_has_what_its_volume_had_unless_something_else_is_asked_for() {
        let nothing = Instead::default();
        // EC2 reports what gp2 comes with, and refuses to be asked for it.
        let gp2 = had("gp2", Some(100), None);
        assert_eq!(gp2.with(&nothing, "x"), Ok(had("gp2", None, None)));
        // More than is known here: EC2 had accepted it.
        for odd in [had("gp3", Some(99_000), Some(9_000)), had("io1", Some(70_000), None)] {
            assert_eq!(odd.with(&nothing, "x"), Ok(odd.clone()));
        }
        let gp3 = had("gp3", Some(5_000), Some(300));
        assert_eq!(gp3.with(&asked(Some("gp2"), None, None), "x"), Ok(had("gp2", None, None)));
        assert_eq!(gp3.with(&asked(Some("io2"), Some(100), None), "x"), Ok(had("io2", Some(100), None)));
        assert_eq!(gp3.with(&asked(Some("gp3"), None, None), "x"), Ok(gp3.clone()));
        assert_eq!(gp3.with(&asked(None, None, Some(1_250)), "x"), Ok(had("gp3", Some(5_000), Some(1_250))));
        assert_eq!(gp2.with(&asked(Some("gp3"), None, Some(750)), "x"), Ok(had("gp3", None, Some(750))));
    }

    #[test]
    fn what_a_type_has_not_is_refused() {
        let refused = |of: &Performance, kind, iops, throughput| {
            of.with(&asked(kind, iops, throughput), "vol-1").unwrap_err()
        };
        let gp2 = had("gp2", None, None);
        let no_iops = refused(&gp2, None, Some(4_000), None);
        assert_eq!(no_iops.what, "vol-1 would be gp2, of which no IOPS can be asked for");
        assert_eq!(no_iops.hint, "leave --iops out, or --type gp3");
        assert!(refused(&had("io1", Some(100), None), None, None, Some(200)).what.contains("no throughput"));
        assert_eq!(refused(&gp2, Some("io2"), None, None).what, "io2 needs IOPS");
        for (kind, iops, hint) in
            [("gp3", 2_999, 3_000), ("gp3", 80_001, 80_000), ("io1", 64_001, 64_000), ("io2", 99, 100)]
        {
            assert_eq!(refused(&gp2, Some(kind), Some(iops), None).hint, format!("--iops {hint}"));
        }
        let slow = refused(&gp2, Some("gp3"), None, Some(124));
        assert!(slow.what.contains("125 to 2000 of throughput"), "{slow}");
        let narrow = refused(&gp2, Some("gp3"), None, Some(751));
        assert_eq!(narrow.what, "751 MiB/s need 3004 IOPS, and vol-1 would have 3000");
        assert_eq!(narrow.hint, "--iops 3004, or --throughput 750");
        // Fewer IOPS than the throughput that the volume had needs.
        let fewer = refused(&had("gp3", Some(8_000), Some(2_000)), None, Some(4_000), None);
        assert_eq!(fewer.what, "2000 MiB/s need 8000 IOPS, and vol-1 would have 4000");
    }

    #[test]
    fn sizes_and_iops_for_each_gib_are_those_of_the_type() {
        let fits = |kind: &str, iops, gib| had(kind, iops, None).fits(gib, "vol-1", "--size vol-1");
        for (kind, least, most) in [
            ("gp2", 1, 16_384),
            ("gp3", 1, 65_536),
            ("io1", 4, 16_384),
            ("io2", 4, 65_536),
            ("st1", 125, 16_384),
            ("sc1", 125, 16_384),
            ("standard", 1, 1_024),
        ] {
            assert_eq!((fits(kind, None, least), fits(kind, None, most)), (Ok(()), Ok(())));
            assert!(fits(kind, None, least - 1).is_err() && fits(kind, None, most + 1).is_err(), "{kind}");
        }
        for (kind, gib, most) in [("gp3", 1, 3_000), ("gp3", 7, 3_500), ("io1", 4, 200), ("io2", 4, 4_000)] {
            assert_eq!(fits(kind, Some(most), gib), Ok(()));
            let refused = fits(kind, Some(most + 1), gib).unwrap_err();
            assert!(refused.what.contains(&format!("of {gib} GiB has at most {most} IOPS")), "{refused}");
        }
        assert_eq!(
            fits("gp2", None, 0).unwrap_err().hint,
            "--type names another type, --size vol-1=1 another size"
        );
    }
}
