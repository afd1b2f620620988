# A pool of thin volumes over two disks, and a snapshot of one: restored beside the original, verified, killed; and not activated
# where its metadata is wrong. The disks come for this, and go. Sourced by inside.sh.
# shellcheck shell=bash

say "LVM thin beside its original"
disk_of() { echo "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(tr -d - <<<"$1")"; }
attached_to=$(ec2 instanceId DescribeInstances | head -n1)
zone=$(ec2 availabilityZone DescribeInstances | head -n1)
pool_of=()
for device in /dev/sdy /dev/sdz; do
    id=$(ec2 volumeId CreateVolume "AvailabilityZone=$zone" Size=1 VolumeType=gp3)
    is_available() { [ "$(ec2 status DescribeVolumes "VolumeId.1=$id" | head -n1)" = available ]; }
    await "the volume $id" is_available
    sim call AttachVolume "VolumeId=$id" "InstanceId=$attached_to" "Device=$device" >/dev/null
    await "the disk of $id" in_guest "[ -b $(disk_of "$id") ]"
    pool_of+=("$id")
done
volumes=$((volumes + 2))
# Data on both, metadata on one, and a snapshot, which LVM activates only where it is told to.
in_guest "set -e; first=$(disk_of "${pool_of[0]}") second=$(disk_of "${pool_of[1]}")
    pvcreate -q -q -y \$first \$second && vgcreate -q -q vgt \$first \$second
    lvcreate -q -q -y -L 8M -n meta vgt \$second && lvcreate -q -q -y -i 2 -L 400M -n pool vgt
    lvconvert -q -q -y --type thin-pool --poolmetadata vgt/meta vgt/pool
    lvcreate -q -q -y -V 200M -n data --thinpool pool vgt && mkfs.ext4 -q -L thin /dev/vgt/data
    mkdir -p /srv/thin /srv/thinsnap && mount /dev/vgt/data /srv/thin
    head -c 300000 /dev/urandom >/srv/thin/constant && sync -f /srv/thin
    lvcreate -q -q -y -s -n snap vgt/data && lvchange -ay -K vgt/snap && mount /dev/vgt/snap /srv/thinsnap
    head -c 300000 /dev/urandom >/srv/thin/constant && sync -f /srv/thin && udevadm settle" 2>&1 | sed 's/^/      /' >&2
