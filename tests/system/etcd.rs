//! The engine of a group against a real etcd: what it stores, what it refuses, and what happens when it is away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::etcd::{Etcd as Server, Wire};
use rig::sh;
use stillpoint::config::settings::{GroupEngine, GroupSettings};
use stillpoint::consistency::Consistency;
use stillpoint::discover::Identity;
use stillpoint::group::engine::{Engine, EngineError, Heard, Written};
use stillpoint::group::etcd::Etcd;
use stillpoint::group::{Broken, Session};
use stillpoint::ids::RunId;

fn settings(server: &Server, url: &str, member: &str) -> GroupSettings {
    let secured = url.starts_with("https");
    let file = |name: &str| secured.then(|| server.file(name));
    GroupSettings {
        name: "g".to_owned(),
        plan: "default".to_owned(),
        member: member.to_owned(),
        members: ["a", "b", "c"].map(str::to_owned).to_vec(),
        engine: GroupEngine::Etcd,
        endpoints: vec![url.to_owned()],
        prefix: "/stillpoint/".to_owned(),
        ca: file("ca.pem"),
        cert: file("client.pem"),
        key: file("client.key"),
        user: secured.then(|| rig::etcd::USER.to_owned()),
        password_file: file("password"),
        join_timeout: Duration::from_secs(60),
        ready_timeout: Duration::from_secs(60),
        settle_timeout: Duration::from_secs(60),
        call_timeout: Duration::from_secs(2),
        lease: Duration::from_secs(5),
    }
}

fn engine(server: &Server, url: &str, member: &str) -> Etcd {
    Etcd::new(&settings(server, url, member)).unwrap()
}

fn identity() -> Identity {
    Identity {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        region: "eu-central-1".to_owned(),
        availability_zone: None,
        account_id: None,
    }
}

async fn gather(settings: GroupSettings) -> Result<Session, Broken> {
    let engine = Arc::new(Etcd::new(&settings).unwrap());
    Session::gather(engine, &settings, &RunId::generate(), &identity()).await
}

/// The three members, come together.
async fn three(of: impl Fn(&str) -> GroupSettings) -> [Session; 3] {
    let (a, b, c) = tokio::join!(gather(of("a")), gather(of("b")), gather(of("c")));
    [a.unwrap(), b.unwrap(), c.unwrap()]
}

/// One of the three at once, with all.
macro_rules! all {
    ($sessions:expr, $s:ident => $work:expr) => {{
        let [a, b, c] = &mut $sessions;
        let one = async |$s: &mut Session| $work.await;
        let (a, b, c) = tokio::join!(one(a), one(b), one(c));
        [a, b, c]
    }};
}

