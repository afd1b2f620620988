//! The metadata service: tokens, credentials that rotate, packets that travel only so far, and its faults.

use std::process::Command;

use crate::support::curl::{self, Answer, Client, exit};
use crate::support::{EBS_SIM, QUICK, Sim, needs_root, wait_for};
use serde_json::Value;

const ONE: &[&str] = &["name=root,size=16MiB,boot", "name=a,size=16MiB"];
const ROLE: &str = "meta-data/iam/security-credentials/ebs-sim-role";

fn ask(sim: &Sim, path: &str, arguments: &[&str]) -> Answer {
    let url = format!("{}/latest/{path}", sim.ready["imds"].as_str().expect("a URL"));
    let usual = ["--silent", "--show-error", "--max-time", "15", "--write-out", "\n%{http_code}"];
    curl::answer(Command::new("curl").args(usual).args(arguments).arg(url))
}

fn token(sim: &Sim, seconds: u32) -> String {
    let ttl = format!("X-aws-ec2-metadata-token-ttl-seconds: {seconds}");
    let answer = ask(sim, "api/token", &["--request", "PUT", "--header", &ttl]);
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("X-aws-ec2-metadata-token: {}", answer.body)
}

fn get(sim: &Sim, path: &str) -> Answer {
    ask(sim, path, &["--header", &token(sim, 60)])
}

#[test]
fn tokens_end_and_the_tree_is_there() {
    needs_root();
    let sim = Sim::start(
        "[imds]\ninstance_tags = true\n[instance.tags]\nName = 'db1'\n[limits]\nper_volume_interval = '0s'",
        ONE,
    );
    let (short, long) = (token(&sim, 1), token(&sim, 3600));
    let status = |token: &str| ask(&sim, "meta-data/mac", &["--header", token]).status;
    wait_for("the end of a token", || status(&short) == 401);
    assert_eq!(status(&long), 200);
    let head = ask(&sim, "meta-data/mac", &["--header", &token(&sim, 60), "--head"]);
    assert_eq!(head.status, 200);
    assert!(head.body.contains("content-length: 17") && !head.body.contains("0e:49"), "{head:?}");
    assert_eq!(ask(&sim, "meta-data/mac", &["--header", &token(&sim, 60), "--request", "POST"]).status, 405);

    assert_eq!(get(&sim, "meta-data/tags/instance/").body, "Name");
    assert_eq!(get(&sim, "meta-data/tags/instance/Name").body, "db1");
    let info: Value = serde_json::from_str(&get(&sim, "meta-data/iam/info").body).expect("json");
    assert_eq!(info["InstanceProfileArn"], "arn:aws:iam::123456789012:instance-profile/ebs-sim-role");
    let document: Value =
        serde_json::from_str(&get(&sim, "dynamic/instance-identity/document").body).expect("json");
    assert_eq!(document["instanceId"], sim.ready["instance_id"]);
    assert_eq!(get(&sim, "dynamic/instance-identity/pkcs7").status, 404);
    assert_eq!(get(&sim, "meta-data/block-device-mapping/").body, "ami\nebs1\nroot");

    let off = Sim::start("[imds]\nenabled = false", ONE);
    let put = ["--request", "PUT", "--header", "X-aws-ec2-metadata-token-ttl-seconds: 60"];
    assert_eq!(ask(&off, "api/token", &put).status, 403);
    assert_eq!(ask(&off, "meta-data/mac", &[]).status, 403);
}

fn credentials(sim: &Sim) -> Value {
    serde_json::from_str(&get(sim, ROLE).body).expect("json")
}

fn describe(sim: &Sim, key: &Value) -> (u16, String) {
    let part = |name: &str| key[name].as_str().expect("a text").to_owned();
    let mut client =
        Client::new(sim).with(&["--header", &format!("X-Amz-Security-Token: {}", part("Token"))]);
    client.key = format!("{}:{}", part("AccessKeyId"), part("SecretAccessKey"));
    let answer = client.call("Action=DescribeVolumes&Version=2016-11-15");
    (answer.status, crate::support::values(&answer.body, "Code").pop().unwrap_or_default())
}

#[test]
fn credentials_rotate_and_end() {
    needs_root();
    let sim = Sim::start("[imds]\ncredentials_lifetime = '20s'", ONE);
    let first = credentials(&sim);
    let is_first = || credentials(&sim)["AccessKeyId"] == first["AccessKeyId"];
    assert!(is_first());
    assert_eq!(describe(&sim, &first), (200, String::new()));
    wait_for("the rotation", || !is_first());
    assert_eq!(describe(&sim, &first), (200, String::new()), "new ones come before the old ones end");
    let seconds = |key: &Value, field: &str| {
        let at = key[field].as_str().expect("a time");
        crate::support::sh("date", &["-d", at, "+%s"]).parse::<i64>().expect("a number")
    };
    let left = seconds(&first, "Expiration") - seconds(&credentials(&sim), "LastUpdated");
    assert!(left <= 5, "when a quarter is left, and not before: {left} s");
    wait_for("the end of the first ones", || describe(&sim, &first) == (400, "RequestExpired".into()));
    assert_eq!(describe(&sim, &credentials(&sim)), (200, String::new()));
}

