//! What is known of the volumes: blocks that came from EC2, and what was written over them.
//!
//! In: blocks, reads, writes. Out: bytes, or the blocks that are missing. Must never: hold more than its limit and
//! [`ALWAYS`] blocks, drop what was written, or give a byte that was neither fetched nor written.

use std::collections::BTreeMap;

/// What is written is kept in pieces of so many bytes.
pub(super) const PAGE: u64 = 4096;
/// So many blocks are kept whatever the limit is: a read may need several at once.
const ALWAYS: u64 = 64;

/// Why it cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Not {
    /// These blocks have to be fetched first.
    Missing(Vec<u32>),
    /// There is no more memory for what is written.
    Full,
    /// It would be behind the end.
    Beyond,
}

#[derive(Debug)]
struct Kept {
    /// None: it was never written, and is zero.
    data: Option<Vec<u8>>,
    used: u64,
}

#[derive(Debug, Default)]
struct Volume {
    size: u64,
    block: u64,
    blocks: BTreeMap<u32, Kept>,
    pages: BTreeMap<u64, Vec<u8>>,
}

/// All volumes of a set.
#[derive(Debug)]
pub(super) struct Store {
    volumes: Vec<Volume>,
    /// In bytes, of all that is kept.
    limit: u64,
    fetched: u64,
    written: u64,
    clock: u64,
}

impl Store {
    /// Of volumes with these sizes, in bytes, and these sizes of a block.
    pub fn new(volumes: &[(u64, u64)], limit: u64) -> Self {
        let volume = |(size, block): &(u64, u64)| Volume { size: *size, block: *block, ..Volume::default() };
        let volumes = volumes.iter().map(volume).collect();
        Self { volumes, limit, fetched: 0, written: 0, clock: 0 }
    }

    /// The size of a volume, in bytes.
    pub fn size(&self, volume: usize) -> u64 {
        self.volumes.get(volume).map_or(0, |v| v.size)
    }

    /// Is this block here?
    pub fn has(&self, volume: usize, index: u32) -> bool {
        self.volumes.get(volume).is_some_and(|v| v.blocks.contains_key(&index))
    }

    /// A block has come; none where it was never written. What was used least lately makes room for it.
    pub fn put(&mut self, volume: usize, index: u32, data: Option<Vec<u8>>) {
        self.clock += 1;
        let length = data.as_ref().map_or(0, |d| d.len() as u64);
        let Some(of) = self.volumes.get_mut(volume) else { return };
        let most = self.limit.saturating_sub(self.written).max(ALWAYS * of.block);
        let before = of.blocks.insert(index, Kept { data, used: self.clock });
        self.fetched += length;
        self.fetched -= before.and_then(|b| b.data).map_or(0, |d| d.len() as u64);
        self.drop_to(most);
    }

    /// Drops blocks until no more than so many bytes of them are kept.
    fn drop_to(&mut self, most: u64) {
        while self.fetched > most {
            let data = |(n, v): (usize, &Volume)| -> Option<(u64, usize, u32)> {
                let with = v.blocks.iter().filter(|(_, k)| k.data.is_some());
                with.map(|(index, k)| (k.used, n, *index)).min()
            };
            let Some((_, volume, index)) = self.volumes.iter().enumerate().filter_map(data).min() else {
                return;
            };
            let dropped = self.volumes.get_mut(volume).and_then(|v| v.blocks.remove(&index));
            self.fetched -= dropped.and_then(|k| k.data).map_or(0, |d| d.len() as u64);
        }
    }

