//! A root that is being replaced, followed to its end.
//!
//! In: a restore's id, EC2. Out: the task, and how it ended: [`Ended`], or an [`Error`] that says what to do. Must never:
//! take a task for over that is not, or believe of its tags more than an id.

use std::time::Duration;

use super::other_ways;
use crate::clock::Clock;
use crate::ec2::Ec2Error;
use crate::ec2::repeat::Repeating;
use crate::ec2::roots::{ROOT_TAG, RootTask, RootView, Roots, TaskState};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RootTaskId, RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::path_encoding::printable;
use crate::restore::make::Stopped;
use crate::restore::plan::{RESTORE_OF_TAG, RESTORE_VOLUME_TAG};

/// The first pause between two looks, and the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// So long a task is followed. EC2 says nothing of how long it takes; it is minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// So long EC2 may show the old root after a task has succeeded; later, somebody has put it back.
const SHOWN: Duration = Duration::from_secs(10);

/// What a task of a restore is of, by its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacing {
    /// The restore.
    pub id: RunId,
    /// The set.
    pub set: Option<RunId>,
    /// The volume that goes.
    pub replaced: Option<VolumeId>,
    /// The task.
    pub task: RootTask,
}

impl Replacing {
    /// None of a task that no restore has asked for.
    #[must_use]
    pub fn of(task: RootTask) -> Option<Self> {
        let id = task.tag(ROOT_TAG)?.parse().ok()?;
        let set = task.tag(RESTORE_OF_TAG).and_then(|id| id.parse().ok());
        let replaced = task.tag(RESTORE_VOLUME_TAG).and_then(|id| id.parse().ok());
        Some(Self { id, set, replaced, task })
    }
}

/// The tasks of restores that EC2 still shows, of this instance or of all.
///
/// # Errors
/// When EC2 does not say.
pub async fn all<E: Roots>(
    ec2: &Repeating<'_, E>,
    of: Option<&InstanceId>,
) -> Result<Vec<Replacing>, Ec2Error> {
    let asked = async || ec2.inner().root_tasks(of).await;
    let tasks = ec2.call("DescribeReplaceRootVolumeTasks", asked).await?;
    Ok(tasks.into_iter().filter_map(Replacing::of).collect())
}

/// The task that replaces the root of this instance just now, whoever has asked for it: EC2 makes one at a time.
///
/// # Errors
/// When EC2 does not say.
pub async fn under_way<E: Roots>(
    ec2: &Repeating<'_, E>,
    instance: &InstanceId,
) -> Result<Option<RootTask>, Ec2Error> {
    let asked = async || ec2.inner().root_tasks(Some(instance)).await;
    let tasks = ec2.call("DescribeReplaceRootVolumeTasks", asked).await?;
    Ok(tasks.into_iter().find(|t| !t.state.is_over()))
}

/// The task of this restore; none where EC2 shows none. `noted`: which one it is, where this host knows it.
///
/// # Errors
/// When EC2 does not say, or when two tasks say that they are of it.
pub async fn find<E: Roots>(
    ec2: &Repeating<'_, E>,
    id: &RunId,
    noted: Option<&RootTaskId>,
) -> Result<Option<Replacing>, Stopped> {
    let is_it = |r: &Replacing| r.id == *id && noted.is_none_or(|noted| r.task.id == *noted);
    let mut found: Vec<Replacing> = all(ec2, None).await?.into_iter().filter(is_it).collect();
    if found.len() > 1 {
        let tasks: Vec<&str> = found.iter().map(|r| r.task.id.as_str()).collect();
        return Err(Stopped::Here(format!("{} have the tag of restore {id}", tasks.join(" and "))));
    }
    Ok(found.pop())
}

/// Looks at a task until it is over, and tells each state.
///
/// # Errors
/// A signal; that it takes too long; that EC2 does not say. The task goes on.
pub async fn to_its_end<E: Roots>(
    mut task: RootTask,
    ec2: &Repeating<'_, E>,
    clock: &dyn Clock,
    interrupt: &Interrupt,
    tell: &dyn Fn(&str),
) -> Result<RootTask, Stopped> {
    let end = clock.elapsed() + LIMIT;
    let (mut interrupt, mut pause) = (interrupt.clone(), FIRST);
    tell(&told(&task));
    while !task.state.is_over() {
        if clock.elapsed() >= end {
            let (minutes, state) = (LIMIT.as_secs() / 60, printable(task.state.as_str()).into_owned());
            return Err(Stopped::Here(format!("{} is {state} after {minutes} min", task.id)));
        }
        tokio::select! {
            biased;
            signal = interrupt.caught() => return Err(Stopped::Signal(signal)),
            () = clock.pause(pause) => pause = (pause * 2).min(LONGEST),
        }
        let asked = async || ec2.inner().root_tasks(Some(&task.instance)).await;
        let shown = ec2.call("DescribeReplaceRootVolumeTasks", asked).await?;
        // EC2 shows what it has made later than it says so.
        let Some(now) = shown.into_iter().find(|t| t.id == task.id) else { continue };
        if now.state != task.state {
            tell(&told(&now));
        }
        task = now;
    }
    Ok(task)
}

