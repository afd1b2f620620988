# Runs in the guest: prints what must not change while something is restored beside it: where the names of disks lead, what is
# mounted of what, since when mount units are active, what LVM, md and btrfs put together, what is in the files. A line that
# speaks of what was restored is left out: where it is one that spoke of originals alone before, it is missing.
# In: the folder of the restore, and the serial numbers of its disks.
set -u
beside=$1
shift
theirs=$beside
for disk in /sys/block/nvme*; do
    serial=$(tr -d ' ' <"$disk/device/serial")
    case " $* " in *" $serial "*) ;; *) continue ;; esac
    theirs+="|${disk##*/}(p[0-9]+)?\\b"
    # What lies on it, and the filesystem that it is a part of.
    for on in "$disk"/holders/* "$disk"/holders/*/holders/*; do [ ! -e "$on" ] || theirs+="|\\b${on##*/}\\b"; done
    for folder in /sys/fs/btrfs/*-*; do [ ! -e "$folder/devices/${disk##*/}" ] || theirs+="|${folder##*/}"; done
done
{
    # by-path, by-diskseq and by-id go by the place and the serial number: nobody contests them.
    for link in /dev/disk/by-{uuid,label,partuuid,partlabel}/*; do
        to=$(readlink "$link") && to=${to##*/} || continue
        # Either disk of a btrfs has its name.
        for folder in /sys/fs/btrfs/*-*; do
            [ -e "$folder/devices/$to" ] && [ "$(find "$folder/devices" -type l | wc -l)" -gt 1 ] && to=${folder##*/}
        done
        echo "name ${link#/dev/disk/by-} $to"
    done
    findmnt -rn -o TARGET,SOURCE,UUID,MAJ:MIN,OPTIONS -t ext4,xfs,btrfs,vfat | sed 's/^/mount /'
    mapfile -t units < <(systemctl list-units --no-legend --plain --type=mount --state=active | cut -d' ' -f1)
    systemctl show -p Where -p InvocationID -- "${units[@]}" | paste -s -d ' ' | sed 's/  /\n/g' | sed 's/^/unit /'
    systemctl --failed --no-legend --plain | sed 's/^/failed /'
    lvs --noheadings -o vg_name,lv_name,lv_attr,devices 2>/dev/null | tr -s ' ' | sed 's/^ */lv /; s/ *$//'
    grep ^md /proc/mdstat
    for folder in /sys/fs/btrfs/*-*; do
        echo "btrfs ${folder##*/} $(find "$folder/devices" -type l -printf '%f\n' | sort | tr '\n' ' ')"
    done
    sha256sum /srv/*/constant
} | grep -vE "$theirs" | sort
