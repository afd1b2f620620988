//! `stillpoint snapshot --image`, and `image` without a set: what is looked at before the set is taken, and what is done
//! after it.
//!
//! In: a plan, then a run. Out: a refusal, or what became of the image. Must never: begin before the run's own result is
//! known, or change it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{How, Make};
use crate::cli::copy::{shown, until_completed};
use crate::cli::sets::Account;
use crate::cli::start::{ROOT, listen};
use crate::cli::{Global, Output, say};
use crate::config::Loaded;
use crate::ec2::images::Images as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::image::boot;
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::report;
use crate::report::event::{Event, Kind};
use crate::sets::find::of_plan;
use crate::sets::follow::Followed;
use crate::sets::layout::Layout;
use crate::sets::record::SetRecord;
use crate::sets::set::SetState;

/// The image that a run's set is going to be.
pub(in crate::cli) struct Imaging {
    account: Account,
    how: How,
    /// What stdout gets of it.
    output: Option<Output>,
}

/// What became of it.
pub(in crate::cli) struct Imaged {
    /// The exit code of the command.
    pub exit: Exit,
    /// The signal to die by.
    pub signal: Option<Signal>,
    /// Of a set that no image was made of.
    pub event: Option<Event>,
}

impl Imaging {
    /// Before a set is taken: can an image be made of it?
    ///
    /// # Errors
    /// When it could not be. Nothing has been touched.
    pub(in crate::cli) async fn before(
        global: &Global,
        loaded: &Loaded,
        plan: &Plan,
        how: How,
        output: Option<Output>,
    ) -> Result<Self, Error> {
        let Some(root) = plan.volumes.iter().find(|v| v.boot) else {
            return Err(Error::new(
                Exit::Config,
                "the plan leaves the root device out: nothing could boot from its set",
            )
            .hint("leave --exclude-boot-volume out, or choose the filesystem / too"));
        };
        let is_root = |f: &&crate::plan::PlannedFilesystem| {
            f.volumes.contains(&root.id) && f.mount_points.iter().any(|m| m == Path::new("/"))
        };
        let boots_here = plan.filesystems.iter().find(is_root).is_some();
        let mounts = plan.filesystems.iter().flat_map(|f| f.mount_points.iter().cloned()).collect();
        bootable(boots_here, &mounts, how.ignore_boot_check).await?;
        let name = &loaded.settings.plan.name;
        let account = Account::connect(global, Some(name), true).await?;
        // EC2 wants to know of which snapshots: the newest set of the plan has some.
        let sets = of_plan(&account.calls(), &account.instance(None)?, name).await.map_err(Error::from)?;
        let newest = sets.iter().find(|s| s.copy_of.is_none() && s.state() == SetState::Completed);
        let like = match newest {
            Some(set) => how.plan(&account, set).await.ok(),
            None => None,
        };
        match like {
            Some(plan) => {
                let ec2 = account.calls();
                let may = async || ec2.inner().may_register(&plan.request).await;
                ec2.call("DryRun", may).await?;
            }
            None => tracing::info!("whether an image may be registered is not known before the first set"),
        }
        Ok(Self { account, how, output })
    }

    /// Makes the image, where the run got what it has to get. The set keeps its result: what fails here makes 0 and 10 to
    /// 11, and nothing else.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub(in crate::cli) async fn after(
        &self,
        record: &SetRecord,
        signal: Option<Signal>,
    ) -> Result<Imaged, Error> {
        let (run, exit) = (&record.run_id, record.exit);
        if signal.is_some() || !matches!(exit, Exit::Ok | Exit::Lower | Exit::After) {
            if !record.snapshots.is_empty() {
                say(&format!("no image is made of {run}; `stillpoint image {run}` does it"));
            }
            return Ok(Imaged { exit, signal, event: None });
        }
        let mut interrupt = listen()?;
        let (signal, why) = match self.make(run, &mut interrupt).await {
            Ok((Exit::Ok, signal)) => return Ok(Imaged { exit, signal, event: None }),
            Ok((_, signal)) => (signal, None),
            Err(error) => {
                say(&format!("{run} is taken, and no image is made of it"));
                say(&error.render());
                (None, Some(error.to_string()))
            }
        };
        let mut event = Event::new(Kind::AfterFailed, "the set was taken, and no good image was made of it");
        event.reason = why;
        event.plan = Some(record.plan.name.clone());
        event.run_id = Some(run.clone());
        event.set = Some(run.clone());
        event.achieved = record.achieved;
        event.exit_code = Some(Exit::After);
        report::log::tell(&event);
        Ok(Imaged { exit: Exit::After, signal, event: Some(event) })
    }

    async fn make(&self, run: &RunId, interrupt: &mut Interrupt) -> Result<(Exit, Option<Signal>), Error> {
        let account = &self.account;
        let set = shown(account, run).await?;
        if let Followed::Interrupted(signal) = until_completed(account, &set, interrupt).await? {
            say(&format!("no image is made of {run}; `stillpoint image {run} --wait-source` does it"));
            return Ok((Exit::After, Some(signal)));
        }
        let set = shown(account, run).await?;
        Make::of(&self.how).carry_out(account, &set, self.output, interrupt).await
    }
}

/// Whether this host boots from the set, by the set's own lines.
pub(super) fn boots_here(layout: &Layout) -> bool {
    let boot = |id: &crate::ids::VolumeId| layout.volumes.iter().any(|v| v.boot && v.id == *id);
    let places = |f: &&crate::sets::lines::SetFilesystem| {
        f.mount_point == Path::new("/") && f.volumes.iter().any(boot)
    };
    layout.filesystems.iter().find(places).is_some()
}

/// The mount points of a set.
pub(super) fn mounts(layout: &Layout) -> BTreeSet<PathBuf> {
    let all = |f: &crate::sets::lines::SetFilesystem| {
        std::iter::once(f.mount_point.clone()).chain(f.also.clone()).collect::<Vec<_>>()
    };
    layout.filesystems.iter().flat_map(all).collect()
}

/// What on this host would keep an instance from booting, where this host boots from that set.
///
/// # Errors
/// When there is something, unless that is to be ignored.
pub(super) async fn bootable(
    boots_here: bool,
    mounts: &BTreeSet<PathBuf>,
    ignore: bool,
) -> Result<(), Error> {
    if !boots_here {
        return Ok(());
    }
    let (findings, unknown) = boot::judge(&boot::look(ROOT.as_ref()).await, mounts);
    unknown.iter().for_each(|what| say(&format!("note: {what}")));
    for finding in &findings {
        say(&format!("would not boot: {}\n  hint: {}", finding.what, finding.hint));
    }
    if findings.is_empty() || ignore {
        return Ok(());
    }
    Err(Error::new(Exit::Config, "an instance of the image would not boot, or not everywhere")
        .hint("--ignore-boot-check goes on all the same"))
}
