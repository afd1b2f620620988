//! Commands: order, outcomes, timeouts, what is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::trial::not_startable;
use super::super::*;
use super::{HookKind, dies, dir, env, hook, lives, of, pair, pid_in, post, pre, sh};

#[tokio::test]
async fn hooks_run_in_order_and_are_released_in_reverse_past_failures() {
    let (_dir, d) = dir();
    let note = |what: &str| format!("echo {what} >>{d}/log");
    let hooks = [
        hook("a", &note("pre-a"), &note("post-a")),
        hook("b", &note("pre-b"), &format!("{}; exit 1", note("post-b"))),
        hook("c", &format!("{}; exit 3", note("pre-c")), &note("post-c")),
        hook("d", &note("pre-d"), &note("post-d")),
    ];
    let mut attempted = Vec::new();
    let mut failed = None;
    for hook in &hooks {
        attempted.push(hook.clone());
        let outcome = pre(hook, &env()).await;
        if aborts(hook, &outcome) {
            failed = Some(outcome);
            break;
        }
    }
    let failed = failed.unwrap();
    assert_eq!((failed.name.as_str(), &failed.status), ("c", &HookStatus::Failed(Exit::Code(3))));
    let released = release(&attempted, &env()).await;
    let summary: Vec<_> = released.iter().map(|o| (o.name.as_str(), o.phase, o.succeeded())).collect();
    assert_eq!(summary, [("c", Phase::Post, true), ("b", Phase::Post, false), ("a", Phase::Post, true)]);
    let log = fs::read_to_string(format!("{d}/log")).unwrap();
    assert_eq!(
        log.split_whitespace().collect::<Vec<_>>(),
        ["pre-a", "pre-b", "pre-c", "post-c", "post-b", "post-a"]
    );
}

