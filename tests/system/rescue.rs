//! The rescue reaches what no ordinary path leads to: other mount namespaces, covered mounts, and filesystems
//! that were unmounted while frozen.
//!
//! `thaw --all` thaws every filesystem there is, also those of tests that run beside this one: it is only
//! ever run in namespaces of its own, in which they are not to be seen.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use rig::fuse::Fuse;
use rig::hooks::{log, noting};
use rig::probe::{BlockedWrite, assert_settled, guards, is_frozen, is_thawed, kill_with_guards};
use rig::program::{Ended, Run, await_some};
use rig::{Fs, Rig, sh, stillpoint};
use serde_json::Value;

/// Of an ext4 that is in no table, the rescue learns in /sys/fs, and mounts it again. Here only the tables count.
pub const ONLY_TABLES: &str = "rm -r /sys/fs/ext4/*";

/// Runs a script as the first process of its own namespaces, with nothing to be seen of other tests'
/// filesystems. `$A` is the device of the volume `a`, `$M` its mount point, `$T` a folder in memory,
/// `stillpoint` the program with this rig's folders, `$SP` the same in words.
pub fn alone(rig: &Rig, script: &str) -> Ended {
    Run::start(alone_with(rig, &[], script)).end()
}

/// The same, not yet started, and with these devices to be seen beside the volume `a`.
fn alone_with(rig: &Rig, devices: &[&str], script: &str) -> Command {
    let program = format!(
        "exec_stillpoint() {{ {1} --config {0}/stillpoint.toml --run-dir {0}/run --state-dir {0}/state \"$@\"; }}",
        rig.path("").display().to_string().trim_end_matches('/'),
        stillpoint()
    );
    let words = program.split_once("{ ").unwrap().1.trim_end_matches(" \"$@\"; }");
    let device = rig.device("a");
    let name = device.rsplit('/').next().unwrap();
    let hide = r#"
        set -e
        own=" $* "
        while read -r id parent dev root at rest; do
            case "$rest" in *" - "*" /dev/loop"*)
                from=${rest##* - }; from=${from#* }; from=${from%% *}
                case "$own" in *" $from "*) ;; *) umount -l "$at" 2>/dev/null || true ;; esac ;;
            esac
        done < /proc/self/mountinfo
        # What says of the machine's own filesystems that no other device belongs to them stays.
        tasks=
        for task in /sys/fs/ext4/*/journal_task; do
            name=${task%/*} name=${name##*/}
            case "$name" in loop*|\*) ;; *) tasks="$tasks $name=$(cat "$task")" ;; esac
        done
        mount -t tmpfs none /sys/fs
        for d in "$@"; do mkdir -p "/sys/fs/ext4/${d##*/}"; done
        for t in $tasks; do
            mkdir -p "/sys/fs/ext4/${t%%=*}"
            echo "${t#*=}" > "/sys/fs/ext4/${t%%=*}/journal_task"
        done
    "#;
    let whole = format!(
        "{hide}\n{program}\nstillpoint() {{ exec_stillpoint \"$@\"; }}\nA={device} M={} T={} NAME={name} SP='{words}'\n{script}",
        rig.mount("a").display(),
        rig.path("").display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private"]);
    command.args(["sh", "-c", &whole, "sh", &device]).args(devices);
    command
}

/// Unmounts it, though a fork of another test, or a recovery that is about to end, has a file there open for
/// a moment.
fn umount(mount: &Path) {
    await_some("the unmount", || {
        let umount = Command::new("umount").arg(mount).stderr(Stdio::null()).status();
        umount.unwrap().success().then_some(())
    });
}

/// Unmounted while frozen: mounted again at the end, and thawed if nobody has, or a failed test would leave
/// it to the machine.
pub struct Unmounted<'a>(&'a Rig);

impl<'a> Unmounted<'a> {
    pub fn of(rig: &'a Rig) -> Self {
        // Lazily: what another test has asked to look at all filesystems may wait there for the thaw.
        sh("umount", &["--lazy", rig.mount("a").to_str().unwrap()]);
        Self(rig)
    }

    /// Mounts it again, and says whether it had been thawed.
    pub fn was_thawed(self) -> bool {
        sh("mount", &[&self.0.device("a"), self.0.mount("a").to_str().unwrap()]);
        is_thawed(&self.0.mount("a"))
    }
}

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let mount = self.0.mount("a");
        let _ = Command::new("mount").arg(self.0.device("a")).arg(&mount).output();
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&mount).output();
    }
}

