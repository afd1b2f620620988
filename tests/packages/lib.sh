# Shared by the tests of packages; sourced.
#
# In: $work, $old and $next (folders with a deb and an rpm each; next is of another build), the roots of scripts/test-packages.
# Out: roots to install in, and expectations that are counted. Must never: install anything on this machine.
# shellcheck shell=bash source=../../scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

here=$repo/tests/packages
program=test-packages

# A root of its own over one of the cache: what is written there goes with $work.
fresh() { # NAME ROOT-OF-THE-CACHE
    root=$work/$1
    mkdir -p "$root" "$work/$1.upper" "$work/$1.work"
    mount -t overlay -o "lowerdir=$2,upperdir=$work/$1.upper,workdir=$work/$1.work" "test-$1" "$root"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs -o mode=755 run "$root/run"
    cp "$old"/*.deb "$root/tmp/old.deb"
    cp "$old"/*.rpm "$root/tmp/old.rpm"
    cp "$next"/*.deb "$root/tmp/next.deb"
    cp "$next"/*.rpm "$root/tmp/next.rpm"
}

# What it prints is for people only when it fails.
quietly() { # COMMAND…
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && return 1; }
}

# In the root, without what this machine has in its environment, but where EC2 is.
inside() { # COMMAND…
    local name keep=()
    for name in "${!AWS_@}"; do keep+=("$name=${!name}"); done
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        STILLPOINT_REMOVE_WAIT=1s "${keep[@]}" "$@"
}

# The same; its status is in $status, what it said in $said.
said_inside() { # COMMAND…
    status=0
    said=$(inside "$@" 2>&1) || status=$?
}

says() { # PATTERN
    [[ $said == *$1* ]] || { printf '%s\n' "$said" >&2 && return 1; }
}

ended_with() { # STATUS
    [ "$status" = "$1" ] || { printf 'status %s\n%s\n' "$status" "$said" >&2 && return 1; }
}

refused() { # PATTERN
    [ "$status" != 0 ] && says "$1" && [ -x "$root/usr/bin/stillpoint" ]
}

# What a package has put there: mode, owner, place; a link with where it leads.
files_of_deb() {
    inside dpkg-query --listfiles stillpoint | sort | while read -r file; do
        # Folders of others are in the list, too.
        case $file in
        *stillpoint* | /etc/needrestart*) inside stat --printf '%a %U:%G %F %n\n' "$file" ;;
        esac
    done
}

files_of_rpm() {
    rpm --root "$root" --query --list stillpoint | sort | while read -r file; do
        inside stat --printf '%a %U:%G %F %n\n' "$file"
    done
}

same_as() { # FILE-OF-THE-REPOSITORY, stdin
    local got=$work/got
    sed -e 's/regular \(empty \)\?file/file/' >"$got"
    if [ -n "${TESTS_UPDATE:-}" ]; then cp "$got" "$1"; fi
    diff -u "$1" "$got" >&2
}

finish() {
    [ "$faults" = 0 ] || die "$faults of the expectations failed"
}
