# Installed, upgraded, removed and purged in bare roots: what is where, and what stays.
#
# In: see lib.sh; $roots, a folder with the roots. Out: exit status 0 only if all is as it must be.
# shellcheck shell=bash source=lib.sh
. "$(dirname "$0")/lib.sh"

units() { find "$root/lib/systemd/system/" "$root/usr/lib/systemd/system/" -name 'stillpoint*' -printf '%f\n' | sort -u; }
enabled() { find "$root/etc/systemd" -name 'stillpoint*'; }
nothing_enabled() { [ -z "$(enabled)" ] || { enabled >&2 && return 1; }; }
gone() { [ ! -e "$root$1" ]; }
there() { [ -e "$root$1" ]; }
is() { [ "$(inside stat --printf '%a %U:%G' "$1")" = "$2" ] || { inside stat "$1" >&2 && return 1; }; }
units_are_accepted() {
    local instances
    instances=$(units | sed 's/@\./@default./')
    # It prints what it does not know, and ends with 0.
    # shellcheck disable=SC2086
    said_inside systemd-analyze verify --man=no $instances
    [ "$status" = 0 ] && ! grep stillpoint <<<"$said" >&2
}
disabled_by_its_preset() {
    inside systemctl preset stillpoint-clean-up.timer stillpoint@default.timer 2>/dev/null
    nothing_enabled
}
# Functions that glibc has had since later than the floor of a release, and that are not asked for at run time. What has only moved
# to another library or got another version since is left out: a program that is linked against an older one finds it there.
newer_than_the_floor() { # PROGRAM
    objdump --dynamic-syms "$1" | awk '/\*UND\*/ && $2 != "w"' | sed -nE 's/.*\(?GLIBC_2\.(1[89]|[2-9][0-9])[0-9.]*\)? +(.*)$/\2/p' |
        grep -vE '^(__libc_start_main|dl[a-z]+|pthread_[a-z_]+|[fl]?stat(64)?|fstatat(64)?|mknod(at)?|pow|exp2?|log2?)$' >&2
}
only_comments() { ! grep -vE '^(#|$)' "$root/etc/stillpoint/stillpoint.toml" >&2; }
in_the_catalog() { [[ $(inside journalctl --list-catalog 2>/dev/null) == *"9c12a663f3b34e918389876b96d92960 stillpoint"* ]]; }
needrestart_leaves_units_alone() {
    # As needrestart reads it.
    # shellcheck disable=SC2016
    inside perl -e 'our %nrconf = (blacklist_rc => []); do "/etc/needrestart/conf.d/stillpoint.conf"; die $@ if $@;
        my $left = sub { my $u = shift; grep { $u =~ /$_/ } @{$nrconf{blacklist_rc}} };
        $left->($_) or die "$_ would be restarted" for qw(stillpoint@default.service stillpoint-verify-restore@x.service
            stillpoint-clean-up.service);
        $left->($_) and die "$_ is not ours" for qw(postgresql.service astillpoint.service);'
}

# No systemd runs in these roots: what the scripts ask of it is answered here, and written down.
with_systemd() {
    mkdir -p "$root/run/systemd/system"
    cat >"$root/run/systemctl" <<'SH'
#!/bin/sh
echo "$*" >>/run/asked
case "$*" in
list-units*--type=timer*) echo "stillpoint@default.timer loaded active waiting Daily set" ;;
list-units*--type=service*) cat /run/at-work 2>/dev/null ;;
esac
exit 0
SH
    chmod 755 "$root/run/systemctl"
    mount --bind "$root/run/systemctl" "$root/usr/bin/systemctl"
}
asked() { # what systemd was asked to do, in order
    local got
    # The program itself asks when its timers elapse.
    got=$(grep -vE '^(list-units|show) ' "$root/run/asked" | sed 's/^--system //' | tr '\n' ';')
    [ "$got" = "$1" ] || { echo "systemd was asked: $got" >&2 && return 1; }
}
# $1 upgrades, $2 removes.
what_systemd_is_asked() {
    with_systemd
    rm -f "$root/run/asked"
    package_manager "$1"
    expect "an upgrade has systemd read the units again, and nothing else" asked "daemon-reload;"
    rm -f "$root/run/asked"
    echo "stillpoint-verify@default.service loaded activating start Verify" >"$root/run/at-work"
    package_manager "$2"
    expect "a removal refuses while a unit is at work" refused "systemctl stop stillpoint-verify@default.service"
    expect "and starts the timers again" grep -qx "start stillpoint@default.timer" "$root/run/asked"
    rm -f "$root/run/asked" "$root/run/at-work"
    package_manager "$2"
    expect "it is done when the unit has ended" ended_with 0
    expect "with the timers stopped first" asked "stop stillpoint@default.timer;daemon-reload;"
    umount "$root/usr/bin/systemctl"
    rm -rf "$root/run/systemd/system"
}
package_manager() { # deb-upgrade and the like
    case $1 in
    deb-upgrade) said_inside dpkg --install /tmp/next.deb ;;
    deb-remove) said_inside dpkg --remove stillpoint ;;
    rpm-upgrade) status=0 said=$(rpm --root "$root" --upgrade --nodeps "$root/tmp/next.rpm" 2>&1) || status=$? ;;
    rpm-remove) status=0 said=$(rpm --root "$root" --erase stillpoint 2>&1) || status=$? ;;
    esac
}

