//! The rules of the plan, one by one: each test fails when its rule is taken out.

mod chosen;
mod left_out;
mod methods;
mod names;
mod partial;

use rig::fixture::Host;
use stillpoint::discover::Facts;
use stillpoint::plan::{Plan, PlannedFilesystem};

fn mounts(plan: &Plan) -> Vec<&str> {
    let mut mounts: Vec<_> = plan.filesystems.iter().map(|f| f.mount_point.to_str().unwrap()).collect();
    mounts.sort_unstable();
    mounts
}

fn volumes(plan: &Plan) -> String {
    plan.volumes.iter().map(|v| v.id.as_str().chars().last().unwrap()).collect()
}

fn filesystem<'a>(plan: &'a Plan, mount: &str) -> &'a PlannedFilesystem {
    plan.filesystems.iter().find(|f| f.mount_point.to_str() == Some(mount)).unwrap()
}

fn left<'a>(plan: &'a Plan, what: &str) -> &'a str {
    &plan.left_out.iter().find(|l| l.what.starts_with(what)).unwrap().reason
}

const ROOT: &str = "ebs nvme0n1 259:0 8192 vol-00000000000000000\n\
    mount 1 0 259:0 / / rw - ext4 /dev/nvme0n1 rw\nroot-device /dev/xvda\n\
    attached vol-00000000000000000 /dev/xvda 8 gp3\n";

/// A root on one volume, then `rest`.
fn host(rest: &str) -> Facts {
    Host::of(&format!("{ROOT}{rest}")).facts()
}
