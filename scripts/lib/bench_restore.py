"""A restore of all volumes, mounted, against what EC2 alone needs for it; and a whole read against what the endpoint gives.

In: a [`Host`]. Out: ratios within a round, with their aims.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from bench_host import MIB, aim, ask, call, command, ended, env, row, run, say, until

ROUNDS = 5


def asked(action, **parameters):
    return call(action, *(f"{key.replace('__', '.')}={value}" for key, value in parameters.items()))


def part(text, name):
    """What stands between this element's tags, each time."""
    return [rest.split(f"</{name}>")[0] for rest in text.split(f"<{name}>")[1:]]


def shown(ids, state):
    text = asked("DescribeVolumes", **{f"VolumeId__{n}": id for n, id in enumerate(ids, 1)})
    return text.count(f"<status>{state}</status>") >= len(ids)


def by_ec2_alone(host, record):
    """Seconds to make volumes of all snapshots and to attach them, all at the same time. Nothing looks at them."""
    zone, instance = host.ready["availability_zone"], host.ready["instance_id"]
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        made = pool.map(lambda s: asked("CreateVolume", SnapshotId=s["id"], AvailabilityZone=zone, VolumeType="gp3"), record["snapshots"])
        ids = [part(text, "volumeId")[0] for text in made]
        until("the volumes", 60, lambda: shown(ids, "available"))
        attach = lambda n: asked("AttachVolume", VolumeId=ids[n], InstanceId=instance, Device=f"/dev/xvdc{chr(97 + n)}")
        list(pool.map(attach, range(len(ids))))
        until("the attachments", 60, lambda: shown(ids, "attached"))
        seconds = time.monotonic() - began
        list(pool.map(lambda id: asked("DetachVolume", VolumeId=id), ids))
        until("the detachments", 60, lambda: shown(ids, "available"))
        list(pool.map(lambda id: asked("DeleteVolume", VolumeId=id), ids))
    return seconds


def stillpoint(*words):
    done = ask(*words)
    if done.returncode != 0:
        sys.exit(f"stillpoint {words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def restore(host):
    record = ended(command("snapshot", host.mounts))
    host.completed()
    ratios, alone, whole = [], [], []
    for _ in range(ROUNDS):
        alone.append(by_ec2_alone(host, record))
        began = time.monotonic()
        made = json.loads(stillpoint("restore", record["run_id"], "--to", env["work"] + "/back", "-o", "json"))
        whole.append(time.monotonic() - began)
        ratios.append(whole[-1] / alone[-1])
        stillpoint("restore", "--undo", made["restores"][0]["id"])
    say(f"\n   {len(host.mounts)} volumes, which EC2 makes and attaches in 5 and 3 seconds")
    row("EC2 alone", alone, "s")
    row("restore, until all are mounted", whole, "s")
    return aim("restore / EC2 alone", ratios, 1.2, "")


def fill(mount):
    with open(mount + "/data", "wb") as file:
        for _ in range(256):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def curl(ready, *words):
    keys = ready["credentials"]
    signed = ["--aws-sigv4", f"aws:amz:{ready['region']}:ebs", "--user", f"{keys['access_key_id']}:{keys['secret_access_key']}"]
    return run("curl", "-sSf", *signed, *words, capture_output=True, text=True).stdout


def by_curl(ready, snapshots):
    """Seconds for all blocks, and how many there are, as fast as curl takes them from the endpoint. It checks none."""
    base, urls = ready["endpoint"], []
    for snapshot in snapshots:
        page = ""
        while page is not None:
            listed = json.loads(curl(ready, f"{base}/snapshots/{snapshot}/blocks?maxResults=10000{page}"))
            for block in listed["Blocks"]:
                token = quote(block["BlockToken"], safe="")
                urls.append(f"{base}/snapshots/{snapshot}/blocks/{block['BlockIndex']}?blockToken={token}")
            page = f"&pageToken={quote(listed['NextToken'], safe='')}" if listed.get("NextToken") else None
    config = env["work"] + "/curl"
    with open(config, "w") as file:
        file.writelines(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls)
    began = time.monotonic()
    curl(ready, "--parallel", "--parallel-max", "64", "--config", config)
    return time.monotonic() - began, len(urls)


def whole(host):
    for mount in host.mounts:
        fill(mount)
    record = ended(command("snapshot", host.mounts))
    host.completed()
    ratios, alone, read = [], [], []
    for _ in range(ROUNDS):
        seconds, blocks = by_curl(host.ready, [s["id"] for s in record["snapshots"]])
        began = time.monotonic()
        said = json.loads(stillpoint("verify", record["run_id"], "--level", "whole", "-o", "json"))
        taken = time.monotonic() - began
        if said["blocks_read"] < blocks:
            sys.exit(f"verify has read {said['blocks_read']} of {blocks} blocks")
        alone.append(blocks / 2 / seconds)
        read.append(blocks / 2 / taken)
        ratios.append(alone[-1] / read[-1])
    say(f"\n   {blocks} blocks of 512 KiB; the endpoint has the same processors")
    row("curl, 64 at a time, which checks nothing", alone, "MiB/s")
    row("verify --level whole", read, "MiB/s")
    return aim("curl / verify", ratios, 1.25, "")


def probe(host):
    record = ended(command("snapshot", host.mounts))
    host.completed()
    seconds, blocks = [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        said = json.loads(stillpoint("verify", record["run_id"], "-o", "json"))
        seconds.append(time.monotonic() - began)
        blocks.append(said["blocks_read"])
    say("\n   two filesystems of 100 GiB")
    met = aim("verify by the probe", seconds, 5, "s")
    return aim("blocks that it reads", blocks, 100, "") and met
