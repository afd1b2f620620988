//! What the tests stand on: made hosts, a simulated EC2 over real filesystems, probes, and servers to be
//! held.
//!
//! ```text
//! fixture     a host out of a text, and its facts and plan: no root, nothing real
//! rig         ebs-sim, its volumes mounted and loaded; the program started in its view
//!   built       the programs as built
//!   filesystem  how a volume is formatted
//!   sim         what ebs-sim is told, and what it has seen
//!   namespace   the same with the volumes mounted in one other namespace only
//! agent       what processes have in common that stand in for the program
//! etcd        Debian's etcd, plain or with TLS and users, and wires to it that can be cut
//! fuse        a FUSE that stops answering: a disk that hangs
//! schema      docs/schema, which every JSON output of the program is held against
//! program     the program as a child, its end and what it printed
//! window      a run that stands in its window until it is let go on
//! patience    how long tests wait, and what they let time pass for
//! probe       what is to be seen of a freeze from outside: blocked writers, watchdogs, images, labels
//! hosts       several rigs that are members of one group, and a writer across all of them
//! hooks       hooks that write down what is done to them
//! http        a proxy, and a server that gives every request the same answer
//! journald    journald's socket, and the entries that are sent to it
//! made        a kernel and a watchdog for a made host, so that a window opens without root
//!   made_ec2    EC2 in memory, and a clock that stands still: a whole run in milliseconds
//! control_group  one of a test's own, with the program in it
//! copy        volumes made of snapshots
//! listener    a fanotify listener that never answers
//! luks        LUKS where the kernel has no device mapper
//! template    data directories of servers, made once and copied
//! mysql, postgresql, redis, systemd    real ones of the test's own
//! ```
//!
//! In: what a test wants. Out: values that undo themselves when they are dropped, however the test ends. Must
//! never leave anything frozen, wait without a bound, or touch a filesystem that it has not made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "this is test code: a panic is how a test fails"
)]

pub mod agent;
mod built;
pub mod control_group;
pub mod copy;
pub mod etcd;
mod filesystem;
pub mod fixture;
pub mod fuse;
pub mod hooks;
pub mod hosts;
pub mod http;
pub mod journald;
pub mod listener;
pub mod luks;
pub mod made;
pub mod made_ec2;
pub mod mysql;
pub mod namespace;
pub mod patience;
pub mod postgresql;
pub mod probe;
pub mod program;
pub mod redis;
mod rig;
pub mod schema;
mod sim;
pub mod systemd;
mod template;
pub mod window;

pub use built::{ebs_sim, sh, stillpoint, stillpoint_databases};
pub use filesystem::Fs;
pub use rig::{MEMORY, NO_INTERVAL, ROOT, Rig};

/// The section of docs/databases.md whose example begins with this plan.
pub fn documented(plan: &str) -> &'static str {
    let blocks = include_str!("../../../docs/databases.md").split("```toml\n").skip(1);
    let mut blocks = blocks.filter_map(|b| b.split_once("```")).map(|(block, _)| block);
    let head = format!("[plan.{plan}]");
    blocks.find(|b| b.starts_with(&head)).unwrap_or_else(|| panic!("no example of {plan}"))
}

/// Does this kernel lack a type of filesystem? Then a test that needs it says so, and has nothing to look at.
pub fn lacks(fstype: &str) -> bool {
    let _ = std::process::Command::new("modprobe").arg("-q").arg(format!("fs-{fstype}")).status();
    let all = std::fs::read_to_string("/proc/filesystems").unwrap();
    let lacks = all.lines().all(|line| line.split_whitespace().last() != Some(fstype));
    if lacks {
        eprintln!("skipped: this kernel has no {fstype}");
    }
    lacks
}
