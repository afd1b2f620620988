# Data volumes are exchanged for those of the set, with systemd and udev at work, and back again; also over a power failure.
# Sourced by inside.sh. In: $set.
# shellcheck shell=bash

these="--mount /srv/part --mount /srv/xfs --mount /srv/btr"
busy=(writer@srv-{part,xfs,btr}.service)
stops=$(printf -- '--stop-unit %s ' "${busy[@]}")

# What is mounted, and what systemd makes of it: device names alone may be others afterwards.
mounted() {
    in_guest 'udevadm settle
        findmnt -rn -o TARGET,FSTYPE,UUID,OPTIONS -t ext4,xfs,btrfs,vfat | sort
        systemctl list-units --no-legend --plain --type=mount --state=active "srv-*" | cut -d" " -f1 | sort
        systemctl --failed --no-legend --plain'
}

as_before() { # TEXT
    mounted >"$work/mounted.after"
    expect "$1: mounted as before, and systemd knows it" same "$work/mounted" "$work/mounted.after"
}

of_the_set() { # TEXT
    expect "$1: it is the set's data" in_guest 'for f in part xfs btr; do test ! -e /srv/$f/later && cmp /run/constants/$f /srv/$f/constant || exit 1; done'
}

of_today() { # TEXT
    expect "$1: it is today's data" in_guest 'for f in part xfs btr; do cmp /run/constants/$f /srv/$f/later || exit 1; done'
}

stillpoint() { # COMMAND…
    local status=0
    in_guest "stillpoint $*" >"$work/said" 2>&1 || status=$?
    [ "$status" = 0 ] || sed 's/^/      /' "$work/said" >&2
    return "$status"
}

the_restore() { in_guest "stillpoint restore --list 2>/dev/null | head -n1 | cut -d' ' -f1"; }

say "Data volumes in place"
in_guest 'mkdir -p /run/constants; for f in part xfs btr; do cp /srv/$f/constant /run/constants/$f; cp /srv/$f/constant /srv/$f/later; cp /srv/$f/constant /srv/lvm/$f.constant; done; sync'
mounted >"$work/mounted"
in_guest "systemctl start ${busy[*]}"
expect "who keeps it busy is named" [ "$(in_guest "stillpoint restore $set --in-place $these 2>&1 | grep -c 'stop-unit writer@srv-part.service'")" = 1 ]
# Somebody starts what was stopped, all the while: its unit file is in /etc, where a mask in /run/systemd/system has no effect.
in_guest "systemd-run -q --unit poke sh -c 'while :; do systemctl start writer@srv-part.service && echo started; sleep 0.1; done'"
expect "exchanged, while somebody starts what was stopped" stillpoint restore "$set" --in-place "$these" "$stops"
expect "the mask has refused that" in_guest 'journalctl -b -u poke -o cat | grep -q "Unit writer@srv-part.service is masked"'
in_guest 'systemctl stop poke'
expect "and is gone" [ "$(in_guest "systemctl show -P LoadState ${busy[*]} | sort -u; ls /run/systemd/system.control 2>/dev/null | grep writer" | grep .)" = loaded ]
in_guest 'sleep 3'
as_before exchanged
of_the_set exchanged
expect "what was stopped runs again" in_guest "systemctl is-active -q ${busy[*]}"
id=$(the_restore)
expect "taken back" stillpoint restore --undo "$id"
as_before "taken back"
of_today "taken back"
expect "what was stopped runs again" in_guest "systemctl is-active -q ${busy[*]}"
in_guest "systemctl stop ${busy[*]}"
expect "the new ones are deleted" stillpoint restore --undo "$id"
nothing_left "taken back"

for then in continue undo; do
    held=$(sim faults add --action AttachVolume --kind hold-before --call 2 --at-most 30m)
    in_guest "systemd-run -q --unit exchange-$then -p StandardError=file:/run/restore.log -p StandardOutput=null stillpoint restore $set --in-place $these"
    sim faults wait "$held" --within "${patience}s" >/dev/null
    id=$(in_guest "sed -n 's/^restore \([-0-9a-f]*\)$/\1/p' /run/restore.log")
    sim faults release "$held" >/dev/null || true
    cut_power_and_boot
    sim faults clear
    in_guest 'mkdir -p /run/constants; for f in part xfs btr; do cp /srv/lvm/$f.constant /run/constants/$f; done'
    expect "power failure, --$then" stillpoint restore "--$then" "$id"
    as_before "power failure, --$then"
    if [ "$then" = continue ]; then
        of_the_set "power failure, --$then"
        expect "taken back" stillpoint restore --undo "$id"
    fi
    of_today "power failure, --$then, taken back"
    stillpoint restore --undo "$id" || true
    nothing_left "power failure, --$then"
done
