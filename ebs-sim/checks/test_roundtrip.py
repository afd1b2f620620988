"""What a request gives is what the answers tell: no member is taken and forgotten."""

import pytest

import rig
from test_clients import QUICK
from tour import KEY, KEY_HERE, OTHER_REGION, tags


@pytest.fixture
def ec2(sim):
    return sim.client(validate=True)


def completed(client, snapshot):
    client.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig=QUICK)
    return client.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]


def differing(given, told):
    """The members that are told in another way than they were given."""
    return {key: (value, told.get(key)) for key, value in given.items() if told.get(key) != value}


LABELS = [{"Key": "A", "Value": "1"}, {"Key": "B", "Value": "<&> é"}]


def test_a_snapshot(sim, ec2):
    given = {"VolumeId": sim.volume("log"), "Description": "<&> é"}
    specification = [{"ResourceType": "snapshot", "Tags": LABELS}]
    made = ec2.create_snapshot(**given, TagSpecifications=specification)
    told = completed(ec2, made["SnapshotId"])
    for each in (made, told):
        assert not differing({**given, "Tags": LABELS, "Encrypted": True}, each)
    assert told["StartTime"] == made["StartTime"]
    assert told["KmsKeyId"].startswith("arn:aws:kms:us-east-1:")


def test_copied_tags_lose_against_given_ones(sim, ec2):
    made = ec2.create_snapshots(
        InstanceSpecification={"InstanceId": sim.instance_id}, CopyTagsFromSource="volume",
        TagSpecifications=tags("snapshot", Name="given"))["Snapshots"]
    (data,) = [snapshot for snapshot in made if snapshot["VolumeId"] == sim.volume("data")]
    assert {tag["Key"]: tag["Value"] for tag in data["Tags"]} == {"Name": "given", "Disk": "1"}
    assert len({snapshot["StartTime"] for snapshot in made}) == 1


def test_a_volume(sim, ec2):
    zone = sim.ready["availability_zone"]
    source = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("data"))["SnapshotId"])["SnapshotId"]
    for given in (
        {"Size": 1},
        {"Size": 8, "SnapshotId": source, "VolumeType": "gp3", "Iops": 3500, "Throughput": 200},
        {"Size": 4, "VolumeType": "io2", "Iops": 300, "Encrypted": True},
        {"Size": 1, "Encrypted": True, "KmsKeyId": KEY_HERE},
    ):
        made = ec2.create_volume(
            **given, AvailabilityZone=zone, TagSpecifications=[{"ResourceType": "volume", "Tags": LABELS}])
        ec2.get_waiter("volume_available").wait(VolumeIds=[made["VolumeId"]], WaiterConfig=QUICK)
        (told,) = ec2.describe_volumes(VolumeIds=[made["VolumeId"]])["Volumes"]
        for each in (made, told):
            assert not differing({**given, "AvailabilityZone": zone, "Tags": LABELS}, each)
        ec2.delete_volume(VolumeId=made["VolumeId"])


def test_a_volume_is_made_once_for_one_token(sim, ec2):
    given = {"AvailabilityZone": sim.ready["availability_zone"], "Size": 1, "ClientToken": "once"}
    first, second = (ec2.create_volume(**given)["VolumeId"] for _ in range(2))
    assert first == second
    with pytest.raises(ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        ec2.create_volume(**{**given, "Size": 2})
    ec2.get_waiter("volume_available").wait(VolumeIds=[first], WaiterConfig=QUICK)
    ec2.delete_volume(VolumeId=first)


def test_a_copy(sim, ec2):
    source = completed(
        ec2,
        ec2.create_snapshot(
            VolumeId=sim.volume("data"), Description="source", TagSpecifications=tags("snapshot", Of="source")
        )["SnapshotId"],
    )
    there = sim.client(OTHER_REGION, validate=True)
    # boto3 puts a PresignedUrl and a DestinationRegion into this request by itself.
    made = there.copy_snapshot(
        SourceRegion=rig.REGION,
        SourceSnapshotId=source["SnapshotId"],
        Description="copy",
        Encrypted=True,
        KmsKeyId=KEY,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": LABELS}],
    )
    assert made["Tags"] == LABELS
    told = completed(there, made["SnapshotId"])
    given = {"Description": "copy", "Encrypted": True, "KmsKeyId": KEY, "Tags": LABELS}
    assert not differing({**given, "VolumeSize": source["VolumeSize"]}, told)
    assert made["SnapshotId"] != source["SnapshotId"]


def test_a_lock(sim, ec2):
    made = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("data"))["SnapshotId"])["SnapshotId"]
    locked = ec2.lock_snapshot(SnapshotId=made, LockMode="compliance", LockDuration=3, CoolOffPeriod=2)
    (told,) = ec2.describe_locked_snapshots(SnapshotIds=[made])["Snapshots"]
    for each in (locked, told):
        assert not differing({"LockState": "compliance-cooloff", "LockDuration": 3, "CoolOffPeriod": 2}, each)
        assert (each["LockExpiresOn"] - each["LockDurationStartTime"]).days == 3
        assert (each["CoolOffPeriodExpiresOn"] - each["LockCreatedOn"]).total_seconds() == 7200
    ec2.unlock_snapshot(SnapshotId=made)
    assert not ec2.describe_locked_snapshots(SnapshotIds=[made])["Snapshots"]


