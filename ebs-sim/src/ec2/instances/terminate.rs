//! TerminateInstances.
//!
//! In: instances that were launched here. Out: they are `shutting-down` until their volumes have gone, or are detached.
//! The scenario's instance must never end.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::volumes::parse_instance;
use super::describe::write_state;
use super::find;
use crate::ids::InstanceId;
use crate::lifecycle;
use crate::world::{InstanceState, World};

pub struct Terminate(Vec<InstanceId>);

impl Terminate {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let ids = params.list("InstanceId");
        if ids.is_empty() {
            return Err(Ec2Error::missing("InstanceId"));
        }
        // A guest's power is cut either way.
        params.flag("Force")?;
        params.flag("SkipOsShutdown")?;
        ids.iter().map(|id| parse_instance(id)).collect::<Result<_, _>>().map(Self)
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let on = |id| Need::on("ec2:TerminateInstances", world, &format!("instance/{id}"));
        self.0.iter().map(on).collect()
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        // All of them or none.
        for id in &self.0 {
            if find(&world, context.region(), id)?.launch.is_none() {
                return Err(Ec2Error::new(
                    "OperationNotPermitted",
                    format!(
                        "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance \
                         attribute and try again."
                    ),
                ));
            }
        }
        let mut changes = Vec::new();
        for id in &self.0 {
            let Some(launch) = world.launch_mut(id) else { return Err(Ec2Error::internal()) };
            let before = launch.state;
            if before.is_there() {
                launch.state = InstanceState::ShuttingDown;
                launch.ended = Some(context.now);
                let (code, text) = ("Client.UserInitiatedShutdown", "User initiated shutdown");
                launch.reason = Some((code.into(), format!("{code}: {text}")));
            }
            changes.push((id, before, launch.state));
            // One that is pending is taken down by what puts it together.
            if before == InstanceState::Running {
                lifecycle::terminate(&context.sim, id);
            }
        }
        Ok(context.response(|xml| {
            xml.list("instancesSet", changes, |xml, (id, before, now)| {
                xml.text("instanceId", id);
                xml.node("currentState", |xml| write_state(xml, now));
                xml.node("previousState", |xml| write_state(xml, before));
            });
        }))
    }
}
