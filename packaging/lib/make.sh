# Packages of trees; sourced by packaging/build.
#
# In: the tree of stage.sh. Out: a file in $out. Must never: depend on the time, the order of a folder, or how many
# processors there are: xz with several threads writes other bytes.
# shellcheck shell=bash source=common.sh

# A script, with the part that both kinds of package share.
script() { # FILE
    local line
    while IFS= read -r line; do
        case $line in
        @MAY_BE_REMOVED@) cat "$packaging/scriptlets/may-be-removed.sh" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$1"
}

make_deb() { # ARCH TREE
    local arch tree=$2 name place
    arch=$(debian_arch "$1")
    install -d -m 755 "$tree/DEBIAN"
    # Everything below /etc is configuration; dpkg asks before it replaces what somebody changed.
    (cd "$tree" && find etc -type f -printf '/%p\n' | LC_ALL=C sort) >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z |
        xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    # In KiB, each file and folder rounded up, as dpkg-gencontrol counts.
    sed -e "s/@VERSION@/$version-1/" -e "s/@ARCH@/$arch/" -e "s/@MAINTAINER@/$maintainer/" \
        -e "s/@SIZE@/$(installed_size "$tree")/" "$packaging/deb/control" >"$tree/DEBIAN/control"
    for name in postinst prerm postrm; do script "$packaging/deb/$name" >"$tree/DEBIAN/$name"; done
    chmod 644 "$tree"/DEBIAN/*
    chmod 755 "$tree"/DEBIAN/{postinst,prerm,postrm}
    find "$tree/DEBIAN" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    touch --date="@$SOURCE_DATE_EPOCH" "$tree"
    place=$out/stillpoint_$version-1_$arch.deb
    dpkg-deb --root-owner-group --threads-max=1 "${deb_compression[@]}" --build "$tree" "$place" >/dev/null || die "dpkg-deb failed"
    made+=("$place")
}

installed_size() { # TREE
    find "$1" -path "$1/DEBIAN" -prune -o -type f -printf '%s\n' -o -type d -printf '1\n' |
        awk '{ size += int(($1 + 1023) / 1024) } END { print size }'
}

make_rpm() { # ARCH TREE
    local arch=$1 tree=$2 top place
    top=$work/rpmbuild-$arch
    rm -rf "$top"
    mkdir -p "$top"
    (
        cd "$tree"
        # Folders that are stillpoint's alone belong to it.
        find . -type d \( -path './etc/stillpoint*' -o -path './usr/share/stillpoint*' -o -path './usr/share/doc/stillpoint*' \
            -o -path './usr/share/licenses/stillpoint*' \) -printf '%%dir %%attr(755,root,root) "/%P"\n'
        find . -type f -path './etc/*' -printf '%%config(noreplace) %%attr(%m,root,root) "/%P"\n'
        find . -type f -path './usr/share/licenses/*' -printf '%%license %%attr(%m,root,root) "/%P"\n'
        find . -type f \( -path './usr/share/doc/*' -o -path './usr/share/man/*' \) -printf '%%doc %%attr(%m,root,root) "/%P"\n'
        find . -type f -not -path './etc/*' -not -path './usr/share/licenses/*' -not -path './usr/share/doc/*' \
            -not -path './usr/share/man/*' -printf '%%attr(%m,root,root) "/%P"\n'
    ) | LC_ALL=C sort >"$top/files"
    # rpm allows no - in a version.
    script "$packaging/rpm/stillpoint.spec" | sed -e "s|@DATE@|$(date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')|" \
        -e "s|@COMMIT@|$commit|" -e "s|@VERSION@|$version|" -e "s|@RELEASE@|1|" \
        -e "s|@MAINTAINER@|$maintainer|" -e "s|@TREE@|$tree|" -e "s|@FILES@|$top/files|" >"$top/stillpoint.spec"
    rpmbuild -bb --quiet --target "$arch-linux" --define "_topdir $top" --define "_rpmdir $top/out" \
        --define "_buildrootdir $top/root" --define "_binary_payload $rpm_compression" --define "_binary_filedigest_algorithm 8" \
        --define "_source_filedigest_algorithm 8" "$top/stillpoint.spec" >"$top/log" 2>&1 || {
        cat "$top/log" >&2
        die "rpmbuild failed"
    }
    place=$out/stillpoint-$version-1.$arch.rpm
    cp "$top/out/$arch"/stillpoint-*.rpm "$place"
    made+=("$place")
}

# For hosts with neither: everything at its place below one folder.
make_tar() { # ARCH TREE
    local arch=$1 tree=$2 name place
    name=stillpoint-$version-$arch
    place=$out/$name.tar.xz
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu \
        --directory="$tree" --transform="s,^\\.,$name,S" . | xz --threads=1 -6 --stdout >"$place"
    made+=("$place")
}

# One package of Systems Manager Distributor: a zip for each architecture, and the manifest that names them.
make_distributor() { # ARCH…
    python3 "$packaging/lib/distributor.py" --version "$version" --out "$out" --scripts "$packaging/distributor" "$@" ||
        die "the package of Distributor was not made"
}
