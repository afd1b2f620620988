//! Blocks of a set's snapshots, from EC2 into the store.
//!
//! In: snapshots, the EBS direct APIs. Out: blocks in a [`Store`], whose checksums fit. Must never: list or fetch what is
//! here already.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::serve::Shared;
use super::store::{Not, Store};
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Direct, SHORT_PAGE};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;
use crate::restore::verify::partitions::{ReadError, Source};
use crate::restore::verify::reader::{self, Tokens};
use crate::sets::set::SnapshotSet;

/// All snapshots of a set, as volumes in the order of its members.
pub(super) struct Fetcher<'a, D> {
    direct: &'a Repeating<'a, D>,
    volumes: Vec<(SnapshotId, Mutex<Tokens>)>,
    /// Bytes of a block of each.
    blocks: Vec<u64>,
    shared: Arc<Shared>,
    fetched: Cell<u64>,
}

impl<'a, D: Direct> Fetcher<'a, D> {
    /// Lists the beginning of each snapshot. `limit`: see [`Store`].
    ///
    /// # Errors
    /// When EC2 does not say.
    pub async fn open(direct: &'a Repeating<'a, D>, set: &SnapshotSet, limit: u64) -> Result<Self, Ec2Error> {
        let (mut volumes, mut sizes) = (Vec::new(), Vec::new());
        for member in &set.members {
            let asked = async || direct.inner().blocks(&member.id, 0, SHORT_PAGE).await;
            let page = direct.call("ListSnapshotBlocks", asked).await?;
            sizes.push((page.volume_bytes, page.block_bytes));
            let mut tokens = Tokens::default();
            tokens.add(0, page);
            volumes.push((member.id.clone(), Mutex::new(tokens)));
        }
        let blocks = sizes.iter().map(|(_, block)| *block).collect();
        let shared = Arc::new(Shared::new(Store::new(&sizes, limit)));
        Ok(Self { direct, volumes, blocks, shared, fetched: Cell::new(0) })
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many there are.
    pub fn volumes(&self) -> usize {
        self.volumes.len()
    }

    /// Blocks that were fetched.
    pub fn fetched(&self) -> u64 {
        self.fetched.get()
    }

    /// Where a block begins, in bytes.
    pub fn place(&self, volume: usize, index: u32) -> u64 {
        self.blocks.get(volume).copied().unwrap_or_default().saturating_mul(u64::from(index))
    }

    /// Puts a block into the store. False: it is not what its checksum is of, twice.
    ///
    /// # Errors
    /// When EC2 does not give it.
    pub async fn fetch(&self, volume: usize, index: u32) -> Result<bool, Ec2Error> {
        let Some((id, tokens)) = self.volumes.get(volume) else { return Ok(false) };
        let token = {
            // One list at a time: the next block is in it, most often.
            let mut tokens = tokens.lock().await;
            if !tokens.knows(index) {
                let asked = async || self.direct.inner().blocks(id, index, SHORT_PAGE).await;
                let page = self.direct.call("ListSnapshotBlocks", asked).await?;
                tokens.add(index, page);
            }
            tokens.of(index).map(str::to_owned)
        };
        let data = match token {
            None => None,
            Some(token) => {
                let size = self.blocks.get(volume).copied().unwrap_or_default();
                let data = reader::fetch(self.direct, id, index, &token, size).await?;
                self.fetched.set(self.fetched.get() + 1);
                if data.is_none() {
                    return Ok(false);
                }
                data
            }
        };
        self.shared.store().put(volume, index, data);
        Ok(true)
    }
}

/// One of the volumes, for the probe.
pub(super) struct Probing<'f, 'a, D> {
    pub fetcher: &'f Fetcher<'a, D>,
    pub volume: usize,
}

impl<D: Direct> Source for Probing<'_, '_, D> {
    async fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let Self { fetcher, volume } = self;
        let end = at.checked_add(length as u64).filter(|end| *end <= fetcher.shared.store().size(*volume));
        end.ok_or(ReadError::Beyond)?;
        loop {
            let read = fetcher.shared.store().read(*volume, at, length as u64);
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(Not::Missing(blocks)) => {
                    for index in blocks {
                        if !fetcher.fetch(*volume, index).await? {
                            return Err(ReadError::Damaged(fetcher.place(*volume, index)));
                        }
                    }
                }
                Err(Not::Full | Not::Beyond) => return Err(ReadError::Beyond),
            }
        }
    }
}
