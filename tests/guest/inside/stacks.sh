# Runs in the guest: makes the device stacks and their filesystems, as an administrator would: LVM stripe, md, LUKS, btrfs over two
# disks, partitions, whole disks; mounted from fstab. In: NAME=SERIAL of each disk.
set -eu
disk() { readlink -f "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$1"; }
for pair; do
    declare "${pair%%=*}=$(disk "${pair#*=}")"
done
# shellcheck disable=SC2154
{
    sgdisk -n 1:0:+200M -t 1:8300 -n 2:0:0 -t 2:8300 "$part" >/dev/null
    udevadm settle
    mkfs.ext4 -q -F -L part "${part}p1"
    mkfs.vfat -n FAT "${part}p2" >/dev/null
    mkfs.xfs -q -f -L xfs "$xfs"
    mkfs.btrfs -q -f -L btr "$btr" 2>/dev/null

    pvcreate -q -q -y "$lvm0" "$lvm1"
    vgcreate -q -q vg0 "$lvm0" "$lvm1"
    lvcreate -q -q -y -i 2 -L 300M -n data vg0
    mkfs.ext4 -q -F -L lvm /dev/vg0/data

    mdadm --quiet --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean "$md0" "$md1"
    mkfs.xfs -q -f -L md /dev/md0
    mdadm --detail --scan >>/etc/mdadm/mdadm.conf

    head -c 32 /dev/urandom >/etc/luks.key
    chmod 600 /etc/luks.key
    cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$luks" /etc/luks.key
    cryptsetup open --key-file /etc/luks.key "$luks" crypt0
    mkfs.ext4 -q -F -L luks /dev/mapper/crypt0

    mkfs.btrfs -q -f -L two -d raid0 -m raid1 "$two0" "$two1" 2>/dev/null
}
udevadm settle
mkdir -p /srv/{part,fat,xfs,btr,btrsub,lvm,md,luks,two,twosub}
for label in btr two; do
    mount -t btrfs "/dev/disk/by-label/$label" /mnt
    btrfs -q subvolume create /mnt/sub
    umount /mnt
done
uuid() { blkid -p -o value -s UUID "$1"; }
echo "crypt0 UUID=$(cryptsetup luksUUID "$luks") /etc/luks.key luks,nofail" >>/etc/crypttab
cat >>/etc/fstab <<F
UUID=$(uuid "${part}p1") /srv/part ext4 defaults,nofail 0 2
UUID=$(uuid "${part}p2") /srv/fat vfat defaults,nofail 0 2
UUID=$(uuid "$xfs") /srv/xfs xfs defaults,nofail,noatime 0 0
UUID=$(uuid "$btr") /srv/btr btrfs defaults,nofail,subvolid=5 0 0
LABEL=btr /srv/btrsub btrfs defaults,nofail,subvol=sub 0 0
/dev/vg0/data /srv/lvm ext4 defaults,nofail 0 2
LABEL=md /srv/md xfs defaults,nofail 0 0
/dev/mapper/crypt0 /srv/luks ext4 defaults,nofail 0 2
LABEL=two /srv/two btrfs defaults,nofail,subvolid=5 0 0
LABEL=two /srv/twosub btrfs defaults,nofail,subvol=sub 0 0
F
systemctl daemon-reload
systemctl start srv-{part,fat,xfs,btr,btrsub,lvm,md,luks,two,twosub}.mount
for folder in /srv/*; do
    mountpoint -q "$folder" || { echo "$folder is not mounted"; exit 1; }
    [ "$folder" = /srv/fat ] || head -c 300000 /dev/urandom >"$folder/constant"
done
sync
