# LVM, md, LUKS and btrfs over two disks are put together beside their originals, and taken down again; also after a kill and
# without power. Sourced by inside.sh. In: $set.
# shellcheck shell=bash

layers="--mount /srv/lvm --mount /srv/md --mount /srv/luks --mount /srv/two --key-file /etc/luks.key --to /mnt/back"

# What says who the originals are: LVM's labels and texts, LUKS's header, md's and btrfs's UUIDs.
identities() {
    local name
    for name in lvm0 lvm1 luks; do
        in_guest "dd if=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(volume $name id | tr -d -) bs=1M count=1 iflag=direct status=none | sha256sum"
    done
    in_guest "mdadm --examine $(for name in md0 md1; do
        echo "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(volume $name id | tr -d -)"
    done | tr '\n' ' ')| grep -E 'UUID|Name|Role'"
    in_guest "btrfs filesystem show /srv/two | sed 's/used.*path/path/'"
}

there() { # TEXT
    expect "$1: the filesystems are there, with the data of the set" in_guest \
        'for f in lvm md luks two twosub; do mountpoint -q /mnt/back/srv/$f && cmp /srv/$f/constant /mnt/back/srv/$f/constant || exit 1; done'
}

as_they_were() { # TEXT [SERIAL…]
    local text=$1
    shift
    untouched "$text: names, mounts, units, stacks and files of the originals are as they were" /mnt/back "$@"
    identities >"$work/identities.after"
    expect "$text: the originals' disks say who they are as before" same "$work/identities" "$work/identities.after"
}

gone() { # TEXT
    in_guest 'udevadm settle'
    as_they_were "$1"
    nothing_left "$1"
    expect "$1: no device of it is left" [ -z "$(in_guest 'dmsetup ls | grep _r; grep "^md[^0]" /proc/mdstat; ls -d /dev/md/*_r* /var/lib/stillpoint/restores/* 2>/dev/null')" ]
}

say "LVM, md, LUKS and btrfs over two disks beside their originals"
# Of no mount that systemd would take away with its name.
in_guest 'lvcreate -q -q -y -L 32M -n spare vg0 && mkfs.ext4 -q -L spare /dev/vg0/spare && udevadm settle && sync'
state /mnt/back >"$work/before"
identities >"$work/identities"
expect "without a key, it is refused before anything is made" [ "$(in_guest "stillpoint restore $set --mount /srv/luks >/dev/null 2>&1; echo \$?")" = 78 ]
nothing_left "refused"
made=$(in_guest "stillpoint restore $set $layers") || true
in_guest 'udevadm settle'
new=$(restored_serials "$made")
there "put together"
# shellcheck disable=SC2086
as_they_were "put together" $new
expect "both can be written to" in_guest 'for f in lvm md luks two; do echo x >/srv/$f/mine && echo y >/mnt/back/srv/$f/mine && sync -f /srv/$f /mnt/back/srv/$f && grep -q x /srv/$f/mine || exit 1; done; rm /srv/*/mine'
expect "udev has understood every rule" in_guest '! journalctl -b -u systemd-udevd -o cat | grep stillpoint-restore'
# Two of the originals lose a name meanwhile: the link alone, and all that udev knows of it.
in_guest 'rm /dev/disk/by-label/btr
    echo "ENV{DM_NAME}==\"vg0-spare\", SYMLINK=\"\"" >/run/udev/rules.d/99-lost.rules && udevadm control --reload
    udevadm trigger --settle --action=change "/sys/class/block/$(basename "$(readlink -f /dev/vg0/spare)")"
    rm /run/udev/rules.d/99-lost.rules && udevadm control --reload'
expect "two names are lost" in_guest '! ls -d /dev/disk/by-label/btr /dev/disk/by-label/spare 2>/dev/null'
in_guest "stillpoint restore --undo \$(stillpoint restore --list 2>/dev/null | head -n1 | cut -d' ' -f1)" >/dev/null
gone "taken back, with the names that were lost"