/// The instance as EC2 has it after a task. EC2 may show the old root for a while.
///
/// # Errors
/// When EC2 does not say.
pub async fn root_after<E: Roots>(
    of: &Replacing,
    ec2: &Repeating<'_, E>,
    clock: &dyn Clock,
) -> Result<Option<RootView>, Ec2Error> {
    let instance = &of.task.instance;
    let end = clock.elapsed() + SHOWN;
    loop {
        let now = ec2.call("DescribeInstances", async || ec2.inner().root_of(instance).await).await?;
        let root = now.as_ref().and_then(|n| n.volume.as_ref());
        let is_old = of.task.state == TaskState::Succeeded && root.is_some() && root == of.replaced.as_ref();
        if !is_old || clock.elapsed() >= end {
            return Ok(now);
        }
        clock.pause(FIRST).await;
    }
}

fn told(task: &RootTask) -> String {
    let what = match &task.state {
        TaskState::Pending => "the new root is being made",
        TaskState::InProgress => "the volumes change places, and the instance is rebooted",
        TaskState::Succeeded => "the new root is in place",
        TaskState::Failing => "it fails, and the old root stays",
        TaskState::Failed => "it has failed, and the old root is in place",
        TaskState::FailingDetached => "it fails, and the instance may be without a root",
        TaskState::FailedDetached => "it has failed, and the instance is without a root",
        TaskState::Other(_) => "a state that is not known here",
    };
    format!("{} {}: {what}", task.id, printable(task.state.as_str()))
}

/// A task that did what it was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The root that was made; none where EC2 does not say, or has another one by now.
    pub root: Option<VolumeId>,
    /// What is to be said of it.
    pub lines: Vec<String>,
}

/// How a task ended that is over, with what EC2 has for the instance now.
///
/// # Errors
/// That it failed, and what is to be done.
pub fn ended(replacing: &Replacing, now: Option<&RootView>, old: Option<&Old>) -> Result<Ended, Error> {
    let (task, instance) = (&replacing.task, &replacing.task.instance);
    let name = now.map_or("/dev/xvda", |n| n.device_name.as_str());
    let (name, root) = (printable(name), now.and_then(|n| n.volume.clone()));
    let replaced = replacing.replaced.as_ref().map_or("the old root", |v| v.as_str());
    match &task.state {
        TaskState::Succeeded => {
            let of = task.snapshot.as_ref().map_or("a snapshot", |s| s.as_str());
            // Whoever asks much later may find another one.
            let is_it = now.is_some_and(|n| n.snapshot.is_some() && n.snapshot == task.snapshot);
            let was = format!("the root of {instance} was replaced by one of {of}");
            let mut lines = vec![match (&root, now) {
                (Some(new), _) if is_it => format!("{new}, made of {of}, is the root of {instance}"),
                (Some(new), _) => format!("{was}; by now it is {new}"),
                (None, Some(_)) => format!("{was}; by now it has none"),
                (None, None) => was,
            }];
            lines.extend(what_is_left(replacing, old));
            Ok(Ended { root: root.filter(|_| is_it), lines })
        }
        TaskState::FailedDetached => Err(Error::new(
            Exit::NotMounted,
            format!("{instance} has no root volume: {} failed after {replaced} was detached", task.id),
        )
        .hint(format!(
            "by hand: `aws ec2 stop-instances --instance-ids {instance}`, then `aws ec2 attach-volume --instance-id \
             {instance} --volume-id {replaced} --device {name}`, then `aws ec2 start-instances --instance-ids {instance}`"
        ))),
        state => {
            let zone = now.map_or("ZONE", |n| n.zone.as_str());
            let ways = replacing.set.as_ref().map_or_else(String::new, |set| format!(". {}", other_ways(set, zone)));
            Err(Error::new(
                Exit::After,
                format!(
                    "the root of {instance} was not replaced ({} {}): {replaced} is the root still, and the instance \
                     was rebooted",
                    task.id,
                    printable(state.as_str())
                ),
            )
            .hint(format!(
                "EC2 does not say why; most often the key of the snapshot cannot be used. Mend that, and begin anew{ways}"
            )))
        }
    }
}

/// What EC2 has of the volume that was the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// It is there, in this state.
    There(String),
    /// It is gone.
    Gone,
}

fn what_is_left(of: &Replacing, old: Option<&Old>) -> Vec<String> {
    let Some(replaced) = &of.replaced else { return Vec::new() };
    match old {
        None => Vec::new(),
        Some(Old::Gone) => vec![format!("{replaced}, the old root, is deleted")],
        Some(Old::There(_)) if of.task.deletes_replaced => {
            vec![format!("{replaced}, the old root, is being deleted")]
        }
        Some(Old::There(state)) => vec![
            format!("{replaced}, the old root, is {}, and billed until you delete it", printable(state)),
            format!("it comes back by `{}`", back(&of.task.instance, replaced)),
        ],
    }
}

/// The command that makes a volume the root again.
#[must_use]
pub fn back(instance: &InstanceId, replaced: &VolumeId) -> String {
    format!("aws ec2 create-replace-root-volume-task --instance-id {instance} --volume-id {replaced}")
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
