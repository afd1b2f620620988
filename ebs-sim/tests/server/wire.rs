//! The wire: signatures, TLS, and what goes wrong with connections. The client is curl.

use std::time::{Duration, Instant};

use crate::support::curl::{self, Client, exit};
use crate::support::{EBS_SIM, QUICK, Sim, needs_root, values};

const DESCRIBE: &str = "Action=DescribeVolumes&Version=2016-11-15";
const ONE: &[&str] = &["name=a,size=16MiB"];

fn code(body: &str) -> String {
    values(body, "Code").pop().unwrap_or_default()
}

#[test]
fn signatures_are_checked_over_http_and_tls() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    for client in [Client::new, Client::tls] {
        let good = client(&sim).call(DESCRIBE);
        assert_eq!((good.status, good.exit), (200, 0), "{good:?}");
        assert_eq!(values(&good.body, "volumeId")[0], sim.id("a"));

        let refused = |client: Client, form: &str| {
            let answer = client.call(form);
            (answer.status, code(&answer.body))
        };
        let mut wrong = client(&sim);
        wrong.key = "AKIASTRANGER:secret".into();
        assert_eq!(refused(wrong, &format!("{DESCRIBE}&DryRun=true")), (401, "AuthFailure".into()));
        let mut wrong = client(&sim);
        wrong.key.push('x');
        assert_eq!(refused(wrong, DESCRIBE), (403, "SignatureDoesNotMatch".into()));
        let mut wrong = client(&sim);
        wrong.region = "eu-west-1".into();
        assert_eq!(refused(wrong, DESCRIBE), (403, "SignatureDoesNotMatch".into()));
        let skewed = client(&sim).with(&["--header", "X-Amz-Date: 20200101T000000Z"]);
        assert_eq!(refused(skewed, DESCRIBE), (400, "RequestExpired".into()));
        let forged = "Authorization: AWS4-HMAC-SHA256 Credential=KEY/20200101/us-east-1/ec2/aws4_request, \
            SignedHeaders=host;x-amz-date, Signature=00";
        let key = client(&sim).key;
        let forged = forged.replace("KEY", key.split(':').next().expect("an id"));
        let mut unsigned = client(&sim);
        unsigned.key = String::new();
        let answer = curl::answer(
            std::process::Command::new("curl")
                .args(["--silent", "--write-out", "\n%{http_code}", "--data", DESCRIBE])
                .args(["--header", &forged, "--header", &format!("x-amz-date: {}", now())])
                .args(&unsigned.more)
                .arg(&unsigned.url),
        );
        assert_eq!((answer.status, code(&answer.body)), (403, "SignatureDoesNotMatch".into()));
        let other_region = Client { region: "us-west-2".into(), ..client(&sim) }.call(DESCRIBE);
        assert_eq!(other_region.status, 200, "{other_region:?}");
    }
    let log = sim.requests("DescribeVolumes");
    let refused: Vec<_> = log.iter().filter(|entry| entry["outcome"] != "ok").collect();
    assert_eq!(refused.len(), 10);
    assert!(refused.iter().all(|entry| entry["access_key_id"].is_null()));
    // A DryRun is one in the log, whatever became of it.
    assert_eq!(log.iter().filter(|entry| entry["dry_run"] == true).count(), 2);
    let last = log.last().expect("an entry");
    assert_eq!((&last["tls"], &last["region"]), (&true.into(), &"us-west-2".into()));
    assert!(last["user_agent"].as_str().expect("a name").starts_with("curl/"));
}

fn now() -> String {
    crate::support::sh("date", &["-u", "+%Y%m%dT%H%M%SZ"])
}

