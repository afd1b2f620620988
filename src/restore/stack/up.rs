//! Stacks are put together, from the disks up.
//!
//! ```text
//! bottoms ─▶ queue ─▶ what is it a part of? ─┬▶ nothing of these: a filesystem may be on it ─▶ tops
//!              ▲                             ├▶ LUKS ─────────────▶ opened ──────────────┐
//!              │                             ├▶ arrays, when all members are here ───────┤
//!              │                             └▶ groups, when all physical volumes are ───┤
//!              └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What stands already is taken as it is: the same plan can be carried out again after a crash or a reboot.
//!
//! In: a record whose disks are here. Out: the device of each filesystem. Must never: put anything on a layer that is not
//! whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::keys::Keys;
use super::planned::{StackPlan, Top, TopKind};
use super::{look, luks, lvm, md};
use crate::clock::Clock;
use crate::host::block::BlockDevice;
use crate::ids::VolumeId;
use crate::path_encoding::shown;
use crate::restore::carry_out::Here;
use crate::restore::disks;
use crate::restore::hide;
use crate::restore::record::Record;
use crate::restore::verify::part::{self, Part, Pv};

/// Whoever puts them together.
pub(in crate::restore) struct Up<'a, 'r> {
    pub record: &'r mut Record,
    /// The volumes, in the plan's order.
    pub ids: &'a [VolumeId],
    pub on: Here<'a>,
    pub clock: &'a dyn Clock,
    pub tell: &'a dyn Fn(&str),
    pub keys: &'a Keys,
}

/// A device, and where it is: by what does not change when identities do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub device: BlockDevice,
    pub place: String,
    pub volumes: BTreeSet<usize>,
}

/// What a filesystem is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Standing {
    /// Its device; of several, one.
    pub device: BlockDevice,
    /// The others.
    pub others: Vec<BlockDevice>,
}

/// What is done about a layer that is not whole.
struct Failing {
    /// Nothing more is put together.
    strict: bool,
    /// The volumes below each that is not, and why.
    failed: Vec<(BTreeSet<usize>, String)>,
}

