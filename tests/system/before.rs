//! A set, then a command, then how that ended, in the tags.

use std::process::Command;

use nix::sys::signal::Signal;
use rig::probe::{assert_settled, tag};
use rig::program::{Run, await_some};
use rig::{Fs, Rig};

const SCRIPT: &str = "echo out; pwd; cat; echo \"$MARK\"; cat <&9; exit 7";

/// The tag of each snapshot of the account, once each.
fn said(rig: &Rig, key: &str) -> Vec<String> {
    let snapshots = rig.snapshots();
    let mut said: Vec<String> = snapshots.iter().map(|s| tag(s, key).to_owned()).collect();
    said.dedup();
    said
}

/// The command in a shell that gives it what a command gets from whoever starts it.
fn in_a_shell(rig: &Rig, around: &str, arguments: &[&str]) -> Command {
    let plain = rig.command(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("cd {} && {around}", rig.path("").display()), "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.env_remove("INVOCATION_ID").env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    command
}

#[test]
fn the_command_runs_as_if_nothing_came_before_it_and_its_end_is_in_the_tags() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    std::fs::write(rig.path("nine"), "nine\n").unwrap();
    let arguments = ["before", "--tag", "Team=x", "--", "sh", "-c", SCRIPT];
    let around = "echo in | MARK=mark \"$@\" 9<nine";
    let ended = Run::start(in_a_shell(&rig, around, &arguments)).end();
    ended.exits(7).says("filesystem-consistent, 2 of 2 volumes").says("ended with 7");
    let folder = rig.path("").canonicalize().unwrap();
    assert_eq!(ended.out, format!("out\n{}\nin\nmark\nnine\n", folder.display()));
    rig.await_quiet();
    assert_eq!(said(&rig, "stillpoint:before"), [format!("sh -c {}", shell_quoted(SCRIPT))]);
    assert!(said(&rig, "stillpoint:before-ended")[0].starts_with("status=7 at="));
    assert_eq!(said(&rig, "stillpoint:keep-until"), ["forever"]);
    assert_eq!(said(&rig, "Team"), ["x"]);

    let set = said(&rig, "stillpoint:run").remove(0);
    let (a, b) = (rig.mount("a").display().to_string(), rig.mount("b").display().to_string());
    ended
        .says(&format!("stillpoint restore {set} --in-place --mount {a} --mount {b}"))
        .says(&format!("stillpoint release {set}"));
    assert!(!ended.err.contains("--root"), "{}", ended.err);
    let shown = rig.run(&["show", &set]);
    shown.exits(0);
    assert!(shown.out.contains("which ended with 7"), "{}", shown.out);
    let before = &rig.run(&["show", &set, "-o", "json"]).exits(0).record()["before"];
    assert_eq!(before["ended"]["status"], "7", "{before}");
    assert_settled(&rig);
}

fn shell_quoted(text: &str) -> String {
    shlex::try_quote(text).unwrap().into_owned()
}

#[test]
fn without_a_set_the_command_does_not_run_unless_it_may() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let ran = rig.path("ran");
    let touch = ["--", "touch", ran.to_str().unwrap()];
    let refuse = || {
        let fault = ["faults", "add", "--action", "CreateSnapshots", "--call", "1", "--kind", "error"];
        rig.sim(&[&fault[..], &["--code", "UnsupportedOperation", "--status", "400"]].concat());
    };
    refuse();
    let refused = rig.run(&[&["before"], &touch[..]].concat());
    refused.exits(23).says("not run: touch").says("--run-anyway");
    assert!(!ran.exists());
    // What is not there is seen before anything is touched.
    let creates = rig.creates().len();
    rig.run(&["before", "--", "no-such-command"]).exits(64).says("there is no command no-such-command");
    rig.run(&["before", "no-such-plan", "--", "touch", ran.to_str().unwrap()]).exits(78).says("not run");
    rig.run(&["before"]).exits(64);
    assert_eq!(rig.creates().len(), creates);
    assert!(!ran.exists());
    refuse();
    rig.run(&[&["before", "--run-anyway"], &touch[..]].concat()).exits(0).says("no set to go back to");
    assert!(ran.exists() && rig.snapshots().is_empty());
    // And a command line that is wrong is wrong in any case.
    std::fs::remove_file(&ran).unwrap();
    rig.run(&[&["before", "--run-anyway", "--window", "9h"], &touch[..]].concat());
    assert!(!ran.exists());
    assert_settled(&rig);
}

