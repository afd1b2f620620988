# The tests of scripts/test-guest, in their order: each goes on with what the one before has left. Runs inside `ebs-sim run`.
# In: see lib.sh, and $wanted, the names of the tests to run (all where it is empty). Exit status: 0 if all is as it must be.
# shellcheck shell=bash source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

trap end_guest EXIT
plain=(part xfs btr)
stacked=(lvm0 lvm1 md0 md1 luks two0 two1)
# Not NAME.new, which each writer renames to NAME at any time.
counts='cd /run/writer && grep . *[!w]'

tests="beside attached stacked thin exchanged interrupted second image systemd"
for name in ${wanted:-}; do
    [[ " $tests " = *" $name "* ]] || die "there is no test $name: there are $tests"
done
wants() { [ -z "${wanted:-}" ] || [[ " $wanted " = *" $1 "* ]]; }
set_of() { python3 -c 'import json, sys; print(json.load(sys.stdin)["run_id"])'; }
label_of() { python3 -c 'import json, sys; print(json.load(sys.stdin)["achieved"])'; }

# What stillpoint has made of the set: the ids, from its standard output.
restored_serials() { tr -d - <<<"$1" | tr '\n' ' '; }

state() { # FOLDER [SERIAL…]
    run_inside state.sh "$@"
}

# The originals are as they were, and nothing of the restore is among them.
untouched() { # TEXT FOLDER [SERIAL…]
    local text=$1
    shift
    state "$@" >"$work/after"
    expect "$text" same "$work/before" "$work/after"
}

# The same of another boot: units have been started anew.
untouched_since_boot() { # TEXT FOLDER
    local text=$1
    shift
    state "$@" | sed 's/InvocationID=[0-9a-f]*//' >"$work/after"
    sed 's/InvocationID=[0-9a-f]*//' "$work/before" >"$work/before.boot"
    expect "$text" same "$work/before.boot" "$work/after"
}

# Are two files the same? What differs is shown. An empty one proves nothing.
same() { # BEFORE AFTER
    [ -s "$1" ] || die "$1 is empty"
    diff "$1" "$2" >"$work/differs" || { sed 's/^/      /' "$work/differs" >&2; return 1; }
}

all_completed() { ! ec2 status DescribeSnapshots | grep -q pending; }
between() { [[ "$1$2$3" =~ ^[0-9]+$ ]] && [ "$1" -le "$2" ] && [ "$2" -le "$3" ]; }

