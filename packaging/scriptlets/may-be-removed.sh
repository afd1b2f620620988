# shellcheck shell=sh disable=SC2086,SC2116
# Shared by the packages' scripts that run before a removal (packaging/build puts it into them).
#
# In: the installed program, its timers and units; in STILLPOINT_REMOVE_WAIT, how long a run is waited for, 2m without
# it. Out: status 0 when stillpoint can be removed, with its timers stopped; else 1, with the reason and the command that
# ends it on stderr, and all timers as they were. Must never: end a run, or let the program be removed while something is
# frozen or waits to be released: only this program undoes that.

tell() { echo "stillpoint: $*" >&2; }

# Units of this program that are in this state (systemctl's word), a line each.
units_in_state() { # TYPE STATES
    [ -d /run/systemd/system ] || return 0
    systemctl list-units --no-legend --plain --type="$1" --state="$2" 'stillpoint*' 2>/dev/null | sed 's/ .*//' || true
}

program_is_idle() {
    status=0
    said=$(/usr/bin/stillpoint status --wait-idle "${STILLPOINT_REMOVE_WAIT:-2m}" 2>&1 >/dev/null) || status=$?
    [ "$status" != 0 ] || return 0
    case $status in
    11 | 40 | 41 | 42 | 75)
        tell "something would be lost:"
        echo "$said" >&2
        return 1
        ;;
    esac
    # The program itself does not work here. Without a journal nothing waits for it.
    for journal in /run/stillpoint/runs/*.json; do
        [ -e "$journal" ] || continue
        tell "status ended with $status, and a run has left $journal:"
        echo "$said" >&2
        tell "if nothing is frozen or waits to be released, remove that file"
        return 1
    done
    return 0
}

units_have_ended() {
    running=$(units_in_state service active,activating,deactivating,reloading)
    [ -n "$running" ] || return 0
    tell "these units are at work: $(echo $running)"
    tell "wait for them, or: systemctl stop $(echo $running)"
    return 1
}

may_be_removed() {
    # First, so that none begins while the last run is waited for.
    timers=$(units_in_state timer active)
    [ -z "$timers" ] || systemctl stop $timers
    if program_is_idle && units_have_ended; then
        restores_remain
        return 0
    fi
    [ -z "$timers" ] || systemctl start $timers || tell "start them again: systemctl start $(echo $timers)"
    tell "not removed"
    return 1
}

# Volumes that a restore has made stay attached, and are paid for.
restores_remain() {
    for record in /var/lib/stillpoint/restores/*.json; do
        [ -e "$record" ] || continue
        id=${record##*/}
        tell "warning: the volumes of restore ${id%.json} may still be attached; only stillpoint takes it back:" \
            "stillpoint restore --undo ${id%.json}"
    done
}
