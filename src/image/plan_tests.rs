use super::*;
use crate::ec2::{SnapshotDetail, SnapshotView};
use crate::image::compare::compare;
use crate::sets::set::Member;
use crate::sets::set::tests_support::set;

pub(in crate::image) fn layout(set: &SnapshotSet) -> Layout {
    let volume = |m: &Member| SetVolume {
        id: m.volume_id.clone(),
        device_name: match m.number {
            0 => "/dev/xvda".into(),
            n => format!("/dev/sd{}", char::from(b'e' + u8::try_from(n).unwrap())),
        },
        size_gib: 8,
        volume_type: "gp3".into(),
        iops: Some(4000),
        throughput: Some(250),
        encrypted: false,
        boot: m.number == 0,
    };
    let volumes = set.members.iter().map(volume).collect();
    Layout { volumes, filesystems: vec![], applications: vec![] }
}

fn snapshots(set: &SnapshotSet) -> Vec<TaggedSnapshot> {
    let one = |m: &Member| TaggedSnapshot {
        view: SnapshotView {
            id: m.id.clone(),
            volume: m.volume_id.clone(),
            state: "completed".into(),
            started: None,
            progress: None,
        },
        tags: vec![],
        detail: SnapshotDetail { encrypted: m.encrypted, ..SnapshotDetail::default() },
    };
    set.members.iter().map(one).collect()
}

fn machine() -> Machine {
    Machine {
        attributes: Attributes {
            architecture: "x86_64".into(),
            virtualization: "hvm".into(),
            boot_mode: Some("uefi-preferred".into()),
            ena: true,
            sriov: Some("simple".into()),
            ..Attributes::default()
        },
        current_boot_mode: Some("uefi".into()),
        billing: Billing {
            platform_details: Some("Linux/UNIX".into()),
            usage_operation: Some("RunInstances".into()),
            product_codes: vec![],
        },
        root_device_name: Some("/dev/xvda".into()),
        needs_tokens: false,
        delete_on_termination: [("vol-00000000000000001".parse().unwrap(), true)].into(),
        image: None,
    }
}

fn of(machine: Machine) -> Like {
    Like::Instance { machine: Box::new(machine), image: None, uefi_data: Some("QU1a".into()) }
}

/// A plan of two volumes.
pub(in crate::image) fn planned(set: &SnapshotSet) -> ImagePlan {
    let asked = Asked::default();
    plan(set, &layout(set), &snapshots(set), &of(machine()), &asked).unwrap()
}

/// The image that EC2 makes of that.
pub(in crate::image) fn view(set: &SnapshotSet) -> ImageView {
    let ImagePlan { request, billing, .. } = planned(set);
    ImageView {
        id: "ami-0123456789abcdef0".parse().unwrap(),
        name: request.name,
        state: "available".into(),
        reason: None,
        created: None,
        deprecated_from: None,
        public: false,
        attributes: request.attributes,
        billing,
        root_device_name: Some(request.root_device_name),
        mappings: request.mappings,
        others: false,
        tags: request.tags,
    }
}

fn refusal(set: &SnapshotSet, change: impl FnOnce(&mut Layout), like: &Like) -> String {
    let mut layout = layout(set);
    change(&mut layout);
    plan(set, &layout, &snapshots(set), like, &Asked::default()).expect_err("it is refused").what
}

