# Shared by the scripts in this folder; sourced, never run.
#
# In: nothing. Out: strict mode, $repo, $cache and in it $target (where cargo builds, outside the clone), $bin (the built programs),
# and the functions below. Everything a person has to read goes to stderr through say, note and die.
# shellcheck shell=bash

set -euo pipefail
export LC_ALL=C.UTF-8
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\n== %s\n' "$*" >&2; }
note() { printf '   %s\n' "$*" >&2; }
die() {
    printf '\n%s: %s\n' "${program:-${0##*/}}" "$1" >&2
    shift
    local hint
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}

# `sudo -E` keeps the caller's HOME: root would then leave files of its own in that person's caches.
if [ "$(id -u)" = 0 ]; then
    HOME=$(getent passwd 0 | cut -d: -f6)
    export HOME
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillpoint
target=${CARGO_TARGET_DIR:-$cache/target}
export CARGO_TARGET_DIR=$target
bin=$target/debug

need_root() {
    [ "$(id -u)" = 0 ] || die "needs root: it makes block devices, mounts and freezes" "sudo $0"
}

# Runs what needs the network up to four times: a mirror that fails once often works later.
again() { # COMMAND…
    local pause
    for pause in 5 20 60; do
        "$@" && return
        note "${1##*/} failed, once more in $pause s"
        sleep "$pause"
    done
    "$@"
}

apt_install() { # LOG PACKAGE…
    local log=$1
    shift
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null
}

# What this machine lacks of command:package pairs is installed by apt. A pair may begin with a path or a
# pattern, too.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        case $pair in
        /*) compgen -G "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
        *) command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
        esac
    done
    [ ${#missing[@]} = 0 ] && return
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (names of Debian's packages)" "install them, then run $0 again"
    note "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if again apt_install "$log" "${missing[@]}"; then
        rm -f "$log"
        return
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt could not install ${missing[*]}"
}

# What must be true, as a line; counts in $faults what is not.
faults=0
expect() { # TEXT COMMAND…
    local text=$1
    shift
    if "$@"; then
        note "ok    $text"
    else
        note "FAIL  $text"
        faults=$((faults + 1))
    fi
}

# For building, for ebs-sim, and for looking into images.
need_tools() {
    need_packages cc:build-essential pkg-config:pkg-config curl:curl python3:python3 \
        /etc/ssl/certs/ca-certificates.crt:ca-certificates \
        losetup:mount mount:mount fsfreeze:util-linux addpart:util-linux setsid:util-linux flock:util-linux ip:iproute2 \
        dumpe2fs:e2fsprogs mkfs.xfs:xfsprogs xfs_logprint:xfsprogs xfs_repair:xfsprogs mkfs.btrfs:btrfs-progs "$@"
}

# Debian's PostgreSQL, for tests that start their own: without the server that its package would start.
need_postgresql() {
    # The folder is there with the client alone, too.
    local server='/usr/lib/postgresql/*/bin/initdb'
    compgen -G "$server" >/dev/null && return
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/stillpoint-tests.conf
    need_packages "$server:postgresql"
}

# Debian's MariaDB, for tests that start their own: these packages have the programs and no service.
need_mariadb() {
    need_packages mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb-binlog:mariadb-client \
        setpriv:util-linux pgrep:procps
    # Its system user comes with the package that has the service.
    getent passwd mysql >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin mysql
}

# Debian's redis-server would be started by its own installation.
need_redis() {
    (
        if [ ! -e /usr/sbin/policy-rc.d ] && ! command -v redis-server >/dev/null; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi
        need_packages redis-server:redis-server redis-benchmark:redis-tools strace:strace setpriv:util-linux
    )
}

# Debian's etcd, whose installation would start a server.
need_etcd() {
    (
        if [ ! -e /usr/sbin/policy-rc.d ] && ! command -v etcd >/dev/null; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi
        need_packages etcd:etcd-server etcdctl:etcd-client setpriv:util-linux
    )
}

# promtool, with Debian's Prometheus, whose installation would start a server.
need_promtool() {
    (
        if [ ! -e /usr/sbin/policy-rc.d ] && ! command -v promtool >/dev/null; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi
        need_packages promtool:prometheus
    )
}

# Puts cargo into PATH. Under sudo, the caller's toolchain serves, but root's own cache, so that nothing of
# root's is left in the caller's home.
need_cargo() {
    local home wanted
    if ! command -v cargo >/dev/null; then
        if [ -x "$HOME/.cargo/bin/cargo" ]; then
            PATH=$HOME/.cargo/bin:$PATH
        elif [ -n "${SUDO_USER:-}" ] && home=$(getent passwd "$SUDO_USER" | cut -d: -f6) && [ -x "$home/.cargo/bin/cargo" ]; then
            PATH=$home/.cargo/bin:$PATH
            export RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
        fi
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
    command -v cargo >/dev/null || die "there is no Rust here; $wanted or newer is needed" \
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1)" = "$wanted" ] ||
        die "Rust $have is too old; $wanted or newer is needed" "rustup update stable"
    export PATH
}

# cargo-nextest runs each test in a process of its own. The machine's serves, or it is built once into the
# cache: unoptimized, since it only starts tests, which takes half of the time.
need_nextest() {
    local version=0.9.143 root=$cache/nextest
    nextest=$root/bin/cargo-nextest
    if command -v cargo-nextest >/dev/null; then
        nextest=cargo-nextest
    elif [ "$("$nextest" nextest --version 2>/dev/null | sed -n 's/^release: //p')" != $version ]; then
        note "building cargo-nextest $version into $root: about 3 minutes"
        CARGO_TARGET_DIR=$root/build again cargo install --quiet --locked --version $version --root "$root" --profile dev \
            --config profile.dev.debug=false --no-default-features --features default-no-update cargo-nextest ||
            die "cargo-nextest could not be built"
        rm -rf "$root/build"
    fi
}

# As tests/nextest.toml says, those that mount in a mount namespace of their own.
run_tests() { # ARGUMENTS OF NEXTEST…
    "$nextest" nextest run --workspace --locked --config-file "$repo/tests/nextest.toml" --user-config-file none \
        --config "target.'cfg(unix)'.runner = ['$repo/scripts/lib/in-namespace']" "$@"
}

# Always the whole workspace: other features would build the EC2 SDK a second time.
build() {
    local started=$SECONDS
    if [ ! -x "$bin/stillpoint" ]; then
        note "the first build compiles the EC2 SDK: about 6 minutes and 8 GiB of memory"
        note "into $target"
    fi
    # Cargo takes what another clone has built here for fresh where this clone's files are older.
    if [ "$(cat "$target/.built-from" 2>/dev/null)" != "$repo" ]; then
        find "$repo" -path "$repo/target" -prune -o -name '*.rs' -exec touch {} +
        mkdir -p "$target" && printf '%s\n' "$repo" >"$target/.built-from"
    fi
    (cd "$repo" && cargo build --quiet --workspace --locked) || die "the build failed"
    note "built in $((SECONDS - started)) s"
}
