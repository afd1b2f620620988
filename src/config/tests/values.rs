//! Single values: what may be written, and what is told of the rest.

use super::super::check::*;
use super::*;

#[test]
fn a_time_needs_its_unit() {
    assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    for bare in ["10", "0", " 10 ", "1.5", "-3", "inf"] {
        let fault = duration(bare).unwrap_err();
        assert!(fault.problem.contains("without a unit"), "{bare}: {fault}");
    }
    assert!(duration("10").unwrap_err().hint.unwrap().starts_with("write \"10s\" for seconds"));
    for bad in ["", "s", "10 parsecs", "10s!", "-10s"] {
        assert!(duration(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn paths_are_absolute_and_plain() {
    assert_eq!(absolute(Path::new("//srv//data/")).unwrap().as_os_str(), "/srv/data");
    assert_eq!(absolute(Path::new("/")).unwrap().as_os_str(), "/");
    for bad in ["", "data", "./data", "/srv/../etc", "/srv/da\nta"] {
        assert!(absolute(Path::new(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn tags_keep_out_of_reserved_names() {
    assert!(own_tag("Team", "storage").is_ok());
    for bad in ["aws:x", "AWS:x", "stillpoint:run", "Stillpoint:run", ""] {
        assert!(own_tag(bad, "v").is_err(), "{bad}");
    }
    assert!(filter_tag("aws:cloudformation:stack-name", "db").is_ok());
    assert!(own_tag(&"é".repeat(128), &"é".repeat(256)).is_ok());
    assert!(own_tag(&"k".repeat(129), "").is_err());
    assert!(own_tag("k", &"v".repeat(257)).is_err());
}

#[test]
fn every_method_and_label_can_be_written() {
    // The words that serde prints must be the ones that a file may have.
    for (word, value) in METHODS {
        assert_eq!(serde_json::to_value(value).unwrap(), *word);
    }
    for (word, value) in CONSISTENCIES {
        assert_eq!(value.to_string(), *word);
    }
    for (word, value) in ON_DEGRADED {
        assert_eq!(serde_json::to_value(value).unwrap(), *word);
    }
    for (word, value) in UNMOUNTED {
        assert_eq!(serde_json::to_value(value).unwrap(), *word);
    }
}

#[test]
fn rcu_expedited_is_true_false_or_auto() {
    for (text, value) in
        [("\"auto\"", Expedite::Auto), ("true", Expedite::Always), ("false", Expedite::Never)]
    {
        let loaded = parse(&format!("[defaults]\nrcu_expedited = {text}\n")).unwrap();
        assert_eq!(loaded.settings.plan.rcu_expedited, value, "{text}");
        assert!(loaded.show().contains(&format!("rcu_expedited = {text} ")), "{}", loaded.show());
    }
    for bad in ["\"yes\"", "\"true\"", "1"] {
        let (message, _) = error(&format!("[defaults]\nrcu_expedited = {bad}\n"));
        assert!(message.contains("true, false or \"auto\""), "{bad}: {message}");
    }
}

#[test]
fn names_and_endpoints() {
    assert!(url("http://127.0.0.1:8080").is_ok() && url("http://[fd00:ec2::254]").is_ok());
    assert!(url("ec2.amazonaws.com").is_err() && url("file:///etc").is_err() && url("https://").is_err());
    assert!(region("us-gov-west-1").is_ok() && region("Frankfurt").is_err());
    assert!(plan_name("db-1").is_ok() && plan_name("-x").is_err() && plan_name("a/b").is_err());
    assert!(argv(vec!["sh".to_owned()]).is_err() && argv(Vec::new()).is_err());
    assert!(unit_name("postgresql@14-main.service").is_ok() && unit_name(r"dev-a\x2db.socket").is_ok());
    for bad in ["postgresql", "--all.service", ".service", "a b.service", "/etc/x.service", "data.mount"] {
        assert!(unit_name(bad).is_err(), "{bad}");
    }
    assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert!(key_value("=x").is_err());
}

/// What a name may be: each of `good`, and none of `bad`.
fn names<T: std::fmt::Debug>(check: impl Fn(&str) -> Result<T, Fault>, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(check(text).is_ok(), "{text:?}");
    }
    for text in bad {
        assert!(check(text).is_err(), "{text:?}");
    }
}

#[test]
fn every_name_has_its_characters_and_its_longest_length() {
    let [a64, a65, a207, a208, a256, a257] = [64, 65, 207, 208, 256, 257].map(|n| "a".repeat(n));
    let umlauts = |n: usize| "ä".repeat(n);
    names(description, &["nightly", &a207, &umlauts(207)], &["", &a208, "two\nlines", "tab\t"]);
    names(hook_name, &["my db", &a64, &umlauts(64)], &["", "  ", &a65, "two\nlines"]);
    names(word, &["my db", &a256, &umlauts(256)], &["", "  ", &a257, "two\nlines"]);
    names(credential, &["redis.password", &a256], &["", ".", "..", "a/b", &a257]);
    names(user_name, &["_svc-1.x", "user@domain", &a256], &["", "-u", "a b", "a:b", "jürgen", &a257]);
    names(
        container_name,
        &["app_1.x-y", "9f86d081", &a256],
        &["", "-app", ".app", "_app", "a b", "a/b", &a257],
    );
    names(plan_name, &["db_1.x-y", "9", &a64], &["", "-db", ".db", "_db", "a b", "a/b", &a65]);
    names(region, &["abc", &a64[..32]], &["", "ab", &a64[..33], "EU-1", "eu_1"]);
    let unit = |length: usize| format!("{}.service", "u".repeat(length - ".service".len()));
    names(unit_name, &["a:b.socket", &unit(255)], &["", &unit(256), "-a.service", "ä.service"]);
    // What was given comes back.
    for check in
        [description, hook_name, word, credential, user_name, container_name, plan_name, region, unit_name]
    {
        let text = if check("abc").is_ok() { "abc" } else { "abc.service" };
        assert_eq!(check(text).unwrap(), text);
    }
}

#[test]
fn a_variable_is_one_that_a_shell_takes_and_not_one_of_stillpoints() {
    let key = |key: &str| variable(key, "v");
    names(key, &["A", "_x1", "PGHOST", "STILLPOINT"], &["", "1A", "A-B", "A B", "Ä", "STILLPOINT_RUN_ID"]);
    assert!(variable("A", "").is_ok() && variable("A", "two\nlines").is_ok() && variable("A", "\0").is_err());
}

#[test]
fn a_fault_is_told_with_its_hint() {
    assert_eq!(Fault::new("is wrong").to_string(), "is wrong");
    assert_eq!(Fault::new("is wrong").hint("write it right").to_string(), "is wrong (write it right)");
}
