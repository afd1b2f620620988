//! What cannot be held is refused, with what to do; passwords are never said.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::probe::assert_settled;
use rig::program::Run;
use rig::redis::{Holder, SOON, Server, holders, on, one, order};
use rig::window::in_the_window_of;
use rig::{Fs, Rig, sh};
use stillpoint::config::settings::{Redis, RedisMode};
use stillpoint::quiesce::databases::Task;

/// What is said against a server with these settings; nothing when it is accepted.
fn check(rig: &Rig, server: &Server, change: impl FnOnce(&mut Redis)) -> Result<(), String> {
    let order = order(Task::Check, server, rig.mounts(), SOON, change);
    match Holder::start(&order).ended() {
        (true, _) => Ok(()),
        (false, said) => Err(said),
    }
}

#[track_caller]
fn says(told: Result<(), String>, words: &[&str]) {
    let told = told.expect_err("it is accepted");
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
}

#[test]
fn what_could_not_be_held_is_refused_before_anything_is_touched() {
    let rig = one(Fs::Ext4);
    let inside = rig.mount("data");
    let good = on(&rig, &[]);
    assert_eq!(check(&rig, &good, |_| {}), Ok(()));
    assert_eq!(check(&rig, &good, |s| s.mode = RedisMode::Bgsave), Ok(()));
    let gone = |s: &mut Redis| s.socket = Some("/nowhere.sock".into());
    says(check(&rig, &good, gone), &["hint is it running", "cannot reach /nowhere.sock"]);

    let outside = Server::start(&rig, &rig.path("outside"), &[]);
    says(
        check(&rig, &outside, |_| {}),
        &["outside is not on a filesystem of the set", inside.to_str().unwrap()],
    );

    // The folder is in the set, and the append-only files are not.
    let linked = inside.join("linked");
    drop(Server::start(&rig, &linked, &[]));
    sh("mv", &[linked.join("appendonlydir").to_str().unwrap(), rig.path("elsewhere").to_str().unwrap()]);
    std::os::unix::fs::symlink(rig.path("elsewhere"), linked.join("appendonlydir")).unwrap();
    let linked = Server::start(&rig, &linked, &[]);
    says(check(&rig, &linked, |_| {}), &["the append-only folder", "is not on a filesystem of the set"]);

    let dumps = Server::start(&rig, &inside.join("dumps"), &["--appendonly", "no"]);
    says(check(&rig, &dumps, |_| {}), &["has no append-only file", "hint use mode = \"bgsave\""]);
    assert_eq!(check(&rig, &dumps, |s| s.mode = RedisMode::Bgsave), Ok(()));

    let replica = Server::start(&rig, &inside.join("replica"), &["--replicaof", "127.0.0.1 9"]);
    says(check(&rig, &replica, |_| {}), &["is a replica of 127.0.0.1:9", "a pause would not stop"]);
    assert_eq!(check(&rig, &replica, |s| s.mode = RedisMode::Bgsave), Ok(()));

    let renamed = Server::start(&rig, &inside.join("renamed"), &["--rename-command", "CONFIG", ""]);
    says(check(&rig, &renamed, |_| {}), &["does not know the command CONFIG GET", "rename-command"]);

    // The server runs in a container: its process ids and paths are not those of this host.
    let apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"];
    let apart = Server::under(&rig, &inside.join("apart"), &apart, &[]);
    says(check(&rig, &apart, |_| {}), &["says that it is process", "no such process of this host"]);
}

