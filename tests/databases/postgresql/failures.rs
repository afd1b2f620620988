//! A server that cannot be held, or is lost while it is held: given up in time, and nothing stays.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::Rig;
use rig::patience::let_pass;
use rig::postgresql::Load;
use rig::probe::{assert_clean, assert_labels, assert_settled, database_process};
use rig::program::{await_some, await_within};
use rig::window::in_the_window;

use super::{VOLUMES, cluster, no_session, pid, refused};

/// The server ends the session while everything is frozen.
fn lost(mode: &str) {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    rig.configure(&server.section(&format!("mode = \"{mode}\"")));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let sessions = server.sessions();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    // A signal, since a query would be another session, and that would hang on the frozen volumes.
    kill(pid(&sessions[0]), Signal::SIGTERM).unwrap();
    let ended = run.end();
    let record = ended.exits(22).record();
    ended.says("was not quiesced all the time: it has closed the connection");
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert!(
        record["reason"].as_str().unwrap().contains("was not quiesced all the time"),
        "{}",
        record["reason"]
    );
    assert_labels(&rig, 2, "filesystem");
    no_session(&server);
    assert_eq!(server.log().contains("aborting backup"), mode == "backup", "{}", server.log());
    assert_settled(&rig);
}

#[test]
fn a_session_that_the_server_ends_is_no_hold() {
    lost("checkpoint");
}

#[test]
fn a_backup_whose_session_ends_is_none() {
    lost("backup");
}

#[test]
fn a_checkpoint_that_does_not_end_is_given_up_in_time() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let checkpointer = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    for mode in ["checkpoint", "backup"] {
        kill(pid(&checkpointer), Signal::SIGSTOP).unwrap();
        let section = server.section(&format!("mode = \"{mode}\"")).replace("20s", "5s");
        let ended =
            refused(&rig, &section, &[], &["within", "it waited for the checkpointer", "longer `timeout`"]);
        kill(pid(&checkpointer), Signal::SIGCONT).unwrap();
        // The checkpoint has to end before the next SIGSTOP: else the checkpointer would be stopped with
        // locks that other processes wait for without a limit.
        server.sql("CHECKPOINT");
        println!("{mode}: given up after {:?}: {}", ended.took, ended.err);
        assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
        assert_eq!(server.sessions(), Vec::<String>::new());
    }
    let ended = rig.run(&["snapshot"]);
    ended.exits(0);
    assert_settled(&rig);
}

/// The process that quiesces the server is killed, alone or with the agent, while the server waits for its
/// stopped checkpointer.
#[test]
fn what_is_killed_while_the_checkpoint_runs_leaves_no_session() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let checkpointer = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    rig.configure(&server.section("mode = \"backup\""));
    for agent_too in [false, true] {
        kill(pid(&checkpointer), Signal::SIGSTOP).unwrap();
        let run = rig.spawn(&["snapshot"]);
        await_some("the backup's start", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stillpoint%' AND \
                         query LIKE '%backup%' AND pid <> pg_backend_pid() AND wait_event LIKE 'Checkpoint%'";
            (server.value(waits) == "1").then_some(())
        });
        let holder = holder(&rig);
        if agent_too {
            run.signal(Signal::SIGKILL);
        }
        kill(holder, Signal::SIGKILL).unwrap();
        if agent_too {
            assert_eq!(run.end().signal, Some(9));
            // No process is left that could end the session. The server does: it checks every second whether
            // its client is still there.
            await_some("the end of its session", || server.sessions().is_empty().then_some(()));
        } else {
            run.end().exits(20).says("SIGKILL");
            assert_eq!(server.sessions(), Vec::<String>::new(), "it was not ended");
        }
        kill(pid(&checkpointer), Signal::SIGCONT).unwrap();
    }
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    kill(server.pid(), Signal::SIGSTOP).unwrap();
    let section = server.section("").replace("20s", "1s");
    let ended = refused(&rig, &section, &[], &["PostgreSQL on", "did not answer within 750ms"]);
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);

    // A signal ends the run also while that waits for the server.
    rig.configure(&server.section("").replace("20s", "60s"));
    for (command, signal) in [("snapshot", Signal::SIGTERM), ("rehearse", Signal::SIGINT)] {
        let run = rig.spawn(&[command]);
        await_some("the question", || database_process(&run));
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.signal, Some(signal as i32), "{}", ended.err);
        ended.says(&format!("interrupted by {signal}, before anything was touched"));
    }
    assert_eq!(rig.creates().len(), 0);
    kill(server.pid(), Signal::SIGCONT).unwrap();
    assert_settled(&rig);
}

