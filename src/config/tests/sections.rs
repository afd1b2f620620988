//! The sections of applications: what each kind is, and what arrives of its keys.

use std::collections::BTreeMap;

use super::settings::{CheckedDatabase, ContainerHook, Hook, MysqlMethod, SystemdHook};
use super::*;

fn hooks(text: &str) -> Vec<Hook> {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.hooks
}

fn hook(text: &str) -> Hook {
    hooks(text).remove(0)
}

/// What runs across the window, what may be released twice, and whose programs they are decides what a run
/// and the recovery do.
#[test]
fn every_kind_says_what_it_is() {
    // Does it quiesce anything, is it a session, may it be released twice; and its commands.
    let cases: [(&str, &str, [bool; 3], &[&str]); 9] = [
        (
            "[[hook]]\npre = [\"/a\"]\npost = [\"/b\"]\ntimeout = \"1s\"",
            "a",
            [true, false, false],
            &["pre", "post"],
        ),
        (
            "[[hook]]\ncompleted = [\"/c\"]\nfailed = [\"/d\"]\ntimeout = \"1s\"",
            "c",
            [false, false, false],
            &["completed", "failed"],
        ),
        ("[[session]]\ncommand = [\"/s\"]\ntimeout = \"1s\"", "s", [true, true, false], &["session"]),
        (
            "[[session]]\ncommand = [\"/s\"]\nrelease = [\"/r\"]\ntimeout = \"1s\"",
            "s",
            [true, true, false],
            &["session", "release"],
        ),
        ("[[hook_directory]]\npath = \"/etc/h.d\"\ntimeout = \"1s\"", "h.d", [true, false, false], &[]),
        ("[[systemd]]\nunits = [\"a.service\"]", "a.service", [true, false, true], &[]),
        ("[[container]]\nengine = \"podman\"\ncontainers = [\"a\", \"b\"]", "a b", [true, false, true], &[]),
        ("[[postgresql]]", "postgresql", [true, true, false], &[]),
        ("[[mysql]]", "mysql", [true, true, true], &[]),
    ];
    for (text, name, is, commands) in cases {
        let hook = hook(text);
        let found: Vec<_> = hook.commands().map(|(what, _)| what).collect();
        assert_eq!((hook.name.as_str(), found.as_slice()), (name, commands), "{text}");
        assert_eq!([hook.quiesces(), hook.is_session(), hook.releases_again()], is, "{text}");
    }
    let redis = hook("[[redis]]");
    assert!(redis.is_session() && redis.releases_again() && redis.commands().next().is_none());
}

#[test]
fn hooks_of_different_kinds_keep_the_order_of_the_file() {
    let text = "[[redis]]\nname = \"1\"\n[[mysql]]\nname = \"2\"\n[[redis]]\nname = \"3\"\n\
                [[hook]]\nname = \"4\"\npre = [\"/a\"]\ntimeout = \"1s\"\n[[mysql]]\nname = \"5\"\n";
    let names: Vec<_> = hooks(text).into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["1", "2", "3", "4", "5"]);
}

#[test]
fn numbers_arrive_and_have_limits() {
    let mysql = |keys: &str| match hook(&format!("[[mysql]]\n{keys}")).kind {
        HookKind::Mysql(mysql) => mysql,
        other => panic!("{other:?}"),
    };
    assert_eq!((mysql("").port, mysql("").tries), (None, 3));
    let given = mysql("port = 65535\ntries = 7\nmethod = \"read-lock\"");
    assert_eq!((given.port, given.tries, given.method), (Some(65_535), 7, MysqlMethod::ReadLock));
    assert_eq!((mysql("port = 1").port, mysql("tries = 1").tries), (Some(1), 1));
    for (keys, told) in [
        ("port = 0", ":2:8: `mysql.port` is 0, outside 1 to 65535"),
        ("port = 65536", ":2:8: `mysql.port` is 65536, outside 1 to 65535"),
        ("port = -1", ":2:8: `mysql.port` is -1, outside 1 to 65535"),
        ("port = \"3306\"", ":2:8: `mysql.port` must be a whole number, and is a string"),
        ("tries = 0", ":2:9: `mysql.tries` is 0, outside 1 to 100"),
        ("tries = 101", ":2:9: `mysql.tries` is 101, outside 1 to 100"),
    ] {
        assert_eq!(error(&format!("[[mysql]]\n{keys}")).0, told);
    }
}