#[test]
fn tls_needs_the_authority_and_keeps_connections_open() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    let mut stranger = Client::tls(&sim);
    stranger.more.clear();
    assert_eq!(stranger.call(DESCRIBE).exit, exit::UNTRUSTED);

    // Under EC2's own name too.
    let url = sim.ready["tls_endpoint"].as_str().expect("a URL").to_owned();
    let port = url.rsplit(':').next().expect("a port");
    let name = "ec2.us-east-1.amazonaws.com";
    let mut named = Client::tls(&sim).with(&["--connect-to", &format!("{name}:{port}:127.0.0.1:{port}")]);
    named.url = format!("https://{name}:{port}");
    let answer = named.call(DESCRIBE);
    assert_eq!(answer.status, 200, "{answer:?}");

    for client in [Client::new(&sim), Client::tls(&sim)] {
        let url = client.url.clone();
        let twice = client.with(&[&url]);
        assert_eq!(twice.call(DESCRIBE).exit, 0);
        let log = sim.requests("DescribeVolumes");
        let [.., first, second] = log.as_slice() else { panic!("two entries") };
        assert_eq!(first["connection"], second["connection"]);
    }
    // The control API is not there.
    let answer = Client { url: format!("{url}/_ebs-sim/faults"), ..Client::tls(&sim) }.call("");
    assert_eq!((answer.status, code(&answer.body)), (400, "MissingAction".into()), "{answer:?}");
}

#[test]
fn exec_and_run_lead_clients_to_tls() {
    needs_root();
    // curl takes the authority from SSL_CERT_FILE, and the key from what --static-credentials sets.
    let script = "set -e; test -z \"$AWS_SESSION_TOKEN\"; curl --silent --show-error --fail \
        --aws-sigv4 aws:amz:$AWS_REGION:ec2 --user \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" \
        --data 'Action=DescribeInstances&Version=2016-11-15' \"$AWS_ENDPOINT_URL_EC2\"; \
        cmp \"$AWS_CA_BUNDLE\" \"$SSL_CERT_FILE\"; env";
    let check = |output: std::process::Output| {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            stdout.contains("<instanceId>i-") && stdout.contains("AWS_ENDPOINT_URL_EC2=https://127.0.0.1:")
        );
    };
    let sim = Sim::start(QUICK, ONE);
    let flags = ["--tls", "--static-credentials", "--", "sh", "-c", script];
    check(sim.command(&[&["exec"], &flags[..]].concat()));
    check(
        std::process::Command::new(EBS_SIM)
            .args(["run", "--volume", ONE[0]])
            .args(flags)
            .env("AWS_SESSION_TOKEN", "stray")
            .output()
            .expect("ebs-sim can be run"),
    );
    let plain = sim.exec("env");
    assert!(String::from_utf8_lossy(&plain.stdout).contains("AWS_ENDPOINT_URL_EC2=http://"));
    let always = Sim::start("[endpoint]\ntls = true\n", ONE);
    let output = always.exec("env");
    assert!(String::from_utf8_lossy(&output.stdout).contains("AWS_ENDPOINT_URL_EC2=https://"));

    let by_hand = format!("eval \"$({EBS_SIM} env --tls)\"; {script}");
    check(
        std::process::Command::new("sh")
            .args(["-c", &by_hand])
            .env("EBS_SIM_DIR", sim.dir())
            .env("AWS_SESSION_TOKEN", "stray")
            .output()
            .expect("a shell"),
    );
}

#[test]
fn connections_are_refused_and_stalled_by_their_number() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    let add =
        |more: &[&str]| sim.ok(&[&["faults", "add", "--action", "connection", "--kind"], more].concat());
    add(&["refuse", "--call", "2", "--times", "2"]);
    let exits: Vec<i32> = (0..4).map(|_| Client::new(&sim).call(DESCRIBE).exit).collect();
    let hit: Vec<bool> = exits.iter().map(|exit| exit::REFUSED.contains(exit)).collect();
    assert_eq!(hit, [false, true, true, false], "{exits:?}");
    assert_eq!((exits[0], exits[3]), (0, 0));

    add(&["tls-stall", "--call", "1"]);
    assert_eq!(Client::new(&sim).call(DESCRIBE).exit, 0, "not TLS");
    let began = Instant::now();
    let stalled = Client::tls(&sim).with(&["--max-time", "1"]).call(DESCRIBE);
    assert_eq!(stalled.exit, exit::TIMEOUT, "{stalled:?}");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(Client::tls(&sim).call(DESCRIBE).exit, 0);

    let noted: Vec<_> = sim.requests("connection");
    let outcomes: Vec<_> = noted.iter().map(|entry| entry["outcome"].as_str().expect("a text")).collect();
    assert_eq!(outcomes, ["refuse", "refuse", "tls-stall"]);
    assert_eq!((&noted[2]["tls"], &noted[2]["fault_ids"][0]), (&true.into(), &2.into()));

    // A connection to the control API is none of EC2's: the fault can be forgotten again.
    let id = add(&["refuse"]);
    assert!(exit::REFUSED.contains(&Client::tls(&sim).call(DESCRIBE).exit));
    sim.ok(&["faults", "remove", &id]);
    assert!(!sim.command(&["faults", "remove", &id]).status.success());
    assert_eq!(Client::tls(&sim).call(DESCRIBE).exit, 0);
}

