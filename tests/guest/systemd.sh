# At home on a host: installed as a package, started by its timers, read back from the journal, killed with / frozen, rebooted and
# without power in the window, beside mount, automount and path units, with a swap file on /; then the same run under control groups
# of version 1, and under the oldest and the newest kernel that Debian has for clouds. Sourced by inside.sh. In: $packages, a folder
# with the package; the guest, up, with its stacks.
# shellcheck shell=bash

unit=stillpoint@default.service
all_mounts='/ /srv/btr /srv/lvm /srv/luks /srv/md /srv/part /srv/two /srv/xfs'

# A property of a unit.
of() { in_guest "systemctl show -P $2 $1"; }
ended() { [[ $(of "$1" ActiveState) =~ ^(inactive|failed)$ ]]; }
# How often it has ended in this boot: well, or not (systemd's UNIT_SUCCESS and UNIT_FAILURE_RESULT). systemd forgets the rest of a
# unit that is not at work.
ends() {
    in_guest "journalctl --boot -o cat _PID=1 UNIT=$1 MESSAGE_ID=7ad2d189f7e94e70a38c781354912448 MESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c | grep -c ." || true
}
has_ended() { [ "$(ends "$1")" -gt "$2" ] && ended "$1"; }

# Waits until a unit has run once more. What starts it: arguments.
run_of() { # UNIT COMMAND…
    local of_unit=$1 before
    before=$(ends "$1")
    shift
    # How it ended is looked at afterwards.
    "$@" || true
    await "the end of $of_unit" has_ended "$of_unit" "$before"
}

# The fields of the last entry with this event in this boot, or in another one.
entry() { # EVENT FIELD [BOOT]
    in_guest "journalctl -o json --boot=${3:-0} _UID=0 STILLPOINT_EVENT=$1 2>/dev/null | tail -n1" |
        python3 -c 'import json, sys
line = sys.stdin.read().strip()
print(json.loads(line).get(sys.argv[1], "") if line else "")' "$2"
}

# Each writer goes on: of all filesystems, also / with the journal.
writers_go_on() {
    local first
    first=$(in_guest "$counts")
    await "more records of all writers" more_than "$first"
}
more_than() {
    local now
    now=$(in_guest "$counts") || return 1
    # A name and a number on each line, in the same order.
    paste -d: <(echo "$1") <(echo "$now") | awk -F: '$1 != $3 || $4 <= $2 { bad = 1 } END { exit bad || NR == 0 }'
}
start_writers() {
    in_guest "systemctl start ${writers//$'\n'/ }"
    await "records of all writers" in_guest '[ "$(cat /run/writer/*[!w] 2>/dev/null | wc -l)" = 8 ]'
}

# A run of the unit is in its window: EC2 has its request, and does not answer.
in_the_window() {
    held=$(sim faults add --action CreateSnapshots --kind hold-before --call 1 --at-most 30m)
    in_guest "systemctl start --no-block $unit"
    sim faults wait "$held" --within "${patience}s" >/dev/null
}
# shellcheck disable=SC2016
may_be_frozen() {
    in_guest 'stillpoint status -o json' | python3 -c 'import json, sys
print(*sorted({m for run in json.load(sys.stdin)["runs"] for m in run["may_be_frozen"]}))'
}
nothing_is_frozen() { # TEXT
    local status=0
    in_guest 'stillpoint status --probe' >"$work/said" 2>&1 || status=$?
    [ "$status" = 0 ] || sed 's/^/      /' "$work/said" >&2
    expect "$1: nothing is frozen, says the kernel" [ "$status" = 0 ]
    writers_go_on
    expect "$1: all writers go on" true
}

a_set() { # TEXT
    run_of "$unit" in_guest "systemctl start $unit"
    expect "$1: the unit ends well" [ "$(of "$unit" Result)" = success ]
    expect "$1: a filesystem-consistent set, in the journal" \
        [ "$(entry set-taken STILLPOINT_LABEL):$(entry set-taken _SYSTEMD_UNIT)" = "filesystem:$unit" ]
    [ "$(of "$unit" Result)" = success ] || in_guest "journalctl -b -u $unit -o cat | tail -n 20" | sed 's/^/      /' >&2
}

