# A guest with real disks; sourced inside `ebs-sim run`, where EC2 and IMDS answer.
#
#   ebs-sim's volumes ── loop devices ── QEMU's NVMe ── the guest's /dev/nvmeXn1, with its volume's id as serial number
#   EC2 127.0.0.1:PORT, IMDS 169.254.169.254:80 ── QEMU's user network ── 10.0.2.2:PORT, 169.254.169.254:80
#
# In: $work (a folder), $image (what image/build made), $EBS_SIM_DIR, $AWS_ENDPOINT_URL_EC2. Out: the functions below. A wait is for a
# condition, and ends without it only when QEMU does, or after what no machine takes ($patience).
# shellcheck shell=bash source=../../scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

program=test-guest
guest_tests=$repo/tests/guest
# What was built meanwhile is not what is tested.
bin=$work/bin
patience=1800
ssh_port=2222
kernel=vmlinuz
qemu=

sim() { "$bin/ebs-sim" "$@"; }

# Waits until the command succeeds.
await() { # WHAT COMMAND…
    local what=$1 until=$((SECONDS + patience))
    shift
    until "$@"; do
        [ -z "$qemu" ] || kill -0 "$qemu" 2>/dev/null || die "QEMU ended before $what: $(tail -n3 "$work/qemu.log")"
        [ "$SECONDS" -lt "$until" ] || die "no $what after $patience s"
        sleep 0.3
    done
}

# --- volumes -----------------------------------------------------------------------------------------------

# A field of what ebs-sim says about the volume with this name: id, loop, …
volume() { # NAME FIELD
    python3 -c 'import json, sys
for v in json.load(open(sys.argv[1]))["volumes"]:
    if v["name"] == sys.argv[2]: print(v[sys.argv[3]])' "$EBS_SIM_DIR/ebs-sim.json" "$1" "$2"
}

# What the answer to one EC2 call has in this element, a line each.
ec2() { # ELEMENT ACTION [KEY=VALUE…]
    local element=$1 answer
    shift
    answer=$(sim call "$@") || die "$1 failed: $answer"
    grep -o "<$element>[^<]*</$element>" <<<"$answer" | sed "s:</*$element>::g" || true
}

