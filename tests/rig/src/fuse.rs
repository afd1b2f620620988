//! A FUSE with one file, `disk`, that can stop answering: what is on it then hangs like a disk that is gone.
//!
//! Its source is any text: as for a user's own FUSE, the kernel does not look at it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A mounted one. Dropping it fails whatever still waits for it.
pub struct Fuse {
    at: PathBuf,
    silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Fuse {
    /// Mounts it with this source and, behind `disk`, a sparse file of `size` bytes.
    pub fn mount(at: &Path, source: &str, size: u64) -> Self {
        Self::of_user(at, source, size, 0)
    }

    /// The same, as if this user had mounted it.
    pub fn of_user(at: &Path, source: &str, size: u64, user: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id={user},group_id=0,allow_other");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(source), at, Some("fuse.any"), flags, Some(options.as_str())).unwrap();
        let disk = tempfile::tempfile_in(crate::MEMORY).unwrap();
        disk.set_len(size).unwrap();
        let (silent, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let served = Served { device, disk, size, silent: Arc::clone(&silent), ended: Arc::clone(&ended) };
        let server = Some(std::thread::spawn(move || served.serve()));
        Self { at: at.to_owned(), silent, ended, server }
    }

    /// The file.
    pub fn disk(&self) -> PathBuf {
        self.at.join("disk")
    }

    /// From now on nothing is answered.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // With the descriptor, the kernel ends the connection and everything that waits for it.
        let _ = self.server.take().unwrap().join();
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

struct Served {
    device: File,
    disk: File,
    size: u64,
    silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

const ROOT: u64 = 1;
const DISK: u64 = 2;

impl Served {
    fn serve(mut self) {
        let mut request = vec![0; 1 << 20];
        while !self.ended.load(Ordering::SeqCst) {
            let mut ready = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(100_u16)).unwrap_or(0) == 0 {
                continue;
            }
            let Ok(n) = self.device.read(&mut request) else { continue };
            if self.silent.load(Ordering::SeqCst) {
                continue;
            }
            let (opcode, unique) = (u32_at(&request, 4), u64_at(&request, 8));
            // FORGET, INTERRUPT and BATCH_FORGET have no answer.
            if matches!(opcode, 2 | 36 | 42) {
                continue;
            }
            let (error, body) = self.answer(opcode, u64_at(&request, 16), &request[40..n]);
            let mut reply = u32::try_from(16 + body.len()).unwrap().to_le_bytes().to_vec();
            reply.extend(error.to_le_bytes());
            reply.extend(unique.to_le_bytes());
            reply.extend(body);
            let _ = self.device.write(&reply);
        }
    }

    /// The error and the body of an answer (linux/fuse.h).
    fn answer(&self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        match opcode {
            // INIT: version 7.31, nothing negotiated, writes of 64 KiB at most.
            26 => {
                let mut out = Vec::new();
                for word in [7, 31, 1 << 16, 0, 10 << 16 | 12, 1 << 16, 1] {
                    out.extend(u32::to_le_bytes(word));
                }
                out.resize(64, 0);
                (0, out)
            }
            // LOOKUP
            1 if body.starts_with(b"disk\0") => {
                let mut out = DISK.to_le_bytes().to_vec();
                out.resize(40, 0);
                out.extend(self.attributes(DISK));
                (0, out)
            }
            1 => (-nix::libc::ENOENT, Vec::new()),
            // GETATTR and SETATTR: never to be cached.
            3 | 4 => {
                let mut out = vec![0; 16];
                out.extend(self.attributes(node));
                (0, out)
            }
            // OPEN and OPENDIR: past the page cache, so that each read is asked of us.
            14 | 27 => {
                let mut out = vec![0; 16];
                out[8] = 1;
                (0, out)
            }
            // READ
            15 => {
                let offset = u64_at(body, 8).min(self.size);
                let length = u64::from(u32_at(body, 16)).min(self.size - offset);
                let mut out = vec![0; usize::try_from(length).unwrap()];
                self.disk.read_exact_at(&mut out, offset).unwrap();
                (0, out)
            }
            // WRITE
            16 => {
                let data = &body[40..];
                self.disk.write_all_at(data, u64_at(body, 8)).unwrap();
                let mut out = u32::try_from(data.len()).unwrap().to_le_bytes().to_vec();
                out.resize(8, 0);
                (0, out)
            }
            // STATFS
            17 => (0, vec![0; 80]),
            // RELEASE, FSYNC, FLUSH, RELEASEDIR
            18 | 20 | 25 | 29 => (0, Vec::new()),
            _ => (-nix::libc::ENOSYS, Vec::new()),
        }
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = if node == ROOT {
            (nix::libc::S_IFDIR | 0o755, 0)
        } else {
            (nix::libc::S_IFREG | 0o644, self.size)
        };
        let mut out = Vec::new();
        for field in [node, size, size / 512, 0, 0, 0] {
            out.extend(u64::to_le_bytes(field));
        }
        for field in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            out.extend(u32::to_le_bytes(field));
        }
        out
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
