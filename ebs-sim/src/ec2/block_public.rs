//! Get-, Enable- and DisableSnapshotBlockPublicAccess…, and the same of images.
//!
//! In: a Region of an account. Out: whether its snapshots, or its images, can be shared with everybody. It must never
//! change the permissions that they have: what was public is so again when the block is taken away, and an image that
//! is public stays so.

use super::context::Context;
use super::error::Ec2Error;
use super::params::Params;
use crate::world::{Block, World};

const NONE: &str = "unblocked";
const NEW: &str = "block-new-sharing";

fn name(block: Option<Block>) -> &'static str {
    match block {
        Some(Block::All) => "block-all-sharing",
        Some(Block::New) => NEW,
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
        match params.choice("State", &["block-all-sharing", NEW])?.as_deref() {
            None => Err(Ec2Error::missing("State")),
            Some(NEW) => Ok(Self(Block::New)),
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

fn set_images(world: &mut World, context: &Context, block: bool) -> String {
    let place = (context.account.clone(), context.region().to_owned());
    world.image_blocks.retain(|known| *known != place);
    world.image_blocks.extend(block.then_some(place));
    context.response(|xml| xml.text("imageBlockPublicAccessState", if block { NEW } else { NONE }))
}

/// GetImageBlockPublicAccessState.
pub struct GetOfImages;

impl GetOfImages {
    pub fn act(&self, context: &Context) -> String {
        let blocked = context.sim.world().blocks_public_images(&context.account, context.region());
        context.response(|xml| {
            xml.text("imageBlockPublicAccessState", if blocked { NEW } else { NONE });
            xml.text("managedBy", "account");
        })
    }
}

/// EnableImageBlockPublicAccess. EC2 may take 10 minutes for it; here it is done at once.
pub struct EnableOfImages;

impl EnableOfImages {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        match params.choice("ImageBlockPublicAccessState", &[NEW])? {
            None => Err(Ec2Error::missing("ImageBlockPublicAccessState")),
            Some(_) => Ok(Self),
        }
    }

    pub fn act(&self, context: &Context) -> String {
        set_images(&mut context.sim.change(), context, true)
    }
}

/// DisableImageBlockPublicAccess.
pub struct DisableOfImages;

impl DisableOfImages {
    pub fn act(&self, context: &Context) -> String {
        set_images(&mut context.sim.change(), context, false)
    }
}
