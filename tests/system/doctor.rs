//! What `doctor` finds, with the real thing to be found.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rig::listener::Listener;
use rig::probe::{assert_settled, is_frozen, is_thawed};
use rig::program::{Run, await_some, put_executable};
use rig::{Fs, Rig, sh, stillpoint};
use serde_json::Value;

fn one() -> Rig {
    Rig::start(&[("a", Fs::Ext4)])
}

/// Runs `doctor -o json`, which must end with this code; its findings.
fn findings(rig: &Rig, code: i32, arguments: &[&str]) -> Vec<Value> {
    let ended = rig.run(&[&["doctor", "-o", "json"], arguments].concat());
    let said: Value = serde_json::from_str(&ended.exits(code).out).unwrap();
    assert_eq!((&said["version"], &said["exit_code"]), (&1.into(), &code.into()));
    said["findings"].as_array().unwrap().clone()
}

fn of<'a>(findings: &'a [Value], id: &str) -> Vec<&'a Value> {
    findings.iter().filter(|f| f["id"] == id).collect()
}

/// The only finding of this check.
fn only<'a>(findings: &'a [Value], id: &str) -> &'a Value {
    let found = of(findings, id);
    assert_eq!(found.len(), 1, "{id}: {findings:#?}");
    found[0]
}

fn names(finding: &Value, text: &str) -> bool {
    finding["where"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains(text))
}

/// Nothing was asked of EC2 that changes anything.
fn assert_untouched(rig: &Rig) {
    let changing = ["CreateSnapshot", "CreateSnapshots", "CreateTags"];
    let real =
        |r: &Value| changing.contains(&r["action"].as_str().unwrap()) && r["params"]["DryRun"] != "true";
    assert_eq!(rig.requests().into_iter().filter(real).collect::<Vec<_>>(), Vec::<Value>::new());
    assert!(!rig.path("run").exists() && !rig.path("state").exists());
    assert_settled(rig);
}

#[test]
fn a_host_without_faults_has_nothing_but_good_findings() {
    let rig = one();
    let found = findings(&rig, 0, &[]);
    for id in ["configuration", "privileges", "program", "imds", "plan", "run-dir", "loop-images", "swap"] {
        assert_eq!(only(&found, id)["severity"], "ok", "{id}");
    }
    for id in ["pending-snapshots", "volumes", "clock", "tags", "imds-hop-limit"] {
        assert_eq!(only(&found, id)["severity"], "ok", "{id}");
    }
    let allowed: Vec<_> = of(&found, "iam").into_iter().filter(|f| f["severity"] == "ok").collect();
    for action in
        ["CreateSnapshot", "CreateTags", "DescribeInstances", "DescribeSnapshots", "DescribeVolumes"]
    {
        assert!(allowed.iter().any(|f| names(f, &format!("ec2:{action}"))), "{action}: {found:#?}");
    }
    // The view of ebs-sim is a mount namespace of its own.
    assert_eq!(only(&found, "mount-namespace")["severity"], "warning");
    assert_untouched(&rig);
}

