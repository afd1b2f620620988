//! The rescue reads the mount tables of the whole host: lines that cannot be read, tables that cannot be
//! read, thousands of lines, namespaces without a process; and paths that hang. "thawed 0" is never said by
//! mistake.

use rig::listener::Listener;
use rig::namespace::KEEP;
use rig::probe::{assert_settled, is_thawed};
use rig::{Fs, Rig};

use super::rescue::{ONLY_TABLES, Unmounted, alone};

/// The rescue beside a namespace whose table has one line more, and which alone has what is frozen.
fn with_line(line: &str) -> String {
    format!(
        r#"
        rm -r /sys/fs/ext4/* # what is frozen here is a btrfs
        fsfreeze -f $M
        unshare --mount sleep 60 & other=$!
        while [ "$(readlink /proc/$other/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
        umount -l $M
        cp /proc/$other/mountinfo $T/table
        cat >> $T/table <<'END'
{line}
END
        for file in /proc/$other/mountinfo /proc/$other/task/$other/mountinfo; do mount --bind $T/table $file; done
        stillpoint thaw --all
        "#
    )
}

#[test]
fn a_line_with_a_space_in_its_options_hides_nothing() {
    let rig = Rig::start(&[("a", Fs::Btrfs)]);
    let overlay =
        "900 26 0:173 / /srv/app rw shared:2 - overlay overlay rw,lowerdir=/opt/My Files/low:/b,upperdir=/u";
    alone(&rig, &with_line(overlay)).exits(0).says("thawed 1 filesystems");
    assert!(is_thawed(&rig.mount("a")));
    assert_settled(&rig);
}

#[test]
fn a_line_that_cannot_be_read_is_told_and_the_others_are_thawed() {
    let rig = Rig::start(&[("a", Fs::Btrfs)]);
    let ended = alone(&rig, &with_line("Files/low:/b,upperdir=/u"));
    ended
        .exits(40)
        .says("thawed 1 filesystems")
        .says("the mount id is not a number: `Files/low:/b,upperdir=/u`");
    assert!(is_thawed(&rig.mount("a")));
    assert_settled(&rig);
}

#[test]
fn without_a_table_the_rescue_knows_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let ended = alone(&rig, "mount -t tmpfs none /proc; exec $SP thaw --all");
    ended.exits(40);
    assert!(!ended.err.contains("thawed 0"), "{}", ended.err);
    assert_settled(&rig);
}

/// As kubelet's and containers' namespaces have them.
#[test]
fn thousands_of_mounts_of_one_filesystem_are_one_thaw() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let script = r#"
        mkdir $M/d $T/many; mount -t tmpfs many $T/many
        python3 - $M/d $T/many <<'END'
import ctypes, os, sys
libc = ctypes.CDLL(None)
for i in range(3000):
    place = f"{sys.argv[2]}/{i}"
    os.mkdir(place)
    assert libc.mount(sys.argv[1].encode(), place.encode(), None, 4096, None) == 0
END
        for i in 1 2 3; do unshare -m sleep 60 & done
        fsfreeze -f $M
        stillpoint thaw --all
    "#;
    alone(&rig, script).exits(0).says("thawed 1 filesystems");
    assert!(is_thawed(&rig.mount("a")));
    assert_settled(&rig);
}

/// `ip netns` and container runtimes keep namespaces by a mount of nsfs, or by an open file.
#[test]
fn a_namespace_without_a_process_is_reached() {
    for keep in [
        "touch $T/ns; keep $T/ns sh -c \"mount $A $T/only && fsfreeze -f $T/only\"",
        "unshare -m sh -c \"mount $A $T/only && fsfreeze -f $T/only && touch $T/ready && exec sleep 60\" & other=$!; \
         while ! [ -e $T/ready ]; do sleep 0.05; done; exec 9</proc/$other/ns/mnt; kill $other; wait $other || true",
    ] {
        let rig = Rig::start(&[("a", Fs::Ext4)]);
        let unmounted = Unmounted::of(&rig);
        let script = format!(
            "{ONLY_TABLES}\n{KEEP}\nmkdir $T/only; {keep}\n! grep -q $T/only /proc/self/mountinfo\nstillpoint thaw --all"
        );
        alone(&rig, &script).exits(0).says("thawed 1 filesystems");
        assert!(unmounted.was_thawed());
        assert_settled(&rig);
    }
}

/// A thread may have a namespace of its own, and the first thread of its process may have ended.
#[test]
fn a_namespace_of_a_thread_is_reached() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let unmounted = Unmounted::of(&rig);
    let script = r#"
        mkdir $T/only
        python3 - $A $T/only $T/ready <<'END' &
import ctypes, subprocess, sys, threading, time
libc = ctypes.CDLL(None)
def other():
    assert libc.unshare(0x20000) == 0
    assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
    assert libc.mount(sys.argv[1].encode(), sys.argv[2].encode(), b"ext4", 0, None) == 0
    subprocess.check_call(["fsfreeze", "-f", sys.argv[2]])
    open(sys.argv[3], "w").close()
    time.sleep(60)
threading.Thread(target=other).start()
libc.syscall(60 if sys.maxsize and __import__("platform").machine() == "x86_64" else 93, 0)
END
        while ! [ -e $T/ready ]; do sleep 0.05; done
        ! grep -q $T/only /proc/self/mountinfo
        stillpoint thaw --all
    "#;
    alone(&rig, &format!("{ONLY_TABLES}{script}")).exits(0).says("thawed 1 filesystems");
    assert!(unmounted.was_thawed());
    assert_settled(&rig);
}

/// Every open of it hangs. The rescue says so, within a bound.
#[test]
fn a_filesystem_that_cannot_be_opened_has_not_been_thawed() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let listener = Listener::start(&rig.mount("a"));
    let ended = alone(&rig, "exec $SP thaw --all");
    drop(listener);
    ended.exits(40).says("it does not answer").says(rig.mount("a").to_str().unwrap());
    assert_settled(&rig);
}

/// FITHAW says of it what it says of one that is not frozen, and then it is frozen.
#[test]
fn a_freeze_that_is_in_progress_is_not_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let file = rig.mount("a").join("stuck");
    let code = format!(
        "import os\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nos.splice(r,f,4096)",
        file.to_str().unwrap()
    );
    // In the namespace of the script, since the rescue sees no other processes there.
    let script = format!(
        r#"
        python3 -c '{code}' & writer=$!
        while ! grep -qE '^(275|76) ' /proc/$writer/syscall; do sleep 0.05; done
        fsfreeze -f $M & freeze=$!
        while ! grep -q 0xc0045877 /proc/$freeze/syscall; do sleep 0.05; done
        stillpoint thaw --all || [ $? = 40 ]
        kill $writer
        wait $freeze
        stillpoint thaw --all
        "#
    );
    let ended = alone(&rig, &script);
    ended.exits(0).says("a FIFREEZE of it is in progress").says("thawed 0").says("thawed 1 filesystems");
    assert!(is_thawed(&rig.mount("a")));
    assert_settled(&rig);
}

/// What hides processes from the rescue does not hide them from its exit code.
#[test]
fn a_process_whose_mounts_must_not_be_read_is_told() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    for (hidepid, says) in [("1", "cannot read the mounts of process"), ("2", "hidepid=")] {
        let script = format!(
            "setpriv --reuid=65534 --clear-groups sleep 60 &\n\
             while [ \"$(stat -c %u /proc/$!)\" != 65534 ]; do sleep 0.05; done\n\
             mount -o remount,hidepid={hidepid} /proc\n\
             exec setpriv --regid=65534 --clear-groups --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace $SP thaw --all"
        );
        alone(&rig, &script).exits(40).says(says);
    }
    assert_settled(&rig);
}
