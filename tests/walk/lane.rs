//! One case after another over one pair of filesystems: the agent is started, hit, and what it leaves is
//! looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::Value;
use stillpoint::host::kernel::{Kernel as _, Linux};

use crate::agent;
use crate::check::Checks;
use crate::load::{Load, now};
use crate::points::{Case, End, Fault, POST_RUNNING, THAW, Until};
use rig::control_group::{ControlGroup, Hierarchy};
use rig::patience::{self, let_pass};
use rig::probe::guards;
use rig::program::{Ended, Run, put_executable};
use rig::{Fs, NO_INTERVAL, Rig, ebs_sim};

/// Promise P1, with what a thaw may take: this long after the deadline nothing is frozen.
const GRACE: Duration = Duration::from_millis(250);

/// What became of one case.
pub struct Outcome {
    pub case: Case,
    pub end: Option<End>,
    /// Points that the agent came by.
    pub reached: Vec<String>,
    /// From the fault until the last filesystem was let go, where one was held.
    pub thawed_ns: Option<i128>,
    /// This machine was too busy: the run ended with less than it would have, and said so.
    pub busy: bool,
    /// The kernel made a filesystem read-only, see [`made_read_only`].
    pub read_only: bool,
    /// What was not as it has to be.
    pub wrong: Vec<String>,
}

/// What the agent noted.
#[derive(Debug, Default, Clone)]
pub struct Events(pub Vec<(i128, String)>);

impl Events {
    fn read(rig: &Rig) -> Self {
        let text = std::fs::read_to_string(rig.path("events")).unwrap_or_default();
        let line = |l: &str| l.split_once(' ').map(|(t, n)| (t.parse().unwrap(), n.to_owned()));
        Self(text.lines().filter_map(line).collect())
    }

    pub fn at(&self, name: &str) -> Option<i128> {
        self.0.iter().find(|(_, n)| n == name).map(|(t, _)| *t)
    }

    pub fn struck(&self) -> Option<i128> {
        self.0.iter().find(|(_, n)| n.starts_with('!')).map(|(t, _)| *t)
    }
}

pub struct Lane {
    pub rig: Rig,
    group: Option<ControlGroup>,
    load: Vec<Load>,
    fds: Vec<File>,
    number: usize,
}

impl Lane {
    pub fn new(fs: Fs) -> Self {
        let rig = Rig::start(&[("a", fs), ("b", fs)]);
        let load = rig.mounts().iter().map(|m| Load::start(m)).collect();
        let fds = rig.mounts().iter().map(|m| File::open(m).unwrap()).collect();
        let group = ControlGroup::new(&rig, Hierarchy::Unified);
        Self { rig, group, load, fds, number: 0 }
    }

