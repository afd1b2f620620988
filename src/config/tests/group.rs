//! `[group]`: what arrives, and what is refused because the members could not come together.

use super::*;

const GROUP: &str = "name = 'g'\nmember = 'a'\nmembers = ['a', 'b']\nendpoints = ['https://e:2379']\n";

/// The section with one key in the place of another, or beside them.
fn with(change: &str) -> String {
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let kept = GROUP.lines().filter(|line| !change.lines().any(|new| key(new) == key(line)));
    let lines: Vec<_> = kept.chain(change.lines()).collect();
    format!("[group]\n{}\n", lines.join("\n"))
}

#[test]
fn a_group_arrives_for_its_plan_alone() {
    let group = parse(&with("")).unwrap().settings.plan.group.unwrap();
    assert_eq!((group.name.as_str(), group.plan.as_str(), group.member.as_str()), ("g", "default", "a"));
    assert_eq!((group.prefix.as_str(), group.lease), ("/stillpoint/", Duration::from_secs(10)));
    assert_eq!(group.call_timeout * 5, group.lease);
    assert_eq!(parse("").unwrap().settings.plan.group, None);
    assert_eq!(parse(&format!("{}[plan.db]", with("plan = 'db'"))).unwrap().settings.plan.group, None);
    let slash = parse(&with("endpoints = ['http://[::1]:2379/']\nuser = 'u'\npassword_file = '/p'"));
    assert_eq!(slash.unwrap().settings.plan.group.unwrap().endpoints, ["http://[::1]:2379"]);
}

#[test]
fn what_could_not_come_together_is_refused() {
    for (change, told) in [
        ("member = 'c'", "is `c`, which is not in `members`"),
        ("members = ['a']", "has 1 names, outside 2 to 32"),
        ("members = ['a', 'b', 'a']", "has `a` twice"),
        ("members = ['a', 'b/c']", "is `b/c`, which is not the name of a member"),
        ("name = 'a/b'", "is `a/b`, which is not the name of a group"),
        ("name = ''", "is ``, which is not the name of a group"),
        ("endpoints = []", "has 0 URLs, outside 1 to 9"),
        ("endpoints = ['https://e', 'https://e']", "has https://e twice"),
        ("endpoints = ['e:2379']", "is `e:2379`, which is not an endpoint of etcd"),
        ("endpoints = ['https://e:2379/v3']", "which is not an endpoint of etcd"),
        ("endpoints = ['https://u:p@e:2379']", "which is not an endpoint of etcd"),
        ("engine = 'zookeeper'", "is `zookeeper`"),
        ("prefix = 'stillpoint/'", "is `stillpoint/`"),
        ("cert = '/c'", "is there, and `key` is not"),
        ("key = '/k'", "is there, and `cert` is not"),
        ("user = 'u'", "is there, and `password_file` is not"),
        ("password_file = '/p'", "is there, and `user` is not"),
        ("endpoints = ['http://e:2379']\nuser = 'u'\npassword_file = '/p'", "would get in the clear"),
        ("endpoints = ['http://e:2379']\nca = '/c'", "is for TLS, and no endpoint is `https`"),
        ("lease = '2s'", "outside 3s to 1m"),
        ("lease = '4500ms'", "is no whole number of seconds"),
        ("lease = '3s'\ncall_timeout = '1501ms'", "more than half of `lease`"),
        ("lease = '3s'", "more than half of `lease`"),
        ("call_timeout = '6s'", "more than half of `lease`"),
        ("plan = 'none'", "names the plan `none`, which does not exist"),
        ("zone = 1", "unknown key `zone` in [group]"),
    ] {
        let said = parse(&with(change)).map(drop).unwrap_err().to_string();
        assert!(said.contains(told), "{change}: {said}");
    }
    for key in ["name", "member", "members", "endpoints"] {
        let lines: Vec<_> = GROUP.lines().filter(|l| !l.starts_with(&format!("{key} "))).collect();
        let said = parse(&format!("[group]\n{}", lines.join("\n"))).map(drop).unwrap_err().to_string();
        assert!(said.contains(&format!("has no `{key}`")), "{said}");
    }
    // Also where the plan is another one.
    let other = format!("{}[plan.db]", with("plan = 'db'\nmember = 'c'"));
    assert!(parse(&other).is_err());
}
