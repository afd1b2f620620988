//! `stillpoint freeze`: quiesce, freeze, and return while a process of its own holds the freeze.
//!
//! In: the choice, and the longest time to stay frozen. Out: the run's id (or JSON) on stdout once everything
//! is frozen. Must never: return 0 while a filesystem is not frozen, or leave a freeze that the caller does
//! not know of: if this command dies before it has printed the freeze, the holder thaws.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::start::{OWN_PROGRAM, clean_up, environment, plan_and_settle, prepare_process};
use super::{Global, Output, Selection, print, print_document, say};
use crate::config::Loaded;
use crate::doctor::{refuse, storage};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::{file, superblock};
use crate::ids::{DevNo, RunId};
use crate::interrupt::Interrupt;
use crate::report;
use crate::run::control_socket::{self, ControlSocket};
use crate::run::held_record::HeldFreezeRecord;
use crate::run::{Job, held_freeze, journal, lock, recover};

/// The hidden first argument of the process that holds the freeze. The run's id and the caller's outputs
/// follow it.
const HOLDER: &str = "__hold";
/// Limits of `--for`.
const LASTS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(600));
/// Pause between two reads of the holder's log.
const RELAY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct Freeze {
    #[command(flatten)]
    selection: Selection,
    /// Longest time to stay frozen, such as 30s; at most 10m. When it is over, everything is thawed.
    #[arg(long = "for", value_name = "TIME", value_parser = lasts, required_unless_present = "dry_run")]
    lasts: Option<Duration>,
    /// The run's id, a UUID, instead of a new one.
    #[arg(long, value_name = "UUID")]
    run: Option<RunId>,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

fn lasts(text: &str) -> Result<Duration, String> {
    let lasts = crate::config::duration(text).map_err(|e| e.to_string())?;
    let show = humantime::format_duration;
    if (LASTS.0..=LASTS.1).contains(&lasts) {
        return Ok(lasts);
    }
    Err(format!("is {}, outside {} to {}", show(lasts), show(LASTS.0), show(LASTS.1)))
}

/// What the process that holds the freeze is started with.
#[derive(Debug)]
pub(super) struct Holder {
    run: RunId,
    outputs: Vec<DevNo>,
}

impl Holder {
    /// Removes the hidden arguments, if there are any.
    pub(super) fn from_arguments(mut arguments: Vec<OsString>) -> (Option<Self>, Vec<OsString>) {
        if arguments.get(1).is_none_or(|a| a != HOLDER) {
            return (None, arguments);
        }
        let text = |i: usize| arguments.get(i).and_then(|a| a.to_str()).unwrap_or_default();
        let outputs = text(3).split(',').filter_map(|d| d.parse().ok()).collect();
        let holder = text(2).parse().ok().map(|run| Self { run, outputs });
        arguments.drain(1..arguments.len().min(4));
        (holder, arguments)
    }
}

impl Freeze {
    /// Runs the command that the orchestrator calls: starts the holder, prints its record, and relays its
    /// log.
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if self.dry_run {
            return super::plan::show_freeze(&self.selection.load(global)?, self.output).await;
        }
        super::need_root()?;
        let loaded = self.selection.load(global)?;
        let run_dir = loaded.settings.run_dir;
        let run = self.run.clone().unwrap_or_else(RunId::generate);
        let failed =
            |what: &str, e: std::io::Error| Error::new(Exit::Permission, format!("cannot {what}: {e}"));
        let folder = journal::folder(&run_dir);
        file::make_passage(&run_dir)
            .and_then(|()| file::make_folder(&folder, 0o700))
            .map_err(|e| failed("make the run folder", e))?;
        refuse(storage::own_folder("run_dir", &folder))?;
        let log = control_socket::log_of(&run_dir, &run);
        let mut relay = Relay::open(&log).map_err(|e| failed("write the run's log", e))?;
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(|e| failed("make a socket", e))?;
        let output = || relay.file.try_clone().map(Stdio::from).map_err(|e| failed("write the run's log", e));
        let mut holder = Command::new(OWN_PROGRAM)
            .arg0("stillpoint")
            .arg(HOLDER)
            .arg(run.as_str())
            .arg(outputs())
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output()?)
            .stderr(output()?)
            .spawn()
            .map_err(|e| failed("start the process that holds the freeze", e))?;
        ours.set_nonblocking(true).map_err(|e| failed("make a socket", e))?;
        let mut from = BufReader::new(UnixStream::from_std(ours).map_err(|e| failed("make a socket", e))?);
        let record = {
            let next = control_socket::next_record(&mut from);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    record = &mut next => break record,
                    () = tokio::time::sleep(RELAY) => relay.pass_on(),
                }
            }
        };
        relay.pass_on();
        match record {
            Some(record) if record.lasts() => {
                self.report(&record)?;
                match control_socket::confirm(&mut from).await {
                    Ok(()) => Ok(Exit::Ok),
                    Err(_) => Err(Error::new(Exit::NotHeld, "the process that holds the freeze is gone")
                        .hint("`stillpoint thaw` undoes what it left")),
                }
            }
            Some(record) => {
                self.report(&record)?;
                // The holder has the lock until it has ended, and it cannot end while its FIFREEZE is in
                // progress.
                let end = Instant::now() + Duration::from_secs(2);
                while matches!(holder.try_wait(), Ok(None)) && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(record.exit)
            }
            None => {
                let status = holder.wait().map_err(|e| failed("wait for the holder", e))?;
                relay.pass_on();
                let exit = Exit::ALL.into_iter().find(|e| status.code() == Some(e.code().into()));
                if let Some(exit) = exit.filter(|e| *e != Exit::Ok) {
                    return Ok(exit); // it has printed why
                }
                let dead = recover::local(&run_dir).await;
                let exits = dead
                    .recovered
                    .iter()
                    .map(super::thaw::report)
                    .map(|e| if e == Exit::StillFrozen { e } else { Exit::Freeze });
                let exit = exits.max_by_key(|e| e.code()).unwrap_or(Exit::Freeze);
                Err(Error::new(exit, format!("the process that was to hold the freeze died ({status})")))
            }
        }
    }

    fn report(&self, record: &HeldFreezeRecord) -> Result<(), Error> {
        match self.output {
            Output::Text if record.lasts() => print(record.run_id.as_str()),
            Output::Text => {}
            Output::Json => {
                print_document(record)?;
            }
        }
        say(&report::held_freeze::human(record));
        Ok(())
    }

    /// The process that holds the freeze.
    pub(super) async fn hold(&self, global: &Global, holder: Holder) -> Result<Exit, Error> {
        let bug = |what: &str| Error::new(Exit::Bug, format!("cannot {what}"));
        // Started from /proc/self/exe, it would be called `exe`.
        let _ = nix::sys::prctl::set_name(c"stillpoint");
        // A session of its own, so that signals of the terminal or for the caller's process group do not
        // reach it.
        nix::unistd::setsid().map_err(|_| bug("make a session"))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let caller = std::io::stdin().as_fd().try_clone_to_owned().map_err(|_| bug("use standard input"))?;
        let loaded = self.selection.load(global)?;
        prepare_process();
        let mut interrupt = Interrupt::listen().map_err(|_| bug("catch signals"))?;
        // After a signal it exits with a code instead of dying by the signal: the waiting command would take
        // such a death for a crash that has to be undone.
        let held = self.locked(&loaded, holder, caller, &mut interrupt).await;
        held.map_err(|e| Error { signal: None, ..e })
    }

    async fn locked(
        &self,
        loaded: &Loaded,
        holder: Holder,
        caller: OwnedFd,
        interrupt: &mut Interrupt,
    ) -> Result<Exit, Error> {
        let settings = &loaded.settings;
        let lasts = self.lasts.ok_or_else(|| Error::new(Exit::Usage, "`freeze` needs --for"))?;
        let _lock = lock::take(&settings.run_dir, Duration::ZERO).await?;
        let unsettled = clean_up(&settings.run_dir).await?;
        let mut control = ControlSocket::open(&settings.run_dir, &holder.run, caller).map_err(|e| {
            Error::new(Exit::Permission, format!("cannot make the socket for `thaw`: {e}"))
                .hint("the path of run_dir may be too long: a socket's is at most 107 bytes")
        })?;
        let mut early = interrupt.clone();
        let planned = tokio::select! {
            planned = plan_and_settle(loaded, unsettled) => planned?,
            signal = early.caught() => return Err(Error::interrupted(signal)),
        };
        let env = environment(loaded, &planned.ec2);
        let job = Job::new(holder.run, &planned.facts, &planned.plan, &settings.plan)?;
        let held = held_freeze::hold(&env, &job, lasts, &holder.outputs, &mut control, interrupt);
        let record = held.await?;
        control.close(&record).await;
        Ok(record.thaw_exit())
    }
}

