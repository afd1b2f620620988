#!/usr/bin/env python3
"""The part of scripts/soak-restore that runs inside `ebs-sim run`.

In: the environment of scripts/soak-restore. Out: exit status 0 when every set came back right and every control was caught.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import records
from bench_host import Host, ask, call, command, ended, env, say, until

HERE = os.path.dirname(os.path.abspath(__file__))


@contextlib.contextmanager
def writers(pairs):
    """One for each pair of mounts, until the end."""
    started = []
    try:
        for a, b, log in pairs:
            words = [sys.executable, HERE + "/records.py", "write", a, b, log]
            started.append(subprocess.Popen(words))
        for _, _, log in pairs:
            until(f"the first record in {log}", 60, lambda log=log: os.path.exists(log) and os.path.getsize(log) > 0)
        yield
        for writer in started:
            if writer.poll() is not None:
                sys.exit(f"a writer ended by itself, with {writer.returncode}")
    finally:
        for writer in started:
            writer.terminate()
            writer.wait()


def snapshots(host):
    return host.control("snapshots")


def counted(pairs, place, record):
    """What is wrong with the records of a restored set; none where nothing is."""
    with open(env["work"] + "/set.json", "w") as file:
        json.dump(record, file)
    for a, b, log in pairs:
        least, most = records.between(log, env["work"] + "/set.json")
        try:
            first, second = records.counted(place + a), records.counted(place + b)
        except ValueError as why:
            return f"{a}, {b}: {why}"
        if not (least <= first <= most and least <= second <= most):
            return f"{a} has {first} records and {b} {second}; from {least} to {most} can be"
        if first - second not in (0, 1):
            return f"{a} has {first} records, and {b} {second}: they are not of one instant"
    return None


def control(host, record):
    """The tags of this set on snapshots that nobody froze for. The set's own are gone."""
    before = snapshots(host)
    own = {s["volume_id"]: s for s in before if s["tags"].get("stillpoint:run") == record["run_id"]}
    instance = next(iter(own.values()))["tags"]["stillpoint:instance"]
    call("CreateSnapshots", f"InstanceSpecification.InstanceId={instance}")
    known = {s["id"] for s in before}
    for made in snapshots(host):
        like = own.get(made["volume_id"])
        if made["id"] in known or not like:
            continue
        tags = [f"Tag.{n}.{part}={text}" for n, pair in enumerate(like["tags"].items(), 1) for part, text in zip(("Key", "Value"), pair)]
        call("CreateTags", f"ResourceId.1={made['id']}", *tags)
    for snapshot in own.values():
        call("DeleteSnapshot", f"SnapshotId={snapshot['id']}")


def one(host, number, pairs, taking):
    """Takes one set and brings it back: what is wrong with it, if anything is, and whether it was a control."""
    record = ended(taking)
    host.completed()
    if record["achieved"] != "filesystem":
        return f"it is labelled {record['achieved']}", False
    if number % 10 == 0:
        control(host, record)
        host.completed()
        said = ask("verify", record["run_id"])
        return (None if said.returncode == 24 else f"a false label is not caught: {said.returncode} {said.stderr}{said.stdout}"), True
    level = ["--level", "restore"] if number % 5 == 0 else []
    said = ask("verify", record["run_id"], *level)
    if said.returncode != 0:
        return f"verify ended with {said.returncode}: {said.stderr}{said.stdout}", False
    place = env["work"] + "/restored"
    mounts = [f"--mount={mount}" for a, b, _ in pairs for mount in (a, b)]
    restored = ask("restore", record["run_id"], "--to", place, "-o", "json", *mounts)
    if restored.returncode != 0:
        return f"restore ended with {restored.returncode}: {restored.stderr}", False
    wrong = counted(pairs, place, record)
    undone = ask("restore", "--undo", json.loads(restored.stdout)["restores"][0]["id"])
    if not wrong and undone.returncode != 0:
        wrong = f"undo ended with {undone.returncode}: {undone.stderr}"
    return wrong, False


def main():
    wanted, failed, controls = int(env["sets"]), 0, 0
    began = time.monotonic()
    # Longer than it takes; stillpoint has a rescue of its own.
    with Host(["ext4", "xfs", "ext4", "xfs", "btrfs"], minutes=24 * 60) as host:
        m = host.mounts
        pairs = [(m[0], m[1], env["work"] + "/first.log"), (m[3], m[2], env["work"] + "/second.log")]
        os.mkdir(m[4] + "/second")
        taking = command("snapshot", m)
        with writers([*pairs, (m[4], m[4] + "/second", env["work"] + "/third.log")]):
            for number in range(1, wanted + 1):
                wrong, is_control = one(host, number, pairs, taking)
                controls += is_control
                if wrong:
                    failed += 1
                    say(f"   set {number}: {wrong}")
                for snapshot in snapshots(host):
                    call("DeleteSnapshot", f"SnapshotId={snapshot['id']}")
                shutil.rmtree(env["run_dir"], ignore_errors=True)
                if number % 25 == 0 or number == wanted:
                    minutes = (time.monotonic() - began) / 60
                    say(f"   {number} of {wanted} after {minutes:.0f} min: {number - controls} sets and {controls} controls, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
