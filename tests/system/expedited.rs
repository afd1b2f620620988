//! `rcu_expedited`: raised while filesystems are being frozen, and always put back. On the host's real knob.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use rig::hooks::noting;
use rig::patience::let_pass;
use rig::probe::{assert_clean, assert_settled, freezers, guards, kill_with_guards};
use rig::program::{Run, await_some};
use rig::{Fs, Rig};

const KNOB: &str = "/sys/kernel/rcu_expedited";

fn now() -> String {
    std::fs::read_to_string(KNOB).unwrap().trim().to_owned()
}

/// The knob is the host's: a failed test must not leave it raised.
struct Alone(Flock<std::fs::File>);

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = std::fs::write(KNOB, "0");
        let _ = self.0.sync_all(); // held until here
    }
}

/// One of these tests at a time, over all processes.
fn alone() -> Alone {
    let file = std::fs::File::create("/dev/shm/stillpoint-test-expedited.lock").unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    assert_eq!(now(), "0", "{KNOB} is raised by something else: this test can say nothing");
    Alone(lock)
}

/// `splice` from an empty pipe: FIFREEZE waits for it, so that the knob stays raised.
fn stuck_writer(rig: &Rig) -> Child {
    let file = rig.mount("a").join("stuck");
    let code = format!(
        "import os\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nos.splice(r,f,4096)",
        file.to_str().unwrap()
    );
    let child = Command::new("python3").args(["-c", &code]).stdout(Stdio::null()).spawn().unwrap();
    let call = format!("/proc/{}/syscall", child.id());
    await_some("the writer inside splice", || {
        let call = std::fs::read_to_string(&call).ok()?;
        (call.starts_with("275 ") || call.starts_with("76 ")).then_some(())
    });
    child
}

const ASKED: &str = "[defaults]\nrcu_expedited = true\nwindow = \"20s\"\n";

/// Whether a run of this configuration raises it, as `plan` says.
fn planned(rig: &Rig) -> bool {
    let plan = rig.run(&["plan", "-o", "json"]).record();
    plan["plan"]["expedite"]["raise"].as_bool().unwrap()
}

/// Where nothing speaks against it, it is raised without being asked for.
#[test]
fn it_is_raised_as_the_plan_says_and_never_where_that_is_forbidden() {
    let _alone = alone();
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let raised = |config: &str| {
        rig.configure(&format!("[defaults]\nwindow = \"20s\"\nfreeze_timeout = \"15s\"\n{config}"));
        let mut writer = stuck_writer(&rig);
        let run = rig.spawn(&["snapshot"]);
        await_some("the freeze", || freezes(&rig).then_some(()));
        let raised = now() == "1";
        writer.kill().unwrap();
        writer.wait().unwrap();
        run.end().exits(0);
        assert_eq!((raised, now().as_str()), (planned(&rig), "0"), "{config}");
        raised
    };
    assert!(!raised("rcu_expedited = false\n"));
    assert!(raised("rcu_expedited = true\n"));
    // It depends on this machine.
    assert_eq!(raised("rcu_expedited = \"auto\"\n"), raised(""));
}

#[test]
fn it_is_raised_while_filesystems_freeze_and_no_longer() {
    let _alone = alone();
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&format!("{ASKED}freeze_timeout = \"15s\"\n"));
    // A run raises the knob for a few ms only. A writer that keeps the freeze waiting makes that long enough
    // to be seen.
    for arguments in [&["snapshot"][..], &["freeze", "--for", "60s"]] {
        let mut writer = stuck_writer(&rig);
        let run = rig.spawn(arguments);
        await_some("it to be raised", || (now() == "1").then_some(()));
        writer.kill().unwrap();
        writer.wait().unwrap();
        run.end().exits(0);
        assert_eq!(now(), "0", "raised for longer than {arguments:?} freezes");
    }
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    assert_settled(&rig);
}

/// Is a FIFREEZE in progress, which waits for the writer?
fn freezes(rig: &Rig) -> bool {
    let threads =
        freezers(rig).into_iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    let threads = threads.flatten().flatten();
    let stats = threads.filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.contains(" (freeze-0) D "))
}

/// The agent dies while a FIFREEZE is in progress: it cannot put it back.
#[test]
fn the_watchdog_puts_it_back() {
    let _alone = alone();
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&format!("{ASKED}freeze_timeout = \"15s\"\n{}", noting(&rig, "db")));
    let mut writer = stuck_writer(&rig);
    let run = rig.spawn(&["snapshot"]);
    await_some("the freeze", || (now() == "1").then_some(()));
    run.signal(Signal::SIGKILL);
    await_some("its former value", || (now() == "0").then_some(()));
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.end();
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(0);
    assert_clean(&rig);
}

#[test]
fn the_journal_puts_it_back_when_all_were_killed() {
    let _alone = alone();
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&format!("{ASKED}freeze_timeout = \"15s\"\n{}", noting(&rig, "db")));
    let mut writer = stuck_writer(&rig);
    let run = rig.spawn(&["snapshot"]);
    await_some("the freeze", || (now() == "1" && freezes(&rig)).then_some(()));
    kill_with_guards(&rig, run.pid());
    let_pass("whoever might put it back", Duration::from_millis(300));
    assert_eq!(now(), "1", "nobody was left to put it back");
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.end();
    await_some("the end of FIFREEZE", || guards(&rig).is_empty().then_some(()));
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(0).says("put back").says("thawed");
    assert_eq!(now(), "0");
    assert_clean(&rig);
}

/// On a kernel without the knob, or where it may not be written, the run says so and goes on.
#[test]
fn where_it_cannot_be_used_the_run_goes_on_without() {
    let _alone = alone();
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(ASKED);
    let plain = rig.command(&["snapshot"]);
    let words: Vec<_> = plain.get_args().map(std::ffi::OsStr::to_os_string).collect();
    let split = words.iter().position(|w| w == "--").unwrap() + 1;
    let mut command = Command::new(plain.get_program());
    command.args(&words[..split]);
    command.args([
        "unshare",
        "--mount",
        "sh",
        "-c",
        &format!("mount --bind {KNOB} {KNOB} && mount -o remount,ro,bind {KNOB} && exec \"$@\""),
        "sh",
    ]);
    command.args(&words[split..]).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    Run::start(command).end().exits(0).says("freezing is not expedited").says("Read-only");
    // Somebody else has raised it: used, and left as it is.
    std::fs::write(KNOB, "1").unwrap();
    let ended = rig.run(&["snapshot"]);
    let left = now();
    std::fs::write(KNOB, "0").unwrap();
    ended.exits(0).says("raised already");
    assert_eq!(left, "1");
    assert_settled(&rig);
}
