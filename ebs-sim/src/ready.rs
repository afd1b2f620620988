//! `ebs-sim.json`: how everything else finds a running ebs-sim.
//!
//! In: what serve made. Out: one JSON file, and the same back for the other commands. It must never be seen
//! half written, nor left behind by a serve that ended.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, InstanceId, VolumeId};
use crate::keys::Key;
use crate::scenario::VolumeKind;
use crate::world::World;

/// The file's name in DIR.
pub const FILE: &str = "ebs-sim.json";
/// Where the control API is, on the address in `control`.
pub const CONTROL: &str = "/_ebs-sim/";

/// The file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot understand {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Read { .. } => Some("is `ebs-sim serve` running with this --dir?".into()),
            Error::Write { .. } => None,
            Error::Parse { .. } => Some("was it written by another version of ebs-sim?".into()),
        }
    }
}

/// What a client needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    pub pid: u32,
    /// The folder it serves from.
    pub dir: PathBuf,
    /// EC2's URL.
    pub endpoint: String,
    /// EC2's URL with TLS.
    pub tls_endpoint: String,
    /// The authority that signed its certificate.
    pub ca_bundle: PathBuf,
    /// The control API's URL, which faults on connections do not concern.
    pub control: String,
    pub imds: String,
    pub region: String,
    pub availability_zone: String,
    pub account_id: String,
    pub instance_id: InstanceId,
    pub credentials: Credentials,
    /// The key of that account's root user, which neither denials nor a policy concern.
    pub admin_credentials: Credentials,
    /// Other accounts.
    pub accounts: Vec<Account>,
    /// What to set so that AWS's clients find it.
    pub env: BTreeMap<String, String>,
    /// The volumes that have a device, in the order of attachment.
    pub volumes: Vec<Volume>,
    /// The instances that were launched beside the one that this is.
    #[serde(default)]
    pub launched: Vec<Launched>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// `AKIA…`
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl Credentials {
    pub fn of(key: &Key) -> Self {
        Self { access_key_id: key.access_key_id.clone(), secret_access_key: key.secret_access_key.clone() }
    }
}

/// Another account, with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    pub id: String,
    pub credentials: Credentials,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its id. An instance-store disk has one too, which EC2 does not know.
    pub id: VolumeId,
    pub name: String,
    /// The attachment's device name.
    pub device_name: String,
    /// The device that stands for it.
    #[serde(rename = "loop")]
    pub loop_device: PathBuf,
    pub size_bytes: u64,
    /// How it looks to the instance.
    pub kind: VolumeKind,
    /// Whether it is the root volume.
    pub boot: bool,
    /// Where its window begins in the pool.
    pub offset: u64,
    /// The number of its disk in the view.
    pub disk: u32,
}

/// An instance that was launched, with its disks: what a guest of it can boot from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launched {
    pub instance_id: InstanceId,
    pub image_id: ImageId,
    /// As its image asks: `uefi` …
    pub boot_mode: Option<String>,
    /// The volumes that have a device, the root first.
    pub volumes: Vec<Volume>,
}

/// The volumes of the scenario's instance that have a device.
pub fn volumes(world: &World) -> Vec<Volume> {
    world.volumes.iter().filter_map(|volume| shown(volume, volume.boot, volume.disk?)).collect()
}

/// Those of an instance that was launched.
pub fn volumes_of(world: &World, id: &InstanceId) -> Vec<Volume> {
    let mut volumes: Vec<Volume> =
        world.attached_to(id).filter_map(|volume| shown(volume, world.is_root(volume), 0)).collect();
    // A guest's firmware looks for a system on its first disk first.
    volumes.sort_by_key(|volume| !volume.boot);
    for (disk, volume) in (0..).zip(&mut volumes) {
        volume.disk = disk;
    }
    volumes
}

/// The instances that were launched and are there still.
pub fn launched(world: &World) -> Vec<Launched> {
    let there = world.launches.iter().filter(|launch| launch.state.is_there());
    there
        .map(|launch| Launched {
            instance_id: launch.id.clone(),
            image_id: launch.image.id.clone(),
            boot_mode: launch.image.boot_mode.clone(),
            volumes: volumes_of(world, &launch.id),
        })
        .collect()
}

fn shown(volume: &crate::world::Volume, boot: bool, disk: u32) -> Option<Volume> {
    Some(Volume {
        id: volume.id.clone(),
        name: volume.name.clone(),
        device_name: volume.device_name.clone(),
        loop_device: volume.loop_device.clone()?,
        size_bytes: volume.size_bytes,
        kind: volume.kind,
        boot,
        offset: volume.window?.offset,
        disk,
    })
}

impl Ready {
    /// Reads DIR's file.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| Error::Parse { path, source })
    }

    /// The whole on one line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Writes DIR's file under another name and renames it, so that nobody reads half of it.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let partial = dir.join(format!(".{FILE}.new"));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)
            .and_then(|mut file| writeln!(file, "{}", self.to_line()))
            .and_then(|()| std::fs::rename(&partial, &path));
        written.map_err(|source| Error::Write { path, source })
    }
}
