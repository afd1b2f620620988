//! Sets for people: a table of many, all of one, what a prune decided.
//!
//! In: sets as they were read. Out: text within 80 columns where its words allow. Must never: print (the caller
//! does), or shorten an id so far that another set has the same.

use std::fmt::Write;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use crate::ec2::keep::{Binned, TierView};
use crate::ids::{ImageId, RunId};
use crate::path_encoding::{printable, shown};
use crate::sets::layout::{Layout, LayoutError};
use crate::sets::ledger::{FaultFound, Level, Verified};
use crate::sets::remove::Removed;
use crate::sets::retention::{Departure, Hold, PrunePlan, Verdict};
use crate::sets::set::{SetState, SnapshotSet};

/// One set, and what becomes of it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// The set.
    #[serde(flatten)]
    pub set: SnapshotSet,
    /// Of the set as a whole.
    pub state: SetState,
    /// When it will go, and by which rule; none where this host has no rules for it, or nothing keeps it.
    pub departure: Option<Departure>,
    /// No rule of this host keeps it: the next prune removes it, or says why it does not.
    pub goes_next: bool,
    /// EC2 no longer has its instance.
    pub instance_gone: bool,
    /// Bytes that only this set holds, where that was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_bytes: Option<u64>,
    /// Its copies, in the Regions that were looked at.
    pub copies: Vec<Copied>,
}

/// A copy of a set.
#[derive(Debug, Serialize)]
pub struct Copied {
    /// The Region that it is in.
    pub region: String,
    /// Its own id.
    pub id: RunId,
    /// How it stands.
    pub state: SetState,
}

/// What the Recycle Bin keeps of a set.
#[derive(Debug, Serialize)]
pub struct InBin {
    /// The set.
    pub id: RunId,
    /// The Region.
    pub region: String,
    /// Its snapshots that are there.
    pub snapshots: Vec<Binned>,
}

/// The sets of what is in the bin of a Region.
#[must_use]
pub(crate) fn in_bin(region: &str, found: Vec<(RunId, Binned)>) -> Vec<InBin> {
    let mut sets: Vec<InBin> = Vec::new();
    for (id, binned) in found {
        match sets.iter_mut().find(|set| set.id == id) {
            Some(set) => set.snapshots.push(binned),
            None => sets.push(InBin { id, region: region.to_owned(), snapshots: vec![binned] }),
        }
    }
    sets
}

/// The same as a table.
#[must_use]
pub(crate) fn bin_table(sets: &[InBin]) -> String {
    let mut rows =
        vec![["SET", "REGION", "SNAPSHOTS", "REMOVED", "GONE FOR GOOD"].map(str::to_owned).to_vec()];
    for set in sets {
        let time = |at: Option<Timestamp>| at.map_or_else(|| "?".to_owned(), local);
        rows.push(vec![
            set.id.to_string(),
            printable(&set.region).into_owned(),
            set.snapshots.len().to_string(),
            time(set.snapshots.iter().filter_map(|s| s.entered).min()),
            time(set.snapshots.iter().filter_map(|s| s.exits).min()),
        ]);
    }
    columns(rows)
}

/// Of a run id, which begins with its time in milliseconds: so much tells two sets of a host apart.
const SHORT: usize = 13;

/// Marks a set whose data verify has read and found sound.
const PROVEN: char = '✓';

