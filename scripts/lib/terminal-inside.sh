# The part of scripts/draw-terminal that runs inside `ebs-sim run`. In: $work, $bin, $run_dir, $venv, $EBS_SIM_DIR; the picture's
# path. Out: the picture.
# shellcheck shell=bash source=../lib.sh
. "$(dirname "$0")/../lib.sh"

program=draw-terminal
a=$work/data b=$work/log
rescue=
mkdir "$a" "$b"
ended() {
    trap - EXIT
    fsfreeze -u "$a" 2>/dev/null || true
    fsfreeze -u "$b" 2>/dev/null || true
    umount "$a" "$b" || true
    [ -z "$rescue" ] || kill -KILL "$rescue" 2>/dev/null || true
}
trap ended EXIT

loop() { python3 -c 'import json, sys
for v in json.load(open(sys.argv[1]))["volumes"]:
    if v["name"] == sys.argv[2]: print(v["loop"])' "$EBS_SIM_DIR/ebs-sim.json" "$1"; }
mkfs.ext4 -q "$(loop data)"
mkfs.xfs -q "$(loop log)"
mount "$(loop data)" "$a"
mount "$(loop log)" "$b"
(sleep 300; fsfreeze -u "$a"; fsfreeze -u "$b") 2>/dev/null &
rescue=$!
dd if=/dev/urandom of="$a/orders" bs=1M count=64 status=none
sync -f "$a"

options="--config $work/stillpoint.toml --run-dir $run_dir --state-dir $work/state"
shown=("stillpoint plan" "stillpoint snapshot --wait" "stillpoint list" "stillpoint prune --dry-run")
# Sets that the picture's list and prune are about.
for _ in 1 2; do "$bin/stillpoint" snapshot --wait $options >/dev/null 2>&1; done
n=0
for command in "${shown[@]}"; do
    n=$((n + 1))
    printf '%s\n' "$command" >"$work/$n.command"
    TERM=xterm-256color script --quiet --return --flush --command \
        "stty cols 80 rows 60; $bin/$command $options" "$work/$n.typescript" >/dev/null </dev/null || true
done
"$venv/bin/python" "$(dirname "$0")/terminal.py" "$1" "$work" "$n"
