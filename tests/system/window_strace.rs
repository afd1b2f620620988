//! Between the last FIFREEZE and the first FITHAW there is one call and nothing else: seen from outside, by
//! strace.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rig::probe::{assert_labels, assert_settled};
use rig::program::Run;
use rig::{Fs, Rig};

/// What the agent may do in the window: send, receive, wait, look at the clock, read counters that are open
/// already. Not in the list and so not allowed, among all else: open, close, exec, clone, connect, ioctl,
/// stat, mmap.
const ALLOWED: &[&str] = &[
    "clock_gettime",
    "clock_nanosleep",
    "epoll_wait",
    "futex",
    "lseek",
    // Under strace on a busy machine a thaw takes longer than the agent waits before it looks for the freezer.
    "poll",
    "read",
    "recvfrom",
    "restart_syscall",
    "write",
    "writev",
];

/// Held by the test that traces: with two at a time everything is twice as slow.
static TRACES: Mutex<()> = Mutex::new(());

/// One system call: who, which, and its whole line.
struct Call<'a> {
    process: &'a str,
    name: &'a str,
    line: &'a str,
}

/// Lines of `strace -f -y`: `PID name(arguments…` or `PID <... name resumed>…`, the latter not counted again.
fn calls<'a>(lines: &[&'a str]) -> Vec<Call<'a>> {
    lines
        .iter()
        .filter_map(|line| {
            let (process, rest) = line.split_once(' ')?;
            let rest = rest.trim_start();
            let (name, _) = rest.split_once('(')?;
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(Call {
                process,
                name,
                line,
            })
        })
        .collect()
}

#[test]
fn while_frozen_there_is_one_call_and_nothing_else() {
    let in_time = (0..4).any(|_| one_call_and_nothing_else("", "filesystem"));
    assert!(in_time, "the agent called FITHAW itself");
}

/// What a session says in the window is read after it.
#[test]
fn a_session_that_does_not_stop_talking_changes_nothing() {
    let talk = "echo ready; (while :; do echo still here; sleep 0.002; done) & read told; kill $!";
    let session = format!(
        "[[session]]\nname = \"talk\"\ncommand = [\"/bin/bash\", \"-c\", \"{talk}\"]\ntimeout = \"10s\"\n"
    );
    one_call_and_nothing_else(&session, "application");
}

/// Traces a run. Whether the freezer alone froze and thawed, in its time.
fn one_call_and_nothing_else(config: &str, label: &str) -> bool {
    let _alone = TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    let strace = Command::new("strace").arg("-V").output();
    assert!(strace.is_ok_and(|o| o.status.success()), "this test needs strace (package `strace`)");
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    rig.configure(config);
    let trace = rig.path("trace");
    // exec replaces itself by what it is given, so strace has the program as its child, in the view.
    let plain = rig.command(&["snapshot", "--window", "30s", "-v"]);
    let words: Vec<_> = plain.get_args().map(std::ffi::OsStr::to_os_string).collect();
    let split = words.iter().position(|w| w == "--").unwrap() + 1;
    let mut command = Command::new(plain.get_program());
    command.args(&words[..split]).args(["strace", "-f", "-y", "-o"]).arg(&trace).args(&words[split..]);
    command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    let ended = Run::start(command).end();
    ended.exits(0);
    assert_labels(&rig, 3, label);
    assert_settled(&rig);

    let trace = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let freeze = last_freeze_returned(&lines);
    // The others make one of a memfd, before they say that they are ready.
    let is_thaw = |l: &str| l.contains("FITHAW") && !l.contains("</memfd:");
    let thaw = lines.iter().position(|l| is_thaw(l)).expect("a FITHAW");
    assert!(freeze < thaw);
    let agent_threads = threads_of_the_agent(&trace);
    let window = calls(&lines[freeze + 1..thaw]);
    let window: Vec<_> = window.iter().filter(|c| agent_threads.contains(&c.process)).collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for call in &window {
        *count.entry(call.name).or_default() += 1;
    }
    println!("in the window: {count:?}");
    let listing = || window.iter().map(|c| c.line).collect::<Vec<_>>().join("\n");
    for call in &window {
        // Put back as soon as all is frozen, into what is open already.
        if call.name == "pwrite64" && call.line.contains("</sys/kernel/rcu_expedited>, \"0\"") {
            continue;
        }
        assert!(ALLOWED.contains(&call.name), "not allowed while frozen: {}\n{}", call.line, listing());
        if matches!(call.name, "write" | "writev") {
            let quiet = !["(1<", "(2<"].iter().any(|fd| call.line.contains(fd)) && !on_a_file(call.line);
            assert!(quiet, "written while frozen: {}\n{}", call.line, listing());
        }
    }
    // Both calls can hang where nothing ends them. The agent comes to FITHAW all the same when the freezer does
    // not begin in time; never to FIFREEZE.
    let by_agent = |what: &str, name: &str| {
        let at = format!("<{}>", rig.mount(name).display());
        let calls = lines.iter().filter(|l| l.contains(what) && l.contains(&at));
        let here = |line: &&str| agent_threads.contains(&line.split(' ').next().unwrap());
        calls.map(here).collect::<Vec<_>>()
    };
    for name in ["a", "b", "c"] {
        assert_eq!(by_agent("FIFREEZE", name), [false], "{name}");
    }
    let sent = window.iter().filter(|c| c.line.contains("POST / HTTP/1.1")).count();
    assert_eq!(sent, 1, "one request:\n{}", listing());
    ["a", "b", "c"].iter().all(|name| by_agent("FITHAW", name) == [false])
}

/// The line on which the last FIFREEZE came back: from there on everything is frozen.
fn last_freeze_returned(lines: &[&str]) -> usize {
    let (mut inside, mut returned) = (Vec::new(), Vec::new());
    for (n, line) in lines.iter().enumerate() {
        let process = line.split(' ').next().unwrap();
        if line.contains("FIFREEZE") && line.contains("unfinished") {
            inside.push(process);
        } else if line.contains("FIFREEZE") || (line.contains("ioctl resumed") && inside.contains(&process)) {
            inside.retain(|p| *p != process);
            returned.push(n);
        }
    }
    assert_eq!(returned.len(), 3, "three filesystems were frozen");
    returned.pop().unwrap()
}

/// `write(5</run/x>`: an fd on a path. Sockets, pipes and eventfds are shown as `socket:[…]`,
/// `anon_inode:[…]`, `TCP:[…]`.
fn on_a_file(line: &str) -> bool {
    line.split_once('<').is_some_and(|(_, rest)| rest.starts_with('/'))
}

/// The first process and every thread that it makes; the watchdog is a process of its own (no CLONE_THREAD).
fn threads_of_the_agent(trace: &str) -> Vec<&str> {
    let first = trace.split(' ').next().unwrap();
    let mut threads = vec![first];
    let mut unfinished: BTreeMap<&str, bool> = BTreeMap::new();
    for line in trace.lines() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let starts = rest.starts_with("clone");
        let resumes = rest.starts_with("<... clone");
        if starts {
            unfinished.insert(process, rest.contains("CLONE_THREAD"));
        }
        if (starts || resumes)
            && unfinished.get(process) == Some(&true)
            && let Some((_, made)) = line.rsplit_once("= ")
            && threads.contains(&process)
        {
            threads.push(made.trim());
        }
    }
    threads
}
