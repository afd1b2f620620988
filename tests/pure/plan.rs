//! Facts and settings become plans: the text a person reads, for each host.

use insta::assert_snapshot;
use rig::fixture::{Host, facts};
use rig::fixture::{plan_with, vol};
use stillpoint::config::settings::{Expedite, UnmountedVolumes};
use stillpoint::config::settings::{Hook, HookKind, OnFailure, Redis, RedisMode};
use stillpoint::host::busy::Seen;
use stillpoint::host::process::Process;
use stillpoint::plan::Plan;
use stillpoint::quiesce::databases::running::kind_of;
use stillpoint::quiesce::databases::server::RunningServer;
use stillpoint::report;
use stillpoint::report::databases::{OnSet, on_set};

const WIDTH: usize = 80;

fn human(plan: &Plan) -> String {
    with_databases(plan, &[])
}

fn with_databases(plan: &Plan, databases: &[OnSet]) -> String {
    let text = report::plan::human(plan, databases, &Seen::default(), WIDTH);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "wider than {WIDTH}: {line}");
        assert_eq!(line, line.trim_end());
    }
    text
}

#[test]
fn stacks() {
    assert_snapshot!(human(&plan_with(&facts("stacks"), |_| {}).unwrap()));
}

#[test]
fn stacks_one_mount() {
    let plan = plan_with(&facts("stacks"), |s| s.mounts = vec!["/mnt/loop".into()]).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn nitro() {
    assert_snapshot!(human(&plan_with(&facts("nitro"), |_| {}).unwrap()));
}

#[test]
fn nitro_with_unmounted_volumes() {
    let plan = plan_with(&facts("nitro"), |s| s.unmounted_volumes = UnmountedVolumes::Crash).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn nitro_without_boot_volume() {
    let plan = plan_with(&facts("nitro"), |s| s.exclude_boot_volume = true).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn xen() {
    assert_snapshot!(human(&plan_with(&facts("xen"), |_| {}).unwrap()));
}

#[test]
fn thin() {
    assert_snapshot!(human(&plan_with(&facts("thin"), |_| {}).unwrap()));
}

#[test]
fn thin_partial() {
    let plan = plan_with(&facts("thin"), |s| {
        s.exclude_volumes = vec![vol('2')];
        s.allow_partial = true;
    });
    assert_snapshot!(human(&plan.unwrap()));
}

#[test]
fn thin_json() {
    let facts = facts("thin");
    let plan = plan_with(&facts, |s| s.mounts = vec!["/".into()]).unwrap();
    // The fixture's root is another folder each time.
    let stat = plan.filesystems[0].witnesses[0].stat.to_str().unwrap().to_owned();
    let root = stat.split("/sys/").next().unwrap();
    assert_snapshot!(report::plan::json(&plan, &[], &Seen::default()).unwrap().replace(root, "[root]"));
}

/// A server on the plan's first data filesystem.
fn server(plan: &Plan, pid: i32, comm: &str, data: &str) -> RunningServer {
    let on = plan.filesystems.iter().find(|f| data_dir(f.mount_point.to_str().unwrap())).unwrap();
    RunningServer {
        kind: kind_of(comm).unwrap(),
        process: Process { pid, comm: comm.into() },
        data: data.into(),
        on: vec![on.dev],
        sockets: vec![],
        addresses: vec![],
        written: vec![],
        container: false,
    }
}

fn data_dir(mount: &str) -> bool {
    mount != "/" && !mount.starts_with("/boot")
}

fn redis_section(name: &str, port: u16) -> Hook {
    let redis = Redis {
        mode: RedisMode::Pause,
        socket: None,
        host: None,
        port: Some(port),
        user: None,
        password_file: None,
        credential: None,
        pause_limit: None,
    };
    let timeout = std::time::Duration::from_secs(60);
    Hook { name: name.into(), kind: HookKind::Redis(redis), timeout, on_failure: OnFailure::Abort }
}

/// The part of the text that is about databases.
fn about(plan: &Plan, databases: &[OnSet]) -> String {
    let text = with_databases(plan, databases);
    let (_, after) = text.split_once("Databases on these filesystems\n").unwrap();
    after.split("\n\n").next().unwrap().to_owned()
}

#[test]
fn databases_that_nothing_quiesces_come_with_the_section_to_add() {
    let plan = plan_with(&facts("nitro"), |_| {}).unwrap();
    let addresses = |a: &[&str]| a.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
    let found = vec![
        RunningServer {
            sockets: vec!["/var/run/postgresql/.s.PGSQL.5432".into()],
            addresses: addresses(&["127.0.0.1:5432"]),
            ..server(&plan, 812, "postgres", "/srv/postgresql/15/main")
        },
        RunningServer {
            sockets: vec!["/srv/run/.s.PGSQL.5433".into()],
            ..server(&plan, 901, "postgres", "/srv/postgresql/15/second")
        },
        RunningServer {
            sockets: vec!["/run/mysqld/mysqlx.sock".into(), "/run/mysqld/mysqld.sock".into()],
            ..server(&plan, 77, "mariadbd", "/srv/mysql")
        },
        RunningServer {
            sockets: vec!["/run/redis/redis-server.sock".into()],
            written: vec!["/srv/redis/appendonlydir/appendonly.aof.1.incr.aof".into()],
            ..server(&plan, 4242, "redis-server", "/srv/a/rather/long/path/to/the/data/of/this/redis/server")
        },
        server(&plan, 9, "mongod", "/srv/mongodb"),
    ];
    assert_snapshot!(about(&plan, &on_set(found, &[], &plan)));
}

#[test]
fn a_section_quiesces_the_server_that_it_connects_to() {
    let plan = plan_with(&facts("nitro"), |_| {}).unwrap();
    let redis = |pid, port: u16| RunningServer {
        addresses: vec![format!("0.0.0.0:{port}").parse().unwrap()],
        ..server(&plan, pid, "redis-server", &format!("/srv/redis-{port}"))
    };
    // One server and one section: it is meant, however it connects.
    let one = on_set(vec![redis(1, 7000)], &[redis_section("cache", 6379)], &plan);
    assert_eq!((one[0].section.as_deref(), &one[0].suggestion), (Some("cache"), &None));
    // Two servers and one section.
    let hooks = [redis_section("cache", 6379)];
    let two = on_set(vec![redis(1, 6379), redis(2, 6380)], &hooks, &plan);
    assert_snapshot!(about(&plan, &two));
    let container = RunningServer { container: true, ..redis(3, 6379) };
    assert_snapshot!(about(&plan, &on_set(vec![container], &[], &plan)));
    assert_snapshot!(serde_json::to_string_pretty(&two[1]).unwrap());
}

/// What is suggested is taken as it stands by the configuration.
#[test]
fn suggestions_are_sections_of_the_configuration() {
    let plan = plan_with(&facts("nitro"), |_| {}).unwrap();
    let mut found = Vec::new();
    let names = ["postgres", "postmaster", "mysqld", "mariadbd", "redis-server", "valkey-server"];
    for (pid, comm) in names.into_iter().enumerate() {
        found.push(RunningServer {
            sockets: if pid % 2 == 0 { vec![] } else { vec![format!("/srv/a \"b/.s.PGSQL.54{pid}").into()] },
            addresses: if pid % 2 == 0 {
                vec![format!("10.0.0.{pid}:70{pid}0").parse().unwrap()]
            } else {
                vec![]
            },
            ..server(&plan, pid as i32, comm, &format!("/srv/data {pid}"))
        });
    }
    let text: String = on_set(found, &[], &plan).into_iter().map(|o| o.suggestion.unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stillpoint.toml");
    std::fs::write(&file, &text).unwrap();
    let output = std::process::Command::new(rig::stillpoint())
        .args(["--config".as_ref(), file.as_os_str(), "config".as_ref(), "check".as_ref()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn grace_periods_are_expedited_by_default_where_nothing_speaks_against_it() {
    let mut facts = Host::named("nitro").facts();
    let mut raised = |setting, objection: Option<&str>| {
        facts.not_expedited = objection.map(str::to_owned);
        let planned = plan_with(&facts, |s| s.rcu_expedited = setting).unwrap().expedite;
        assert!(objection.is_none_or(|why| setting != Expedite::Auto || planned.why == why), "{planned:?}");
        planned.raise
    };
    let objection = Some("this is a real-time kernel");
    assert!(raised(Expedite::Auto, None) && !raised(Expedite::Auto, objection));
    assert!(raised(Expedite::Always, None) && raised(Expedite::Always, objection));
    assert!(!raised(Expedite::Never, None) && !raised(Expedite::Never, objection));
    assert_eq!(Expedite::default(), Expedite::Auto);
}
