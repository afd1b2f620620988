# A restore is killed, loses its power or is refused at each of its steps: it goes on, or is taken back, and nothing is left.
# Sourced by ../inside.sh. In: $set.
# shellcheck shell=bash

few="--mount /srv/part --mount /srv/xfs --to /mnt/back"

# Starts a restore in the guest and comes back when it is at that step: a call of EC2's that ebs-sim holds, or a line of its own.
restore_until() { # STEP
    in_guest 'rm -f /run/restore.log; systemctl reset-failed restore.service 2>/dev/null; true'
    held=
    case $1 in
    *:*) held=$(sim faults add --action "${1#*:}" --kind "${1%%:*}" --call "$(calls "${1#*:}")" --at-most 30m) ;;
    esac
    in_guest "systemd-run -q --unit restore -p StandardError=file:/run/restore.log -p StandardOutput=null stillpoint restore $set $few"
    if [ -n "$held" ]; then
        sim faults wait "$held" --within "${patience}s" >/dev/null
    else
        await "«$1» in the restore's messages" in_guest "grep -q '$1' /run/restore.log"
    fi
    id=$(in_guest "sed -n 's/^restore \([-0-9a-f]*\)$/\1/p' /run/restore.log")
}

# The second of the calls that make one volume each.
calls() { [ "$1" = DescribeVolumes ] && echo 1 || echo 2; }

interrupted() { # STEP kill|power continue|undo
    local step=$1 how=$2 then=$3 text="$1, $2, --$3" status=0
    restore_until "$step"
    if [ "$how" = kill ]; then
        in_guest 'systemctl kill -s KILL restore.service'
        [ -z "$held" ] || sim faults release "$held" >/dev/null || true
    else
        [ -z "$held" ] || sim faults release "$held" >/dev/null || true
        cut_power_and_boot
        in_guest "cat >/run/records.sh" <"$guest_tests/inside/records.sh"
    fi
    sim faults clear
    in_guest "stillpoint restore --$then $id" >"$work/then" 2>&1 || status=$?
    expect "$text: it ends with 0" [ "$status" = 0 ]
    [ "$status" = 0 ] || sed 's/^/      /' "$work/then" >&2
    if [ "$then" = continue ]; then
        expect "$text: the filesystems are there" in_guest 'mountpoint -q /mnt/back/srv/part && cmp /srv/part/constant /mnt/back/srv/part/constant &&
            mountpoint -q /mnt/back/srv/xfs && cmp /srv/xfs/constant /mnt/back/srv/xfs/constant'
        in_guest "stillpoint restore --undo $id" >"$work/then" 2>&1 || sed 's/^/      /' "$work/then" >&2
    fi
    in_guest 'udevadm settle'
    if [ "$how" = kill ]; then
        untouched "$text: the originals are as they were" /mnt/back
    else
        untouched_since_boot "$text: the originals are as they were" /mnt/back
        # The next one is interrupted in this boot.
        state /mnt/back >"$work/before"
    fi
    nothing_left "$text"
}

refused() { # ACTION
    local status=0
    sim faults add --action "$1" --kind error --code InternalError --status 400 --call 2 --times 50 >/dev/null
    in_guest "stillpoint restore $set $few" >"$work/then" 2>&1 || status=$?
    sim faults clear
    expect "$1 is refused: it ends with 23, not with 0 ($status)" [ "$status" = 23 ]
    untouched "$1 is refused: the originals are as they were" /mnt/back
    nothing_left "$1 is refused"
}

say "Interrupted, and refused"
state /mnt/back >"$work/before"
refused AttachVolume
interrupted hold-after:CreateVolume kill continue
interrupted hold-after:AttachVolume kill undo
interrupted "is nvme" kill continue
interrupted "its UUID is" kill undo
interrupted "is mounted at" kill continue
interrupted hold-after:AttachVolume power undo
interrupted "its UUID is" power continue
