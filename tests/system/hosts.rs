//! A host that is built anew keeps its sets in one group, and a run that prunes, in a simulated EC2 over real volumes.

use rig::{Fs, Rig};
use serde_json::Value;

const OLD: &str = "i-0123456789abcdef1";

fn take(rig: &Rig, more: &[&str]) -> String {
    let taken = rig.run(&[&["snapshot", "-o", "json"], more].concat());
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn list(rig: &Rig) -> Vec<Value> {
    let list = rig.run(&["list", "--all-hosts", "-o", "json"]).exits(0).record();
    list["sets"].as_array().unwrap().clone()
}

fn ids(rig: &Rig) -> Vec<String> {
    list(rig).iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

/// Three sets of an instance that is gone, and one of this instance, a day between each.
fn rebuilt(config: &str, more: &[&str]) -> (Rig, String) {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(config);
    let own = take(&rig, &[]);
    rig.await_quiet();
    let like = list(&rig)[0]["members"][0]["id"].as_str().unwrap().to_owned();
    let fill = ["fill", "--sets", "3", "--like", &like, "--vary", "stillpoint:run", "--every", "24h"];
    rig.sim(&[&fill[..], &["--instance", OLD], more].concat());
    assert_eq!(ids(&rig).len(), 4);
    (rig, own)
}

const RULES: &str = "[defaults]\nhost_key = 'db-1'\n[defaults.keep]\nlast = 2\n";

#[test]
fn sets_of_a_former_instance_with_the_same_key_are_pruned_with_ones_own() {
    let (rig, own) = rebuilt(RULES, &[]);
    let all = ids(&rig);
    assert_eq!(list(&rig)[0]["host_key"], "db-1");
    let dry = rig.run(&["prune", "-n"]);
    dry.exits(0);
    assert!(dry.out.contains(&all[3][..13]) && dry.out.contains("db-1 (i-"), "{}", dry.out);
    rig.run(&["prune"]).exits(0);
    assert_eq!(ids(&rig), all[..2], "two of four: the newest, and that of the day before");
    assert_eq!(all[0], own);
}

#[test]
fn without_a_key_a_former_instance_stays_apart() {
    let (rig, _) = rebuilt("[defaults.keep]\nlast = 2\n", &[]);
    rig.run(&["prune"]).exits(0);
    assert_eq!(ids(&rig).len(), 4);
    rig.run(&["prune", "--adopt", OLD]).exits(78).says("has no host_key");
    // Another key is another host.
    rig.configure(RULES);
    rig.run(&["prune"]).exits(0);
    assert_eq!(ids(&rig).len(), 4, "these sets have no key");
}

#[test]
fn adopting_moves_the_sets_of_an_instance_that_is_gone() {
    let (rig, own) = rebuilt("[defaults.keep]\nlast = 2\n", &[]);
    rig.configure(RULES);
    let exists = rig.ready["instance_id"].as_str().unwrap().to_owned();
    rig.run(&["prune", "--adopt", &exists]).exits(78).says("exists: its sets are its own");
    rig.run(&["prune", "--adopt", OLD, "-n"])
        .exits(0)
        .says(&format!("3 sets of {OLD} would be those of db-1"));
    assert!(list(&rig).iter().all(|s| s["host_key"].is_null()), "a dry run moves nothing");
    rig.run(&["prune", "--adopt", OLD]).exits(0).says(&format!("3 sets of {OLD} are those of db-1"));
    assert_eq!((ids(&rig).len(), &ids(&rig)[0]), (2, &own));
    rig.run(&["prune", "--adopt", OLD]).exits(0).says("0 sets");
}

#[test]
fn a_run_prunes_when_it_is_told_to_and_its_set_stays_what_it_is() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    rig.run(&["snapshot", "--prune"]).exits(78).says("has no rules");
    assert!(rig.creates().is_empty(), "refused before anything was touched");
    rig.configure("[defaults.keep]\nlast = 1\nat_least = 2\n");
    let taken: Vec<_> = (0..3).map(|_| take(&rig, &[])).collect();
    rig.await_quiet();
    // However fast this machine is: a new set is pending when the prune decides.
    rig.sim(&[
        "faults",
        "add",
        "--action",
        "CreateSnapshot*",
        "--kind",
        "slow-progress",
        "--times",
        "2",
        "--delay",
        "900s",
    ]);
    let fault = ["faults", "add", "--action", "DeleteSnapshot", "--kind", "error", "--times", "1000"];
    let error =
        ["--code", "UnauthorizedOperation", "--status", "403", "--message", "You are not authorized."];
    let fault = rig.sim(&[&fault[..], &error].concat());
    let failed = rig.run(&["snapshot", "--prune", "-o", "json"]);
    failed.exits(11);
    let record = failed.record();
    assert_eq!((&record["achieved"], &record["exit_code"]), (&"filesystem".into(), &11.into()));
    assert!(record["after"].to_string().contains("is NOT removed"), "{}", record["after"]);
    let kept = rig.path("state").join(format!("sets/{}.json", record["run_id"].as_str().unwrap()));
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept["after"], record["after"]);
    rig.sim(&["faults", "remove", fault.trim()]);
    assert_eq!(ids(&rig).len(), 4);
    let of_run = rig.snapshots().into_iter().filter(|s| s["tags"]["stillpoint:run"] == record["run_id"]);
    assert!(of_run.into_iter().all(|s| s["tags"]["stillpoint:consistency"] == "filesystem"));
    let new = take(&rig, &["--prune"]);
    let pending = record["run_id"].as_str().unwrap();
    assert_eq!(ids(&rig), [new.as_str(), pending, &taken[2], &taken[1]], "the oldest went");
}
