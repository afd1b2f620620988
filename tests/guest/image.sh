# An image of a set is launched, and boots to a login prompt by its own boot loader; what the checks before an image find, keeps one
# from that. Sourced by inside.sh. In: $set, which has / of this guest in it.
# shellcheck shell=bash

# Of the guest that runs: what is mounted of which filesystem, and what is in the files of the set.
in_it() {
    in_guest 'findmnt -rn -o TARGET,FSTYPE,UUID -t ext4,xfs,btrfs,vfat | sort; sha256sum /srv/*/constant'
}

# What the checks say, of the guest as it is: by a dry run of an image of the set.
checks() { # TEXT STATUS WORDS
    local status=0
    in_guest "stillpoint image $set --dry-run" >"$work/said" 2>&1 || status=$?
    [ "$status" = "$2" ] && grep -q "$3" "$work/said" || sed 's/^/      /' "$work/said" >&2
    expect "$1" grep -q "$3" "$work/said"
    expect "$1: it ends with $2, not with another ($status)" [ "$status" = "$2" ]
}

# Launches an image, and starts a guest on the volumes of its instance.
launch() { # IMAGE
    launched=$(ec2 instanceId RunInstances "ImageId=$1" MinCount=1 MaxCount=1 InstanceType=m6i.large "TagSpecification.1.ResourceType=volume" \
        TagSpecification.1.Tag.1.Key=of-launch)
    await "its launch" is_running
    start_by_firmware "$launched"
}
state_of() { python3 -c 'import re, sys; print(re.search("<instanceState>.*?<name>(.*?)<", sys.stdin.read())[1])' < <(sim call DescribeInstances "InstanceId.1=$1"); }
serials_of() { # INSTANCE
    python3 -c 'import json, sys
for one in json.load(open(sys.argv[1]))["launched"]:
    if one["instance_id"] == sys.argv[2]: print(*sorted(v["id"].replace("-", "") for v in one["volumes"]))' "$EBS_SIM_DIR/ebs-sim.json" "$1"
}

# Ends a guest and its instance, with all of its volumes.
end_launched() {
    local id
    end_guest
    ec2 name TerminateInstances "InstanceId.1=$launched" >/dev/null
    await "its end" is_terminated
    for id in $(ec2 volumeId DescribeVolumes Filter.1.Name=tag-key Filter.1.Value.1=of-launch | sort -u); do
        ec2 return DeleteVolume "VolumeId=$id" >/dev/null
    done
    await "the end of its volumes" nothing_of_launch
}
no_prompt() { [ -s "$work/console" ] && ! grep -aq 'guest login:' "$work/console"; }
is_running() { [ "$(state_of "$launched")" = running ]; }
is_terminated() { [ "$(state_of "$launched")" = terminated ]; }
nothing_of_launch() { [ -z "$(ec2 volumeId DescribeVolumes Filter.1.Name=tag-key Filter.1.Value.1=of-launch)" ]; }

say "The checks before an image, in a guest that boots by its own boot loader"
shut_down
start_by_firmware
await_guest
expect "UEFI has started GRUB, and GRUB a kernel with an initramfs" in_guest \
    '[ -d /sys/firmware/efi ] && grep -q "^BOOT_IMAGE=/boot/vmlinuz-$(uname -r) root=UUID=" /proc/cmdline && [ -e "/boot/initrd.img-$(uname -r)" ] &&
        ! grep -q "/nvme.ko" "/lib/modules/$(uname -r)/modules.builtin"'
in_guest 'systemctl is-system-running --wait >/dev/null; cp "/boot/initrd.img-$(uname -r)" /boot/good'
checks "nothing is found in it" 0 'SR-IOV simple'
expect "and nothing was left out" [ -z "$(grep -E 'would not|not looked at|not known' "$work/said")" ]
in_guest 'cp /boot/without-nvme "/boot/initrd.img-$(uname -r)"'
checks "an initramfs without nvme is refused" 78 'has no NVMe driver: on Nitro it finds no root'
in_guest 'mv /usr/bin/lsinitramfs /usr/bin/lsinitramfs.away'
checks "without lsinitramfs, it is said that it was not looked at" 0 'whether the initramfs has the NVMe driver is not known'
in_guest 'mv /usr/bin/lsinitramfs.away /usr/bin/lsinitramfs; cp /boot/good "/boot/initrd.img-$(uname -r)"; cp -p /etc/fstab /run/fstab'
in_guest 'echo "UUID=12345678-1234-1234-1234-123456789abc /nowhere ext4 defaults 0 2" >>/etc/fstab'
checks "a filesystem that the set does not have, without nofail, is refused" 78 '/nowhere is not in the set, and without nofail the boot waits'
in_guest 'cp -p /run/fstab /etc/fstab; echo "/dev/nvme1n1p1 /srv/part ext4 defaults 0 2" >>/etc/fstab'
checks "a name that may be another disk's is refused" 78 '/srv/part is /dev/nvme1n1p1, which can be another disk'
in_guest 'cp -p /run/fstab /etc/fstab; sync'
checks "as it was, it is good again" 0 'SR-IOV simple'

