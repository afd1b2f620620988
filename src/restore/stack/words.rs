//! The stack of a filesystem, as a set's tags have it: `dm-4 (lvm vg1-deep) → dm-3 (luks crypt1) → nvme5n1p2`.
//!
//! In: that text, which anybody may have written. Out: [`Layer`]s, from the filesystem down. Pure. Must never: guess: what
//! is not understood is said.

/// One device of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layer {
    /// A logical volume.
    Logical {
        /// Its group.
        group: String,
        /// Its name.
        volume: String,
    },
    /// A pool of thin volumes, or its data or metadata.
    ThinPool {
        /// Its group.
        group: String,
    },
    /// A part of a logical volume that is none of its own: of a mirror, a cache, a snapshot.
    HiddenLogical,
    /// What is in LUKS.
    Luks,
    /// An array.
    Array,
    /// A disk, or its partition with this number.
    Disk(Option<u32>),
}

/// The layers, from the filesystem down.
///
/// # Errors
/// What of it is not understood, continuing a sentence that begins with "it is on".
pub(super) fn layers(stack: &str) -> Result<Vec<Vec<Layer>>, String> {
    if stack.contains(';') {
        return Err(format!("{stack}, a device beside its own"));
    }
    stack.split(" → ").map(|layer| layer.split(" + ").map(one).collect()).collect()
}

fn one(device: &str) -> Result<Layer, String> {
    let strange = || format!("{device}, which is not put together here");
    let (name, word) = match device.split_once(" (") {
        Some((name, word)) => (name, Some(word.strip_suffix(')').ok_or_else(strange)?)),
        None => (device, None),
    };
    match word {
        None => disk(name).map(Layer::Disk).ok_or_else(strange),
        Some(word) if name.starts_with("dm-") => match word.split_once(' ') {
            Some(("lvm", name)) => logical(name).ok_or_else(strange),
            Some(("luks", _)) => Ok(Layer::Luks),
            _ => Err(strange()),
        },
        Some(_) if name.starts_with("md") => Ok(Layer::Array),
        Some(_) => Err(strange()),
    }
}

/// `vg0-data`: hyphens inside of names are doubled, and a third name is that of a part (lvm2's `build_dm_name`).
fn logical(name: &str) -> Option<Layer> {
    let mut names = vec![String::new()];
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('-', Some('-')) => {
                rest.next();
                names.last_mut()?.push('-');
            }
            ('-', _) => names.push(String::new()),
            _ => names.last_mut()?.push(c),
        }
    }
    match <[String; 2]>::try_from(names) {
        Ok([group, volume]) if is_name(&group) && is_name(&volume) => {
            // `pool_tdata`, `data_rimage_0` and the like (lvm(8), "reserved names").
            let part = [
                "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_mimage", "_mlog", "_rimage", "_rmeta",
                "_vdata", "_vorigin", "_wcorig", "_pmspare", "_imeta", "_iorig",
            ];
            if part.iter().any(|p| volume.contains(p)) {
                return Some(Layer::HiddenLogical);
            }
            let of_pool = ["_tdata", "_tmeta"].iter().any(|p| volume.ends_with(p));
            Some(if of_pool { Layer::ThinPool { group } } else { Layer::Logical { group, volume } })
        }
        // What is between a pool and its volumes (lvm2's lib/activate/dev_manager.c, `lv_layer`).
        Err(names) if names.len() == 3 && names[2] == "tpool" && names.iter().all(|n| is_name(n)) => {
            names.into_iter().next().map(|group| Layer::ThinPool { group })
        }
        Err(names) if names.len() > 2 && names.iter().all(|n| is_name(n)) => Some(Layer::HiddenLogical),
        _ => None,
    }
}

/// As LVM allows names (lvm(8), "valid names"): nothing of them is an option, a path or a pattern.
pub(super) fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    !text.is_empty() && text.len() < 128 && !text.starts_with(['-', '.']) && text.chars().all(good)
}

