//! `/etc/fstab`: what is to be mounted.
//!
//! In: the file's bytes. Out: an [`Entry`] for each line, and the lines that cannot be read. Must never:
//! follow a path or look for a device, or take a line that it cannot read for one that names nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::mountinfo::unescape;

/// One line (fstab(5)), its octal escapes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1.
    pub line: usize,
    /// What is mounted: a device, `UUID=…`, a server's share, any text.
    pub source: OsString,
    /// Where.
    pub mount_point: PathBuf,
    /// Its type.
    pub fstype: String,
    /// Its options.
    pub options: String,
}

/// Reads all lines. Also returns the numbers of those that cannot be read.
#[must_use]
pub fn parse(bytes: &[u8]) -> (Vec<Entry>, Vec<usize>) {
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let mut fields = line.split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|f| !f.is_empty());
        let Some(source) = fields.next().filter(|f| !f.starts_with(b"#")) else { continue };
        let (Some(mount_point), Some(fstype)) = (fields.next(), fields.next()) else {
            unread.push(i + 1);
            continue;
        };
        let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
        let mount_point = PathBuf::from(OsString::from_vec(unescape(mount_point)));
        entries.push(Entry {
            line: i + 1,
            source: OsString::from_vec(unescape(source)),
            // Repeated slashes and one at the end mean nothing.
            mount_point: mount_point.components().collect(),
            fstype: text(fstype),
            options: fields.next().map(text).unwrap_or_default(),
        });
    }
    (entries, unread)
}

impl Entry {
    /// Should something be mounted there once the host has started, or at the first access? Not swap, not
    /// `noauto`, and no second sight of what is mounted elsewhere (bind mounts).
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.mount_point.is_absolute()
            && self.fstype != "swap"
            && !has_option(&self.options, "bind")
            && !has_option(&self.options, "rbind")
            && (!has_option(&self.options, "noauto") || self.is_automount())
    }

    /// Is it mounted at the first access?
    #[must_use]
    pub fn is_automount(&self) -> bool {
        has_option(&self.options, "x-systemd.automount")
            || has_option(&self.options, "comment=systemd.automount")
    }

    /// May it be on another machine, though its source is a device (iSCSI)?
    #[must_use]
    pub fn is_remote(&self) -> bool {
        has_option(&self.options, "_netdev")
    }
}

/// Is this one of the options?
#[must_use]
pub fn has_option(options: &str, name: &str) -> bool {
    options.split(',').any(|o| o == name)
}

/// The path of the device that a source names; none when it names no device. A tag is a link that udev makes.
#[must_use]
pub fn device_path(source: &OsStr) -> Option<PathBuf> {
    let bytes = source.as_bytes();
    if bytes.starts_with(b"/dev/") {
        return Some(PathBuf::from(source));
    }
    let at = bytes.iter().position(|b| *b == b'=')?;
    let (tag, value) = (&bytes[..at], &bytes[at + 1..]);
    let folder = match tag {
        b"UUID" => "by-uuid",
        b"LABEL" => "by-label",
        b"PARTUUID" => "by-partuuid",
        b"PARTLABEL" => "by-partlabel",
        b"ID" => "by-id",
        _ => return None,
    };
    let quoted = [b'"', b'\''].iter().find_map(|q| value.strip_prefix(&[*q])?.strip_suffix(&[*q]));
    let name = link_name(quoted.unwrap_or(value));
    (!name.is_empty()).then(|| PathBuf::from("/dev/disk").join(folder).join(OsString::from_vec(name)))
}

/// As udev names the link: `encode_devnode_name` of systemd, which mount(8) and systemd's generator follow
/// too.
fn link_name(value: &[u8]) -> Vec<u8> {
    let is_text = std::str::from_utf8(value).is_ok();
    let mut name = Vec::with_capacity(value.len());
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(byte) || (is_text && !byte.is_ascii()) {
            name.push(*byte);
        } else {
            name.extend(format!("\\x{byte:02x}").bytes());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_mount_reads_them() {
        let text = b"# a comment\n\n  /dev/nvme1n1\t/my\\040data/ ext4\n\
                     UUID=1234 /b xfs nofail,x-systemd.automount 0 2\n/dev/c /c\n";
        let (entries, unread) = parse(text);
        assert_eq!(unread, [5]);
        let [a, b] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((a.line, a.mount_point.to_str(), a.fstype.as_str()), (3, Some("/my data"), "ext4"));
        assert!(a.is_expected() && !a.is_automount());
        assert_eq!((b.line, b.source.to_str()), (4, Some("UUID=1234")));
        assert!(b.is_expected() && b.is_automount());
    }

    #[test]
    fn what_need_not_be_mounted_is_not_expected() {
        let expected = |line: &str| parse(line.as_bytes()).0[0].is_expected();
        assert!(expected("/dev/a /a ext4 nofail"));
        assert!(expected("/dev/a /a ext4 noauto,x-systemd.automount"));
        assert!(!expected("/dev/a /a ext4 noauto"));
        assert!(!expected("/dev/a none swap sw"));
        assert!(!expected("/dev/a swap swap sw"));
        assert!(!expected("/dev/a none ext4"));
        assert!(!expected("/srv/a /b none bind"));
        assert!(!expected("/srv/a /b none rbind,nofail"));
    }

    #[test]
    fn a_tag_is_the_link_that_udev_makes() {
        let of = |source: &str| device_path(OsStr::new(source)).map(|p| p.to_str().unwrap().to_owned());
        assert_eq!(of("/dev/nvme1n1p1").as_deref(), Some("/dev/nvme1n1p1"));
        assert_eq!(of("UUID=ABCD-1234").as_deref(), Some("/dev/disk/by-uuid/ABCD-1234"));
        assert_eq!(of("UUID=\"ab\"").as_deref(), Some("/dev/disk/by-uuid/ab"));
        assert_eq!(of("LABEL=my data/ä").as_deref(), Some(r"/dev/disk/by-label/my\x20data\x2fä"));
        assert_eq!(of("PARTUUID=1-2").as_deref(), Some("/dev/disk/by-partuuid/1-2"));
        assert_eq!(of("PARTLABEL=x").as_deref(), Some("/dev/disk/by-partlabel/x"));
        for none in ["UUID=", "server:/share", "//server/share", "tmpfs", "/images/a.img", "LABELLED=x"] {
            assert_eq!(of(none), None, "{none}");
        }
        // No name leads out of the folder.
        assert_eq!(of("LABEL=../x").as_deref(), Some(r"/dev/disk/by-label/..\x2fx"));
        assert_eq!(of("LABEL=..").as_deref(), Some("/dev/disk/by-label/.."), "no block device, then");
    }
}