say "What is refused would not have booted"
in_guest 'cp /boot/without-nvme "/boot/initrd.img-$(uname -r)"; sync'
refused=0
in_guest "stillpoint snapshot --image" >"$work/said" 2>&1 || refused=$?
expect "an image of an initramfs without nvme: refused, and no set is taken" [ "$refused:$(ec2 snapshotId DescribeSnapshots Filter.1.Name=tag-key \
    Filter.1.Value.1=stillpoint:run | sort -u | wc -l)" = "78:$volumes" ]
bad=$(in_guest "stillpoint image --ignore-boot-check" | grep -o 'ami-[0-9a-f]*' | tail -n1) || true
in_guest 'cp /boot/good "/boot/initrd.img-$(uname -r)"; sync'
in_it >"$work/in_it"
shut_down
launch "$bad"
await "the initramfs of the bad image, which finds no root" grep -aqE 'ALERT! +UUID=22222222-3333-4444-5555-666666666666 does not exist' "$work/console"
expect "made all the same, its instance does not find its root" no_prompt
end_launched

say "An image of a set under load, launched"
start_by_firmware
await_guest
in_guest 'cat >/run/records.sh' <"$guest_tests/inside/records.sh"
in_guest "systemctl start ${writers//$'\n'/ }"
await "records of all writers" in_guest '[ "$(cat /run/writer/*[!w] 2>/dev/null | awk "\$1 > 20" | wc -l)" = 8 ]'
began=$(in_guest "$counts")
made=$(in_guest 'stillpoint snapshot --image 2>/run/said; echo "status $?"; cat /run/said >&2') || true
ended=$(in_guest "$counts")
expect "the image is made, and as its instance is" [ "$(grep -c '^ami-' <<<"$made"):$(grep -o 'status.*' <<<"$made")" = "1:status 0" ]
ami=$(grep '^ami-' <<<"$made")
shut_down
launch "$ami"
await "a login prompt" grep -aq 'guest login:' "$work/console"
await_guest
expect "it boots to a login prompt, by GRUB, with no unit failed" [ -z "$(in_guest 'systemctl is-system-running --wait >/dev/null; systemctl --failed --no-legend
    grep -q ^BOOT_IMAGE= /proc/cmdline || echo not by GRUB')" ]
expect "its disks are the volumes of the new instance alone" [ "$(in_guest 'cat /sys/block/nvme*/device/serial' | tr -d ' ' | sort | tr '\n' ' ')" = "$(serials_of "$launched") " ]
in_it >"$work/in_it.launched"
expect "its filesystems are those of the set, mounted as they were, with the set's data" same "$work/in_it" "$work/in_it.launched"
in_guest 'cat >/run/records.sh' <"$guest_tests/inside/records.sh"
in_guest 'bash /run/records.sh / /srv/part /srv/xfs /srv/btr /srv/lvm /srv/md /srv/luks /srv/two' >"$work/records"
while read -r folder records; do
    name=$(tr / - <<<"${folder#/}") name=${name:-root}
    low=$(sed -n "s/^$name[: ]//p" <<<"$began") high=$(sed -n "s/^$name[: ]//p" <<<"$ended")
    expect "$folder: whole records, of the time of the set ($low ≤ $records ≤ $high)" between "$low" "$records" "$high"
done <"$work/records"
expect "of all eight writers" [ "$(wc -l <"$work/records")" = 8 ]
end_launched
boot
expect "the image goes, with its snapshots" in_guest "stillpoint image delete $ami --with-snapshots --including-the-last >/run/said 2>&1 || { cat /run/said >&2; false; }"
