//! The EBS direct APIs: which blocks a snapshot has, which changed, and what is in them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::curl::Client;
use crate::support::ec2::{arg, call, completed};
use crate::support::{QUICK, Sim, needs_root, sh, values};

const BLOCK: usize = 512 << 10;

/// Writes one block full of a byte.
fn write(sim: &Sim, block: u32, byte: u8) {
    use std::os::unix::fs::FileExt as _;
    let device = std::fs::OpenOptions::new().write(true).open(sim.device("a")).expect("the device opens");
    device.write_all_at(&vec![byte; BLOCK], u64::from(block) * BLOCK as u64).expect("it is written");
    device.sync_all().expect("it is synced");
}

fn snapshot(sim: &Sim) -> String {
    let id = sim.create_snapshot("a");
    completed(sim, &id);
    id
}

fn get(client: &Client, path: &str) -> Value {
    let answer = client.rest("ebs", "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn error(client: &Client, path: &str) -> (u16, String, String) {
    let answer = client.rest("ebs", "GET", path, "");
    let kind = answer.header("x-amzn-errortype").unwrap_or_default().to_owned();
    (answer.status, kind, answer.json()["Reason"].as_str().unwrap_or_default().to_owned())
}

fn indexes(list: &Value, name: &str) -> Vec<u64> {
    let entries = list[name].as_array().expect("a list");
    entries.iter().map(|entry| entry["BlockIndex"].as_u64().expect("a number")).collect()
}

/// A token as a query string has it.
fn encoded(token: &Value) -> String {
    let token = token.as_str().expect("a token");
    token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

fn block(client: &Client, id: &str, index: u64, token: &Value) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let to_file = Client {
        more: vec!["--output".into(), path.to_owned()],
        ..Client {
            url: client.url.clone(),
            key: client.key.clone(),
            region: client.region.clone(),
            more: vec![],
        }
    };
    let answer = to_file.rest(
        "ebs",
        "GET",
        &format!("/snapshots/{id}/blocks/{index}?blockToken={}", encoded(token)),
        "",
    );
    assert_eq!(answer.status, 200, "{}", answer.said);
    let whole = std::fs::read(path).expect("the answer");
    let at = whole.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
    let (head, data) = (String::from_utf8_lossy(&whole[..at]).to_lowercase(), whole[at + 4..].to_vec());
    assert!(head.contains(&format!("x-amz-data-length: {BLOCK}")), "{head}");
    let sum = STANDARD.encode(Sha256::digest(&data)).to_lowercase();
    assert!(head.contains(&format!("x-amz-checksum: {sum}")), "{head}");
    data
}

#[test]
fn blocks_are_listed_compared_and_read() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=1GiB", "name=b,size=16MiB"]);
    let client = Client::new(&sim);
    for at in [0, 3, 1500] {
        write(&sim, at, 1);
    }
    let first = snapshot(&sim);
    write(&sim, 3, 2);
    write(&sim, 700, 2);
    sh("blkdiscard", &["--offset", "0", "--length", &BLOCK.to_string(), &sim.device("a")]);
    let second = snapshot(&sim);

    let listed = get(&client, &format!("/snapshots/{first}/blocks"));
    assert_eq!(indexes(&listed, "Blocks"), [0, 3, 1500]);
    assert_eq!((&listed["BlockSize"], &listed["VolumeSize"]), (&Value::from(BLOCK), &Value::from(1)));
    let token = |list: &Value, name: &str, at: usize| list[name][at]["BlockToken"].clone();
    let of_three = token(&listed, "Blocks", 1);
    assert!(block(&client, &first, 3, &of_three).iter().all(|byte| *byte == 1));

    let changed = get(&client, &format!("/snapshots/{second}/changedblocks?firstSnapshotId={first}"));
    assert_eq!(indexes(&changed, "ChangedBlocks"), [0, 3, 700]);
    let entry = |at: usize| &changed["ChangedBlocks"][at];
    let both =
        |at: usize| (entry(at)["FirstBlockToken"].is_string(), entry(at)["SecondBlockToken"].is_string());
    assert_eq!([both(0), both(1), both(2)], [(true, false), (true, true), (false, true)]);
    assert!(block(&client, &second, 3, &entry(1)["SecondBlockToken"]).iter().all(|byte| *byte == 2));
    let all = get(&client, &format!("/snapshots/{second}/changedblocks"));
    assert_eq!(indexes(&all, "ChangedBlocks"), [3, 700, 1500], "without a first one");

    // Tokens are for one block of one snapshot.
    for (id, index, token) in
        [(&first, 0, &of_three), (&second, 3, &of_three), (&first, 3, &Value::from("bm9uc2Vuc2U="))]
    {
        let path = format!("/snapshots/{id}/blocks/{index}?blockToken={}", encoded(token));
        assert_eq!(error(&client, &path), (400, "ValidationException".into(), "INVALID_BLOCK_TOKEN".into()));
    }
    let other = sim.create_snapshot("b");
    completed(&sim, &other);
    let unrelated = error(&client, &format!("/snapshots/{second}/changedblocks?firstSnapshotId={other}"));
    assert_eq!(unrelated, (400, "ValidationException".into(), "UNRELATED_SNAPSHOTS".into()));
    for (path, reason) in [
        (format!("/snapshots/{first}/blocks?maxResults=99"), "INVALID_PARAMETER_VALUE"),
        (format!("/snapshots/{first}/blocks?colour=red"), "INVALID_PARAMETER_VALUE"),
        (format!("/snapshots/{first}/blocks?pageToken=bm9uc2Vuc2U%3D"), "INVALID_PAGE_TOKEN"),
        ("/snapshots/nonsense/blocks".to_owned(), "INVALID_SNAPSHOT_ID"),
    ] {
        assert_eq!(error(&client, &path), (400, "ValidationException".into(), reason.into()), "{path}");
    }
    let missing = (404, "ResourceNotFoundException".to_owned(), "SNAPSHOT_NOT_FOUND".to_owned());
    assert_eq!(error(&client, "/snapshots/snap-0123456789abcdef0/blocks"), missing);
    let there = Client { region: "us-west-2".into(), ..Client::new(&sim) };
    assert_eq!(error(&there, &format!("/snapshots/{first}/blocks")), missing);

    // A copy has the same blocks, and is of the same lineage as other copies.
    let copies: Vec<String> = [&first, &second]
        .map(|id| {
            let copy = call(
                &sim,
                &[
                    "--region",
                    "us-west-2",
                    "CopySnapshot",
                    "SourceRegion=us-east-1",
                    &arg("SourceSnapshotId", id),
                ],
            );
            let id = values(&copy, "snapshotId").remove(0);
            completed(&sim, &id);
            id
        })
        .into();
    let changed =
        get(&there, &format!("/snapshots/{}/changedblocks?firstSnapshotId={}", copies[1], copies[0]));
    assert_eq!(indexes(&changed, "ChangedBlocks"), [0, 3, 700]);
}

