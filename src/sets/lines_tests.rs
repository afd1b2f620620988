//! Lines read back what was written, whatever it was.

use std::os::unix::ffi::OsStringExt as _;

use proptest::prelude::*;

use super::*;

fn volume() -> impl Strategy<Value = SetVolume> {
    let id = "vol-[0-9a-f]{17}".prop_map(|id| id.parse().unwrap());
    let number = || proptest::option::of(0_i32..1_000_000);
    let told =
        (id, any::<String>(), 0_i32..70_000, any::<String>(), number(), number(), any::<(bool, bool)>());
    told.prop_map(|(id, device_name, size_gib, volume_type, iops, throughput, (encrypted, boot))| SetVolume {
        id,
        device_name,
        size_gib,
        volume_type,
        iops,
        throughput,
        encrypted,
        boot,
    })
}

/// Any bytes that a path can have.
fn path() -> impl Strategy<Value = PathBuf> {
    let bytes = proptest::collection::vec(any::<u8>().prop_filter("not NUL", |b| *b != 0), 0..300);
    let path = bytes.prop_map(|b| PathBuf::from(OsString::from_vec([b"/".to_vec(), b].concat())));
    path.prop_filter("not up", |p| !p.components().any(|c| c == std::path::Component::ParentDir))
}

pub(crate) fn filesystem(volumes: Vec<VolumeId>) -> impl Strategy<Value = SetFilesystem> {
    let some = proptest::sample::subsequence(volumes.clone(), 1..=volumes.len());
    let method = prop_oneof![Just(Method::Freeze), Just(Method::Sync), Just(Method::Unmount)];
    let words = (any::<String>(), any::<Option<String>>(), any::<String>(), any::<String>());
    let mounts = (proptest::collection::vec(path(), 0..3), any::<bool>(), path());
    let told = (path(), words, method, some, mounts);
    told.prop_map(|(mount_point, (fstype, uuid, stack, options), method, volumes, (also, whole, root))| {
        SetFilesystem {
            roots: if whole { Vec::new() } else { vec![root; also.len() + 1] },
            mount_point,
            fstype,
            uuid,
            method,
            volumes,
            stack,
            options,
            also,
        }
    })
}

proptest! {
    #[test]
    fn a_volume_reads_back(volume in volume()) {
        prop_assert_eq!(SetVolume::read(&volume.line()).unwrap(), volume);
    }

    #[test]
    fn a_filesystem_reads_back(
        filesystem in filesystem(vec!["vol-0aaaaaaaaaaaaaaaa".parse().unwrap(), "vol-0bbbbbbb".parse().unwrap()]),
    ) {
        prop_assert_eq!(SetFilesystem::read(&filesystem.line()).unwrap(), filesystem);
    }

    #[test]
    fn an_application_reads_back(name in any::<String>(), facts in any::<BTreeMap<String, String>>()) {
        prop_assume!(!name.is_empty());
        let mut line = SetApplication::start(&name, "session", Consistency::Application);
        facts.iter().for_each(|(k, v)| line.push_str(&SetApplication::fact(k, v)));
        let achieved = Consistency::Application;
        let wanted = SetApplication { name, kind: "session".into(), achieved, facts };
        prop_assert_eq!(SetApplication::read(&line).unwrap(), wanted);
    }

    #[test]
    fn no_text_makes_a_reader_panic(line in any::<String>()) {
        let _ = (SetVolume::read(&line), SetFilesystem::read(&line), SetApplication::read(&line));
    }
}

#[test]
fn a_line_that_lacks_a_word_or_leads_elsewhere_is_not_read() {
    let good = "/data type=ext4 method=freeze on=vol-0aaaaaaaaaaaaaaaa stack=nvme1n1 options=rw";
    assert!(SetFilesystem::read(good).is_ok());
    assert!(SetFilesystem::read(&format!("{good} newer=word lone")).is_ok(), "a newer writer may add words");
    for (from, to) in [
        ("/data", "data"),
        ("/data", "/data/../etc"),
        ("/data", "/data%2F..%2Fetc"),
        ("/data", "/data%00"),
        (" type=ext4", ""),
        ("method=freeze", "method=exec"),
        ("on=vol-0aaaaaaaaaaaaaaaa", "on=snap-0aaaaaaaaaaaaaaaa"),
        (" stack=nvme1n1", ""),
        (" options=rw", ""),
        ("ext4", "%ff"),
    ] {
        let bad = good.replace(from, to);
        assert!(SetFilesystem::read(&bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        " ",
        "vol-0aaaaaaaaaaaaaaaa",
        "vol-0aaaaaaaaaaaaaaaa device=x gib=8x type=gp3",
        "x device=x gib=8 type=y",
    ] {
        assert!(SetVolume::read(bad).is_err(), "{bad}");
    }
}