#[test]
fn a_signal_is_for_the_command_and_what_was_ignored_is_ignored() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let (up, wait) = (rig.path("up"), rig.path("wait"));
    nix::unistd::mkfifo(&wait, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A shell's trap runs once its `read` has ended by the signal.
    let script = format!(
        "trap 'echo term; exit 3' TERM; : >{}; while :; do read x <>{}; done",
        up.display(),
        wait.display()
    );
    let run = rig.spawn(&["before", "--", "bash", "-c", &script]);
    await_some("the command", || up.exists().then_some(()));
    run.signal(Signal::SIGINT); // is from a terminal, which has told the command itself
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    ended.exits(3).says("ended with 3");
    assert_eq!(ended.out, "term\n");
    rig.await_quiet();

    std::fs::remove_file(&up).unwrap();
    let script = format!(": >{}; read x <>{}; echo \"$x\"", up.display(), wait.display());
    let around = "trap '' HUP; exec \"$@\"";
    let run = Run::start(in_a_shell(&rig, around, &["before", "--", "bash", "-c", &script]));
    await_some("the command", || up.exists().then_some(()));
    run.signal(Signal::SIGHUP);
    std::fs::write(&wait, "goes on\n").unwrap();
    let ended = run.end();
    ended.exits(0);
    assert_eq!(ended.out, "goes on\n");
    rig.await_quiet();

    let killed = rig.run(&["before", "--what", "itself", "--", "sh", "-c", "kill -9 $$"]);
    killed.exits(137).says("was killed by SIGKILL");
    let ended = said(&rig, "stillpoint:before-ended");
    assert!(ended.iter().any(|e| e.starts_with("status=SIGKILL at=")), "{ended:?}");
    assert!(said(&rig, "stillpoint:before").contains(&"itself".to_owned()));
}

#[test]
fn an_end_that_cannot_be_tagged_is_no_success() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    // The label is the first of them.
    let fault = ["faults", "add", "--action", "CreateTags", "--kind", "error", "--times", "1000"];
    let error = ["--code", "UnauthorizedOperation", "--status", "403", "--message", "no"];
    let deny = rig.path("deny");
    let script = format!("until [ -e {} ]; do sleep 0.1; done; exit $STATUS", deny.display());
    for (status, exit) in [("0", 11), ("4", 4)] {
        rig.await_quiet();
        let mut command = rig.command(&["before", "--", "sh", "-c", &script]);
        command.env("STATUS", status);
        let run = Run::start(command);
        await_some("the command", || run.said().contains("running sh").then_some(()));
        rig.sim(&[&fault[..], &error[..]].concat());
        std::fs::write(&deny, "").unwrap();
        run.end().exits(exit).says("do not say how it ended");
        rig.sim(&["faults", "clear"]);
        std::fs::remove_file(&deny).unwrap();
    }
}

#[test]
fn a_package_manager_says_the_begin_and_the_end_apart() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.run(&["before", "--end"]).exits(78).says("nothing was begun");
    let me = std::process::id().to_string();
    let begun = rig.run(&["before", "--begin", "--command-of", &me]);
    begun.exits(0);
    let set = begun.out.trim().to_owned();
    assert_eq!(said(&rig, "stillpoint:run"), std::slice::from_ref(&set));
    let own = std::env::args().next().unwrap();
    assert!(said(&rig, "stillpoint:before")[0].starts_with(own.get(..40).unwrap_or(&own)), "{own}");
    rig.await_quiet();
    rig.run(&["before", "--end", "--status", "100"]).exits(0).says("let it go");
    assert!(said(&rig, "stillpoint:before-ended")[0].starts_with("status=100 at="));
    rig.run(&["before", "--end"]).exits(78);

    // One that nobody ended is named by the next.
    rig.await_quiet();
    rig.run(&["before", "--begin", "--what", "one"]).exits(0);
    rig.await_quiet();
    rig.run(&["before", "--begin", "--what", "two"]).exits(0).says("nobody has said how");
    rig.run(&["before", "--end"]).exits(0);
    let ended = rig.snapshots().iter().filter(|s| s.to_string().contains("status=unknown")).count();
    assert_eq!(ended, 1);
    // A file that somebody else could have written is not believed.
    rig.await_quiet();
    rig.run(&["before", "--begin", "--what", "three"]).exits(0);
    let held = rig.path("run/before/default.json");
    std::os::unix::fs::chown(&held, Some(65534), None).unwrap();
    rig.run(&["before", "--end"]).exits(78);
}