    /// Does one case and looks at everything.
    pub fn walk(&mut self, case: &Case) -> Outcome {
        self.number += 1;
        self.rig.renew_rescue();
        let fault = self.prepare(case);
        // The window is short where its deadline is waited for. In every second case it ends before the
        // watchdog would notice the missing heartbeat.
        let window = match case.fault {
            Fault::Stop if self.number.is_multiple_of(2) => 450,
            Fault::Stop | Fault::Pause | Fault::FreezeGroup => 1000,
            _ => 3000,
        };
        let mut window = Duration::from_millis(window);
        let mut checks = Checks::default();
        let mut ended = self.agent(case, fault, window, &mut checks);
        let mut events = Events::read(&self.rig);
        // A busy machine may not get to the point within a short window: then once more, with a longer one.
        for _ in 0..3 {
            let too_slow = ended.as_ref().is_some_and(|e| too_busy(e.code, &e.out));
            if events.struck().is_some() || case.api.is_some() || !too_slow {
                break;
            }
            window *= 4;
            self.rig.renew_rescue();
            let fault = self.prepare(case);
            ended = self.agent(case, fault, window, &mut checks);
            events = Events::read(&self.rig);
        }
        let Some(ended) = ended else {
            checks.that(false, || "the agent did not end".to_owned());
            let (case, wrong) = (case.clone(), checks.wrong);
            return Outcome {
                case,
                end: None,
                reached: vec![],
                thawed_ns: None,
                busy: false,
                read_only: false,
                wrong,
            };
        };
        let end = ended.code.map_or(End::Signal(ended.signal.unwrap_or_default()), End::Code);
        // A fault of the API may end a run before it gets there.
        checks.that(events.struck().is_some() || case.api.is_some(), || {
            format!("{} was not reached: {}", case.point, ended.err)
        });
        let busy = !case.ends().contains(&end) && too_busy(ended.code, &ended.out);
        let ends = case.ends();
        if !busy {
            checks.that(ends.contains(&end), || {
                format!("{end}, not one of {ends:?}: {}{}", ended.out, ended.err)
            });
        }
        self.nothing_left(&mut checks);
        let failed: Vec<String> = self.load.iter().filter_map(Load::failed).collect();
        let read_only = !failed.is_empty() && made_read_only(case);
        checks.that(failed.is_empty() || read_only, || format!("a writer failed: {}", failed.join(", ")));
        if read_only {
            let (case, wrong) = (case.clone(), checks.wrong);
            *self = Self::new(case.fs);
            return Outcome {
                case,
                end: Some(end),
                reached: vec![],
                thawed_ns: None,
                busy,
                read_only,
                wrong,
            };
        }
        checks.run(&self.rig, &self.load, case, &events, &ended);
        if checks.wrong.is_empty() {
            self.remove();
        }
        let thawed_ns = events.struck().filter(|_| case.point.in_window()).and_then(|t| {
            let let_go = self.load.iter().filter_map(|l| l.let_go(t)).max()?;
            Some(let_go - t)
        });
        let reached = events.0.iter().map(|(_, n)| n.clone()).collect();
        Outcome {
            case: case.clone(),
            end: Some(end),
            reached,
            thawed_ns,
            busy,
            read_only,
            wrong: checks.wrong,
        }
    }