#[test]
fn all_reaches_a_filesystem_that_is_frozen_and_nothing_else() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let ended = alone(&rig, "fsfreeze -f $M; stillpoint thaw --all");
    ended.exits(0).says("thawed 1 filesystems");
    assert_eq!(ended.out.trim(), rig.mount("a").to_str().unwrap());
    assert!(is_thawed(&rig.mount("a")));
    alone(&rig, "stillpoint thaw --all").exits(0).says("thawed 0 filesystems");
    assert_settled(&rig);
}

/// FITHAW waits for a disk that does not answer, and no signal ends that: whoever typed the command gets its
/// prompt and the exit code all the same.
#[test]
fn a_thaw_that_hangs_keeps_nobody_waiting() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let fuse = Fuse::mount(&rig.path("fuse"), "gone", 64 << 20);
    let device = sh("losetup", &["-f", "--show", fuse.disk().to_str().unwrap()]).trim().to_owned();
    let at = rig.path("hangs");
    let at = at.to_str().unwrap();
    std::fs::create_dir(at).unwrap();
    sh("mkfs.ext4", &["-q", "-F", &device]);
    sh("mount", &[&device, at]);
    for at in [at, rig.mount("a").to_str().unwrap()] {
        sh("fsfreeze", &["--freeze", at]);
    }
    fuse.fall_silent();
    // The namespace, and with it `alone`, ends with its last process.
    let script = "set +e; stillpoint thaw --all >$T/said 2>&1; echo $? >$T/code.new; mv $T/code.new $T/code";
    let run = Run::start(alone_with(&rig, &[&device], script));
    let code = await_some("its end", || std::fs::read_to_string(rig.path("code")).ok());
    let said = std::fs::read_to_string(rig.path("said")).unwrap();
    assert_eq!(code.trim(), "40", "{said}");
    assert!(said.contains(&format!("cannot thaw {at}: it does not answer")), "{said}");
    assert!(said.contains("thawed 1 filesystems"), "the other one is thawed: {said}");
    assert!(is_thawed(&rig.mount("a")));
    drop(fuse); // what waits for it fails
    run.end();
    let _ = Command::new("fsfreeze").args(["--unfreeze", at]).stderr(Stdio::null()).status();
    sh("umount", &[at]);
    sh("losetup", &["-d", &device]);
    assert_settled(&rig);
}

#[test]
fn all_reaches_a_filesystem_that_is_mounted_only_in_another_namespace() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let unmounted = Unmounted::of(&rig);
    let script = r#"
        mkdir $T/only
        unshare -m sh -c "mount $A $T/only && fsfreeze -f $T/only && touch $T/ready && exec sleep 30" & other=$!
        while ! [ -e $T/ready ]; do sleep 0.05; done
        ! grep -q $T/only /proc/self/mountinfo
        stillpoint thaw --all
        timeout 5 touch /proc/$other/root/$T/only/written
        kill $other
    "#;
    alone(&rig, &format!("{ONLY_TABLES}{script}")).exits(0).says("thawed 1 filesystems");
    assert!(unmounted.was_thawed());
    assert_settled(&rig);
}

#[test]
fn all_reaches_a_filesystem_below_what_covers_it() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let script = r#"
        fsfreeze -f $M
        mount -t tmpfs one $M; mount -t tmpfs two $M
        stillpoint thaw --all
        # What covers it is still there: it was taken off for the rescue alone.
        [ $(grep -c " $M " /proc/self/mountinfo) = 3 ]
        umount $M; umount $M
        timeout 5 touch $M/written
    "#;
    alone(&rig, script).exits(0).says("thawed 1 filesystems");
    assert_settled(&rig);
}

#[test]
fn all_reaches_a_filesystem_that_was_unmounted_while_frozen() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let (mount, device) = (rig.mount("a"), rig.device("a"));
    sh("fsfreeze", &["--freeze", mount.to_str().unwrap()]);
    let unmounted = Unmounted::of(&rig);
    let ended = alone(&rig, "stillpoint thaw --all");
    ended.exits(0).says("thawed 1 filesystems");
    assert_eq!(ended.out.trim(), device);
    assert!(unmounted.was_thawed());
    assert_settled(&rig);
}

