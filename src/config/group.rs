//! `[group]`: the group of hosts that this one is a member of, and the engine where the members meet.
//!
//! In: the table. Out: [`GroupSettings`], for the plan that it names. Must never: let a group through that cannot come
//! together, or a password onto the network in the clear.

use std::path::PathBuf;
use std::time::Duration;

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::input::input;
use super::node::Node;
use super::resolve::{DEFAULT_PLAN, Taken};
use super::settings::{GroupEngine, GroupSettings};

/// Most members: each of them hears of each step of every other.
const MAX_MEMBERS: usize = 32;
/// Most endpoints: there is a connection or two to each.
const MAX_ENDPOINTS: usize = 9;
const ENGINES: &[(&str, GroupEngine)] = &[("etcd", GroupEngine::Etcd)];

const LEASE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
const CALL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(86_400));

input! {
    /// `[group]`.
    GroupInput {
        /// string, up to 64 letters, digits, `_`, `-`, `.` | required | the group; a part of the keys in etcd,
        /// and the tag `stillpoint:group` | `"orders"`
        name: String = |n: &Node<'_>| n.checked(|t| name(t, "group"));
        /// name of a plan | `"default"` | the plan of this host whose runs come together with the others'
        plan: String = |n: &Node<'_>| n.checked(check::plan_name);
        /// string, as `name` | required | this host's name in it, one of `members` | `"db-1"`
        member: String = |n: &Node<'_>| n.checked(|t| name(t, "member"));
        /// list of names, 2 to 32 | required | everybody | `["db-1", "db-2"]`
        members: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(|t| name(t, "member")));
        /// `"etcd"` | `"etcd"` | where the members meet
        engine: GroupEngine = |n: &Node<'_>| n.checked(|t| check::choice(t, ENGINES));
        /// list of URLs, 1 to 9 | required | etcd's, as in `"https://etcd-1.example.com:2379"`; where one does
        /// not answer, the next is asked. They are reached directly, not through a proxy |
        /// `["https://etcd-1.example.com:2379"]`
        endpoints: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(endpoint));
        /// string with `/` at both ends | `"/stillpoint/"` | what the keys begin with; the name of the group
        /// follows
        prefix: String = |n: &Node<'_>| n.checked(prefix);
        /// path | not set | certificates that etcd's is checked with; not set means the system's |
        /// `"/etc/stillpoint/etcd-ca.pem"`
        ca: PathBuf = Node::path;
        /// path | not set | this host's own certificate, where etcd asks for one; with `key` |
        /// `"/etc/stillpoint/etcd.pem"`
        cert: PathBuf = Node::path;
        /// path | not set | the key of `cert`; nobody but root may read it | `"/etc/stillpoint/etcd-key.pem"`
        key: PathBuf = Node::path;
        /// string | not set | etcd's user; with `password_file`. Not over `http://`, but to this machine itself
        /// | `"stillpoint"`
        user: String = |n: &Node<'_>| n.checked(check::user_name);
        /// path | not set | its password, in the first line; nobody but root may read it |
        /// `"/etc/stillpoint/etcd-password"`
        password_file: PathBuf = Node::path;
        /// time, 100 ms to 24 h | `"10m"` | how long the others are waited for before anything is touched
        join_timeout: Duration = |n: &Node<'_>| n.duration(WAIT);
        /// time, 100 ms to 24 h | `"2m"` | how long the others' hooks and flushes are waited for, while this
        /// host's applications are quiesced
        ready_timeout: Duration = |n: &Node<'_>| n.duration(WAIT);
        /// time, 100 ms to 24 h | `"10m"` | how long the others are waited for after everything is thawed and
        /// released, for the label
        settle_timeout: Duration = |n: &Node<'_>| n.duration(WAIT);
        /// time, 200 ms to 30 s, at most half of `lease` | `"2s"` | longest time of one call of etcd, at all
        /// endpoints together; and, while anything is frozen, the longest time in which nothing is heard of
        /// etcd
        call_timeout: Duration = |n: &Node<'_>| n.duration(CALL);
        /// time in whole seconds, 3 s to 60 s | `"10s"` | how long this host's entry stays when the host is not
        /// heard of
        lease: Duration = |n: &Node<'_>| n.duration(LEASE);
    } per_entry {}
}