#[test]
fn a_dry_run_takes_nothing_and_runs_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let ran = rig.path("ran");
    let dry = rig.run(&["before", "-n", "--", "touch", ran.to_str().unwrap()]);
    dry.exits(0).says("then: touch");
    assert!(dry.out.contains("Plan default"), "{}", dry.out);
    assert!(!ran.exists() && rig.snapshots().is_empty());
}

const APT: &str = include_str!("../../packaging/package-managers/apt.conf");

/// The real apt and dpkg, over a root of their own, with the file that switches the hooks on.
struct Apt {
    rig: Rig,
    config: std::path::PathBuf,
    package: std::path::PathBuf,
    root: std::path::PathBuf,
}

impl Apt {
    fn new() -> Self {
        let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
        let root = rig.path("root");
        for folder in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/log/apt",
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
        ] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/apt/sources.list"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let program = rig.path("stillpoint");
        let hooks = APT.replace("/usr/bin/stillpoint", program.to_str().unwrap());
        assert_ne!(hooks, APT);
        std::fs::write(root.join("etc/apt/apt.conf.d/80stillpoint"), hooks).unwrap();
        let config = rig.path("apt.conf");
        let text = format!(
            "Dir \"{0}\";\nDir::State::status \"{0}/var/lib/dpkg/status\";\nDPkg::Options {{ \"--root={0}\"; \
             \"--log={0}/var/log/dpkg.log\"; }};\nAPT::Architecture \"amd64\";\nAPT::Sandbox::User \"root\";\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        let made = rig.path("hello");
        std::fs::create_dir_all(made.join("DEBIAN")).unwrap();
        std::fs::create_dir_all(made.join("usr/share/hello")).unwrap();
        std::fs::write(made.join("usr/share/hello/hello"), "hello").unwrap();
        let control =
            "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n";
        std::fs::write(made.join("DEBIAN/control"), control).unwrap();
        let package = rig.path("hello.deb");
        rig::sh("dpkg-deb", &["--build", made.to_str().unwrap(), package.to_str().unwrap()]);
        rig.put_program(&program);
        Self { rig, config, package, root }
    }

    fn install(&self) -> std::process::Output {
        let mut apt = Command::new("apt-get");
        apt.env("APT_CONFIG", &self.config).args(["install", "-y", "--no-install-recommends"]);
        apt.arg(&self.package).env_remove("INVOCATION_ID").output().unwrap()
    }

    fn installed(&self) -> bool {
        self.root.join("usr/share/hello/hello").exists()
    }
}

#[test]
fn apt_takes_a_set_before_dpkg_runs() {
    let apt = Apt::new();
    let done = apt.install();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && apt.installed(), "{said}");
    apt.rig.await_quiet();
    let before = said_once(&apt.rig, "stillpoint:before");
    assert!(before.starts_with("apt-get install -y --no-install-recommends /"), "{before}");
    assert!(said_once(&apt.rig, "stillpoint:before-ended").starts_with("status=unknown at="));
    assert!(said.contains("stillpoint release"), "{said}");
    assert_settled(&apt.rig);
}

fn said_once(rig: &Rig, key: &str) -> String {
    let all = said(rig, key);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn apt_changes_nothing_where_no_set_can_be_taken() {
    let apt = Apt::new();
    let fault = ["faults", "add", "--action", "CreateSnapshots", "--call", "1", "--kind", "error"];
    apt.rig.sim(&[&fault[..], &["--code", "UnsupportedOperation", "--status", "400"]].concat());
    let done = apt.install();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && !apt.installed(), "{said}");
    assert!(said.contains("no set was taken"), "{said}");
    assert!(apt.install().status.success() && apt.installed());
    assert_settled(&apt.rig);
}