    /// Bytes of a volume; fewer at its end.
    pub fn read(&mut self, volume: usize, at: u64, length: u64) -> Result<Vec<u8>, Not> {
        self.clock += 1;
        let clock = self.clock;
        let of = self.volumes.get_mut(volume).ok_or(Not::Beyond)?;
        let end = at.saturating_add(length).min(of.size);
        let missing = of.missing(at, end);
        if !missing.is_empty() {
            return Err(Not::Missing(missing));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let mut at = at;
        while at < end {
            let next = (at / PAGE + 1).saturating_mul(PAGE).min(end);
            of.copy(at, next, clock, &mut bytes).ok_or(Not::Beyond)?;
            at = next;
        }
        Ok(bytes)
    }

    /// Writes over it.
    pub fn write(&mut self, volume: usize, at: u64, data: &[u8]) -> Result<(), Not> {
        self.clock += 1;
        let clock = self.clock;
        let of = self.volumes.get_mut(volume).ok_or(Not::Beyond)?;
        let end = at.checked_add(data.len() as u64).filter(|end| *end <= of.size).ok_or(Not::Beyond)?;
        let pages = at / PAGE..end.div_ceil(PAGE);
        let new = pages.clone().filter(|page| !of.pages.contains_key(page)).count() as u64 * PAGE;
        if self.written + new > self.limit {
            return Err(Not::Full);
        }
        // A page of which only a part is written keeps the rest.
        let size = of.size;
        let whole = |page: u64| at <= page * PAGE && end >= ((page + 1) * PAGE).min(size);
        let part = pages.clone().filter(|page| !whole(*page));
        let mut missing: Vec<u32> =
            part.flat_map(|page| of.missing(page * PAGE, ((page + 1) * PAGE).min(of.size))).collect();
        missing.dedup();
        if !missing.is_empty() {
            return Err(Not::Missing(missing));
        }
        for page in pages {
            let (from, to) = (page * PAGE, ((page + 1) * PAGE).min(of.size));
            if !of.pages.contains_key(&page) {
                let mut before = Vec::with_capacity(usize::try_from(PAGE).unwrap_or_default());
                if whole(page) {
                    before.resize(usize::try_from(to - from).unwrap_or_default(), 0);
                } else {
                    of.copy(from, to, clock, &mut before).ok_or(Not::Beyond)?;
                }
                of.pages.insert(page, before);
                self.written += PAGE;
            }
            let (begin, stop) = (at.max(from), end.min(to));
            let range = |base: u64| {
                let place = |n: u64| usize::try_from(n - base).unwrap_or(usize::MAX);
                place(begin)..place(stop)
            };
            let target = of.pages.get_mut(&page).and_then(|p| p.get_mut(range(from)));
            target.zip(data.get(range(at))).ok_or(Not::Beyond).map(|(to, from)| to.copy_from_slice(from))?;
        }
        let most = self.limit.saturating_sub(self.written).max(ALWAYS * of.block);
        self.drop_to(most);
        Ok(())
    }
}

impl Volume {
    /// The blocks that are needed for these bytes, and are not here.
    fn missing(&self, at: u64, end: u64) -> Vec<u32> {
        let mut missing = Vec::new();
        for page in at / PAGE..end.div_ceil(PAGE) {
            let index = (page * PAGE).checked_div(self.block).and_then(|i| u32::try_from(i).ok());
            let Some(index) = index else { continue };
            if !self.pages.contains_key(&page)
                && !self.blocks.contains_key(&index)
                && missing.last() != Some(&index)
            {
                missing.push(index);
            }
        }
        missing
    }

    /// Adds these bytes, which are of one page; none where they are not here.
    fn copy(&mut self, at: u64, end: u64, clock: u64, to: &mut Vec<u8>) -> Option<()> {
        let range = |base: u64| Some(usize::try_from(at - base).ok()?..usize::try_from(end - base).ok()?);
        let page = at / PAGE;
        if let Some(written) = self.pages.get(&page) {
            to.extend_from_slice(written.get(range(page * PAGE)?)?);
            return Some(());
        }
        let index = at.checked_div(self.block)?;
        let kept = self.blocks.get_mut(&u32::try_from(index).ok()?)?;
        kept.used = clock;
        match &kept.data {
            Some(data) => to.extend_from_slice(data.get(range(index * self.block)?)?),
            None => to.resize(to.len() + usize::try_from(end - at).ok()?, 0),
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
