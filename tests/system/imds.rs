//! IMDS comes late, stumbles, is off, or never comes.

use nix::sys::signal::Signal;
use rig::program::{Run, await_some};
use rig::{Fs, Rig};

fn one() -> Rig {
    Rig::start(&[("a", Fs::Ext4)])
}

/// How long IMDS is waited for.
fn wait(rig: &Rig, time: &str) {
    let text = format!("[identity]\nimds_timeout = '{time}'\n[ec2]\nvolume_interval = '0s'\n");
    std::fs::write(rig.path("stillpoint.toml"), text).unwrap();
}

/// Each way in which IMDS, the document or the role's credentials can fail for a moment: more often than the SDK
/// itself tries.
#[test]
fn what_is_late_is_waited_for_with_one_line() {
    let rig = one();
    wait(&rig, "10m");
    let document = "*instance-identity/document";
    let role = "*security-credentials/*";
    for (action, path, kind) in [
        ("imds:connection", "", "refuse"),
        ("imds:PutToken", "", "http-500"),
        ("imds:PutToken", "", "throttle"),
        ("imds:PutToken", "", "drop-before"),
        ("imds:PutToken", "", "error --status 404"),
        ("imds:PutToken", "", "error --status 429"),
        ("imds:Get", document, "reset-before"),
        ("imds:Get", document, "http-500"),
        ("imds:Get", document, "error --status 404"),
        ("imds:Get", document, "error --status 401"),
        ("imds:Get", document, "truncated"),
        ("imds:Get", document, "malformed"),
        ("imds:Get", role, "error --status 404"),
        ("imds:Get", role, "reset-before"),
        ("imds:Get", role, "malformed"),
    ] {
        let case = format!("{action} {path} {kind}");
        rig.sim(&["faults", "clear"]);
        let times = if path == role { "6" } else { "2" };
        let mut words = vec!["faults", "add", "--action", action, "--call", "1", "--times", times, "--kind"];
        words.extend(kind.split(' '));
        if !path.is_empty() {
            words.extend(["--path", path]);
        }
        rig.sim(&words);
        let ended = rig.run(&["plan"]);
        ended.exits(0);
        assert_eq!(ended.err.matches("waiting for up to 10m").count(), 1, "{case}:\n{}", ended.err);
    }
}

/// With an hour to wait, a run that waits does not end here.
#[test]
fn what_is_off_is_told_at_once() {
    let rig = Rig::with(&[("a", Fs::Ext4)], "[imds]\nenabled = false\n");
    wait(&rig, "1h");
    let ended = rig.run(&["snapshot"]);
    ended.exits(69).says("--http-endpoint enabled");
    assert!(!ended.err.contains("waiting"), "{}", ended.err);
}

#[test]
fn what_never_comes_ends_with_69() {
    let rig = one();
    wait(&rig, "2s");
    rig.sim(&["faults", "add", "--action", "imds:connection", "--kind", "refuse"]);
    rig.run(&["snapshot"]).exits(69).says("waiting for up to 2s").says("is this an EC2 instance?");
    wait(&rig, "0s");
    let ended = rig.run(&["snapshot"]);
    ended.exits(69);
    assert!(!ended.err.contains("waiting"), "{}", ended.err);
}

/// A service waits for a minute, unless it is told otherwise; a signal ends the wait at once.
#[test]
fn a_service_waits_for_longer_and_a_signal_ends_it() {
    let rig = one();
    rig.sim(&["faults", "add", "--action", "imds:connection", "--kind", "refuse"]);
    let mut command = rig.command(&["snapshot"]);
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    let run = Run::start(command);
    await_some("the wait", || run.said().contains("waiting for up to 1m").then_some(()));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().signal, Some(Signal::SIGTERM as i32));
}

/// A hook of four hours, and credentials of six: they are fetched again after the hooks.
#[test]
fn credentials_need_not_last_for_the_hooks() {
    let rig = one();
    rig.configure("[[hook]]\nname = 'dump'\npre = ['/bin/true']\ntimeout = '4h'\n");
    rig.run(&["snapshot"]).exits(0);
    let rig = Rig::with(&[("a", Fs::Ext4)], "[imds]\ncredentials_lifetime = '100s'\n");
    let ended = rig.run(&["snapshot"]);
    ended.exits(77).says("the AWS credentials expire in 1m").says("may need 2m 10s");
    assert_eq!(rig.creates().len(), 0);
}