/// The process that quiesces the server is stopped for good. Then the server ends the session by itself.
#[test]
fn a_holder_that_is_stopped_loses_its_session() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let kind = format!(
        r#""type":"postgresql","mode":"backup","host":"{}","allow_standby":false"#,
        server.run.display()
    );
    let mounts: Vec<_> = rig.mounts().iter().map(|m| set_mount(m)).collect();
    let order = format!(
        r#"{{"build":"{}","task":"quiesce","name":"pg","run":"0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11","kind":{{{kind}}},"set":[{}],"timeout":"20s","quiesce_limit":"1s"}}"#,
        stillpoint::build::ID,
        mounts.join(",")
    );
    let mut child = std::process::Command::new(rig::stillpoint_databases())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{order}\n").as_bytes()).unwrap();
    await_some("the hold", || {
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stillpoint%' \
                    AND state = 'idle' AND query LIKE '%redo_lsn%'";
        (server.value(idle) == "1").then_some(())
    });
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGSTOP).unwrap();
    // The idle-session timeout that the session sets is half a minute longer than its limit.
    await_within("the end of its session", Duration::from_secs(90), || {
        server.sessions().is_empty().then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(server.log().contains("idle-session timeout"), "{}", server.log());
}

/// A mount of the set, in the words in which the agent tells it to the process.
fn set_mount(mount: &Path) -> String {
    let dev = rig::sh("findmnt", &["-no", "MAJ:MIN", mount.to_str().unwrap()]);
    format!(r#"{{"mount_point":"{}","dev":"{}"}}"#, mount.display(), dev.trim())
}

/// The process that quiesces the server for a run of this rig.
fn holder(rig: &Rig) -> Pid {
    let run = rig.path("run");
    let run = run.to_str().unwrap();
    await_some("the process that holds", || {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().to_owned();
            let of_parent = std::fs::read(format!("/proc/{parent}/cmdline")).ok()?;
            let ours = arguments.starts_with(rig::stillpoint_databases().as_bytes())
                && String::from_utf8_lossy(&of_parent).contains(run);
            ours.then(|| pid(&entry.file_name().to_string_lossy()))
        })
    })
}

#[test]
fn a_killed_agent_leaves_no_session_and_no_backup() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    Load::prepare(&server);
    let load = Load::start(&server);
    rig.configure(&server.section("mode = \"backup\""));
    let run = in_the_window(&rig, &["snapshot"]);
    let held = server.sessions();
    assert_eq!(held.len(), 1, "{held:?}");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(9));
    await_some("the end of its session", || server.sessions().is_empty().then_some(()));
    await_some("transfers that go on", || {
        let count = || server.value("SELECT count(*) FROM history").parse::<u64>().unwrap();
        let before = count();
        let_pass("transfers", Duration::from_millis(100));
        (count() > before).then_some(())
    });
    load.stop();
    assert_clean(&rig);
    // What became of the request is asked at the next start.
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    no_session(&server);
    assert_settled(&rig);
}

#[test]
fn a_killed_holder_is_no_hold_and_leaves_no_backup() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    rig.configure(&server.section("mode = \"backup\""));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    kill(holder(&rig), Signal::SIGKILL).unwrap();
    let record = run.end().exits(22).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert_eq!(server.sessions(), Vec::<String>::new());
    assert!(server.log().contains("aborting backup"), "{}", server.log());
    assert_settled(&rig);
}
