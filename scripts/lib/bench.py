#!/usr/bin/env python3
"""The part of scripts/bench that runs inside `ebs-sim run`: measures, and prints medians of ratios taken side by side.

In: the environment of scripts/bench, and EBS_SIM_DIR. Out: exit status 0 when the aims are met, 3 when one is missed.
Must never leave a mount frozen: a process of its own thaws them all when this one ends, whatever way.
"""

import calendar
import ctypes
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
env = os.environ
libc = ctypes.CDLL(None, use_errno=True)


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def rescue(fds):
    """Thaws all when this process is gone, and after 10 minutes. Holds the mounts, so nothing frozen can be unmounted."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(theirs)
        signal.alarm(600)
        signal.signal(signal.SIGALRM, lambda *_: None)
        try:
            os.read(ours, 1)
        except OSError:
            pass
        for fd in fds:
            try:
                fcntl.ioctl(fd, FITHAW, 0)
            except OSError:
                pass
        os._exit(0)
    os.close(ours)
    return theirs


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


def stillpoint(mounts, expedited=False):
    # One set after another: the endpoint is told to have no least interval, and so is stillpoint.
    config = env["work"] + "/stillpoint.toml"
    with open(config, "w") as file:
        file.write('[ec2]\nvolume_interval = "0s"\n[defaults]\nrcu_expedited = %s\n' % str(expedited).lower())
    command = [env["stillpoint"], "snapshot", "--config", config, "--run-dir", env["run_dir"], "--state-dir", env["work"] + "/state", "-o", "json"]
    done = subprocess.run(command + [f"--mount={m}" for m in mounts], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"stillpoint ended with {done.returncode}: {done.stderr}")
    record = json.loads(done.stdout)
    if record["consistency"] != "filesystem" or len(record["snapshots"]) != len(mounts):
        sys.exit(f"stillpoint took something else: {done.stdout}")
    return record


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


def rest(mounts):
    """What goes before each measurement. A freeze soon after another of the same filesystem is cheaper: the kernel keeps the
    grace period that it has already waited for. So all start rested, with a little to flush."""
    for mount in mounts:
        with open(mount + "/data", "wb") as file:
            file.write(os.urandom(1 << 20))
    time.sleep(0.5)


def unix_ns(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))


def main():
    with open(env["EBS_SIM_DIR"] + "/ebs-sim.json") as file:
        ready = json.load(file)
    mounts, fds = [], []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for number, volume in enumerate(ready["volumes"]):
            mount = f"{env['work']}/{volume['name']}"
            os.makedirs(mount, exist_ok=True)
            run(*(["mkfs.ext4", "-q", "-F"], ["mkfs.xfs", "-q", "-f"])[number % 2], volume["loop"])
            run("mount", volume["loop"], mount)
            mounts.append(mount)
            fds.append(os.open(mount, os.O_RDONLY | os.O_DIRECTORY))
        alive = rescue(fds)
        met = measure(mounts, fds, ready)
        os.close(alive)
        os.wait()
    finally:
        for fd in fds:
            try:
                fcntl.ioctl(fd, FITHAW, 0)
            except OSError:
                pass
            os.close(fd)
        for mount in mounts:
            subprocess.run(["umount", mount])
    sys.exit(0 if met else 3)


def measure(mounts, fds, ready):
    names = "window call floor script server ratio shorter".split()
    all_of = {name: [] for name in names + ["freezing", "before call", "thawing", "client", "expedited", "faster"]}
    for number in range(int(env["rounds"]) + 1):
        taken = {}

        def measure_floor():
            rest(mounts)
            taken["floor"] = floor(fds)

        def measure_stillpoint():
            rest(mounts)
            record = stillpoint(mounts)
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
        steps = [measure_floor, measure_stillpoint, measure_expedited]
        for step in steps if number % 2 else steps[::-1]:
            step()
        if number % 3 == 1:
            measure_script()
            taken["shorter"] = taken["script"] / taken["window"]
        taken["faster"] = taken["freezing"] / taken["expedited"]
        taken["client"] = taken["call"] - taken["server"]
        taken["ratio"] = taken["window"] / (taken["call"] + taken["floor"])
        # The first round warms up.
        if number:
            for name, value in taken.items():
                all_of[name].append(value)

    def row(text, name, unit="ms"):
        values = all_of[name]
        print(f"   {text:<44} {statistics.median(values):8.2f} {unit:<2}  ({min(values):.2f} – {max(values):.2f})", file=sys.stderr)

    # Grace periods differ by a factor of two from one to the next: between these two lies the true median, 19 times of 20.
    ratios = sorted(all_of["ratio"])
    rank = max(0, int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5))
    least, most = ratios[rank], ratios[-1 - rank]
    ratio, shorter = statistics.median(all_of["ratio"]), statistics.median(all_of["shorter"])
    print(f"\n   {len(mounts)} mounts, half ext4, half XFS: median (least – most)", file=sys.stderr)
    row("stillpoint's window", "window")
    row("  freezing", "freezing")
    row("  frozen until request", "before call")
    row("  API time", "call")
    row("    of which in ebs-sim", "server")
    row("    of which client and loopback", "client")
    row("  thawing", "thawing")
    row("freeze floor: parallel freeze and thaw", "floor")
    row("freezing with rcu_expedited", "expedited")
    row("freezing / the same with rcu_expedited", "faster", "")
    row("fsfreeze and aws CLI", "script")
    row("window / (API time + floor)      aim ≤ 1.1", "ratio", "")
    print(f"   {'95 % interval of that median':<44} {least:8.2f} – {most:.2f}", file=sys.stderr)
    medians = statistics.median(all_of["window"]) / (statistics.median(all_of["call"]) + statistics.median(all_of["floor"]))
    print(f"   {'the same, of the medians above':<44} {medians:8.2f}", file=sys.stderr)
    row("script / stillpoint               aim ≥ 20", "shorter", "")
    missed = (["window"] if ratio > 1.1 else []) + (["script"] if shorter < 20 else [])
    met = not missed
    print(f"   {'aims met' if met else 'AIM MISSED: ' + ', '.join(missed)}", file=sys.stderr, flush=True)
    return met


if __name__ == "__main__":
    main()
