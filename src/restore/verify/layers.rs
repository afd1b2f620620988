//! From volumes to all that begins on them: partitions, arrays, logical volumes, filesystems and their journals.
//!
//! ```text
//! volumes ─▶ queue ─▶ what begins there ─┬▶ filesystems, journals, what is not read
//!              ▲                         ├▶ partitions ──────────────────────────┐
//!              │                         └▶ md members, PVs ─▶ arrays, then LVs ─┤
//!              └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! In: bytes of volumes, by [`Source`]s. Out: [`Here`]s, and the blocks that are damaged. Must never: assemble or
//! activate anything, look deeper or at more devices than said here, or take what it did not read for nothing.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use super::device::{Device, On, Piece};
use super::partitions::{ReadError, Source, parts};
use super::{Seen, State, btrfs, ext4, luks, lvm, md, vfat, xfs};
use crate::ec2::Ec2Error;

/// Partitions of arrays of partitions: nobody has more layers over each other.
const DEEPEST: usize = 5;
/// Devices that are looked at: volumes, partitions, arrays and logical volumes.
const MOST: usize = 512;

/// What begins somewhere.
#[derive(Debug)]
pub(super) enum Kind {
    Filesystem {
        fstype: &'static str,
        seen: Seen,
        /// Of btrfs: its generation, and how many devices it has.
        generation: Option<(u64, u64)>,
    },
    /// In a sentence: what is in it is not read here.
    Unread(String),
    /// In a sentence: a layer contradicts itself.
    Damaged(String),
}

/// What begins somewhere, and the volumes that it is on.
#[derive(Debug)]
pub(super) struct Here {
    pub kind: Kind,
    pub on: BTreeSet<usize>,
    /// The device, where it is one piece of one volume.
    pub piece: Option<Piece>,
}

/// What was found on all volumes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub here: Vec<Here>,
    /// Volume and place of each block that is damaged. Nothing more was read of that volume.
    pub damaged: Vec<(usize, u64)>,
}

/// What a device is, which says what may begin on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Whole,
    Partition,
    Logical,
}

struct Waiting {
    device: Rc<Device>,
    is: Is,
    depth: usize,
}

/// A journal of its own, or a filesystem that has one elsewhere.
enum Apart {
    /// The filesystem of this number in `here` has the ext4 journal with this UUID.
    WantsJournal(usize, String),
    Journal(String, State),
    /// The XFS of this number, with this UUID, has a log of so many basic blocks.
    WantsLog(usize, String, u64),
    Log(String, Rc<Device>),
}

struct Looking<'r, S> {
    readers: &'r mut [Option<S>],
    queue: VecDeque<Waiting>,
    members: Vec<(Rc<Device>, md::Member)>,
    pvs: Vec<(Rc<Device>, lvm::Pv)>,
    apart: Vec<Apart>,
    found: Found,
    looked: usize,
}

/// Looks at volumes of these sizes. A volume that could not be opened is none.
///
/// # Errors
/// When EC2 does not give the data.
pub(super) async fn look<S: Source>(readers: &mut [Option<S>], sizes: &[u64]) -> Result<Found, Ec2Error> {
    let whole = |(volume, size): (usize, &u64)| Waiting {
        device: Rc::new(Device::Volume { volume, size: *size }),
        is: Is::Whole,
        depth: 0,
    };
    let mut looking = Looking {
        readers,
        queue: sizes.iter().enumerate().map(whole).collect(),
        members: Vec::new(),
        pvs: Vec::new(),
        apart: Vec::new(),
        found: Found::default(),
        looked: 0,
    };
    let mut depth = 0;
    loop {
        while let Some(next) = looking.queue.pop_front() {
            depth = depth.max(next.depth);
            looking.device(&next).await?;
        }
        if !looking.arrays(depth + 1) && !looking.groups(depth + 1) {
            break;
        }
    }
    looking.journals().await?;
    Ok(looking.found)
}