#[test]
fn answers_are_damaged_as_asked() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    for tls in [false, true] {
        let client = || if tls { Client::tls(&sim) } else { Client::new(&sim) };
        let whole = client().call(DESCRIBE).body;
        for (kind, expected, outcome) in [
            ("reset-before", exit::RECEIVE, "reset"),
            ("reset-after", exit::RECEIVE, "reset"),
            ("drop-after", exit::EMPTY, "drop"),
            ("truncated", exit::PARTIAL, "truncated"),
            ("malformed", 0, "ok"),
            ("not-xml", 0, "ok"),
            ("wrong-root", 0, "ok"),
            ("throttle", 0, "RequestLimitExceeded"),
            ("hang", exit::TIMEOUT, "hang"),
            ("tls-stall-mid", if tls { exit::TIMEOUT } else { 0 }, if tls { "stalled" } else { "ok" }),
        ] {
            sim.ok(&["faults", "add", "--action", "Describe*", "--kind", kind, "--call", "1"]);
            // A hang has to have been reached before it is given up.
            let limit = if expected == exit::TIMEOUT { "3" } else { "15" };
            let answer = client().with(&["--max-time", limit]).call(DESCRIBE);
            assert_eq!(answer.exit, expected, "{kind}, TLS: {tls}: {answer:?}");
            let last = sim.requests("DescribeVolumes").pop().expect("an entry");
            assert_eq!(last["outcome"], outcome, "{kind}");
            match kind {
                "truncated" => assert!(!answer.body.is_empty() && whole.len() > answer.body.len()),
                "malformed" => assert!(answer.body.starts_with("<?xml") && !answer.body.contains("</Desc")),
                "not-xml" => assert!(!answer.body.contains('<')),
                "wrong-root" => assert!(answer.body.contains("<html>")),
                "throttle" => {
                    assert_eq!((answer.status, code(&answer.body)), (503, "RequestLimitExceeded".into()));
                }
                "tls-stall-mid" if tls => assert!(answer.said.contains("0 bytes received"), "{answer:?}"),
                _ => {}
            }
            sim.ok(&["faults", "clear"]);
        }
    }
}

/// A time in seconds since 1970.
fn seconds(time: &str) -> i64 {
    crate::support::sh("date", &["-d", time, "+%s"]).parse().expect("a number")
}

#[test]
fn a_skewed_clock_shows_in_the_date() {
    needs_root();
    let sim = Sim::start(QUICK, ONE);
    // Fifteen minutes are forgiven.
    for (delay, status, expected) in [("1h", 400, 3600), ("14m", 200, 840)] {
        sim.ok(&["faults", "add", "--action", "*", "--kind", "clock-skew", "--delay", delay, "--call", "1"]);
        let before = seconds("now");
        let answer = Client::new(&sim).with(&["--include"]).call(DESCRIBE);
        let after = seconds("now");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(code(&answer.body), if status == 400 { "RequestExpired" } else { "" });
        let date = answer.body.lines().find_map(|line| line.strip_prefix("date: ")).expect("a date");
        let shown = seconds(date.trim()) - expected;
        assert!((before..=after).contains(&shown), "{date}: {shown} is not in {before}..={after}");
    }
    let usual = Client::new(&sim).call(DESCRIBE);
    assert_eq!(usual.status, 200, "{usual:?}");
}
