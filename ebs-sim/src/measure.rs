//! How much new snapshots hold, found out after the answer.
//!
//! In: snapshots whose images are complete. Out: their sizes in the world, and with a rate the time they
//! take. It must never be waited for by a request, nor hold a lock while it looks at the disk.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::host::extents::{self, Extent};
use crate::ids::SnapshotId;
use crate::sim::Sim;
use crate::world::{Image, Sizes};

/// Measures these snapshots. It looks at the disk: not for the threads that serve.
pub fn measure(sim: &Sim, ids: &[SnapshotId]) {
    let mut known = HashMap::new();
    for id in ids {
        let sizes = measure_one(sim, id, &mut known).unwrap_or_else(|error| {
            tracing::warn!("the size of {id} stays unknown: {error}");
            Sizes::Unknown
        });
        let mut world = sim.change();
        let world = &mut *world;
        let has_rate = world.scenario.snapshots.rate.is_some();
        // One that was put into the bin meanwhile may come back.
        if let Some(snapshot) = world.snapshots.get_mut(id).or_else(|| world.bin.get_mut(id)) {
            snapshot.sizes = sizes;
            if let Sizes::Known { changed, .. } = sizes
                && has_rate
                && snapshot.size_bytes > 0
            {
                // Until now it was taken to be all new.
                let part = changed as f64 / snapshot.size_bytes as f64;
                snapshot.takes = snapshot.takes.mul_f64(part.min(1.0));
            }
        }
    }
}

type Known = HashMap<PathBuf, Vec<Extent>>;

fn measure_one(sim: &Sim, id: &SnapshotId, known: &mut Known) -> Result<Sizes, crate::host::Error> {
    loop {
        let (image, before) = {
            let world = sim.world();
            let known = world.snapshots.get(id).or_else(|| world.bin.get(id));
            let Some(image) = known.and_then(|snapshot| snapshot.image.clone()) else {
                return Ok(Sizes::Unknown);
            };
            (image, world.previous(id).map(|previous| (previous.id.clone(), previous.image.clone())))
        };
        let now = pieces(&image, known)?;
        let old = match &before {
            Some((_, Some(old))) => pieces(old, known),
            _ => Ok(Vec::new()),
        };
        // An image is trimmed only after its snapshot was forgotten. As long as the snapshot is known, what
        // was read of the image was whole.
        let intact = match &before {
            None => true,
            Some((previous, _)) => {
                let world = sim.world();
                world.snapshots.get(previous).is_some_and(|previous| previous.later.listed_until.is_none())
            }
        };
        if !intact {
            known.clear();
            continue;
        }
        return Ok(Sizes::Known {
            full: extents::in_blocks(&now),
            changed: extents::in_blocks(&extents::changed(&now, &old?)),
        });
    }
}

/// The pieces of data in an image's window; the snapshots of a set have one file.
fn pieces(image: &Image, known: &mut Known) -> Result<Vec<Extent>, crate::host::Error> {
    if !known.contains_key(&image.path) {
        known.insert(image.path.clone(), extents::read(&image.path)?);
    }
    Ok(known.get(&image.path).map(|all| extents::within(all, image.window)).unwrap_or_default())
}