#[test]
fn a_section_that_does_nothing_or_contradicts_itself_is_refused() {
    for (text, told) in [
        ("[[systemd]]", "`systemd` has no `units`"),
        ("[[systemd]]\nunits = []", "`systemd` has no `units`"),
        ("[[container]]\nengine = \"docker\"", "`container` has no `containers`"),
        ("[[container]]\nengine = \"docker\"\ncontainers = []", "`container` has no `containers`"),
        ("[[container]]\ncontainers = [\"a\"]", "`container` has no `engine`"),
        ("[[session]]\ntimeout = \"1s\"", "`session` has no `command`"),
        ("[[hook_directory]]\ntimeout = \"1s\"", "`hook_directory` has no `path`"),
        ("[[mysql]]\nsocket = \"/s\"\nhost = \"db\"", "`mysql` has a `socket` and a `host`"),
        ("[[mysql]]\nlock_wait = \"21s\"", "`mysql` has more tries of `lock_wait` than its `timeout`"),
        ("[[mysql]]\ntries = 1\ntimeout = \"4s\"", "`mysql` has more tries of `lock_wait`"),
        ("[[postgresql]]\nservice_file = \"/f\"", "`postgresql` has a `service_file` and no `service`"),
    ] {
        let (message, hint) = error(text);
        assert!(message.contains(told), "{text}: {message}");
        assert!(!hint.is_empty(), "{text}");
    }
    // As much as there is room for.
    for text in [
        "[[mysql]]\nlock_wait = \"20s\"",
        "[[mysql]]\ntries = 1\ntimeout = \"5s\"",
        "[[mysql]]\nsocket = \"/s\"",
        "[[mysql]]\nhost = \"db\"",
        "[[postgresql]]\nservice_file = \"/f\"\nservice = \"db\"",
        "[[redis]]\nsocket = \"/s\"\npassword_file = \"/p\"",
        "[[redis]]\nhost = \"db\"\ncredential = \"p\"",
        "[[redis]]\nmode = \"bgsave\"",
        "[[postgresql]]\nservice = \"db\"",
    ] {
        hook(text);
    }
    let units = hook("[[systemd]]\nunits = [\"a.service\", \"b.timer\"]");
    assert!(matches!(units.kind, HookKind::Systemd(SystemdHook { units, .. }) if units.len() == 2));
    let containers = hook("[[container]]\nengine = \"docker\"\ncontainers = [\"a\"]");
    assert!(
        matches!(containers.kind, HookKind::Container(ContainerHook { containers, .. }) if containers == ["a"])
    );
}

