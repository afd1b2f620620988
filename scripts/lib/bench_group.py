"""How much longer the window is when three members take their sets at one instant, against the same three each alone.

In: a [`Host`] with three mounts, one for each member; `rounds`. Out: medians of what a window has beside EC2's answer, taken side
by side, and of one round trip of etcd. The members are processes of one machine, with one ebs-sim and one etcd.
"""

import base64
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from bench_host import env, rest, row, say, until

NAMES = ["a", "b", "c"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def etcd():
    port, peer = free_port(), free_port()
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    words = ["etcd", "--name", "one", "--data-dir", env["memory"] + "/etcd", "--listen-client-urls", client]
    words += ["--advertise-client-urls", client, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    words += ["--initial-cluster", f"one={peers}"]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("etcd answers", 30, lambda: answers(port))
        yield port
    finally:
        server.kill()
        server.wait()


def answers(port):
    with contextlib.suppress(OSError, http.client.HTTPException):
        round_trip(http.client.HTTPConnection("127.0.0.1", port))
        return True
    return False


def round_trip(connection):
    """One write over an open connection, in ms."""
    key = base64.b64encode(b"/bench").decode()
    began = time.perf_counter_ns()
    connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": key}))
    connection.getresponse().read()
    return (time.perf_counter_ns() - began) / 1e6


def configure(name, mount, port):
    folder = f"{env['work']}/{name}"
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/stillpoint.toml", "w") as file:
        file.write('[ec2]\nvolume_interval = "0s"\n[defaults]\n')
        file.write("mounts = [%s]\n" % json.dumps(mount))
        file.write('[group]\nname = "g"\nmember = "%s"\nmembers = %s\n' % (name, json.dumps(NAMES)))
        file.write('endpoints = ["http://127.0.0.1:%d"]\n' % port)
    return ["--config", folder + "/stillpoint.toml", "--run-dir", f"{env['run_dir']}/{name}", "--state-dir", folder + "/state"]


def take(members, *more):
    """All at once; the most that a window has beside EC2's answer."""
    words = [[env["stillpoint"], "snapshot", "-o", "json", *more, *common] for common in members]
    runs = [subprocess.Popen(w, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for w in words]
    records = []
    for run in runs:
        out, err = run.communicate()
        if run.returncode != 0:
            sys.exit(f"stillpoint ended with {run.returncode}: {err}")
        records.append(json.loads(out))
    if not more and any(r["group"]["instant"] != "group" for r in records):
        sys.exit(f"not of one instant: {records}")
    return max(r["window_ms"] - r["call_ms"] for r in records), max(r["window_ms"] for r in records)


def group(host):
    with etcd() as port:
        members = [configure(name, mount, port) for name, mount in zip(NAMES, host.mounts)]
        connection = http.client.HTTPConnection("127.0.0.1", port)
        alone, together, windows, trips = [], [], [], []
        for number in range(int(env["rounds"]) + 1):
            taken = {}
            steps = [("alone", ["--alone"]), ("together", [])]
            for name, more in steps if number % 2 else steps[::-1]:
                rest(host.mounts)
                taken[name] = take(members, *more)
            trip = statistics.median(round_trip(connection) for _ in range(9))
            # The first round warms up.
            if number:
                alone.append(taken["alone"][0])
                together.append(taken["together"][0])
                windows.append(taken["together"][1])
                trips.append(trip)
        longer = [t - a for t, a in zip(together, alone)]
        say("\n   three members at once, one mount each: the longest window of the three without EC2's answer")
        row("each alone", alone)
        row("as a group", together)
        row("as a group, with EC2's answer", windows)
        row("longer as a group", longer)
        row("one write of etcd, over an open connection", trips)
        row("longer, in writes of etcd", [x / t for x, t in zip(longer, trips)], "")
        row("as a group / each alone", [t / a for t, a in zip(together, alone)], "")
    return True