/// A name that is a part of keys and tags.
fn name(text: &str, of_what: &str) -> Result<String, Fault> {
    check::plan_name(text).map_err(|_| {
        Fault::new(format!("is `{text}`, which is not the name of a {of_what}"))
            .hint("up to 64 letters, digits, `_`, `-` and `.`, starting with a letter or digit")
    })
}

/// A URL of etcd's, with nothing behind the port.
fn endpoint(text: &str) -> Result<String, Fault> {
    let uri = text.parse::<http::Uri>().ok();
    let good = uri.as_ref().is_some_and(|u| {
        let host = u.host().unwrap_or_default();
        matches!(u.scheme_str(), Some("http" | "https"))
            && !host.is_empty()
            && matches!(u.path(), "" | "/")
            && u.query().is_none()
            && u.authority().is_some_and(|a| !a.as_str().contains('@'))
    });
    if good {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(Fault::new(format!("is `{text}`, which is not an endpoint of etcd"))
        .hint("write it like https://etcd-1.example.com:2379"))
}

/// The start of the keys.
fn prefix(text: &str) -> Result<String, Fault> {
    let good = (2..=128).contains(&text.len())
        && text.starts_with('/')
        && text.ends_with('/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
    if good {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("is `{text}`")).hint("write it like \"/stillpoint/\": with a slash at both ends"))
}

/// Is this on the same machine, so that what is sent there is seen by nobody else?
fn is_local(endpoint: &str) -> bool {
    let uri = endpoint.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The plan that is the group's, where there is a group.
pub(super) fn plan(input: Option<&Sourced<GroupInput>>) -> Option<Sourced<String>> {
    let group = input?;
    let default = || Sourced { value: DEFAULT_PLAN.to_owned(), origin: group.origin.clone() };
    Some(group.value.plan.clone().unwrap_or_else(default))
}

/// The group of this plan; none where there is none, or it is another plan's. Its values are checked all the same.
pub(super) fn settings(
    input: Option<Sourced<GroupInput>>,
    plan: &str,
    take: &mut Taken<'_>,
) -> Result<Option<GroupSettings>, ConfigError> {
    let of_plan = self::plan(input.as_ref());
    let Some((Sourced { value: input, origin }, of_plan)) = input.zip(of_plan) else { return Ok(None) };
    let lacks =
        |key: &str, hint: &str| Fault::new(format!("has no `{key}`")).hint(hint).at(origin.clone(), "group");
    let Some(name) = input.name else { return Err(lacks("name", "write name = \"orders\", say")) };
    let Some(member) = input.member else {
        return Err(lacks("member", "write this host's name in the group"));
    };
    let Some(members) = input.members else { return Err(lacks("members", "write the names of all members")) };
    let Some(endpoints) = input.endpoints else {
        return Err(lacks("endpoints", "write endpoints = [\"https://etcd-1.example.com:2379\"]"));
    };
    check_members(&member, &members)?;
    check_endpoints(&endpoints)?;
    let encrypted = endpoints.value.iter().any(|e| e.starts_with("https://"));
    check_pair(("cert", &input.cert), ("key", &input.key))?;
    check_pair(("user", &input.user), ("password_file", &input.password_file))?;
    for (key, file) in [("ca", &input.ca), ("cert", &input.cert)] {
        if let Some(file) = file.as_ref().filter(|_| !encrypted) {
            return Err(Fault::new("is for TLS, and no endpoint is `https`")
                .hint("write https://… in `endpoints`, or leave it out")
                .at(file.origin.clone(), &format!("group.{key}")));
        }
    }
    if let Some(user) = &input.user
        && let Some(open) = endpoints.value.iter().find(|e| e.starts_with("http://") && !is_local(e))
    {
        return Err(Fault::new(format!("has a password, which {open} would get in the clear"))
            .hint("write https://… in `endpoints`")
            .at(user.origin.clone(), "group.user"));
    }
    let call = input.call_timeout.as_ref().map_or(CALL_TIME, |call| call.value);
    let lease = input.lease.as_ref().map_or(LEASE_TIME, |lease| lease.value);
    if call * 2 > lease {
        let show = humantime::format_duration;
        let problem = format!("is {}, more than half of `lease`, which is {}", show(call), show(lease));
        let at = input.call_timeout.as_ref().map_or_else(|| origin.clone(), |call| call.origin.clone());
        return Err(Fault::new(problem)
            .hint("one call that is not answered must not cost the lease")
            .at(at, "group.call_timeout"));
    }
    if let Some(lease) = input.lease.as_ref().filter(|l| l.value.subsec_nanos() != 0) {
        return Err(Fault::new("is no whole number of seconds, and etcd has no other leases")
            .hint("write it like \"10s\"")
            .at(lease.origin.clone(), "group.lease"));
    }
    if of_plan.value != plan {
        return Ok(None);
    }
    take.table = "plan.group.";
    let settings = GroupSettings {
        name: take.or("name", Some(name), String::new()),
        plan: of_plan.value,
        member: take.or("member", Some(member), String::new()),
        members: take.or("members", Some(members), Vec::new()),
        engine: take.or("engine", input.engine, GroupEngine::Etcd),
        endpoints: take.or("endpoints", Some(endpoints), Vec::new()),
        prefix: take.or("prefix", input.prefix, "/stillpoint/".to_owned()),
        ca: take.optional("ca", input.ca),
        cert: take.optional("cert", input.cert),
        key: take.optional("key", input.key),
        user: take.optional("user", input.user),
        password_file: take.optional("password_file", input.password_file),
        join_timeout: take.or("join_timeout", input.join_timeout, Duration::from_secs(600)),
        ready_timeout: take.or("ready_timeout", input.ready_timeout, Duration::from_secs(120)),
        settle_timeout: take.or("settle_timeout", input.settle_timeout, Duration::from_secs(600)),
        call_timeout: take.or("call_timeout", input.call_timeout, CALL_TIME),
        lease: take.or("lease", input.lease, LEASE_TIME),
    };
    take.optional("plan", input.plan);
    take.table = "plan.";
    Ok(Some(settings))
}

const LEASE_TIME: Duration = Duration::from_secs(10);
const CALL_TIME: Duration = Duration::from_secs(2);

fn check_members(member: &Sourced<String>, members: &Sourced<Vec<String>>) -> Result<(), ConfigError> {
    let fault = |fault: Fault| fault.at(members.origin.clone(), "group.members");
    if let Some(twice) = repeated(&members.value) {
        return Err(fault(
            Fault::new(format!("has `{twice}` twice")).hint("each host has a name of its own"),
        ));
    }
    if !(2..=MAX_MEMBERS).contains(&members.value.len()) {
        let problem = format!("has {} names, outside 2 to {MAX_MEMBERS}", members.value.len());
        return Err(fault(Fault::new(problem).hint("a host alone needs no group: leave [group] out")));
    }
    if !members.value.contains(&member.value) {
        return Err(Fault::new(format!("is `{}`, which is not in `members`", member.value))
            .hint(super::error::choices(&member.value, "members", members.value.iter().map(String::as_str)))
            .at(member.origin.clone(), "group.member"));
    }
    Ok(())
}

fn check_endpoints(endpoints: &Sourced<Vec<String>>) -> Result<(), ConfigError> {
    let fault = |fault: Fault| fault.at(endpoints.origin.clone(), "group.endpoints");
    if let Some(twice) = repeated(&endpoints.value) {
        return Err(fault(Fault::new(format!("has {twice} twice")).hint("leave one of them out")));
    }
    if !(1..=MAX_ENDPOINTS).contains(&endpoints.value.len()) {
        let problem = format!("has {} URLs, outside 1 to {MAX_ENDPOINTS}", endpoints.value.len());
        return Err(fault(Fault::new(problem)));
    }
    Ok(())
}

fn repeated(all: &[String]) -> Option<&String> {
    all.iter().enumerate().find(|(n, one)| all[..*n].contains(one)).map(|(_, one)| one)
}

/// Two keys that go together.
fn check_pair<A, B>(
    (one, is_one): (&str, &Option<Sourced<A>>),
    (two, is_two): (&str, &Option<Sourced<B>>),
) -> Result<(), ConfigError> {
    let lacks = |of: &str, other: &str, origin: &Origin| {
        Err(Fault::new(format!("is there, and `{other}` is not"))
            .hint(format!("write `{other}` too, or leave `{of}` out"))
            .at(origin.clone(), &format!("group.{of}")))
    };
    match (is_one, is_two) {
        (Some(input), None) => lacks(one, two, &input.origin),
        (None, Some(input)) => lacks(two, one, &input.origin),
        _ => Ok(()),
    }
}
