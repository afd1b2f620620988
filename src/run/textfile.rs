//! The metrics of all plans, as a file for node_exporter's textfile collector.
//!
//! ```text
//! a run, a refusal, a prune ─▶ tally (counts, in the run folder and on disk) ─▶ textfile, replaced as a whole
//! ```
//!
//! In: what has ended; the setting `textfile`. Out: counts and the file. Must never: write while anything is frozen
//! (the run lock is held, and no journal says that something may be), through a folder that somebody else could
//! change, or change how a run ended.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::journal::Journal;
use super::lock::{self, RunLock};
use super::tally::{self, Tally};
use crate::config::Loaded;
use crate::host::file;
use crate::host::thread;
use crate::host::trust::{self, OpenError, Trusted};
use crate::path_encoding::shown;
use crate::report::metrics;

/// For everybody: node_exporter runs as a user of its own.
const MODE: u32 = 0o644;
/// How long the disk may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Is what has ended damage that lasts? Then no disk is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It may be written to.
    Safe,
    /// It may be frozen, or not be mounted.
    NotSafe,
}

/// Counts something, and writes the file. Whoever calls this has the run lock. Without the setting nothing is counted.
pub(crate) fn update(loaded: &Loaded, _: &RunLock, disk: Disk, change: impl FnOnce(&mut Tally)) {
    let settings = &loaded.settings;
    let Some(path) = settings.textfile.clone() else { return };
    let plan = settings.plan.name.as_str();
    let (run_dir, state_dir) = (settings.run_dir.as_path(), settings.state_dir.as_path());
    let counted = if disk == Disk::NotSafe || may_be_frozen(run_dir) {
        tally::change(&[run_dir], plan, change).map(|()| None)
    } else {
        tally::change(&[run_dir, state_dir], plan, change).map(|()| Some([run_dir, state_dir]))
    };
    let folders = match counted {
        Ok(Some(folders)) => folders,
        // The next run that can writes these counts too.
        Ok(None) => return,
        Err(e) => return tracing::warn!("nothing is counted for metrics: {e}"),
    };
    let mut known = tally::all(&folders);
    // Of a plan that is no longer configured nobody wants to be told that it does not run.
    known.retain(|name, _| loaded.plans.contains(name));
    let text = metrics::text(&known.into_values().collect::<Vec<_>>());
    if let Err(why) = within_limit(path.clone(), text) {
        tracing::warn!("cannot write the metrics to {}: {why}", shown(&path));
    }
}

/// The same where nobody has the run lock: waited for, since its owner may have frozen what would be written to.
pub(crate) async fn update_alone(
    loaded: &Loaded,
    wait: Duration,
    disk: Disk,
    change: impl FnOnce(&mut Tally),
) {
    let settings = &loaded.settings;
    // No run folder: this is not the host of any run.
    if settings.textfile.is_none() || !settings.run_dir.is_dir() {
        return;
    }
    match lock::take(&settings.run_dir, wait).await {
        Ok(held) => update(loaded, &held, disk, change),
        Err(e) => tracing::debug!("nothing is counted for metrics: {e}"),
    }
}

fn may_be_frozen(run_dir: &Path) -> bool {
    let frozen = |journal: Result<Journal, String>| {
        journal.map_or(true, |journal| journal.may_be_frozen().mounts().next().is_some())
    };
    Journal::all(run_dir).into_iter().any(frozen)
}

/// In a thread: a disk may not answer.
fn within_limit(path: std::path::PathBuf, text: String) -> Result<(), String> {
    let (tell, heard) = channel();
    let work = move || drop(tell.send(write(&path, &text).map_err(|e| e.to_string())));
    if let Err(work) = thread::start("textfile", work) {
        work();
    }
    let late = |_| format!("the disk has not answered within {} s", LIMIT.as_secs());
    heard.recv_timeout(LIMIT).map_err(late)?
}

/// The folder is opened once, and nobody but root could have led its path elsewhere; what is done in it goes by its
/// descriptor. A link under the file's name is replaced, not followed.
fn write(path: &Path, text: &str) -> Result<(), OpenError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::other("it has no folder").into());
    };
    let way = trust::follow(folder, Trusted::own());
    let end = way.end?;
    if let Some(loose) = way.loose.into_iter().next() {
        return Err(loose.into());
    }
    Ok(file::replace_in(end.as_fd(), name, text.as_bytes(), MODE)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_for_everybody_to_read() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        let path = dir.path().join("stillpoint.prom");
        write(&path, "one\n").unwrap();
        let first = path.metadata().unwrap();
        assert_eq!(first.mode() & 0o777, MODE);
        // What a process left that died at this.
        std::fs::write(dir.path().join(".stillpoint.prom.new"), "half").unwrap();
        write(&path, "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_ne!(path.metadata().unwrap().ino(), first.ino(), "it was written in place");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_a_folder_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        let (path, victim) = (dir.path().join("stillpoint.prom"), dir.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        write(&path, "metrics").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        assert!(path.symlink_metadata().unwrap().is_file());

        mode(dir.path(), 0o777);
        let why = write(&path, "more").unwrap_err().to_string();
        assert!(why.contains("can be written by everybody"), "{why}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "metrics");
        assert!(write(&dir.path().join("none/x.prom"), "").is_err());
    }
}
