"""The part of scripts/bench-sim that measures: requests over one open connection, signed with the standard library alone.

In: $bin, $work, $snapshots. Out: a line for each aim; exit status 3 when one is missed.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.parse

WORK = os.environ["work"]
SIM = os.environ["bin"] + "/ebs-sim"
WANTED = int(os.environ["snapshots"])
AIM_MS, AIM_MB = 5.0, 500.0
# Without EC2's limits: they would be what is measured.
SCENARIO = """
[snapshots]
seconds_to_complete = 0
[limits]
per_volume_interval = "0s"
pending_per_volume = 0
pending_per_account = 0
snapshots = 0
throttling = false
"""


class Server:
    """A running ebs-sim and one open connection to it."""

    def __init__(self, volumes):
        with open(f"{WORK}/scenario.toml", "w") as file:
            file.write(SCENARIO)
        words = [SIM, "serve", "--dir", f"{WORK}/sim", "--scenario", f"{WORK}/scenario.toml"]
        for volume in volumes:
            words += ["--volume", volume]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.ready = json.loads(self.process.stdout.readline())
        self.host = self.ready["endpoint"].removeprefix("http://")
        self.connection = http.client.HTTPConnection(self.host)

    def stop(self):
        self.process.terminate()
        assert self.process.wait() == 0

    def call(self, action, **params):
        """One request; its answer, and the milliseconds that it took."""
        form = {"Action": action, "Version": "2016-11-15"} | {k.replace("__", "."): v for k, v in params.items()}
        body = urllib.parse.urlencode(form)
        headers = self.sign(body)
        started = time.perf_counter()
        self.connection.request("POST", "/", body, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        took = (time.perf_counter() - started) * 1000
        if answer.status != 200:
            sys.exit(f"{action}: {text}")
        return text, took

    def sign(self, body):
        """Signature Version 4, as its documentation describes it."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        region, keys = self.ready["region"], self.ready["credentials"]
        payload = hashlib.sha256(body.encode()).hexdigest()
        request = f"POST\n/\n\nhost:{self.host}\nx-amz-date:{now}\n\nhost;x-amz-date\n{payload}"
        scope = f"{now[:8]}/{region}/ec2/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{keys['secret_access_key']}".encode()
        for part in (now[:8], region, "ec2", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        credential = f"Credential={keys['access_key_id']}/{scope}"
        return {
            "host": self.host,
            "x-amz-date": now,
            "content-type": "application/x-www-form-urlencoded",
            "authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host;x-amz-date, Signature={signature}",
        }

    def create_snapshots(self):
        return self.call("CreateSnapshots", InstanceSpecification__InstanceId=self.ready["instance_id"])

    def peak_mb(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024 / 1e6


def row(what, value, aim):
    print(f"   {what:<58}{value:>10}   aim {aim}")


def answer_time():
    server = Server(["name=a,size=1GiB", "name=b,size=1GiB"])
    # Something to clone: an empty pool has no extents at all.
    for volume in server.ready["volumes"]:
        subprocess.run(["mkfs.ext4", "-q", "-F", volume["loop"]], check=True)
    server.create_snapshots()
    times = []
    for _ in range(100):
        times.append(server.create_snapshots()[1])
        # Idle means idle: what is done after an answer is done.
        time.sleep(0.05)
    server.stop()
    median = statistics.median(times)
    row("CreateSnapshots, two idle volumes of 1 GiB, median of 100", f"{median:.1f} ms", f"{AIM_MS:g} ms")
    row("    of these, the slowest", f"{max(times):.1f} ms", "-")
    return median <= AIM_MS


def large_account():
    a_set = 128
    server = Server([f"name=v{n},size=1MiB" for n in range(a_set)])
    before = server.peak_mb()
    started = time.monotonic()
    made = 0
    while made < WANTED:
        made += server.create_snapshots()[0].count("<snapshotId>")
    row(f"making {made} snapshots, in sets of {a_set}", f"{time.monotonic() - started:.0f} s", "-")
    started = time.monotonic()
    seen, pages, token = set(), 0, {}
    while True:
        text, _ = server.call("DescribeSnapshots", MaxResults="1000", Owner__1="self", **token)
        seen.update(re.findall("<snapshotId>([^<]+)</snapshotId>", text))
        pages += 1
        found = re.search("<nextToken>([^<]+)</nextToken>", text)
        if not found:
            break
        token = {"NextToken": found[1]}
    took = time.monotonic() - started
    if len(seen) != made:
        sys.exit(f"{made} snapshots were made, {len(seen)} were listed")
    row(f"listing them in {pages} pages", f"{took:.1f} s", "-")
    peak = server.peak_mb()
    server.stop()
    row(f"peak memory ({before:.0f} MB before)", f"{peak:.0f} MB", f"{AIM_MB:g} MB")
    return peak <= AIM_MB


def listed(server, **filters):
    """All that a filter finds, in pages: how many, and the milliseconds of each page."""
    found, times, token = 0, [], {}
    while True:
        text, took = server.call("DescribeSnapshots", MaxResults="1000", Owner__1="self", **filters, **token)
        found += text.count("<snapshotId>")
        times.append(took)
        following = re.search("<nextToken>([^<]+)</nextToken>", text)
        if not following:
            return found, times
        token = {"NextToken": following[1]}


def filled_account():
    """Sets of four with twenty tags each, as a tool's are, in an account that is filled at once."""
    server = Server(["name=a,size=1MiB"])
    words = [SIM, "fill", "--dir", f"{WORK}/sim", "--sets", str(WANTED // 4), "--members", "4"]
    for n in range(18):
        words += ["--tag", f"line{n}={'x' * 100}"]
    words += ["--tag", "run={set}", "--tag", "part={member}"]
    started = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    row(f"filling an account with {WANTED} snapshots of 20 tags", f"{time.monotonic() - started:.1f} s", "-")
    for what, name, value in (
        ("a tag that all have", "tag-key", "run"),
        ("a tag that a quarter has", "tag:part", "2"),
        ("a tag that one set has", "tag:run", str(WANTED // 8)),
    ):
        found, times = listed(server, Filter__1__Name=name, Filter__1__Value__1=value)
        if found == 0:
            sys.exit(f"{what}: nothing was found")
        row(f"{what}: {found} in {len(times)} pages, median of a page", f"{statistics.median(times):.1f} ms", "-")
        row("    the slowest page", f"{max(times):.1f} ms", "-")
    row("peak memory", f"{server.peak_mb():.0f} MB", "-")
    server.stop()
    return True


met = [answer_time(), large_account(), filled_account()]
sys.exit(0 if all(met) else 3)
