//! Would an instance of an image boot? What this host says of that, while its set is taken.
//!
//! In: fstab, the kernel's command line, its modules, its initramfs. Out: [`Finding`]s, and what was not looked at. Must
//! never: call something bootable: it only finds what would not be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::host::fstab::{self, Entry, device_path, has_option};
use crate::path_encoding::{printable, shown};
use crate::quiesce::query;

/// The largest file of these that is read.
const MOST: u64 = 4 << 20;

/// How long the initramfs may take to be listed: it is unpacked for that, which takes a small host half a minute.
const TO_LIST: Duration = Duration::from_secs(300);

/// Something that would keep an instance of the image from booting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// The way out.
    pub hint: String,
}

/// What is in the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initramfs {
    /// The kernel has none.
    None,
    /// The names of its files.
    Files(String),
    /// It is not known, and why.
    NotRead(String),
}

/// What this host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of the running kernel, such as `6.1.0-13-cloud-amd64`.
    pub release: String,
    /// The kernel's command line.
    pub command_line: String,
    /// What is to be mounted.
    pub fstab: Vec<Entry>,
    /// The kernel's own list of what is built into it.
    pub builtin: String,
    /// Its modules on disk.
    pub modules: String,
    /// Its initramfs.
    pub initramfs: Initramfs,
}

/// Looks below a root.
pub async fn look(root: &Path) -> Seen {
    let text = |path: &str| text(&root.join(path));
    let release = text("proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    // It becomes a part of paths.
    let release = if release.contains('/') { String::new() } else { release };
    let fstab = text("etc/fstab").unwrap_or_default();
    Seen {
        command_line: text("proc/cmdline").unwrap_or_default(),
        fstab: fstab::parse(fstab.as_bytes()).0,
        builtin: text(&format!("lib/modules/{release}/modules.builtin")).unwrap_or_default(),
        modules: text(&format!("lib/modules/{release}/modules.dep")).unwrap_or_default(),
        initramfs: initramfs(root, &release).await,
        release,
    }
}

fn text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

async fn initramfs(root: &Path, release: &str) -> Initramfs {
    let names = [format!("boot/initrd.img-{release}"), format!("boot/initramfs-{release}.img")];
    let Some(file) = names.iter().map(|n| root.join(n)).find(|p| p.is_file()) else { return Initramfs::None };
    let mut why = "there is neither lsinitramfs nor lsinitrd".to_owned();
    for name in ["lsinitramfs", "lsinitrd"] {
        let Ok(program) = query::program(name) else { continue };
        match query::query_within(&program, &[&file.to_string_lossy()], TO_LIST).await {
            Ok(files) => return Initramfs::Files(files),
            Err(e) => why = e,
        }
    }
    Initramfs::NotRead(format!("{}: {why}", file.display()))
}

/// Everything that would not boot; and what is not known. `mounts` are those of the set.
#[must_use]
pub fn judge(seen: &Seen, mounts: &BTreeSet<PathBuf>) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut unknown) = (Vec::new(), Vec::new());
    modules(seen, &mut findings, &mut unknown);
    let mut find = |what: String, hint: &str| findings.push(Finding { what, hint: hint.to_owned() });
    let by_uuid = "write UUID=… in its place (blkid shows it)";
    let root = seen.command_line.split_ascii_whitespace().rev().find_map(|w| w.strip_prefix("root="));
    if let Some(root) = root.filter(|root| moves(root)) {
        let what = format!("the kernel's root={} can be another disk on another instance", printable(root));
        find(what, "root=UUID=… in the boot loader's configuration keeps its meaning");
    }
    for entry in &seen.fstab {
        let source = entry.source.to_string_lossy();
        let place = shown(&entry.mount_point);
        let is_root = entry.mount_point == Path::new("/");
        let stops = entry.is_expected()
            && !entry.is_automount()
            && !has_option(&entry.options, "nofail")
            && !entry.is_remote()
            && device_path(&entry.source).is_some();
        if !stops && !is_root {
            continue;
        }
        let line = format!("/etc/fstab, line {}: {place}", entry.line);
        if !is_root && !mounts.contains(&entry.mount_point) {
            let what =
                format!("{line} is not in the set, and without nofail the boot waits for it and stops");
            find(what, "add nofail, or take its volume into the set");
        } else if source.contains("Amazon_Elastic_Block_Store") {
            find(format!("{line} is named by its volume's id, and a new volume has another"), by_uuid);
        } else if moves(&source) {
            let what = format!("{line} is {}, which can be another disk there", printable(&source));
            find(what, by_uuid);
        }
    }
    (findings, unknown)
}

fn modules(seen: &Seen, findings: &mut Vec<Finding>, unknown: &mut Vec<String>) {
    let release = printable(&seen.release);
    if seen.builtin.is_empty() && seen.modules.is_empty() {
        unknown.push(format!(
            "/lib/modules has nothing of the kernel {release}: its drivers were not looked at"
        ));
        return;
    }
    if !has(&seen.builtin, "nvme") {
        match &seen.initramfs {
            Initramfs::Files(files) if has(files, "nvme") => {}
            Initramfs::NotRead(why) => {
                unknown.push(format!("whether the initramfs has the NVMe driver is not known: {}", printable(why)));
            }
            Initramfs::None => findings.push(Finding {
                what: format!("the kernel {release} has no initramfs and no NVMe driver built in: on Nitro it finds no root"),
                hint: "boot a kernel that has one".to_owned(),
            }),
            Initramfs::Files(_) => findings.push(Finding {
                what: format!("the initramfs of {release} has no NVMe driver: on Nitro it finds no root"),
                hint: "Debian: nvme into /etc/initramfs-tools/modules, then update-initramfs -u; others: dracut --force \
                       --add-drivers nvme"
                    .to_owned(),
            }),
        }
    }
    if !has(&seen.builtin, "ena") && !has(&seen.modules, "ena") {
        findings.push(Finding {
            what: format!("the kernel {release} has no ENA driver: on Nitro it has no network"),
            hint: "install a kernel with the module ena".to_owned(),
        });
    }
}

