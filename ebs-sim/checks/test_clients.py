"""boto3's own waiters and paginators."""

import model
from tour import await_, tags


QUICK = {"Delay": 0.1, "MaxAttempts": 100}


def test_waiter_for_snapshots(sim):
    client = sim.client(validate=True)
    made = client.create_snapshot(VolumeId=sim.volume("data"))
    assert made["State"] == "pending"
    client.get_waiter("snapshot_completed").wait(SnapshotIds=[made["SnapshotId"]], WaiterConfig=QUICK)
    (found,) = client.describe_snapshots(SnapshotIds=[made["SnapshotId"]])["Snapshots"]
    assert (found["State"], found["Progress"]) == ("completed", "100%")
    assert found["StartTime"] == made["StartTime"]


def test_waiter_for_an_instance(sim):
    client = sim.client(validate=True)
    client.get_waiter("instance_running").wait(InstanceIds=[sim.instance_id], WaiterConfig=QUICK)
    client.get_waiter("instance_exists").wait(InstanceIds=[sim.instance_id], WaiterConfig=QUICK)


def test_waiters_for_volumes(sim):
    client = sim.client(validate=True)
    made = client.create_volume(AvailabilityZone=sim.ready["availability_zone"], Size=1)
    this = {"VolumeIds": [made["VolumeId"]], "WaiterConfig": QUICK}
    client.get_waiter("volume_available").wait(**this)
    client.attach_volume(VolumeId=made["VolumeId"], InstanceId=sim.instance_id, Device="/dev/sdw")
    client.get_waiter("volume_in_use").wait(**this)
    # In use is a volume already while it is being attached, and then it cannot be detached.
    await_("an attachment", lambda: client.describe_volumes(
        VolumeIds=[made["VolumeId"]])["Volumes"][0]["Attachments"][0]["State"] == "attached")
    client.detach_volume(VolumeId=made["VolumeId"])
    client.get_waiter("volume_available").wait(**this)
    client.delete_volume(VolumeId=made["VolumeId"])
    client.get_waiter("volume_deleted").wait(**this)


def test_waiters_for_images(sim):
    client = sim.client(validate=True)
    root = client.create_snapshot(VolumeId=sim.volume("root"))["SnapshotId"]
    client.get_waiter("snapshot_completed").wait(SnapshotIds=[root], WaiterConfig=QUICK)
    image = client.register_image(
        Name="waited for", RootDeviceName="/dev/xvda", VirtualizationType="hvm", Architecture="x86_64",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": root}}])["ImageId"]
    client.get_waiter("image_exists").wait(ImageIds=[image], WaiterConfig=QUICK)
    client.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=QUICK)
    client.deregister_image(ImageId=image)


# What each pages over, and something to page over that is there already or is made here.
PAGED = {
    "DescribeImages": ("Images", {"Owners": ["self"]}),
    "DescribeInstanceTypes": ("InstanceTypes", {}),
    "DescribeInstances": ("Reservations", {}),
    "DescribeLockedSnapshots": ("Snapshots", {}),
    "DescribeReplaceRootVolumeTasks": ("ReplaceRootVolumeTasks", {}),
    "DescribeSnapshotTierStatus": ("SnapshotTierStatuses", {}),
    "DescribeSnapshots": ("Snapshots", {"OwnerIds": ["self"]}),
    "DescribeTags": ("Tags", {}),
    "DescribeVolumeStatus": ("VolumeStatuses", {}),
    "DescribeVolumes": ("Volumes", {}),
    "ListSnapshotsInRecycleBin": ("Snapshots", {}),
}


def test_pages_of_five_are_the_whole_and_nothing_twice(sim, actions):
    client = sim.client(validate=True)
    made = client.create_snapshots(
        InstanceSpecification={"InstanceId": sim.instance_id}, TagSpecifications=tags("snapshot", Page="1"))
    # What is pending changes from page to page.
    client.get_waiter("snapshot_completed").wait(
        SnapshotIds=[snapshot["SnapshotId"] for snapshot in made["Snapshots"]], WaiterConfig=QUICK)
    methods = {action: name for name, action in client.meta.method_to_api_mapping.items()}
    for action in actions:
        shape = model.SERVICE.operation_model(action).input_shape
        if "MaxResults" not in shape.members:
            continue
        members, params = PAGED[action]
        method = getattr(client, methods[action])
        whole = method(**params)[members]
        if client.can_paginate(methods[action]):
            pages = [page[members] for page in client.get_paginator(methods[action]).paginate(
                **params, PaginationConfig={"PageSize": 5})]
        else:
            pages, token = [], None
            while token != "":
                answer = method(**params, MaxResults=5, **({"NextToken": token} if token else {}))
                pages.append(answer[members])
                token = answer.get("NextToken", "")
        assert all(len(page) == 5 for page in pages[:-1]), action
        assert len(pages) == max(1, -(-len(whole) // 5)), action
        assert [each for page in pages for each in page] == whole, action
        if action in ("DescribeSnapshots", "DescribeTags", "DescribeVolumes"):
            assert len(pages) > 1, action
