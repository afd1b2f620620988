# The part of scripts/demo that runs inside `ebs-sim run`, where EC2 and IMDS answer.
# In: $work, $bin, $run_dir, and $EBS_SIM_DIR from ebs-sim. Out: exit status 0 only if all is as it must be.
# shellcheck shell=bash source=../lib.sh
. "$(dirname "$0")/../lib.sh"

program=demo
here=$(dirname "$0")
a=$work/data b=$work/log image=$work/image
mkdir "$a" "$b" "$image"
writer= rescue= device=

records() { python3 "$here/records.py" "$@"; }
sim() { "$bin/ebs-sim" "$@"; }
json() { python3 -c "import json,sys; j = json.load(open(sys.argv[1])); print($2)" "$1"; }

unmount() { if mountpoint -q "$1"; then umount "$1" || umount -l "$1" || true; fi; }

# Thaws first: a writer on a frozen filesystem cannot be ended, and unmounting a frozen one leaves it frozen
# for good.
ended() {
    trap '' INT TERM HUP
    trap - EXIT
    fsfreeze -u "$a" 2>/dev/null || true
    fsfreeze -u "$b" 2>/dev/null || true
    if [ -n "$writer" ] && kill -KILL "$writer" 2>/dev/null; then wait "$writer" 2>/dev/null || true; fi
    unmount "$image"
    [ -z "$device" ] || sim release-device "$device" || true
    unmount "$a"
    unmount "$b"
    [ -z "$rescue" ] || kill -KILL -- "-$rescue" 2>/dev/null || true
}
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Looks at the images of one pair of snapshots; sets journal, transactions, log_items, complaints, n_a and n_b
# (records without replay), r_a and r_b (after replay, as a crash would be recovered from). "-" where a view
# cannot be read.
inspect() { # SNAPSHOT-OF-DATA SNAPSHOT-OF-LOG
    device=$(sim snapshot-device "$1" --read-only)
    case $(dumpe2fs -h "$device" 2>/dev/null | grep '^Filesystem features:' || true) in
    *needs_recovery*) journal="needs recovery" ;;
    *has_journal*) journal=clean ;;
    *) journal=unreadable ;;
    esac
    n_a=$(view "ro,noload")
    sim release-device "$device" && device=
    device=$(sim snapshot-device "$1")
    r_a=$(view "rw")
    sim release-device "$device" && device=

    device=$(sim snapshot-device "$2" --read-only)
    # Freezing leaves the superblock's own transactions in the log, so it is never empty, and xfs_repair -n
    # always alerts: what counts is whether there is anything else in it.
    xfs_logprint -t "$device" >"$work/logprint" 2>&1 || true
    transactions=$(grep -c '^TRANS:' "$work/logprint" || true)
    log_items=$(grep -cE '^[A-Z]+:' <(grep -vE '^TRANS:|^LOG REC' "$work/logprint") || true)
    log_items=$((log_items - $(grep -c 'SUPER Block Buffer' "$work/logprint" || true)))
    xfs_repair -n "$device" >"$work/repair" 2>&1 || true
    # The counters in the superblock are brought up to date at mount, frozen or not.
    complaints=$(sed '/^ALERT/,/^which may be/d' "$work/repair" |
        grep -cvE '^(Phase|No modify|sb_(fdblocks|icount|ifree) |        - )' || true)
    grep -q '^Phase 7' "$work/repair" || complaints=unfinished
    n_b=$(view "ro,norecovery,nouuid")
    sim release-device "$device" && device=
    device=$(sim snapshot-device "$2")
    r_b=$(view "rw,nouuid")
    sim release-device "$device" && device=
}

view() { # MOUNT-OPTIONS
    if mount -o "$1" "$device" "$image" 2>/dev/null; then
        records count "$image" 2>>"$work/views" || echo "-"
        umount "$image"
    else
        echo "-"
    fi
}

number() { [ "$1" != - ]; }
in_order() { number "$1" && number "$2" && [ "$2" -le "$1" ] && [ "$1" -le $(($2 + 1)) ]; }
out_of_order() { number "$1" && number "$2" && ! in_order "$1" "$2"; }
within() { number "$1" && [ "$2" -le "$1" ] && [ "$1" -le "$3" ]; }

mapfile -t loops < <(json "$EBS_SIM_DIR/ebs-sim.json" '"\n".join(v["loop"] for v in j["volumes"])')
mapfile -t volumes < <(json "$EBS_SIM_DIR/ebs-sim.json" '"\n".join(v["id"] for v in j["volumes"])')
mkfs.ext4 -q -F "${loops[0]}"
mkfs.xfs -q -f "${loops[1]}"
mount "${loops[0]}" "$a"
mount "${loops[1]}" "$b"
note "ext4 on ${volumes[0]} at $a"
note "XFS  on ${volumes[1]} at $b"