verified=0
in_guest "stillpoint verify $set --level restore" >"$work/verified" 2>&1 || verified=$?
sed 's/^/      /' "$work/verified" >&2
expect "a verify puts them together and finds them sound, all but LUKS" \
    [ "$verified:$(grep -cE '^/srv/(lvm|md|two) .*: sound: .* finds nothing' "$work/verified"):$(grep -cE '^/srv/luks .*NOT LOOKED AT' "$work/verified")" = 0:3:1 ]
gone verified

verify_with() { # KEY
    verified=0
    in_guest "stillpoint verify $set --level restore --key-file $1" >"$work/verified" 2>&1 || verified=$?
    sed 's/^/      /' "$work/verified" >&2
}
verify_with /etc/luks.key
expect "with the key of LUKS, what is in that too" \
    [ "$verified:$(grep -cE '^/srv/(lvm|md|two|luks) .*: sound: .* finds nothing' "$work/verified")" = 0:4 ]
gone "verified with a key"
in_guest 'umask 077; head -c 32 /dev/urandom >/etc/other.key'
verify_with /etc/other.key
expect "a wrong key is said to be one, and keeps nothing else from being looked at" \
    [ "$verified:$(grep -cE '^/srv/(lvm|md|two) .*: sound: .* finds nothing' "$work/verified"):$(grep -cE '^/srv/luks .*NOT LOOKED AT: .*the key in /etc/other.key does not fit' "$work/verified")" = 0:3:1 ]
gone "verified with another key"
for step in "LUKS on .* is open as" "/srv/luks is checked"; do
    in_guest "rm -f /run/verify.log; systemctl reset-failed verify.service 2>/dev/null
        systemd-run -q --unit verify -p StandardError=file:/run/verify.log -p StandardOutput=null stillpoint verify $set --level restore --key-file /etc/luks.key"
    await "«$step» in the verify's messages" in_guest "grep -q '$step' /run/verify.log"
    in_guest 'systemctl kill -s KILL verify.service; stillpoint verify --clean-up' >"$work/then" 2>&1 || sed 's/^/      /' "$work/then" >&2
    gone "verify killed at «$step», --clean-up"
done
in_guest 'rm -f /run/verify.log /etc/other.key; systemctl reset-failed verify.service 2>/dev/null; true'

# Killed when a line of its own says so.
stacked_until() { # STEP
    in_guest "rm -f /run/restore.log; systemctl reset-failed restore.service 2>/dev/null
        systemd-run -q --unit restore -p StandardError=file:/run/restore.log -p StandardOutput=null stillpoint restore $set $layers"
    await "«$1» in the restore's messages" in_guest "grep -q '$1' /run/restore.log"
    id=$(in_guest "sed -n 's/^restore \([-0-9a-f]*\)$/\1/p' /run/restore.log")
    in_guest 'systemctl kill -s KILL restore.service'
}

for step in "is open as:undo" "is assembled of:continue" "is vg0_r:undo" "/data is dm:continue" "its UUID is:undo"; do
    then=${step##*:} status=0
    stacked_until "${step%:*}"
    [ "$then" = undo ] || in_guest "stillpoint restore --continue $id --key-file /etc/luks.key" >"$work/then" 2>&1 || status=$?
    [ "$then" = undo ] || there "killed at «${step%:*}», --continue"
    in_guest "stillpoint restore --undo $id" >"$work/then" 2>&1 || status=$?
    expect "killed at «${step%:*}», --$then: it ends with 0" [ "$status" = 0 ]
    [ "$status" = 0 ] || sed 's/^/      /' "$work/then" >&2
    gone "killed at «${step%:*}», --$then"
done
# What comes next goes by failed units, and by a log of its own of that name, which systemd does not shorten.
in_guest 'rm -f /run/restore.log; systemctl reset-failed restore.service 2>/dev/null; true'
