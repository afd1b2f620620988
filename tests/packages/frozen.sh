# Packages are upgraded and removed while filesystems are really frozen and applications are quiesced.
#
# In: see lib.sh; ebs-sim around it, with two volumes. Out: exit status 0 only if nothing was lost: each run goes on with
# the program that it was started from, and a removal waits or refuses.
# shellcheck shell=bash source=lib.sh
. "$(dirname "$0")/lib.sh"

json() { python3 -c "import json,sys; j = json.load(open(sys.argv[1])); print($2)" "$1"; }
mapfile -t loops < <(json "$EBS_SIM_DIR/ebs-sim.json" '"\n".join(v["loop"] for v in j["volumes"])')
mkfs.ext4 -q -F "${loops[0]}"
mkfs.xfs -q -f "${loops[1]}"
a=$work/a b=$work/b
mkdir "$a" "$b"
mount "${loops[0]}" "$a"
mount "${loops[1]}" "$b"

# Whatever becomes of this script: someone else thaws.
# shellcheck disable=SC2016
setsid sh -c 'sleep 240; for i in $(seq 60); do fsfreeze -u "$1"; fsfreeze -u "$2"; sleep 2; done' rescue "$a" "$b" \
    >/dev/null 2>&1 </dev/null &
rescue=$!
run=
ended() {
    trap '' INT TERM HUP
    trap - EXIT
    fsfreeze -u "$a" 2>/dev/null || true
    fsfreeze -u "$b" 2>/dev/null || true
    [ -z "$run" ] || kill -KILL "$run" 2>/dev/null || true
    kill -KILL -- "-$rescue" 2>/dev/null || true
}
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Of the installed program: which build is it?
build_of() { inside stillpoint --version | sed -n 's/^sources: //p'; }
notes() { cat "$a/../${root##*/}/run/notes" 2>/dev/null | tr '\n' ' '; }
note_is() { [ "$(notes)" = "$1" ] || { echo "noted: $(notes)" >&2 && return 1; }; }

# A bare root with the old package, both filesystems in it, and an application that notes what it is told.
installed() { # NAME KIND
    kind=$2
    fresh "$1" "$roots/${versions##* }"
    mkdir -p "$root/srv/a" "$root/srv/b"
    mount --bind "$a" "$root/srv/a"
    mount --bind "$b" "$root/srv/b"
    [ "$kind" = deb ] || command rpm --root "$root" --define '_dbpath /var/lib/rpm' --initdb
    put old || die "the old package cannot be installed"
    cat >"$root/etc/stillpoint/stillpoint.toml" <<'TOML'
[[hook]]
name = "app"
pre = ["/bin/sh", "-c", "echo quiesced >>/run/notes"]
post = ["/bin/sh", "-c", "echo released >>/run/notes"]
timeout = "30s"
TOML
    was=$(build_of)
}

put() { # old|next
    case $kind in
    deb) said_inside dpkg --force-confold --install "/tmp/$1.deb" ;;
    rpm) rpm --upgrade --oldpackage --nodeps "$root/tmp/$1.rpm" ;;
    esac
    [ "$status" = 0 ] || { printf '%s\n' "$said" >&2 && return 1; }
}

remove() {
    case $kind in
    deb) said_inside dpkg --remove stillpoint ;;
    rpm) rpm --erase stillpoint ;;
    esac
}

rpm() {
    status=0
    said=$(STILLPOINT_REMOVE_WAIT=1s command rpm --root "$root" --define '_dbpath /var/lib/rpm' "$@" 2>&1) || status=$?
}

upgraded() { [ "$(build_of)" != "$was" ]; }

# A run that stands in its window: everything is frozen, and EC2 holds the request back. In $run its process, in $fault the
# fault that holds it.
in_the_window() {
    rm -f "$root/run/notes"
    fault=$("$bin/ebs-sim" faults add --action CreateSnapshots --call 1 --kind hold-before)
    inside stillpoint snapshot --mount /srv/a --mount /srv/b --window 120s --output json >"$work/record" 2>"$work/said" &
    run=$!
    "$bin/ebs-sim" faults wait "$fault" >/dev/null || { cat "$work/said" >&2 && die "no run came into its window"; }
}

release_ec2() { "$bin/ebs-sim" faults release "$fault" >/dev/null; }

run_ended() { # the status of the run
    status=0
    wait "$run" || status=$?
    run=
    said=$(cat "$work/said")
}

# The kernel says so: whoever writes waits.
is_frozen() {
    touch "$1/probe" &
    local writer=$!
    sleep 0.5
    if kill -0 $writer 2>/dev/null && grep -qs '^State:.*disk sleep' "/proc/$writer/status"; then
        return 0
    fi
    wait $writer
    return 1
}

for kind in deb rpm; do
    say "$kind: an upgrade while everything is frozen"
    installed "frozen-$kind" $kind
    in_the_window
    expect "ext4 is frozen" is_frozen "$a"
    expect "XFS is frozen" is_frozen "$b"
    remove
    expect "a removal refuses" refused "goes on"
    expect "and names what ends the run" says "hint: wait for it, or end it, which thaws and releases first: kill "
    expect "the upgrade succeeds" put next
    expect "the next program is installed" upgraded
    expect "ext4 is still frozen" is_frozen "$a"
    said_inside stillpoint status
    expect "the next program knows the run" says "may be frozen: /srv/a /srv/b"
    release_ec2
    run_ended
    expect "the run ends with 0" ended_with 0
    expect "its set is application-consistent" [ "$(json "$work/record" 'j["achieved"]')" = application ]
    expect "the application was released, once" note_is "quiesced released "

    say "$kind: a removal after the death of a run that an upgrade met"
    put old
    in_the_window
    put next
    pid=$(inside stillpoint status --output json | python3 -c 'import json,sys; print(json.load(sys.stdin)["runs"][0]["pid"])')
    kill -KILL "$pid"
    run_ended
    # The watchdog's, of the program that is no longer installed.
    for _ in $(seq 300); do is_frozen "$a" || break; done
    expect "the watchdog has thawed" touch "$a/thawed" "$b/thawed"
    remove
    expect "a removal refuses" refused "has left something to be released"
    expect "and names what undoes it" says "hint: \`stillpoint thaw\` undoes what it left"
    expect "nothing was released by asking" note_is "quiesced "
    said_inside stillpoint thaw --recover
    expect "the next program's ExecStopPost releases" note_is "quiesced released "
    release_ec2 || true
    "$bin/ebs-sim" faults clear >/dev/null 2>&1 || true

    say "$kind: an upgrade while a freeze is held for others"
    put old
    rm -f "$root/run/notes"
    said_inside stillpoint freeze --for 120s --mount /srv/a --mount /srv/b
    expect "a freeze is held" ended_with 0
    expect "the upgrade succeeds" put next
    expect "the next program is installed" upgraded
    expect "ext4 is still frozen" is_frozen "$a"
    remove
    expect "a removal refuses" refused "holds a freeze"
    expect "and names what ends it" says "\`stillpoint thaw\` ends it"
    said_inside stillpoint thaw
    expect "the next program ends it: it held" ended_with 0
    expect "the application was released" note_is "quiesced released "

    say "$kind: a removal when nothing goes on"
    remove
    expect "is done" ended_with 0
    expect "and the program is gone" [ ! -e "$root/usr/bin/stillpoint" ]
done
finish
