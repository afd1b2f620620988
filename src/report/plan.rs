//! A [`Plan`] for people and for programs.
//!
//! In: the plan that a run would carry out. Out: text of a given width, or JSON. Must never: shorten a path
//! or an id, or say less than the plan does.

use std::path::PathBuf;

use serde::Serialize;

use super::databases::{self, OnSet};
use super::page::{Columns, Page, layers_whole, whole};
use crate::host::busy::{Effect, Seen};
use crate::ids::VolumeId;
use crate::path_encoding::{printable, shown};
use crate::plan::{Consistency, LeftOut, Plan, PlannedFilesystem, PlannedVolume, PointInTimeCall, Wave};

/// Version of the JSON form. It grows when a field is renamed or removed, not when one is added.
pub(crate) const JSON_VERSION: u32 = 1;

/// The plan as JSON: `{"version":1,"plan":{…},"databases":[…],"busy":{…}}`.
///
/// # Errors
/// Never with today's types; the serializer's own error is passed on.
pub fn json(plan: &Plan, databases: &[OnSet], busy: &Seen) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        version: u32,
        plan: &'a Plan,
        databases: &'a [OnSet],
        busy: &'a Seen,
    }
    serde_json::to_string_pretty(&Envelope { version: JSON_VERSION, plan, databases, busy })
}

/// The plan for people, in lines of at most `width` columns where paths and ids allow it.
#[must_use]
pub fn human(plan: &Plan, databases: &[OnSet], busy: &Seen, width: usize) -> String {
    let mut page = Page::new(width);
    page.wrapped("", "", &headline(plan));
    filesystems(&mut page, plan);
    volumes(&mut page, &plan.volumes);
    page.blank();
    page.wrapped("Call: ", "      ", &call(&plan.call));
    let expedite = &plan.expedite;
    let how = if expedite.raise { "with" } else { "without" };
    page.wrapped("RCU:  ", "      ", &format!("freezing {how} rcu_expedited ({})", expedite.why));
    busy_now(&mut page, busy);
    databases::section(&mut page, databases);
    left_out(&mut page, &plan.left_out);
    if !plan.missing.is_empty() {
        page.heading("Should be mounted, and is not");
        for missing in &plan.missing {
            page.wrapped("  ", "    ", &missing.to_string());
        }
    }
    if !plan.notes.is_empty() {
        page.heading("Notes");
        for note in &plan.notes {
            page.wrapped("  - ", "    ", note);
        }
    }
    page.finish()
}