#[test]
fn passwords_come_from_files_that_are_kept_and_are_never_said() {
    let secret = "correct-horse-battery";
    let rig = one(Fs::Ext4);
    let server = on(&rig, &["--requirepass", secret]);
    let file = rig.path("password");
    let keep = |path: &Path, text: &str, mode: u32| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let with = |s: &mut Redis| s.password_file = Some(file.clone());
    says(check(&rig, &server, |_| {}), &["asks for a password", "hint give the section a `password_file`"]);
    says(check(&rig, &server, with), &["cannot read the password file"]);
    keep(&file, secret, 0o640);
    says(check(&rig, &server, with), &["others than its owner can read", "chmod 600"]);
    keep(&file, "another-secret\n", 0o600);
    let told = check(&rig, &server, with);
    assert!(!told.as_ref().unwrap_err().contains("another-secret"), "{told:?}");
    says(told, &["refused the password of the user `default`"]);
    keep(&file, &format!("{secret}\n# kept by hand\n"), 0o600);
    assert_eq!(check(&rig, &server, with), Ok(()));

    // A user who may do only what is needed is accepted. What another lacks is named.
    let line = "ACL SETUSER stillpoint on >correct-horse-battery resetkeys +info +client|unpause";
    server.ask::<String>(line);
    let user = |s: &mut Redis| {
        with(s);
        s.user = Some("stillpoint".into());
    };
    let told = check(&rig, &server, user);
    says(
        told.clone(),
        &["does not let the user `stillpoint` run CONFIG GET", "hint in redis-cli: ACL SETUSER stillpoint "],
    );
    let told = told.unwrap_err();
    let remedy = told.lines().find_map(|l| l.strip_prefix("hint in redis-cli: ")).unwrap();
    server.ask::<String>(remedy);
    let limit = Duration::from_secs(60);
    let hold =
        |change: &dyn Fn(&mut Redis)| order(Task::Quiesce, &server, rig.mounts(), limit, |s| change(s));
    let (well, said) = Holder::start(&hold(&user)).ready().end();
    assert!(well, "{said}");
    // A user who could not end a pause must not begin one.
    server.ask::<String>("ACL SETUSER stillpoint -client|unpause");
    let begun = Instant::now();
    let (well, said) = Holder::start(&hold(&user)).ended();
    assert!(!well && said.contains("run CLIENT UNPAUSE"), "{said}");
    assert!(server.writes_within(SOON).is_some(), "paused");
    assert!(begun.elapsed() < limit, "a pause could have ended by itself");

    // The password comes as a systemd credential, and a whole run shows it nowhere.
    let folder = rig.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    keep(&folder.join("redis"), &format!("{secret}\n"), 0o400);
    let env = format!(
        "[[hook]]\nname = \"env\"\npre = [\"/bin/sh\", \"-c\", \"env > {}\"]\ntimeout = \"5s\"\n",
        rig.path("env").display()
    );
    rig.configure(&format!("{env}{}", server.section("credential = \"redis\"")));
    says(
        check(&rig, &server, |s| s.credential = Some("redis".into())),
        &["there is no systemd credential `redis`"],
    );
    let mut command = rig.command(&["snapshot", "-o", "json"]);
    command.env("CREDENTIALS_DIRECTORY", &folder);
    let run = in_the_window_of(&rig, command);
    let agent = run.pid();
    for pid in holders(agent).into_iter().chain([agent]) {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains(secret), "{file}");
        }
    }
    let ended = run.end();
    ended.exits(0);
    assert_eq!(ended.record()["achieved"], "application");
    let mut texts = vec![ended.out, ended.err, std::fs::read_to_string(rig.path("env")).unwrap()];
    assert!(!texts[2].contains("CREDENTIALS"), "{}", texts[2]);
    for folder in ["state", "run"] {
        let all = std::process::Command::new("grep").args(["-r", ""]).arg(rig.path(folder)).output().unwrap();
        texts.push(String::from_utf8_lossy(&all.stdout).into_owned());
    }
    assert!(texts.iter().all(|t| !t.contains(secret)));
    assert_settled(&rig);
}

/// The agent finds the program beside its own file.
#[test]
fn without_the_program_that_talks_to_databases_nothing_is_touched() {
    let rig = one(Fs::Ext4);
    let server = on(&rig, &[]);
    rig.configure(&server.section(""));
    let alone = rig.path("bin");
    std::fs::create_dir(&alone).unwrap();
    for program in [rig::stillpoint(), rig::stillpoint_databases()] {
        sh("cp", &[program, alone.to_str().unwrap()]);
    }
    let run = |more: &[&str]| {
        let command = rig.exec(&alone.join("stillpoint"));
        Run::start(rig.tail(command, &[&["snapshot"], more].concat())).end()
    };
    let clients = alone.join("stillpoint-databases");
    run(&[]).exits(0);
    let taken = rig.creates().len();
    std::fs::set_permissions(&clients, std::fs::Permissions::from_mode(0o757)).unwrap();
    run(&[]).exits(20).says("can be written by everybody").says("hint: install it anew");
    std::fs::remove_file(&clients).unwrap();
    run(&[]).exits(20).says("stillpoint-databases, cannot be used").says("from the same build");
    assert_eq!(rig.creates().len(), taken);
    assert_settled(&rig);
}
