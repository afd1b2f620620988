"""The life of a set in an EC2 that someone else wrote: stillpoint's commands after the run, against moto.

moto has no locks, no tiers and no Recycle Bin: without_locks.py answers for these as if there were none of them, and one
test asks moto alone, where nothing may be removed that is not known to be free. Nor does it find an image by its
snapshots (HTTP 500): what an image holds is tried with ebs-sim alone.
"""

import json

import pytest

from test_stillpoint_moto import Host
from without_locks import Proxy

OTHER = "123456789013"


class Behind:
    """moto, as a host sees it."""

    def __init__(self, moto):
        self.proxy = Proxy(moto)
        self.moto, self.endpoint, self.client = moto, self.proxy.endpoint, moto.client


@pytest.fixture(scope="module")
def host(moto):
    behind = Behind(moto)
    host = Host(behind)
    (host.sim.folder / "stillpoint.toml").write_text(
        "[ec2]\nvolume_interval = '0s'\nretry_timeout = '1s'\n[defaults.keep]\nlast = 1\nat_least = 2\n"
    )
    yield host
    host.stop()
    behind.proxy.stop()


def said(host, *arguments, code=0):
    ended, out, err = host.run(*arguments)
    assert ended == code, (arguments, out, err)
    return out, err


def take(host):
    out, _ = said(host, "snapshot", "--output", "json", *host.mount_arguments("data", "log"))
    return json.loads(out)["run_id"]


def sets(host):
    out, _ = said(host, "list", "--output", "json")
    return {found["id"]: found for found in json.loads(out)["sets"]}


def tags(host, run):
    of = host.snapshots(run).values()
    return [{tag["Key"]: tag["Value"] for tag in snapshot["Tags"]} for snapshot in of]


def shared(host, run):
    of = [s["SnapshotId"] for s in host.snapshots(run).values()]
    asked = [host.ec2.describe_snapshot_attribute(SnapshotId=s, Attribute="createVolumePermission") for s in of]
    return [sorted(p["UserId"] for p in a["CreateVolumePermissions"]) for a in asked]


def test_listed_shown_and_waited_for(host):
    run = take(host)
    found = sets(host)[run]
    assert (found["state"], found["achieved"], found["doubts"]) == ("completed", "filesystem", [])
    assert {m["volume_id"] for m in found["members"]} == {host.volumes["data"], host.volumes["log"]}
    out, _ = said(host, "show", run, "--output", "json")
    layout = json.loads(out)["layout"]
    assert {f["mount_point"] for f in layout["filesystems"]} == {str(host.mounts.points[n]) for n in ("data", "log")}
    out, err = said(host, "wait", run)
    assert sorted(out.split()) == sorted(s["SnapshotId"] for s in host.snapshots(run).values())
    assert "is complete" in err


def test_kept_and_released(host):
    run = take(host)
    said(host, "keep", run, "--until", "2099-12-31")
    assert [t["stillpoint:keep-until"] for t in tags(host, run)] == ["2099-12-31"] * 2
    said(host, "release", run)
    assert not any("stillpoint:keep-until" in t for t in tags(host, run))


def test_shared_and_no_longer(host):
    run = take(host)
    said(host, "share", run, "--account", OTHER)
    assert shared(host, run) == [[OTHER]] * 2
    said(host, "unshare", run)
    assert shared(host, run) == [[]] * 2


def test_prune_removes_what_its_dry_run_names(host):
    runs = [take(host) for _ in range(3)]
    out, _ = said(host, "prune", "--dry-run", "--yes", "--output", "json")
    named = json.loads(out)["order"]
    before = sets(host)
    assert named and runs[-1] not in named and set(named) <= set(before)
    said(host, "prune", "--yes")
    assert set(before) - set(sets(host)) == set(named)
    assert all(not host.snapshots(run) for run in named)


def test_a_set_is_deleted(host):
    runs = [take(host) for _ in range(2)]
    said(host, "delete", runs[0], "--dry-run")
    assert len(host.snapshots(runs[0])) == 2
    said(host, "delete", runs[0])
    assert not host.snapshots(runs[0]) and len(host.snapshots(runs[1])) == 2


def test_nothing_is_removed_where_the_holds_are_not_known(host):
    """moto alone fails at DescribeLockedSnapshots: that is an error, and not "nothing is locked"."""
    run = take(host)
    behind, host.moto = host.moto, host.moto.moto
    try:
        for words in (["show", run], ["delete", run, "--including-the-last"], ["prune", "--all", "--yes"]):
            _, err = said(host, *words, code=23)
            assert "DescribeLockedSnapshots" in err
    finally:
        host.moto = behind
    assert len(host.snapshots(run)) == 2
