//! Which superblock an open file is on, by the kernel's mount id.
//!
//! In: an fd. Out: mountinfo's `major:minor`, the key that plans use. Must never: go by st_dev, which btrfs
//! and overlay make up.

use std::os::fd::AsFd;
use std::path::Path;

use super::fdinfo::FdInfo;
use super::mountinfo;
use crate::ids::DevNo;

/// The superblock of this file; none when it is on none that mountinfo lists (pipes, sockets, other
/// namespaces).
#[must_use]
pub fn of_fd(fd: impl AsFd) -> Option<DevNo> {
    in_table(fd, Path::new("/proc/self/mountinfo"))
}

fn in_table(fd: impl AsFd, table: &Path) -> Option<DevNo> {
    let id = FdInfo::of_fd(fd)?.mount()?;
    let lines = mountinfo::parse(&std::fs::read(table).ok()?).lines;
    lines.iter().find(|l| l.id == id).map(|l| l.dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_on_superblocks_and_sockets_are_not() {
        let folder = std::fs::File::open("/dev/shm").unwrap();
        let listed = mountinfo::parse(&std::fs::read("/proc/self/mountinfo").unwrap()).lines;
        let shm = listed.iter().rfind(|l| l.mount_point == std::path::Path::new("/dev/shm")).unwrap();
        assert_eq!(of_fd(&folder), Some(shm.dev));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(of_fd(&socket), None);
    }
}
