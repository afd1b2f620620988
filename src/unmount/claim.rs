//! The proof that a filesystem is unmounted: its devices are ours alone.
//!
//! In: devices. Out: [`Claim`]s, held from before the request until after the response. Must never: let go
//! of one before that, or open a device for writing (udev would look at it when it is closed).
//!
//! What a claim is: [`crate::host::device`].

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Device;
use crate::host::device;

/// How long a claim is repeated on EBUSY: udev or blkid may still have a device open that they looked at a
/// moment ago.
const PATIENCE: Duration = Duration::from_secs(1);

/// A device that nobody else can mount as long as this value exists.
#[derive(Debug)]
#[must_use = "dropping it lets others mount the device"]
pub struct Claim {
    _fd: OwnedFd,
}

/// Opens the device with O_EXCL, repeating that for [`PATIENCE`] while it is busy.
///
/// # Errors
/// EBUSY when it is mounted or otherwise held, ENXIO when its node is another device by now.
pub fn claim(device: &Device) -> nix::Result<Claim> {
    let end = Instant::now() + PATIENCE;
    loop {
        match device::open_at(&device.path, device.dev, OFlag::O_EXCL) {
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            said => return said.map(|fd| Claim { _fd: fd }),
        }
    }
}
