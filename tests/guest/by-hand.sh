# A guest with its stacks, until Ctrl-C: GUEST_SCRIPT=tests/guest/by-hand.sh scripts/test-guest
# shellcheck shell=bash source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

trap end_guest EXIT
fill_root
boot
make_stacks
note "console, QEMU's messages: $work"
note "a shell in the guest:  nsenter -t $$ -n ${in_guest[*]}"
note "ebs-sim:               nsenter -t $$ -n env EBS_SIM_DIR=$EBS_SIM_DIR $bin/ebs-sim requests"
note "Ctrl-C ends it"
wait "$qemu"