#[test]
fn a_fault_ends_the_credentials_that_signed() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    let first = credentials(&sim);
    let kind = ["--kind", "credentials-expired", "--call", "2"];
    sim.ok(&[&["faults", "add", "--action", "Describe*"], &kind[..]].concat());
    sim.ok(&["call", "DescribeVolumes"]);
    assert_eq!(describe(&sim, &first), (200, String::new()));
    assert_eq!(describe(&sim, &first), (400, "RequestExpired".into()));
    assert_eq!(describe(&sim, &first), (400, "RequestExpired".into()), "from now on");
    let second = credentials(&sim);
    assert_ne!(second["AccessKeyId"], first["AccessKeyId"]);
    assert_eq!(describe(&sim, &second), (200, String::new()));
}

#[test]
fn the_service_can_be_gone_slow_or_wrong_in_places() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    let good = token(&sim, 60);
    let get = |path: &str| ask(&sim, path, &["--header", &good]);
    let add = |more: &[&str]| sim.ok(&[&["faults", "add"], more].concat());
    add(&[
        "--action",
        "imds:Get",
        "--path",
        "*/security-credentials/*",
        "--kind",
        "error",
        "--status",
        "404",
    ]);
    assert_eq!((get(ROLE).status, get("meta-data/mac").status), (404, 200));
    sim.ok(&["faults", "clear"]);
    add(&["--action", "imds:Get", "--path", "*/placement/*", "--kind", "hang"]);
    let hung = ask(&sim, "meta-data/placement/region", &["--header", &good, "--max-time", "2"]);
    assert_eq!((hung.exit, get("meta-data/mac").exit), (exit::TIMEOUT, 0));
    sim.ok(&["faults", "clear"]);
    add(&["--action", "imds:*", "--kind", "truncated", "--call", "1"]);
    assert_eq!(get(ROLE).exit, exit::PARTIAL);
    add(&["--action", "imds:connection", "--kind", "refuse", "--times", "2"]);
    let gone = exit::REFUSED;
    assert!(gone.contains(&get("meta-data/mac").exit) && gone.contains(&get("meta-data/mac").exit));
    assert_eq!(get("meta-data/mac").status, 200);
    assert_eq!(sim.requests("imds:connection").len(), 2);
}

/// A client in a container: one hop behind the instance, in a namespace of its own.
fn token_in_a_container(hop_limit: u8) -> Answer {
    let temp = tempfile::TempDir::new().expect("a folder");
    let scenario = temp.path().join("s.toml");
    std::fs::write(&scenario, format!("[imds]\nhop_limit = {hop_limit}\n")).expect("a file");
    // Only what never comes is given up soon.
    let limit = if hop_limit == 1 { "3" } else { "15" };
    // The instance asks first: whatever the limit is, the token reaches it.
    let script = "set -e
        ask() { curl --silent --show-error --max-time 15 --output /dev/null --write-out '\\n%{http_code}' \
            --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
            http://169.254.169.254/latest/api/token; }
        test \"$(ask)\" = \"$(printf '\\n200')\"
        echo 1 > /proc/sys/net/ipv4/ip_forward
        unshare --net sleep 60 & pid=$!
        until [ \"$(readlink /proc/$pid/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]; do sleep 0.01; done
        ip link add name bridge type veth peer name eth0 netns $pid
        ip address add 172.17.0.1/24 dev bridge
        ip link set bridge up
        in_it() { nsenter --net --target $pid \"$@\"; }
        in_it ip address add 172.17.0.2/24 dev eth0
        in_it ip link set eth0 up
        in_it ip route add default via 172.17.0.1
        in_it curl --silent --max-time 15 --output /dev/null --fail-with-body http://169.254.169.254/ \
            || test $? = 22
        set +e
        in_it curl --silent --show-error --max-time $1 --write-out '\\n%{http_code}' \
            --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
            http://169.254.169.254/latest/api/token
        code=$?
        kill $pid
        exit $code";
    curl::answer(
        Command::new(EBS_SIM)
            .args(["run", "--volume", "name=a,size=16MiB", "--scenario"])
            .arg(scenario)
            .args(["--", "sh", "-c", script, "sh", limit]),
    )
}

#[test]
fn a_token_travels_no_further_than_its_hop_limit() {
    needs_root();
    let one = token_in_a_container(1);
    assert_eq!((one.exit, one.status), (exit::TIMEOUT, 0), "{one:?}");
    let two = token_in_a_container(2);
    assert_eq!((two.exit, two.status), (0, 200), "{two:?}");
}
