//! EC2 calls about volumes, and their states.

use serde_json::Value;

use super::{Sim, values, wait_for};

/// Everything is quick, but not so quick that no state on the way can be seen.
pub const LIVELY: &str = "[limits]\nper_volume_interval = '0s'\n[snapshots]\nseconds_to_complete = 0.1\n\
                      [volumes]\nseconds_to_create = 0.3\nseconds_to_attach = 0.3\n";

/// Calls EC2: the XML, be it an answer or an error.
pub fn call(sim: &Sim, arguments: &[&str]) -> String {
    let output = sim.command(&[&["call"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The code of an error.
pub fn code(xml: &str) -> String {
    values(xml, "Code").pop().unwrap_or_default()
}

/// `NAME=VALUE`
pub fn arg(name: &str, value: &str) -> String {
    format!("{name}={value}")
}

/// The states of a volume and of its attachment.
pub fn states(sim: &Sim, id: &str) -> Vec<String> {
    values(&call(sim, &["DescribeVolumes", &arg("VolumeId.1", id)]), "status")
}

/// Waits until they are these.
pub fn wait_for_states(sim: &Sim, id: &str, expected: &[&str]) {
    wait_for(&format!("{expected:?} of {id}, which is {:?},", states(sim, id)), || {
        states(sim, id) == expected
    });
}

/// A new volume that is available.
pub fn create(sim: &Sim, arguments: &[&str]) -> String {
    let made = call(sim, &[&["CreateVolume", "AvailabilityZone=us-east-1a"], arguments].concat());
    let id = values(&made, "volumeId").pop().unwrap_or_else(|| panic!("no volume: {made}"));
    assert_eq!(values(&made, "status"), ["creating"]);
    wait_for_states(sim, &id, &["available"]);
    id
}

/// The instance's id.
pub fn instance(sim: &Sim) -> String {
    sim.ready["instance_id"].as_str().expect("an id").to_owned()
}

/// AttachVolume.
pub fn attach(sim: &Sim, id: &str, device: &str) -> String {
    let instance = arg("InstanceId", &instance(sim));
    call(sim, &["AttachVolume", &arg("VolumeId", id), &instance, &arg("Device", device)])
}

/// DetachVolume.
pub fn detach(sim: &Sim, id: &str) -> String {
    call(sim, &["DetachVolume", &arg("VolumeId", id)])
}

/// The device of a volume, as `ebs-sim.json` has it now.
pub fn device(sim: &Sim, id: &str) -> Option<String> {
    let text = std::fs::read_to_string(sim.dir().join("ebs-sim.json")).expect("the file");
    let ready: Value = serde_json::from_str(&text).expect("json");
    let volumes = ready["volumes"].as_array().expect("volumes");
    let volume = volumes.iter().find(|volume| volume["id"] == id)?;
    Some(volume["loop"].as_str().expect("a path").to_owned())
}

/// A snapshot's entry in the control API, once it is completed.
pub fn completed(sim: &Sim, snapshot: &str) -> Value {
    let find = || {
        let all: Value = serde_json::from_str(&sim.ok(&["snapshots"])).expect("json");
        all.as_array().expect("a list").iter().find(|entry| entry["id"] == snapshot).cloned()
    };
    wait_for("the end of a snapshot", || find().is_some_and(|entry| entry["state"] == "completed"));
    find().expect("it is there")
}
