//! What others can see of the devices: `ebs-sim.json` and the view.
//!
//! In: the world, after a device came or went. Out: the file and the view as they must be now. They must
//! never show a device that has gone for longer than it takes to write them.

use std::path::PathBuf;

use crate::ready::{self, Launched, Ready, Volume};
use crate::view::{self, Live};

/// What there is could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view could not be changed.
    #[error(transparent)]
    View(#[from] view::Error),
    /// `ebs-sim.json` could not be written.
    #[error(transparent)]
    Ready(#[from] ready::Error),
}

/// Keeps both up to date.
#[derive(Debug)]
pub struct Publisher {
    dir: PathBuf,
    ready: Ready,
    view: Live,
}

impl Publisher {
    /// Announces a simulation for the first time.
    pub fn new(dir: PathBuf, ready: Ready, view: Live) -> Result<Self, Error> {
        let mut publisher = Self { dir, ready, view };
        publisher.write()?;
        Ok(publisher)
    }

    /// Shows the devices that there are now.
    pub fn update(&mut self, volumes: Vec<Volume>, launched: Vec<Launched>) -> Result<(), Error> {
        self.ready.volumes = volumes;
        self.ready.launched = launched;
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        // Whoever finds a device in the file looks for it in the view next: the view comes first.
        self.view.update(&self.ready.volumes)?;
        self.ready.write(&self.dir)?;
        Ok(())
    }
}
