"""stillpoint against an EC2 that someone else wrote.

moto answers for EC2. ebs-sim only lends the disks, /sys and IMDS, of an instance and of volumes that moto
made. What moto does not do as EC2 does is in differences.toml; where that matters here, it is said here too.
"""

import json
import subprocess

import pytest

import rig
from mounts import Mounts


class Host:
    """An instance in moto, and the disks that it would see."""

    def __init__(self, moto):
        self.moto = moto
        self.ec2 = moto.client(validate=True)
        (made,) = self.ec2.run_instances(
            ImageId="ami-12c6146b", InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"]
        self.id = made["InstanceId"]
        (instance,) = self.ec2.describe_instances(InstanceIds=[self.id])["Reservations"][0]["Instances"]
        (root,) = instance["BlockDeviceMappings"]
        self.volumes = {"root": root["Ebs"]["VolumeId"]}
        zone = instance["Placement"]["AvailabilityZone"]
        assert zone == f"{rig.REGION}a"
        for name, device in (("data", "/dev/sdf"), ("log", "/dev/sdg")):
            volume = self.ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")["VolumeId"]
            self.ec2.attach_volume(VolumeId=volume, InstanceId=self.id, Device=device)
            self.volumes[name] = volume
        scenario = f"[instance]\nid = '{self.id}'\navailability_zone = '{zone}'\n"
        of = self.volumes
        self.sim = rig.Sim(scenario, (
            f"name=root,size=64MiB,boot,device={root['DeviceName']},id={of['root']}",
            f"name=data,size=64MiB,device=/dev/sdf,id={of['data']}",
            f"name=log,size=320MiB,device=/dev/sdg,id={of['log']}",
        ))
        try:
            self.mounts = Mounts(self.sim, data="ext4", log="xfs")
        except BaseException:
            self.sim.stop()
            raise
        (self.sim.folder / "stillpoint.toml").write_text("[ec2]\nvolume_interval = '0s'\n")

    def stop(self):
        self.mounts.stop()
        self.sim.stop()

    def run(self, *arguments):
        """stillpoint on this host. Output goes to files in memory: nothing waits for what is frozen."""
        folder = self.sim.folder
        command = [rig.program("EBS_SIM", "ebs-sim"), "exec", "--dir", str(self.sim.dir), "--"]
        command += [
            "env",
            f"AWS_ENDPOINT_URL_EC2={self.moto.endpoint}",
            rig.program("STILLPOINT", "stillpoint"),
        ]
        command += ["--config", str(folder / "stillpoint.toml"), "--run-dir", str(folder / "run")]
        command += ["--state-dir", str(folder / "state"), *arguments]
        with open(folder / "out", "w+") as out, open(folder / "err", "w+") as err:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=60)
            out.seek(0), err.seek(0)
            return ended.returncode, out.read(), err.read()

    def snapshots(self, run_id):
        """What moto has of one set, by volume."""
        found = self.ec2.describe_snapshots(Filters=[{"Name": "tag:stillpoint:run", "Values": [run_id]}])
        return {snapshot["VolumeId"]: snapshot for snapshot in found["Snapshots"]}

    def mount_arguments(self, *names):
        return [word for name in names for word in ("--mount", str(self.mounts.points[name]))]


@pytest.fixture(scope="module")
def host(moto):
    host = Host(moto)
    yield host
    host.stop()


def test_plan(host):
    code, out, err = host.run("plan", "--output", "json", *host.mount_arguments("data", "log"))
    assert code == 0, err
    plan = json.loads(out)["plan"]
    expected = {host.volumes["data"]: "/dev/sdf", host.volumes["log"]: "/dev/sdg"}
    assert {volume["id"]: volume["device_name"] for volume in plan["volumes"]} == expected
    assert plan["call"] == {
        "action": "CreateSnapshots", "exclude_boot_volume": True, "exclude_data_volumes": []}


def test_snapshot_of_all_data_volumes(host):
    code, out, err = host.run(
        "snapshot", "--output", "json", "--tag", "Team=db", *host.mount_arguments("data", "log"))
    assert not host.mounts.frozen() and not host.mounts.rescued()
    assert code == 0, err
    said = json.loads(out)
    assert (said["achieved"], said["exit_code"], said["still_frozen"]) == ("filesystem", 0, [])
    assert said["identity"]["instance_id"] == host.id
    # ExcludeBootVolume is one of the exclusions that moto knows.
    made = host.snapshots(said["run_id"])
    assert made.keys() == {host.volumes["data"], host.volumes["log"]}
    assert {s["id"]: s["volume_id"] for s in said["snapshots"]} == {
        s["SnapshotId"]: volume for volume, s in made.items()}
    for name in ("data", "log"):
        snapshot = made[host.volumes[name]]
        tags = {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]}
        assert tags["Team"] == "db"
        assert tags["stillpoint:instance"] == host.id
        assert tags["stillpoint:consistency"] == "filesystem"
        assert tags["stillpoint:mounts"] == str(host.mounts.points[name])
        assert snapshot["Description"], snapshot


def test_one_volume(host):
    """One volume goes by CreateSnapshot, whose answer moto gives in full."""
    code, out, err = host.run("snapshot", "--output", "json", *host.mount_arguments("data"))
    assert not host.mounts.frozen() and not host.mounts.rescued()
    assert code == 0, err
    said = json.loads(out)
    assert host.snapshots(said["run_id"]).keys() == {host.volumes["data"]}
    assert [s["state"] for s in said["snapshots"]] == ["completed"]


def test_a_volume_too_many_is_noticed(host):
    """moto ignores ExcludeDataVolumeIds: the answer holds a volume that was not asked for, and that is no
    success.
    """
    spare = host.ec2.create_volume(AvailabilityZone=f"{rig.REGION}a", Size=1)["VolumeId"]
    host.ec2.attach_volume(VolumeId=spare, InstanceId=host.id, Device="/dev/sdh")
    code, out, err = host.run("snapshot", "--output", "json", *host.mount_arguments("data", "log"))
    assert not host.mounts.frozen() and not host.mounts.rescued()
    said = json.loads(out)
    assert said["plan"]["call"]["exclude_data_volumes"] == [spare]
    made = host.snapshots(said["run_id"])
    assert made.keys() == {host.volumes["data"], host.volumes["log"], spare}
    assert said["achieved"] == "crash", err
    assert spare in said["reason"]
    assert code == said["exit_code"] == 22


def test_what_ec2_refuses_leaves_nothing_frozen(host):
    """An instance that EC2 does not have is found out before anything is frozen."""
    code, out, err = host.run(
        "--instance-id",
        "i-00000000000000000",
        "--region",
        rig.REGION,
        "snapshot",
        *host.mount_arguments("data"),
    )
    assert not host.mounts.frozen() and not host.mounts.rescued()
    assert (code, out) == (23, "")
    assert "InvalidInstanceID.NotFound" in err
