//! Redis is held, and what is restored is what it had acknowledged: real servers, real volumes, under load.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::copy::Copy;
use rig::patience::let_pass;
use rig::probe::{assert_labels, assert_settled};
use rig::program::{Run, await_some};
use rig::redis::{Holder, Load, Pairs, SOON, Server, check_aof, holders, on, one, order};
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};
use stillpoint::quiesce::databases::Task;

/// How many sets are taken under load and restored.
fn sets() -> usize {
    if std::env::var_os("STILLPOINT_LONG").is_some() { 40 } else { 3 }
}

/// The newest snapshot, mounted.
fn restored(rig: &Rig) -> Copy {
    rig.await_quiet();
    let snapshot = rig.snapshots().last().unwrap()["id"].as_str().unwrap().to_owned();
    Copy::mount(rig, &snapshot, &format!("restored-{snapshot}"))
}

/// Both counters of a server that is started on the restored files.
fn counters(rig: &Rig, restored: &Copy, more: &[&str]) -> (u64, u64) {
    let (a, b): (Option<u64>, Option<u64>) =
        Server::start(rig, &restored.at.join("redis"), more).ask("MGET a b");
    (a.unwrap_or_default(), b.unwrap_or_default())
}

/// What a server that is held has executed. The server is asked, since a client may not have read its last
/// reply yet.
fn held(server: &Server, pairs: &Pairs) -> u64 {
    let acknowledged = pairs.standing();
    let executed: u64 = server.ask("GET a");
    assert!(acknowledged <= executed, "{acknowledged} {executed}");
    executed
}

#[test]
fn sets_taken_under_load_hold_every_acknowledged_write() {
    let mut rig = one(Fs::Xfs);
    let server = on(&rig, &[]);
    let pairs = Pairs::start(&server);
    let _load = Load::start(&server);
    rig.configure(&server.section(""));
    let mut stalls = Vec::new();
    for _ in 0..sets() {
        rig.renew_rescue();
        pairs.goes_on(100, SOON);
        pairs.longest();
        let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
        let executed = held(&server, &pairs);
        let record = run.end().exits(0).record();
        assert_eq!(record["achieved"], "application", "{record:#}");
        pairs.goes_on(10, SOON);
        stalls.push(pairs.longest());
        let restored = restored(&rig);
        check_aof(&restored.at.join("redis"));
        let strict = ["--aof-load-truncated", "no"];
        assert_eq!(counters(&rig, &restored, &strict), (executed, executed));
    }
    println!("longest stalls of a client, as long as EC2 was made to take: {stalls:?}");
    assert_labels(&rig, sets(), "application");
    assert_settled(&rig);
}

/// A server whose fsync takes long, as on a busy volume: `everysec` then keeps acknowledged writes in memory
/// for up to two seconds.
fn slow(rig: &Rig) -> Server {
    let slow = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_enter=1500000",
    ];
    let server = Server::under(rig, &rig.mount("data").join("redis"), &slow, &[]);
    server.ask::<u64>("INCR warm");
    server
}

/// Waits until acknowledged writes are in memory only. They stay there for more than a second, since the
/// server has just written the ones before.
fn await_unwritten(server: &Server) {
    let (length, last) = (|| server.info("aof_buffer_length").parse::<u64>().unwrap(), Cell::new(0));
    await_some("a buffer that was just written", || {
        let now = length();
        (now < last.replace(now)).then_some(())
    });
    await_some("a buffer that is not written", || (length() > 4000).then_some(()));
}

#[test]
fn what_redis_keeps_back_is_written_before_it_is_held() {
    let rig = one(Fs::Ext4);
    let server = slow(&rig);
    let pairs = Pairs::start(&server);
    rig.configure(&server.section(""));
    pairs.goes_on(10, SOON);
    await_unwritten(&server);
    let run = in_the_window(&rig, &["snapshot"]);
    let executed = held(&server, &pairs);
    run.end().exits(0);
    assert_eq!(counters(&rig, &restored(&rig), &[]), (executed, executed));
    assert_settled(&rig);
}

/// The controls: a freeze without a pause loses acknowledged writes, and so does a snapshot without a freeze.
#[test]
fn control_without_the_pause_acknowledged_writes_are_missing() {
    let rig = one(Fs::Ext4);
    let server = slow(&rig);
    let pairs = Pairs::start(&server);
    pairs.goes_on(10, SOON);
    let mut lost = Vec::new();
    // More than once: it may have written between the look and the stop.
    for _ in 0..10 {
        await_unwritten(&server);
        // Only frozen. On a busy machine that takes long enough for the server to write after all.
        let still = server.stand_still();
        let before = pairs.acknowledged();
        rig.run(&["snapshot"]).exits(0);
        drop(still);
        let (a, b) = counters(&rig, &restored(&rig), &[]);
        assert_eq!(a, b, "a transaction is whole or not there");
        lost.push(before.saturating_sub(a));
        if a < before {
            break;
        }
    }
    println!("acknowledged writes that a freeze alone lost: {lost:?}");
    assert!(lost.iter().any(|l| *l > 0), "the pause would be for nothing: {lost:?}");
    // No freeze at all.
    await_unwritten(&server);
    let still = server.stand_still();
    let before = pairs.acknowledged();
    rig.sim(&["call", "CreateSnapshot", &format!("VolumeId={}", rig.id("data"))]);
    drop(still);
    match catch_unwind(AssertUnwindSafe(|| counters(&rig, &restored(&rig), &[]))) {
        Ok((a, _)) => {
            assert!(a < before, "{a} of {before}");
            println!("without a freeze: {} of {before} are lost", before - a);
        }
        // Torn in the middle, it is not even loaded.
        Err(why) => {
            let why = why.downcast_ref::<String>().map_or("", String::as_str);
            assert!(why.contains("Bad file format reading the append only file"), "{why}");
            println!("without a freeze: the server refuses its file");
        }
    }
}

