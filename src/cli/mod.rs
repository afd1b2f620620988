//! The command line: clap types here, one file a subcommand.
//!
//! In: argv. Out: an exit code; ids and JSON on stdout, all else on stderr. Must never: touch the host before
//! its input is checked.

mod after;
mod again;
mod ask;
mod before;
#[cfg(test)]
mod claims;
mod clone;
pub mod complete;
mod config;
mod copy;
mod delete;
mod doctor;
mod follow;
mod freeze;
mod iam_policy;
mod image;
mod keep;
mod list;
mod lock;
mod man;
mod plan;
mod prune;
mod refused;
mod regions;
mod rehearse;
mod restore;
mod sets;
mod share;
mod show;
mod snapshot;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod thaw;
mod tier;
mod told;
mod type_and_speed;
mod verify;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::settings::{GroupSettings, OnDegraded};
use crate::config::{self as configuration, Loaded, Overrides};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::kernel::{die_by, keep_inherited_fds};
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::{PrintableJson, printable_json, printable_lines};
use crate::plan::{Consistency, PointInTimeCall};

/// Consistent EBS snapshots, taken from inside the instance.
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, long_version = crate::build::long_version(), max_term_width = 80, after_help = after_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// Where what is printed goes, and how a command can end.
fn after_help() -> String {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.brief()));
    format!(
        "Snapshot ids and JSON go to stdout, everything else to stderr.\nExit codes: {}.\nMore: man stillpoint.",
        codes.join("; ")
    )
}

/// Options of every command, apart from its own.
const HEADING: &str = "Common options";
/// Options that take the place of what the plan says, for one run.
const OF_PLAN: &str = "In place of the plan";

#[derive(Debug, Subcommand)]
enum Command {
    /// Take a consistent set of snapshots.
    Snapshot(snapshot::Snapshot),
    /// Take a set, run a command, and say in the set's tags how that ended: before an upgrade.
    Before(before::Before),
    /// Copy the volumes of a plan, as one consistent set, into new volumes that can be attached in seconds.
    Clone(clone::Clone),
    /// Show what `snapshot` would do, and why. Changes nothing.
    Plan(plan::Plan),
    /// List the sets of snapshots there are.
    List(list::List),
    /// Show all of one set: its snapshots, filesystems, and who holds it.
    Show(show::Show),
    /// Read the data of a set, without a volume: does it keep what its label promises? Exit code 24 if not.
    Verify(verify::Verify),
    /// Make volumes of a set, and mount its filesystems beside what is there.
    Restore(restore::Restore),
    /// Register an AMI of a set, or of this instance, as that is; list, share and delete such.
    Image(image::Image),
    /// Wait until every snapshot of a set is completed.
    Wait(wait::Wait),
    /// Remove the sets that the plan's rules let go.
    Prune(prune::Prune),
    /// Keep a set until a day, whatever the rules say.
    Keep(keep::Keep),
    /// Let the rules decide about a set again.
    Release(keep::Release),
    /// Remove one set.
    Delete(delete::Delete),
    /// Bring a set back from the Recycle Bin.
    Undelete(delete::Undelete),
    /// Copy a set to other Regions, or encrypted to its own.
    Copy(copy::Copy),
    /// Let other accounts use the snapshots of a set.
    Share(share::Share),
    /// Take back what `share` gave.
    Unshare(share::Unshare),
    /// Lock the snapshots of a set, so that nobody deletes them until a day.
    Lock(lock::Lock),
    /// Take the locks off that can be taken off.
    Unlock(lock::Unlock),
    /// Move a set to the archive tier, or back.
    Tier(tier::Tier),
    /// Do what `snapshot` does, without the create call: measures the stall, suggests a window.
    Rehearse(rehearse::Rehearse),
    /// Freeze for somebody else's snapshots, and return. The freeze lasts until `thaw` or its deadline.
    Freeze(freeze::Freeze),
    /// End a held freeze, and undo what a run that died left behind. With --all, thaw every filesystem.
    Thaw(thaw::Thaw),
    /// Show what may be frozen, by which run, until when, what is still to be undone, and how each plan's last
    /// run ended.
    Status(status::Status),
    /// Look for what would make a run fail or lower its label, with remedies. Changes nothing.
    Doctor(doctor::Doctor),
    /// Print the least IAM policy for these commands and the configuration. Asks nothing of EC2.
    IamPolicy(iam_policy::IamPolicy),
    /// Show or check the configuration.
    Config(config::Config),
    /// Print what a shell reads to complete command lines.
    #[command(hide = true)]
    Completions(complete::Completions),
    /// Write the manual pages below a folder.
    #[command(hide = true)]
    Man(man::Man),
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file, instead of /etc/stillpoint/stillpoint.toml and its drop-ins.
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print more messages.
    #[arg(short, long, global = true, help_heading = HEADING, display_order = 900)]
    verbose: bool,
    /// This instance's id, instead of asking IMDS (needs --region too).
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "ID")]
    instance_id: Option<InstanceId>,
    /// Region, instead of asking IMDS; `list` and `show` take several.
    #[arg(long, global = true, help_heading = HEADING, display_order = 900)]
    region: Vec<String>,
    /// IMDS endpoint [env: AWS_EC2_METADATA_SERVICE_ENDPOINT].
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "URL")]
    imds_endpoint: Option<String>,
    /// EC2 endpoint [env: AWS_ENDPOINT_URL_EC2].
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Where the lock and the journal are; a memory filesystem [default: /run/stillpoint].
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "DIR", value_parser = absolute)]
    run_dir: Option<PathBuf>,
    /// Where records of sets are kept [default: /var/lib/stillpoint].
    #[arg(long, global = true, help_heading = HEADING, display_order = 900, value_name = "DIR", value_parser = absolute)]
    state_dir: Option<PathBuf>,
}

