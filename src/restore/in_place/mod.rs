//! Data volumes in the place of those that a set was taken of, and back again.
//!
//! ```text
//! host.rs   what is mounted of the old volumes, who keeps it busy ─▶ a plan, or a refusal
//! exchange  stop units ─▶ recipe ─▶ unmount ─▶ claim ─▶ detach the old ─▶ attach the new by the same names
//!                                              ─▶ mount as it was ─▶ start units         (exchange.rs, both ways;
//! units.rs stops and starts, masks.rs keeps stopped, swap.rs detaches and attaches, can_come.rs looks before, users.rs
//! says who has a disk open, patience.rs how often a way is tried)
//! ```
//!
//! In: a plan of volumes, the volumes that are attached, what is mounted of them. Out: the same mounts, of other volumes;
//! the old ones are detached and kept. Must never: delete a volume, detach one of which something is mounted or in use,
//! or leave neither of the two in place while the other one could be.

mod can_come;
mod exchange;
mod host;
mod masks;
mod patience;
mod swap;
mod units;
mod users;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::can_come::could_go_back;
pub use self::exchange::{Unstarted, back, forth, settle, units_back};
pub use self::host::{Busy, There};
pub use self::masks::Masked;
pub use self::units::stopped_for;
pub use self::users::{A_MOMENT, nobody_has};

use super::options::MountOptions;
use super::plan::{Host, PlannedFilesystem, PlannedMount, Refusal, RestorePlan, no};
use crate::config::settings::Hook;
use crate::ec2::volumes::{IN_PLACE_TAG, VolumeView};
use crate::ids::VolumeId;
use crate::path_encoding::shown;
use crate::sets::layout::Layout;
use crate::sets::lines::SetFilesystem;
use crate::unmount::{Device, Recipe, Superblock, by_hand};

/// What is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlace {
    /// The volumes that go, in the order of [`RestorePlan::volumes`].
    pub old: Vec<Replaced>,
    /// Units that are stopped before, and started again.
    pub stop_units: Vec<String>,
}

/// A volume that another one is put in the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// It.
    pub volume: VolumeId,
    /// Its device name.
    pub device_name: String,
    /// It is deleted with the instance.
    pub delete_on_termination: bool,
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing of the old volumes was touched.
    #[default]
    Planned,
    /// The new ones are coming.
    Forth,
    /// They are in place.
    There,
    /// The old ones are coming back.
    Back,
    /// They are back. The new ones are detached, and kept.
    Returned,
}

impl Stage {
    /// The old volumes are not, or perhaps not, where they were.
    #[must_use]
    pub fn has_touched(self) -> bool {
        matches!(self, Self::Forth | Self::There | Self::Back)
    }
}

/// What is needed to finish an exchange, or to turn it round, by another process, or on another boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// How far it is.
    pub stage: Stage,
    /// The new volumes were in place when the way that is gone, or was gone last, was begun: where the old ones cannot
    /// come, they come back.
    #[serde(default)]
    pub from_there: bool,
    /// What was mounted.
    pub recipe: Recipe,
    /// That was of the new volumes.
    #[serde(default)]
    pub recipe_of_new: bool,
    /// Where each of the recipe's filesystems is: a number of a volume, and its partition; none for the whole disk.
    pub places: Vec<(usize, Option<u32>)>,
    /// The boot that the recipe is of.
    pub boot: Option<String>,
    /// Units that were stopped.
    pub stopped: Vec<Hook>,
    /// Units that were masked, so that nothing starts them.
    #[serde(default)]
    pub masked: Masked,
    /// The new volumes may have been attached, and so be mounted and written to.
    #[serde(default)]
    pub handed_over: bool,
    /// EC2 was asked to detach or attach something since the way was begun. Until then all are where they were.
    #[serde(default)]
    pub asked: bool,
    /// Tags and the like, on which nothing depends, are as they should be since it is where it is.
    #[serde(default)]
    pub settled: bool,
}