/// Is a module in this list, compressed or not?
fn has(list: &str, module: &str) -> bool {
    let file = format!("/{module}.ko");
    list.split(|c: char| c.is_ascii_whitespace() || c == ':').any(|path| {
        let Some(at) = path.rfind(&file) else { return false };
        matches!(&path[at + file.len()..], "" | ".xz" | ".zst" | ".gz")
    })
}

/// A name that the kernel gives to whichever disk it finds first, or second.
fn moves(source: &str) -> bool {
    ["/dev/nvme", "/dev/xvd", "/dev/sd", "/dev/vd"].iter().any(|start| source.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Seen {
        Seen {
            release: "6.1.0".into(),
            command_line: "BOOT_IMAGE=/vmlinuz root=UUID=1234 ro quiet\n".into(),
            fstab: fstab::parse(b"UUID=1234 / ext4 defaults 0 1\nUUID=5 /data xfs noatime 0 2\n").0,
            builtin: "kernel/fs/ext4/ext4.ko\n".into(),
            modules: "kernel/drivers/net/ethernet/amazon/ena/ena.ko.xz: kernel/x.ko.xz\n".into(),
            initramfs: Initramfs::Files(
                "usr/lib/modules/6.1.0/kernel/drivers/nvme/host/nvme.ko.zst\n".into(),
            ),
        }
    }

    fn found(change: impl FnOnce(&mut Seen)) -> (Vec<String>, Vec<String>) {
        let mut seen = good();
        change(&mut seen);
        let mounts = BTreeSet::from(["/".into(), "/data".into()]);
        let (findings, unknown) = judge(&seen, &mounts);
        (findings.into_iter().map(|f| f.what).collect(), unknown)
    }

    #[test]
    fn what_boots_is_not_found() {
        assert_eq!(found(|_| ()), (vec![], vec![]));
        let none = |fstab: &str| {
            let whole = format!("UUID=1 / ext4 x\n{fstab}\n");
            assert_eq!(found(|s| s.fstab = fstab::parse(whole.as_bytes()).0), (vec![], vec![]), "{fstab}");
        };
        none("UUID=9 /other ext4 nofail");
        none("UUID=9 /other ext4 noauto");
        none("UUID=9 /other ext4 noauto,x-systemd.automount");
        none("server:/share /nfs nfs defaults");
        none("tmpfs /tmp tmpfs size=1G");
        none("UUID=9 none swap sw");
        none("/dev/nvme1n1 /data xfs nofail");
        none("/dev/mapper/vg-data /data xfs defaults");
        assert_eq!(
            found(|s| s.builtin.push_str("kernel/drivers/nvme/host/nvme.ko\n")).0,
            Vec::<String>::new()
        );
        assert_eq!(found(|s| s.command_line.clear()).0, Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_would_stop_the_boot_is_found() {
        const BY_ID: &[u8] = b"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123 /data ext4 x";
        let one = |change: fn(&mut Seen), words: &str| {
            let (findings, _) = found(change);
            assert!(findings.len() == 1 && findings[0].contains(words), "{words}: {findings:?}");
        };
        one(
            |s| s.initramfs = Initramfs::Files("nvme-core.ko\nkernel/x/nvme.kobject\n".into()),
            "no NVMe driver",
        );
        one(|s| s.initramfs = Initramfs::None, "no initramfs");
        one(|s| s.modules = "kernel/x/arena.ko:".into(), "no ENA driver");
        one(|s| s.command_line = "root=UUID=1 root=/dev/nvme0n1p1".into(), "root=/dev/nvme0n1p1");
        one(|s| s.fstab = fstab::parse(b"/dev/xvda1 / ext4 x").0, "another disk");
        one(|s| s.fstab = fstab::parse(b"UUID=9 /other ext4 defaults").0, "not in the set");
        one(|s| s.fstab = fstab::parse(b"/dev/nvme1n1 /data ext4 x").0, "another disk");
        one(|s| s.fstab = fstab::parse(BY_ID).0, "volume's id");
        let (findings, unknown) = found(|s| s.initramfs = Initramfs::NotRead("no tool \u{1b}".into()));
        assert!(findings.is_empty() && unknown[0].contains("no tool") && !unknown[0].contains('\u{1b}'));
        let (findings, unknown) = found(|s| (s.builtin, s.modules) = Default::default());
        assert!(findings.is_empty() && unknown[0].contains("not looked at"), "a container has no modules");
    }

    #[tokio::test]
    async fn it_is_read_below_a_root() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write("proc/cmdline", "root=/dev/sda1\n");
        write("etc/fstab", "UUID=1 / ext4 x\n");
        write("lib/modules/6.1.0/modules.builtin", "kernel/drivers/nvme/host/nvme.ko\n");
        let seen = look(root.path()).await;
        assert_eq!(
            (seen.release.as_str(), seen.fstab.len(), &seen.initramfs),
            ("6.1.0", 1, &Initramfs::None)
        );
        let (findings, _) = judge(&seen, &BTreeSet::from(["/".into()]));
        assert_eq!(findings.len(), 2, "ENA, and root=: {findings:?}");
        write("boot/initrd.img-6.1.0", "this is none");
        assert!(
            matches!(look(root.path()).await.initramfs, Initramfs::NotRead(_)),
            "what is none is not read"
        );
        write("proc/sys/kernel/osrelease", "../../x\n");
        assert_eq!(look(root.path()).await.release, "");
    }
}