/// The selection of filesystems and volumes, and the requested consistency; these options override the
/// configured plan.
#[derive(Debug, Clone, Args)]
struct Selection {
    /// Name of a configured plan.
    #[arg(value_name = "PLAN")]
    plan: Option<String>,
    /// Only this mount point, and those that share its volumes; can be repeated.
    #[arg(long, help_heading = OF_PLAN, value_name = "PATH", value_parser = absolute)]
    mount: Vec<PathBuf>,
    /// Only this volume; can be repeated.
    #[arg(long, help_heading = OF_PLAN, value_name = "VOL")]
    volume: Vec<VolumeId>,
    /// Only volumes with this tag; an empty VALUE means any.
    #[arg(long, help_heading = OF_PLAN, value_name = "KEY=VALUE", value_parser = configuration::key_value)]
    volume_tag: Vec<(String, String)>,
    /// Leave this mount point out.
    #[arg(long, help_heading = OF_PLAN, value_name = "PATH", value_parser = absolute)]
    exclude_mount: Vec<PathBuf>,
    /// Leave this volume out.
    #[arg(long, help_heading = OF_PLAN, value_name = "VOL")]
    exclude_volume: Vec<VolumeId>,
    /// Leave the boot volume out.
    #[arg(long, help_heading = OF_PLAN)]
    exclude_boot_volume: bool,
    /// Take filesystems that are only partly on EBS or only partly in the set.
    #[arg(long, help_heading = OF_PLAN)]
    allow_partial: bool,
    /// Run in a container's PID namespace. If its first process dies while filesystems are frozen, the
    /// watchdog dies with it, and they stay frozen until `stillpoint thaw`.
    #[arg(long, help_heading = OF_PLAN)]
    allow_pid_namespace: bool,
    /// The consistency to request: crash, filesystem or application.
    #[arg(long, help_heading = OF_PLAN, value_name = "LABEL", value_parser = configuration::consistency)]
    consistency: Option<Consistency>,
    /// When less is achieved: fail (exit 22) or keep (exit 10).
    #[arg(long, help_heading = OF_PLAN, value_name = "WHAT", value_parser = configuration::on_degraded)]
    on_degraded: Option<OnDegraded>,
}