impl<S: Source> Looking<'_, S> {
    fn on(&mut self, device: &Rc<Device>) -> On<'_, S> {
        On { readers: self.readers, device: Rc::clone(device) }
    }

    fn here(&mut self, device: &Device, kind: Kind) {
        self.found.here.push(Here { kind, on: device.volumes(), piece: device.piece() });
    }

    /// What came of a read: none where the device cannot be read, which is noted where that is a fault.
    fn read<T>(&mut self, said: Result<T, ReadError>) -> Result<Option<T>, Ec2Error> {
        match said {
            Ok(value) => Ok(Some(value)),
            Err(ReadError::Ec2(e)) => Err(e),
            Err(ReadError::DamagedOn(volume, at)) => {
                self.found.damaged.push((volume, at));
                if let Some(reader) = self.readers.get_mut(volume) {
                    *reader = None;
                }
                Ok(None)
            }
            Err(ReadError::Damaged(_) | ReadError::Beyond | ReadError::NotThere) => Ok(None),
        }
    }

    fn add(&mut self, device: Rc<Device>, is: Is, depth: usize) {
        if depth <= DEEPEST && self.looked + self.queue.len() < MOST {
            self.queue.push_back(Waiting { device, is, depth });
        } else {
            let what = "it may be on one of more devices, or deeper layers, than are looked at here";
            self.here(&device, Kind::Unread(what.to_owned()));
        }
    }

    async fn device(&mut self, next: &Waiting) -> Result<(), Ec2Error> {
        self.looked += 1;
        let Waiting { device, is, depth } = next;
        let size = device.size();
        let tables = if *is == Is::Whole { parts(&mut self.on(device), size).await } else { Ok(Vec::new()) };
        let Some(tables) = self.read(tables)? else { return Ok(()) };
        if *is != Is::Logical {
            // A superblock at the end of a disk with partitions may be that of its last one.
            let member = md::read(&mut self.on(device), size, tables.is_empty()).await;
            match self.read(member)? {
                None => return Ok(()),
                Some(Some(md::Found::Member(member))) => {
                    self.members.push((Rc::clone(device), member));
                    return Ok(());
                }
                Some(Some(md::Found::Damaged(what))) => self.here(device, Kind::Damaged(what)),
                Some(None) => {}
            }
            let pv = lvm::read(&mut self.on(device)).await;
            match self.read(pv)? {
                None => return Ok(()),
                Some(Some(lvm::Found::Pv(pv))) => {
                    self.pvs.push((Rc::clone(device), pv));
                    return Ok(());
                }
                Some(Some(lvm::Found::Damaged(what))) => self.here(device, Kind::Damaged(what)),
                Some(None) => {}
            }
        }
        if self.filesystem(device).await? {
            return Ok(());
        }
        for (at, length) in tables {
            // A table is believed only as far as its device goes.
            if let Some(part) = device.part(at, length.min(size.saturating_sub(at))) {
                self.add(part, Is::Partition, depth + 1);
            }
        }
        Ok(())
    }

    /// What begins with the device. True where it is one that has no partitions for sure.
    async fn filesystem(&mut self, device: &Rc<Device>) -> Result<bool, Ec2Error> {
        let size = device.size();
        let number = self.found.here.len();
        let filesystem = |fstype, seen| Kind::Filesystem { fstype, seen, generation: None };
        let sb = head(&mut self.on(device), ext4::AT).await;
        let Some(sb) = self.read(sb)? else { return Ok(false) };
        match ext4::read(&sb) {
            Some(ext4::Found::Filesystem { seen, journal }) => {
                self.apart.extend(journal.map(|uuid| Apart::WantsJournal(number, uuid)));
                self.here(device, filesystem("ext4", seen));
                return Ok(false);
            }
            Some(ext4::Found::Journal { uuid, at }) => {
                let journal = head(&mut self.on(device), (at, 1024)).await;
                let Some(journal) = self.read(journal)? else { return Ok(false) };
                self.apart.push(Apart::Journal(uuid, ext4::journal(&journal)));
                return Ok(true);
            }
            None => {}
        }
        let read = xfs::read(&mut self.on(device)).await;
        match self.read(read)? {
            Some(Some(xfs::Xfs { seen, log_apart })) => {
                self.apart.extend(log_apart.map(|n| Apart::WantsLog(number, seen.uuid.clone(), n)));
                self.here(device, filesystem("xfs", seen));
                return Ok(false);
            }
            Some(None) => {}
            None => return Ok(false),
        }
        let sb = head(&mut self.on(device), btrfs::AT).await;
        let Some(sb) = self.read(sb)? else { return Ok(false) };
        if let Some((seen, generation, devices)) = btrfs::read(&sb) {
            let generation = Some((generation, devices));
            self.here(device, Kind::Filesystem { fstype: "btrfs", seen, generation });
            return Ok(false);
        }
        let fat = vfat::read(&mut self.on(device), size).await;
        if let Some(seen) = self.read(fat)?.flatten() {
            self.here(device, filesystem("vfat", seen));
            // Its boot code is where a table would be.
            return Ok(true);
        }
        let header = luks::read(&mut self.on(device)).await;
        match self.read(header)?.flatten() {
            Some(luks::Header::Good(name)) => {
                let what =
                    format!("it is in {name}, which cannot be read without its key; the header is sound");
                self.here(device, Kind::Unread(what));
                return Ok(true);
            }
            Some(luks::Header::Damaged(what)) => {
                self.here(device, Kind::Damaged(what));
                return Ok(true);
            }
            None => {}
        }
        let log = head(&mut self.on(device), xfs::LOG).await;
        if let Some(uuid) = self.read(log)?.and_then(|log| xfs::log_of(&log)) {
            self.apart.push(Apart::Log(uuid, Rc::clone(device)));
        }
        Ok(false)
    }

    /// The arrays of the members that were found. False where there is none.
    fn arrays(&mut self, depth: usize) -> bool {
        let members = std::mem::take(&mut self.members);
        for array in md::arrays(&members) {
            let of = |on: &[Rc<Device>]| on.iter().flat_map(|d| d.volumes()).collect();
            match array {
                md::Array::Read(device) => self.add(device, Is::Whole, depth),
                md::Array::Unread(name, on) => {
                    let what = format!("it is on {name} which is not read here");
                    self.found.here.push(Here { kind: Kind::Unread(what), on: of(&on), piece: None });
                }
                md::Array::Damaged(what, on) => {
                    self.found.here.push(Here { kind: Kind::Damaged(what), on: of(&on), piece: None });
                }
            }
        }
        !members.is_empty()
    }

    /// The logical volumes of the PVs that were found. False where there is none.
    fn groups(&mut self, depth: usize) -> bool {
        let pvs = std::mem::take(&mut self.pvs);
        for group in lvm::groups(&pvs) {
            let on: BTreeSet<usize> = group.on.iter().flat_map(|d| d.volumes()).collect();
            let mut unread = Vec::new();
            for lvm::Lv { name, device } in group.volumes {
                match device {
                    Ok(device) => self.add(device, Is::Logical, depth),
                    Err(why) => unread.push(format!("{name} ({why})")),
                }
            }
            if !unread.is_empty() {
                let more = unread.len().saturating_sub(3);
                unread.truncate(3);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let what =
                    format!("it may be in {}{more}, which LVM has not been asked for", unread.join(", "));
                self.found.here.push(Here { kind: Kind::Unread(what), on, piece: None });
            }
        }
        !pvs.is_empty()
    }

    /// Journals and logs that are on devices of their own, for the filesystems that have them.
    async fn journals(&mut self) -> Result<(), Ec2Error> {
        let apart = std::mem::take(&mut self.apart);
        for wants in &apart {
            let (number, state) = match wants {
                Apart::WantsJournal(number, wanted) => {
                    let there = apart.iter().find_map(|a| match a {
                        Apart::Journal(uuid, state) if uuid == wanted => Some(state.clone()),
                        _ => None,
                    });
                    let none = || State::Unknown(format!("its journal {wanted} was not found"));
                    (*number, there.unwrap_or_else(none))
                }
                Apart::WantsLog(number, wanted, blocks) => {
                    let there = apart.iter().find_map(|a| match a {
                        Apart::Log(uuid, device) if uuid == wanted => Some(Rc::clone(device)),
                        _ => None,
                    });
                    let none =
                        || State::Unknown("its log, which is on another device, was not found".to_owned());
                    let state = match there {
                        None => none(),
                        Some(device) => {
                            let read = xfs::log(&mut self.on(&device), *blocks).await;
                            self.read(read)?.unwrap_or_else(none)
                        }
                    };
                    (*number, state)
                }
                Apart::Journal(..) | Apart::Log(..) => continue,
            };
            if let Some(Here { kind: Kind::Filesystem { seen, .. }, .. }) = self.found.here.get_mut(number)
                && seen.state.weight() < state.weight()
            {
                seen.state = state;
            }
        }
        Ok(())
    }
}

/// A part of a device; nothing where the device is smaller.
async fn head<S: Source>(source: &mut S, (at, length): (u64, usize)) -> Result<Vec<u8>, ReadError> {
    match source.read(at, length).await {
        Err(ReadError::Beyond) => Ok(Vec::new()),
        read => read,
    }
}
