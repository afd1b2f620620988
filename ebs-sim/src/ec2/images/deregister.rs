//! DeregisterImage, with or without its snapshots.
//!
//! In: an image of this account. Out: it is gone. A snapshot that another image uses, that is locked, or that
//! the caller may not delete must never go with it.

use super::super::context::Context;
use super::super::delete;
use super::super::error::Ec2Error;
use super::super::iam::{self, Need};
use super::super::params::Params;
use super::{own, parse_id};
use crate::ids::{ImageId, SnapshotId};
use crate::world::World;

pub struct Deregister {
    id: ImageId,
    with_snapshots: bool,
}

impl Deregister {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = parse_id(&params.required("ImageId")?)?;
        Ok(Self { id, with_snapshots: params.flag("DeleteAssociatedSnapshots")? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:DeregisterImage", world, &format!("image/{}", self.id))]
    }

    pub async fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let _commit = context.sim.commit.lock().await;
        let (results, gone) = {
            let mut world = context.sim.change();
            let snapshots = self.remove(&mut world, context.region())?;
            let mut gone = Vec::new();
            let mut results = Vec::new();
            for id in snapshots {
                let code = match may_delete(&world, context, &id) {
                    Ok(()) => {
                        let listed = world.scenario.snapshots.listed_after_deletion;
                        gone.extend(delete::forget(&mut world, &id, context.now, listed));
                        "success"
                    }
                    Err(code) => code,
                };
                results.push((id, code));
            }
            (results, gone)
        };
        delete::free(&context.sim, gone).await;
        Ok(context.response(|xml| {
            xml.text("return", true);
            if self.with_snapshots {
                xml.list("deleteSnapshotResultSet", results, |xml, (id, code)| {
                    xml.text("snapshotId", id);
                    xml.text("returnCode", code);
                });
            }
        }))
    }

    /// Takes the image out of the account, and says which snapshots are to follow.
    fn remove(&self, world: &mut World, region: &str) -> Result<Vec<SnapshotId>, Ec2Error> {
        let image = own(world, region, &self.id)?;
        let mut snapshots: Vec<SnapshotId> = if self.with_snapshots {
            image.volumes().filter_map(|(_, ebs)| ebs.snapshot.clone()).collect()
        } else {
            vec![]
        };
        snapshots.dedup();
        world.images.shift_remove(&self.id);
        world.deregistered.insert(self.id.clone(), region.to_owned());
        world.tags.remove(self.id.as_str());
        Ok(snapshots)
    }
}

/// Whether a snapshot goes too, or the code that says why not.
fn may_delete(world: &World, context: &Context, id: &SnapshotId) -> Result<(), &'static str> {
    let need = Need::on("ec2:DeleteSnapshot", world, &format!("snapshot/{id}"));
    iam::authorise(world, &context.signer, &need).map_err(|_| "missing-permissions")?;
    delete::check(world, context.region(), id, context.now).map_err(|error| match error.code.as_str() {
        "InvalidSnapshot.InUse" => "skipped",
        _ => "client-error",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use jiff::Timestamp;

    #[test]
    fn only_ones_own_images_of_this_region_can_go() {
        let mut world = World::new(&Scenario::default(), &[], Timestamp::UNIX_EPOCH);
        let id = world.images.keys().next().expect("the instance's own").clone();
        let wanted = |with_snapshots| Deregister { id: id.clone(), with_snapshots };
        let code = |outcome: Result<Vec<SnapshotId>, Ec2Error>| outcome.err().map(|error| error.code);
        assert_eq!(code(wanted(false).remove(&mut world, "us-east-1")).as_deref(), Some("AuthFailure"));
        assert_eq!(
            code(wanted(false).remove(&mut world, "us-west-2")).as_deref(),
            Some("InvalidAMIID.NotFound")
        );
        world.images[&id].owner = world.scenario.instance.account_id.clone();
        assert_eq!(wanted(true).remove(&mut world, "us-east-1").expect("own").len(), 1);
        assert!(world.images.is_empty());
        assert_eq!(
            code(wanted(false).remove(&mut world, "us-east-1")).as_deref(),
            Some("InvalidAMIID.Unavailable")
        );
    }
}