# Puts what guests boot from onto the root volume, with the program and its configuration.
fill_root() {
    local root disk=$work/root.raw first loop mounted=$work/root
    root=$(volume root loop)
    cp --sparse=always --reflink=auto "$image/root.raw" "$disk"
    first=$(sgdisk -i 1 "$disk" | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
    mkdir -p "$mounted"
    # One that is taken away by itself at umount is now and then gone before umount has done so.
    loop=$(losetup --show --find --offset $((first * 512)) "$disk")
    mount "$loop" "$mounted"
    strip -o "$mounted/usr/bin/stillpoint" "$bin/stillpoint"
    cp "$repo"/systemd/*.service "$repo"/systemd/*.timer "$mounted/usr/lib/systemd/system/"
    mkdir -p "$mounted/etc/stillpoint"
    printf '[ec2]\nendpoint_url = "http://10.0.2.2:%s"\nvolume_interval = "0s"\n' "${AWS_ENDPOINT_URL_EC2##*:}" \
        >"$mounted/etc/stillpoint/stillpoint.toml"
    printf 'SetEnv AWS_ENDPOINT_URL_EBS=http://10.0.2.2:%s\n' "${AWS_ENDPOINT_URL_EC2##*:}" \
        >"$mounted/etc/ssh/sshd_config.d/endpoint.conf"
    chmod 644 "$mounted/etc/stillpoint/stillpoint.toml" "$mounted"/usr/lib/systemd/system/stillpoint*
    umount "$mounted"
    losetup --detach "$loop"
    dd if="$disk" of="$root" bs=4M conv=sparse,fsync status=none
    rm "$disk"
}

# Has the guest make the stacks.
make_stacks() {
    local name disks=()
    for name in part xfs btr lvm0 lvm1 md0 md1 luks two0 two1; do disks+=("$name=$(volume "$name" id | tr -d -)"); done
    run_inside stacks.sh "${disks[@]}" 2>&1 | sed 's/^/      /' >&2
}

# --- the guest ---------------------------------------------------------------------------------------------

# Starts a guest on the volumes that are attached to the scenario's instance, and waits for it. Its kernel comes from here: no boot
# loader is needed. What else it is to be told: arguments.
boot() { # [KERNEL ARGUMENT…]
    start_guest "" -kernel "$image/$kernel" \
        -append "root=PARTUUID=11111111-2222-3333-4444-555555555555 rw rootwait console=ttyS0 mitigations=off $*"
    await_guest
}

# Starts a guest as EC2 does: UEFI without variables looks for a boot loader on the volumes of an instance.
start_by_firmware() { # [INSTANCE]
    cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/variables"
    start_guest "${1:-}" -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
        -drive "if=pflash,format=raw,file=$work/variables"
}

start_guest() { # INSTANCE QEMU'S ARGUMENTS…
    local instance=$1 n ports=()
    shift
    rm -f "$work"/qmp "$work"/console "$work"/ssh
    for n in $(seq 0 25); do
        ports+=(-device "pcie-root-port,id=port$n,bus=pcie.0,chassis=$((n + 1)),addr=$(printf 0x%x $((n + 4)))")
    done
    qemu-system-x86_64 -S -nodefaults -no-user-config -display none -machine q35,memory-backend=ram \
        -object memory-backend-memfd,id=ram,size=1536M,share=on -accel tcg,thread=multi -cpu Nehalem,+rdrand -smp 2 \
        "$@" -serial "file:$work/console" -qmp "unix:$work/qmp,server=on,wait=off" \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$ssh_port-10.0.2.15:22" -device virtio-net-pci,netdev=net,romfile=,addr=0x3 \
        "${ports[@]}" </dev/null >"$work/qemu.log" 2>&1 &
    qemu=$!
    await "QEMU's socket" [ -S "$work/qmp" ]
    started=$SECONDS
    sim guest --qmp "$work/qmp" ${instance:+--instance "$instance"}
}

await_guest() {
    await "an answer from the guest" in_guest true 2>/dev/null
    note "a guest is up after $((SECONDS - started)) s"
}

# One connection serves all, so that a command does not wait for keys to be exchanged.
in_guest=(ssh -F none -i "$image/id" -p "$ssh_port" -o BatchMode=yes -o StrictHostKeyChecking=no
    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=20 -o ControlMaster=auto -o ControlPersist=yes
    -o "ControlPath=$work/ssh" root@127.0.0.1)

# Runs a script in the guest; its output and status are those of this.
in_guest() { # SCRIPT
    "${in_guest[@]}" "$1"
}

# The same with a file of inside/, and arguments.
run_inside() { # FILE [ARGUMENT…]
    local file=$1
    shift
    "${in_guest[@]}" "bash -s -- ${*@Q}" <"$guest_tests/inside/$file"
}

# The connection of before is of no use after a reboot.
forget_connection() {
    "${in_guest[@]}" -O exit 2>/dev/null || true
    rm -f "$work/ssh"
}

# Starts it again as a power failure does: nothing is written on the way.
cut_power_and_boot() { # [KERNEL ARGUMENT…]
    end_guest
    boot "$@"
}

shut_down() {
    [ -n "$qemu" ] || return 0
    in_guest 'systemctl poweroff' || true
    local until=$((SECONDS + patience))
    while kill -0 "$qemu" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || die "the guest does not shut down"
        sleep 0.3
    done
    end_guest
}

end_guest() {
    forget_connection
    if [ -n "$qemu" ]; then
        kill -KILL "$qemu" 2>/dev/null || true
        wait "$qemu" 2>/dev/null || true
        qemu=
        sim guest --none
    fi
}