def test_sharing(sim, ec2):
    made = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("data"))["SnapshotId"])["SnapshotId"]
    add = [{"UserId": "111122223333"}, {"UserId": "444455556666"}, {"Group": "all"}]
    ec2.modify_snapshot_attribute(SnapshotId=made, CreateVolumePermission={"Add": add})
    ec2.modify_snapshot_attribute(SnapshotId=made, CreateVolumePermission={"Remove": [add[0]]})
    told = ec2.describe_snapshot_attribute(SnapshotId=made, Attribute="createVolumePermission")
    assert told["SnapshotId"] == made
    assert sorted(map(str, told["CreateVolumePermissions"])) == sorted(map(str, add[1:]))


def test_an_image(sim, ec2):
    root = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("root"))["SnapshotId"])
    data = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("log"))["SnapshotId"])
    given = {
        "Name": "round trip", "Description": "<&> é", "Architecture": "arm64", "RootDeviceName": "/dev/xvda",
        "VirtualizationType": "hvm", "EnaSupport": True, "SriovNetSupport": "simple", "BootMode": "uefi",
        "TpmSupport": "v2.0", "ImdsSupport": "v2.0",
    }
    mapping = [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "SnapshotId": root["SnapshotId"],
                "VolumeType": "gp3",
                "VolumeSize": 9,
                "Iops": 4000,
                "Throughput": 200,
                "DeleteOnTermination": False,
            },
        },
        {
            "DeviceName": "/dev/sdf",
            "Ebs": {
                "SnapshotId": data["SnapshotId"],
                "VolumeType": "io2",
                "VolumeSize": 10,
                "Iops": 400,
                "DeleteOnTermination": True,
            },
        },
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    image = ec2.register_image(
        **given, BlockDeviceMappings=mapping, TagSpecifications=[{"ResourceType": "image", "Tags": LABELS}]
    )["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=QUICK)
    (told,) = ec2.describe_images(ImageIds=[image])["Images"]
    assert not differing({**given, "Tags": LABELS, "State": "available", "Public": False}, told)
    for wanted, found in zip(mapping, told["BlockDeviceMappings"], strict=True):
        assert not differing(wanted.get("Ebs", {}), found.get("Ebs", {}))
        assert not differing({k: v for k, v in wanted.items() if k != "Ebs"}, found)
    # Encryption follows the snapshot.
    assert [m["Ebs"]["Encrypted"] for m in told["BlockDeviceMappings"][:2]] == [False, True]
    for snapshot in (root, data):
        with pytest.raises(ec2.exceptions.ClientError, match="InvalidSnapshot.InUse"):
            ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=root["SnapshotId"])


def test_an_archived_snapshot(sim, ec2):
    made = completed(ec2, ec2.create_snapshot(VolumeId=sim.volume("data"))["SnapshotId"])["SnapshotId"]
    told = ec2.modify_snapshot_tier(SnapshotId=made, StorageTier="archive")
    assert told["SnapshotId"] == made and told["TieringStartTime"]