#[test]
fn all_ends_a_freeze_that_is_held() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    // Its first process stays until everything is over.
    rig.configure(&format!("[plan.default]\nallow_pid_namespace = true\n{}", noting(&rig, "db")));
    let words: Vec<String> = {
        let plain = rig.command(&["freeze", "--for", "60s"]);
        let all = std::iter::once(plain.get_program()).chain(plain.get_args());
        all.map(|w| format!("'{}'", w.to_str().unwrap())).collect()
    };
    let script =
        format!("{} >/dev/null\nstillpoint thaw --all || [ $? = 22 ]\nstillpoint thaw", words.join(" "));
    alone(&rig, &script).exits(22).says("thawed 1 filesystems").says("DID NOT HOLD");
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert!(is_thawed(&rig.mount("a")));
    assert_settled(&rig);
}

/// A freeze whose guards are all killed: frozen, and only the journal knows.
pub fn abandoned(rig: &Rig) -> Value {
    rig.configure(&noting(rig, "db"));
    let record = rig.run(&["freeze", "--for", "60s", "-o", "json"]).exits(0).record();
    let holder = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
    kill_with_guards(rig, Pid::from_raw(holder));
    await_some("their end", || {
        (guards(rig).is_empty() && !Path::new(&format!("/proc/{holder}/fd/0")).exists()).then_some(())
    });
    record
}

fn recorded(rig: &Rig) -> Ended {
    Run::start(rig.bare_command(&["thaw", "--recover"])).end()
}

#[test]
fn what_is_recorded_is_thawed_below_what_covers_it() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    abandoned(&rig);
    let mount = rig.mount("a");
    let write = BlockedWrite::certain(&mount);
    sh("mount", &["-t", "tmpfs", "cover", mount.to_str().unwrap()]);
    let ended = recorded(&rig);
    umount(&mount);
    ended.exits(0).says("thawed");
    write.done(Duration::from_secs(5)).expect("it was not thawed");
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert_settled(&rig);
}

#[test]
fn what_is_recorded_is_thawed_though_it_was_unmounted_while_frozen() {
    let rig = Rig::start(&[("a", Fs::Xfs)]);
    abandoned(&rig);
    let unmounted = Unmounted::of(&rig);
    recorded(&rig).exits(0).says("thawed");
    assert!(unmounted.was_thawed());
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert_settled(&rig);
}

/// Its mount point leads to another filesystem by now, which somebody else froze: that one is not ours.
#[test]
fn what_is_mounted_there_instead_is_left_alone() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    abandoned(&rig);
    let (a, b) = (rig.mount("a"), rig.mount("b"));
    sh("fsfreeze", &["--unfreeze", b.to_str().unwrap()]);
    sh("fsfreeze", &["--unfreeze", a.to_str().unwrap()]);
    umount(&a);
    umount(&b);
    // b's device is where a was, and frozen by somebody else; b itself is in the journal too, so only a's
    // entry is looked at.
    let journal = rig.path("run/runs").join(&rig.journals()[0]);
    let mut state: Value = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
    state["frozen"].as_array_mut().unwrap().retain(|f| f["mount_point"] == a.to_str().unwrap());
    std::fs::write(&journal, serde_json::to_vec(&state).unwrap()).unwrap();
    sh("mount", &[&rig.device("b"), a.to_str().unwrap()]);
    sh("fsfreeze", &["--freeze", a.to_str().unwrap()]);
    recorded(&rig).exits(0);
    let still = is_frozen(&a);
    sh("fsfreeze", &["--unfreeze", a.to_str().unwrap()]);
    assert!(still, "somebody else's freeze was thawed");
    umount(&a);
    sh("mount", &[&rig.device("a"), a.to_str().unwrap()]);
    sh("mount", &[&rig.device("b"), b.to_str().unwrap()]);
    assert_settled(&rig);
}

/// A run that dies while another recovery is waited for: its journal was not there at the first look.
#[test]
fn what_dies_between_the_two_looks_is_thawed_before_its_journal_is_closed() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    abandoned(&rig);
    let journal = rig.path("run/runs").join(&rig.journals()[0]);
    let aside = journal.with_extension("aside");
    std::fs::rename(&journal, &aside).unwrap();
    let lock = rig.path("run/recover.lock");
    let file = std::fs::File::create(&lock).unwrap();
    let held =
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let run = Run::start(rig.bare_command(&["thaw", "--recover"]));
    await_some("the wait for the lock", || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", run.pid())).ok()?;
        fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|p| p == lock)).then_some(())
    });
    std::fs::rename(&aside, &journal).unwrap();
    drop(held);
    run.end().exits(0).says("thawed").says(rig.mount("a").to_str().unwrap());
    assert!(is_thawed(&rig.mount("a")));
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert_settled(&rig);
}