#[tokio::test]
async fn what_a_failed_pre_command_does_is_the_hooks_choice() {
    let mut hook = hook("x", "exit 1", "true");
    let failed = pre(&hook, &env()).await;
    assert!(aborts(&hook, &failed));
    hook.on_failure = OnFailure::Degrade;
    assert!(!aborts(&hook, &failed));
    assert!(aborts(&hook, &HookOutcome { status: HookStatus::Cancelled, ..failed.clone() }));
    assert!(!aborts(&hook, &HookOutcome { status: HookStatus::Ok, ..failed }));
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported_with_the_last_output() {
    let ended = |script: &'static str| async move { pre(&hook("x", script, "true"), &env()).await };
    assert_eq!(ended("true").await.status, HookStatus::Ok);
    let code = ended("echo out; echo locked by 17 >&2; exit 42").await;
    assert_eq!(code.status, HookStatus::Failed(Exit::Code(42)));
    assert_eq!(code.output, "out\nlocked by 17\n", "both streams, in their order");
    let text = code.to_string();
    assert!(text.starts_with("pre command of hook `x` failed with exit code 42 after "), "{text}");
    assert!(text.ends_with("; its last line was: locked by 17"), "{text}");
    let signal = ended("kill -ABRT $$").await;
    assert_eq!(signal.status, HookStatus::Failed(Exit::Signal(6)));
    assert!(signal.to_string().contains("was ended by SIGABRT"), "{signal}");
}

#[tokio::test]
async fn a_hook_without_that_command_succeeds_at_once() {
    let hook = pair("x", None, sh("exit 9"));
    assert!(pre(&hook, &env()).await.succeeded());
    assert!(!post(&hook, &env()).await.succeeded());
}

#[tokio::test]
async fn the_tail_of_the_output_is_kept_and_may_be_anything() {
    let many = pre(&hook("x", "seq 1 5000; printf 'caf\\351 without an end'", "true"), &env()).await;
    assert!(many.output.len() <= process::TAIL + 2, "{}", many.output.len());
    assert!(many.output.ends_with("4999\n5000\ncaf\u{fffd} without an end"), "{}", many.output);
    // A megabyte without a line feed ends, too.
    let wide = pre(&hook("x", "head -c 1000000 /dev/zero | tr '\\0' x", "true"), &env()).await;
    assert_eq!((wide.succeeded(), wide.output.len()), (true, process::TAIL));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let (_dir, d) = dir();
    fs::write(format!("{d}/plain"), "#!/bin/sh\n").unwrap();
    for (program, why) in
        [(format!("{d}/missing"), "No such file"), (format!("{d}/plain"), "Permission denied")]
    {
        let hook = pair("x", Some(vec![program]), None);
        match pre(&hook, &env()).await.status {
            HookStatus::NotStarted(text) => assert!(text.contains(why), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_timeout_kills_children_too_even_those_that_ignore_sigterm() {
    let (_dir, d) = dir();
    let script = format!(
        "/bin/sh -c 'trap \"\" TERM; echo $$ >{d}/child; while :; do sleep 1; done' & echo $$ >{d}/leader; \
         wait"
    );
    let hook = Hook { timeout: Duration::from_secs(3), ..hook("x", &script, "true") };
    let started = Instant::now();
    let outcome = pre(&hook, &env()).await;
    assert_eq!(outcome.status, HookStatus::TimedOut);
    assert!(aborts(&hook, &outcome));
    let took = started.elapsed();
    // The timeout and the grace; no more than that, but for what a slow machine adds.
    assert!(took >= Duration::from_millis(4900) && took < Duration::from_secs(20), "{took:?}");
    for file in ["leader", "child"] {
        let pid = pid_in(&Path::new(&d).join(file)).await;
        assert!(dies(pid).await, "{file} lives");
    }
}

#[tokio::test]
async fn a_group_that_obeys_sigterm_may_clean_up_and_is_not_waited_for_any_longer() {
    let (_dir, d) = dir();
    let script =
        format!("trap 'echo bye >{d}/clean; exit 0' TERM; echo $$ >{d}/pid; while :; do sleep 0.1; done");
    let hook = Hook { timeout: Duration::from_secs(3), ..hook("x", &script, "true") };
    let started = Instant::now();
    let outcome = pre(&hook, &env()).await;
    assert_eq!(outcome.status, HookStatus::TimedOut, "exit code 0 after the timeout is no success");
    assert!(started.elapsed() < Duration::from_millis(4900), "{:?}", started.elapsed());
    assert_eq!(fs::read_to_string(format!("{d}/clean")).unwrap(), "bye\n");
}

#[tokio::test]
async fn a_child_that_keeps_the_pipe_open_does_not_keep_the_run() {
    let (_dir, d) = dir();
    // What a hook does that keeps a database session open for its post command.
    let hook =
        hook("x", &format!("sleep 60 & echo $! >{d}/pid; echo quiesced"), &format!("kill $(cat {d}/pid)"));
    let started = Instant::now();
    let outcome = pre(&hook, &env()).await;
    assert!(outcome.succeeded(), "{outcome}");
    assert_eq!(outcome.output, "quiesced\n");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let pid = pid_in(&Path::new(&d).join("pid")).await;
    // A kill, were there one, takes a moment to be seen.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(lives(pid), "what a hook leaves behind in time is its own business");
    assert!(post(&hook, &env()).await.succeeded());
    assert!(dies(pid).await);
}

/// qemu's mysql-flush does so under dash, and would leave its FIFO behind: no freeze would succeed after
/// that.
#[tokio::test]
async fn a_child_that_is_left_behind_may_still_say_something() {
    let (_dir, d) = dir();
    let script = format!(
        "mkfifo {d}/fifo; (read word <{d}/fifo; echo a word >&2; rm {d}/fifo; echo done >{d}/log) & exit 0"
    );
    let hook = hook("x", &script, &format!("echo >{d}/fifo"));
    for _ in 0..2 {
        assert!(pre(&hook, &env()).await.succeeded());
        assert!(post(&hook, &env()).await.succeeded());
        for _ in 0..2000 {
            if Path::new(&d).join("log").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::remove_file(format!("{d}/log")).unwrap();
    }
}

#[tokio::test]
async fn cancelling_stops_the_group() {
    let (_dir, d) = dir();
    let hook = hook("x", &format!("sleep 60 & echo $! >{d}/pid; wait"), "true");
    let file = Path::new(&d).join("pid");
    let cancel = async {
        pid_in(&file).await;
    };
    let outcome = quiesce_one(&hook, &env(), &mut Quiesced::default(), cancel).await;
    assert_eq!(outcome.status, HookStatus::Cancelled);
    assert!(dies(pid_in(&file).await).await);
}

#[tokio::test]
async fn dropping_the_future_kills_the_group() {
    let (_dir, d) = dir();
    let hook = hook("x", &format!("trap '' TERM; sleep 60 & echo $! >{d}/pid; wait"), "true");
    let file = Path::new(&d).join("pid");
    let env = env();
    let pid = tokio::select! {
        outcome = pre(&hook, &env) => panic!("{outcome}"),
        pid = pid_in(&file) => pid,
    };
    assert!(dies(pid).await, "the child of the dropped hook lives");
}

/// It may have become so since the run looked: right before each start is what counts.
#[tokio::test]
async fn what_somebody_else_could_change_is_not_started() {
    let (_dir, d) = dir();
    let script = format!("{d}/script");
    fs::write(&script, format!("echo ran >> {d}/log\n")).unwrap();
    let mode = |mode| fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
    let command = ["/usr/bin/env", "/bin/sh", &script].map(str::to_owned).to_vec();
    let hook = pair("h", Some(command.clone()), Some(command.clone()));
    let session = crate::config::settings::SessionHook {
        command,
        release: None,
        user: None,
        environment: BTreeMap::new(),
    };
    let session = of("s", HookKind::Session(session));
    mode(0o757);
    assert_eq!(loose(&hook)[0].1.place, Path::new(&script));
    for outcome in [pre(&hook, &env()).await, post(&hook, &env()).await, pre(&session, &env()).await] {
        let HookStatus::NotStarted(why) = &outcome.status else { panic!("{outcome:?}") };
        assert!(why.contains(&format!("{script} can be written by everybody")), "{why}");
        assert!(outcome.hint.unwrap().contains("chmod go-w"));
    }
    assert!(!Path::new(&format!("{d}/log")).exists());
    mode(0o755);
    assert!(loose(&hook).is_empty());
    assert!(pre(&hook, &env()).await.succeeded());
    assert_eq!(fs::read_to_string(format!("{d}/log")).unwrap(), "ran\n");
}

#[test]
fn commands_are_checked_before_any_of_them_runs() {
    let (_dir, d) = dir();
    let file = format!("{d}/program");
    // Without a program to try with.
    let none = Path::new("/nonexistent");
    let hooks = |program: &str| [hook("a", "", ""), pair("b", None, Some(vec![program.into()]))];
    assert!(not_startable(&hooks("/bin/sh"), none).into_iter().next().is_none());
    let e = not_startable(&hooks(&file), none).into_iter().next().unwrap();
    assert_eq!(e.to_string(), format!("hook `b`: cannot run its post command {file}"));
    assert!(e.hint().unwrap().starts_with("install "), "{:?}", e.hint());
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        not_startable(&hooks(&file), none)
            .into_iter()
            .next()
            .unwrap()
            .hint()
            .unwrap()
            .starts_with("chmod +x ")
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(not_startable(&hooks(&file), none).into_iter().next().is_none());
    assert!(not_startable(&hooks(&d), none).into_iter().next().is_some(), "a directory");
}

/// The agent was killed while it ran: it would quiesce after its release.
#[tokio::test]
async fn a_pre_command_that_outlives_its_agent_is_ended_before_its_release() {
    let (_dir, d) = dir();
    let script =
        format!("setsid sleep 60 & echo $! >{d}/of-pre; echo $$ >{d}/pre; while :; do sleep 0.1; done");
    // Tests run side by side in one run: only this one has a hook of that name.
    let hook = hook("left-behind", &script, "true");
    let start = |name: &str, run: &str| {
        let mut command = tokio::process::Command::new("/bin/sh");
        let vars = env().vars("left-behind", Phase::Pre).into_iter();
        let vars = vars.map(|(k, v)| if k == "STILLPOINT_RUN_ID" { (k, run.into()) } else { (k, v) });
        command.args(["-c", &script.replace("pre;", &format!("{name};"))]).env_clear().envs(vars);
        command.process_group(0).kill_on_drop(true).spawn().unwrap()
    };
    let run = env().run_id.to_string();
    let mut left = start("pre", &run);
    let mut others = start("other", "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e99");
    let file = |name: &str| Path::new(&d).join(name);
    let (pre, other) = (pid_in(&file("pre")).await, pid_in(&file("other")).await);
    let (on_purpose, others_own) = (pid_in(&file("of-pre")).await, pid_in(&file("of-other")).await);
    // It is forked into the group and leaves it a moment later.
    let id = nix::unistd::Pid::from_raw(on_purpose);
    for _ in 0..2000 {
        if nix::unistd::getsid(Some(id)) == Ok(id) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reaper = tokio::spawn(async move { left.wait().await });
    orphans::end_commands(&env(), &hook).await;
    assert!(!lives(pre) && lives(other));
    assert!(lives(on_purpose), "what has a session of its own was left behind on purpose");
    for pid in [on_purpose, others_own, other] {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = others.wait().await;
    reaper.abort();
}