#[test]
fn lists_have_pages_and_a_beginning() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=128MiB"]);
    let client = Client::new(&sim);
    sh(
        "dd",
        &["if=/dev/urandom", &arg("of", &sim.device("a")), "bs=1M", "count=128", "conv=fsync", "status=none"],
    );
    let id = snapshot(&sim);
    let (mut seen, mut next) = (Vec::new(), String::new());
    for expected in [100, 100, 56] {
        let page = get(&client, &format!("/snapshots/{id}/blocks?maxResults=100{next}"));
        let found = indexes(&page, "Blocks");
        assert_eq!(found.len(), expected);
        seen.extend(found);
        next = if page["NextToken"].is_null() {
            String::new()
        } else {
            format!("&pageToken={}", encoded(&page["NextToken"]))
        };
    }
    assert!(next.is_empty() && seen.into_iter().eq(0..256));
    let rest = get(&client, &format!("/snapshots/{id}/blocks?startingBlockIndex=250"));
    assert_eq!(indexes(&rest, "Blocks"), [250, 251, 252, 253, 254, 255]);
    let page = get(&client, &format!("/snapshots/{id}/blocks?maxResults=100"));
    let token = encoded(&page["NextToken"]);
    let other = snapshot(&sim);
    let path = format!("/snapshots/{other}/blocks?pageToken={token}");
    assert_eq!(error(&client, &path).2, "INVALID_PAGE_TOKEN", "a token is for its list");
    sim.ok(&["clock", "--advance", "61m"]);
    let path = format!("/snapshots/{id}/blocks?pageToken={token}");
    assert_eq!(error(&client, &path).2, "INVALID_PAGE_TOKEN", "an hour has passed");
}

