//! Several rigs that are the members of one group, each with a wire of its own to one etcd, and a writer across all of
//! them: whether their sets show one instant is seen by what it had written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::copy::Copy;
use crate::etcd::{Etcd, Wire};
use crate::program::{Ended, Run, await_some};
use crate::{Fs, Rig};

/// The group's name.
pub const GROUP: &str = "g";
/// The members.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// The volume of each.
pub const VOLUME: &str = "data";
/// Short times, of which none is met where all is well.
pub const TIMES: &str =
    "join_timeout = \"40s\"\nready_timeout = \"30s\"\nsettle_timeout = \"30s\"\nlease = \"4s\"\n";

/// Three hosts and their etcd.
pub struct Hosts {
    pub etcd: Etcd,
    pub wires: Vec<Wire>,
    pub rigs: Vec<Rig>,
}

impl Hosts {
    /// Each with one volume like this.
    pub fn start(etcd: Etcd, fs: Fs) -> Self {
        let rigs: Vec<Rig> = NAMES.iter().map(|_| Rig::start(&[(VOLUME, fs)])).collect();
        let wires = NAMES.iter().map(|_| etcd.wire()).collect();
        let hosts = Self { etcd, wires, rigs };
        hosts.configure(TIMES, "");
        hosts
    }

    /// Writes the configuration of each: more of its group, and more beside that.
    pub fn configure(&self, of_group: &str, more: &str) {
        (0..NAMES.len()).for_each(|n| self.configure_one(n, of_group, more));
    }

    /// The same of one.
    pub fn configure_one(&self, n: usize, of_group: &str, more: &str) {
        self.rigs[n].configure(&format!("{}{more}", self.section(n, of_group)));
    }

    /// `[group]` of one.
    pub fn section(&self, n: usize, more: &str) -> String {
        let engine = self.etcd.section(&self.etcd.url_at(self.wires[n].port()));
        let (name, members) = (NAMES[n], NAMES.map(|name| format!("{name:?}")).join(", "));
        format!("[group]\nname = \"{GROUP}\"\nmember = \"{name}\"\nmembers = [{members}]\n{engine}{more}\n")
    }

    /// Starts the same command on each.
    pub fn spawn(&self, arguments: &[&str]) -> Vec<Run> {
        self.rigs.iter().map(|rig| rig.spawn(arguments)).collect()
    }

    /// Runs the same command on each, all at once.
    pub fn run(&self, arguments: &[&str]) -> Vec<Ended> {
        self.spawn(arguments).into_iter().map(Run::end).collect()
    }

    /// Waits until this member's entry says this, or more.
    pub fn await_phase(&self, n: usize, phases: &[&str]) {
        await_some(&format!("{} is {phases:?}", NAMES[n]), || {
            let phase = self.etcd.phase(GROUP, NAMES[n])?;
            phases.contains(&phase.as_str()).then_some(())
        });
    }

    /// Nothing of a run stays in etcd for longer than its lease.
    pub fn assert_nothing_left(&self) {
        await_some("no entry and no lease is left in etcd", || {
            (self.etcd.leases() == 0 && self.etcd.entries(GROUP).is_empty()).then_some(())
        });
    }

    /// Where the writer writes.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.rigs.iter().map(|rig| rig.mount(VOLUME)).collect()
    }

    /// What the writer had written last, in the only snapshot of each host.
    pub fn numbers(&self) -> Vec<u64> {
        self.rigs
            .iter()
            .map(|rig| {
                let all = rig.snapshots();
                assert_eq!(all.len(), 1, "{all:#?}");
                number(rig, &all[0])
            })
            .collect()
    }
}

/// What the writer had written last when this snapshot was taken.
pub fn number(rig: &Rig, snapshot: &Value) -> u64 {
    let copy = Copy::mount(rig, snapshot["id"].as_str().unwrap(), "copy");
    let mut bytes = [0; 8];
    File::open(copy.at.join("witness")).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    u64::from_be_bytes(bytes)
}

/// Could these be of one instant? Each number is written to the first host, and only then to the second, and so on.
pub fn are_of_one_instant(numbers: &[u64]) -> bool {
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    numbers.is_sorted_by(|before, after| before >= after) && last + 1 >= first
}

/// Writes each number to one host after the other, and each of them to its disk.
pub struct Witness {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    pub fn start(mounts: &[PathBuf]) -> Self {
        let open = |mount: &PathBuf| {
            let file = File::create(mount.join("witness")).unwrap();
            file.write_all_at(&0u64.to_be_bytes(), 0).unwrap();
            file.sync_all().unwrap();
            file
        };
        let files: Vec<File> = mounts.iter().map(open).collect();
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            for n in 1u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                for file in &files {
                    file.write_all_at(&n.to_be_bytes(), 0).unwrap();
                    file.sync_data().unwrap();
                }
                counted.store(n, Ordering::Relaxed);
            }
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Waits until it has gone on by this many rounds.
    pub fn await_rounds(&self, rounds: u64) {
        let from = self.written.load(Ordering::Relaxed);
        await_some("the writer goes on", || {
            (self.written.load(Ordering::Relaxed) >= from + rounds).then_some(())
        });
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // never joined here: it may be blocked
    }
}
