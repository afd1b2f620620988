"""What every part of scripts/bench and scripts/soak-restore needs: mounts on ebs-sim's volumes, a rescue, stillpoint, rows of numbers.

In: the environment of these scripts, and EBS_SIM_DIR. Must never leave a mount frozen: a process of its own thaws them all when
this one ends, whatever way; and nothing that may block on a frozen filesystem runs in this process.
"""

import calendar
import contextlib
import fcntl
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
env = os.environ
MIB = 1 << 20
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "small ext4": ["mkfs.ext4", "-q", "-F", "-J", "size=1"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def rescue(fds, minutes):
    """Thaws all when this process is gone, and after so many minutes. Holds the mounts, so nothing frozen can be unmounted."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(theirs)
        signal.alarm(minutes * 60)
        signal.signal(signal.SIGALRM, lambda *_: None)
        try:
            os.read(ours, 1)
        except OSError:
            pass
        for fd in fds:
            thaw(fd)
        os._exit(0)
    os.close(ours)
    return child, theirs


def thaw(fd):
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, FITHAW, 0)


class Host:
    """ebs-sim's volumes, formatted and mounted in `work`, for as long as the `with` lasts."""

    def __init__(self, kinds, minutes=10):
        with open(env["EBS_SIM_DIR"] + "/ebs-sim.json") as file:
            self.ready = json.load(file)
        self.kinds, self.minutes = kinds, minutes
        self.mounts, self.fds, self.alive = [], [], None

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            # All before the first mount: for mkfs.btrfs, loops over one file are one device.
            for number, volume in enumerate(self.ready["volumes"]):
                run(*MAKE[self.kinds[number % len(self.kinds)]], volume["loop"])
            for volume in self.ready["volumes"]:
                mount = f"{env['work']}/{volume['name']}"
                os.makedirs(mount, exist_ok=True)
                run("mount", volume["loop"], mount)
                self.mounts.append(mount)
                self.fds.append(os.open(mount, os.O_RDONLY | os.O_DIRECTORY))
            self.alive = rescue(self.fds, self.minutes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.alive:
            # Its end is waited for: it holds the mounts.
            child, pipe = self.alive
            os.close(pipe)
            os.waitpid(child, 0)
        for fd in self.fds:
            thaw(fd)
            os.close(fd)
        for mount in self.mounts:
            subprocess.run(["umount", mount])

    def requests(self):
        return self.control("requests")

    def completed(self):
        """Waits until every snapshot is."""
        until("every snapshot is completed", 120, lambda: all(s["state"] == "completed" for s in self.control("snapshots")))

    def creates(self):
        """Calls that were meant to create, so far."""
        return [r for r in self.requests() if r["action"].startswith("CreateSnapshot") and not r["dry_run"]]

    def control(self, what, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.ready['control']}/_ebs-sim/{what}", data=data, method=method)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def common():
    """Where stillpoint finds its configuration and keeps what it has to."""
    return ["--config", env["work"] + "/stillpoint.toml", "--run-dir", env["run_dir"], "--state-dir", env["work"] + "/state"]


def ask(*words):
    """Runs stillpoint, whatever comes of it."""
    return subprocess.run([env["stillpoint"], *words, *common()], capture_output=True, text=True)


def call(*words):
    """What ebs-sim answers to a call."""
    return run(env["sim"], "call", *words, capture_output=True, text=True).stdout


def command(action, mounts, expedited=False, *more):
    # One set after another: the endpoint is told to have no least interval, and so is stillpoint.
    with open(env["work"] + "/stillpoint.toml", "w") as file:
        file.write('[ec2]\nvolume_interval = "0s"\n[defaults]\nrcu_expedited = %s\n' % json.dumps(expedited))
    words = [env["stillpoint"], action, *common(), "-o", "json"]
    return words + [f"--mount={m}" for m in mounts] + list(more)


def ended(words):
    """What a run printed; anything but success ends all."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"stillpoint ended with {done.returncode}: {done.stderr}")
    if "not expedited" in done.stderr:
        sys.exit(f"rcu_expedited could not be raised: {done.stderr}")
    return json.loads(done.stdout)


def stillpoint(mounts, expedited=False):
    record = ended(command("snapshot", mounts, expedited))
    if record["achieved"] != "filesystem" or len(record["snapshots"]) != len(mounts):
        sys.exit(f"stillpoint took something else: {record}")
    return record


@contextlib.contextmanager
def held(host, mounts):
    """A run in its window: all is frozen, its create call is never answered. Killed at the end, and nothing is left of it."""
    before = len(host.creates())
    host.control("faults", {"action": "CreateSnapshot" if len(mounts) == 1 else "CreateSnapshots", "kind": "hang"})
    agent = subprocess.Popen(command("snapshot", mounts), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until("the create call", 30, lambda: len(host.creates()) > before or agent.poll() is not None)
        if agent.poll() is not None:
            sys.exit(f"stillpoint ended with {agent.returncode}: {agent.stderr.read()}")
        freezer = until("the freezer", 5, lambda: child_of(agent.pid, b"__freezer"))
        watchdog = until("the watchdog", 5, lambda: child_of(agent.pid, b"__watchdog"))
        yield agent.pid, freezer, watchdog
    finally:
        agent.kill()
        agent.wait()
        agent.stderr.close()
        host.control("faults", method="DELETE")
    until("the end of both", 30, lambda: not running(freezer) and not running(watchdog))
    # Nothing was made: the next run need not look for it, which takes seconds.
    shutil.rmtree(env["run_dir"])


def until(what, seconds, done):
    end = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > end:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return found


def stat(pid):
    """State and parent of a process; none when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
        return state, int(parent)
    return None, None


def running(pid):
    return stat(pid)[0] not in (None, "Z", "X")


def child_of(parent, word):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if word in file.read().split(b"\0") and stat(pid)[1] == parent:
                return int(pid)
    return None


def rest(mounts, size=MIB):
    """What goes before each measurement. A freeze soon after another of the same filesystem is cheaper: the kernel keeps the
    grace period that it has already waited for. So all start rested, with a little to flush."""
    for mount in mounts:
        with open(mount + "/data", "wb") as file:
            file.write(os.urandom(size))
    time.sleep(0.5)


def unix_ns(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))


def say(text=""):
    print(text, file=sys.stderr, flush=True)


def row(text, values, unit="ms"):
    say(f"   {text:<52} {statistics.median(values):8.2f} {unit:<2}  ({min(values):.2f} – {max(values):.2f})")


def aim(what, values, most, unit="ms"):
    """A row with its aim; true when it is met."""
    met = statistics.median(values) <= most
    row(f"{what:<40} aim ≤ {most:g}", values, unit)
    say(f"   {'aim met' if met else 'AIM MISSED'}")
    return met


def load():
    return "load " + " ".join(f"{n:.1f}" for n in os.getloadavg()[:2])
