//! A [`Plan`] for people and for programs.
//!
//! In: the plan that a run would carry out. Out: text of a given width, or JSON. Must never: shorten a path or an id, or
//! say less than the plan does.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ids::VolumeId;
use crate::plan::{
    Consistency, LeftOut, Method, Plan, PlannedFilesystem, PlannedVolume, PointInTimeCall, Wave, shown,
};

/// Version of the JSON form. It grows when a field is renamed or removed, not when one is added.
pub const JSON_VERSION: u32 = 1;

/// The plan as JSON: `{"version":1,"plan":{…}}`.
///
/// # Errors
/// Never with today's types; the serializer's own error is passed on.
pub fn json(plan: &Plan) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        version: u32,
        plan: &'a Plan,
    }
    serde_json::to_string_pretty(&Envelope { version: JSON_VERSION, plan })
}

/// The plan for people, in lines of at most `width` columns where paths and ids allow it.
#[must_use]
pub fn human(plan: &Plan, width: usize) -> String {
    let mut page = Page { out: String::new(), width: width.max(40) };
    page.wrapped("", "", &headline(plan));
    filesystems(&mut page, plan);
    volumes(&mut page, &plan.volumes);
    page.out.push('\n');
    page.wrapped("Call: ", "      ", &call(&plan.call));
    left_out(&mut page, &plan.left_out);
    if !plan.notes.is_empty() {
        page.out.push_str("\nNotes\n");
        for note in &plan.notes {
            page.wrapped("  - ", "    ", note);
        }
    }
    page.out
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
        .map(|f| [shown(&f.mount_point), f.fstype.clone(), method(f.method).to_owned()])
        .collect();
    let columns = Columns::of(&rows, page.width);
    page.out.push_str("\nMade quiet, wave after wave\n");
    let mut wave = None;
    for (filesystem, row) in plan.filesystems.iter().zip(&rows) {
        if wave != Some(filesystem.wave) {
            wave = Some(filesystem.wave);
            page.wrapped("  ", "  ", &wave_name(filesystem.wave));
        }
        // What every one of them has in common is not worth a line each.
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

fn method(method: Method) -> &'static str {
    match method {
        Method::Freeze => "freeze",
        Method::Sync => "sync",
        Method::Unmount => "unmount",
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
    let columns = Columns::of(&rows, page.width);
    page.out.push_str("\nVolumes of the set\n");
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

fn left_out(page: &mut Page, left_out: &[LeftOut]) {
    if left_out.is_empty() {
        return;
    }
    page.out.push_str("\nLeft out\n");
    for line in left_out {
        let text = match line.kind.as_str() {
            "kernel" => format!("{} {}", line.what, line.reason),
            "volume" => format!("{}: {}", line.what, line.reason),
            kind => format!("{} ({kind}): {}", line.what, line.reason),
        };
        page.wrapped("  ", "    ", &text);
    }
}

/// Widths of the columns before the free text of a row.
struct Columns {
    widths: Vec<usize>,
    /// Where the free text begins.
    text: usize,
}

impl Columns {
    const INDENT: usize = 4;
    const GAP: usize = 2;

    fn of<const N: usize>(rows: &[[String; N]], width: usize) -> Self {
        // A cell longer than this does not push every other row to the right; it gets its own line.
        let most = (width / 3).max(21);
        let widths: Vec<usize> = (0..N)
            .map(|i| rows.iter().map(|r| columns(&r[i])).filter(|w| *w <= most).max().unwrap_or(0))
            .collect();
        let text = Self::INDENT + widths.iter().map(|w| w + Self::GAP).sum::<usize>();
        Self { widths, text }
    }
}

struct Page {
    out: String,
    width: usize,
}

impl Page {
    /// Cells in their columns, then free text beside them, each piece beginning a line.
    fn row(&mut self, table: &Columns, cells: &[String], texts: &[String]) {
        let mut head = " ".repeat(Columns::INDENT);
        let mut next = Columns::INDENT;
        for (cell, width) in cells.iter().zip(&table.widths) {
            next += width + Columns::GAP;
            head.push_str(cell);
            if columns(cell) > *width {
                self.line(&head);
                head.clear();
            }
            head.push_str(&" ".repeat(next.saturating_sub(columns(&head))));
        }
        let hang = " ".repeat(table.text);
        for text in texts.iter().filter(|t| !t.is_empty()) {
            let longest = words(text).iter().map(|w| columns(w)).max().unwrap_or(0);
            if table.text + longest <= self.width {
                self.wrapped(&head, &hang, text);
            } else {
                // Beside the columns it would break the width: below them it has room.
                if !head.trim().is_empty() {
                    self.line(&head);
                }
                let below = " ".repeat(Columns::INDENT + Columns::GAP);
                self.wrapped(&below, &below, text);
            }
            head.clone_from(&hang);
        }
        if !head.trim().is_empty() {
            self.line(&head);
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// Words within the width; `first` before the first line, `rest` before the others. A word is never broken.
    fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let mut line = first.to_owned();
        let mut empty = true;
        for word in words(text) {
            if !empty && columns(&line) + 1 + columns(&word) > self.width {
                self.line(&line);
                rest.clone_into(&mut line);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(&word);
            empty = false;
        }
        self.line(&line);
    }
}

/// Stands for a space within a path while lines are made.
const SPACE_IN_PATH: char = '\u{a0}';

/// A path that stays in one piece.
fn whole(path: &Path) -> String {
    shown(path).replace(' ', &SPACE_IN_PATH.to_string())
}

/// A stack that is broken only between its layers, not within `dm-0 (lvm vg0-data)`.
fn layers_whole(stack: &str) -> String {
    let layers = stack.split(" → ").map(|layer| {
        let devices = layer.split(" + ").map(|d| d.replace(' ', &SPACE_IN_PATH.to_string()));
        devices.collect::<Vec<_>>().join(" + ")
    });
    layers.collect::<Vec<_>>().join(" → ")
}

/// What must stay on one line: words, with what is between backticks, and paths, as one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quoted = false;
    for word in text.split(' ') {
        let piece = word.replace(SPACE_IN_PATH, " ");
        match words.last_mut().filter(|_| quoted) {
            Some(last) => {
                last.push(' ');
                last.push_str(&piece);
            }
            None => words.push(piece),
        }
        quoted ^= word.matches('`').count() % 2 == 1;
    }
    words
}

/// Columns on a terminal, near enough: one a character.
fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_settings_stay_in_one_piece() {
        let text = format!("at {} by `a = 1` too", whole(Path::new("/my data")));
        assert_eq!(words(&text), ["at", "/my data", "by", "`a = 1`", "too"]);
    }

    #[test]
    fn a_long_cell_has_its_own_line_and_the_rest_stays_in_its_columns() {
        let rows = [["/a".into(), "xfs".into()], ["/long".repeat(10), "ext4".into()]];
        let table = Columns::of(&rows, 60);
        let mut page = Page { out: String::new(), width: 60 };
        for row in &rows {
            page.row(&table, row, &["text".into()]);
        }
        page.row(&table, &rows[0], &["w".repeat(55)]);
        let long = "/long".repeat(10);
        let w = "w".repeat(55);
        assert_eq!(
            page.out,
            format!("    /a  xfs   text\n    {long}\n        ext4  text\n    /a  xfs\n      {w}\n")
        );
    }
}
