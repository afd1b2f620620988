//! Three hosts and an etcd, one case after another: the members are started, one is struck, and what is left is
//! looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use rig::etcd::Etcd;
use rig::hosts::{GROUP, Hosts, NAMES, Witness};
use rig::patience;
use rig::probe::guards;
use rig::program::{Ended, Run};
use rig::{Fs, Rig, ebs_sim};
use stillpoint::host::kernel::{Kernel as _, Linux};

use crate::agent;
use crate::cases::{Case, Fault, When};
use crate::check;
use crate::load::{Load, now};

/// Seconds, short because most cases wait for one of them. Where nothing goes wrong, none of them may be met.
const WAIT: u32 = 6;
const LEASE: u32 = 3;
const CALL: u32 = 1;
const WINDOW: u32 = 4;
/// How often a case is tried whose step a busy machine did not come to: each time with twice the time.
const TRIES: u32 = 5;

/// What became of one case.
pub struct Outcome {
    pub case: Case,
    pub ends: Vec<String>,
    /// How many hosts have a set that says `group`.
    pub group: usize,
    pub wrong: Vec<String>,
    took: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, ends, group, wrong, took } = self;
        let said = if wrong.is_empty() { "ok" } else { "WRONG" };
        write!(
            f,
            "{said:5} {:36} {:22} group {group}  {:.1} s",
            case.to_string(),
            ends.join(" "),
            took.as_secs_f64()
        )
    }
}

/// The steps that a member came by.
#[derive(Debug, Default, Clone)]
pub struct Events(pub Vec<(i128, String)>);

impl Events {
    pub fn read(rig: &Rig) -> Self {
        let text = std::fs::read_to_string(rig.path("events")).unwrap_or_default();
        let line = |l: &str| l.split_once(' ').map(|(t, n)| (t.parse().unwrap(), n.to_owned()));
        Self(text.lines().filter_map(line).collect())
    }

    /// The last time.
    pub fn at(&self, name: &str) -> Option<i128> {
        self.0.iter().rev().find(|(_, n)| n == name).map(|(t, _)| *t)
    }
}

pub struct Lane {
    pub hosts: Hosts,
    pub loads: Vec<Load>,
    fds: Vec<File>,
    _witness: Witness,
}

impl Lane {
    pub fn new() -> Self {
        let hosts = Hosts::start(Etcd::plain(), Fs::Ext4);
        hosts.configure(rig::hosts::TIMES, "");
        let mounts = hosts.mounts();
        let loads = mounts.iter().map(|mount| Load::start(mount)).collect();
        let fds = mounts.iter().map(|mount| File::open(mount).unwrap()).collect();
        let witness = Witness::start(&mounts);
        witness.await_rounds(2);
        Self { hosts, loads, fds, _witness: witness }
    }

    /// Does one case and looks at everything.
    pub fn walk(&mut self, case: &Case) -> Outcome {
        let began = Instant::now();
        let mut wrong = Vec::new();
        let mut tries = 0;
        let ended = loop {
            let longer = 1 << tries;
            tries += 1;
            self.prepare(case, longer);
            let (ended, reached) = self.members(case, longer, &mut wrong);
            self.restore(case);
            self.nothing_left(&mut wrong);
            if reached || !wrong.is_empty() {
                break ended;
            }
            // The members' short times have ended the run before: nothing was tried.
            if tries == TRIES {
                wrong.push("never came to where it is struck".to_owned());
                break ended;
            }
            println!("not reached, once more: {case}");
        };
        let group = check::labels(self, case, &ended, &mut wrong);
        let end = |e: &Ended| {
            e.code.map_or_else(|| format!("sig{}", e.signal.unwrap_or_default()), |c| c.to_string())
        };
        let ends = ended.iter().map(end).collect();
        if !wrong.is_empty() {
            for (n, e) in ended.iter().enumerate() {
                wrong.push(format!("{}: {}{}", NAMES[n], e.out, e.err));
                wrong.push(format!("{:?}", Events::read(&self.hosts.rigs[n])));
            }
        }
        Outcome { case: case.clone(), ends, group, wrong, took: began.elapsed() }
    }