/// The same, with the options of commands that take a set or show what one would be.
#[derive(Debug, Clone, Args)]
struct Choice {
    #[command(flatten)]
    of_set: OfSet,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// What a set is to be.
#[derive(Debug, Clone, Args)]
struct OfSet {
    #[command(flatten)]
    selection: Selection,
    /// Hard limit of the frozen window, such as 10s.
    #[arg(long, help_heading = OF_PLAN, value_name = "TIME", value_parser = configuration::duration)]
    window: Option<Duration>,
    /// Tag for every snapshot; can be repeated.
    #[arg(long, help_heading = OF_PLAN, value_name = "KEY=VALUE", value_parser = configuration::key_value)]
    tag: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path, such as /data".to_owned()) }
}

/// Parses, runs, and returns the exit code. Usage errors exit with 64, not clap's 2.
#[must_use]
pub fn main() -> std::process::ExitCode {
    // The process may be started with signals blocked, and hooks would inherit that: the watchdog starts the
    // recovery with all of them blocked. (The watchdog cannot unblock them before: a pending signal would end
    // it first.)
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let (holder, arguments) = freeze::Holder::from_arguments(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            let exit = if e.use_stderr() { Exit::Usage } else { Exit::Ok };
            return exit.code().into();
        }
    };
    if !matches!(cli.command, Command::Before(_)) {
        keep_inherited_fds();
    }
    crate::report::log::start(cli.global.verbose);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Error::new(Exit::Bug, format!("cannot start the runtime: {e}"))),
    };
    let ended = runtime.block_on(async {
        let ended = match &cli.command {
            // Its status is that of the command that it runs.
            Command::Before(command) => return command.run(&cli.global).await,
            Command::Snapshot(command) => command.run(&cli.global).await,
            Command::Clone(command) => command.run(&cli.global).await,
            Command::Plan(command) => command.run(&cli.global).await,
            Command::List(command) => command.run(&cli.global).await,
            Command::Show(command) => command.run(&cli.global).await,
            Command::Verify(command) => command.run(&cli.global).await,
            Command::Restore(command) => command.run(&cli.global).await,
            Command::Image(command) => command.run(&cli.global).await,
            Command::Wait(command) => command.run(&cli.global).await,
            Command::Prune(command) => command.run(&cli.global).await,
            Command::Keep(command) => command.run(&cli.global).await,
            Command::Release(command) => command.run(&cli.global).await,
            Command::Delete(command) => command.run(&cli.global).await,
            Command::Undelete(command) => command.run(&cli.global).await,
            Command::Copy(command) => command.run(&cli.global).await,
            Command::Share(command) => command.run(&cli.global).await,
            Command::Unshare(command) => command.run(&cli.global).await,
            Command::Lock(command) => command.run(&cli.global).await,
            Command::Unlock(command) => command.run(&cli.global).await,
            Command::Tier(command) => command.run(&cli.global).await,
            Command::Rehearse(command) => command.run(&cli.global).await,
            Command::Freeze(command) => match holder {
                Some(holder) => command.hold(&cli.global, holder).await,
                None => command.run(&cli.global).await,
            },
            Command::Thaw(command) => command.run(&cli.global).await,
            Command::Doctor(command) => command.run(&cli.global).await,
            Command::Status(command) => command.run(&cli.global).await,
            Command::IamPolicy(command) => command.run(&cli.global).await,
            Command::Config(command) => command.run(&cli.global).await,
            Command::Completions(command) => Ok(command.run()),
            Command::Man(command) => command.run(),
        };
        ended.map(Exit::code)
    });
    // A thread of the system's resolver may hang in a look-up: do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code.into(),
        Err(e) => fail(&e),
    }
}

fn fail(error: &Error) -> std::process::ExitCode {
    say(&error.render());
    if let Some(signal) = error.signal {
        crate::gate::finish();
        die_by(signal);
    }
    error.exit.code().into()
}

/// Prose for people: stderr.
fn say(text: &str) {
    use std::io::Write;
    let text = format!("{}\n", printable_lines(text.trim_end_matches('\n')));
    let _ = crate::gate::Stderr.write_all(text.as_bytes());
}