/// A time as people here write it, with its zone.
#[must_use]
pub(crate) fn local(time: Timestamp) -> String {
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    let zoned: Zoned = time.to_zoned(zone);
    zoned.strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// The same without its zone, for a column that names it.
fn minute(time: Timestamp) -> String {
    local(time).chars().take("2026-12-31 23:59".len()).collect()
}

/// The zone that times are shown in, as it is called now.
fn zone_now() -> String {
    local(Timestamp::now()).split(' ').nth(2).unwrap_or("UTC").to_owned()
}

/// The id of a set as a table has it.
#[must_use]
pub(crate) fn short(set: &SnapshotSet) -> String {
    set.id.as_str().chars().take(SHORT).collect()
}

/// Sets as a table.
#[must_use]
pub(crate) fn table(sets: &[Listed], hosts: bool, regions: bool) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let copied = sets.iter().any(|listed| !listed.copies.is_empty());
    let sized = sets.iter().any(|listed| listed.only_bytes.is_some());
    for listed in sets {
        let set = &listed.set;
        let plan = if hosts { format!("{} {}", set.instance, set.plan) } else { set.plan.clone() };
        let label = set.achieved.map_or_else(|| "none".to_owned(), |c| c.to_string());
        let label = match listed.state {
            SetState::Completed => label,
            SetState::Pending => format!("{label}, {}", progress(set)),
            other => format!("{label}, {}", other.to_string().to_uppercase()),
        };
        let label = match (set.fault(), set.sound()) {
            (Some(_), _) => format!("{label}, FAULT"),
            (None, Some(v)) if v.proven() => format!("{label} {PROVEN}"),
            _ => label,
        };
        let gone = if listed.instance_gone { " (instance gone)" } else { "" };
        let plan = if set.copy_of.is_some() { format!("{plan} (copy)") } else { plan };
        let mut row = vec![
            short(set),
            printable(&format!("{plan}{gone}")).into_owned(),
            set.time.map_or_else(|| "?".to_owned(), minute),
            label,
            format!("{} GiB", set.size_gib()),
        ];
        // Beside these there is no room for it in 80 columns; JSON has all.
        if !regions && !sized {
            row.push(if listed.goes_next {
                "next prune".to_owned()
            } else {
                departure(listed.departure.as_ref())
            });
        }
        if regions {
            row.insert(1, printable(&set.region).into_owned());
        }
        if sized {
            row.push(listed.only_bytes.map_or_else(|| "?".to_owned(), size));
        }
        if copied {
            let copies = listed.copies.iter().map(|copy| match copy.state {
                SetState::Completed => copy.region.clone(),
                other => format!("{} ({other})", copy.region),
            });
            row.push(printable(&copies.collect::<Vec<_>>().join(", ")).into_owned());
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return String::new();
    }
    let taken = format!("TAKEN ({})", zone_now());
    let mut heads = ["SET", "PLAN", &taken, "LABEL", "SIZE"].map(str::to_owned).to_vec();
    if !regions && !sized {
        heads.push("GOES".to_owned());
    }
    if regions {
        heads.insert(1, "REGION".to_owned());
    }
    if sized {
        heads.push("ONLY HERE".to_owned());
    }
    if copied {
        heads.push("COPIES".to_owned());
    }
    columns(std::iter::once(heads).chain(rows).collect())
}

/// Bytes as people read them.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one place after the point")]
    let gib = bytes as f64 / f64::from(1u32 << 30);
    if gib >= 1.0 { format!("{gib:.1} GiB") } else { format!("{:.1} MiB", gib * 1024.0) }
}

/// The least progress of its members that are pending, where EC2 says any.
fn progress(set: &SnapshotSet) -> String {
    let pending = set.members.iter().filter(|m| m.state == "pending");
    let least = pending.filter_map(|m| m.progress.as_deref()?.trim_end_matches('%').parse::<u8>().ok()).min();
    least.map_or_else(|| "pending".to_owned(), |p| format!("pending {p}%"))
}

fn departure(departure: Option<&Departure>) -> String {
    let day = |at: &Timestamp| {
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        at.to_zoned(zone).strftime("%Y-%m-%d").to_string()
    };
    match departure {
        None => "-".to_owned(),
        Some(Departure::Expected { at, rule }) => format!("{} {rule}", day(at)),
        Some(Departure::NotBefore { at, rule }) => format!("≥ {} {rule}", day(at)),
        Some(Departure::Open { rule }) => format!("open: {rule}"),
        Some(Departure::Never { rule }) => format!("never: {rule}"),
    }
}

