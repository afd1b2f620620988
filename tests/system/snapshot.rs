//! Sets as they are taken when nothing goes wrong, over real filesystems.

use rig::patience::let_pass;
use rig::probe::{Writer, assert_labels, assert_settled, nanoseconds, needs_recovery, tag};
use rig::window::in_the_window;
use rig::{Fs, Rig};

#[test]
fn two_filesystems_are_one_set_by_one_call() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let ended = rig.run(&["snapshot"]);
    ended.exits(0).says("filesystem-consistent, 2 of 2 volumes");

    // Ids alone on stdout, one a line.
    let snapshots = rig.snapshots();
    let ids: Vec<&str> = snapshots.iter().map(|s| s["id"].as_str().unwrap()).collect();
    let mut printed: Vec<&str> = ended.out.lines().collect();
    printed.sort_unstable();
    let mut made = ids.clone();
    made.sort_unstable();
    assert_eq!(printed, made);

    let creates = rig.creates();
    assert_eq!(creates.len(), 1, "{creates:#?}");
    assert_eq!(creates[0]["action"], "CreateSnapshots");
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn the_four_times_enclose_the_point_in_time() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["achieved"], "filesystem");
    assert_eq!(record["snapshots"].as_array().unwrap().len(), 3);
    let create = rig.creates().remove(0);
    let point = create["point_in_time_ns"].as_i64().unwrap().into();
    let clone_started = create["clone_started_ns"].as_i64().unwrap().into();
    let time = |name: &str| nanoseconds(&record["times"][name]);
    let order = [
        ("started", time("started")),
        ("frozen", time("frozen")),
        ("requested", time("requested")),
        ("clone started", clone_started),
        ("point in time", point),
        ("responded", time("responded")),
        ("thawed", time("thawed")),
    ];
    assert!(order.is_sorted_by_key(|(_, t)| *t), "{order:#?}");
    for snapshot in rig.snapshots() {
        for name in ["frozen", "requested", "responded", "thawed"] {
            let said = tag(&snapshot, &format!("stillpoint:{name}"));
            assert_eq!(said, record["times"][name].as_str().unwrap(), "{name}");
        }
    }
    assert_settled(&rig);
}

#[test]
fn the_request_goes_over_a_connection_that_a_dry_run_warmed() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    rig.run(&["snapshot"]).exits(0);
    let requests = rig.requests();
    let create =
        requests.iter().position(|r| r["action"] == "CreateSnapshots" && r["dry_run"] == false).unwrap();
    let same = |r: &serde_json::Value| {
        let mut params = r["params"].as_object().unwrap().clone();
        params.remove("DryRun");
        params
    };
    let warm = requests[..create].iter().rfind(|r| {
        r["connection"] == requests[create]["connection"]
            && r["action"] == "CreateSnapshots"
            && r["dry_run"] == true
    });
    let warm = warm.unwrap_or_else(|| panic!("a cold connection: {requests:#?}"));
    assert_eq!(same(warm), same(&requests[create]), "DryRun asks for the very same");
    assert_settled(&rig);
}

#[test]
fn the_run_id_is_in_the_call_and_the_verdict_comes_after() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let ended = rig.run(&["snapshot", "--tag", "Team=storage", "-o", "json"]);
    let record = ended.exits(0).record();
    let create = rig.creates().remove(0);
    let params = create["params"].as_object().unwrap();
    let sent: Vec<(String, String)> = (1..)
        .map_while(|n| {
            let get = |what: &str| params.get(&format!("TagSpecification.1.Tag.{n}.{what}"))?.as_str();
            Some((get("Key")?.to_owned(), get("Value")?.to_owned()))
        })
        .collect();
    let has = |key: &str, value: &str| sent.iter().any(|(k, v)| k == key && v == value);
    assert!(has("stillpoint:run", record["run_id"].as_str().unwrap()), "{sent:#?}");
    assert!(has("Team", "storage") && has("stillpoint:requested-consistency", "filesystem"), "{sent:#?}");
    // The call must not carry the label: whether the freeze held is only known after the answer.
    assert!(!sent.iter().any(|(k, _)| k == "stillpoint:consistency" || k == "stillpoint:part"), "{sent:#?}");

    let tagged = rig.calls("CreateTags");
    assert!(!tagged.is_empty());
    let after = |t: &serde_json::Value| t["started_ns"].as_u64() > create["answered_ns"].as_u64();
    assert!(tagged.iter().all(after));
    for snapshot in rig.snapshots() {
        assert_eq!(tag(&snapshot, "stillpoint:consistency"), "filesystem");
        assert_eq!(tag(&snapshot, "stillpoint:part"), "filesystem");
        assert!(tag(&snapshot, "stillpoint:volume.1").starts_with("vol-"));
        assert!(tag(&snapshot, "stillpoint:fs.0").contains("type=ext4"));
    }
    let kept = rig.path("state/sets").join(format!("{}.json", record["run_id"].as_str().unwrap()));
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept, record, "the record that is kept is the one that is printed");
    assert_settled(&rig);
}