impl RestorePlan {
    /// The plan of volumes, made one of an exchange with those that are attached here. `attached` is what EC2 says of the
    /// volumes that the plan's are in the place of.
    ///
    /// # Errors
    /// Why they cannot be exchanged.
    pub fn in_place(
        mut self,
        host: &Host,
        attached: &[VolumeView],
        stop_units: &[String],
    ) -> Result<Self, Refusal> {
        let mut old = Vec::new();
        for planned in &mut self.volumes {
            let id = &planned.source;
            let found = attached.iter().find(|v| v.id == *id).map_or(&[][..], |v| &v.attachments);
            let attachment = match found {
                [one] if one.instance.as_ref() == Some(&host.id) && one.state == "attached" => one,
                [] => {
                    return no(
                        format!(
                            "{id} is not attached to {}: there is no place to put another one in",
                            host.id
                        ),
                        "leave --in-place out, and it is restored beside what is there",
                    );
                }
                [one] if one.instance.as_ref() == Some(&host.id) => {
                    return no(format!("{id} is {} just now", one.state), "try again when it is attached");
                }
                [one] => {
                    let who = one.instance.as_ref().map_or("another service", |i| i.as_str());
                    return no(format!("{id} is attached to {who}, not here"), "restore it there");
                }
                _ => {
                    return no(
                        format!("{id} is attached to several instances"),
                        "restore it beside what is there",
                    );
                }
            };
            planned.device_name = Some(attachment.device_name.clone());
            planned.tags.insert(0, (IN_PLACE_TAG.to_owned(), id.to_string()));
            planned.tags.truncate(super::plan::MOST_TAGS);
            old.push(Replaced {
                volume: id.clone(),
                device_name: attachment.device_name.clone(),
                delete_on_termination: attachment.delete_on_termination,
            });
        }
        let kept =
            |o: &Replaced| format!("{} is kept, detached, with what was written to it since", o.volume);
        self.notes.extend(old.iter().map(kept));
        self.instance = Some(host.id.clone());
        self.in_place = Some(InPlace { old, stop_units: stop_units.to_vec() });
        Ok(self)
    }

    /// The same, with what is mounted now. `layout` is what was mounted when the set was taken.
    ///
    /// # Errors
    /// What is mounted now and was not there then: its place would stay empty.
    pub fn with_mounts(mut self, there: &There, layout: &Layout) -> Result<Self, Refusal> {
        for ((filesystem, (number, _)), uuid) in
            there.recipe.filesystems.iter().zip(&there.places).zip(&there.uuids)
        {
            let volume = &self.volumes[*number].source;
            let same = |f: &&SetFilesystem| {
                let one = f.uuid.is_none() || uuid.is_none() || f.uuid == *uuid;
                f.volumes.contains(volume) && f.fstype == filesystem.fstype && one
            };
            if !layout.filesystems.iter().any(|f| same(&f)) {
                let of = there.recipe.mounts.iter().find(|m| there.recipe.filesystems[m.of] == *filesystem);
                let place = of.map_or_else(String::new, |m| shown(&m.mount_point));
                return no(
                    format!("{place} is a filesystem that was not on {volume} when the set was taken"),
                    format!("umount {place} first, or restore it beside what is there"),
                );
            }
        }
        self.to = PathBuf::from("/");
        let mounts = there.recipe.mounts.iter();
        self.filesystems = mounts
            .map(|mount| {
                let relative = mount.mount_point.strip_prefix("/").unwrap_or(&mount.mount_point).to_owned();
                PlannedFilesystem {
                    source: mount.mount_point.clone(),
                    fstype: there.recipe.filesystems[mount.of].fstype.clone(),
                    uuid: None,
                    volume: there.places[mount.of].0,
                    mounts: vec![PlannedMount { at: relative, root: mount.root.clone() }],
                    options: MountOptions { attributes: 0, filesystem: Vec::new(), left_out: Vec::new() },
                }
            })
            .collect();
        if self.filesystems.is_empty() {
            self.notes.push("nothing of the old volumes is mounted, and nothing will be".to_owned());
        }
        Ok(self)
    }
}

impl Moving {
    /// Units are stopped or masked, and whoever was to start them again is gone.
    #[must_use]
    pub fn keeps_units(&self) -> bool {
        !self.stopped.is_empty() || !self.masked.units.is_empty()
    }

    /// The new volumes are in place, or were when the way was begun that was not gone to its end.
    fn new_were_there(&self) -> bool {
        match self.stage {
            Stage::There => true,
            Stage::Forth | Stage::Back => self.from_there,
            Stage::Planned | Stage::Returned => false,
        }
    }

    /// The commands that mount by hand what was mounted, of these volumes: by links that udev makes of their ids.
    #[must_use]
    pub fn by_hand(&self, volumes: &[VolumeId]) -> Vec<String> {
        let of = |((number, partition), filesystem): (&(usize, Option<u32>), &Superblock)| {
            let volume = volumes.get(*number)?.as_str().replace('-', "");
            let part = partition.map_or_else(String::new, |n| format!("-part{n}"));
            let path = format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume}{part}").into();
            Some(Device { path, dev: filesystem.devices.first()?.dev })
        };
        let devices: Option<Vec<Device>> = self.places.iter().zip(&self.recipe.filesystems).map(of).collect();
        let moved = devices.and_then(|devices| self.recipe.moved(&devices));
        moved.iter().flat_map(|recipe| recipe.mounts.iter().map(|m| by_hand(recipe, m))).collect()
    }
}
