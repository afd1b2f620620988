# Runs in the guest: prints what must not change while something is restored beside it: where the names of disks lead, what is
# mounted of what, since when mount units are active, what LVM, md and btrfs put together, what is in the files. A line that
# speaks of what was restored is left out: where it is one that spoke of originals alone before, it is missing. Disks have their
# serial numbers and mapped devices their names in it, since what the kernel counts them as is another thing after each boot.
# In: the folder of the restore, and the serial numbers of its disks.
set -u
beside=$1
shift
theirs=$beside
renamed=()
for disk in /sys/block/nvme*; do renamed+=(-e "s/\\b${disk##*/}(p[0-9]+)?\\b/$(tr -d ' ' <"$disk/device/serial")\\1/g"); done
for mapped in /sys/block/dm-*; do [ ! -e "$mapped" ] || renamed+=(-e "s/\\b${mapped##*/}\\b/$(cat "$mapped/dm/name")/g"); done
steady() { sed -E "${renamed[@]}"; }
# Either disk of a btrfs stands for it.
whole() { # DEVICE
    local folder to=$1
    for folder in /sys/fs/btrfs/*-*; do
        [ -e "$folder/devices/$to" ] && [ "$(find "$folder/devices" -type l | wc -l)" -gt 1 ] && to=${folder##*/}
    done
    echo "$to"
}
# Also the device behind its number, since its name is only what it was mounted by. That of a btrfs is nobody's.
mounted() {
    local number source rest
    while read -r number source rest; do
        case $number in
        0:*) number=btrfs source=$(whole "${source##*/}") ;;
        *) number=$(basename "$(readlink -f "/sys/dev/block/$number")") ;;
        esac
        echo "mount $source $number $rest"
    done < <(findmnt -rn -v -o MAJ:MIN,SOURCE,TARGET,UUID,OPTIONS -t ext4,xfs,btrfs,vfat)
}
for disk in /sys/block/nvme*; do
    serial=$(tr -d ' ' <"$disk/device/serial")
    case " $* " in *" $serial "*) ;; *) continue ;; esac
    # LVM says of no thin volume which disks it is on: by the name of its group.
    theirs+="|${disk##*/}(p[0-9]+)?\\b|$serial|_r[0-9a-f]{8}\\b"
    # What lies on it (a thin volume on its pool, that on its data), and the filesystem that it is a part of.
    for on in "$disk"/holders/* "$disk"/holders/*/holders/* "$disk"/holders/*/holders/*/holders/*; do [ ! -e "$on" ] || theirs+="|\\b${on##*/}\\b"; done
    for folder in /sys/fs/btrfs/*-*; do [ ! -e "$folder/devices/${disk##*/}" ] || theirs+="|${folder##*/}"; done
done
{
    # by-path, by-diskseq and by-id go by the place and the serial number: nobody contests them.
    for link in /dev/disk/by-{uuid,label,partuuid,partlabel}/*; do
        to=$(readlink "$link") && echo "name ${link#/dev/disk/by-} $(whole "${to##*/}")"
    done
    mounted
    mapfile -t units < <(systemctl list-units --no-legend --plain --type=mount --state=active | cut -d' ' -f1)
    systemctl show -p Where -p InvocationID -- "${units[@]}" | paste -s -d ' ' | sed 's/  /\n/g' | sed 's/^/unit /'
    systemctl --failed --no-legend --plain | sed 's/^/failed /'
    lvs --noheadings -o vg_name,lv_name,lv_attr,devices 2>/dev/null | tr -s ' ' | sed 's/^ */lv /; s/ *$//'
    # Members in an order that is not that of their names.
    grep ^md /proc/mdstat | sed 's/\[[0-9]*\]//g' | steady | while read -r -a words; do
        echo "${words[@]:0:4}" "$(printf '%s\n' "${words[@]:4}" | sort | tr '\n' ' ')"
    done
    for folder in /sys/fs/btrfs/*-*; do
        echo "btrfs ${folder##*/} $(find "$folder/devices" -type l -printf '%f\n' | steady | sort | tr '\n' ' ')"
    done
    sha256sum /srv/*/constant
} | grep -vE "$theirs" | steady | sort
