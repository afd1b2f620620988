//! Promise P2 over random choices, and that a plan leaves nothing on the host unmentioned.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rig::fixture::facts;
use rig::fixture::plan_with;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use stillpoint::discover::Facts;
use stillpoint::plan::Consistency;

const HOSTS: [&str; 4] = ["stacks", "nitro", "thin", "xen"];

/// Each host is made once.
fn made(name: &str) -> &'static Facts {
    static MADE: LazyLock<Vec<Facts>> = LazyLock::new(|| HOSTS.iter().map(|n| facts(n)).collect());
    &MADE[HOSTS.iter().position(|n| *n == name).unwrap()]
}

/// Volumes below a device, found without the code under test.
fn below(facts: &Facts, device: &str) -> BTreeSet<String> {
    let Some(d) = facts.devices.iter().find(|d| d.name == device) else { return BTreeSet::new() };
    let own = facts.volumes.iter().filter(|v| v.disk.as_ref().is_some_and(|m| m.name == device));
    let mut found: BTreeSet<String> = own.map(|v| v.id.to_string()).collect();
    found.extend(d.below.iter().flat_map(|b| below(facts, b)));
    if let stillpoint::discover::DeviceKind::Loop { superblock: Some(holder), .. } = d.kind {
        let holder = facts.filesystems.iter().find(|f| f.dev == holder);
        found.extend(holder.into_iter().flat_map(|h| under(facts, h)));
    }
    found
}

fn under(facts: &Facts, filesystem: &stillpoint::discover::Filesystem) -> BTreeSet<String> {
    match &filesystem.backing {
        stillpoint::discover::Backing::Devices { devices } => {
            devices.iter().flat_map(|d| below(facts, d)).collect()
        }
        _ => BTreeSet::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// P2, and that nothing on the host goes unmentioned, whatever is chosen.
    #[test]
    fn nothing_writable_on_the_set_stays_awake_and_nothing_is_unmentioned(
        name in select(HOSTS.to_vec()),
        mounts in subsequence((0..40usize).collect::<Vec<_>>(), 0..3),
        exclude_mounts in subsequence((0..40usize).collect::<Vec<_>>(), 0..3),
        volumes in subsequence((0..6usize).collect::<Vec<_>>(), 0..2),
        exclude_volumes in subsequence((0..6usize).collect::<Vec<_>>(), 0..3),
        exclude_boot_volume: bool, allow_partial: bool, crash: bool,
    ) {
        let facts = made(name);
        let mount = |i: &usize| facts.filesystems.get(*i).map(|f| f.mount_point().to_owned());
        let volume = |i: &usize| facts.volumes.get(*i).map(|v| v.id.clone());
        let plan = plan_with(facts, |s| {
            s.mounts = mounts.iter().filter_map(mount).collect();
            s.exclude_mounts = exclude_mounts.iter().filter_map(mount).collect();
            s.volumes = volumes.iter().filter_map(volume).collect();
            s.exclude_volumes = exclude_volumes.iter().filter_map(volume).collect();
            (s.exclude_boot_volume, s.allow_partial) = (exclude_boot_volume, allow_partial);
            if crash {
                s.unmounted_volumes = stillpoint::config::settings::UnmountedVolumes::Crash;
            }
        });
        let Ok(plan) = plan else { return Ok(()) };
        let set: BTreeSet<String> = plan.volumes.iter().map(|v| v.id.to_string()).collect();
        let sound = plan.volumes.iter().filter(|v| v.best > Consistency::Crash);
        let sound: BTreeSet<String> = sound.map(|v| v.id.to_string()).collect();
        for f in facts.filesystems.iter().filter(|f| f.fstype != "squashfs") {
            let on = under(facts, f);
            let quiet = plan.filesystems.iter().any(|p| p.dev == f.dev);
            prop_assert!(quiet || on.is_disjoint(&sound), "{:?} is written to", f.mount_point());
            prop_assert!(!quiet || on.is_subset(&set) || on.is_disjoint(&sound), "{:?} is torn", f.mount_point());
        }
        for v in &facts.volumes {
            let out = plan.left_out.iter().any(|l| l.what.starts_with(v.id.as_str()));
            prop_assert!(set.contains(v.id.as_str()) != out, "{} is in and out, or neither", v.id);
        }
        let said: usize = plan.left_out.iter().filter(|l| l.kind != "volume").map(|l| {
            let first = l.what.split(' ').next().and_then(|w| w.parse().ok());
            let more = l.what.rsplit_once(" and ").and_then(|(_, m)| m.strip_suffix(" more")?.parse::<usize>().ok());
            if l.kind == "kernel" { first.unwrap_or(0) } else { 1 + more.unwrap_or(0) }
        }).sum();
        prop_assert_eq!(said + plan.filesystems.len(), facts.filesystems.len());
    }
}
