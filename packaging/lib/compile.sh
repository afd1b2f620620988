# Compiles the two programs for one architecture; sourced by packaging/build.
#
# In: the sources, zig. Out: $built/stillpoint and $built/stillpoint-databases, which need no newer glibc than $floor. Must
# never: put a path of this machine into them, or touch the toolchain of this machine.
# shellcheck shell=bash source=common.sh

# What a release is built with; the last prefix that fits counts.
rust_flags() { # TARGET-FOLDER
    printf -- '--remap-path-prefix=%s=/cargo\x1f--remap-path-prefix=%s=/target\x1f--remap-path-prefix=%s=/stillpoint' \
        "${CARGO_HOME:-$HOME/.cargo}" "$1" "$repo"
}

compile() { # ARCH
    local arch=$1 folder=$cache/release
    local triple=$arch-unknown-linux-gnu
    need_cargo
    need_zig
    export STILLPOINT_BUILD_COMMIT=$commit STILLPOINT_BUILD_FLOOR="glibc $floor"
    # packaging/check gives each of its clones a folder of its own.
    folder=${STILLPOINT_RELEASE_DIR:-$folder}
    mkdir -p "$folder"
    local run=(env) std
    std=$(rustc --print target-libdir --target "$triple")
    if [ ! -d "$std" ]; then
        note "this toolchain has no standard library for $triple: Debian's compiler is used, in a folder of its own"
        note "(rustup target add $triple would do, too)"
        need_builder
        run=(in_builder)
        folder=$folder/debian
    fi
    note "compiling for $triple, glibc $floor: 10 minutes and more"
    "${run[@]}" CARGO_TARGET_DIR="$folder" CARGO_ENCODED_RUSTFLAGS="$(rust_flags "$folder")" \
        XDG_CACHE_HOME="$folder/zig-cache" PATH="$zig/bin:$PATH" \
        cargo zigbuild --quiet --release --locked --workspace --exclude ebs-sim --exclude rig --target "$triple.$floor" ||
        die "the build for $triple failed"
    compiler=$("${run[@]}" rustc --version)
    built=$folder/$triple/release
    check_floor "$built/stillpoint"
    check_floor "$built/stillpoint-databases"
}

# Every symbol that a C library has to have is one of $floor or older; and nothing else is linked.
check_floor() { # PROGRAM
    local needs highest libraries
    needs=$(readelf --version-info "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu)
    highest=$(printf '%s\n' "$needs" "GLIBC_$floor" | sort -V | tail -n1)
    [ "$highest" = "GLIBC_$floor" ] || die "${1##*/} needs $highest, and $floor is the limit"
    libraries=$(readelf --dynamic "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    ! printf '%s\n' "$libraries" | grep -vE '^(lib(c|m|pthread|dl|rt|util|resolv)\.so\.[0-9]|ld-linux.*)$' ||
        die "${1##*/} needs a library that is not of the C library"
    note "${1##*/}: needs $(printf '%s\n' "$needs" | tail -n1)"
}

# Debian's compiler with the standard libraries of both architectures, in a folder below the cache: this machine's
# toolchain stays as it is.
need_builder() {
    need_root
    need_packages mmdebstrap:mmdebstrap
    builder=$cache/builder-bookworm
    [ ! -e "$builder/usr/bin/cargo" ] || return 0
    note "making $builder with mmdebstrap: about 2 minutes, 1.4 GB"
    rm -rf --one-file-system "$builder.new"
    again make_builder || die "the builder could not be made"
    mv "$builder.new" "$builder"
}

make_builder() {
    rm -rf --one-file-system "$builder.new"
    # The compiler that is new enough comes as a security update, because Firefox needs it.
    printf '%s\n' 'deb http://deb.debian.org/debian bookworm main' \
        'deb http://deb.debian.org/debian-security bookworm-security main' >"$cache/builder.list"
    mmdebstrap --quiet --variant=apt --architectures=amd64,arm64 \
        --include=rustc-web,cargo-web,libstd-rust-web-dev:arm64,ca-certificates bookworm "$builder.new" "$cache/builder.list"
}

# Runs a command in the builder, which sees the clone, the caches and the network of this machine.
in_builder() { # [NAME=VALUE…] COMMAND…
    local home=${CARGO_HOME:-$HOME/.cargo}
    # shellcheck disable=SC2016
    unshare --mount --propagation private bash -euc '
        builder=$1 home=$2 repo=$3
        shift 3
        for folder in "$home" "$repo" "'"$cache"'" ${STILLPOINT_RELEASE_DIR:+"$STILLPOINT_RELEASE_DIR"} /dev /proc; do
            mkdir -p "$builder$folder"
            mount --rbind "$folder" "$builder$folder"
        done
        cp /etc/resolv.conf "$builder/etc/" 2>/dev/null || true
        exec chroot "$builder" /usr/bin/env -C "$repo" "$@"
    ' builder "$builder" "$home" "$repo" \
        -u RUSTUP_HOME -u RUSTUP_TOOLCHAIN CARGO_HOME="$home" PATH=/usr/bin:/bin "$@"
}
