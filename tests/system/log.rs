//! The log: nothing waits for whoever reads it, and nothing that is printed acts on a terminal.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rig::hooks::{hook, log, note};
use rig::probe::assert_settled;
use rig::program::{await_some, put_executable, wait};
use rig::{Fs, Rig, patience, sh};

/// More than fits into a pipe, a socket, and the queue of the log.
const CHATTER: &str = "seq 1 300000";

fn chatty() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let pre = format!("{}; {CHATTER}", note(&rig, "pre"));
    // Of the hook's timeout nothing must be left for a log that blocks.
    let chatty = hook("app", &pre, &note(&rig, "post $STILLPOINT_RESULT"), "").replace("10s", "60s");
    rig.configure(&chatty);
    rig
}

/// A pager, a stopped log collector, ssh whose other end is gone.
#[test]
fn a_reader_of_stderr_that_stops_reading_holds_nothing_up() {
    let rig = chatty();
    let mut run = rig.command(&["snapshot"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait(&mut run, patience::RUN).expect("it waits for its log");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(log(&rig), ["pre", "post taken"]);
    assert_settled(&rig);
}

/// What was dropped is counted, once somebody reads again; the end of the command is not dropped.
#[test]
fn what_is_dropped_is_counted() {
    let rig = chatty();
    let gate = rig.path("go");
    let waiting = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let pre = format!("{}; {CHATTER}; {}; {waiting}", note(&rig, "pre"), note(&rig, "printed"));
    rig.configure(&hook("app", &pre, &note(&rig, "post"), "").replace("10s", "100s"));
    let mut run = rig.command(&["snapshot"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    await_some("the hook has printed everything", || (log(&rig).len() == 2).then_some(()));
    let mut stderr = run.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    std::fs::write(gate, "").unwrap();
    assert_eq!(wait(&mut run, patience::RUN).unwrap().code(), Some(0));
    let text = reader.join().unwrap().unwrap();
    assert!(text.contains("messages were dropped"), "{}", text.lines().last().unwrap_or_default());
    assert!(text.contains("filesystem") || text.contains("application"), "the end of the run is there");
    assert_settled(&rig);
}

/// journald is stopped, or waits for its own disk.
#[test]
fn a_journald_that_stands_still_holds_nothing_up() {
    let rig = chatty();
    sh("mount", &["-t", "tmpfs", "stillpoint-test", "/run"]);
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let nobody_reads = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    let stream = std::fs::File::create(rig.path("stream")).unwrap();
    let id = sh("stat", &["-c", "%d:%i", rig.path("stream").to_str().unwrap()]);
    let mut command = rig.command(&["snapshot"]);
    command.env("JOURNAL_STREAM", id.trim()).stdout(Stdio::null()).stderr(stream);
    let ended = wait(&mut command.spawn().unwrap(), patience::RUN).expect("it waits for journald");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(log(&rig), ["pre", "post taken"]);
    nobody_reads.set_nonblocking(true).unwrap();
    let mut entry = [0; 4096];
    let size = nobody_reads.recv(&mut entry).expect("it was given to journald");
    let (mut entries, mut hook_named) = (1, false);
    let mut text = String::from_utf8_lossy(&entry[..size]).into_owned();
    while let Ok(size) = nobody_reads.recv(&mut entry) {
        entries += 1;
        text = String::from_utf8_lossy(&entry[..size]).into_owned();
        hook_named |= text.contains("hook app: ") && text.contains("HOOK\n");
    }
    assert!(entries > 1 && hook_named, "{text}");
    assert_settled(&rig);
}

/// As a unit's, stdout and stderr are one stream to the journal: each id is in it once. Whoever reads stdout alone
/// gets all ids there.
#[test]
fn ids_are_in_the_journal_once() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let run = |name: &str, same: bool| {
        let path = rig.path(name);
        let stream = std::fs::File::create(&path).unwrap();
        let id = sh("stat", &["-c", "%d:%i", path.to_str().unwrap()]);
        let mut command = rig.command(&["snapshot"]);
        command.env("JOURNAL_STREAM", id.trim()).stderr(stream.try_clone().unwrap());
        command.stdout(if same { Stdio::from(stream) } else { Stdio::piped() });
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        (String::from_utf8(output.stdout).unwrap(), std::fs::read_to_string(path).unwrap())
    };
    let (_, journal) = run("one", true);
    let ids: Vec<String> = rig
        .snapshots()
        .iter()
        .map(|s| s["SnapshotId"].as_str().or(s["id"].as_str()).unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    for id in &ids {
        assert_eq!(journal.matches(id.as_str()).count(), 1, "{id}: {journal}");
    }
    let run_id = journal.split("set ").nth(1).and_then(|t| t.split(':').next()).unwrap();
    assert_eq!(journal.matches(run_id).count(), 1, "{journal}");
    rig.await_quiet();
    let (stdout, _) = run("two", false);
    assert_eq!(stdout.lines().filter(|l| l.starts_with("snap-")).count(), 2, "{stdout}");
    assert_settled(&rig);
}

/// `sudo stillpoint` in a terminal: a hook of another user must not type into root's shell.
#[test]
fn a_hook_has_no_terminal_and_nothing_that_was_left_open() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let seen = rig.path("seen");
    let script = rig.path("look");
    put_executable(
        &script,
        "#!/bin/sh\nif (: < /dev/tty) 2>/dev/null; then echo a terminal; else echo no terminal; fi\n\
         for fd in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$fd ] && readlink /proc/$$/fd/$fd; done\nexit 0\n",
    );
    std::fs::set_permissions(rig.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for user in ["", "user = \"nobody\"\n"] {
        rig.configure(&format!(
            "[[hook]]\nname = \"app\"\n{user}pre = [\"{}\"]\ntimeout = \"20s\"\n",
            script.display()
        ));
        let command = rig.command(&["snapshot"]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect::<Vec<_>>().join(" ");
        // script(1) makes a terminal, and fd 7 is left open by whoever started the program.
        let mut on_a_terminal = std::process::Command::new("script");
        on_a_terminal.args(["-qec", &format!("(: < /dev/tty) && {line} 7</etc/passwd")]).arg(&seen);
        for (key, value) in command.get_envs() {
            on_a_terminal.env(key, value.unwrap_or_default());
        }
        let mut child =
            on_a_terminal.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ended = wait(&mut child, patience::RUN).unwrap();
        let text = std::fs::read_to_string(&seen).unwrap();
        assert!(ended.success(), "{text}");
        let printed: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("hook app: ")).collect();
        assert_eq!(printed, ["pre hook", "no terminal"], "{text}");
        rig.await_quiet();
    }
    assert_settled(&rig);
}
