"""The aws command line, used as a person would."""

import json
import shutil
import subprocess

import pytest

from tour import await_

AWS = shutil.which("aws")


class Shell:
    """Runs `aws ec2 …`; gives its JSON, or its text."""

    def __init__(self, sim):
        self.sim = sim

    def run(self, *arguments):
        assert AWS, "the aws command line is not in PATH"
        command = [AWS, "--endpoint-url", self.sim.endpoint, "ec2", *arguments]
        return subprocess.run(
            command,
            env=self.sim.environment(),
            text=True,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def __call__(self, *arguments):
        ended = self.run(*arguments)
        assert ended.returncode == 0, f"aws ec2 {' '.join(arguments)}: {ended.stderr}"
        return json.loads(ended.stdout) if ended.stdout.startswith(("{", "[")) else ended.stdout.strip()


@pytest.fixture
def aws(sim):
    return Shell(sim)


def test_a_set_of_snapshots(sim, aws):
    (reservation,) = aws("describe-instances", "--instance-ids", sim.instance_id)["Reservations"]
    (instance,) = reservation["Instances"]
    mapped = {m["DeviceName"]: m["Ebs"]["VolumeId"] for m in instance["BlockDeviceMappings"]}
    assert {v["device_name"]: v["id"] for v in sim.ready["volumes"]}.items() <= mapped.items()

    made = aws(
        "create-snapshots",
        "--instance-specification",
        f"InstanceId={sim.instance_id},ExcludeBootVolume=true,ExcludeDataVolumeIds={sim.volume('cold')}",
        "--copy-tags-from-source",
        "volume",
        "--description",
        "by hand",
        "--tag-specifications",
        "ResourceType=snapshot,Tags=[{Key=Run,Value=cli}]",
    )["Snapshots"]
    volumes = {v["id"] for v in sim.ready["volumes"] if v["name"] not in ("root", "cold")}
    assert {s["VolumeId"] for s in made} == volumes
    ids = [s["SnapshotId"] for s in made]

    assert aws("wait", "snapshot-completed", "--snapshot-ids", *ids) == ""
    found = aws("describe-snapshots", "--owner-ids", "self", "--filters", "Name=tag:Run,Values=cli",
                "Name=description,Values=by*", "--query", "sort(Snapshots[].SnapshotId)")
    assert found == sorted(ids)
    data = aws(
        "describe-snapshots",
        "--filters",
        f"Name=volume-id,Values={sim.volume('data')}",
        "Name=tag:Run,Values=cli",
        "--query",
        "Snapshots[0].[State,Progress,Tags[?Key=='Name']|[0].Value]",
        "--output",
        "text",
    )
    assert data.split() == ["completed", "100%", "data"]

    aws("create-tags", "--resources", *ids[:2], "--tags", "Key=Keep,Value=yes", "Key=Note,Value=")
    assert aws("describe-tags", "--filters", "Name=key,Values=Keep",
               "--query", "sort(Tags[].ResourceId)") == sorted(ids[:2])
    aws("delete-tags", "--resources", *ids[:2], "--tags", "Key=Keep")
    assert aws("describe-tags", "--filters", "Name=key,Values=Keep")["Tags"] == []

    everything = aws(
        "describe-snapshots", "--owner-ids", "self", "--page-size", "20", "--query", "length(Snapshots)"
    )
    assert int(everything) == len(sim.client().describe_snapshots(OwnerIds=["self"])["Snapshots"])
    few = aws("describe-snapshots", "--max-items", "2")
    assert len(few["Snapshots"]) == 2 and few["NextToken"]

    aws("delete-snapshot", "--snapshot-id", ids[0])
    gone = aws.run("describe-snapshots", "--snapshot-ids", ids[0])
    assert gone.returncode in (254, 255) and "InvalidSnapshot.NotFound" in gone.stderr, gone


def test_dry_run(sim, aws):
    ended = aws.run("create-snapshot", "--volume-id", sim.volume("data"), "--dry-run")
    assert ended.returncode in (254, 255) and "DryRunOperation" in ended.stderr, ended


def test_volumes(sim, aws):
    filters = ["--filters", "Name=attachment.device,Values=" + sim.ready["volumes"][1]["device_name"]]
    (volume,) = aws("describe-volumes", *filters)["Volumes"]
    assert volume["VolumeId"] == sim.volume("data")


def test_a_snapshot_becomes_a_volume(sim, aws):
    snapshot = aws(
        "create-snapshot", "--volume-id", sim.volume("data"), "--query", "SnapshotId", "--output", "text"
    )
    aws("wait", "snapshot-completed", "--snapshot-ids", snapshot)
    volume = aws("create-volume", "--snapshot-id", snapshot, "--volume-type", "gp3", "--availability-zone",
                 sim.ready["availability_zone"], "--query", "VolumeId", "--output", "text")
    aws("wait", "volume-available", "--volume-ids", volume)
    aws("attach-volume", "--volume-id", volume, "--instance-id", sim.instance_id, "--device", "/dev/sdv")
    aws("wait", "volume-in-use", "--volume-ids", volume)
    attached = [
        "describe-volumes",
        "--volume-ids",
        volume,
        "--filters",
        "Name=attachment.status,Values=attached",
        "--query",
        "Volumes[].Attachments[].Device",
    ]
    await_("the attachment", lambda: aws(*attached) == ["/dev/sdv"])
    aws("detach-volume", "--volume-id", volume)
    aws("wait", "volume-available", "--volume-ids", volume)
    aws("delete-volume", "--volume-id", volume)
    aws("wait", "volume-deleted", "--volume-ids", volume)


def test_a_copy_in_another_region(sim, aws):
    query = ["--query", "SnapshotId", "--output", "text"]
    snapshot = aws("create-snapshot", "--volume-id", sim.volume("data"), *query)
    aws("wait", "snapshot-completed", "--snapshot-ids", snapshot)
    there = ["--region", "us-west-2"]
    copy = aws("copy-snapshot", *there, "--source-region", "us-east-1", "--source-snapshot-id", snapshot,
               "--encrypted", "--query", "SnapshotId", "--output", "text")
    aws("wait", "snapshot-completed", *there, "--snapshot-ids", copy)
    assert (
        aws("describe-snapshots", *there, "--snapshot-ids", copy, "--query", "Snapshots[0].Encrypted")
        == "true"
    )
    assert aws.run("describe-snapshots", "--snapshot-ids", copy).returncode in (254, 255)


def test_a_locked_snapshot_stays(sim, aws):
    query = ["--query", "SnapshotId", "--output", "text"]
    snapshot = aws("create-snapshot", "--volume-id", sim.volume("data"), *query)
    aws("lock-snapshot", "--snapshot-id", snapshot, "--lock-mode", "governance", "--lock-duration", "1")
    refused = aws.run("delete-snapshot", "--snapshot-id", snapshot)
    assert refused.returncode in (254, 255) and "SnapshotLocked" in refused.stderr, refused
    aws("unlock-snapshot", "--snapshot-id", snapshot)
    aws("delete-snapshot", "--snapshot-id", snapshot)
