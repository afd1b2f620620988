# A second guest boots from the volumes of a set, and looks at each filesystem as it was taken; then the negative control.
# Sourced by ../inside.sh. In: $set, $crash, $least and $most (records). It comes last: the volumes are others then.
# shellcheck shell=bash

# Puts volumes of these snapshots in the place of those that are there, of the guest that does not run.
put_in_place() { # FILE WITH PAIRS
    local source snapshot name new device
    while read -r source snapshot; do
        name=$(awk -v id="$source" '$1 == id { print $2 }' "$work/names")
        if [ "$name" = root ]; then
            [ "${2:-}" = data ] && continue
            ec2 state CreateReplaceRootVolumeTask "InstanceId=$instance" "SnapshotId=$snapshot" DeleteReplacedRootVolume=true >/dev/null
            await "the new root" root_is_replaced
            continue
        fi
        device=$(ec2 device DescribeVolumes "VolumeId.1=${now[$name]}" | head -n1)
        new=$(ec2 volumeId CreateVolume "SnapshotId=$snapshot" "AvailabilityZone=$zone" VolumeType=gp3)
        ec2 status DetachVolume "VolumeId=${now[$name]}" >/dev/null
        await "the end of an attachment" is "${now[$name]}" available
        await "a new volume" is "$new" available
        ec2 status AttachVolume "VolumeId=$new" "InstanceId=$instance" "Device=$device" >/dev/null
        await "its attachment" attached "$new"
        now[$name]=$new
    done <"$1"
}
is() { [ "$(ec2 status DescribeVolumes "VolumeId.1=$1" | head -n1)" = "$2" ]; }
attached() { ec2 status DescribeVolumes "VolumeId.1=$1" | grep -qx attached; }
root_is_replaced() { ec2 taskState DescribeReplaceRootVolumeTasks | tail -n1 | grep -qx succeeded; }

declare -A now
instance=$(ec2 instanceId DescribeInstances | head -n1)
zone=$(ec2 availabilityZone DescribeInstances | head -n1)
: >"$work/names"
for name in root "${plain[@]}" "${stacked[@]}"; do
    now[$name]=$(volume "$name" id)
    echo "${now[$name]} $name" >>"$work/names"
done
sim call DescribeSnapshots Filter.1.Name=tag:stillpoint:run "Filter.1.Value.1=$set" | pairs >"$work/frozen"
masked="systemd.mask=srv-part.mount systemd.mask=srv-fat.mount systemd.mask=srv-xfs.mount systemd.mask=srv-btr.mount
    systemd.mask=srv-btrsub.mount systemd.mask=srv-lvm.mount systemd.mask=srv-md.mount systemd.mask=srv-luks.mount
    systemd.mask=srv-two.mount systemd.mask=srv-twosub.mount"

# The root filesystem of a set, looked at from this host.
root_image() { # FILE WITH PAIRS
    local device state=clean
    device=$(sim snapshot-device "$(awk -v id="$(awk '$2 == "root" { print $1 }' "$work/names")" '$1 == id { print $2 }' "$1")" --read-only)
    partx --update "$device" 2>/dev/null || true
    dumpe2fs -h "${device}p1" 2>/dev/null | grep '^Filesystem features:' | grep -q needs_recovery && state=dirty
    e2fsck -fn "${device}p1" >"$work/fsck" 2>&1 || state=dirty
    sim release-device "$device"
    echo "$state"
}

say "A second guest boots from the set"
shut_down
frozen_root=$(root_image "$work/frozen")
expect "/ of the set: its journal needs no recovery, and e2fsck finds nothing" [ "$frozen_root" = clean ]
expect "/ of the crash-consistent set, the negative control, does" [ "$(root_image "$work/crash")" = dirty ]
put_in_place "$work/frozen"
boot "${masked//$'\n'/ }"
await "a login prompt" grep -aq 'guest login:' "$work/console"
expect "it boots to a login prompt" true
expect "no unit has failed in it" [ -z "$(in_guest 'systemctl is-system-running --wait >/dev/null; systemctl --failed --no-legend')" ]
in_guest 'cat >/run/records.sh' <"$guest_tests/inside/records.sh"
run_inside images.sh >"$work/images"
sed 's/^/      /' "$work/images" >&2
for name in part lvm luks xfs md btr two; do
    read -r state records < <(sed -n "s/^$name //p" "$work/images")
    low=$(sed -n "s/^srv-$name[: ]//p" <<<"$least")
    high=$(sed -n "s/^srv-$name[: ]//p" <<<"$most")
    expect "$name: clean as it was taken" [ "$state" = clean ]
    # Without any replay: what the freeze has not written is not there.
    expect "$name: all that was synced before the run is there ($low ≤ $records ≤ $high)" between "$low" "$records" "$high"
done
expect "mounted, they all are" in_guest 'for m in part fat xfs btr btrsub lvm md luks two twosub; do mount /srv/$m || exit 1; done'

say "The negative control: the same of a set that was not frozen"
shut_down
put_in_place "$work/crash" data
boot "${masked//$'\n'/ }"
in_guest 'cat >/run/records.sh' <"$guest_tests/inside/records.sh"
run_inside images.sh >"$work/images"
sed 's/^/      /' "$work/images" >&2
for name in part lvm luks; do
    expect "$name: the same look finds it dirty" grep -q "^$name dirty" "$work/images"
done