# Everything of the unit is killed, the watchdog and the freezer as well: systemd thaws, by ExecStopPost=.
killed() { # TEXT
    in_the_window
    expect "$1: everything is frozen, / too" [ "$(may_be_frozen | tr ' ' '\n' | grep -cxF -f <(tr ' ' '\n' <<<"$all_mounts"))" = 8 ]
    in_guest "systemctl kill --signal=KILL $unit"
    await "the end of $unit" ended "$unit"
    sim faults clear
    expect "$1: the unit has failed by the signal" [ "$(of "$unit" Result)" = signal ]
    nothing_is_frozen "$1"
    await "what was undone, in the journal" undone
    expect "$1: the journal says what was undone" [ "$(entry run-recovered _SYSTEMD_UNIT)" = "$unit" ]
    in_guest "systemctl reset-failed $unit"
}
undone() { [ -n "$(entry run-recovered MESSAGE_ID)" ]; }

say "Installed as a package"
in_guest 'rm /usr/bin/stillpoint /usr/lib/systemd/system/stillpoint*; systemctl daemon-reload; cat >/var/tmp/stillpoint.deb' <"$(ls "$packages"/*.deb)"
expect "dpkg installs it" in_guest 'dpkg --force-confold --install /var/tmp/stillpoint.deb >/run/said 2>&1 || { cat /run/said >&2; false; }'
expect "its programs are there, and nothing of it is enabled" in_guest 'stillpoint --version >/run/said && test -x /usr/bin/stillpoint-databases &&
    ! systemctl list-unit-files --state=enabled "stillpoint*" | grep -q ^stillpoint'
expect "its folder in /run is as tmpfiles.d has it" [ "$(in_guest 'stat -c "%a %U" /run/stillpoint')" = "711 root" ]
expect "completions are where bash looks" in_guest 'test -s /usr/share/bash-completion/completions/stillpoint'
expect "AppArmor enforces profiles" in_guest 'grep -q Y /sys/module/apparmor/parameters/enabled && grep -q "(enforce)" /sys/kernel/security/apparmor/profiles'
expect "control groups are of version 2" [ "$(in_guest 'stat -f -c %T /sys/fs/cgroup')" = cgroup2fs ]
in_guest 'cat >/etc/stillpoint/config.d/guest.toml
    for of in "" -verify; do mkdir -p /etc/systemd/system/stillpoint$of@.service.d
        printf "[Service]\nEnvironment=AWS_ENDPOINT_URL_EBS=$AWS_ENDPOINT_URL_EBS\n" >/etc/systemd/system/stillpoint$of@.service.d/guest.conf; done
    for of in "" -verify -prune; do mkdir -p /etc/systemd/system/stillpoint$of@.timer.d
        printf "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\n" >/etc/systemd/system/stillpoint$of@.timer.d/guest.conf; done
    dd if=/dev/zero of=/swapfile bs=1M count=16 status=none; chmod 600 /swapfile; mkswap /swapfile >/dev/null; swapon /swapfile
    systemctl daemon-reload' <<'TOML'
[defaults]
window = "4m"
[plan.default.keep]
last = 100
TOML
expect "the configuration is one" in_guest 'stillpoint config check >/run/said 2>&1 || { cat /run/said >&2; false; }'

say "By its timers, and read back"
start_writers
run_of "$unit" in_guest 'systemctl enable --now stillpoint@default.timer'
expect "the timer has started the unit, which ends well" [ "$(of "$unit" Result)" = success ]
said=$(in_guest "systemctl status --lines=40 $unit" || true)
expect "systemctl status: what it is" grep -q "$unit - Consistent EBS snapshot set (plan default)" <<<"$said"
expect "what started it" grep -q 'TriggeredBy: .*stillpoint@default.timer' <<<"$said"
expect "how it ended" grep -q 'Main PID: .*status=0/SUCCESS' <<<"$said"
expect "and what was taken" grep -q 'filesystem-consistent, 11 of 11 volumes' <<<"$said"
expect "the journal has the set, by fields and MESSAGE_ID" [ "$(entry set-taken MESSAGE_ID):$(entry set-taken STILLPOINT_PLAN):$(entry set-taken STILLPOINT_LABEL)" = \
    9c12a663f3b34e918389876b96d92960:default:filesystem ]