/// Columns as wide as their widest word.
pub(super) fn columns(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = widths[n]);
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// All of one set.
#[must_use]
pub(crate) fn one(
    set: &SnapshotSet,
    layout: &Result<Layout, LayoutError>,
    holds: &[Hold],
    tiers: &[TierView],
    kept: Option<&str>,
) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "set {}", set.id);
    let _ = writeln!(text, "  of {} ({}), plan {}", set.instance, printable(&set.host), printable(&set.plan));
    if let Some(copy) = &set.copy_of {
        let _ = writeln!(text, "  a copy of {} in {}", copy.id, printable(&copy.region));
    }
    let taken = set.time.map_or_else(|| "at an unknown time".to_owned(), local);
    let _ = writeln!(text, "  taken {taken}, in {}", set.region);
    let label =
        set.achieved.map_or_else(|| "no verdict: counts as crash".to_owned(), |c| format!("{c}-consistent"));
    let _ = writeln!(text, "  {label}, {}", set.state());
    if let Some(reason) = &set.reason {
        let _ = writeln!(text, "    because: {}", printable(reason));
    }
    if let Some(before) = &set.before {
        let _ = writeln!(text, "  taken before {before}");
    }
    if set.is_newer() {
        let _ = writeln!(text, "  its tags have version {}: a newer stillpoint may say more", set.schema);
    }
    for doubt in &set.doubts {
        let _ = writeln!(text, "  DOUBTFUL: {doubt}");
    }
    if let Some(fault) = set.fault() {
        let FaultFound { level, at, by, what } = fault;
        let _ = writeln!(text, "  VERIFY FOUND A FAULT: {} ({level}, {}, {by})", printable(what), local(*at));
    }
    if let Some(Verified { level, at, by, sound, filesystems }) = &set.verified {
        let of = if *level == Level::Arithmetic {
            "no data was read".to_owned()
        } else {
            format!("{sound} of {filesystems} filesystems sound")
        };
        let _ = writeln!(text, "  verified {}: {of} ({level}, {by})", local(*at));
    }
    let mut rows =
        vec![["SNAPSHOT", "VOLUME", "DEVICE", "SIZE", "STATE", "LABEL"].map(str::to_owned).to_vec()];
    for m in &set.members {
        rows.push(vec![
            m.id.to_string(),
            m.volume_id.to_string(),
            printable(m.device_name.as_deref().unwrap_or("-")).into_owned(),
            format!("{} GiB", m.size_gib),
            match &m.error {
                Some(error) => format!("{} ({})", m.state, printable(error)),
                None => m.state.to_string(),
            },
            m.achieved.map_or_else(|| "-".to_owned(), |c| c.to_string()),
        ]);
    }
    text.push_str(&indented(&columns(rows)));
    for (id, said) in tiers.iter().filter_map(|t| Some((&t.snapshot, stored(t)?))) {
        let _ = writeln!(text, "  {id} {said}");
    }
    for m in &set.missing {
        let _ = writeln!(text, "  MISSING: the snapshot of {}", m.volume_id);
    }
    match layout {
        Ok(layout) => {
            let mut rows = Vec::new();
            for f in &layout.filesystems {
                let on: Vec<_> = f.volumes.iter().map(|v| v.to_string()).collect();
                rows.push(vec![
                    shown(&f.mount_point),
                    printable(&f.fstype).into_owned(),
                    f.method.as_str().to_owned(),
                    on.join(" "),
                ]);
            }
            text.push_str(&indented(&columns(rows)));
            for app in &layout.applications {
                let _ = writeln!(
                    text,
                    "  {} ({}): {}-consistent",
                    printable(&app.name),
                    printable(&app.kind),
                    app.achieved
                );
            }
        }
        Err(e) => {
            let _ = writeln!(text, "  {}", printable(&e.to_string()));
        }
    }
    // Those of two members may differ by less than is shown.
    let mut held: Vec<String> = holds.iter().map(ToString::to_string).collect();
    held.dedup();
    for hold in held {
        let _ = writeln!(text, "  held: {hold}");
    }
    if let Some(kept) = kept {
        let _ = writeln!(text, "  {kept}");
    }
    text
}

/// Where a snapshot is, if it is not simply in the standard tier.
fn stored(tier: &TierView) -> Option<String> {
    let far = tier.progress.map_or_else(String::new, |percent| format!(", {percent}%"));
    match tier.last_move.as_deref() {
        Some("archival-in-progress") => return Some(format!("is on its way into the archive{far}")),
        Some(last) if last.ends_with("-in-progress") => {
            return Some(format!("is in the archive, and on its way back{far}"));
        }
        Some(last) if last.ends_with("-failed") => {
            return Some(format!("is in the tier {}: {}", printable(&tier.tier), printable(last)));
        }
        _ => {}
    }
    match (tier.tier.as_str(), tier.restored_until) {
        (_, Some(until)) => Some(format!("is out of the archive until {}", local(until))),
        ("archive", None) => Some(tier.archived.map_or_else(
            || "is in the archive".to_owned(),
            |since| format!("is in the archive since {}", local(since)),
        )),
        _ => None,
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("  {l}\n")).collect()
}

/// What a prune decided.
#[must_use]
pub(crate) fn prune(plan: &PrunePlan, set: impl Fn(&crate::ids::RunId) -> Option<String>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", plan.group);
    for decision in &plan.sets {
        let id: String = decision.id.as_str().chars().take(SHORT).collect();
        let what = match decision.verdict {
            Verdict::Keep => "keep  ",
            Verdict::Remove => "REMOVE",
            Verdict::Withheld => "would ",
        };
        let _ = write!(text, "{what} {id}  {}", local(decision.time));
        if let Some(more) = set(&decision.id) {
            let _ = write!(text, "  {more}");
        }
        let _ = writeln!(text);
        for reason in &decision.reasons {
            let _ = writeln!(text, "         {reason}");
        }
        if let Some(at) = &decision.departure {
            let _ = writeln!(text, "         goes: {}", departure(Some(at)));
        }
    }
    for refusal in &plan.refusals {
        let _ = writeln!(text, "NOTHING IS REMOVED: {refusal}\n  hint: {}", refusal.hint());
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// What became of a set.
#[must_use]
pub(crate) fn removed(removed: &Removed) -> String {
    match &removed.failed {
        None => {
            let images: Vec<&str> = removed.images.iter().map(ImageId::as_str).collect();
            let images =
                if images.is_empty() { String::new() } else { format!(", and {}", images.join(", ")) };
            format!("removed {} ({} snapshots{images})", removed.id, removed.deleted.len())
        }
        Some(failed) => {
            let at = failed.snapshot.as_ref().map_or_else(String::new, |s| format!("{s}: "));
            let how = if failed.torn { "is removed IN PART" } else { "is NOT removed, and whole" };
            format!("{} {how}: {at}{}", removed.id, failed.why)
        }
    }
}