/// The partition that this name of a disk is of: `nvme5n1p2`, `xvdf1`. None where it is neither a disk nor a partition.
fn disk(name: &str) -> Option<Option<u32>> {
    let number = |text: &str| text.parse::<u32>().ok();
    if let Some(rest) = name.strip_prefix("nvme") {
        let (controller, rest) = rest.split_once('n')?;
        number(controller)?;
        return match rest.split_once('p') {
            Some((namespace, partition)) => number(namespace).and(Some(Some(number(partition)?))),
            None => number(rest).map(|_| None),
        };
    }
    let letters = ["xvd", "sd", "vd"].iter().find_map(|kind| name.strip_prefix(kind))?;
    let digits = letters.trim_start_matches(|c: char| c.is_ascii_lowercase());
    match digits {
        _ if letters.len() == digits.len() => None,
        "" => Some(None),
        _ => Some(Some(number(digits)?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lv(group: &str, volume: &str) -> Layer {
        Layer::Logical { group: group.into(), volume: volume.into() }
    }

    #[test]
    fn a_stack_is_read_as_it_is_written() {
        for (text, expected) in [
            ("nvme1n1", vec![vec![Layer::Disk(None)]]),
            ("nvme1n1p2", vec![vec![Layer::Disk(Some(2))]]),
            ("xvdf", vec![vec![Layer::Disk(None)]]),
            ("xvdba12", vec![vec![Layer::Disk(Some(12))]]),
            ("nvme1n1 + nvme2n1", vec![vec![Layer::Disk(None), Layer::Disk(None)]]),
            (
                "md0 (raid1) → nvme1n1 + nvme2n1p1",
                vec![vec![Layer::Array], vec![Layer::Disk(None), Layer::Disk(Some(1))]],
            ),
            (
                "dm-4 (lvm vg1-deep) → dm-3 (luks crypt1) → nvme5n1p2",
                vec![vec![lv("vg1", "deep")], vec![Layer::Luks], vec![Layer::Disk(Some(2))]],
            ),
            ("dm-0 (lvm my--vg-a--b) → nvme1n1", vec![vec![lv("my-vg", "a-b")], vec![Layer::Disk(None)]]),
            (
                "dm-0 (lvm vg0-data) → dm-1 (lvm vg0-pool-tpool) → dm-2 (lvm vg0-pool_tmeta) → nvme1n1",
                vec![
                    vec![lv("vg0", "data")],
                    vec![Layer::ThinPool { group: "vg0".into() }],
                    vec![Layer::ThinPool { group: "vg0".into() }],
                    vec![Layer::Disk(None)],
                ],
            ),
            (
                "dm-0 (lvm vg0-data-real) → dm-1 (lvm vg0-pool_tdata_rimage_0) → nvme1n1",
                vec![vec![Layer::HiddenLogical], vec![Layer::HiddenLogical], vec![Layer::Disk(None)]],
            ),
        ] {
            assert_eq!(layers(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for text in [
            "",
            "md0p1 → md0 (raid1) → nvme1n1",
            "dm-0 (multipath a) → nvme1n1",
            "dm-0 (crypt swap) → nvme1n1",
            "dm-0 (partition x) → nvme1n1",
            "loop0 (image /a) → nvme1n1",
            "nvme1n1; external journal nvme2n1",
            "dm-0 (lvm vg0) → nvme1n1",
            "dm-0 (lvm -x-y) → nvme1n1",
            "dm-0 (lvm vg0-a/b) → nvme1n1",
            "dm-0 (lvm vg0-data → nvme1n1",
            "sd",
            "nvmexn1",
            "zram0",
        ] {
            assert!(layers(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in any::<String>(), parts in proptest::collection::vec(
            prop_oneof![Just("dm-0"), Just(" (lvm "), Just("vg0-data"), Just(")"), Just(" → "), Just(" + "), Just("nvme1n1"),
                Just("p2"), Just("-"), Just("md0"), Just(" (raid1)"), Just(";")], 0..12)) {
            let _ = (layers(&text), layers(&parts.concat()));
        }
    }
}