id=$(entry set-taken STILLPOINT_SET)
expect "with its window and its snapshots" [ "$(entry set-taken STILLPOINT_WINDOW_MS | grep -cE '^[0-9.]+$'):$(entry set-taken STILLPOINT_SNAPSHOTS | wc -w)" = 1:11 ]
expect "the set of the journal is the one that list has" in_guest "stillpoint list -o json | grep -q $id"
expect "the catalog explains it" in_guest "journalctl --catalog --boot MESSAGE_ID=9c12a663f3b34e918389876b96d92960 | grep -q 'until .stillpoint wait $id. says that it is complete'"
run_of stillpoint-prune@default.service in_guest 'systemctl start stillpoint-prune@default.timer'
expect "the prune timer: its unit ends well, in its sandbox" [ "$(of stillpoint-prune@default.service Result)" = success ]
await "the completion of its snapshots" all_completed
run_of stillpoint-verify@default.service in_guest 'systemctl start stillpoint-verify@default.timer'
expect "the verify timer: its unit ends well, in its sandbox" [ "$(of stillpoint-verify@default.service Result)" = success ]
expect "and the ledger has it" in_guest "stillpoint list -o json | python3 -c 'import json, sys; print(json.load(sys.stdin))' | grep -q \"'verified': {\""
# Beside their originals, with udev at work, in the unit's own sandbox: every filesystem, what is in LUKS by its key.
in_guest 'printf "[defaults]\nluks_key_files = [\"/etc/luks.key\"]\n" >/etc/stillpoint/config.d/keys.toml'
run_of stillpoint-verify-restore@default.service in_guest 'systemctl start stillpoint-verify-restore@default.service'
expect "the unit that restores and verifies ends well" [ "$(of stillpoint-verify-restore@default.service Result)" = success ]
[ "$(of stillpoint-verify-restore@default.service Result)" = success ] || in_guest 'journalctl -b -o cat -u stillpoint-verify-restore@default.service | tail -n 30' | sed 's/^/      /' >&2
expect "it has looked at each filesystem" in_guest "journalctl -b -o cat -u stillpoint-verify-restore@default.service | tee /run/said | grep -qi sound"
nothing_left "verified"
in_guest 'systemctl disable --now stillpoint@default.timer stillpoint-verify@default.timer stillpoint-prune@default.timer 2>/dev/null'

say "Killed with / frozen, journald on it"
killed "killed"
a_set "afterwards"