#[test]
fn a_listener_is_found_by_pid_and_a_silent_one_does_not_hang_a_run() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let b = rig.mount("b");
    let listener = Listener::start(&b);
    let found = findings(&rig, 0, &[]);
    let pid = format!("pid {}", listener.pid());
    let finding = of(&found, "fanotify").into_iter().find(|f| names(f, &pid)).expect("the listener");
    assert_eq!(finding["severity"], "warning");
    assert!(names(finding, b.to_str().unwrap()) && !names(finding, rig.mount("a").to_str().unwrap()));

    let planned = rig.run(&["plan"]);
    planned
        .exits(0)
        .says(&format!("(pid {}) is asked by the kernel to permit", listener.pid()))
        .says("stillpoint doctor");

    for command in ["snapshot", "rehearse"] {
        let ended = rig.run(&[command]);
        ended.exits(21);
        let said = format!("{}{}", ended.out, ended.err).replace("\n  ", " ");
        assert!(said.contains(&format!("opening {} takes longer than 5s", b.display())), "{said}");
        assert!(said.contains(&format!("(pid {})", listener.pid())), "{said}");
        assert!(said.contains("nothing is frozen"), "{said}");
    }
    drop(listener);
    rig.run(&["rehearse"]).exits(0);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn an_image_file_is_a_warning_where_only_what_holds_it_is_frozen() {
    let rig = one();
    let (image, inner) = (rig.mount("a").join("image"), rig.path("inner"));
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    sh("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    std::fs::create_dir(&inner).unwrap();
    sh("mount", &["-o", "loop", image.to_str().unwrap(), inner.to_str().unwrap()]);
    let whole = findings(&rig, 0, &[]);
    let without = findings(&rig, 0, &["--exclude-mount", inner.to_str().unwrap(), "--allow-partial"]);
    sh("umount", &[inner.to_str().unwrap()]);
    let both = only(&whole, "loop-images");
    assert_eq!(both["severity"], "ok");
    assert!(both["what"].as_str().unwrap().contains(inner.to_str().unwrap()), "{both}");
    let left_out = only(&without, "loop-images");
    assert_eq!(left_out["severity"], "warning");
    assert!(
        names(left_out, inner.to_str().unwrap()) && names(left_out, image.to_str().unwrap()),
        "{left_out}"
    );
}

#[test]
fn a_process_that_hangs_on_a_frozen_filesystem_is_named() {
    let rig = one();
    let mount = rig.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    sh("fsfreeze", &["--freeze", mount.to_str().unwrap()]);
    // It has the file open for writing, and waits in state D.
    let mut writer = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "count=1", "conv=notrunc", "status=none"])
        .arg(format!("of={}", mount.join("file").display()))
        .spawn()
        .unwrap();
    await_some("state D", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", writer.id())).unwrap();
        stat.contains(" (dd) D ").then_some(())
    });
    let frozen = is_frozen(&mount);
    let found = rig.run(&["doctor", "-o", "json"]);
    sh("fsfreeze", &["--unfreeze", mount.to_str().unwrap()]);
    writer.wait().unwrap();
    assert!(frozen);
    let said: Value = serde_json::from_str(&found.exits(78).out).unwrap();
    let pid = format!("pid {}", writer.id());
    let tasks = of(said["findings"].as_array().unwrap(), "hung-tasks");
    let stuck = tasks.iter().find(|f| names(f, &pid)).unwrap_or_else(|| panic!("{tasks:#?}"));
    assert_eq!(stuck["severity"], "problem");
    assert!(stuck["what"].as_str().unwrap().starts_with("dd (pid "), "{stuck}");
    assert!(names(stuck, mount.join("file").to_str().unwrap()), "{stuck}");
    assert!(is_thawed(&mount));
    assert_settled(&rig);
}

/// It sleeps interruptibly, in state S: the state of a task does not tell what keeps FIFREEZE waiting.
#[test]
fn a_writer_that_holds_write_access_and_sleeps() {
    let rig = one();
    let file = rig.mount("a").join("stuck");
    let code = format!(
        "import os\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nos.splice(r,f,4096)",
        file.to_str().unwrap()
    );
    let mut writer = std::process::Command::new("python3").args(["-c", &code]).spawn().unwrap();
    await_some("the writer inside splice", || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", writer.id())).ok()?;
        (call.starts_with("275 ") || call.starts_with("76 ")).then_some(())
    });
    let found = rig.run(&["doctor", "-o", "json"]);
    writer.kill().unwrap();
    writer.wait().unwrap();
    let said: Value = serde_json::from_str(&found.exits(78).out).unwrap();
    let tasks = of(said["findings"].as_array().unwrap(), "hung-tasks");
    let pid = format!("pid {}", writer.id());
    let stuck = tasks.iter().find(|f| names(f, &pid)).unwrap_or_else(|| panic!("{tasks:#?}"));
    assert_eq!(stuck["severity"], "problem");
    assert!(stuck["what"].as_str().unwrap().contains("in splice"), "{stuck}");
    assert!(stuck.to_string().contains(file.to_str().unwrap()), "{stuck}");
    assert_settled(&rig);
}