/// Results for programs: stdout. A reader that has closed the pipe is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", printable_lines(text.trim_end_matches('\n')));
}

/// The same, for JSON.
fn print_json(json: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", printable_json(json.trim_end_matches('\n')));
}

/// A document as JSON, written as it is made: one about 100,000 snapshots is never in memory as a whole.
fn print_document(value: &impl serde::Serialize) -> Result<(), Error> {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match serde_json::to_writer_pretty(PrintableJson(&mut out), value) {
        Err(e) if !e.is_io() => return Err(Error::new(Exit::Bug, e)),
        _ => {}
    }
    let _ = writeln!(out);
    let _ = out.flush();
    Ok(())
}

impl Global {
    fn load(&self, plan: Option<&str>, overrides: Overrides) -> Result<Loaded, Error> {
        match self.region.as_slice() {
            [] => self.load_in(None, plan, overrides),
            [one] => self.load_in(Some(one), plan, overrides),
            several => {
                let what = format!("this command is about one Region, and not {}", several.join(", "));
                Err(Error::new(Exit::Usage, what).hint("name one --region; `list` and `show` take several"))
            }
        }
    }

    /// The same in this Region, of several.
    fn load_in(
        &self,
        region: Option<&str>,
        plan: Option<&str>,
        mut overrides: Overrides,
    ) -> Result<Loaded, Error> {
        overrides.instance_id.clone_from(&self.instance_id);
        overrides.region = region.map(str::to_owned);
        overrides.imds_endpoint.clone_from(&self.imds_endpoint);
        overrides.endpoint_url.clone_from(&self.endpoint_url);
        overrides.run_dir.clone_from(&self.run_dir);
        overrides.state_dir.clone_from(&self.state_dir);
        configuration::load(Path::new("/"), self.config.as_deref(), plan, &overrides).map_err(|e| {
            let hint = e.hint();
            Error::new(Exit::Config, e).maybe_hint(hint)
        })
    }
}

fn map(list: &[(String, String)]) -> Option<BTreeMap<String, String>> {
    (!list.is_empty()).then(|| list.iter().cloned().collect())
}

impl Selection {
    fn load(&self, global: &Global) -> Result<Loaded, Error> {
        global.load(self.plan.as_deref(), self.overrides())
    }

    fn overrides(&self) -> Overrides {
        fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
            (!list.is_empty()).then(|| list.to_vec())
        }
        Overrides {
            mounts: some(&self.mount),
            volumes: some(&self.volume),
            volume_tags: map(&self.volume_tag),
            exclude_mounts: some(&self.exclude_mount),
            exclude_volumes: some(&self.exclude_volume),
            exclude_boot_volume: self.exclude_boot_volume.then_some(true),
            allow_partial: self.allow_partial.then_some(true),
            allow_pid_namespace: self.allow_pid_namespace.then_some(true),
            consistency: self.consistency,
            on_degraded: self.on_degraded,
            ..Overrides::default()
        }
    }
}

impl Choice {
    fn load(&self, global: &Global) -> Result<Loaded, Error> {
        global.load(self.of_set.selection.plan.as_deref(), self.overrides())
    }

    fn overrides(&self) -> Overrides {
        let OfSet { selection, window, tag } = &self.of_set;
        Overrides { window: *window, tags: map(tag), ..selection.overrides() }
    }
}

/// Freezing and thawing need CAP_SYS_ADMIN.
fn need_root() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(Exit::Permission, "freezing filesystems needs root (CAP_SYS_ADMIN)")
        .hint("run it with sudo"))
}

/// The engine of a group.
fn engine(group: &GroupSettings) -> Result<crate::group::etcd::Etcd, Error> {
    crate::group::etcd::Etcd::new(group).map_err(|e| {
        let hint = e.hint.clone();
        Error::new(Exit::Config, e).hint(hint)
    })
}

/// The number of calls in flight at once in the window.
fn calls(call: &PointInTimeCall) -> usize {
    match call {
        PointInTimeCall::CreateSnapshotEach { volumes } => volumes.len(),
        _ => 1,
    }
}
