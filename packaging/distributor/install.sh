#!/bin/sh
# AWS Systems Manager Distributor runs this to install, and to update in place. Nothing is enabled or started.
set -eu
cd "$(dirname "$0")"

sha256sum --check --quiet SHA256SUMS
if command -v dpkg >/dev/null && [ -e /etc/debian_version ]; then
    dpkg --install stillpoint.deb
elif command -v rpm >/dev/null; then
    # 0 also where this version is installed already.
    rpm --upgrade --replacepkgs --oldpackage stillpoint.rpm
else
    echo "stillpoint: neither dpkg nor rpm is here" >&2
    exit 1
fi
/usr/bin/stillpoint --version