/// The superblocks that this command's output is written to. The holder refuses to freeze those, since
/// writing would block.
fn outputs() -> String {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let devices = [on(&out), on(&err)];
    devices.into_iter().flatten().map(|d| d.to_string()).collect::<Vec<_>>().join(",")
}

/// A file from another mount namespace is not in this process's mount table. Its st_dev is the superblock's
/// number on every filesystem but btrfs.
fn on(fd: &impl AsFd) -> Option<DevNo> {
    let st_dev = || Some(DevNo::from_raw(nix::sys::stat::fstat(fd).ok()?.st_dev));
    superblock::of_fd(fd).or_else(st_dev)
}

/// Copies what the holder logs to stderr. The holder does not inherit the caller's pipes, because whoever
/// reads them may wait for their end.
struct Relay {
    file: std::fs::File,
    seen: u64,
    path: PathBuf,
}

impl Relay {
    fn open(path: &std::path::Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { seen: file.metadata()?.len(), file, path: path.to_path_buf() })
    }

    fn pass_on(&mut self) {
        let mut new = Vec::new();
        let read = std::fs::File::open(&self.path).and_then(|mut f| {
            f.seek(SeekFrom::Start(self.seen))?;
            f.read_to_end(&mut new)
        });
        if let Ok(n) = read {
            self.seen += u64::try_from(n).unwrap_or_default();
            let _ = crate::gate::Stderr.write_all(&new);
        }
    }
}
