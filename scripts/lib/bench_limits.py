"""What the frozen window may cost: many mounts, much to write, a killed agent, memory.

In: a [`Host`]; `profile`. Out: a row a number, with its aim. Ratios are of measurements side by side, times and sizes are medians.
"""

import contextlib
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import time

from bench_host import MIB, aim, command, ended, env, held, load, rest, row, say, stat, stillpoint, unix_ns, until
from bench_window import floor

WRITE_RATE, DIRTY = 100 * MIB, 512 * MIB
# Writes a byte for each line that it reads, and tells when that was through.
PROBE = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
for _ in iter(sys.stdin.readline, ""):
    os.pwrite(file, b"x", 0)
    print(time.monotonic_ns(), flush=True)
"""
# Writes so many bytes a second over and over the same file, until it is told to end; then tells how many
# there were.
WRITER = """
import os, signal, sys, time
path, rate, chunk, size = sys.argv[1], int(sys.argv[2]), bytes(1 << 20), 256 << 20
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
began, written = time.monotonic(), 0
while not ends:
    os.pwrite(file, chunk, written % size)
    written += len(chunk)
    time.sleep(max(0, began + written / rate - time.monotonic()))
print(written / (time.monotonic() - began))
"""


def rounds(least):
    return max(least, int(env["rounds"]))


def scale(host):
    """All mounts in one set against one mount, in turns."""
    one, many = host.mounts[:1], host.mounts
    taken = {}
    for number in range(1 + max(7, rounds(7) // 3)):
        round = {}
        for name, mounts in (("1", one), ("n", many)) if number % 2 else (("n", many), ("1", one)):
            rest(mounts, 1 << 16)
            of = stillpoint(mounts)
            at = {name: unix_ns(text) / 1e6 for name, text in of["times"].items()}
            round |= {
                f"window {name}": of["window_ms"],
                f"call {name}": of["call_ms"],
                f"own {name}": of["window_ms"] - of["call_ms"],
                f"freezing {name}": at["frozen"] - at["started"],
                f"thawing {name}": at["thawed"] - at["responded"],
            }
            rest(mounts, 1 << 16)
            round[f"floor {name}"] = floor(host.fds[: len(mounts)])
        if not number:
            continue  # the first round warms up
        round["whole"] = round["window n"] / round["window 1"]
        round["own"] = round["own n"] / round["own 1"]
        round["kernel"] = round["floor n"] / round["floor 1"]
        for name, value in round.items():
            taken.setdefault(name, []).append(value)
    n = len(many)
    say(f"\n   {n} ext4 mounts in one set, and one of them alone, {load()}: median (least – most)")
    for name, text in (("n", f"window, {n} mounts"), ("1", "window, 1 mount")):
        row(text, taken[f"window {name}"])
        row("  API time (ebs-sim clones one volume after the other)", taken[f"call {name}"])
        row("  the rest", taken[f"own {name}"])
        row("    freezing", taken[f"freezing {name}"])
        row("    thawing", taken[f"thawing {name}"])
        row("  parallel freeze and thaw without stillpoint", taken[f"floor {name}"])
    row("freeze and thaw without stillpoint, ratio", taken["kernel"], "")
    row(f"{n} mounts / 1 mount, with the API time", taken["whole"], "")
    met = aim(f"{n} mounts / 1 mount, without it", taken["own"], 2, "")
    with held(host, many) as pids:
        total, text = resident(pids)
    say(f"   agent, freezer and watchdog with {n} mounts frozen ({env['profile']} build): {total['VmRSS']:.1f} MB; {text}")
    return met


@contextlib.contextmanager
def writing(mount):
    """A writer at WRITE_RATE; gives a list that its rate is in once it has ended."""
    rate = []
    words = [sys.executable, "-c", WRITER, mount + "/stream", str(WRITE_RATE)]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield rate
    finally:
        writer.terminate()
        out, _ = writer.communicate(timeout=60)
        rate.append(float(out or 0) / MIB)


def dirty_bytes():
    with open("/proc/meminfo") as file:
        return int(re.search(r"Dirty:\s+(\d+) kB", file.read())[1]) * 1024


def dirty(host):
    """FIFREEZE after stillpoint's own flush, with much to write and a writer, against the same filesystem at rest; in turns."""
    chunk, met = os.urandom(MIB), True
    for mount in host.mounts:
        clean, loaded, ratios, flushes, rates, found = [], [], [], [], [], []

        def rehearse():
            mounts = ended(command("rehearse", [mount]))["rounds"][0]["mounts"]
            return mounts[0]

        def measure_clean():
            os.sync()
            rest([mount])
            return rehearse()["freeze_ms"]

        def measure_loaded():
            os.sync()
            before = dirty_bytes()
            with writing(mount) as rate:
                time.sleep(0.5)
                with open(mount + "/dirty", "wb", buffering=0) as file:
                    for _ in range(DIRTY // MIB):
                        file.write(chunk)
                found.append((dirty_bytes() - before) / MIB)
                of = rehearse()
            rates.append(rate[0])
            flushes.append(of["flush_ms"])
            os.unlink(mount + "/dirty")
            return of["freeze_ms"]

        for number in range(1 + max(7, rounds(7) // 3)):
            taken = {}
            for step in (measure_clean, measure_loaded) if number % 2 else (measure_loaded, measure_clean):
                taken[step] = step()
            if number:  # the first round warms up
                clean.append(taken[measure_clean])
                loaded.append(taken[measure_loaded])
                ratios.append(loaded[-1] / clean[-1])
        fstype = run_output("findmnt", "-no", "FSTYPE", mount)
        say(f"\n   {fstype}, 512 MiB dirty and a writer of 100 MiB/s, {load()}: median (least – most)")
        row("the writer reached", rates, "MiB/s")
        row("dirty just before stillpoint started", found, "MiB")
        row("stillpoint's flush before freezing", flushes)
        row("FIFREEZE, clean", clean)
        row("FIFREEZE, dirty and written to", loaded)
        met &= aim("dirty / clean", ratios, 1.5, "")
        if statistics.median(found) < 0.9 * DIRTY / MIB:
            say("   something else on this machine flushed meanwhile: the ratio is of less")
        if statistics.median(rates) < 0.95 * WRITE_RATE / MIB:
            say("   this machine does not reach the rate of writing: the ratio is of less")
    return met


def run_output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def kill(host):
    """From SIGKILL of the agent to the return of the last write that was waiting for the thaw."""
    words = [sys.executable, "-c", PROBE]
    probes = [subprocess.Popen(words + [m + "/probe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for m in host.mounts]
    first, last = [], []
    try:
        for number in range(1 + rounds(21)):
            rest(host.mounts, 1 << 16)
            for probe in probes:
                ask(probe)
                answer(probe, 10)  # its file is there, and its code in memory
            with held(host, host.mounts) as (agent, *_):
                for probe in probes:
                    ask(probe)
                until("all writes wait", 5, lambda: all(stat(p.pid)[0] == "D" for p in probes))
                time.sleep(0.05)
                if select.select([p.stdout for p in probes], [], [], 0)[0]:
                    sys.exit("a mount is not frozen")
                killed = time.monotonic_ns()
                os.kill(agent, signal.SIGKILL)
                times = [(answer(p, 30) - killed) / 1e6 for p in probes]
            if number:  # the first round warms up
                first.append(min(times))
                last.append(max(times))
    finally:
        for probe in probes:
            probe.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for probe in probes:
                probe.wait(5)  # while they live, nothing can be unmounted
    say(f"\n   the agent killed with {len(probes)} mounts frozen, {len(last)} times, {load()}: median (least – most)")
    row("SIGKILL to the first write that goes on", first)
    return aim("SIGKILL to the last", last, 10)


def ask(probe):
    probe.stdin.write("\n")
    probe.stdin.flush()


def answer(probe, seconds):
    if not select.select([probe.stdout], [], [], seconds)[0]:
        sys.exit(f"a write was not through within {seconds} s")
    return int(probe.stdout.readline())


def memory(host):
    """What agent, freezer and watchdog hold of memory while frozen. All of it is locked, so that all of it counts."""
    taken, texts = [], []
    for _ in range(3):
        with held(host, host.mounts) as pids:
            total, text = resident(pids)
            taken.append(total)
            texts.append(text)
    say(f"\n   memory with {len(host.mounts)} mounts frozen, {env['profile']} build: median (least – most)")
    row("peak of all three (VmHWM)", [t["VmHWM"] for t in taken], "MB")
    row("all three together (VmRSS)", [t["VmRSS"] for t in taken], "MB")
    met = aim("shared pages counted once (Pss)", [t["Pss"] for t in taken], 30, "MB")
    say(f"   {texts[-1]}")
    if env["profile"] != "release":
        say("   the program itself is the most of it: a debug build is larger (--release)")
    return met


def resident(pids):
    """Sums over agent, freezer and watchdog in MB of 10⁶ bytes, and what they are made of."""
    total, parts = {}, []
    for name, pid in zip(("agent", "freezer", "watchdog"), pids):
        of = {}
        for file, keys in (("status", "VmRSS VmHWM VmLck RssAnon RssFile"), ("smaps_rollup", "Pss")):
            with open(f"/proc/{pid}/{file}") as lines:
                of |= dict(re.findall(rf"^({'|'.join(keys.split())}):\s+(\d+) kB", lines.read(), re.MULTILINE))
        of = {key: int(kb) * 1024 / 1e6 for key, kb in of.items()}
        parts.append(f"{name} {of['VmRSS']:.1f} ({of['RssFile']:.1f} of files, {of['RssAnon']:.1f} own)")
        for key, value in of.items():
            total[key] = total.get(key, 0) + value
    return total, ", ".join(parts)
