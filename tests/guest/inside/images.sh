# Runs in a guest whose filesystems are not mounted: looks at each as it was taken, before any journal is replayed.
# Out: NAME clean|dirty, and how many records of its writer are there without replay.
# In: nothing; devices are found by label, as the stacks are assembled by the guest's boot.
set -u
mkdir -p /run/image
records() { bash /run/records.sh /run/image | sed 's/^[^ ]* //'; }
for label in part lvm luks; do
    device=/dev/disk/by-label/$label
    state=clean
    dumpe2fs -h "$device" 2>/dev/null | grep -q needs_recovery && state=dirty
    e2fsck -fn "$device" >"/run/fsck.$label" 2>&1 || state=dirty
    mount -o ro,noload "$device" /run/image
    echo "$label $state $(records)"
    umount /run/image
done
for label in xfs md; do
    device=/dev/disk/by-label/$label
    # Freezing leaves the superblock's own transactions in the log, so xfs_repair -n always has something to say.
    items=$(xfs_logprint -t "$device" 2>/dev/null | grep -cE '^(INO|INODE|BUF|EFI|EFD|ICR|RUI|CUI|BUI):' || true)
    supers=$(xfs_logprint -t "$device" 2>/dev/null | grep -c 'SUPER Block Buffer' || true)
    state=clean
    [ "$items" -le "$supers" ] || state=dirty
    mount -o ro,norecovery,nouuid "$device" /run/image
    echo "$label $state $(records)"
    umount /run/image
done
for label in btr two; do
    device=/dev/disk/by-label/$label
    state=clean
    btrfs inspect-internal dump-super "$device" | grep -qE '^log_root[[:space:]]+0$' || state=dirty
    btrfs check --readonly "$device" >"/run/fsck.$label" 2>&1 || state=dirty
    mount -o ro,rescue=nologreplay "$device" /run/image
    echo "$label $state $(records)"
    umount /run/image
done
fsck.vfat -n /dev/disk/by-label/FAT >/run/fsck.FAT 2>&1
echo "FAT $(grep -q 'Dirty bit' /run/fsck.FAT && echo marked || echo clean)"
