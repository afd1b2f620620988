#!/bin/sh
# AWS Systems Manager Distributor runs this. It fails while a run goes on or has left something to be undone, and says
# which command ends it. Configuration and records are kept.
set -eu
if command -v dpkg >/dev/null && dpkg --status stillpoint >/dev/null 2>&1; then
    exec dpkg --remove stillpoint
elif command -v rpm >/dev/null && rpm --query stillpoint >/dev/null 2>&1; then
    exec rpm --erase stillpoint
fi
echo "stillpoint is not installed"
