//! Verify by a restore: what the configuration lets look at it, and that it sees nothing else.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};
use serde_json::Value;

/// An ext4 with a file in it, and a set of it.
fn with_a_set(checks: &str) -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure(checks);
    space.sh(&format!("echo text >{0}/file; chmod 644 {0}/file; sync -f {0}", space.at("a")));
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    (space, set)
}

fn verify(space: &Namespace, set: &str, more: &[&str]) -> Ended {
    space.run(&[&["verify", set, "--level", "restore"], more].concat())
}

fn check(name: &str, script: &str, more: &str) -> String {
    let command = format!("command = [\"/bin/sh\", \"-euc\", '''{script}''']");
    format!("[[check]]\nname = \"{name}\"\n{command}\ntimeout = \"60s\"\n{more}\n")
}

fn said_of<'a>(said: &'a Value, name: &str) -> &'a Value {
    said["findings"].as_array().unwrap().iter().find(|f| f["check"] == name).unwrap()
}

fn nothing_is_left(space: &Namespace) {
    let said = space.run(&["restore", "--list", "-o", "json"]).exits(0).record();
    assert_eq!(said["restores"].as_array().unwrap().len(), 0, "{said}");
    let records = space.path("state").join("restores");
    assert_eq!(std::fs::read_dir(records).map_or(0, Iterator::count), 0, "records are left");
}

/// Each line is a promise: what a check can see, write and reach.
const LOOKS: &str = r#"
file=$(echo "$STILLPOINT_MOUNTS" | grep "/a$")/file
test "$(cat "$file")" = text
test "$STILLPOINT_CHECK" = good -o "$STILLPOINT_CHECK" = nobody
for place in "$file" /usr/x /etc/x /dev/shm/x; do if touch "$place" 2>/dev/null; then echo "$place is written"; exit 9; fi; done
test "$(ls /run)" = stillpoint
test -z "$(ls -A /tmp)"
test "$(grep -c : /proc/net/dev)" = 1
test "$(ls /proc | grep -c "^[0-9]")" -lt 12
test "$(grep -c "^NoNewPrivs:.1" /proc/self/status)" = 1
echo x >"$TMPDIR/x"
"#;

#[test]
fn a_check_sees_the_restored_files_and_can_reach_nothing_else() {
    let write = r#"file=$(echo "$STILLPOINT_MOUNTS" | grep "/a$")/file; echo other >"$file""#;
    let text = [
        check("good", LOOKS, ""),
        check("nobody", &format!("{LOOKS}\ntest \"$(id -u)\" != 0"), "user = \"nobody\""),
        check("writes", write, "writable = true"),
        check("bad", "echo 3 rows are missing; exit 3", ""),
    ];
    let (space, set) = with_a_set(&text.concat());
    let before = space.sh(&format!("cat {}/file", space.at("a")));
    let failed = verify(&space, &set, &["-o", "json"]);
    let said = failed.exits(24).record();
    for good in ["good", "nobody", "writes"] {
        assert_eq!(said_of(&said, good)["verdict"], "sound", "{said}\n{}", failed.err);
    }
    let bad = said_of(&said, "bad");
    assert_eq!(bad["verdict"], "fault", "{said}");
    assert!(bad["what"].as_str().unwrap().contains("exit code 3: 3 rows are missing"), "{bad}");
    assert_eq!(space.sh(&format!("cat {}/file", space.at("a"))), before, "an original was written to");
    nothing_is_left(&space);

    space.rig.configure(&text[..3].concat());
    verify(&space, &set, &[]).exits(0).says("2 of 2 filesystems are sound, 3 of 3 checks ended well");
    // What cannot be started is found before a volume is made.
    let made = space.rig.calls("CreateVolume").len();
    for (command, says) in [("/no/such/program", "cannot be run"), ("/dev/shm/loose-check", "not run")] {
        space.sh("printf '#!/bin/sh\\n' >/dev/shm/loose-check; chmod 777 /dev/shm/loose-check");
        space.rig.configure(&format!("[[check]]\ncommand = [\"{command}\"]\ntimeout = \"5s\"\n"));
        verify(&space, &set, &[]).exits(78).says(says);
    }
    assert_eq!(space.rig.calls("CreateVolume").len(), made);
}

fn runs(word: &str) -> bool {
    let found = std::process::Command::new("pgrep").args(["-f", word]).output().unwrap();
    !found.stdout.is_empty()
}

#[test]
fn a_check_that_hangs_is_killed_whole() {
    let script = "setsid sleep 918273 & trap '' TERM; sleep 918274 & wait; sleep 918275";
    let text = check("hangs", script, "").replace("60s", "2s");
    let (space, set) = with_a_set(&text);
    let said = verify(&space, &set, &["-o", "json"]).exits(24).record();
    let what = said_of(&said, "hangs")["what"].as_str().unwrap().to_owned();
    assert!(what.contains("did not end within 2s"), "{what}");
    for word in ["sleep 918273", "sleep 918274", "sleep 918275"] {
        assert!(!runs(word), "{word} is left");
    }
    nothing_is_left(&space);
}

#[test]
fn a_check_does_not_outlive_a_verify_that_is_interrupted_or_killed() {
    for (signal, word) in [(Signal::SIGTERM, "717273"), (Signal::SIGKILL, "717274")] {
        let (space, set) = with_a_set(&check("waits", &format!("setsid sleep {word}"), ""));
        let run = space.spawn(&["verify", &set, "--level", "restore"]);
        let sleeps = format!("^sleep {word}");
        await_some("the check", || runs(&sleeps).then_some(()));
        run.signal(signal);
        run.end();
        await_some("its end", || (!runs(&sleeps)).then_some(()));
        if signal == Signal::SIGKILL {
            space.run(&["verify", "--clean-up"]).exits(0).says("verify that was killed");
        }
        nothing_is_left(&space);
    }
}