/// `call_timeout` is for the calls outside of the window: in it, only the window ends one.
#[test]
fn an_answer_after_the_call_timeout_is_in_time_while_the_window_lasts() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let config = "[ec2]\nvolume_interval = \"0s\"\ncall_timeout = \"4s\"\n";
    std::fs::write(rig.path("stillpoint.toml"), config).unwrap();
    let run = in_the_window(&rig, &["snapshot"]);
    let_pass("the call timeout of 4 s", std::time::Duration::from_secs(5));
    run.end().exits(0);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn the_image_needs_no_recovery_though_a_writer_hammers_on() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let writers = [Writer::start(&rig.mount("a")), Writer::start(&rig.mount("b"))];
    let_pass("writes that are in the journal only", std::time::Duration::from_millis(200));

    // The negative control: without a freeze, under the same writers.
    let instance = rig.ready["instance_id"].as_str().unwrap();
    rig.sim(&["call", "CreateSnapshots", &format!("InstanceSpecification.InstanceId={instance}")]);
    let of_a = |s: &&serde_json::Value| s["volume_id"] == rig.id("a").as_str();
    let live = rig.snapshots().iter().find(of_a).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(needs_recovery(&rig, &live), "the negative control needs no recovery: this test proves nothing");
    rig.await_quiet();

    let ended = rig.run(&["snapshot", "-o", "json"]);
    for writer in writers {
        assert!(writer.stop() > 0);
    }
    let record = ended.exits(0).record();
    let frozen = record["snapshots"].as_array().unwrap().iter().find(of_a).unwrap()["id"].as_str().unwrap();
    assert!(!needs_recovery(&rig, frozen));
    assert_settled(&rig);
}

#[test]
fn one_volume_is_taken_by_create_snapshot() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.run(&["snapshot"]).exits(0);
    let creates = rig.creates();
    assert_eq!(creates.len(), 1);
    assert_eq!(creates[0]["action"], "CreateSnapshot");
    assert_eq!(creates[0]["params"]["VolumeId"], rig.id("a").as_str());
    assert_labels(&rig, 1, "filesystem");
    assert_settled(&rig);
}

#[test]
fn an_excluded_volume_is_excluded_in_the_call_and_not_frozen() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4), ("c", Fs::Ext4)]);
    let ended = rig.run(&["snapshot", "--exclude-volume", &rig.id("b"), "-o", "json"]);
    let record = ended.exits(0).record();
    let create = rig.creates().remove(0);
    assert_eq!(create["params"]["InstanceSpecification.ExcludeDataVolumeId.1"], rig.id("b").as_str());
    let frozen: Vec<_> =
        record["plan"]["filesystems"].as_array().unwrap().iter().map(|f| &f["mount_point"]).collect();
    assert_eq!(frozen, [rig.mount("a").to_str().unwrap(), rig.mount("c").to_str().unwrap()]);
    assert!(rig.snapshots().iter().all(|s| s["volume_id"] != rig.id("b").as_str()));
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn a_set_right_after_another_waits_out_ec2s_interval_before_anything_is_frozen() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    std::fs::write(rig.path("stillpoint.toml"), "[ec2]\nvolume_interval = \"4s\"\n").unwrap();
    rig.run(&["snapshot"]).exits(0);
    rig.await_quiet(); // completed snapshots count as well
    rig.run(&["snapshot"]).exits(0).says("EC2's least interval");
    let sent: Vec<i128> =
        rig.creates().iter().map(|c| i128::from(c["point_in_time_ns"].as_i64().unwrap())).collect();
    assert!(sent[1] - sent[0] >= 4_000_000_000, "{} ms apart", (sent[1] - sent[0]) / 1_000_000);
}

