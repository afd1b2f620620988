//! Automounts of the plan's disks are mounted before the plan is made.
//!
//! In: automounts that wait. Out: why each of them is still not mounted, should it not be. Must never: choose
//! them ([`crate::plan::to_mount`] does), follow a path in this process, or wait without a limit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::aside::aside;
use crate::discover::Expected;
use crate::error::Error;
use crate::host::inspect::{Answer, Helper, Inspect as _, Question};
use crate::path_encoding::shown;

/// Mounts them. Returns, for each, why it is not mounted if it still is not.
///
/// # Errors
/// When looking ends unexpectedly.
pub(super) async fn mount(due: Vec<Expected>) -> Result<BTreeMap<PathBuf, String>, Error> {
    let question = |m: &Expected| {
        let (mount, at) = (m.idle.unwrap_or_default(), m.mount_point.clone());
        Question::Automount { mount, at }
    };
    let questions: Vec<Question> = due.iter().map(question).collect();
    let helper = Helper::new(Helper::own().program(), Helper::MOUNTING);
    let answers = aside(move || helper.ask(&questions)).await?;
    let mut tried = BTreeMap::new();
    for (mount, answer) in due.into_iter().zip(answers) {
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
