//! Waiting for a set: what has changed since the last look, and when to look again.
//!
//! In: a set, then its snapshots again and again. Out: a line a change, and whether it is over. Pure. Must never:
//! call a set complete by its progress: only the state says so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::set::SnapshotSet;
use crate::ec2::TaggedSnapshot;
use crate::ids::SnapshotId;
use crate::path_encoding::printable;

/// The first pause between two looks, and the longest. DescribeSnapshots is asked once for all members.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);
/// For so long EC2 may not show a snapshot that exists (EC2 guide, "eventual consistency").
const LOOKS: u32 = 5;

/// What is known of a set that is waited for.
#[derive(Debug)]
pub struct Waiting {
    members: BTreeMap<SnapshotId, Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    state: String,
    progress: String,
    message: Option<String>,
    /// Looks in a row that did not show it.
    absent: u32,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Every member is completed.
    Completed,
    /// A member is neither completed nor lost.
    Pending,
    /// A member is lost, and why.
    Failed(String),
}

impl Waiting {
    /// As the set was when it was read.
    #[must_use]
    pub fn of(set: &SnapshotSet) -> Self {
        let members = set.members.iter().map(|m| {
            let device = m.device_name.as_deref().unwrap_or("");
            let known = Known {
                name: format!("{} {} {}", m.id, m.volume_id, printable(device)).trim_end().to_owned(),
                state: String::new(),
                progress: String::new(),
                message: None,
                absent: 0,
            };
            (m.id.clone(), known)
        });
        Self { members: members.collect() }
    }

    /// Takes what EC2 shows now. A line for each member whose state has changed.
    pub fn see(&mut self, now: &[TaggedSnapshot]) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, known) in &mut self.members {
            let Some(s) = now.iter().find(|s| s.view.id == *id) else {
                known.absent += 1;
                continue;
            };
            known.absent = 0;
            known.progress = s.view.progress.clone().unwrap_or_default();
            if known.state != s.view.state {
                known.state.clone_from(&s.view.state);
                let failed = s.view.state == "error";
                known.message = s.detail.message.clone().filter(|_| failed);
                let more = match &known.message {
                    Some(why) => format!(": {}", printable(why)),
                    None if s.view.state == "pending" => format!(" {}", known.progress).trim_end().to_owned(),
                    None => String::new(),
                };
                lines.push(format!("{}: {}{more}", known.name, printable(&known.state)));
            }
        }
        lines
    }

    /// How it stands.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut pending = false;
        for known in self.members.values() {
            match known.state.as_str() {
                "error" => {
                    let why = known.message.as_deref().unwrap_or("EC2 gives no reason");
                    return Seen::Failed(format!("{}: {}", known.name, printable(why)));
                }
                _ if known.absent > LOOKS => {
                    return Seen::Failed(format!("{} is gone: somebody has deleted it", known.name));
                }
                "completed" if known.absent == 0 => {}
                _ => pending = true,
            }
        }
        if pending { Seen::Pending } else { Seen::Completed }
    }

    /// The pause before the next look: longer the longer it lasts, and not in step with others.
    #[must_use]
    pub fn pause(&self, waited: Duration) -> Duration {
        let pause = (waited / 10).clamp(FIRST, LONGEST);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}