#[test]
fn a_dump_is_whole_and_as_new_as_the_hold() {
    let rig = one(Fs::Ext4);
    let dumps = ["--appendonly", "no"];
    let server = on(&rig, &dumps);
    let pairs = Pairs::start(&server);
    rig.configure(&server.section("mode = \"bgsave\""));
    pairs.goes_on(50, SOON);
    let before = pairs.acknowledged();
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    // The server is asked, since a client may not have read the reply to what was executed before the dump.
    let during: u64 = server.ask("GET a");
    pairs.goes_on(10, Duration::from_secs(4));
    let record = run.end().exits(0).record();
    assert_eq!(record["achieved"], "application");
    let restored = restored(&rig);
    let (a, b) = counters(&rig, &restored, &dumps);
    assert!(a == b && (before..=during).contains(&a), "{a} {b}, {before}..={during}");
    assert_settled(&rig);
}

#[test]
fn a_dump_that_fails_stops_the_run() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &["--appendonly", "no"]);
    server.ask::<String>("SET a 1");
    rig.configure(&server.section("mode = \"bgsave\""));
    let dir = server.dir.to_str().unwrap();
    sh("chattr", &["+i", dir]);
    rig.run(&["snapshot"]).exits(20).says("BGSAVE of").says("its status is `err`");
    sh("chattr", &["-i", dir]);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

/// Keys do not expire while writes are paused, and a server that closes idle connections is held all the
/// same.
#[test]
fn expiry_and_idle_connections_do_not_end_a_hold() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &["--timeout", "1"]);
    rig.configure(&server.section(""));
    // Held before it would expire, and looked at between that and the thaw. How long it takes to be held depends
    // on the machine.
    let mut lives = Duration::from_millis(3500);
    let (run, set, expired) = loop {
        let set = Instant::now();
        server.ask::<String>(&format!("SET brief 1 PX {}", lives.as_millis()));
        let expired = server.info("expired_keys");
        let run = in_the_window(&rig, &["snapshot", "--window", "60s", "-o", "json"]);
        if set.elapsed() < lives {
            break (run, set, expired);
        }
        run.end().exits(0);
        lives *= 2;
        assert!(lives < Duration::from_secs(40), "it takes longer and longer to be held");
    };
    let past = lives + Duration::from_millis(700);
    let_pass("the key's time to live", past.saturating_sub(set.elapsed()));
    assert_eq!((server.info("expired_keys"), server.ask::<u64>("DBSIZE")), (expired, 1), "kept while held");
    let record = run.end().exits(0).record();
    assert_eq!(record["achieved"], "application", "{record:#}");
    await_some("it expires", || (server.ask::<u64>("DBSIZE") == 0).then_some(()));
    assert_settled(&rig);
}

#[test]
fn a_pause_that_somebody_else_ended_is_no_hold() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    let pairs = Pairs::start(&server);
    rig.configure(&server.section(""));
    let pid = server.info("process_id");
    let run = in_the_window(&rig, &["snapshot", "--on-degraded", "keep", "-o", "json"]);
    pairs.standing();
    // The answer is not waited for: the server writes to the frozen filesystem first.
    let unpause = ::redis::cmd("CLIENT").arg("UNPAUSE").get_packed_command();
    server.connect().send_packed_command(&unpause).unwrap();
    await_some("the server to write", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") D ").then_some(())
    });
    let ended = run.end();
    // The set was taken, with a lower label.
    ended.exits(10);
    ended.says("was not quiesced all the time");
    assert_eq!(ended.record()["achieved"], "filesystem");
    assert_labels(&rig, 1, "filesystem");
    pairs.goes_on(10, SOON);
    assert_settled(&rig);
}

#[test]
fn a_server_that_was_restarted_meanwhile_was_not_held() {
    let rig = one(Fs::Ext4);
    let mut server = on(&rig, &[]);
    let order = order(Task::Quiesce, &server, rig.mounts(), Duration::from_secs(60), |_| {});
    let holder = Holder::start(&order).ready();
    server.kill();
    drop(server);
    let server = on(&rig, &[]);
    let (well, said) = holder.end();
    assert!(!well && said.contains("it was restarted"), "{said}");
    assert!(server.writes_within(SOON).is_some());
}

