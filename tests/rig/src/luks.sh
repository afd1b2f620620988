#!/bin/sh
# Stands in for cryptsetup and dmsetup, where the kernel has no device mapper: at the boundary between stillpoint and those
# programs, which is their arguments, their exit codes, and what the kernel then says in /sys.
#
#   header     of LUKS 1, as far as stillpoint reads it; at 1024, the SHA-256 of its key
#   open       a loop device of all behind the header, which ebs-sim's /sys shows as one of device mapper
#   @HOLDS@    STEP.hold makes it wait at that step, and say so with STEP.held
#
# In: cryptsetup's and dmsetup's arguments, as stillpoint gives them. Out: their exit codes.
set -eu
holds=@HOLDS@
echo $$ >"$holds/$$.pid"
behind=1048576
mapped=/sys/devices/stillpoint-mapped/block

hold() { # STEP
    [ -e "$holds/$1.hold" ] || return 0
    mv "$holds/$1.hold" "$holds/$1.held"
    while [ -e "$holds/$1.held" ]; do sleep 0.02; done
}
at() { # NODE OFFSET LENGTH
    dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none | tr -d '\0'
}
put() { # NODE OFFSET, in: bytes
    dd of="$1" oflag=seek_bytes seek="$2" conv=notrunc,fsync status=none
}
# The link of a number, and those of its names.
show() { # LOOP'S NUMBER, TO WHERE, NAME, THE OTHER NAME
    ln -sfn "$2" "/sys/dev/block/7:$1"
    for folder in /sys/block /sys/class/block; do
        rm -f "$folder/$4"
        ln -sfn "$2" "$folder/$3"
    done
}
# ebs-sim makes the links anew whenever a disk comes or goes.
show_all() {
    for folder in "$mapped"/dm-*; do
        [ ! -d "$folder" ] || show "${folder##*dm-}" "$folder" "${folder##*/}" "loop${folder##*dm-}"
    done
}
in_use() { # NODE
    ! perl -e 'use Fcntl; sysopen(F, $ARGV[0], O_RDONLY | O_EXCL) or exit 1' "$1"
}

case "${0##*/}:$1" in
cryptsetup:luksFormat) # NODE KEY-FILE
    head -c 4096 /dev/zero | put "$2" 0
    printf 'LUKS\272\276\000\001' | put "$2" 0
    printf '%s' 11111111-2222-3333-4444-555555555555 | put "$2" 168
    sha256sum <"$3" | cut -c1-64 | tr -d '\n' | put "$2" 1024
    ;;
cryptsetup:luksUUID) # --batch-mode --uuid UUID NODE
    [ "$2 $3" = "--batch-mode --uuid" ]
    hold before-uuid
    printf '%s' "$4" | put "$5" 168
    hold after-uuid
    ;;
cryptsetup:open) # --type luks --key-file - NODE NAME
    [ "$2 $3 $4 $5" = "--type luks --key-file -" ]
    node=$6 name=$7
    key=$(sha256sum | cut -c1-64)
    hold before-open
    if [ "$key" != "$(at "$node" 1024 64)" ]; then
        echo "No key available with this passphrase." >&2
        exit 2
    fi
    number=$((0x$(stat -c %t "$node"))):$((0x$(stat -c %T "$node")))
    below=$(basename "$(readlink "/sys/dev/block/$number")")
    loop=$(losetup --show --find --offset $behind "$node")
    n=${loop#/dev/loop}
    folder=$mapped/dm-$n
    mkdir -p "$folder/dm" "$folder/holders" "$folder/slaves/$below"
    for file in dev size stat ro inflight queue removable range; do
        ln -s "/sys/devices/virtual/block/loop$n/$file" "$folder/$file"
    done
    echo "$name" >"$folder/dm/name"
    echo "CRYPT-LUKS1-$(at "$node" 168 36 | tr -d -)-$name" >"$folder/dm/uuid"
    show_all
    hold after-open
    ;;
dmsetup:remove) # --retry --uuid UUID
    [ "$2 $3" = "--retry --uuid" ]
    hold before-remove
    for folder in "$mapped"/dm-*; do
        [ "$(cat "$folder/dm/uuid" 2>/dev/null)" = "$4" ] || continue
        n=${folder##*dm-}
        if in_use "/dev/loop$n"; then
            echo "device-mapper: remove ioctl failed: Device or resource busy" >&2
            exit 1
        fi
        losetup --detach "/dev/loop$n"
        while [ -n "$(losetup --noheadings --list --output BACK-FILE "/dev/loop$n" 2>/dev/null)" ]; do sleep 0.02; done
        rm -r "$folder"
        show "$n" "/sys/devices/virtual/block/loop$n" "loop$n" "dm-$n"
        show_all
        hold after-remove
        exit 0
    done
    echo "Device does not exist" >&2
    exit 1
    ;;
*)
    echo "${0##*/} $*: not stood in for" >&2
    exit 9
    ;;
esac
