//! GetSnapshotBlockPublicAccessState, EnableSnapshotBlockPublicAccess, DisableSnapshotBlockPublicAccess.
//!
//! In: a Region of an account. Out: whether its snapshots can be shared with everybody. It must never change the
//! permissions that snapshots have: what was public is so again when the block is taken away.

use super::context::Context;
use super::error::Ec2Error;
use super::params::Params;
use crate::world::{Block, World};

const NONE: &str = "unblocked";

fn name(block: Option<Block>) -> &'static str {
    match block {
        Some(Block::All) => "block-all-sharing",
        Some(Block::New) => "block-new-sharing",
        None => NONE,
    }
}

fn set(world: &mut World, context: &Context, block: Option<Block>) -> String {
    let place = (context.account.clone(), context.region().to_owned());
    world.blocks.retain(|(known, _)| *known != place);
    world.blocks.extend(block.map(|block| (place, block)));
    context.response(|xml| xml.text("state", name(block)))
}

/// GetSnapshotBlockPublicAccessState.
pub struct Get;

impl Get {
    pub fn act(&self, context: &Context) -> String {
        let block = context.sim.world().block_public(&context.account, context.region());
        context.response(|xml| {
            xml.text("state", name(block));
            xml.text("managedBy", "account");
        })
    }
}

/// EnableSnapshotBlockPublicAccess.
pub struct Enable(Block);

impl Enable {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        match params.choice("State", &["block-all-sharing", "block-new-sharing"])?.as_deref() {
            None => Err(Ec2Error::missing("State")),
            Some("block-new-sharing") => Ok(Self(Block::New)),
            Some(_) => Ok(Self(Block::All)),
        }
    }

    pub fn act(&self, context: &Context) -> String {
        set(&mut context.sim.change(), context, Some(self.0))
    }
}

/// DisableSnapshotBlockPublicAccess.
pub struct Disable;

impl Disable {
    pub fn act(&self, context: &Context) -> String {
        set(&mut context.sim.change(), context, None)
    }
}