#[test]
fn hooks_that_others_can_write_or_that_are_not_there_are_problems() {
    let rig = one();
    let folder = rig.path("scripts");
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("hold");
    put_executable(&script, "#!/bin/sh\n");
    let mode = |m| std::fs::set_permissions(&script, std::fs::Permissions::from_mode(m)).unwrap();
    let path = script.to_str().unwrap();
    rig.configure(&format!(
        "[[hook]]\nname = \"db\"\npre = [\"{path}\"]\npost = [\"/bin/sh\", \"{path}\"]\ntimeout = \"5s\"\n"
    ));
    mode(0o755);
    let found = findings(&rig, 0, &[]);
    assert_eq!(only(&found, "hook-writable")["severity"], "ok");
    assert_eq!(only(&found, "hook-runs")["severity"], "ok");

    mode(0o757);
    let found = findings(&rig, 78, &[]);
    let finding = only(&found, "hook-writable");
    assert!(finding["what"].as_str().unwrap().contains("can be written by everybody"), "{finding}");
    assert!(finding["remedy"].as_str().unwrap().contains(&format!("chmod go-w {path}")), "{finding}");

    // Not the file, but the folder it lies in.
    mode(0o755);
    let loosen = |m| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(m)).unwrap();
    loosen(0o777);
    let finding = findings(&rig, 78, &[]);
    loosen(0o700);
    assert!(
        only(&finding, "hook-writable")["what"].as_str().unwrap().contains("can be written by everybody")
    );

    std::fs::remove_file(&script).unwrap();
    let found = findings(&rig, 78, &[]);
    assert!(of(&found, "hook-runs").iter().any(|f| names(f, path) && f["severity"] == "problem"));
    assert_untouched(&rig);
}

