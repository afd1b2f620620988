//! PostgreSQL on two volumes: what a set is worth then, and what becomes of the server whatever fails.

mod access;
mod failures;
mod standby;
mod under_load;

use nix::unistd::Pid;
use rig::postgresql::Cluster;
use rig::program::{Ended, await_some};
use rig::{Fs, Rig};

/// Data on XFS, WAL on ext4.
const VOLUMES: [(&str, Fs); 2] = [("data", Fs::Xfs), ("wal", Fs::Ext4)];

fn cluster(rig: &Rig, more: &str) -> Cluster {
    Cluster::create(rig, &rig.mount("data"), &rig.mount("wal"), "pg", more)
}

/// A run that is refused before anything is frozen, with these words.
fn refused(rig: &Rig, section: &str, arguments: &[&str], words: &[&str]) -> Ended {
    let before = rig.creates().len();
    rig.configure(section);
    let ended = rig.run(&[&["snapshot"], arguments].concat());
    ended.exits(20);
    for word in words {
        ended.says(word);
    }
    assert_eq!(rig.creates().len(), before);
    ended
}

/// A session ends a moment after its process. If the process were left, the session would stay for minutes.
fn no_session(server: &Cluster) {
    await_some("no session", || server.sessions().is_empty().then_some(()));
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap())
}