/// A filesystem that is only flushed counts as quiet while nothing writes to its device, and as `crash` when
/// something does.
#[test]
fn a_flushed_filesystem_is_held_to_its_write_counter() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&format!("[defaults.methods]\n\"{}\" = \"sync\"\n", rig.mount("a").display()));
    let quiet = rig.run(&["snapshot", "-o", "json"]);
    assert_eq!(quiet.exits(0).record()["achieved"], "filesystem");

    let writer = Writer::start(&rig.mount("a"));
    let busy = rig.run(&["snapshot", "-o", "json"]);
    writer.stop();
    let record = busy.exits(22).record();
    assert_eq!(record["achieved"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("write"), "{}", record["reason"]);
    assert_settled(&rig);
}

/// A restore gives a volume the tags of the snapshot: those of a label say nothing of the next one.
#[test]
fn volume_tags_are_copied_but_for_those_that_only_a_run_sets() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let (a, b) = (rig.id("a"), rig.id("b"));
    for (volume, tags) in [
        (
            &a,
            "Team=storage Tier=gold Name=data stillpoint:consistency=application Stillpoint:part=application",
        ),
        (&b, "Team=storage Tier=gold Name=log stillpoint:reason=none stillpoint:run=x"),
    ] {
        let mut call = vec!["call".to_owned(), "CreateTags".to_owned(), format!("ResourceId.1={volume}")];
        for (n, tag) in tags.split(' ').enumerate() {
            let (key, value) = tag.split_once('=').unwrap();
            call.push(format!("Tag.{}.Key={key}", n + 1));
            call.push(format!("Tag.{}.Value={value}", n + 1));
        }
        rig.sim(&call.iter().map(String::as_str).collect::<Vec<_>>());
    }
    rig.configure("[defaults]\ncopy_volume_tags = true\ntags = { Tier = 'mine' }\n");
    let said = rig.run(&["plan"]);
    said.exits(0);
    assert!(said.out.contains("Not copied"), "{}", said.out);
    let doctor = rig.run(&["doctor", "-o", "json"]);
    assert!(doctor.out.contains("volume-tags"), "{}", doctor.out);

    let own = |rig: &Rig, n: usize| {
        let all = rig.snapshots();
        for s in all.iter().rev().take(n) {
            let name = if s["volume_id"] == a.as_str() { "data" } else { "log" };
            assert_eq!((tag(s, "Team"), tag(s, "Tier"), tag(s, "Name")), ("storage", "mine", name), "{s:#}");
            assert_eq!(tag(s, "Stillpoint:part"), "");
            assert_ne!(tag(s, "stillpoint:run"), "x");
        }
        all
    };
    rig.run(&["snapshot"]).exits(0);
    own(&rig, 2);
    assert!(!rig.requests().iter().any(|r| r["params"].get("CopyTagsFromSource").is_some()));
    assert_labels(&rig, 2, "filesystem");

    // Nothing but the run's own label, and none where it cannot be put on.
    let denied = "--kind error --code UnauthorizedOperation --status 403 --message no";
    rig.sim(
        &["faults", "add", "--action", "CreateTags"].into_iter().chain(denied.split(' ')).collect::<Vec<_>>(),
    );
    for arguments in [&["snapshot", "--consistency", "crash"][..], &["snapshot", "--volume", &a]] {
        let before = rig.snapshots().len();
        rig.run(arguments).exits(11);
        for s in &rig.snapshots()[before..] {
            for key in ["stillpoint:consistency", "stillpoint:reason", "Stillpoint:part"] {
                assert_eq!(tag(s, key), "", "{s:#}");
            }
            assert_eq!((tag(s, "Team"), tag(s, "Tier")), ("storage", "mine"));
        }
    }
}