# Whatever becomes of stillpoint and of this script: in a minute, someone else thaws, and goes on to for another.
# shellcheck disable=SC2016
setsid sh -c 'sleep 60; for i in $(seq 30); do fsfreeze -u "$1"; fsfreeze -u "$2"; sleep 2; done' rescue "$a" "$b" \
    >/dev/null 2>&1 </dev/null &
rescue=$!

python3 "$here/records.py" write "$a" "$b" "$work/writer.log" &
writer=$!
sleep 1
note "writer: record n synced on data, then on log; $(wc -l <"$work/writer.log") records in the first second"

options=(--run-dir "$run_dir" --state-dir "$work/state")
say "stillpoint plan"
"$bin/stillpoint" plan "${options[@]}" --mount "$a" --mount "$b" >&2

say "stillpoint snapshot"
status=0
"$bin/stillpoint" snapshot "${options[@]}" --mount "$a" --mount "$b" --output json >"$work/set.json" || status=$?
[ "$status" = 0 ] || die "stillpoint snapshot ended with $status"
snapshot_of() { json "$work/set.json" "next(s['id'] for s in j['snapshots'] if s['volume_id'] == '$1')"; }
set_a=$(snapshot_of "${volumes[0]}")
set_b=$(snapshot_of "${volumes[1]}")
label=$(json "$work/set.json" 'j["achieved"]')
window=$(json "$work/set.json" '"%.1f" % j["window_ms"]')
call=$(json "$work/set.json" '"%.1f" % j["call_ms"]')
sleep 0.5

say "The same two volumes by CreateSnapshot, one second apart, no freeze"
create() { sim call CreateSnapshot "VolumeId=$1" | sed -n 's:.*<snapshotId>\(.*\)</snapshotId>.*:\1:p'; }
pair_a=$(create "${volumes[0]}")
sleep 1
pair_b=$(create "${volumes[1]}")
[ -n "$pair_a" ] && [ -n "$pair_b" ] || die "ebs-sim took no snapshots"
note "$pair_a, $pair_b"
sleep 0.5
kill -TERM "$writer" && { wait "$writer" || true; }
writer=

say "Checking the frozen set"
inspect "$set_a" "$set_b"
read -r least most < <(records bounds "$work/writer.log" "$work/set.json")
frozen=("$label" "$journal" "$transactions / $log_items" "$complaints" "$n_a / $n_b" "$r_a / $r_b")
expect "stillpoint calls it filesystem-consistent" [ "$label" = filesystem ]
expect "ext4: the journal needs no recovery" [ "$journal" = clean ]
expect "XFS: only the superblock is in the log" [ "$((transactions > 0)) $log_items" = "1 0" ]
expect "XFS: xfs_repair -n finds nothing but the log" [ "$complaints" = 0 ]
expect "records without replay: $n_a on data, $n_b on log, in order" in_order "$n_a" "$n_b"
expect "as many as were synced when the request left ($least)" within "$n_b" "$least" "$most"
expect "replay changes nothing ($r_a, $r_b)" [ "$n_a/$n_b" = "$r_a/$r_b" ]

say "Checking that the unfrozen pair fails the same checks"
inspect "$pair_a" "$pair_b"
pair=("-" "$journal" "$transactions / $log_items" "$complaints" "$n_a / $n_b" "$r_a / $r_b")
controls=$faults
expect "ext4: the journal needs recovery" [ "$journal" = "needs recovery" ]
expect "XFS: there is more than the superblock in the log" [ "$log_items" -gt 0 ]
expect "records without replay are not all that were synced" [ "$n_a/$n_b" != "$r_a/$r_b" ]
expect "even after replay, out of order: $r_a on data, $r_b on log" out_of_order "$r_a" "$r_b"
controls=$((faults - controls))

{
    say "Summary"
    row() { printf '   %-34s %-18s %s\n' "$1" "$2" "$3"; }
    row "" "stillpoint's set" "unfrozen pair"
    row "label" "${frozen[0]}" "${pair[0]}"
    row "ext4 journal" "${frozen[1]}" "${pair[1]}"
    row "XFS log: transactions / items" "${frozen[2]}" "${pair[2]}"
    row "xfs_repair -n: complaints" "${frozen[3]}" "${pair[3]}"
    row "records without replay, data / log" "${frozen[4]}" "${pair[4]}"
    row "records after replay, data / log" "${frozen[5]}" "${pair[5]}"
    row "frozen window (EC2's answer)" "$window ms ($call ms)" "none"
} >&2
[ "$controls" = 0 ] || die "THE NEGATIVE CONTROL DID NOT FAIL AS IT MUST: these checks prove nothing"
[ "$faults" = 0 ] || die "$faults of the checks failed"
printf '\nThe set is consistent; the same checks reject the pair taken without a freeze.\n' >&2
