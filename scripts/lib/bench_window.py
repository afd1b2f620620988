"""How long the window is, against the least it could be and against what people do by hand.

In: a [`Host`] with half ext4, half XFS; `rounds`, `expedited`, `aws`. Out: medians of ratios taken side by side.
"""

import ctypes
import fcntl
import json
import os
import statistics
import subprocess
import sys
import threading
import time

from bench_host import FIFREEZE, FITHAW, env, load, rest, run, say, stillpoint, unix_ns

libc = ctypes.CDLL(None, use_errno=True)


def floor(fds):
    """From before the first FIFREEZE to after the last FITHAW, all mounts at once, nothing in between; in ms."""
    together = threading.Barrier(len(fds) + 1)
    errors = []

    def one(fd):
        try:
            libc.syncfs(fd)
            together.wait()
            together.wait()
            fcntl.ioctl(fd, FIFREEZE, 0)
            together.wait()
            together.wait()
            fcntl.ioctl(fd, FITHAW, 0)
            together.wait()
        except Exception as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=one, args=(fd,)) for fd in fds]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter_ns()
    together.wait()
    together.wait()  # all are frozen
    together.wait()
    together.wait()  # all are thawed
    ended = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    if errors:
        sys.exit(f"floor: {errors[0]}")
    return (ended - began) / 1e6


def script(mounts, ready):
    keys = ready["credentials"]
    settings = dict(
        env,
        AWS_ACCESS_KEY_ID=keys["access_key_id"],
        AWS_SECRET_ACCESS_KEY=keys["secret_access_key"],
        AWS_DEFAULT_REGION=ready["region"],
    )
    here = os.path.dirname(os.path.abspath(__file__))
    done = run("sh", here + "/shell-snapshot.sh", env["aws"], ready["instance_id"], *mounts, env=settings, stdout=subprocess.PIPE)
    return int(done.stdout) / 1e6


def server_ms():
    """The last CreateSnapshots in ebs-sim's log that was not a DryRun."""
    log = json.loads(run(env["sim"], "requests", stdout=subprocess.PIPE).stdout)
    last = [r for r in log if r["action"] == "CreateSnapshots" and not r["dry_run"]][-1]
    return (last["answered_ns"] - last["started_ns"]) / 1e6


def window(host):
    mounts, fds, ready = host.mounts, host.fds, host.ready
    # With it the floor, which waits for whole grace periods, is no floor any more.
    all_expedited = env["expedited"] == "yes"
    names = "window call floor script server ratio shorter".split()
    all_of = {name: [] for name in names + ["freezing", "before call", "thawing", "client", "expedited", "faster"]}
    for number in range(int(env["rounds"]) + 1):
        taken = {}

        def measure_floor():
            rest(mounts)
            taken["floor"] = floor(fds)

        def measure_stillpoint():
            rest(mounts)
            record = stillpoint(mounts, all_expedited)
            taken["window"], taken["call"], taken["server"] = record["window_ms"], record["call_ms"], server_ms()
            at = {name: unix_ns(text) / 1e6 for name, text in record["times"].items()}
            taken["freezing"] = at["frozen"] - at["started"]
            taken["before call"] = at["requested"] - at["frozen"]
            taken["thawing"] = at["thawed"] - at["responded"]

        def measure_expedited():
            rest(mounts)
            at = {name: unix_ns(text) / 1e6 for name, text in stillpoint(mounts, True)["times"].items()}
            taken["expedited"] = at["frozen"] - at["started"]

        def measure_script():
            rest(mounts)
            taken["script"] = script(mounts, ready)

        # Not always the same one first.
        steps = [measure_stillpoint] if all_expedited else [measure_floor, measure_stillpoint, measure_expedited]
        for step in steps if number % 2 else steps[::-1]:
            step()
        if number % 3 == 1:
            measure_script()
            taken["shorter"] = taken["script"] / taken["window"]
        taken["client"] = taken["call"] - taken["server"]
        if not all_expedited:
            taken["faster"] = taken["freezing"] / taken["expedited"]
            taken["ratio"] = taken["window"] / (taken["call"] + taken["floor"])
        # The first round warms up.
        if number:
            for name, value in taken.items():
                all_of[name].append(value)

    def row(text, name, unit="ms"):
        values = all_of[name]
        say(f"   {text:<44} {statistics.median(values):8.2f} {unit:<2}  ({min(values):.2f} – {max(values):.2f})")

    how = ", rcu_expedited" if all_expedited else ""
    say(f"\n   {len(mounts)} mounts, half ext4, half XFS{how}, {load()}: median (least – most)")
    row("stillpoint's window", "window")
    row("  freezing", "freezing")
    row("  frozen until request", "before call")
    row("  API time", "call")
    row("    of which in ebs-sim", "server")
    row("    of which client and loopback", "client")
    row("  thawing", "thawing")
    missed = []
    if not all_expedited:
        row("freeze floor: parallel freeze and thaw", "floor")
        row("freezing with rcu_expedited", "expedited")
        row("freezing / the same with rcu_expedited", "faster", "")
    row("fsfreeze and aws CLI", "script")
    if not all_expedited:
        # Grace periods differ by a factor of two from one to the next: between these two lies the true
        # median, 19 times of 20.
        ratios = sorted(all_of["ratio"])
        rank = max(0, int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5))
        least, most = ratios[rank], ratios[-1 - rank]
        row("window / (API time + floor)      aim ≤ 1.1", "ratio", "")
        say(f"   {'95 % interval of that median':<44} {least:8.2f} – {most:.2f}")
        medians = statistics.median(all_of["window"]) / (statistics.median(all_of["call"]) + statistics.median(all_of["floor"]))
        say(f"   {'the same, of the medians above':<44} {medians:8.2f}")
        missed += ["window"] if statistics.median(ratios) > 1.1 else []
    row("script / stillpoint               aim ≥ 20", "shorter", "")
    missed += ["script"] if statistics.median(all_of["shorter"]) < 20 else []
    say(f"   {'AIM MISSED: ' + ', '.join(missed) if missed else 'aims met'}")
    return not missed