#[test]
fn the_variables_of_a_hook_arrive() {
    let wanted = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]);
    let variables = "environment = { A = \"1\", B = \"\" }\ntimeout = \"1s\"";
    match hook(&format!("[[hook]]\npre = [\"/a\"]\n{variables}")).kind {
        HookKind::Hook(hook) => assert_eq!(hook.environment, wanted),
        other => panic!("{other:?}"),
    }
    match hook(&format!("[[session]]\ncommand = [\"/a\"]\n{variables}")).kind {
        HookKind::Session(session) => assert_eq!(session.environment, wanted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whom_to_tell_arrives_with_what_it_is_told_about() {
    use super::settings::{Notify, NotifyOn};
    let notify = |text: &str| parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.notify;
    let all = notify(
        "[[notify]]\ncommand = [\"/opt/tell\", \"a b\"]\ntimeout = \"5s\"\n\
         [[notify]]\nname = \"pager\"\ncommand = [\"/opt/page\"]\non = [\"lower\", \"success\"]\ntimeout = \"1m\"\n\
         user = \"nobody\"\nenvironment = { TOPIC = \"x\" }\nplans = [\"default\"]\n",
    );
    let first = Notify {
        name: "tell".into(),
        command: vec!["/opt/tell".into(), "a b".into()],
        on: vec![NotifyOn::Failure],
        timeout: Duration::from_secs(5),
        user: None,
        environment: BTreeMap::new(),
    };
    assert_eq!(all[0], first);
    assert_eq!((all[1].name.as_str(), all[1].user.as_deref()), ("pager", Some("nobody")));
    assert_eq!(all[1].on, [NotifyOn::Lower, NotifyOn::Success]);
    assert_eq!(all[1].environment["TOPIC"], "x");
    let other = "[plan.db]\n[[notify]]\ncommand = [\"/opt/tell\"]\ntimeout = \"5s\"\nplans = [\"db\"]\n";
    assert!(notify(other).is_empty(), "it is of another plan");
    // As a hook, it quiesces nothing, so it is no evidence for a label.
    assert!(!all[0].as_hook().quiesces());
}

#[test]
fn a_check_arrives_whole_and_looks_at_something() {
    let checks = |text: &str| parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.checks;
    let all = checks(
        "[[check]]\ncommand = [\"/opt/look\", \"a b\"]\ntimeout = \"5m\"\nuser = \"nobody\"\nwritable = true\n\
         environment = { TOPIC = \"x\" }\nplans = [\"default\"]\n\
         [[check]]\nname = \"db\"\ndatabase = \"mariadb\"\ndata = \"/var/lib/mysql\"\ntimeout = \"1h\"\n",
    );
    assert_eq!(
        (all[0].name.as_str(), all[0].user.as_deref(), all[0].writable),
        ("look", Some("nobody"), true)
    );
    assert_eq!(all[0].environment["TOPIC"], "x");
    assert_eq!(
        (all[1].database, all[1].data.as_deref()),
        (Some(CheckedDatabase::Mysql), Some(Path::new("/var/lib/mysql")))
    );
    let good = "command = [\"/opt/look\"]\ntimeout = \"5s\"";
    let database = "database = \"redis\"\ndata = \"/var/lib/redis\"\ntimeout = \"5s\"";
    for (keys, says) in [
        ("timeout = \"5s\"".to_owned(), "neither `command` nor `database`"),
        ("command = [\"/opt/look\"]".to_owned(), "has no `timeout`"),
        (format!("{good}\ndata = \"/var/lib/x\""), "`data`"),
        (format!("{good}\ndatabase = \"redis\"\ndata = \"/var/lib/redis\""), "`command` and `database`"),
        ("database = \"redis\"\ntimeout = \"5s\"".to_owned(), "has no `data`"),
        (format!("{database}\nuser = \"nobody\""), "`user`"),
        (format!("{database}\nwritable = true"), "`writable`"),
        ("database = \"oracle\"\ndata = \"/x\"\ntimeout = \"5s\"".to_owned(), "oracle"),
        ("database = \"redis\"\ndata = \"x\"\ntimeout = \"5s\"".to_owned(), "data"),
        (format!("{good}\nplans = [\"none\"]"), "names the plan `none`"),
    ] {
        let text = format!("[[check]]\n{keys}\n");
        let (said, hint) = error(&text);
        assert!(said.contains(says) || hint.contains(says), "{text}: {said} {hint}");
    }
}

#[test]
fn whom_to_tell_is_refused_where_it_could_never_be_told() {
    let section = |keys: &str| format!("[[notify]]\n{keys}\n");
    let good = "command = [\"/opt/tell\"]\ntimeout = \"5s\"";
    for (keys, says, hint) in [
        ("timeout = \"5s\"".to_owned(), "has no `command`", "command = ["),
        ("command = [\"/opt/tell\"]".to_owned(), "has no `timeout`", "timeout = \"30s\""),
        ("command = [\"tell\"]\ntimeout = \"5s\"".to_owned(), "tell", ""),
        (format!("{good}\non = []"), "is told nothing", "one of these"),
        (format!("{good}\non = [\"always\"]"), "always", "failure"),
        (format!("{good}\nplans = [\"none\"]"), "names the plan `none`", ""),
        (format!("{good}\nenvironment = {{ STILLPOINT_PLAN = \"x\" }}"), "STILLPOINT_PLAN", ""),
        (format!("{good}\non_failure = \"abort\""), "on_failure", ""),
    ] {
        let text = section(&keys);
        let (said, hinted) = error(&text);
        assert!(said.contains(says), "{text}: {said}");
        assert!(hinted.contains(hint), "{text}: {hinted}");
    }
    let (said, hint) = error("textfile = \"/srv/metrics\"\n");
    assert!(said.contains("does not end with .prom") && hint.contains(".prom"), "{said}: {hint}");
    assert!(error("textfile = \"metrics.prom\"\n").0.contains("absolute"));
}