nothing_left() { # TEXT
    local left
    left=$(in_guest 'stillpoint restore --list 2>/dev/null; ls /run/udev/rules.d /etc/udev/rules.d | grep stillpoint; ls -d /mnt/back 2>/dev/null
        find /var/lib/stillpoint -name "*restore*" -type f')
    [ -z "$left" ] || sed 's/^/      /' <<<"$left" >&2
    expect "$1: nothing of it is left" [ -z "$left" ]
    expect "$1: as many volumes as before" [ "$(ec2 volumeId DescribeVolumes | sort -u | wc -l)" = "$volumes" ]
}

# `VOLUME SNAPSHOT` of each snapshot in an answer.
pairs() {
    python3 -c 'import re, sys
for item in re.findall(r"<item>.*?</item>", re.sub(r"<tagSet>.*?</tagSet>", "", sys.stdin.read(), flags=re.S), re.S):
    print(*(re.search(f"<{name}>(.*?)</{name}>", item).group(1) for name in ("volumeId", "snapshotId")))'
}

# --- a set, under load -------------------------------------------------------------------------------------

say "A set of all stacks, under load"
fill_root
boot
make_stacks
volumes=$(ec2 volumeId DescribeVolumes | sort -u | wc -l)
in_guest 'cat >/run/records.sh' <"$guest_tests/inside/records.sh"
writers="writer@-.service writer@srv-part.service writer@srv-xfs.service writer@srv-btr.service writer@srv-lvm.service
    writer@srv-md.service writer@srv-luks.service writer@srv-two.service"
in_guest "systemctl start ${writers//$'\n'/ }"
await "records of all writers" in_guest '[ "$(cat /run/writer/*[!w] 2>/dev/null | awk "\$1 > 20" | wc -l)" = 8 ]'
least=$(in_guest "$counts")
taken=$(in_guest 'stillpoint snapshot -o json 2>/run/said; echo $? >/run/status; cat /run/said >&2') || true
expect "the run ends with 0" [ "$(in_guest 'cat /run/status')" = 0 ]
set=$(set_of <<<"$taken")
expect "the set is filesystem-consistent: all stacks, with / in it" [ "$(label_of <<<"$taken")" = filesystem ]
most=$(in_guest "$counts")
await "the completion of its snapshots" all_completed
# The negative control: the same, by EC2 alone.
sim call CreateSnapshots "InstanceSpecification.InstanceId=$(ec2 instanceId DescribeInstances)" | pairs >"$work/crash"
[ "$(wc -l <"$work/crash")" = "$volumes" ] || die "no crash-consistent set"
expect "the writers have written all the while" in_guest 'for f in /run/writer/*[!w]; do [ "$(cat $f)" -gt 20 ] || exit 1; done'
verified=0
in_guest "stillpoint verify $set --level probe" >"$work/verified" 2>&1 || verified=$?
sed 's/^/      /' "$work/verified" >&2
expect "verify finds it sound" [ "$verified" = 0 ]
in_guest "systemctl stop ${writers//$'\n'/ }"

# --- restored beside the originals -------------------------------------------------------------------------

if wants beside; then
    say "Restored beside the originals"
    state /mnt/back >"$work/before"
    asked="--mount / --mount /srv/part --mount /srv/xfs --mount /srv/btr"
    made=$(in_guest "stillpoint restore $set $asked --to /mnt/back") || true
    in_guest 'udevadm settle'
    new=$(restored_serials "$made")
    expect "the filesystems are there" in_guest 'for f in "" /srv/part /srv/xfs /srv/btr /srv/btrsub; do mountpoint -q /mnt/back$f || exit 1; done'
    expect "with the data of the set" in_guest 'for f in part xfs btr btrsub; do cmp /srv/$f/constant /mnt/back/srv/$f/constant || exit 1; done'
    expect "with whole records" [ -z "$(in_guest 'bash /run/records.sh /mnt/back /mnt/back/srv/part /mnt/back/srv/xfs /mnt/back/srv/btr' | grep bad)" ]
    # shellcheck disable=SC2086
    untouched "names, mounts, units, stacks and files of the originals are as they were" /mnt/back $new
    expect "udev has understood every rule" in_guest '! journalctl -b -u systemd-udevd -o cat | grep stillpoint-restore'
    in_guest "stillpoint restore --undo \$(stillpoint restore --list 2>/dev/null | head -n1 | cut -d' ' -f1); udevadm settle"
    untouched "also when it has been taken back" /mnt/back
    nothing_left "taken back"
fi

if wants attached; then
    say "LVM, md, LUKS and btrfs over two disks attached beside the originals, hidden"
    state /mnt/back >"$work/before"
    made=$(in_guest "stillpoint restore $set --no-mount --mount /srv/lvm --mount /srv/md --mount /srv/luks --mount /srv/two") || true
    in_guest 'udevadm settle'
    new=$(restored_serials "$made")
    expect "seven disks are there" [ "$(wc -w <<<"$new")" = 7 ]
    # shellcheck disable=SC2086
    untouched "no name, unit or stack of the originals has taken one of them" /mnt/back $new
    in_guest "stillpoint restore --undo \$(stillpoint restore --list 2>/dev/null | head -n1 | cut -d' ' -f1); udevadm settle"
    untouched "also when it has been taken back" /mnt/back
    nothing_left "taken back"
fi

for name in stacked thin exchanged interrupted second image systemd; do
    # shellcheck source=/dev/null
    ! wants $name || . "$guest_tests/$name.sh"
done
[ "$faults" = 0 ] || die "$faults of the checks above failed"
