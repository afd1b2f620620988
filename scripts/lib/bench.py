#!/usr/bin/env python3
"""The part of scripts/bench that runs inside `ebs-sim run`: one of its measurements.

In: the environment of scripts/bench, `part` among it. Out: exit status 0 when its aims are met, 3 when one is missed.
"""

import sys

from bench_group import group
from bench_host import Host, env
from bench_limits import dirty, kill, memory, scale
from bench_restore import probe, restore, whole
from bench_sets import sets
from bench_stall import stall
from bench_window import window

# What is measured, and how the volumes are formatted for it, in turns.
PARTS = {
    "window": (window, ["ext4", "xfs"]),
    "stall": (stall, ["ext4", "xfs"]),
    "stall many": (stall, ["small ext4"]),
    "scale": (scale, ["small ext4"]),
    "dirty": (dirty, ["ext4", "xfs", "btrfs"]),
    "kill": (kill, ["ext4", "xfs"]),
    "memory": (memory, ["ext4", "xfs"]),
    "sets": (sets, ["ext4"]),
    "restore": (restore, ["ext4", "xfs"]),
    "whole": (whole, ["ext4", "xfs"]),
    "group": (group, ["ext4", "xfs"]),
    "probe": (probe, ["ext4", "xfs"]),
}

if __name__ == "__main__":
    measure, kinds = PARTS[env["part"]]
    with Host(kinds) as host:
        met = measure(host)
    sys.exit(0 if met else 3)