take_thin() {
    in_guest 'stillpoint snapshot --mount /srv/thin --mount /srv/thinsnap -o json 2>/run/said; echo $? >/run/status; cat /run/said >&2' >"$work/taken" || true
    expect "a set of it: the run ends with 0" [ "$(in_guest 'cat /run/status')" = 0 ]
    await "the completion of its snapshots" all_completed
}
take_thin
of_thin=$(set_of <"$work/taken")
expect "both disks of the pool are in the set" [ "$(ec2 snapshotId DescribeSnapshots "Filter.1.Name=tag:stillpoint:run" "Filter.1.Value.1=$of_thin" | sort -u | wc -l)" = 2 ]
thin_gone() { # TEXT
    in_guest 'udevadm settle'
    untouched "$1: the originals are as they were" /mnt/back
    nothing_left "$1"
    expect "$1: no device of it is left" [ -z "$(in_guest 'dmsetup ls | grep _r')" ]
}
thin_there() { # TEXT
    expect "$1: the thin volume and its snapshot are there, each with its own data" in_guest \
        'for f in thin thinsnap; do mountpoint -q /mnt/back/srv/$f && cmp /srv/$f/constant /mnt/back/srv/$f/constant || exit 1; done'
}
thin_undone() {
    in_guest "stillpoint restore --undo \$(stillpoint restore --list 2>/dev/null | head -n1 | cut -d' ' -f1)" >/dev/null 2>"$work/then" || sed 's/^/      /' "$work/then" >&2
}
state /mnt/back >"$work/before"
in_guest "mv /usr/sbin/thin_check /usr/sbin/thin_check.off"
expect "without thin_check, it is refused before anything is made" [ "$(in_guest "stillpoint restore $of_thin --to /mnt/back >/dev/null 2>/run/said; echo \$?; grep -c thin-provisioning-tools /run/said" | tr '\n' :)" = 78:1: ]
in_guest "mv /usr/sbin/thin_check.off /usr/sbin/thin_check"
made=$(in_guest "stillpoint restore $of_thin --to /mnt/back") || true
in_guest 'udevadm settle'
thin_there restored
# shellcheck disable=SC2046
untouched "restored: the originals are as they were" /mnt/back $(restored_serials "$made")
expect "both can be written to" in_guest 'for f in thin thinsnap; do echo y >/mnt/back/srv/$f/mine && sync -f /mnt/back/srv/$f && [ ! -e /srv/$f/mine ] || exit 1; done'
thin_undone
thin_gone "taken back"
verified=0
in_guest "stillpoint verify $of_thin --level restore" >"$work/verified" 2>&1 || verified=$?
sed 's/^/      /' "$work/verified" >&2
expect "a verify finds both sound" [ "$verified:$(grep -cE '^/srv/thin(snap)? .*: sound: .* finds nothing' "$work/verified")" = 0:2 ]
thin_gone verified
for step in "is vgt_r:undo" "/data is dm:continue"; do
    then=${step##*:} step=${step%:*}
    in_guest "rm -f /run/restore.log; systemctl reset-failed restore.service 2>/dev/null
        systemd-run -q --unit restore -p StandardError=file:/run/restore.log -p StandardOutput=null stillpoint restore $of_thin --to /mnt/back"
    await "«$step» in the restore's messages" in_guest "grep -q '$step' /run/restore.log"
    id=$(in_guest "sed -n 's/^restore \([-0-9a-f]*\)$/\1/p' /run/restore.log")
    in_guest 'systemctl kill -s KILL restore.service'
    [ "$then" = undo ] || in_guest "stillpoint restore --continue $id" >"$work/then" 2>&1 || sed 's/^/      /' "$work/then" >&2
    [ "$then" = undo ] || thin_there "killed at «$step», --continue"
    thin_undone
    thin_gone "killed at «$step», --$then"
done
in_guest 'rm -f /run/restore.log; systemctl reset-failed restore.service 2>/dev/null; true'
# The kernel has what it needs of the metadata in memory; on the disk, it is not there any more.
in_guest 'dd if=/dev/zero of=/dev/mapper/vgt-pool_tmeta bs=4096 seek=1 count=1000 oflag=direct conv=notrunc status=none'
take_thin
of_thin=$(set_of <"$work/taken")
status=0
in_guest "stillpoint restore $of_thin --to /mnt/back" >"$work/then" 2>&1 || status=$?
sed 's/^/      /' "$work/then" >&2
expect "a pool with wrong metadata is not activated, and the way to repair it is said" [ "$((status > 0)):$(grep -c 'lvconvert --repair vgt/pool' "$work/then")" = 1:1 ]
nothing_left "refused, which takes it back"
expect "refused: no device of it is left" [ -z "$(in_guest 'dmsetup ls | grep _r')" ]
verified=0
in_guest "stillpoint verify $of_thin --level restore" >"$work/verified" 2>&1 || verified=$?
sed 's/^/      /' "$work/verified" >&2
expect "a verify looks at neither, and says why" [ "$verified:$(grep -cE '^/srv/thin(snap)? .*NOT LOOKED AT: .*lvconvert --repair' "$work/verified")" = 0:2 ]
nothing_left "not looked at"
expect "no device of it is left" [ -z "$(in_guest 'dmsetup ls | grep _r')" ]

in_guest "umount /srv/thinsnap /srv/thin; rmdir /srv/thinsnap /srv/thin
    for d in vgt-snap vgt-data vgt-pool vgt-pool-tpool vgt-pool_tdata vgt-pool_tmeta; do dmsetup remove --retry \$d; done
    wipefs -q -a -f $(disk_of "${pool_of[0]}") $(disk_of "${pool_of[1]}")" 2>/dev/null || true
for id in "${pool_of[@]}"; do
    sim call DetachVolume "VolumeId=$id" >/dev/null
    await "the end of $id" is_available
    sim call DeleteVolume "VolumeId=$id" >/dev/null
done
volumes=$((volumes - 2))