    fn prepare(&mut self, case: &Case, longer: u32) {
        let (wait, lease, call) = (WAIT * longer, (LEASE * longer).min(60), CALL * longer);
        let short = format!(
            "join_timeout = \"{wait}s\"\nready_timeout = \"{wait}s\"\nsettle_timeout = \"{wait}s\"\n\
             lease = \"{lease}s\"\ncall_timeout = \"{call}s\"\n"
        );
        // Where nothing goes wrong, a busy machine must not make something go wrong.
        let times = if case.is_plain() { rig::hosts::TIMES } else { &short };
        self.hosts.configure(times, "");
        for rig in &mut self.hosts.rigs {
            rig.await_quiet();
            rig.control("POST", "reset", "");
            rig.renew_rescue();
            for name in ["run", "state", "events", "struck"] {
                let path = rig.path(name);
                let _ =
                    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
        if let Some(api) = case.api {
            let of = if api.elsewhere { (case.who + 1) % NAMES.len() } else { case.who };
            self.hosts.rigs[of].control("POST", "faults", api.fault);
        }
    }

    fn start(&self, n: usize, case: &Case, longer: u32, strike: bool) -> Run {
        let rig = &self.hosts.rigs[n];
        let mut command = Command::new(ebs_sim());
        command.arg("exec").arg("--dir").arg(rig.path("sim")).arg("--");
        command.arg(std::env::current_exe().unwrap());
        let short = format!("{}s", WINDOW * longer);
        let window = if case.is_plain() { patience::WINDOW } else { &short };
        let folder = rig.path("").to_str().unwrap().to_owned();
        let env = BTreeMap::from([(agent::FOLDER, folder.as_str()), (agent::WINDOW, window)]);
        command.envs(env).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        if let (true, When::At(step)) = (strike && case.fault != Fault::None, case.when) {
            command.env(agent::STRIKE, format!("{} {}", step.name(), case.fault.name()));
        }
        Run::start(command)
    }

    /// Runs the members to their ends, with what goes wrong meanwhile. Has it gone wrong?
    fn members(&mut self, case: &Case, longer: u32, wrong: &mut Vec<String>) -> (Vec<Ended>, bool) {
        let who = case.who;
        let mut runs: Vec<Run> = (0..NAMES.len()).map(|n| self.start(n, case, longer, n == who)).collect();
        let mut first = None;
        let (mut struck, mut over) = (None::<Instant>, false);
        let limit = Instant::now() + patience::RUN;
        loop {
            let all_over = runs.iter_mut().all(Run::over);
            if all_over && !(case.fault == Fault::Rerun && first.is_none() && struck.is_some()) {
                break;
            }
            if Instant::now() > limit {
                wrong.push("a member did not end".to_owned());
                runs.iter().for_each(|run| run.signal(Signal::SIGKILL));
                break;
            }
            if struck.is_none() && case.fault != Fault::None {
                let now = match case.when {
                    When::At(_) => Events::read(&self.hosts.rigs[who]).at("!").is_some(),
                    When::Said(phase) => self.hosts.etcd.phase(GROUP, NAMES[who]).as_deref() == Some(phase),
                };
                if now {
                    struck = Some(Instant::now());
                    self.strike(case, &runs[who]);
                    std::fs::write(self.hosts.rigs[who].path("struck"), "").unwrap();
                }
            }
            if let Some(at) = struck
                && !over
            {
                let others_over = (0..runs.len()).filter(|n| *n != who).all(|n| runs[n].over());
                let done = match case.fault {
                    Fault::Stop => others_over,
                    Fault::Rerun => runs[who].over(),
                    fault => fault.lasts().is_some_and(|lasts| at.elapsed() >= lasts),
                };
                if done {
                    over = true;
                    match case.fault {
                        Fault::Stop | Fault::Pause | Fault::Blip => runs[who].signal(Signal::SIGCONT),
                        Fault::Late => self.hosts.wires[who].mend(),
                        Fault::EtcdBlip => self.hosts.etcd.signal(Signal::SIGCONT),
                        Fault::Rerun => {
                            let again = self.start(who, case, longer, false);
                            first = Some(std::mem::replace(&mut runs[who], again));
                        }
                        _ => {}
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(first);
        // A member that strikes itself may be over before anybody has looked.
        let by_itself = case.fault.by_member() && Events::read(&self.hosts.rigs[who]).at("!").is_some();
        let reached = case.fault == Fault::None || struck.is_some() || by_itself;
        (runs.into_iter().map(Run::end).collect(), reached)
    }

    fn strike(&mut self, case: &Case, run: &Run) {
        let by_step = matches!(case.when, When::At(_));
        match case.fault {
            fault if fault.by_member() && by_step => {}
            Fault::Kill | Fault::Rerun => run.signal(Signal::SIGKILL),
            Fault::Stop | Fault::Pause | Fault::Blip => run.signal(Signal::SIGSTOP),
            // A panic cannot come from outside.
            Fault::Panic => run.signal(Signal::SIGKILL),
            Fault::Term => run.signal(Signal::SIGTERM),
            Fault::Cut | Fault::Late => self.hosts.wires[case.who].cut(),
            Fault::Close => self.hosts.wires[case.who].close(),
            Fault::EtcdKill => self.hosts.etcd.kill(),
            Fault::EtcdRestart => self.hosts.etcd.restart(),
            Fault::EtcdStop | Fault::EtcdBlip => self.hosts.etcd.signal(Signal::SIGSTOP),
            Fault::None => {}
        }
    }

    /// Everything is as before.
    fn restore(&mut self, case: &Case) {
        self.hosts.wires[case.who].mend();
        match case.fault {
            Fault::EtcdKill => self.hosts.etcd.restart(),
            Fault::EtcdStop | Fault::EtcdBlip => self.hosts.etcd.signal(Signal::SIGCONT),
            _ => {}
        }
        self.hosts.etcd.await_ready();
    }

    fn nothing_left(&mut self, wrong: &mut Vec<String>) {
        for (rig, fd) in self.hosts.rigs.iter().zip(&self.fds) {
            let end = Instant::now() + patience::CONDITION;
            while !guards(rig).is_empty() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !guards(rig).is_empty() {
                wrong.push("a watchdog or a freezer is left".to_owned());
            }
            // EINVAL where nothing is frozen; where something is, this thaws it.
            let said = Linux.thaw(fd.as_fd());
            if said != Err(Errno::EINVAL) {
                wrong.push(format!("{} was frozen at the end: {said:?}", rig.path("data").display()));
            }
            if rig.rescued() {
                wrong.push("the rescue had to thaw".to_owned());
            }
        }
        let ended = now();
        let goes_on = |load: &Load| load.wrote_after(ended) || load.failed().is_some();
        let end = Instant::now() + patience::CONDITION;
        while !self.loads.iter().all(goes_on) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.loads.iter().all(|load| load.wrote_after(ended)) {
            wrong.push("a writer is stuck, or failed".to_owned());
        }
        let end = Instant::now() + patience::CONDITION;
        let left = || self.hosts.etcd.leases() > 0 || !self.hosts.etcd.entries(GROUP).is_empty();
        while left() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        if left() {
            wrong.push("an entry or a lease is left in etcd".to_owned());
        }
    }
}
