"""What an account with very many snapshots costs: `list` of all of it, and `prune --dry-run` of one plan.

In: a [`Host`]. Out: seconds and peak memory with 10,000 and with 100,000 snapshots, and their ratio, with its aim.
"""

import os
import subprocess
import sys
import time

from bench_host import aim, command, common, ended, env, row, run, say

FEW, MANY = 10_000, 100_000


def measured(words):
    """Seconds and peak memory in MB of a command that has to end well."""
    began = time.monotonic()
    child = os.posix_spawn(words[0], words, env, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{words[1]} ended with {status}")
    return time.monotonic() - began, usage.ru_maxrss * 1024 / 1e6


def sets(host):
    record = ended(command("snapshot", host.mounts))
    like = ",".join(s["id"] for s in record["snapshots"])
    config = env["work"] + "/stillpoint.toml"
    with open(config, "a") as file:
        # The sets of the second filling begin in the hours of the first one's: by hours alone, one of two would go, and
        # who holds it be asked of EC2 for each, which is other work than with few.
        file.write('[defaults.keep]\nwithin = \"20y\"\nhourly = "all"\n')
    taken = {}
    made = 0
    for wanted in (FEW, MANY):
        more = (wanted - made) // len(record["snapshots"])
        words = ["--sets", str(more), "--like", like, "--vary", "stillpoint:run", "--every", "1h"]
        run(env["sim"], "fill", *words, stdout=subprocess.DEVNULL)
        made = wanted
        for name, words in (("list --all-hosts", ["list", "--all-hosts"]), ("prune --dry-run", ["prune", "--dry-run", "--stale"])):
            for _ in range(3):
                seconds, peak = measured([env["stillpoint"], *words, *common(), "-o", "json"])
                taken.setdefault((name, wanted), []).append((seconds, peak))
    say(f"\n   {FEW} and {MANY} snapshots in an account, all of this host")
    met = True
    for name in ("list --all-hosts", "prune --dry-run"):
        few, many = taken[name, FEW], taken[name, MANY]
        row(f"{name}: {FEW}", [s for s, _ in few], "s")
        row(f"{name}: {MANY}", [s for s, _ in many], "s")
        met &= aim(f"{name}: {MANY} / {FEW}", [a / b for (a, _), (b, _) in zip(many, few, strict=True)], 11, "")
        met &= aim(f"{name}: peak memory", [p for _, p in many], 200, "MB")
    return met