fn headline(plan: &Plan) -> String {
    format!(
        "Plan {}: {} on {}, {}-consistent at best.",
        plan.name,
        count(plan.filesystems.len(), "filesystem"),
        count(plan.volumes.len(), "volume"),
        plan.best
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn filesystems(page: &mut Page, plan: &Plan) {
    let Some(first) = plan.filesystems.first() else { return };
    let rows: Vec<[String; 3]> = plan
        .filesystems
        .iter()
        .map(|f| [shown(&f.mount_point), f.fstype.clone(), f.method.as_str().to_owned()])
        .collect();
    let columns = Columns::of(&rows, page.width());
    page.heading("Made quiet, wave after wave");
    let mut wave = None;
    for (filesystem, row) in plan.filesystems.iter().zip(&rows) {
        if wave != Some(filesystem.wave) {
            wave = Some(filesystem.wave);
            page.wrapped("  ", "  ", &wave_name(filesystem.wave));
        }
        // A reason that all of them have is not repeated on each line.
        let common = plan.filesystems.iter().all(|f| f.reason == first.reason);
        page.row(&columns, row, &details(filesystem, common));
    }
}

fn details(filesystem: &PlannedFilesystem, common_reason: bool) -> Vec<String> {
    let mut details = vec![layers_whole(&filesystem.stack), ids(&filesystem.volumes, " ")];
    let others: Vec<_> = filesystem.mount_points.iter().skip(1).map(|m| whole(m)).collect();
    if !others.is_empty() {
        details.push(format!("also at {}", others.join(", ")));
    }
    if !common_reason {
        details.push(filesystem.reason.clone());
    }
    details.retain(|d| !d.is_empty());
    details
}

fn wave_name(wave: Wave) -> String {
    match wave {
        Wave::Inner(depth) if depth.0 == 1 => "in image files".to_owned(),
        Wave::Inner(depth) => format!("in image files, {} deep", depth.0),
        Wave::Data => "data".to_owned(),
        Wave::System => "system".to_owned(),
    }
}

fn volumes(page: &mut Page, volumes: &[PlannedVolume]) {
    let rows: Vec<[String; 4]> = volumes
        .iter()
        .map(|v| {
            [
                v.id.to_string(),
                v.device_name.clone(),
                v.disk.clone().unwrap_or_else(|| "-".to_owned()),
                format!("{} GiB {}", v.size_gib, v.volume_type),
            ]
        })
        .collect();
    let columns = Columns::of(&rows, page.width());
    page.heading("Volumes of the set");
    for (volume, row) in volumes.iter().zip(&rows) {
        let mut about = Vec::new();
        if volume.boot {
            about.push("boot".to_owned());
        }
        if volume.best == Consistency::Crash {
            about.push("crash-consistent only".to_owned());
        }
        about.push(paths(&volume.mount_points));
        about.retain(|a| !a.is_empty());
        page.row(&columns, row, &[about.join("; ")]);
    }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| whole(p)).collect::<Vec<_>>().join(", ")
}

fn ids(ids: &[VolumeId], separator: &str) -> String {
    ids.iter().map(VolumeId::as_str).collect::<Vec<_>>().join(separator)
}

fn call(call: &PointInTimeCall) -> String {
    match call {
        PointInTimeCall::CreateSnapshot { volume } => format!("CreateSnapshot of {volume}"),
        PointInTimeCall::CreateSnapshotEach { volumes } => {
            format!("{} of CreateSnapshot, all in flight at once", count(volumes.len(), "call"))
        }
        PointInTimeCall::CreateSnapshots { exclude_boot_volume, exclude_data_volumes: data } => {
            let boot = exclude_boot_volume.then(|| "the boot volume".to_owned());
            let data = match data.as_slice() {
                [] => None,
                [one] => Some(one.to_string()),
                more => Some(count(more.len(), "data volume")),
            };
            let without: Vec<_> = boot.into_iter().chain(data).collect();
            match without.as_slice() {
                [] => "CreateSnapshots of the instance, every volume".to_owned(),
                some => format!("CreateSnapshots of the instance without {}", some.join(" and ")),
            }
        }
    }
}

/// What a run would wait for, or be refused for, if it began now.
fn busy_now(page: &mut Page, busy: &Seen) {
    if busy.found.is_empty() && busy.unseen.is_empty() {
        return;
    }
    page.heading("Busy now");
    for operation in &busy.found {
        let effect = match operation.effect {
            Effect::Blocks => "a freeze would wait for its end: a run waits before it (busy_timeout)",
            Effect::Writes => "it writes also while frozen, and the set would be `crash`",
        };
        page.wrapped("  ", "    ", &format!("{operation}: {effect}"));
    }
    for unseen in &busy.unseen {
        page.wrapped("  ", "    ", &format!("not checked: {}", printable(unseen)));
    }
}

fn left_out(page: &mut Page, left_out: &[LeftOut]) {
    if left_out.is_empty() {
        return;
    }
    page.heading("Left out");
    for line in left_out {
        let text = match line.kind.as_str() {
            "kernel" => format!("{} {}", line.what, line.reason),
            "volume" => format!("{}: {}", line.what, line.reason),
            kind => format!("{} ({kind}): {}", line.what, line.reason),
        };
        page.wrapped("  ", "    ", &text);
    }
}
