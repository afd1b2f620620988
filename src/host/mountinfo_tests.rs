//! Tests of the mountinfo parser, out of line to keep it short.

use super::*;
use proptest::prelude::*;

fn read_whole(table: &[u8]) -> Vec<MountLine> {
    parse(table).whole().unwrap()
}

fn one(line: &str) -> MountLine {
    read_whole(line.as_bytes()).remove(0)
}

#[test]
fn a_line_without_and_with_optional_fields() {
    let l = one("20 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n");
    assert_eq!((l.id, l.parent, l.dev.major, l.dev.minor), (20, 1, 259, 0));
    assert_eq!(l.source, "/dev/root");
    assert_eq!(l.optional, ["shared:1"]);
    assert!(one("20 1 259:0 / / rw - ext4 /dev/root rw").optional.is_empty());
    assert_eq!(one("20 1 0:5 / / rw master:1 propagate_from:2 unbindable - tmpfs  rw").optional.len(), 3);
}

#[test]
fn escapes_are_undone_and_paths_need_not_be_utf8() {
    let l = one(r"20 1 259:0 /a\134b /my\040mount\011\012 rw - ext4 /dev/x\043y rw");
    assert_eq!(l.mount_point, Path::new("/my mount\t\n"));
    assert_eq!(l.root, Path::new("/a\\b"));
    assert_eq!(l.source, "/dev/x#y");
    let raw = b"20 1 259:0 / /\xff\xfe rw - ext4 /dev/x rw";
    assert_eq!(read_whole(raw)[0].mount_point.as_os_str().as_bytes(), b"/\xff\xfe");
    assert_eq!(unescape(br"\08\777\"), br"\08\777\");
}

#[test]
fn options_are_split_before_their_escapes_are_undone() {
    let l = one(r"9 1 0:31 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/a\054b\040c,workdir=/w");
    assert_eq!(l.super_option("upperdir").unwrap(), "/a,b c");
    assert_eq!(l.super_option("upper"), None);
    let old = one(r"9 1 0:31 / /o rw - overlay overlay rw,upperdir=/a\,b,workdir=/w");
    assert_eq!(old.super_option("upperdir").unwrap(), r"/a\,b");
    assert_eq!(old.super_option("workdir").unwrap(), "/w");
}

/// overlayfs of Linux 6.5 writes the spaces of `lowerdir+` as they are; FUSE programs may do as they like.
#[test]
fn the_options_are_the_rest_of_the_line() {
    let l =
        one("9 1 0:31 / /o rw shared:2 - overlay overlay rw,lowerdir=/opt/My  Files - x y:/b,upperdir=/u");
    assert_eq!((l.fstype.as_str(), l.optional.len()), ("overlay", 1));
    assert_eq!(l.super_option("lowerdir").unwrap(), "/opt/My  Files - x y:/b");
    assert_eq!(l.super_option("upperdir").unwrap(), "/u");
    let l = one("9 1 0:31 / /o rw - fuse.x a\\040b rw ");
    assert_eq!((l.source.to_str(), l.super_options.to_str()), (Some("a b"), Some("rw ")));
    assert_eq!(one("9 1 0:31 / /o rw - ext4 /dev/a ").super_options, "");
}

#[test]
fn a_bad_line_is_named_and_costs_that_line_only() {
    let dev = |minor| Some(DevNo { major: 259, minor });
    let ext4 = Some("ext4");
    for (bad, problem, on, fstype) in [
        ("x 1 259:0 / / rw - ext4 /dev/root rw", "the mount id is not a number", dev(0), ext4),
        ("20 y 259:0 / / rw - ext4 /dev/root rw", "the parent id is not a number", dev(0), ext4),
        ("20 1 259 / / rw - ext4 /dev/root rw", "the device number is not major:minor", None, ext4),
        ("20 1 259:0 / relative rw - ext4 /d rw", "the mount point is not an absolute path", dev(0), ext4),
        ("20 1 259:7 / / rw shared:1", "no ` - ` before the filesystem type", dev(7), None),
        ("20 1 259:0 / / rw -  /dev/root rw", "the filesystem type is empty", dev(0), None),
        ("20 1 259:0 / / rw - ext4 /dev/root", "no superblock options", dev(0), ext4),
        ("20 1 259:0 / / rw - ext4", "no mount source", dev(0), ext4),
        ("20 1", "no device number", None, None),
        ("Files/low:/opt/low2,upperdir=/tmp/up", "the mount id is not a number", None, None),
        ("\u{fffd}", "the mount id is not a number", None, None),
    ] {
        let (first, last) = ("19 1 0:4 / /proc rw - proc proc rw", "21 1 8:1 / /b rw - xfs /dev/b rw");
        let table = parse(format!("{first}\n{bad}\n{last}\n").as_bytes());
        assert_eq!(table.lines, [one(first), one(last)], "{bad}");
        let [e] = table.unread.as_slice() else { panic!("{:?}", table.unread) };
        assert_eq!((e.line, e.problem, e.text.as_str()), (2, problem, bad));
        assert_eq!((e.dev, e.fstype.as_deref()), (on, fstype), "{bad}");
        assert_eq!(table.whole().unwrap_err().text, bad);
    }
}

#[test]
fn later_and_higher_mounts_win() {
    let lines = read_whole(
        b"20 1 259:0 / / rw - ext4 /dev/root rw\n\
          30 20 259:1 / /a/b rw - ext4 /dev/b rw\n\
          31 20 259:2 / /a rw - ext4 /dev/a rw\n\
          32 31 259:3 / /a rw - ext4 /dev/a2 rw\n\
          33 20 259:4 / /ab rw - ext4 /dev/ab rw\n\
          40 20 259:5 / /c rw - ext4 /dev/c rw\n\
          41 40 259:6 / /c/d rw - ext4 /dev/d rw\n",
    );
    let tree = MountTree::new(&lines);
    let at = |p: &str| tree.mount_of(Path::new(p)).unwrap().id;
    assert_eq!(at("/"), 20);
    assert_eq!(at("/a/b/x"), 32, "the mount over /a hides /a/b");
    assert_eq!(at("/ab"), 33, "a prefix ends at a slash");
    assert_eq!((at("/c/d/e"), at("/c/dd")), (41, 40));
    assert!(tree.mount_of(Path::new("relative")).is_none());
    let hidden: Vec<u32> = lines.iter().filter(|l| tree.is_hidden(l)).map(|l| l.id).collect();
    assert_eq!(hidden, [30, 31]);
}

#[test]
fn a_chroot_without_its_root_mount_falls_back_to_the_longest_prefix() {
    let lines = read_whole(
        b"30 20 259:1 / /a rw - ext4 /dev/b rw\n31 30 259:2 / /a/b rw - ext4 /dev/a rw\n\
          32 31 259:3 / /a/b rw - ext4 /dev/c rw\n",
    );
    let tree = MountTree::new(&lines);
    assert_eq!(tree.mount_of(Path::new("/a/b/c")).unwrap().id, 32);
    assert!(tree.mount_of(Path::new("/x")).is_none());
}

#[test]
fn a_circle_of_parents_ends() {
    let lines =
        read_whole(b"1 1 0:1 / / rw - rootfs rootfs rw\n2 3 0:2 / / rw - a a rw\n3 2 0:3 / / rw - b b rw\n");
    assert_eq!(MountTree::new(&lines).mount_of(Path::new("/x")).unwrap().id, 1);
}

/// What the kernel writes: `mangle_path` escapes these four, and `#` in sources.
fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for b in bytes {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend(format!("\\{b:03o}").bytes()),
            _ => out.push(*b),
        }
    }
    out
}