#[test]
fn missing_permissions_are_all_named_with_what_allows_them() {
    let rig = one();
    rig.control("POST", "iam", r#"{"deny":["ec2:CreateTags","ec2:DescribeSnapshots"]}"#);
    let found = findings(&rig, 77, &[]);
    let denied: Vec<_> = of(&found, "iam").into_iter().filter(|f| f["severity"] == "problem").collect();
    for action in ["CreateTags", "DescribeSnapshots"] {
        let one = denied.iter().find(|f| names(f, &format!("ec2:{action}"))).expect(action);
        let remedy = one["remedy"].as_str().unwrap();
        assert!(remedy.contains(&format!(r#""Action":"ec2:{action}""#)), "{remedy}");
    }
    assert_eq!(denied.len(), 2, "{denied:#?}");

    rig.control("POST", "iam", r#"{"deny":["ec2:CreateSnapshot"]}"#);
    let found = findings(&rig, 77, &[]);
    assert!(of(&found, "iam").iter().any(|f| names(f, "ec2:CreateSnapshot") && f["severity"] == "problem"));
    assert_untouched(&rig);
}

#[test]
fn without_imds_the_host_is_looked_at_all_the_same() {
    let rig = Rig::with(&[("a", Fs::Ext4)], "[imds]\nenabled = false\n");
    let found = findings(&rig, 78, &[]);
    let imds = only(&found, "imds");
    assert_eq!(imds["severity"], "problem");
    assert!(imds["remedy"].as_str().unwrap().contains("--http-endpoint enabled"), "{imds}");
    assert_eq!(only(&found, "plan")["severity"], "not-checked");
    assert_eq!(only(&found, "ec2")["severity"], "not-checked");
    for id in ["hung-tasks", "run-dir", "loop-images", "swap", "privileges"] {
        assert!(!of(&found, id).is_empty(), "{id}");
    }
    assert_untouched(&rig);
}

#[test]
fn without_root_it_says_what_it_could_not_see() {
    let rig = one();
    let copy = rig.path("stillpoint");
    put_executable(&copy, std::fs::read(stillpoint()).unwrap());
    std::fs::set_permissions(rig.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(&copy).args(["doctor", "-o", "json", "--config", "/dev/null"]);
    command.args(["--imds-endpoint", "http://127.0.0.1:9"]);
    let ended = Run::start(command).end();
    let said: Value = serde_json::from_str(&ended.exits(77).out).unwrap();
    let found = said["findings"].as_array().unwrap();
    assert!(of(found, "privileges").iter().any(|f| f["what"] == "CAP_SYS_ADMIN is missing"));
    assert!(of(found, "fanotify").iter().any(|f| f["severity"] == "not-checked"));
    assert_untouched(&rig);
}

#[test]
fn a_run_dir_on_the_set_and_a_broken_configuration_are_problems() {
    let rig = one();
    let inside = rig.mount("a").join("run");
    let mut command = rig.command(&["doctor", "-o", "json"]);
    command.arg("--run-dir").arg(&inside);
    let said: Value = serde_json::from_str(&Run::start(command).end().exits(78).out).unwrap();
    let finding = only(said["findings"].as_array().unwrap(), "run-dir").clone();
    assert!(finding["severity"] == "problem" && names(&finding, inside.to_str().unwrap()), "{finding}");

    rig.configure("[defaults]\nwindw = \"5s\"\n");
    let found = findings(&rig, 78, &[]);
    assert!(only(&found, "configuration")["what"].as_str().unwrap().contains("windw"));
    assert_eq!(only(&found, "imds")["severity"], "ok", "the rest is looked at");
    assert_untouched(&rig);
}

/// The documented policy allows tags with the create call, and later on the snapshots of a run alone.
#[test]
fn a_policy_that_allows_tags_on_own_snapshots_alone_is_no_problem() {
    let rig = one();
    let denied = "faults add --action CreateTags --dry-run true --times 99 --kind error --code UnauthorizedOperation \
                  --status 403 --message no";
    rig.sim(&denied.split_whitespace().collect::<Vec<_>>());
    let found = findings(&rig, 0, &[]);
    let told = |severity: &str, words: &str| {
        let all = of(&found, "iam");
        all.iter().any(|f| f["severity"] == severity && f["what"].as_str().unwrap().contains(words))
    };
    assert!(told("not-checked", "none yet to try it on"), "{found:#?}");
    // On one of this instance it is known.
    rig.run(&["snapshot"]).exits(0);
    let found = findings(&rig, 77, &[]);
    let all = of(&found, "iam");
    assert!(all.iter().any(|f| f["severity"] == "problem" && names(f, "ec2:CreateTags")), "{found:#?}");
}

/// Snapshots of others are made by EC2 itself, with the tags that they have.
#[test]
fn what_other_tools_have_of_the_volumes_is_said() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let none = rig.run(&["plan"]);
    none.exits(0).says("nobody else has snapshots of these volumes");
    let make = |volume: &str, key: &str| {
        rig.sim(&["call", "CreateSnapshot", &format!("VolumeId={}", rig.id(volume))]);
        rig.await_quiet();
        let snapshots = rig.snapshots();
        let mut plain = snapshots.iter().filter(|s| s["tags"].as_object().is_none_or(|tags| tags.is_empty()));
        let id = plain.next_back().unwrap()["id"].as_str().unwrap().to_owned();
        if !key.is_empty() {
            rig.control("POST", &format!("tags/{id}"), &format!(r#"{{"{key}": "x"}}"#));
        }
    };
    make("a", "aws:backup:source-resource");
    make("b", "aws:dlm:lifecycle-policy-id");
    make("b", "");
    rig.run(&["snapshot"]).exits(0);
    for command in ["plan", "doctor"] {
        let said = rig.run(&[command]);
        let said = format!("{}{}", said.out, said.err);
        let one_line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in [
            "AWS Backup has 1 snapshot of 1 volume, the newest of 20",
            "Data Lifecycle Manager has 1 snapshot of 1 volume, the newest of 20",
            "somebody else has 1 snapshot of 1 volume, the newest of 20",
        ] {
            assert!(one_line.contains(text), "{command}: {said}");
        }
        assert!(!one_line.contains(", usually at about"), "{said}");
    }
}

/// A copy of a volume beside its original, until it has a UUID of its own.
#[test]
fn a_filesystem_that_is_on_two_disks_is_told() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Ext4)]);
    // A disk of this machine may be closed to its tests: that is another finding.
    let warning = || {
        let report = rig.run(&["doctor", "-o", "json"]).record();
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().find(|f| f["id"] == "doubled-uuid" && f["severity"] == "warning")
    };
    assert_eq!(warning(), None);
    sh("umount", &[rig.mount("c").to_str().unwrap()]);
    let (from, to) = (format!("if={}", rig.device("a")), format!("of={}", rig.device("c")));
    sh("dd", &[&from, &to, "bs=1M", "count=2", "conv=fsync", "status=none"]);
    let told = warning().unwrap();
    for name in ["a", "c"] {
        assert!(told["where"].as_array().unwrap().contains(&rig.id(name).into()), "{told}");
    }
    assert!(told["remedy"].as_str().unwrap().contains("tune2fs -U random"), "{told}");
    sh("mkfs.ext4", &["-q", "-F", &rig.device("c")]);
    assert_eq!(warning(), None);
}
