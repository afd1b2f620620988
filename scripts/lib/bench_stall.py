"""What the applications feel: the longest that a buffered write waits, whatever takes the snapshots.

In: a [`Host`]; `rounds`, `writers`, `aws`, `ecs` (a path to ec2-consistent-snapshot, or empty). Out: medians, and with stillpoint's
defaults what a write waits beyond EC2's answer, with its aim.
"""

import json
import os
import statistics
import subprocess
import sys

from bench_host import aim, command, ended, env, load, rest, row, run, say
from bench_window import script

# With its defaults: freezing is expedited where that harms nobody.
DEFAULTS = "auto"


class Writers:
    """A writer on each mount, for as long as the `with` lasts."""

    def __init__(self, mounts):
        # As many writes a second in all, however many there are.
        pause = 125 * len(mounts)
        self.words = [env["writers"], str(pause)] + [m + "/written" for m in mounts]

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def longest(self, work):
        """The longest wait of all while `work` ran, in ms, and what it returned."""
        self.ask()
        done = work()
        return max(self.ask()) / 1e6, done


def by_script(host):
    return script(host.mounts, host.ready)


def by_peer(host):
    keys = host.ready["credentials"]
    words = [env["ecs"], "--region", host.ready["region"], "--aws-access-key-id", keys["access_key_id"]]
    words += ["--aws-secret-access-key", keys["secret_access_key"]]
    for mount in host.mounts:
        words += ["--freeze-filesystem", mount]
    words += [v["volume_id"] for v in host.ready["volumes"]]
    endpoint = env["AWS_ENDPOINT_URL_EC2"]
    return run(*words, env=dict(env, EC2_URL=endpoint, AWS_EC2_ENDPOINT=endpoint), stdout=subprocess.DEVNULL)


def stall(host):
    met, few = True, len(host.mounts) <= 8
    # 128 mounts are not frozen one after the other by a script: that takes seconds each time.
    others = ({"fsfreeze and aws CLI": by_script} | ({"ec2-consistent-snapshot": by_peer} if env["ecs"] else {})) if few else {}
    for delay in (0, 250) if few else (0,):
        taken = {}
        with Writers(host.mounts) as writers:
            if delay:
                host.control("faults", {"action": "CreateSnapshot*", "kind": "delay-before", "delay_ms": delay})

            def note(name, value):
                taken.setdefault(name, []).append(value)

            def own(expedited, name, number):
                rest(host.mounts, 1 << 16)
                words = command("snapshot", host.mounts, expedited)
                longest, record = writers.longest(lambda: ended(words))
                if record["achieved"] != "filesystem" or len(record["snapshots"]) != len(host.mounts):
                    sys.exit(f"stillpoint took something else: {record}")
                if number:
                    note(name, longest)
                    note(name + ", beyond the answer", longest - record["call_ms"])

            for number in range(1 + max(9, int(env["rounds"]) // 2)):
                steps = [(DEFAULTS, "stillpoint"), (False, "without rcu_expedited")]
                for expedited, name in steps if number % 2 else steps[::-1]:
                    own(expedited, name, number)
                # The same window without the call: what the simulator's clone costs the thaw is not in it.
                rest(host.mounts, 1 << 16)
                note("rehearsal", writers.longest(lambda: ended(command("rehearse", host.mounts, DEFAULTS)))[0])
                # The others take long: every third round.
                for name, work in others.items() if number % 3 == 1 else ():
                    rest(host.mounts, 1 << 16)
                    note(name, writers.longest(lambda: work(host))[0])
            if delay:
                host.control("faults", method="DELETE")
        say(f"\n   longest wait of a write, {len(host.mounts)} mounts, EC2 answers after {delay} ms, {load()}: median (least – most)")
        for name in ["stillpoint", "without rcu_expedited", *others]:
            row(name, taken[name])
        row("rehearse: the window without the call", taken["rehearsal"])
        row("without rcu_expedited, beyond the answer", taken["without rcu_expedited, beyond the answer"])
        met &= aim("stillpoint, beyond the answer", taken["stillpoint, beyond the answer"], 12 if few else 35)
        for name in others:
            say(f"   {name} / stillpoint: {statistics.median(taken[name]) / statistics.median(taken['stillpoint']):.1f}")
    return met