proptest! {
    #[test]
    fn what_the_kernel_writes_is_read_back(
        id: u32, parent: u32, major: u32, minor: u32,
        root in proptest::collection::vec(1u8..=255, 0..20),
        point in proptest::collection::vec(1u8..=255, 0..40),
        optional in proptest::collection::vec("(shared|master):[0-9]{1,5}", 0..3),
        source in proptest::collection::vec(1u8..=255, 0..20),
        fstype in "[a-z0-9]{1,8}(\\.[a-z]{1,4})?",
    ) {
        let bytes = |p: &[u8]| [b"/".as_slice(), p].concat();
        let mut line = format!("{id} {parent} {major}:{minor} ").into_bytes();
        line.extend(escape(&bytes(&root)));
        line.push(b' ');
        line.extend(escape(&bytes(&point)));
        line.extend(b" rw,relatime ");
        for o in &optional {
            line.extend(format!("{o} ").bytes());
        }
        line.extend(format!("- {fstype} ").bytes());
        line.extend(escape(&source));
        line.extend(b" rw\n");
        let read = read_whole(&line).remove(0);
        prop_assert_eq!((read.id, read.parent), (id, parent));
        prop_assert_eq!(read.dev, DevNo { major, minor });
        prop_assert_eq!(read.root.as_os_str().as_bytes(), bytes(&root));
        prop_assert_eq!(read.mount_point.as_os_str().as_bytes(), bytes(&point));
        prop_assert_eq!(read.optional, optional);
        prop_assert_eq!(read.source.as_bytes(), source);
        prop_assert_eq!(read.fstype, fstype);
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