#[test]
fn when_the_agent_is_killed_writes_go_on_at_once() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    let pairs = Pairs::start(&server);
    rig.configure(&server.section(""));
    let run = in_the_window(&rig, &["snapshot", "--window", "30s"]);
    pairs.standing();
    let killed = Instant::now();
    run.signal(Signal::SIGKILL);
    pairs.goes_on(10, SOON); // the window and the pause would be longer
    println!("writes go on {:?} after the agent was killed", killed.elapsed());
    run.end();
    // The journal still says that a release is owed; to release twice does no harm.
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    pairs.goes_on(10, SOON);
    // What became of the request is asked at the next start.
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    pairs.goes_on(10, SOON);
    assert_settled(&rig);
}

#[test]
fn when_the_session_is_killed_too_the_rescue_ends_the_pause() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    let pairs = Pairs::start(&server);
    rig.configure(&server.section(""));
    let run = in_the_window(&rig, &["snapshot"]);
    let sessions = holders(run.pid());
    assert_eq!(sessions.len(), 1);
    run.signal(Signal::SIGSTOP); // so that it does not see its session die first
    kill(sessions[0], Signal::SIGKILL).unwrap();
    run.signal(Signal::SIGKILL);
    run.end();
    pairs.standing();
    assert!(server.writes_within(Duration::from_millis(500)).is_none(), "the pause is in force");
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    pairs.goes_on(10, SOON);
    // What became of the request is asked at the next start.
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    pairs.goes_on(10, SOON);
    assert_settled(&rig);
}

#[test]
fn a_pause_that_ends_before_the_run_does_is_no_hold() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    rig.configure(&server.section("pause_limit = \"1s\""));
    let run = in_the_window(&rig, &["snapshot", "--on-degraded", "keep", "-o", "json"]);
    // No write shows that the pause has ended, so the run has to see it by the clock.
    let_pass("the pause's limit", Duration::from_millis(1500));
    let ended = run.end();
    ended.exits(10);
    ended.says("the pause ended by itself after 1s");
    assert_eq!(ended.record()["achieved"], "filesystem");
    assert_settled(&rig);
}

#[test]
fn a_pause_ends_by_itself_when_nobody_is_left() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    let order = order(Task::Quiesce, &server, rig.mounts(), Duration::from_secs(5), |_| {});
    let mut holder = Holder::start(&order).ready();
    holder.child.kill().unwrap();
    let took = server.writes_within(Duration::from_secs(12)).expect("the pause has an end");
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    println!("a pause of 5 s ended {took:?} after its process was killed");
}

/// `plan` names a server that runs, and the section that it suggests holds that server.
#[test]
fn the_plan_shows_the_server_and_its_suggestion_holds_it() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    let elsewhere = Server::start(&rig, &rig.path("elsewhere"), &[]);
    let found =
        |arguments: &[&str]| rig.run(arguments).exits(0).record()["databases"].as_array().unwrap().clone();
    let databases = found(&["plan", "-o", "json"]);
    let [database] = databases.as_slice() else { panic!("{databases:#?}") };
    let pid: i32 = server.info("process_id").parse().unwrap();
    assert_eq!((&database["kind"], &database["process"]["pid"]), (&"redis".into(), &pid.into()));
    assert_eq!(database["data"], server.dir.to_str().unwrap());
    assert_eq!(database["mounts"][0], rig.mount("data").to_str().unwrap());
    assert_eq!(database["section"], serde_json::Value::Null);
    let suggestion = database["suggestion"].as_str().unwrap();
    assert_eq!(suggestion, format!("[[redis]]\nsocket = \"{}\"\n", server.socket.display()));
    let connections = server.info("total_connections_received");
    let text = rig.run(&["plan"]);
    assert!(text.exits(0).out.contains("not configured: nothing quiesces it"), "{}", text.out);
    let after: u64 = server.info("total_connections_received").parse().unwrap();
    assert_eq!(
        after,
        connections.parse::<u64>().unwrap() + 1,
        "that is this test's own: the plan has connected"
    );
    rig.configure(suggestion);
    assert_eq!(found(&["plan", "-o", "json"])[0]["section"], "redis");
    assert_eq!(rig.run(&["snapshot", "-o", "json"]).exits(0).record()["achieved"], "application");
    assert!(elsewhere.writes_within(SOON).is_some());
    assert_settled(&rig);
}

/// The shipped example and the documented section are run, with the paths of this test.
#[test]
fn the_shipped_example_and_the_documented_section_take_a_set() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    for text in [include_str!("../../packaging/examples/redis.toml"), rig::documented("redis")] {
        let text = text
            .replace("/var/lib/redis", rig.mount("data").to_str().unwrap())
            .replace("/run/redis/redis-server.sock", server.socket.to_str().unwrap())
            .replace("exclude_boot_volume = true\n", ""); // there is none here
        rig.configure(&text);
        let record = rig.run(&["snapshot", "redis", "-o", "json"]).exits(0).record();
        assert_eq!(record["achieved"], "application", "{record:#}");
    }
    assert_settled(&rig);
}