#[test]
fn what_is_encrypted_is_read_with_its_key_alone() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB,encrypted"]);
    let id = snapshot(&sim);
    let (client, path) = (Client::new(&sim), format!("/snapshots/{id}/blocks"));
    get(&client, &path);
    let key = "kms-keys/us-east-1/00000000-0000-4000-8000-000000000000";
    assert_eq!(sim.post(key, r#"{"state": "inaccessible"}"#), 200);
    let denied = (403, "AccessDeniedException".into(), "DEPENDENCY_ACCESS_DENIED".into());
    assert_eq!(error(&client, &path), denied);
    assert_eq!(sim.post(key, r#"{"state": "enabled"}"#), 200);
    get(&client, &path);
}

#[test]
fn a_page_of_blocks_may_be_empty_and_not_the_last() {
    needs_root();
    let scenario = QUICK.replace("[limits]\n", "[limits]\nempty_pages = true\n");
    let sim = Sim::start(&scenario, &["name=a,size=16MiB"]);
    write(&sim, 3, 1);
    let id = snapshot(&sim);
    // Over TLS, where the services answer too.
    let client = Client::tls(&sim);
    let first = get(&client, &format!("/snapshots/{id}/blocks"));
    assert_eq!(indexes(&first, "Blocks"), [0; 0]);
    let next = get(&client, &format!("/snapshots/{id}/blocks?pageToken={}", encoded(&first["NextToken"])));
    assert_eq!((indexes(&next, "Blocks"), next["NextToken"].is_null()), (vec![3], true));
}

#[test]
fn a_snapshot_can_be_read_only_some_time_after_it_is_completed() {
    needs_root();
    let sim = Sim::start(&format!("{QUICK}readable_after = '1h'\n"), &["name=a,size=16MiB"]);
    let client = Client::new(&sim);
    let id = snapshot(&sim);
    let path = format!("/snapshots/{id}/blocks");
    assert_eq!(error(&client, &path).2, "SNAPSHOT_NOT_FOUND");
    sim.ok(&["clock", "--advance", "1h"]);
    assert_eq!(client.rest("ebs", "GET", &path, "").status, 200);
    sim.ok(&["faults", "add", "--action", "ebs:List*", "--kind", "throttle", "--call", "1"]);
    assert_eq!(error(&client, &path), (400, "RequestThrottledException".into(), "ACCOUNT_THROTTLED".into()));
    let resource =
        ["--code", "RequestThrottledException/RESOURCE_LEVEL_THROTTLE", "--status", "400", "--call", "1"];
    sim.ok(&[&["faults", "add", "--action", "ebs:*", "--kind", "throttle"][..], &resource].concat());
    assert_eq!(error(&client, &path).2, "RESOURCE_LEVEL_THROTTLE");
    let log = sim.requests("ebs:ListSnapshotBlocks");
    assert_eq!(log.len(), 4);
    assert_eq!((&log[1]["outcome"], &log[2]["outcome"]), (&"ok".into(), &"RequestThrottledException".into()));
    sim.ok(&["faults", "add", "--action", "ebs:*", "--kind", "truncated", "--call", "1"]);
    assert_eq!(client.rest("ebs", "GET", &path, "").exit, crate::support::curl::exit::PARTIAL);
    for bad in [["ebs:ListBlocks", "hang"], ["ebs:*", "snapshot-error"], ["s3:*", "hang"]] {
        let refused = sim.command(&["faults", "add", "--action", bad[0], "--kind", bad[1]]);
        assert!(!refused.status.success(), "{bad:?}");
    }
}

#[test]
fn too_many_lists_are_throttled_by_account_and_blocks_by_snapshot() {
    needs_root();
    let limits = "[limits]\nper_volume_interval = '0s'\n[limits.bucket.'ebs:ListSnapshotBlocks']\nsize = 1\nrefill = 0\n\
                  [limits.bucket.'ebs:GetSnapshotBlock']\nsize = 1\nrefill = 0\n[snapshots]\nseconds_to_complete = 0.1\n";
    let sim = Sim::start(limits, &["name=a,size=16MiB"]);
    let client = Client::new(&sim);
    let (one, two) = (snapshot(&sim), snapshot(&sim));
    assert_eq!(client.rest("ebs", "GET", &format!("/snapshots/{one}/blocks"), "").status, 200);
    assert_eq!(error(&client, &format!("/snapshots/{two}/blocks")).2, "ACCOUNT_THROTTLED");
    let block = |id: &str| error(&client, &format!("/snapshots/{id}/blocks/0?blockToken=x")).2;
    assert_eq!(
        [block(&one), block(&one), block(&two)],
        ["INVALID_BLOCK_TOKEN", "RESOURCE_LEVEL_THROTTLE", "INVALID_BLOCK_TOKEN"]
    );
}
