//! Bytes of a snapshot, without a volume.
//!
//! In: a snapshot, the EBS direct APIs. Out: bytes; a block that was never written is zero. Must never: give data that
//! its checksum does not fit, or read a block twice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::partitions::{ReadError, Source};
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Blocks, Direct, SHORT_PAGE};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;

/// Blocks kept for the next read: superblock and log of a filesystem lie in few.
const KEPT: usize = 64;

/// What is known of the blocks of a snapshot that were written.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The token of each block that is known to be written.
    tokens: BTreeMap<u32, String>,
    /// From each of these on, all that is written up to the other is in `tokens`.
    listed: BTreeMap<u32, u32>,
}

impl Tokens {
    /// What a list that begins at this block has said.
    pub(super) fn add(&mut self, from: u32, page: Blocks) {
        let last = page.blocks.last().map_or(from, |(index, _)| *index);
        self.listed.insert(from, if page.more { last } else { u32::MAX });
        self.tokens.extend(page.blocks);
    }

    /// Is it known whether this block was written?
    pub(super) fn knows(&self, index: u32) -> bool {
        self.listed.range(..=index).any(|(_, to)| index <= *to)
    }

    /// The token of a block that was written.
    pub(super) fn of(&self, index: u32) -> Option<&str> {
        self.tokens.get(&index).map(String::as_str)
    }
}

pub(super) struct Reader<'a, D> {
    direct: &'a Repeating<'a, D>,
    id: SnapshotId,
    /// Of the volume, in bytes.
    pub(super) size: u64,
    block: u64,
    tokens: Tokens,
    kept: BTreeMap<u32, Vec<u8>>,
    /// Blocks that were read, of this and other snapshots.
    blocks_read: Rc<Cell<u64>>,
}

impl<'a, D: Direct> Reader<'a, D> {
    pub(super) async fn open(
        direct: &'a Repeating<'a, D>,
        id: &SnapshotId,
        blocks_read: Rc<Cell<u64>>,
    ) -> Result<Self, ReadError> {
        let mut reader = Self {
            direct,
            id: id.clone(),
            size: 0,
            block: 0,
            tokens: Tokens::default(),
            kept: BTreeMap::new(),
            blocks_read,
        };
        reader.list(0).await?;
        Ok(reader)
    }

    /// Lists what is written from this block on.
    async fn list(&mut self, from: u32) -> Result<(), ReadError> {
        let asked = async || self.direct.inner().blocks(&self.id, from, SHORT_PAGE).await;
        let page = self.direct.call("ListSnapshotBlocks", asked).await?;
        (self.size, self.block) = (page.volume_bytes, page.block_bytes);
        self.tokens.add(from, page);
        Ok(())
    }

    async fn load(&mut self, index: u32) -> Result<&[u8], ReadError> {
        if !self.kept.contains_key(&index) {
            if !self.tokens.knows(index) {
                self.list(index).await?;
            }
            let data = match self.tokens.of(index) {
                None => vec![0; usize::try_from(self.block).unwrap_or_default()],
                Some(token) => {
                    let data = fetch(self.direct, &self.id, index, token, self.block).await?;
                    self.blocks_read.set(self.blocks_read.get() + 1);
                    data.ok_or(ReadError::Damaged(u64::from(index) * self.block))?
                }
            };
            if self.kept.len() >= KEPT {
                self.kept.clear();
            }
            self.kept.insert(index, data);
        }
        Ok(self.kept.get(&index).map_or(&[], Vec::as_slice))
    }
}

/// The data of one block; none where it is not what its checksum is of, twice.
pub(super) async fn fetch<D: Direct>(
    direct: &Repeating<'_, D>,
    id: &SnapshotId,
    index: u32,
    token: &str,
    size: u64,
) -> Result<Option<Vec<u8>>, Ec2Error> {
    let asked = async || direct.inner().block(id, index, token).await;
    let mut block = direct.call("GetSnapshotBlock", asked).await?;
    if !block.fits {
        // It may have come to harm on its way.
        block = direct.call("GetSnapshotBlock", asked).await?;
    }
    Ok((block.fits && block.data.len() as u64 == size).then_some(block.data))
}

impl<D: Direct> Source for Reader<'_, D> {
    async fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.size).ok_or(ReadError::Beyond)?;
        let mut bytes = Vec::with_capacity(length);
        let mut at = at;
        while at < end {
            let size = self.block;
            let index = u32::try_from(at / size).map_err(|_| ReadError::Beyond)?;
            let (from, to) = (at % size, (end - at / size * size).min(size));
            let range = usize::try_from(from).unwrap_or_default()..usize::try_from(to).unwrap_or_default();
            let block = self.load(index).await?;
            bytes.extend_from_slice(block.get(range).ok_or(ReadError::Damaged(u64::from(index) * size))?);
            at += to - from;
        }
        Ok(bytes)
    }
}
