//! `stillpoint thaw`: ends a held freeze, undoes what dead runs have left, and with `--all` thaws everything.
//!
//! In: the freeze's socket, journals of dead runs, or every mount. Out: what was thawed and released, and
//! whether the freeze held. Must never: need EC2, IMDS, the configuration or the network, because it is run
//! when other things are broken; or say that a freeze held without the proof of the process that held it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use serde::Serialize;

use super::{Global, Output, print, print_document, say};
use crate::config::Loaded;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::path_encoding::{self, shown};
use crate::report::{self, event, log};
use crate::run::control_socket::{self, ThawReply};
use crate::run::held_record::HeldFreezeRecord;
use crate::run::journal::{Created, Journal};
use crate::run::recover;
use crate::run::rescue::{self, Everything};

/// How often, and after which pause, a holder that is about to end is checked again.
const ENDING: (u32, Duration) = (100, Duration::from_millis(50));

#[derive(Debug, Args)]
pub(super) struct Thaw {
    /// Thaw every filesystem of this host, whoever froze it.
    #[arg(long, conflicts_with = "recover")]
    all: bool,
    /// Only undo what dead runs left behind; a freeze that is held goes on. For ExecStopPost=.
    #[arg(long, conflicts_with = "run")]
    recover: bool,
    /// The freeze to end, by the id that `freeze` printed [default: the one that is held].
    #[arg(long, value_name = "RUN")]
    run: Option<RunId>,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Thaw {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        super::need_root()?;
        let run_dir = run_dir(global);
        let mut all = if self.all { Some(everything(self.output)?) } else { None };
        let mut exit = all.as_ref().map_or(Exit::Ok, |all| all.exit_code);
        let ended = if self.recover { None } else { self.end(&run_dir).await };
        let recover::Local { recovered, unreadable, busy } = recover::local(&run_dir).await;
        for text in unreadable {
            say(&format!("error: cannot read the journal {text}"));
            // Exit code 40 as in `status`, because it is not known what that run froze. With --all it is
            // thawed.
            if self.all {
                exit = exit.or_worse(Exit::After);
            } else {
                say("hint: `stillpoint thaw --all` thaws whatever it froze; then remove the file");
                exit = exit.or_worse(Exit::StillFrozen);
            }
        }
        if let Some(who) = busy {
            say(&format!("error: another recovery ({who}) is in progress; post hooks may still have to run"));
            exit = exit.or_worse(Exit::Locked);
        }
        for run in &recovered {
            exit = exit.or_worse(report(run));
        }
        if self.recover {
            if recovered.is_empty() {
                say("no run left anything behind");
            }
            return Ok(exit);
        }
        let kept = || control_socket::kept(&run_dir, self.run.as_ref());
        let (record, forced) = match ended {
            Some(End::Answered(record)) => (Some(*record), None),
            Some(End::Forced(forced)) => (None, Some(forced)),
            None => (kept(), None),
        };
        match (&record, forced) {
            (Some(record), _) => exit = exit.or_worse(self.report(record)?),
            (None, Some(forced)) => exit = exit.or_worse(forced),
            (None, None) if self.run.is_some() => {
                say("error: no freeze of this run is known since the last boot");
                say("hint: it has nothing frozen now; whether it held before is not known");
                exit = exit.or_worse(Exit::NotHeld);
            }
            (None, None) if recovered.is_empty() && !self.all => {
                say("no run left anything behind, and no freeze is held \
                     (give --run to learn whether a certain one held)");
            }
            (None, None) => {}
        }
        if let Some(all) = all.as_mut().filter(|_| self.output == Output::Json) {
            all.exit_code = exit;
            all.freeze = record;
            print_document(all)?;
        }
        Ok(exit)
    }

    /// Ends the held freeze.
    async fn end(&self, run_dir: &Path) -> Option<End> {
        for _ in 0..ENDING.0 {
            let journal = control_socket::held(run_dir, self.run.as_ref())?;
            match control_socket::request_thaw(run_dir, &journal.state.run).await {
                ThawReply::Done(record) => return Some(End::Answered(record)),
                ThawReply::Silent => return Some(force(&journal)),
                ThawReply::Ending => tokio::time::sleep(ENDING.1).await,
            }
        }
        // The holder has not ended in all that time: it does not answer, and may still hold the freeze.
        control_socket::held(run_dir, self.run.as_ref()).map(|journal| force(&journal))
    }

    /// Prints how the freeze ended. Returns the exit code.
    fn report(&self, record: &HeldFreezeRecord) -> Result<Exit, Error> {
        // With --all it is a part of one document.
        if self.output == Output::Json && !self.all {
            print_document(record)?;
        }
        say(&report::held_freeze::human(record));
        Ok(record.thaw_exit())
    }
}

enum End {
    /// The holder's record.
    Answered(Box<HeldFreezeRecord>),
    /// Thawed here, because the holder does not answer.
    Forced(Exit),
}