for name in $versions; do
    say "Debian $name: deb"
    fresh "debian-$name" "$roots/$name"
    expect "installs, without the network" quietly inside dpkg --install /tmp/old.deb
    expect "every file at its place, with its mode and owner" same_as "$here/deb.files" < <(files_of_deb)
    expect "/run/stillpoint is there" is /run/stillpoint "711 root:root"
    expect "/var/lib/stillpoint is there" is /var/lib/stillpoint "750 root:root"
    expect "nothing is enabled" nothing_enabled
    expect "its preset enables nothing" disabled_by_its_preset
    expect "systemd accepts the units" units_are_accepted
    expect "the journal knows its messages" in_the_catalog
    expect "needrestart leaves its units alone" needrestart_leaves_units_alone
    expect "nothing is configured" only_comments
    for program in stillpoint stillpoint-databases; do
        said=$(newer_than_the_floor "$root/usr/bin/$program" 2>&1) || true
        expect "$program asks for nothing that glibc 2.17 lacks${said:+ ($said)}" [ -z "$said" ]
    done
    said_inside stillpoint config check
    expect "config check ends with 0" ended_with 0
    said_inside stillpoint plan --imds-endpoint http://127.0.0.1:9
    expect "plan refuses politely where there is no EC2" ended_with 69
    expect "and says what to do" says "hint:"

    # Of somebody who uses it.
    inside systemctl enable stillpoint@default.timer stillpoint-clean-up.timer 2>/dev/null
    echo '[defaults]' >>"$root/etc/stillpoint/stillpoint.toml"
    mkdir -p "$root/var/lib/stillpoint/sets"
    echo '{}' >"$root/var/lib/stillpoint/sets/one.json"
    expect "upgrades" quietly inside dpkg --install /tmp/next.deb
    expect "what was enabled stays enabled" [ "$(enabled | wc -l)" = 2 ]
    expect "what was configured stays configured" grep -qx '\[defaults\]' "$root/etc/stillpoint/stillpoint.toml"
    said_inside dpkg --remove stillpoint
    expect "removes" ended_with 0
    expect "the program is gone" gone /usr/bin/stillpoint
    expect "no unit is left" [ -z "$(units)" ]
    expect "configuration stays" there /etc/stillpoint/stillpoint.toml
    expect "records stay" there /var/lib/stillpoint/sets/one.json
    mkdir -p "$root/etc/stillpoint/config.d"
    echo '# mine' >"$root/etc/stillpoint/config.d/mine.toml"
    said_inside dpkg --purge stillpoint
    expect "purges" ended_with 0
    expect "and says what of somebody else's it keeps" says "what was added to /etc/stillpoint is kept"
    expect "records are gone" gone /var/lib/stillpoint
    expect "the run folder is gone" gone /run/stillpoint
    expect "its configuration is gone" gone /etc/stillpoint/stillpoint.toml
    expect "somebody else's is not" there /etc/stillpoint/config.d/mine.toml
    expect "nothing is enabled any more" nothing_enabled

    # What a restore has made is known here alone.
    rm "$root/etc/stillpoint/config.d/mine.toml"
    quietly inside dpkg --install /tmp/old.deb
    mkdir -p "$root/var/lib/stillpoint/restores"
    echo '{}' >"$root/var/lib/stillpoint/restores/01234567-0000-7000-8000-000000000000.json"
    said_inside dpkg --purge stillpoint
    expect "a restore that is left is named" says "stillpoint restore --undo 01234567-0000-7000-8000-000000000000"
    expect "and its record outlives a purge" there /var/lib/stillpoint/restores/01234567-0000-7000-8000-000000000000.json
    expect "nothing of it is left below /etc" gone /etc/stillpoint
    rm -r "$root/var/lib/stillpoint"
    quietly inside dpkg --install /tmp/old.deb
    what_systemd_is_asked deb-upgrade deb-remove
done

say "A root of rpm"
# Any root with a shell does: what rpm knows of it is new.
fresh rpm "$roots/${versions##* }"
rpm() { command rpm --define '_dbpath /var/lib/rpm' "$@"; }
rpm --root "$root" --initdb
# Its dependencies are names of other packages, which this root has not by rpm.
expect "installs" quietly rpm --root "$root" --install --nodeps "$root/tmp/old.rpm"
expect "every file at its place, with its mode and owner" same_as "$here/rpm.files" < <(files_of_rpm)
expect "/var/lib/stillpoint is there" is /var/lib/stillpoint "750 root:root"
expect "nothing is enabled" nothing_enabled
expect "systemd accepts the units" units_are_accepted
expect "the journal knows its messages" in_the_catalog
expect "nothing newer is needed of rpm than Amazon Linux 2 has" \
    [ -z "$(rpm --query --package --requires "$root/tmp/old.rpm" | grep '^rpmlib' | grep -vE 'CompressedFileNames|FileDigests|PayloadFilesHavePrefix|PayloadIsXz|TildeInVersions')" ]
inside systemctl enable stillpoint@default.timer 2>/dev/null
echo '[defaults]' >>"$root/etc/stillpoint/stillpoint.toml"
expect "upgrades" quietly rpm --root "$root" --upgrade --nodeps "$root/tmp/next.rpm"
expect "what was enabled stays enabled" [ -n "$(enabled)" ]
expect "what was configured stays configured" grep -qx '\[defaults\]' "$root/etc/stillpoint/stillpoint.toml"
touch "$root/var/lib/stillpoint/record"
expect "is erased" quietly rpm --root "$root" --erase stillpoint
expect "the program is gone" gone /usr/bin/stillpoint
expect "no unit is left" [ -z "$(units)" ]
expect "nothing is enabled any more" nothing_enabled
expect "what was configured is kept beside" there /etc/stillpoint/stillpoint.toml.rpmsave
expect "records stay" there /var/lib/stillpoint/record
quietly rpm --root "$root" --install --nodeps "$root/tmp/old.rpm"
what_systemd_is_asked rpm-upgrade rpm-remove
finish