    fn remove(&self) {
        let of_hooks = ["hooks", "hook", "fail-pre", "fail-post", "signal", "signal-sent", "go-on"];
        for name in ["run", "state", "events", "run-id"].into_iter().chain(of_hooks) {
            let path = self.rig.path(name);
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }

    /// Everything is as before the first case. Out: the fault of the API that the point needs.
    fn prepare(&self, case: &Case) -> Option<u64> {
        self.rig.await_quiet();
        self.rig.control("POST", "reset", "");
        let needed = case.point.needs().map(|kind| {
            let fault = format!(r#"{{"action": "CreateSnapshots", "call": 1, "kind": "{kind}"}}"#);
            self.rig.control("POST", "faults", &fault)["id"].as_u64().unwrap()
        });
        if let Some(api) = case.api {
            self.rig.control("POST", "faults", api.body);
        }
        self.remove();
        let d = self.rig.path("").display().to_string();
        // It notes what it does, fails when it is told to, and sends its parent a signal when it is told to.
        // Then it runs until it may go on: the signal meets the parent while that waits for the hook.
        let hook = format!(
            r#"#!/bin/sh
echo "$1 $2 $STILLPOINT_RUN_ID" >> {d}hooks
if [ -e {d}signal ] && [ "$1-running 1" = "$(sed -n 1p {d}signal)" ]; then
    signal=$(sed -n 2p {d}signal)
    rm {d}signal
    echo "$(date +%s%N) $1-running#1
$(date +%s%N) !" >> {d}events
    kill -s "$signal" $PPID
    : > {d}signal-sent
    until [ -e {d}go-on ]; do sleep 0.01; done
fi
[ ! -e {d}fail-$1 ]
"#
        );
        let path = self.rig.path("hook");
        put_executable(&path, hook);
        let hooks: String = [1, 2]
            .iter()
            .map(|n| {
                format!(
                    "[[hook]]\nname = \"h{n}\"\npre = [\"{d}hook\", \"pre\", \"{n}\"]\n\
                     post = [\"{d}hook\", \"post\", \"{n}\"]\ntimeout = \"10s\"\n"
                )
            })
            .collect();
        std::fs::write(self.rig.path("stillpoint.toml"), format!("{hooks}{NO_INTERVAL}")).unwrap();
        if let Some((phase, "running")) = case.point.name.split_once('-') {
            let signal = match case.fault {
                Fault::Term => "TERM",
                Fault::Int => "INT",
                Fault::Kill => "KILL",
                _ => "STOP",
            };
            let mut file = File::create(self.rig.path("signal")).unwrap();
            write!(file, "{phase}-running 1\n{signal}\n").unwrap();
        }
        needed
    }

    /// Runs the agent to its end, with the fault of the API that the case's point needs. What may only be
    /// seen while the agent is stopped is looked at here.
    fn agent(&self, case: &Case, fault: Option<u64>, window: Duration, checks: &mut Checks) -> Option<Ended> {
        let mut command = Command::new(ebs_sim());
        command.arg("exec").arg("--dir").arg(self.rig.path("sim")).arg("--");
        command.arg(std::env::current_exe().unwrap());
        let folder = self.rig.path("");
        let env = BTreeMap::from([
            (agent::CASE, case.to_string()),
            (agent::FOLDER, folder.to_str().unwrap().to_owned()),
            (agent::WINDOW, format!("{}ms", window.as_millis())),
        ]);
        command.envs(env).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        if let Some(fault) = fault.filter(|_| case.point.holds()) {
            let control = self.rig.ready["control"].as_str().unwrap().trim_start_matches("http://");
            command.env(agent::HOLD, format!("{control} {fault}"));
        }
        let mut run = Run::start(match &self.group {
            Some(group) => group.within(command.env(agent::GROUP, group.path())),
            None => command,
        });
        let stops = case.fault.stops();
        let limit = Instant::now() + patience::RUN;
        let (mut stopped, mut held) = (false, case.until());
        while !run.over() {
            if Instant::now() > limit {
                run.signal(Signal::SIGKILL);
                return None;
            }
            let look = stops && !stopped || held == Until::Thaw;
            let events = if look { Events::read(&self.rig) } else { Events::default() };
            let is_stopped = || match case.fault {
                Fault::FreezeGroup => self.group.as_ref().is_some_and(ControlGroup::is_frozen),
                _ => is_stopped(run.pid()),
            };
            let stands = stops && !stopped && events.struck().is_some() && is_stopped();
            let release = match held {
                Until::Never => false,
                Until::Seen => self.rig.control("GET", "held", "") != Value::Array(vec![]),
                Until::Thaw => stands || events.at(&format!("{THAW}#1")).is_some(),
            };
            if release {
                held = Until::Never;
                self.rig.control("DELETE", "faults", ""); // what they hold goes on
            }
            // A signal does not stop a post hook. A pre hook it stops: that one may not go on before.
            let ignored = case.point.is(POST_RUNNING) && !stops;
            if ignored && self.rig.path("signal-sent").exists() && took_signals(run.pid()) {
                self.let_the_hook_go_on();
            }
            if stands {
                stopped = true;
                self.while_stopped(&events, window, checks);
                match (case.fault, &self.group) {
                    (Fault::FreezeGroup, Some(group)) => {
                        group.set("cgroup.freeze", "0");
                    }
                    (Fault::Stop, _) => run.signal(Signal::SIGKILL),
                    _ => run.signal(Signal::SIGCONT),
                }
                self.let_the_hook_go_on();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let died = now();
        self.let_the_hook_go_on();
        if held != Until::Never {
            self.rig.control("DELETE", "faults", "");
        }
        let ended = run.end();
        let deadline = deadline(&Events::read(&self.rig), window);
        match deadline {
            // The agent ended by itself, so what its exit code says must be true already.
            _ if ended.code.is_some_and(|c| c != 40) => {}
            Some(deadline) => {
                let goes_on = || self.load.iter().all(|l| l.wrote_after(died) || l.failed().is_some());
                // A FIFREEZE that is in progress when the agent dies freezes late, for a moment: until its process
                // is gone, a writer that goes on proves nothing.
                while now() < deadline && !(goes_on() && guards(&self.rig).is_empty()) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            None => {}
        }
        self.not_frozen(checks, "at the end of the agent, or after the deadline");
        Some(ended)
    }

    fn while_stopped(&self, events: &Events, window: Duration, checks: &mut Checks) {
        let in_window = events.at("thawed#1").is_none();
        // Without a deadline nothing is frozen, and nothing has to be thawed.
        if let Some(deadline) = deadline(events, window).filter(|_| in_window) {
            let left = u64::try_from(deadline - now()).unwrap_or_default();
            let_pass("the deadline, with the agent stopped", Duration::from_nanos(left));
            self.not_frozen(checks, "after the deadline, with the agent stopped");
        }
    }

    fn let_the_hook_go_on(&self) {
        File::create(self.rig.path("go-on")).unwrap();
    }

    /// FITHAW says EINVAL where nothing is frozen; where something is, this thaws it.
    fn not_frozen(&self, checks: &mut Checks, when: &str) {
        for (fd, mount) in self.fds.iter().zip(self.rig.mounts()) {
            let said = Linux.thaw(fd.as_fd());
            checks.that(said == Err(Errno::EINVAL), || {
                format!("{} was frozen {when} (FITHAW: {said:?})", mount.display())
            });
        }
    }

    fn nothing_left(&self, checks: &mut Checks) {
        let end = Instant::now() + patience::CONDITION;
        while !guards(&self.rig).is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        checks.that(guards(&self.rig).is_empty(), || "a watchdog or a freezer is left".to_owned());
        self.not_frozen(checks, "after they had gone");
        checks.that(!self.rig.rescued(), || "the rescue had to thaw".to_owned());
        let died = now();
        let limit = Instant::now() + patience::CONDITION;
        let goes_on = |l: &Load| l.wrote_after(died) || l.failed().is_some();
        while !self.load.iter().all(goes_on) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        checks.that(self.load.iter().all(goes_on), || "a writer is stuck".to_owned());
    }
}

/// SIGKILL, while one of the agent's threads is inside FITHAW, makes a btrfs read-only (Linux 6.18:
/// `btrfs_unfreeze` takes the EINTR from reading its superblock for a superblock that was changed meanwhile).
/// No program can prevent what SIGKILL does to it.
fn made_read_only(case: &Case) -> bool {
    let killed = matches!(case.fault, Fault::Kill | Fault::KillGroup);
    case.fs == Fs::Btrfs && killed && case.point.in_window()
}

/// The window was too short; or a loop device counted a write long after whoever waited for it had gone on
/// (the kernel's thread is preempted in between), and so it seems to have been written to while frozen.
pub fn too_busy(code: Option<i32>, said: &str) -> bool {
    let says = |text: &str| said.contains(text);
    match code {
        Some(21) => says("freezing took longer than"),
        Some(22) => says(" was written to (") || says(" had a write in flight"),
        Some(23) => says("did not answer within the window"),
        _ => false,
    }
}

/// When nothing may be frozen any more. The window begins no earlier than the step is told.
fn deadline(events: &Events, window: Duration) -> Option<i128> {
    let began = events.at("freezing#1")?;
    Some(began + i128::try_from((window + GRACE).as_nanos()).unwrap())
}

/// Is no signal on its way to this process any more?
fn took_signals(pid: nix::unistd::Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter(|l| l.starts_with("SigPnd:") || l.starts_with("ShdPnd:"));
    pending.filter_map(|l| l.split_whitespace().nth(1)).all(|mask| mask.bytes().all(|b| b == b'0'))
}

fn is_stopped(pid: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}