#[test]
fn everything_is_as_the_instance_and_the_volumes_are() {
    let set = set(3);
    let made = planned(&set);
    let request = &made.request;
    assert_eq!(request.root_device_name, "/dev/xvda");
    assert_eq!(request.attributes, machine().attributes);
    assert_eq!((request.uefi_data.as_deref(), made.notes.len()), (Some("QU1a"), 0), "{:?}", made.notes);
    let of: Vec<_> = request
        .mappings
        .iter()
        .map(|m| (m.device_name.as_str(), m.iops, m.throughput, m.delete_on_termination))
        .collect();
    let (iops, mibs) = (Some(4000), Some(250));
    // The root goes, a volume as its attachment says, and of one that is not known the data is kept.
    let expected =
        [("/dev/xvda", iops, mibs, true), ("/dev/sdf", iops, mibs, true), ("/dev/sdg", iops, mibs, false)];
    assert_eq!(of, expected);
    let id = set.id.to_string();
    assert!(request.tags.contains(&(IMAGE_OF_TAG.into(), id.clone())) && request.description.contains(&id));
    assert!(!request.tags.iter().any(|(k, _)| k == WITH_SET_TAG));
}

#[test]
fn how_it_boots_is_what_runs_and_not_what_ec2_takes_by_default() {
    let of_machine = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        let set = set(1);
        plan(&set, &layout(&set), &snapshots(&set), &of(machine), &Asked::default())
    };
    let boots = |change| of_machine(change).unwrap().request;
    let mode = |change| boots(change).attributes.boot_mode;
    assert_eq!(mode(|m| m.attributes.boot_mode = None).as_deref(), Some("uefi"), "else x86 boots the BIOS");
    let bios: fn(&mut Machine) = |m| {
        m.attributes.boot_mode = None;
        m.current_boot_mode = Some("legacy-bios".into());
    };
    assert_eq!((mode(bios), boots(bios).uefi_data), (None, None));
    let tpm = of_machine(|m| m.attributes.tpm = Some("v2.0".into())).unwrap();
    assert_eq!(tpm.request.attributes.boot_mode.as_deref(), Some("uefi"), "EC2 refuses uefi-preferred");
    assert!(tpm.notes[0].contains("TPM"));
    let refused = of_machine(|m| {
        m.attributes.tpm = Some("v2.0".into());
        m.current_boot_mode = Some("legacy-bios".into());
    });
    assert!(refused.expect_err("no such image").what.contains("BIOS"));
    // Tokens: as its image says, else as the instance has them.
    let imds = |needs: bool, image: Option<&str>| {
        let set = set(1);
        let machine = Box::new(Machine { needs_tokens: needs, ..machine() });
        let mut seen = view(&set);
        seen.attributes.imds = image.map(str::to_owned);
        let like = Like::Instance { machine, image: Some(Box::new(seen)), uefi_data: None };
        plan(&set, &layout(&set), &snapshots(&set), &like, &Asked::default()).unwrap().request.attributes.imds
    };
    assert_eq!((imds(false, None), imds(true, None)), (None, Some("v2.0".into())));
    assert_eq!(imds(false, Some("v2.0")), Some("v2.0".into()));
    let set = set(1);
    let long =
        Like::Instance { machine: Box::new(machine()), image: None, uefi_data: Some("A".repeat(64_001)) };
    assert!(refusal(&set, |_| (), &long).contains("UEFI data"));
}

