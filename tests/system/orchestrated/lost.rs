//! A freeze that did not hold: the deadline, others who thaw or froze before, hooks that fail, a stuck
//! writer.

use std::process::Command;
use std::time::Duration;

use rig::hooks::{hook, log, note, noting};
use rig::probe::{BlockedWrite, assert_settled, is_thawed, nanoseconds, watchdogs};
use rig::program::await_some;
use rig::sh;
use serde_json::Value;

use super::{RELEASED, all_done, await_log, blocked, did_not_hold, freeze, id, status, thaw, two};

#[test]
fn nobody_thaws_and_the_deadline_does_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "5s");
    let writes = blocked(&rig);
    let end = all_done(&writes, Duration::from_secs(15)).expect("it was never thawed");
    let since = jiff::Timestamp::now().as_nanosecond() - i128::try_from(end.elapsed().as_nanos()).unwrap();
    let late = since - nanoseconds(&record["until"]);
    println!("thawed {} ms after the deadline", late / 1_000_000);
    assert!(late < 2_000_000_000, "thawed {} ms after the deadline", late / 1_000_000);
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "deadline");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

#[test]
fn somebody_else_thaws_and_that_is_said() {
    let rig = two();
    let record = freeze(&rig, "60s");
    sh("fsfreeze", &["--unfreeze", rig.mount("b").to_str().unwrap()]);
    did_not_hold(&rig, &record, rig.mount("b").to_str().unwrap());
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// FITHAW succeeds as if nothing had happened. Only the write counter shows that somebody thawed meanwhile.
#[test]
fn somebody_else_thaws_and_freezes_again_and_the_write_counter_moved() {
    let rig = two();
    let writes = {
        let record = freeze(&rig, "60s");
        let write = BlockedWrite::certain(&rig.mount("a"));
        let a = rig.mount("a");
        sh("fsfreeze", &["--unfreeze", a.to_str().unwrap()]);
        write.done(Duration::from_secs(5)).expect("it was not thawed");
        sh("fsfreeze", &["--freeze", a.to_str().unwrap()]);
        did_not_hold(&rig, &record, "written to")
    };
    assert_eq!(writes["still_frozen"], serde_json::json!([]));
    assert_settled(&rig);
}

#[test]
fn a_failed_pre_hook_freezes_nothing_and_releases() {
    let rig = two();
    let bad = hook("bad", "exit 3", &note(&rig, "post-bad"), "");
    rig.configure(&format!("{}{bad}", noting(&rig, "first")));
    let ended = rig.run(&["freeze", "--for", "30s", "-o", "json"]);
    let record = ended.exits(20).says("exit code 3").record();
    assert_eq!(log(&rig), ["pre-first", "post-bad", "post-first unknown"]);
    assert_eq!((record["held"].as_bool(), &record["times"]["frozen"]), (Some(false), &Value::Null));
    thaw(&rig, &["--run", id(&record)]).exits(22).says("nothing was frozen");
    assert_settled(&rig);
}

#[test]
fn a_failed_post_hook_is_said_and_the_freeze_held_all_the_same() {
    let rig = two();
    rig.configure(&format!("{}{}", noting(&rig, "first"), hook("bad", "true", "exit 4", "")));
    let record = freeze(&rig, "60s");
    let said = thaw(&rig, &["--run", id(&record), "-o", "json"]).exits(11).says("exit code 4").record();
    assert_eq!(said["held"], true);
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert_settled(&rig);
}

/// The run thaws what it froze itself, and leaves the other freeze to whoever made it.
#[test]
fn a_filesystem_that_somebody_else_froze_is_refused_and_left_frozen() {
    let rig = two();
    sh("fsfreeze", &["--freeze", rig.mount("b").to_str().unwrap()]);
    let ended = rig.run(&["freeze", "--for", "30s"]);
    // syncfs does not block on what is frozen, so the run comes as far as FIFREEZE, which says EBUSY.
    ended.exits(21).says("something else has frozen it");
    assert_eq!(ended.out, "");
    BlockedWrite::certain(&rig.mount("b"));
    sh("fsfreeze", &["--unfreeze", rig.mount("b").to_str().unwrap()]);
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// A FIFREEZE cannot return while a writer is inside. The command says so in time, though its holder cannot
/// end.
#[test]
fn a_stuck_writer_is_said_and_the_others_thaw() {
    let rig = two();
    rig.configure(&format!("[defaults]\nfreeze_timeout = \"3s\"\n{}", noting(&rig, "first")));
    let code = format!(
        "import os\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nos.splice(r,f,4096)",
        rig.mount("a").join("stuck").to_str().unwrap()
    );
    let mut writer = Command::new("python3").args(["-c", &code]).spawn().unwrap();
    let call = format!("/proc/{}/syscall", writer.id());
    await_some("the writer inside splice", || {
        let call = std::fs::read_to_string(&call).ok()?;
        (call.starts_with("275 ") || call.starts_with("76 ")).then_some(())
    });
    let ended = rig.run(&["freeze", "--for", "30s"]);
    ended.exits(40).says("STILL FROZEN").says(rig.mount("a").to_str().unwrap());
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert!(is_thawed(&rig.mount("b")), "b is still frozen");
    status(&rig, &[]).exits(40);
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("its end", || watchdogs(&rig).is_empty().then_some(()));
    thaw(&rig, &[]).exits(22);
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert_settled(&rig);
}
