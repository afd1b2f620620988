# Shared by packaging/build and what it calls; sourced, never run.
#
# In: the repository around it. Out: what scripts/lib.sh gives, and the commit, its time, the version, names of an
# architecture. Must never: take anything from the clock or the folder it runs in: both would be in what is built.
# shellcheck shell=bash source=../../scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

packaging=$repo/packaging
floor=2.17
maintainer=${STILLPOINT_MAINTAINER:-The stillpoint maintainers <maintainers@stillpoint.invalid>}

commit=$(git -C "$repo" rev-parse HEAD) || die "packages are built of a git clone: the commit is in them"
# Of the commit: the same for everybody who builds it.
SOURCE_DATE_EPOCH=$(git -C "$repo" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
export TZ=UTC

crate_version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n1)
# A commit that is not tagged as this version comes before it: dpkg and rpm sort ~ before everything.
version=${STILLPOINT_PACKAGE_VERSION:-$crate_version}
if [ -z "${STILLPOINT_PACKAGE_VERSION:-}" ] && [ "$(git -C "$repo" tag --points-at HEAD "v$crate_version")" = "" ]; then
    version=$crate_version~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${commit:0:7}
fi

debian_arch() {
    case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) die "no such architecture: $1" "x86_64 or aarch64" ;;
    esac
}

# The tools, exactly those of requirements.txt, in a folder that its content names.
need_zig() {
    local wanted root
    wanted=$(sha256sum "$packaging/lib/requirements.txt" | cut -c1-16)
    root=$cache/zig-$wanted
    if [ ! -x "$root/bin/cargo-zigbuild" ]; then
        need_packages python3:python3
        note "installing zig and cargo-zigbuild into $root"
        rm -rf "$root" "$root.new"
        { python3 -m venv "$root.new" &&
            again "$root.new/bin/pip" install --quiet --no-deps --require-hashes --only-binary :all: --target "$root.new/lib/here" \
                --requirement "$packaging/lib/requirements.txt"; } || die "zig could not be installed"
        mkdir -p "$root/bin"
        mv "$root.new/lib/here/ziglang" "$root/zig"
        mv "$root.new/lib/here/bin/cargo-zigbuild" "$root/bin/"
        rm -rf "$root.new"
        ln -s ../zig/zig "$root/bin/zig"
    fi
    zig=$root
}