fn multi() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn through_all_phases(server: &Server) {
    let mut sessions = three(|name| settings(server, &server.url(), name)).await;
    assert_eq!(sessions[0].epoch(), sessions[1].epoch());
    assert_eq!(sessions[0].epoch(), sessions[2].epoch());
    assert_eq!(all!(sessions, s => s.ready()), [const { Ok(()) }; 3]);
    assert_eq!(all!(sessions, s => s.warm()), [const { Ok(()) }; 3]);
    assert_eq!(all!(sessions, s => s.set()), [const { Ok(()) }; 3]);
    assert_eq!(all!(sessions, s => s.frozen()), [const { Ok(()) }; 3]);
    assert_eq!(all!(sessions, s => s.answered()), [const { Ok(()) }; 3]);
    assert_eq!(all!(sessions, s => s.held(Consistency::Filesystem)), [const { Ok(()) }; 3]);
    for session in &sessions {
        let members = session.members();
        assert_eq!(members.iter().map(|m| m.member.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(members.iter().all(|m| m.label == Some(Consistency::Filesystem)), "{members:?}");
    }
    sessions.iter().for_each(Session::end);
    assert!(server.leases() > 0, "the entries stay for a while");
    nothing_left(server).await;
}

/// The tasks of this process go on meanwhile: whoever keeps a lease alive is seen.
async fn nothing_left(server: &Server) {
    until("no lease and no entry", || server.leases() == 0 && server.entries("g").is_empty()).await;
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let soon = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(rig::patience::CONDITION, soon).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn three_members_go_through_all_phases() {
    multi().block_on(through_all_phases(&Server::plain()));
}

#[test]
fn and_with_tls_client_certificates_and_users() {
    multi().block_on(through_all_phases(&Server::secured("g")));
}

#[test]
fn a_probe_changes_nothing_and_says_what_is_missing() {
    let server = Server::secured("g");
    multi().block_on(async {
        let revision = || {
            let said: serde_json::Value =
                serde_json::from_str(&server.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
            said[0]["Status"]["header"]["revision"].as_i64().unwrap()
        };
        let before = revision();
        let said = engine(&server, &server.url(), "a").probe().await.unwrap();
        assert!(said.ends_with("as stillpoint: /stillpoint/g/a may be written"), "{said}");
        assert_eq!(revision(), before, "nothing was written");

        let elsewhere = GroupSettings { name: "h".to_owned(), ..settings(&server, &server.url(), "a") };
        let denied = Etcd::new(&elsewhere).unwrap().probe().await.unwrap_err();
        assert_eq!(denied, EngineError::Denied("etcdserver: permission denied".to_owned()));

        std::fs::write(server.file("password"), "wrong\n").unwrap();
        let denied = engine(&server, &server.url(), "a").probe().await.unwrap_err();
        assert!(
            matches!(&denied, EngineError::Denied(why) if why.contains("authentication failed")),
            "{denied}"
        );

        let nobody =
            GroupSettings { user: None, password_file: None, ..settings(&server, &server.url(), "a") };
        let denied = Etcd::new(&nobody).unwrap().probe().await.unwrap_err();
        assert!(matches!(&denied, EngineError::Denied(_)), "{denied}");

        let no_certificate = GroupSettings { cert: None, key: None, ..settings(&server, &server.url(), "a") };
        let refused = Etcd::new(&no_certificate).unwrap().probe().await.unwrap_err();
        assert!(matches!(refused, EngineError::Unreachable(_)), "{refused}");

        let stranger = Server::secured("g");
        let other_ca =
            GroupSettings { ca: Some(stranger.file("ca.pem")), ..settings(&server, &server.url(), "a") };
        let refused = Etcd::new(&other_ca).unwrap().probe().await.unwrap_err();
        assert!(refused.to_string().contains("TLS"), "{refused}");

        let nothing = "http://127.0.0.1:1";
        let refused = engine(&server, nothing, "a").probe().await.unwrap_err();
        assert!(refused.to_string().contains("Connection refused"), "{refused}");
    });
}

#[test]
fn an_entry_is_replaced_only_by_whoever_knows_its_version() {
    let server = Server::plain();
    multi().block_on(async {
        let engine = engine(&server, &server.url(), "a");
        let Written::Done(read) = engine.write(b"one".to_vec(), 0).await.unwrap() else { panic!() };
        let version = read.entries[0].version;
        let Written::Other(read) = engine.write(b"two".to_vec(), 0).await.unwrap() else { panic!() };
        assert_eq!(read.entries[0].value.as_deref(), Some(&b"one"[..]));
        let Written::Done(read) = engine.write(b"two".to_vec(), version).await.unwrap() else { panic!() };
        assert_eq!(read.entries[0].value.as_deref(), Some(&b"two"[..]));
        assert_eq!(engine.read().await.unwrap(), read);
    });
}

#[test]
fn a_change_is_heard_at_once_and_a_watch_that_breaks_is_made_up_for() {
    let server = Server::plain();
    let wire = server.wire();
    multi().block_on(async {
        let a = engine(&server, &server.url_at(wire.port()), "a");
        a.write(b"a".to_vec(), 0).await.unwrap();
        let heard = async |value: &[u8]| {
            tokio::time::timeout(rig::patience::CONDITION, async {
                loop {
                    let known = match a.changed().await {
                        Heard::Entry(raw) => vec![raw],
                        Heard::Look => a.read().await.map(|read| read.entries).unwrap_or_default(),
                    };
                    if known.iter().any(|raw| raw.member == "b" && raw.value.as_deref() == Some(value)) {
                        return;
                    }
                }
            })
            .await
        };
        server.ctl(&["put", "/stillpoint/g/b", "one"]);
        heard(b"one").await.unwrap();
        // Of another group, and of a deeper folder: nobody's entry.
        server.ctl(&["put", "/stillpoint/g2/b", "two"]);
        server.ctl(&["put", "/stillpoint/g/b/c", "two"]);
        wire.close();
        wire.mend();
        server.ctl(&["put", "/stillpoint/g/b", "three"]);
        heard(b"three").await.unwrap();
        let names: Vec<String> = a.read().await.unwrap().entries.into_iter().map(|raw| raw.member).collect();
        assert_eq!(names, ["a", "b"]);
    });
}

/// A member in `frozen` hears of it when another one leaves, dies, or cannot be heard of.
fn breaks(how: impl AsyncFnOnce(&Server, &mut [Session; 3], &Wire)) -> Broken {
    let server = Server::plain();
    let wire = server.wire();
    let of = |name: &str| {
        let port =
            if name == "c" { wire.port() } else { server.url().rsplit(':').next().unwrap().parse().unwrap() };
        settings(&server, &server.url_at(port), name)
    };
    multi().block_on(async {
        let mut sessions = three(of).await;
        assert_eq!(all!(sessions, s => s.ready()), [const { Ok(()) }; 3]);
        assert_eq!(all!(sessions, s => s.set()), [const { Ok(()) }; 3]);
        assert_eq!(all!(sessions, s => s.frozen()), [const { Ok(()) }; 3]);
        how(&server, &mut sessions, &wire).await;
        let watched = tokio::time::timeout(rig::patience::CONDITION, sessions[0].watch()).await.unwrap();
        // From then on nothing is said any more.
        assert_eq!(sessions[0].answered().await, Err(watched.clone()));
        server.signal(Signal::SIGCONT);
        assert_ne!(server.phase("g", "a").as_deref(), Some("answered"));
        watched
    })
}

#[test]
fn who_leaves_is_heard_with_its_reason() {
    let broken = breaks(async |_, sessions, _| sessions[2].leave("EC2 said no").await.unwrap());
    assert_eq!(broken, Broken::Left { member: "c".to_owned(), reason: "EC2 said no".to_owned() });
}

#[test]
fn who_is_not_heard_of_is_lost_when_its_lease_is_over() {
    let broken = breaks(async |_, _, wire| wire.cut());
    assert_eq!(broken, Broken::Gone { member: "c".to_owned() });
}

#[test]
fn whose_entry_is_removed_by_hand_is_lost_at_once() {
    let broken = breaks(async |server, _, _| drop(server.ctl(&["del", "/stillpoint/g/c"])));
    assert_eq!(broken, Broken::Gone { member: "c".to_owned() });
    let broken = breaks(async |server, _, _| drop(server.ctl(&["del", "/stillpoint/g/a"])));
    assert_eq!(broken, Broken::OwnGone);
}

#[test]
fn an_engine_that_stops_is_waited_for_no_longer_than_a_call_may_take() {
    let broken = breaks(async |server, _, _| server.signal(Signal::SIGSTOP));
    assert!(matches!(broken, Broken::Engine(EngineError::Unreachable(_))), "{broken}");
}

#[test]
fn a_name_that_is_taken_is_refused_and_free_again_when_its_run_is_over_or_dead() {
    let server = Server::plain();
    let quick = |member: &str, join: u64| GroupSettings {
        join_timeout: Duration::from_millis(join),
        ..settings(&server, &server.url(), member)
    };
    multi().block_on(async {
        // The first `a` waits for the others; the second one cannot have its name.
        let first = tokio::spawn(gather(quick("a", 60_000)));
        until("the first is here", || server.phase("g", "a").is_some()).await;
        let second = gather(quick("a", 300)).await.unwrap_err();
        assert!(matches!(&second, Broken::Taken { member, .. } if member == "a"), "{second}");
        assert_eq!(server.phase("g", "a").as_deref(), Some("here"), "the first is as it was");
        // As if it was killed: its entry stays for the time of its lease, and the next run waits for that.
        first.abort();
        three(|name| quick(name, 60_000)).await[0].leave("over").await.unwrap();
        // What says that it is over is replaced at once.
        assert_eq!(server.phase("g", "a").as_deref(), Some("left"));
        three(|name| GroupSettings { lease: Duration::from_secs(60), ..quick(name, 60_000) }).await;
    });
}

#[test]
fn who_does_not_come_is_named_and_nothing_is_left() {
    let server = Server::plain();
    multi().block_on(async {
        let of = |name: &str| GroupSettings {
            join_timeout: Duration::from_millis(300),
            ..settings(&server, &server.url(), name)
        };
        let (a, b) = tokio::join!(gather(of("a")), gather(of("b")));
        for broken in [a.unwrap_err(), b.unwrap_err()] {
            assert!(matches!(&broken, Broken::Late { phase: "here", .. } | Broken::Left { .. }), "{broken}");
        }
        assert_eq!(server.phase("g", "a").as_deref(), Some("left"));
        nothing_left(&server).await;
    });
}

#[test]
fn files_that_others_may_read_or_that_are_no_certificates_are_refused() {
    let server = Server::secured("g");
    let good = settings(&server, &server.url(), "a");
    let refused = |settings: &GroupSettings| Etcd::new(settings).map(drop).unwrap_err().to_string();
    let text = server.file("text");
    std::fs::write(&text, "no certificate").unwrap();
    sh("chmod", &["600", text.to_str().unwrap()]);
    let of = |file: &PathBuf| Some(file.clone());
    assert!(refused(&GroupSettings { ca: of(&text), ..good.clone() }).contains("has no certificate in PEM"));
    assert!(
        refused(&GroupSettings { cert: of(&text), ..good.clone() }).contains("has no certificate in PEM")
    );
    assert!(refused(&GroupSettings { key: of(&text), ..good.clone() }).contains("no private key in PEM"));
    let absent = PathBuf::from("/nowhere");
    assert!(
        refused(&GroupSettings { password_file: Some(absent), ..good.clone() }).contains("cannot be used")
    );
    sh("chmod", &["640", server.file("password").to_str().unwrap()]);
    assert!(refused(&good).contains("others may read it (mode 640)"));
}