/// Thaws here, because the holder does not answer.
fn force(journal: &Journal) -> End {
    let (thawed, failed) = rescue::by_force(journal);
    let pid = journal.state.process.pid;
    say(&format!(
        "error: process {pid} holds the freeze and does not answer; thawed by force: {}",
        if thawed.is_empty() { "nothing was frozen any more".to_owned() } else { list(&thawed) }
    ));
    say(&format!(
        "hint: post hooks still have to run: end process {pid} (SIGCONT, or SIGKILL), then `stillpoint thaw`"
    ));
    End::Forced(failures(&failed).unwrap_or(Exit::NotHeld))
}

/// The run folder. With a broken configuration it is the default one, so that `thaw` still works.
pub(super) fn run_dir(global: &Global) -> PathBuf {
    folders(global).0
}

/// The run folder, and the folder of records, in the same way.
pub(super) fn folders(global: &Global) -> (PathBuf, PathBuf) {
    match global.load(None, crate::config::Overrides::default()) {
        Ok(Loaded { settings, .. }) => (settings.run_dir, settings.state_dir),
        Err(_) => (
            global.run_dir.clone().unwrap_or_else(|| crate::config::RUN_DIR.into()),
            global.state_dir.clone().unwrap_or_else(|| crate::config::STATE_DIR.into()),
        ),
    }
}

/// What `thaw --all --output json` prints.
#[derive(Debug, Serialize)]
struct All {
    version: u32,
    #[serde(serialize_with = "path_encoding::paths")]
    thawed: Vec<PathBuf>,
    failed: Vec<NotThawed>,
    /// What could not be looked at, in sentences.
    not_known: Vec<String>,
    /// The freeze for others that was ended too, or ended last.
    freeze: Option<HeldFreezeRecord>,
    exit_code: Exit,
}

/// Version of the JSON of `thaw --all`.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct NotThawed {
    #[serde(serialize_with = "path_encoding::path")]
    mount_point: PathBuf,
    why: &'static str,
}

fn everything(output: Output) -> Result<All, Error> {
    let Everything { thaws: (thawed, failed), unread } = rescue::everything()
        .map_err(|e| Error::new(Exit::StillFrozen, format!("cannot list the mounts: {e}")))?;
    if output == Output::Text {
        thawed.iter().for_each(|mount| print(&mount.display().to_string()));
    }
    let mut exit = failures(&failed).unwrap_or(Exit::Ok);
    for what in &unread {
        say(&format!("error: {what}"));
        exit = Exit::StillFrozen;
    }
    if !unread.is_empty() {
        say("hint: what is mounted there alone may still be frozen: `stillpoint status --probe`");
    }
    say(&format!("thawed {} filesystems", thawed.len()));
    let failed = failed.into_iter().map(|(mount_point, errno)| NotThawed { mount_point, why: why(errno) });
    let failed = failed.collect();
    Ok(All { version: VERSION, thawed, failed, not_known: unread, freeze: None, exit_code: exit })
}

fn failures(failed: &[(PathBuf, Errno)]) -> Option<Exit> {
    for (mount, errno) in failed {
        say(&format!("error: cannot thaw {}: {}", shown(mount), why(*errno)));
    }
    (!failed.is_empty()).then_some(Exit::StillFrozen)
}

fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::EBUSY => "a FIFREEZE of it is in progress, which nobody can end; try again after its end",
        Errno::ENOLINK => "it is mounted, and no path leads to it",
        Errno::ETIMEDOUT => "it does not answer: its path or its device hangs",
        other => other.desc(),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Prints what was done about a run that is over. Returns the exit code.
pub(super) fn report(run: &recover::Recovered) -> Exit {
    let mut exit = Exit::Ok;
    event::of_recovered(run).iter().for_each(log::tell);
    let how = if run.ended { "left something to be done" } else { "died before its end" };
    say(&format!("run {} {how}", run.run));
    for mount in &run.thawed {
        say(&format!("  thawed {}", mount.display()));
    }
    if run.rcu_restored {
        say("  put back /sys/kernel/rcu_expedited");
    }
    for mount in &run.remounted.mounted {
        say(&format!("  mounted {}", mount.display()));
    }
    for differs in &run.remounted.differs {
        say(&format!("warning: {differs}"));
        exit = Exit::After;
    }
    for outcome in run.remounted.outcomes.iter().chain(&run.released) {
        say(&format!("  {outcome}"));
        if !outcome.succeeded() {
            exit = Exit::After;
        }
    }
    for failed in &run.remounted.failed {
        say(&format!("error: {failed}"));
        exit = Exit::NotMounted;
    }
    if !run.judged.is_empty() && !run.ended {
        let ids: Vec<_> = run.judged.iter().map(|id| id.as_str()).collect();
        say(&format!("  it had made {}, which have its verdict", ids.join(" ")));
    }
    match run.unsettled.as_ref().map(|j| &j.state) {
        Some(state) if state.created == Created::No => {}
        Some(state) if state.verdict.as_ref().is_some_and(|v| !v.done) => {
            say(
                "  its snapshots lack the tags of their verdict: `stillpoint snapshot` adds them at its next start",
            );
        }
        Some(_) => say("  it may have made snapshots: `stillpoint snapshot` looks them up at its next start"),
        None => {}
    }
    failures(&run.failed).unwrap_or(exit)
}