#[test]
fn what_no_image_can_be_made_of_is_refused() {
    type Change = fn(&mut SnapshotSet);
    let like = of(machine());
    let changes: [(&str, Change); 7] = [
        ("not complete", |s| {
            let volume_id = "vol-0123456789abcdef0".parse().unwrap();
            s.missing.push(crate::sets::set::Missing { number: 1, volume_id });
        }),
        ("in error", |s| s.members[0].state = "error".into()),
        ("not completed yet", |s| s.members[1].state = "pending".into()),
        ("in the archive", |s| s.members[1].tier = "archive"),
        ("being removed", |s| s.deleting = true),
        ("two claim one place", |s| s.doubts.push("two claim one place".into())),
        ("newer", |s| s.schema = 99),
    ];
    for (what, change) in changes {
        let mut set = set(2);
        change(&mut set);
        let said = refusal(&set, |_| (), &like);
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// Whoever may tag can write these.
#[test]
fn tags_that_were_changed_are_refused() {
    type Change = fn(&mut Layout);
    let like = of(machine());
    let changes: [(&str, Change); 11] = [
        ("the root device is not in", |l| l.volumes[0].boot = false),
        ("several root devices", |l| l.volumes[1].boot = true),
        ("says /dev/sdz", |l| l.volumes[0].device_name = "/dev/sdz".into()),
        ("does not boot", |l| l.volumes[0].volume_type = "st1".into()),
        ("is not known", |l| l.volumes[1].volume_type = "gp3\u{1b}[2J".into()),
        ("no device name", |l| l.volumes[1].device_name = "/dev/../etc".into()),
        ("no device name", |l| l.volumes[1].device_name = "/dev/sd".into()),
        ("no device name", |l| l.volumes[1].device_name = "/dev/sdabc".into()),
        ("two volumes of", |l| l.volumes[1].device_name = "/dev/sda".into()),
        ("no IOPS", |l| (l.volumes[1].volume_type, l.volumes[1].iops) = ("io2".into(), None)),
        ("there is no snapshot", |l| l.volumes[1].id = "vol-0123456789abcdef0".parse().unwrap()),
    ];
    for (what, change) in changes {
        let said = refusal(&set(2), change, &like);
        assert!(said.contains(what), "{what}: {said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let other_root = of(Machine { root_device_name: Some("/dev/sdf".into()), ..machine() });
    assert!(refusal(&set(2), |_| (), &other_root).contains("the root device of"));
}

/// Each field of an image, changed, is seen.
#[test]
fn every_field_that_is_not_as_it_should_be_is_told() {
    type Change = fn(&mut ImageView);
    let set = set(2);
    assert_eq!(compare(&planned(&set), &view(&set)), []);
    let changes: [(&str, bool, Change); 20] = [
        ("architecture", false, |i| i.attributes.architecture = "i386".into()),
        ("virtualization", false, |i| i.attributes.virtualization = "paravirtual".into()),
        ("boot mode", false, |i| i.attributes.boot_mode = None),
        ("TPM", false, |i| i.attributes.tpm = Some("v2.0".into())),
        ("ENA", false, |i| i.attributes.ena = false),
        ("SR-IOV", false, |i| i.attributes.sriov = None),
        ("IMDS", false, |i| i.attributes.imds = Some("v2.0".into())),
        ("kernel", false, |i| i.attributes.kernel = Some("aki-1".into())),
        ("RAM disk", false, |i| i.attributes.ramdisk = Some("ari-1".into())),
        ("root device", false, |i| i.root_device_name = Some("/dev/sda1".into())),
        ("/dev/sdf", false, |i| i.mappings[1].volume_type = "gp2".into()),
        ("/dev/sdf", false, |i| i.mappings[1].iops = Some(3000)),
        ("/dev/sdf", false, |i| i.mappings[1].throughput = None),
        ("/dev/xvda", false, |i| i.mappings[0].delete_on_termination = false),
        ("/dev/xvda", false, |i| i.mappings[0].snapshot = i.mappings[1].snapshot.clone()),
        ("/dev/sdf", false, |i| drop(i.mappings.pop())),
        ("other devices", false, |i| i.others = true),
        ("platform details", true, |i| i.billing.platform_details = None),
        ("usage operation", true, |i| i.billing.usage_operation = Some("RunInstances:0010".into())),
        ("product codes", true, |i| i.billing.product_codes.push("x".into())),
    ];
    for (field, billing, change) in changes {
        let mut image = view(&set);
        change(&mut image);
        let found = compare(&planned(&set), &image);
        let said: Vec<_> = found.iter().map(|d| (d.field.as_str(), d.billing)).collect();
        assert_eq!(said, [(field, billing)]);
    }
    let mut more = view(&set);
    more.mappings.push(Mapping { device_name: "/dev/sdz".into(), ..more.mappings[1].clone() });
    assert_eq!(compare(&planned(&set), &more)[0].field, "/dev/sdz");
}
