//! QEMU's NVMe disks introduce themselves as EBS.
//!
//! A guest reads who a controller is from a page of 4096 bytes (NVMe's Identify Controller), which QEMU keeps in its
//! heap and has no option for. Model, vendor and device name are written into it there, as Nitro has them: amazon-linux's
//! ebsnvme-id and nvme-cli read the name at byte 3072.
//!
//! In: QEMU's process while the guest stands still, a serial number. Out: the page changed. Must never: write where not
//! all of the page's own marks are found.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Where things are in the page, in bytes (NVMe base specification, Identify Controller).
const SERIAL: usize = 4;
const MODEL: usize = 24;
const FIRMWARE: usize = 64;
const VENDOR_AREA: usize = 3072;
const PAGE: usize = 4096;
/// Who QEMU says has made it.
const QEMU: [u8; 2] = 0x1b36_u16.to_le_bytes();
const AMAZON: [u8; 2] = 0x1d0f_u16.to_le_bytes();
/// The guest's memory is no heap, and has files behind it.
const LARGEST: u64 = 256 << 20;

/// Makes the disk with this serial number one of EBS, attached by this name.
///
/// # Errors
/// When its page is not found, or is there twice.
pub fn of_ebs(pid: i32, serial: &str, device_name: &str) -> Result<(), String> {
    let process = format!("/proc/{pid}");
    let maps = std::fs::read_to_string(format!("{process}/maps")).map_err(|e| e.to_string())?;
    let memory = File::options().read(true).write(true).open(format!("{process}/mem"));
    let memory = memory.map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for (from, to) in maps.lines().filter_map(heap) {
        let bytes = read(&memory, from, to).map_err(|e| e.to_string())?;
        found.extend(pages(&bytes, serial).into_iter().map(|at| from + at as u64));
    }
    let [page] = found[..] else {
        return Err(format!("its page is {} times in the memory of QEMU (process {pid})", found.len()));
    };
    for (at, bytes) in ebs(device_name) {
        memory.write_all_at(&bytes, page + at as u64).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// What is there of this memory. QEMU runs on meanwhile, and may give up the end of its heap.
fn read(memory: &File, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).map_err(std::io::Error::other)?];
    let mut done = 0;
    while let Ok(more @ 1..) = memory.read_at(&mut bytes[done..], from + done as u64) {
        done += more;
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// A line of /proc/PID/maps, when it is memory that the process has for itself.
fn heap(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let (permissions, inode) = (fields.next()?, fields.nth(2)?);
    let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    (permissions == "rw-p" && inode == "0" && to - from <= LARGEST).then_some((from, to))
}

/// Where in `bytes` pages begin that introduce QEMU's disk with this serial number. A page is aligned to words.
fn pages(bytes: &[u8], serial: &str) -> Vec<usize> {
    let mut marks = padded(serial, MODEL - SERIAL);
    marks.extend(padded("QEMU NVMe Ctrl", FIRMWARE - MODEL));
    let is_one = |begin: &usize| {
        let page = &bytes[*begin..*begin + PAGE];
        page[..2] == QEMU && page[SERIAL..FIRMWARE] == marks
    };
    (0..(bytes.len() + 1).saturating_sub(PAGE)).step_by(4).filter(is_one).collect()
}

/// What is written where.
fn ebs(device_name: &str) -> [(usize, Vec<u8>); 4] {
    [
        (0, [AMAZON, AMAZON].concat()),
        (MODEL, padded("Amazon Elastic Block Store", FIRMWARE - MODEL)),
        (FIRMWARE, padded("1.0", 8)),
        (VENDOR_AREA, padded(device_name, 32)),
    ]
}

/// NVMe pads its texts with spaces.
fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, b' ');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_page_of_qemus_is_one() {
        let serial = "vol0123456789abcdef0";
        let mut page = vec![0; PAGE];
        page[..2].copy_from_slice(&QEMU);
        page[SERIAL..MODEL].copy_from_slice(serial.as_bytes());
        page[MODEL..FIRMWARE].copy_from_slice(&padded("QEMU NVMe Ctrl", FIRMWARE - MODEL));
        let memory = [vec![7; 100], page.clone()].concat();
        assert_eq!(pages(&memory, serial), [100]);
        assert_eq!(pages(&memory, "vol0123456789abcdef1"), [0; 0]);
        assert_eq!(pages(&memory[..memory.len() - 1], serial), [0; 0], "it is cut off");
        for (at, bytes) in ebs("/dev/sdf") {
            page[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(&page[VENDOR_AREA..VENDOR_AREA + 9], b"/dev/sdf ");
        assert_eq!(&page[SERIAL..MODEL], serial.as_bytes(), "the serial number stays");
        assert_eq!(pages(&page, serial), [0; 0], "what has been changed is not changed again");
    }

    #[test]
    fn the_guests_memory_and_files_are_left_alone() {
        assert_eq!(heap("55e0-65e0 rw-p 00000000 00:00 0          [heap]"), Some((0x55e0, 0x65e0)));
        assert_eq!(heap("55e0-65e0 rw-s 00000000 00:01 42 /memfd:guest (deleted)"), None);
        assert_eq!(heap("55e0-65e0 rwxp 00000000 00:00 0"), None);
        assert_eq!(heap("0-10000001 rw-p 00000000 00:00 0"), None);
    }
}
