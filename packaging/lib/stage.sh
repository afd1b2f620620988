# The tree of a package: every file at its place, with its mode and one time; sourced by packaging/build.
#
# In: two programs, and one of the same sources that runs here. Out: a folder that looks as the installed system does.
# Must never: contain what depends on this machine or on the time.
# shellcheck shell=bash source=common.sh

put() { # MODE FILE PLACE
    install -D -m "$1" "$2" "$tree$3"
}

# stdin, at a place.
write() { # MODE PLACE
    mkdir -p "$tree$(dirname "$2")"
    cat >"$tree$2"
    chmod "$1" "$tree$2"
}

compressed() { # PLACE
    gzip --no-name --best "$tree$1"
}

# What deb, rpm and tar have in common.
stage() { # FORMAT ARCH PROGRAMS TREE
    local format=$1 arch=$2 programs=$3 file
    tree=$4
    local doc=/usr/share/doc/stillpoint
    rm -rf "$tree"
    install -d -m 755 "$tree"
    put 755 "$programs/stillpoint" /usr/bin/stillpoint
    put 755 "$programs/stillpoint-databases" /usr/bin/stillpoint-databases
    # Debian 11 reads units below /lib alone where /usr is not merged; everybody else has them below /usr/lib.
    local units=/usr/lib/systemd/system
    [ "$format" != deb ] || units=/lib/systemd/system
    for file in "$repo"/systemd/*; do put 644 "$file" "$units/${file##*/}"; done
    (cd "$packaging/tree" && find . -type f -printf '%P\n') | while read -r file; do
        put 644 "$packaging/tree/$file" "/$file"
    done
    put 644 "$packaging/stillpoint.catalog" /usr/lib/systemd/catalog/stillpoint.catalog
    for file in "$packaging"/hooks/*; do put 755 "$file" "/usr/share/stillpoint/hooks/${file##*/}"; done
    # Not started itself: mongosh reads it.
    chmod 644 "$tree/usr/share/stillpoint/hooks/mongodb-fsynclock.js"
    for file in "$packaging"/package-managers/*; do put 644 "$file" "/usr/share/stillpoint/package-managers/${file##*/}"; done
    for file in "$packaging"/examples/*; do put 644 "$file" "$doc/examples/${file##*/}"; done
    put 644 "$packaging/prometheus/stillpoint.rules.yml" "$doc/examples/stillpoint.rules.yml"
    default_configuration | write 644 /etc/stillpoint/stillpoint.toml
    install -d -m 755 "$tree/etc/stillpoint/config.d"
    policies
    pages
    completions "$format"
    python3 "$packaging/lib/third_party.py" --triple "$arch-unknown-linux-gnu" --commit "$commit" --version "$version" \
        --texts "$tree$doc/third-party.txt" --sbom "$tree$doc/sbom.cdx.json" || die "the list of what is in it was not made"
    chmod 644 "$tree$doc/third-party.txt" "$tree$doc/sbom.cdx.json"
    compressed "$doc/third-party.txt"
    "stage_$format" "$doc" "$arch"
    # Whatever the umask is.
    find "$tree" -type d -exec chmod 755 {} +
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# Every key in a comment: nothing is configured before somebody does.
default_configuration() {
    printf '# Installed by the package: an upgrade keeps what you write here.\n'
    "$generator" config default
}

# For roles: `stillpoint iam-policy` prints more exact ones, for the configuration of a host.
policies() {
    local name commands
    while read -r name commands; do
        # shellcheck disable=SC2086
        "$generator" iam-policy --config /dev/null --partition aws $commands | write 644 "/usr/share/stillpoint/iam/$name.json"
        [ -s "$tree/usr/share/stillpoint/iam/$name.json" ] || die "$generator iam-policy $commands printed nothing"
    done <<'LIST'
snapshot snapshot plan rehearse doctor list show wait
freeze freeze doctor
prune prune keep release delete undelete
copy copy
verify verify
verify-restore verify-restore
restore restore
clone clone
image image
LIST
}

# The program makes its own; that of the helper is written by hand.
pages() {
    local page
    "$generator" man --dir "$tree/usr/share/man" || die "the manual pages were not made"
    for page in "$packaging"/man/*; do
        put 644 "$page" "/usr/share/man/man8/${page##*/}"
    done
    find "$tree/usr/share/man" -type f -exec chmod 644 {} + -exec gzip --no-name --best {} +
}

# Where each shell looks for completions; Debian's zsh looks elsewhere than everybody's.
completions() { # FORMAT
    local zsh=site-functions
    [ "$1" != deb ] || zsh=vendor-completions
    "$generator" completions bash | write 644 /usr/share/bash-completion/completions/stillpoint
    "$generator" completions zsh | write 644 "/usr/share/zsh/$zsh/_stillpoint"
    "$generator" completions fish | write 644 /usr/share/fish/vendor_completions.d/stillpoint.fish
}

stage_deb() { # DOC ARCH
    put 644 "$packaging/deb/copyright" "$1/copyright"
    put 644 "$repo/CHANGELOG.md" "$1/changelog"
    compressed "$1/changelog"
    write 644 "$1/changelog.Debian" <<TEXT
stillpoint ($version-1) unstable; urgency=medium

  * Built of commit $commit.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
TEXT
    compressed "$1/changelog.Debian"
    put 644 "$packaging/deb/needrestart.conf" /etc/needrestart/conf.d/stillpoint.conf
    put 644 "$packaging/deb/lintian-overrides" /usr/share/lintian/overrides/stillpoint
}

stage_rpm() { # DOC ARCH
    put 644 "$repo/LICENSE" /usr/share/licenses/stillpoint/LICENSE
    put 644 "$repo/CHANGELOG.md" "$1/CHANGELOG.md"
}

stage_tar() { # DOC ARCH
    put 644 "$repo/LICENSE" "$1/LICENSE"
    put 644 "$repo/CHANGELOG.md" "$1/CHANGELOG.md"
    put 644 "$packaging/deb/needrestart.conf" "$1/examples/needrestart.conf"
}
