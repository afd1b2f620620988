//! `stillpoint thaw`: the rescue.
//!
//! In: journals of dead runs, or every mount. Out: what was thawed and released. Must never: need EC2, IMDS, the configuration or the
//! network: it is run on the worst day.

use std::path::Path;

use clap::Args;

use super::{Global, print, say};
use crate::error::Error;
use crate::exit::Exit;
use crate::run::journal::Created;
use crate::run::recover;

#[derive(Debug, Args)]
pub(super) struct Thaw {
    /// Thaw every filesystem of this host, whoever froze it.
    #[arg(long)]
    all: bool,
}

impl Thaw {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        super::need_root()?;
        // A broken configuration must not keep the rescue from working.
        let run_dir = match global.load(None, crate::config::Overrides::default()) {
            Ok(loaded) => loaded.settings.run_dir,
            Err(_) => global.run_dir.clone().unwrap_or_else(|| Path::new("/run/stillpoint").to_path_buf()),
        };
        let mut exit = Exit::Ok;
        let (recovered, unreadable) = recover::local(&run_dir).await;
        for text in unreadable {
            say(&format!("warning: cannot read the journal {text}"));
            exit = Exit::After;
        }
        for run in &recovered {
            exit = worse(exit, report(run));
        }
        if self.all {
            let (thawed, failed) = recover::thaw_everything()
                .map_err(|e| Error::new(Exit::StillFrozen, format!("cannot list the mounts: {e}")))?;
            for mount in &thawed {
                print(&mount.display().to_string());
            }
            for (mount, errno) in &failed {
                say(&format!("error: cannot thaw {}: {}", mount.display(), errno.desc()));
                exit = Exit::StillFrozen;
            }
            say(&format!("thawed {} filesystems", thawed.len()));
        } else if recovered.is_empty() {
            say("no run left anything behind");
        }
        Ok(exit)
    }
}

/// Says what was done about a dead run; the exit code that it asks for.
pub(super) fn report(run: &recover::Recovered) -> Exit {
    let mut exit = Exit::Ok;
    say(&format!("run {} died before its end", run.run));
    for mount in &run.thawed {
        say(&format!("  thawed {}", mount.display()));
    }
    for mount in &run.back.mounted {
        say(&format!("  mounted {}", mount.display()));
    }
    for differs in &run.back.differs {
        say(&format!("warning: {differs}"));
        exit = Exit::After;
    }
    for outcome in run.back.outcomes.iter().chain(&run.released) {
        say(&format!("  {outcome}"));
        if !outcome.succeeded() {
            exit = Exit::After;
        }
    }
    for failed in &run.back.failed {
        say(&format!("error: {failed}"));
        exit = Exit::NotMounted;
    }
    if run.unsettled.as_ref().is_some_and(|j| j.state.created != Created::No) {
        say("  it may have made snapshots: `stillpoint snapshot` looks them up at its next start");
    }
    for (mount, errno) in &run.failed {
        say(&format!("error: cannot thaw {}: {}", mount.display(), errno.desc()));
        exit = Exit::StillFrozen;
    }
    exit
}

fn worse(a: Exit, b: Exit) -> Exit {
    // 40 outranks every other code, 41 the rest.
    let rank = |exit: Exit| match exit {
        Exit::StillFrozen => u8::MAX,
        other => other.code(),
    };
    if rank(b) > rank(a) { b } else { a }
}
