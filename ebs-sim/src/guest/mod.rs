//! A guest: a QEMU whose disks are the volumes.
//!
//! ```text
//! pool ─ window ─ loop ─ QEMU's host_device, O_DIRECT ─ nvme on a port ─ the guest's /dev/nvmeXn1
//! ```
//!
//! What a guest's write has been acknowledged for has gone through the loop device into the pool file: so one FICLONE of
//! the pool is one point in time for the guest, too, and nobody has to pause it for that.
//!
//! In: a QEMU's QMP socket, volumes that have a loop device. Out: disks that come and go in it, as EBS volumes do on
//! Nitro. Must never: put a disk of QEMU's looks before the guest's eyes, or give up a loop device that QEMU has open.

mod looks;
mod qmp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::ids::VolumeId;
use crate::ready::Volume;
use crate::scenario::VolumeKind;
use qmp::Qmp;

/// A guest could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no QEMU behind the socket any more.
    #[error("QEMU does not answer on {}", .0.display())]
    Gone(PathBuf, #[source] std::io::Error),
    /// QEMU answered, and said no.
    #[error("QEMU refused {command}: {why}")]
    Refused { command: String, why: String },
    /// All ports have disks.
    #[error("the guest has no free port: QEMU needs more `-device pcie-root-port,id=portN`")]
    NoPort,
    /// A kind of disk that QEMU's NVMe is not.
    #[error("{0} is not an NVMe EBS volume, and a guest has no others")]
    NotNvme(String),
    /// The page that a disk introduces itself with is not where it was looked for.
    #[error("the disk of {0} cannot be made to look like EBS: {1}")]
    Looks(String, String),
}

/// A QEMU, and which disk it has on which port.
#[derive(Debug)]
pub struct Guest {
    qmp: Qmp,
    ports: Vec<String>,
    plugged: BTreeMap<VolumeId, String>,
}

impl Guest {
    /// Takes a QEMU that was started with `-S` and has no disks yet.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let mut qmp = Qmp::connect(socket).await?;
        let ports =
            peripherals(&mut qmp).await?.into_iter().filter(|name| name.starts_with("port")).collect();
        Ok(Self { qmp, ports, plugged: BTreeMap::new() })
    }

    /// Has it begin anew. A disk that was plugged in before has no power until then: a kernel gives it some, but firmware
    /// that looks for a system to boot does not.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub async fn reset(&mut self) -> Result<(), Error> {
        self.qmp.execute("system_reset", json!({})).await.map(drop)
    }

    /// Lets its processors run.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.qmp.execute("cont", json!({})).await.map(drop)
    }

    /// Gives it a disk. Its processors stand still meanwhile, so that it never sees the disk as QEMU makes it.
    ///
    /// # Errors
    /// When it cannot have it; then it has nothing of it.
    pub async fn plug(&mut self, volume: &Volume) -> Result<(), Error> {
        if volume.kind != VolumeKind::Nvme {
            return Err(Error::NotNvme(volume.name.clone()));
        }
        let taken = |port: &&String| self.plugged.values().any(|taken| taken == *port);
        let port = self.ports.iter().find(|port| !taken(port)).cloned().ok_or(Error::NoPort)?;
        let status = self.qmp.execute("query-status", json!({})).await?;
        let runs = status["running"] == json!(true);
        if runs {
            self.qmp.execute("stop", json!({})).await?;
        }
        let plugged = self.put_on(volume, &port).await;
        if runs {
            self.qmp.execute("cont", json!({})).await?;
        }
        plugged?;
        self.plugged.insert(volume.id.clone(), port);
        Ok(())
    }

    async fn put_on(&mut self, volume: &Volume, port: &str) -> Result<(), Error> {
        let name = serial(&volume.id);
        let cache = json!({ "direct": true, "no-flush": true });
        let backend = json!({
            "driver": "raw",
            "node-name": name,
            "discard": "unmap",
            "cache": cache,
            "file": {
                "driver": "host_device",
                "filename": volume.loop_device,
                "discard": "unmap",
                "cache": cache,
            },
        });
        self.qmp.execute("blockdev-add", backend).await?;
        let device =
            json!({ "driver": "nvme", "id": disk(&volume.id), "drive": name, "serial": name, "bus": port });
        if let Err(error) = self.qmp.execute("device_add", device).await {
            self.qmp.execute("blockdev-del", json!({ "node-name": name })).await?;
            return Err(error);
        }
        looks::of_ebs(self.qmp.pid, &name, &volume.device_name)
            .map_err(|why| Error::Looks(volume.id.to_string(), why))
    }

    /// Takes a disk from it: asks, at first, and says whether it is gone by now. A guest that does not run, or is not
    /// as far yet, keeps it for the time being.
    ///
    /// # Errors
    /// When QEMU refuses. One that is gone has no disks.
    pub async fn pull(&mut self, volume: &VolumeId) -> Result<bool, Error> {
        if !self.plugged.contains_key(volume) {
            return Ok(true);
        }
        match self.take_off(volume).await {
            Ok(false) => Ok(false),
            Ok(true) | Err(Error::Gone(..)) => {
                self.plugged.remove(volume);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends it, as a power cut does. One that has ended by itself is as good.
    pub async fn quit(&mut self) {
        let _ = self.qmp.execute("quit", json!({})).await;
    }

    async fn take_off(&mut self, volume: &VolumeId) -> Result<bool, Error> {
        let disk = disk(volume);
        if peripherals(&mut self.qmp).await?.contains(&disk) {
            match self.qmp.execute("device_del", json!({ "id": disk })).await {
                // It was asked before, and has not answered yet.
                Ok(_) | Err(Error::Refused { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match self.qmp.execute("blockdev-del", json!({ "node-name": serial(volume) })).await {
            Ok(_) => Ok(true),
            // The disk has gone a moment ago, and QEMU has not put down yet what was behind it.
            Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The serial number of an EBS disk, and QEMU's name of what is behind it.
fn serial(volume: &VolumeId) -> String {
    volume.as_str().replace('-', "")
}

/// QEMU's name of the disk.
fn disk(volume: &VolumeId) -> String {
    format!("disk-{}", serial(volume))
}

/// The devices that QEMU has by a name.
async fn peripherals(qmp: &mut Qmp) -> Result<Vec<String>, Error> {
    let listed = qmp.execute("qom-list", json!({ "path": "/machine/peripheral" })).await?;
    let named = listed.as_array().into_iter().flatten();
    Ok(named.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
}

/// What the control API answers about it.
pub fn shown(guest: &Guest) -> Value {
    json!({ "pid": guest.qmp.pid, "disks": guest.plugged })
}
