"""Every filter that the documentation in botocore's model names: taken, or refused and listed; and it
filters.
"""

import html
import re
from fnmatch import fnmatch

import pytest
from botocore.exceptions import ClientError

import model
import test_requests
from test_clients import PAGED


def documented(action):
    """The filters of one action, `tag:` with the key that the tour uses."""
    text = model.SERVICE.operation_model(action).input_shape.members["Filters"].documentation
    names = [html.unescape(name) for name in re.findall(r"<li>\s*<p>\s*<code>(.*?)</code>", text)]
    return ["tag:Name" if name in ("tag", "tag:<key>") else name for name in names]


def refused(action):
    """The patterns of those filters of an action that are listed as refused."""
    groups = [group["members"].get(action, []) for group in test_requests.LISTS["filters"]]
    return [pattern for group in groups for pattern in group]


@pytest.fixture(scope="module")
def ask(sim):
    """What an action finds with one filter: its items, or the error's code."""
    client = sim.client()
    methods = {action: name for name, action in client.meta.method_to_api_mapping.items()}

    def found(action, name, value):
        try:
            answer = getattr(client, methods[action])(Filters=[{"Name": name, "Values": [value]}])
        except ClientError as error:
            return error.response["Error"]["Code"]
        return answer[items_of(action)]

    return found


def items_of(action):
    """The member of an answer that has the items."""
    return "Regions" if action == "DescribeRegions" else PAGED[action][0]


def test_documented_filters_are_taken_or_refused_as_listed(actions, toured, ask):
    faults = []
    for action in actions:
        if "Filters" not in model.SERVICE.operation_model(action).input_shape.members:
            continue
        listed, used = refused(action), set()
        for name in documented(action):
            patterns = {pattern for pattern in listed if fnmatch(name, pattern)}
            used |= patterns
            # A value that nothing has: whatever is found now was not filtered.
            found = ask(action, name, "nonsense")
            if patterns:
                if found != "InvalidParameterValue":
                    faults.append(f"{action} {name}: it is taken; strike it off refused.toml")
            elif found not in ([], "InvalidParameterValue"):
                faults.append(f"{action} {name}: finds something by 'nonsense'")
            elif found == "InvalidParameterValue" and ask(action, name, "*") == "InvalidParameterValue":
                faults.append(f"{action} {name}: refused, and not listed")
        faults += [f"{action} {pattern}: listed, and not documented" for pattern in set(listed) - used]
    assert not faults, f"{len(faults)} filters\n" + "\n".join(faults)


# Filters whose member in the answer has another name than theirs.
MEMBERS = {
    "DescribeSnapshots": {
        "description": "Description",
        "encrypted": "Encrypted",
        "owner-id": "OwnerId",
        "progress": "Progress",
        "snapshot-id": "SnapshotId",
        "status": "State",
        "storage-tier": "StorageTier",
        "volume-id": "VolumeId",
        "volume-size": "VolumeSize",
        "transfer-type": "TransferType",
    },
    "DescribeVolumes": {
        "availability-zone": "AvailabilityZone",
        "encrypted": "Encrypted",
        "size": "Size",
        "snapshot-id": "SnapshotId",
        "status": "State",
        "volume-id": "VolumeId",
        "volume-type": "VolumeType",
        "multi-attach-enabled": "MultiAttachEnabled",
    },
    "DescribeTags": {
        "key": "Key",
        "resource-id": "ResourceId",
        "resource-type": "ResourceType",
        "value": "Value",
    },
    "DescribeImages": {
        "architecture": "Architecture",
        "boot-mode": "BootMode",
        "creation-date": "CreationDate",
        "description": "Description",
        "ena-support": "EnaSupport",
        "hypervisor": "Hypervisor",
        "image-id": "ImageId",
        "image-type": "ImageType",
        "is-public": "Public",
        "name": "Name",
        "owner-id": "OwnerId",
        "root-device-name": "RootDeviceName",
        "root-device-type": "RootDeviceType",
        "state": "State",
        "virtualization-type": "VirtualizationType",
    },
    "DescribeInstanceTypes": {
        "bare-metal": "BareMetal",
        "current-generation": "CurrentGeneration",
        "hypervisor": "Hypervisor",
        "instance-type": "InstanceType",
        "instance-storage-supported": "InstanceStorageSupported",
    },
    "DescribeLockedSnapshots": {"lock-state": "LockState"},
    "DescribeRegions": {
        "endpoint": "Endpoint",
        "opt-in-status": "OptInStatus",
        "region-name": "RegionName",
    },
}


def test_a_filter_finds_what_has_its_value_and_nothing_else(sim, toured, ask):
    """Each value that is answered, asked for: the same items as when looking through all of them."""
    client, compared = sim.client(), 0
    made = client.create_snapshot(VolumeId=sim.volume("log"), Description="to be found")["SnapshotId"]
    client.get_waiter("snapshot_completed").wait(
        SnapshotIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
    )
    methods = {action: name for name, action in client.meta.method_to_api_mapping.items()}
    for action, members in MEMBERS.items():
        items = getattr(client, methods[action])()[items_of(action)]
        for name, member in members.items():
            for value in {wire(item[member]) for item in items if item.get(member) not in (None, "")}:
                expected = [item for item in items if wire(item.get(member)) == value]
                assert ask(action, name, escaped(value)) == expected, f"{action} {name}={value}"
                compared += 1
    assert compared > 30


def wire(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def escaped(value):
    return re.sub(r"([*?\\])", r"\\\1", value)