impl Failing {
    /// None where it failed, and others are gone on with.
    fn noted<T>(&mut self, volumes: &BTreeSet<usize>, made: Result<T, String>) -> Result<Option<T>, String> {
        match made {
            Err(why) if !self.strict => {
                self.failed.push((volumes.clone(), why));
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    /// Why a filesystem on these volumes is not there, where it is for a layer below: the lowest is the first.
    fn below(&self, volumes: &BTreeSet<usize>) -> Option<String> {
        let on = |(of, _): &&(BTreeSet<usize>, String)| !of.is_disjoint(volumes);
        self.failed.iter().find(on).map(|(_, why)| why.clone())
    }
}

/// The volumes that these are on.
fn of<'p>(pieces: impl IntoIterator<Item = &'p Piece>) -> BTreeSet<usize> {
    pieces.into_iter().flat_map(|p| p.volumes.iter().copied()).collect()
}

impl Up<'_, '_> {
    pub(super) fn plan(&self) -> &StackPlan {
        &self.record.plan.stack
    }

    /// Writes down what is to be made.
    pub(super) fn note(&self) -> Result<(), String> {
        let written = self.record.write(self.on.state_dir);
        written.map_err(|e| format!("cannot write down what is put together: {e}"))
    }

    /// Puts everything together, and returns what each stacked filesystem is on, by its number.
    ///
    /// # Errors
    /// The layer that could not be: nothing more is tried then.
    pub async fn all(self) -> Result<BTreeMap<usize, Standing>, String> {
        let standing = self.put(Failing { strict: true, failed: Vec::new() }).await?;
        standing.into_iter().map(|(number, found)| Ok((number, found?))).collect()
    }

    /// The same where one layer that could not be does not keep the others from it: what a filesystem is on, or why that is
    /// not there.
    ///
    /// # Errors
    /// What keeps all of it from being put together.
    pub async fn each(self) -> Result<BTreeMap<usize, Result<Standing, String>>, String> {
        self.put(Failing { strict: false, failed: Vec::new() }).await
    }

    async fn put(
        mut self,
        mut failing: Failing,
    ) -> Result<BTreeMap<usize, Result<Standing, String>>, String> {
        if self.plan().is_empty() {
            return Ok(BTreeMap::new());
        }
        self.hide().await?;
        let mut queue = VecDeque::new();
        for bottom in self.plan().bottoms.clone() {
            let volume = self.ids.get(bottom.volume).ok_or("its volume is not known")?;
            let found = disks::await_partition(self.on.root, volume, bottom.partition, self.clock).await;
            let source = &self.record.plan.volumes[bottom.volume].source;
            let part = bottom.partition.map_or_else(String::new, |n| format!("-part{n}"));
            // One filesystem may be on a whole disk, another one of the group on a partition.
            let Ok(device) = found else { continue };
            queue.push_back(Piece {
                device,
                place: format!("{source}{part}"),
                volumes: BTreeSet::from([bottom.volume]),
            });
        }
        let (mut tops, mut members, mut pvs) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            while let Some(piece) = queue.pop_front() {
                let part = part::of(&piece.device).await;
                match failing.noted(&piece.volumes, part)? {
                    None => {}
                    Some(Part::Array(member)) if self.plan().arrays => members.push((piece, member)),
                    Some(Part::Luks) if self.plan().luks => {
                        let opened = luks::up(&mut self, &piece).await;
                        queue.extend(failing.noted(&piece.volumes, opened)?);
                    }
                    Some(Part::Group(pv)) if !self.plan().groups.is_empty() => pvs.push((piece, pv)),
                    Some(_) => tops.push(piece),
                }
            }
            let volumes = of(members.iter().map(|(piece, _)| piece));
            let arrays = md::arrays(std::mem::take(&mut members));
            for array in failing.noted(&volumes, arrays)?.unwrap_or_default() {
                let made = md::up(&mut self, &array).await;
                queue.extend(failing.noted(&of(&array), made)?);
            }
            // A group may be on all of the others.
            if queue.is_empty() {
                let pvs = std::mem::take(&mut pvs);
                for (group, planned) in self.plan().groups.clone() {
                    let made = lvm::up(&mut self, &group, &planned, &pvs).await;
                    let is = |pv: &Pv| {
                        pv.group.as_ref().is_some_and(|g| [&group, &planned.name].contains(&&g.name))
                    };
                    let volumes = of(pvs.iter().filter(|(_, pv)| is(pv)).map(|(piece, _)| piece));
                    queue.extend(failing.noted(&volumes, made)?.unwrap_or_default());
                }
            }
            if queue.is_empty() {
                break;
            }
        }
        let mut standing = BTreeMap::new();
        for (number, top) in self.plan().tops.clone() {
            let found = self.find(number, &top, &tops).await;
            let place = &self.record.plan.filesystems[number].source;
            let found = match found {
                Err(why) if failing.strict => return Err(format!("{}: {why}", shown(place))),
                // What lies on a layer that is not whole is not there for that reason.
                found => found.map_err(|why| failing.below(&top.volumes).unwrap_or(why)),
            };
            standing.insert(number, found);
        }
        Ok(standing)
    }

    /// Hides what is put together, as far as it is noted.
    pub(super) async fn hide(&self) -> Result<(), String> {
        let arrays: Vec<u32> = self.record.stack.arrays.values().map(|a| a.number).collect();
        let (id, mark) = (&self.record.plan.id, &self.plan().mark);
        let hidden = hide::hide_stack(self.on.root, id, mark, &arrays).await;
        hidden.map_err(|e| format!("what is put together cannot be hidden from this host: {e}"))
    }

    /// The device that this filesystem is on.
    async fn find(&mut self, number: usize, top: &Top, tops: &[Piece]) -> Result<Standing, String> {
        let filesystem = &self.record.plan.filesystems[number];
        let (fstype, uuid) = (filesystem.fstype.clone(), filesystem.uuid.clone());
        let kind = |piece: &&Piece| match &top.kind {
            TopKind::Logical { group, volume } => piece.place == lvm::place(group, volume),
            TopKind::Luks => piece.place.starts_with("luks:"),
            TopKind::Array => piece.place.starts_with("md:"),
            TopKind::Members => true,
        };
        let noted = self.record.stack.found.get(&number).cloned();
        let mut found = Vec::new();
        for piece in tops.iter().filter(kind).filter(|p| p.volumes.is_subset(&top.volumes)) {
            let is = match &noted {
                Some(noted) => noted.split(' ').any(|n| n == piece.place),
                None => {
                    let read = disks::uuid(&piece.device, &fstype)?;
                    read.is_some() && (uuid.is_none() || read == uuid)
                }
            };
            if is {
                found.push(piece);
            }
        }
        let all = found.iter().flat_map(|p| p.volumes.iter().copied()).collect::<BTreeSet<_>>();
        let wanted = match (&top.kind, found.first()) {
            (TopKind::Members, Some(first)) => part::devices_of_btrfs(&first.device).await?,
            _ => 1,
        };
        if found.len() != wanted || all != top.volumes {
            let what = uuid.map_or_else(|| fstype.clone(), |uuid| format!("{fstype} with the UUID {uuid}"));
            return Err(format!("{} of {wanted} devices with {what} are there", found.len()));
        }
        let places: Vec<&str> = found.iter().map(|p| p.place.as_str()).collect();
        self.record.stack.found.insert(number, places.join(" "));
        self.note()?;
        let mut devices = found.into_iter().map(|p| p.device.clone());
        let device = devices.next().ok_or("it is not there")?;
        Ok(Standing { device, others: devices.collect() })
    }

    /// What lies on this device already.
    pub(super) fn standing_on(&self, piece: &Piece) -> Result<Vec<BlockDevice>, String> {
        let all = look::all(self.on.root)?;
        Ok(look::directly_on(&all, &piece.device.name).into_iter().cloned().collect())
    }
}
