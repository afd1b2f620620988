//! Automounts of the plan's disks are mounted before the plan is made.
//!
//! In: automounts that wait. Out: why each of them is still not mounted, should it not be. Must never: touch an
//! automount on the way to another one, follow a path in this process, or wait without a limit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::planned::aside;
use crate::discover::{Expected, Facts};
use crate::error::Error;
use crate::host::inspect::{Answer, Helper, Inspect as _, Question};
use crate::path_encoding::shown;

/// Mounts those to which no other automount is in the way; the others have their turn when that is mounted.
/// Returns, for each that had its turn or never will, why it is not mounted if it still is not.
///
/// # Errors
/// When looking ends unexpectedly.
pub(super) async fn mount(facts: &Facts, due: Vec<Expected>) -> Result<BTreeMap<PathBuf, String>, Error> {
    let (free, behind): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|m| in_the_way(facts, &m.mount_point).is_none());
    if free.is_empty() {
        let why = |m: Expected| {
            let above = in_the_way(facts, &m.mount_point).map(shown).unwrap_or_default();
            (m.mount_point, format!("it is below the automount at {above}, which was left alone"))
        };
        return Ok(behind.into_iter().map(why).collect());
    }
    let question = |m: &Expected| {
        let (mount, at) = (m.idle.unwrap_or_default(), m.mount_point.clone());
        Question::Automount { mount, at }
    };
    let questions: Vec<Question> = free.iter().map(question).collect();
    let helper = Helper::new(Helper::own().program(), Helper::MOUNTING);
    let answers = aside(move || helper.ask(&questions)).await?;
    let mut tried = BTreeMap::new();
    for (mount, answer) in free.into_iter().zip(answers) {
        let at = shown(&mount.mount_point);
        let why = match answer {
            Some(Answer::Mounted) => {
                tracing::info!("mounted {at}, where an automount waited");
                "it was unmounted again at once".to_owned()
            }
            Some(Answer::Failed(why) | Answer::NeedsRoot(why)) => format!("its automount failed: {why}"),
            _ => {
                let limit = humantime::format_duration(Helper::MOUNTING);
                format!("its automount did not mount it within {limit}")
            }
        };
        tried.insert(mount.mount_point, why);
    }
    Ok(tried)
}

/// An automount above this path, on which nothing is mounted: whoever follows the path sets it off.
fn in_the_way<'a>(facts: &'a Facts, path: &Path) -> Option<&'a Path> {
    let waiting = facts.filesystems.iter().filter(|f| f.fstype == "autofs").flat_map(|f| &f.mounts);
    let above = |at: &Path| path != at && path.starts_with(at);
    waiting.filter(|m| !m.hidden).map(|m| m.mount_point.as_path()).find(|at| above(at))
}