say "Rebooted, and without power, in the window"
in_the_window
boot_of() { in_guest 'cat /proc/sys/kernel/random/boot_id'; }
is_another_boot() { local now; now=$(boot_of 2>/dev/null) && [ "$now" != "$was" ]; }
was=$(boot_of)
in_guest 'systemctl --no-block reboot' || true
forget_connection
await "another boot" is_another_boot
sim faults clear
expect "rebooted in the window: the run was stopped, and has said so" [ "$(entry set-failed _SYSTEMD_UNIT -1)" = "$unit" ]
start_writers
nothing_is_frozen "after the reboot"
a_set "after the reboot"
in_the_window
cut_power_and_boot
sim faults clear
start_writers
nothing_is_frozen "without power in the window, then booted"
a_set "without power in the window, then booted"
expect "no set but the whole ones counts as one" in_guest "stillpoint list -o json | python3 -c '
import json, sys
sets = json.load(sys.stdin)[\"sets\"]
sys.exit(not sets or any(s[\"achieved\"] and (s[\"missing\"] or len(s[\"members\"]) != 11) for s in sets))'"

say "Unmounted, beside mount, automount and path units"
in_guest 'systemctl stop writer@srv-xfs.service writer@srv-part.service
    printf "[plan.default]\nstop_units = [\"seen.path\"]\n[plan.default.methods]\n\"/srv/xfs\" = \"unmount\"\n\"/srv/part\" = \"unmount\"\n" >/etc/stillpoint/config.d/unmount.toml
    sed -i "s:\(/srv/part ext4 defaults,nofail\):\1,x-systemd.automount:" /etc/fstab
    printf "[Path]\nPathExists=/srv/xfs/trigger\n" >/etc/systemd/system/seen.path
    printf "[Service]\nType=oneshot\nExecStart=/bin/sh -c \"rm /srv/xfs/trigger; echo seen >>/run/seen\"\n" >/etc/systemd/system/seen.service
    umount /srv/part; systemctl daemon-reload; systemctl start srv-part.automount seen.path; ls /srv/part/constant >/dev/null'
a_set "with two filesystems unmounted"
expect "they were unmounted, not frozen" in_guest "grep -q unmount /var/lib/stillpoint/sets/$(entry set-taken STILLPOINT_SET).json"
expect "their mount units are active" [ "$(in_guest 'systemctl is-active srv-xfs.mount srv-part.automount' | sort -u)" = active ]
expect "the automount mounts" in_guest 'ls /srv/part/constant >/dev/null && findmnt -n -t ext4 /srv/part >/dev/null'
expect "nothing was triggered" in_guest '[ ! -e /run/seen ]'
# Its watches end with the mount, and a mount is not told to anybody who watches: so it is stopped and started with it.
in_guest 'touch /srv/xfs/trigger'
await "the path unit" in_guest '[ -e /run/seen ]'
expect "the path unit still sees what is written" true
expect "no unit has failed by it" [ -z "$(in_guest 'systemctl --failed --no-legend')" ]
in_guest 'rm /etc/stillpoint/config.d/unmount.toml; systemctl stop seen.path; systemctl start writer@srv-xfs.service writer@srv-part.service'

say "Removed"
held=$(sim faults add --action DescribeVolumes --kind hold-before --call 1 --at-most 30m)
in_guest "systemctl start --no-block $unit"
sim faults wait "$held" --within "${patience}s" >/dev/null
expect "while a run goes on, dpkg refuses to remove it" in_guest '! STILLPOINT_REMOVE_WAIT=1s dpkg --remove stillpoint >/run/said 2>&1 && test -x /usr/bin/stillpoint'
sim faults release "$held" >/dev/null
await "the end of $unit" ended "$unit"
expect "and the run has ended well" [ "$(of "$unit" Result)" = success ]

for variant in "version 1 of control groups|vmlinuz|systemd.unified_cgroup_hierarchy=0" "the oldest kernel|vmlinuz-oldest|" "the newest kernel|vmlinuz-newest|"; do
    IFS='|' read -r text kernel arguments <<<"$variant"
    say "The same with $text"
    shut_down
    boot "$arguments"
    note "kernel $(in_guest 'uname -r'), control groups on $(in_guest 'stat -f -c %T /sys/fs/cgroup')"
    case $kernel in
    vmlinuz) expect "control groups are of version 1" [ "$(in_guest 'stat -f -c %T /sys/fs/cgroup')" = tmpfs ] ;;
    *) expect "it is not the kernel of before" [ "$(in_guest 'uname -r | cut -d. -f1,2')" != 6.1 ] ;;
    esac
    start_writers
    a_set "$text"
    killed "$text"
done
kernel=vmlinuz
in_guest "systemctl stop ${writers//$'\n'/ }"
expect "removed and purged, nothing of it is left but what it has written" in_guest 'dpkg --purge stillpoint >/run/said 2>&1 || { cat /run/said >&2; false; }
    [ ! -e /usr/bin/stillpoint ] && ! ls /lib/systemd/system | grep -q ^stillpoint'
