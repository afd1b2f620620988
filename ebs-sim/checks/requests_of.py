"""One plain request of every action, and one with each member that botocore can send.

In: ids that are there. Out: parameters as boto3 takes them, and as they go over the wire.
"""

import copy

import botocore.serialize

import model
from tour import KEY_HERE, tags


def plain(sim):
    """{action: parameters}: what each action needs, and no more. Nothing has to exist for a DryRun but its
    form.
    """
    snapshot = "snap-0123456789abcdef0"
    volume = sim.volume("data")
    return {
        "AttachVolume": {"VolumeId": volume, "InstanceId": sim.instance_id, "Device": "/dev/sdp"},
        "CopyImage": {"Name": "plain", "SourceRegion": "us-east-1", "SourceImageId": "ami-0123456789abcdef0"},
        "CopySnapshot": {"SourceRegion": "us-east-1", "SourceSnapshotId": snapshot},
        "CopyVolumes": {"SourceVolumeId": volume},
        "CreateReplaceRootVolumeTask": {"InstanceId": sim.instance_id},
        "CreateSnapshot": {"VolumeId": volume},
        "CreateSnapshots": {"InstanceSpecification": {"InstanceId": sim.instance_id}},
        "CreateTags": {"Resources": [volume], "Tags": [{"Key": "a", "Value": "b"}]},
        "CreateVolume": {"AvailabilityZone": sim.ready["availability_zone"], "Size": 8},
        "DeleteSnapshot": {"SnapshotId": snapshot},
        "DeleteTags": {"Resources": [volume]},
        "DeleteVolume": {"VolumeId": volume},
        "DeregisterImage": {"ImageId": "ami-0123456789abcdef0"},
        "DescribeImageAttribute": {"ImageId": "ami-0123456789abcdef0", "Attribute": "description"},
        "DescribeImages": {},
        "DescribeInstanceAttribute": {"InstanceId": sim.instance_id, "Attribute": "rootDeviceName"},
        "DescribeInstanceTypes": {},
        "DescribeInstances": {},
        "DescribeLockedSnapshots": {},
        "DescribeRegions": {},
        "DescribeReplaceRootVolumeTasks": {},
        "DescribeSnapshotAttribute": {"SnapshotId": snapshot, "Attribute": "createVolumePermission"},
        "DescribeSnapshotTierStatus": {},
        "DescribeSnapshots": {},
        "DescribeTags": {},
        "DescribeVolumeStatus": {},
        "DescribeVolumes": {},
        "DetachVolume": {"VolumeId": volume},
        "DisableImage": {"ImageId": "ami-0123456789abcdef0"},
        "DisableImageDeprecation": {"ImageId": "ami-0123456789abcdef0"},
        "DisableImageBlockPublicAccess": {},
        "DisableSnapshotBlockPublicAccess": {},
        "EnableImage": {"ImageId": "ami-0123456789abcdef0"},
        "EnableImageDeprecation": {
            "ImageId": "ami-0123456789abcdef0",
            "DeprecateAt": "2035-01-02T03:04:00.000Z",
        },
        "EnableImageBlockPublicAccess": {"ImageBlockPublicAccessState": "block-new-sharing"},
        "EnableSnapshotBlockPublicAccess": {"State": "block-new-sharing"},
        "GetEbsDefaultKmsKeyId": {},
        "GetEbsEncryptionByDefault": {},
        "GetInstanceUefiData": {"InstanceId": sim.instance_id},
        "GetImageBlockPublicAccessState": {},
        "GetSnapshotBlockPublicAccessState": {},
        "ListSnapshotsInRecycleBin": {},
        "LockSnapshot": {"SnapshotId": snapshot, "LockMode": "governance", "LockDuration": 1},
        "ModifyImageAttribute": {"ImageId": "ami-0123456789abcdef0", "Description": {"Value": "x"}},
        "ModifyInstanceAttribute": {
            "InstanceId": sim.instance_id,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}],
        },
        "ModifySnapshotAttribute": {
            "SnapshotId": snapshot,
            "CreateVolumePermission": {"Add": [{"Group": "all"}]},
        },
        "ModifySnapshotTier": {"SnapshotId": snapshot, "StorageTier": "archive"},
        "RegisterImage": {
            "Name": "plain",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
        },
        "ResetSnapshotAttribute": {"SnapshotId": snapshot, "Attribute": "createVolumePermission"},
        "RestoreSnapshotFromRecycleBin": {"SnapshotId": snapshot},
        "RestoreSnapshotTier": {"SnapshotId": snapshot, "PermanentRestore": True},
        "RunInstances": {
            "ImageId": "ami-0123456789abcdef0",
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceType": "m6i.large",
        },
        "TerminateInstances": {"InstanceIds": ["i-0123456789abcdef0"]},
        "UnlockSnapshot": {"SnapshotId": snapshot},
    }


TAGGED = {
    "CopyImage": "image",
    "CopySnapshot": "snapshot",
    "CopyVolumes": "volume",
    "CreateReplaceRootVolumeTask": "replace-root-volume-task",
    "CreateSnapshot": "snapshot",
    "CreateSnapshots": "snapshot",
    "CreateVolume": "volume",
    "RegisterImage": "image",
    "RunInstances": "instance",
}

# What a made-up value would not do for: a value, merged into the plain request, or None to take a key out of
# it.
BETTER = {
    "AttachVolume EbsCardIndex": {"EbsCardIndex": 0},
    "AttachVolume InstanceId": {},
    "AttachVolume VolumeId": {},
    "CopyImage KmsKeyId": {"Encrypted": True, "KmsKeyId": KEY_HERE},
    "CopyImage SnapshotCopyCompletionDurationMinutes": {"SnapshotCopyCompletionDurationMinutes": 15},
    "CopyImage SourceImageId": {},
    "CopyImage SourceRegion": {"SourceRegion": "us-west-2"},
    "CopySnapshot CompletionDurationMinutes": {"CompletionDurationMinutes": 15},
    "CopySnapshot DestinationRegion": {"DestinationRegion": "us-east-1"},
    "CopySnapshot KmsKeyId": {"Encrypted": True, "KmsKeyId": KEY_HERE},
    "CopySnapshot SourceRegion": {"SourceRegion": "us-west-2"},
    "CopySnapshot SourceSnapshotId": {},
    "CopyVolumes Iops": {"VolumeType": "gp3", "Iops": 3000},
    "CopyVolumes KmsKeyId": {"Encrypted": True, "KmsKeyId": KEY_HERE},
    "CopyVolumes MultiAttachEnabled": {"VolumeType": "io2", "Iops": 400, "MultiAttachEnabled": True},
    "CopyVolumes SourceVolumeId": {},
    "CopyVolumes Throughput": {"VolumeType": "gp3", "Throughput": 125},
    "CopyVolumes VolumeType": {"VolumeType": "gp3"},
    "CreateReplaceRootVolumeTask ImageId": {"ImageId": "ami-0123456789abcdef0"},
    "CreateReplaceRootVolumeTask InstanceId": {},
    "CreateReplaceRootVolumeTask SnapshotId": {"SnapshotId": "snap-0123456789abcdef0"},
    "CreateReplaceRootVolumeTask VolumeId": {"VolumeId": "vol-0123456789abcdef0"},
    "CreateReplaceRootVolumeTask VolumeInitializationRate": {
        "SnapshotId": "snap-0123456789abcdef0",
        "VolumeInitializationRate": 100,
    },
    "CreateSnapshots CopyTagsFromSource": {"CopyTagsFromSource": "volume"},
    "CreateSnapshots InstanceSpecification.ExcludeDataVolumeIds[]": {
        "InstanceSpecification": {"ExcludeDataVolumeIds": ["vol-0123456789abcdef0"]}
    },
    "CreateSnapshots InstanceSpecification.InstanceId": {},
    "CreateSnapshot VolumeId": {},
    "CreateTags Resources[]": {},
    "CreateVolume AvailabilityZone": {},
    "CreateVolume AvailabilityZoneId": {"AvailabilityZone": None, "AvailabilityZoneId": "use1-az1"},
    "CreateVolume Iops": {"VolumeType": "gp3", "Iops": 3000},
    "CreateVolume KmsKeyId": {"Encrypted": True, "KmsKeyId": KEY_HERE},
    "CreateVolume MultiAttachEnabled": {"VolumeType": "io2", "Iops": 400, "MultiAttachEnabled": True},
    "CreateVolume SnapshotId": {"SnapshotId": "snap-0123456789abcdef0"},
    "CreateVolume Throughput": {"VolumeType": "gp3", "Throughput": 125},
    "CreateVolume VolumeInitializationRate": {
        "SnapshotId": "snap-0123456789abcdef0",
        "VolumeInitializationRate": 100,
    },
    "CreateVolume VolumeType": {"VolumeType": "gp3"},
    "DeleteSnapshot SnapshotId": {},
    "DeleteTags Resources[]": {},
    "DeleteTags Tags[].Key": {"Tags": [{"Key": "a"}]},
    "DeleteTags Tags[].Value": {"Tags": [{"Key": "a", "Value": "b"}]},
    "DeleteVolume VolumeId": {},
    "DeregisterImage ImageId": {},
    "DescribeImageAttribute Attribute": {"Attribute": "launchPermission"},
    "DescribeImageAttribute ImageId": {},
    "DescribeImages Filters[].Name": {"Filters": [{"Name": "name", "Values": ["x"]}]},
    "DescribeImages Filters[].Values[]": {"Filters": [{"Name": "name", "Values": ["x"]}]},
    "DescribeImages ImageIds[]": {"ImageIds": ["ami-0123456789abcdef0"]},
    "DescribeImages Owners[]": {"Owners": ["self"]},
    "DescribeImages ExecutableUsers[]": {"ExecutableUsers": ["self"]},
    "DescribeInstanceAttribute Attribute": {"Attribute": "instanceType"},
    "DescribeInstanceAttribute InstanceId": {},
    "DescribeReplaceRootVolumeTasks Filters[].Name": {
        "Filters": [{"Name": "instance-id", "Values": ["x"]}]
    },
    "DescribeReplaceRootVolumeTasks Filters[].Values[]": {
        "Filters": [{"Name": "instance-id", "Values": ["x"]}]
    },
    "DescribeReplaceRootVolumeTasks ReplaceRootVolumeTaskIds[]": {
        "ReplaceRootVolumeTaskIds": ["replacevol-0123456789abcdef0"]
    },
    "DescribeInstanceTypes InstanceTypes[]": {"InstanceTypes": ["m6i.large"]},
    "DescribeInstances InstanceIds[]": {"InstanceIds": ["i-0123456789abcdef0"]},
    "DescribeLockedSnapshots Filters[].Name": {"Filters": [{"Name": "lock-state", "Values": ["governance"]}]},
    "DescribeLockedSnapshots Filters[].Values[]": {
        "Filters": [{"Name": "lock-state", "Values": ["governance"]}]
    },
    "DescribeRegions RegionNames[]": {"RegionNames": ["us-east-1"]},
    "DescribeLockedSnapshots SnapshotIds[]": {"SnapshotIds": ["snap-0123456789abcdef0"]},
    "DescribeSnapshotAttribute Attribute": {"Attribute": "productCodes"},
    "DescribeSnapshotAttribute SnapshotId": {},
    "DescribeSnapshots OwnerIds[]": {"OwnerIds": ["self"]},
    "DescribeSnapshots RestorableByUserIds[]": {"RestorableByUserIds": ["self"]},
    "DescribeSnapshots SnapshotIds[]": {"SnapshotIds": ["snap-0123456789abcdef0"]},
    "DescribeVolumeStatus Filters[].Name": {"Filters": [{"Name": "availability-zone", "Values": ["x"]}]},
    "DescribeVolumeStatus Filters[].Values[]": {
        "Filters": [{"Name": "availability-zone", "Values": ["x"]}]
    },
    "DescribeVolumeStatus VolumeIds[]": {"VolumeIds": ["vol-0123456789abcdef0"]},
    "DescribeVolumes VolumeIds[]": {"VolumeIds": ["vol-0123456789abcdef0"]},
    "DisableImage ImageId": {},
    "DisableImageDeprecation ImageId": {},
    "EnableImage ImageId": {},
    "EnableImageDeprecation DeprecateAt": {},
    "EnableImageDeprecation ImageId": {},
    "ListSnapshotsInRecycleBin SnapshotIds[]": {"SnapshotIds": ["snap-0123456789abcdef0"]},
    "RestoreSnapshotFromRecycleBin SnapshotId": {},
    "DetachVolume Device": {"Device": "/dev/sdf"},
    "DetachVolume InstanceId": {"InstanceId": "i-0123456789abcdef0"},
    "DetachVolume VolumeId": {},
    "LockSnapshot CoolOffPeriod": {"LockMode": "compliance", "CoolOffPeriod": 1},
    "LockSnapshot ExpirationDate": {"LockDuration": None, "ExpirationDate": "2100-01-02T03:04:05.000Z"},
    "LockSnapshot LockMode": {"LockMode": "governance"},
    "LockSnapshot SnapshotId": {},
    "ModifyImageAttribute Attribute": {"Description": None, "Attribute": "description", "Value": "x"},
    "ModifyImageAttribute Description.Value": {},
    "ModifyImageAttribute ImageId": {},
    "ModifyImageAttribute ImdsSupport.Value": {"Description": None, "ImdsSupport": {"Value": "v2.0"}},
    "ModifyImageAttribute LaunchPermission.Add[].Group": {
        "Description": None,
        "LaunchPermission": {"Add": [{"Group": "all"}]},
    },
    "ModifyImageAttribute LaunchPermission.Add[].UserId": {
        "Description": None,
        "LaunchPermission": {"Add": [{"UserId": "111122223333"}]},
    },
    "ModifyImageAttribute LaunchPermission.Remove[].Group": {
        "Description": None,
        "LaunchPermission": {"Remove": [{"Group": "all"}]},
    },
    "ModifyImageAttribute LaunchPermission.Remove[].UserId": {
        "Description": None,
        "LaunchPermission": {"Remove": [{"UserId": "111122223333"}]},
    },
    "ModifyImageAttribute OperationType": {
        "Description": None,
        "Attribute": "launchPermission",
        "OperationType": "add",
        "UserIds": ["111122223333"],
    },
    "ModifyImageAttribute UserGroups[]": {
        "Description": None,
        "Attribute": "launchPermission",
        "OperationType": "add",
        "UserGroups": ["all"],
    },
    "ModifyImageAttribute UserIds[]": {
        "Description": None,
        "Attribute": "launchPermission",
        "OperationType": "add",
        "UserIds": ["111122223333"],
    },
    "ModifyImageAttribute Value": {"Description": None, "Attribute": "description", "Value": "x"},
    "ModifyInstanceAttribute BlockDeviceMappings[].DeviceName": {},
    "ModifyInstanceAttribute BlockDeviceMappings[].Ebs.DeleteOnTermination": {},
    "ModifyInstanceAttribute BlockDeviceMappings[].Ebs.VolumeId": {
        "BlockDeviceMappings": [{"Ebs": {"VolumeId": "vol-0123456789abcdef0"}}]
    },
    "ModifyInstanceAttribute InstanceId": {},
    "ModifySnapshotAttribute Attribute": {"Attribute": "createVolumePermission"},
    "ModifySnapshotAttribute CreateVolumePermission.Add[].Group": {},
    "ModifySnapshotAttribute CreateVolumePermission.Add[].UserId": {
        "CreateVolumePermission": {"Add": [{"UserId": "111122223333"}]}
    },
    "ModifySnapshotAttribute CreateVolumePermission.Remove[].Group": {
        "CreateVolumePermission": {"Add": None, "Remove": [{"Group": "all"}]}
    },
    "ModifySnapshotAttribute CreateVolumePermission.Remove[].UserId": {
        "CreateVolumePermission": {"Add": None, "Remove": [{"UserId": "111122223333"}]}
    },
    "ModifySnapshotAttribute GroupNames[]": {
        "CreateVolumePermission": None,
        "Attribute": "createVolumePermission",
        "OperationType": "add",
        "GroupNames": ["all"],
    },
    "ModifySnapshotAttribute OperationType": {
        "CreateVolumePermission": None,
        "Attribute": "createVolumePermission",
        "OperationType": "remove",
        "UserIds": ["111122223333"],
    },
    "ModifySnapshotAttribute SnapshotId": {},
    "ModifySnapshotAttribute UserIds[]": {
        "CreateVolumePermission": None,
        "Attribute": "createVolumePermission",
        "OperationType": "add",
        "UserIds": ["111122223333"],
    },
    "GetInstanceUefiData InstanceId": {},
    "ModifySnapshotTier SnapshotId": {},
    "ResetSnapshotAttribute SnapshotId": {},
    "ResetSnapshotAttribute Attribute": {},
    "RestoreSnapshotTier SnapshotId": {},
    "RestoreSnapshotTier TemporaryRestoreDays": {"PermanentRestore": None, "TemporaryRestoreDays": 2},
    "RegisterImage Architecture": {"Architecture": "x86_64"},
    "RegisterImage BlockDeviceMappings[].DeviceName": {},
    "RegisterImage BlockDeviceMappings[].Ebs.Iops": {
        "BlockDeviceMappings": [{"Ebs": {"VolumeType": "gp3", "Iops": 3000}}]
    },
    "RegisterImage BlockDeviceMappings[].Ebs.SnapshotId": {},
    "RegisterImage BlockDeviceMappings[].Ebs.Throughput": {
        "BlockDeviceMappings": [{"Ebs": {"VolumeType": "gp3", "Throughput": 125}}]
    },
    "RegisterImage BlockDeviceMappings[].Ebs.VolumeType": {
        "BlockDeviceMappings": [{"Ebs": {"VolumeType": "gp3"}}]
    },
    "RegisterImage BlockDeviceMappings[].NoDevice": {"BlockDeviceMappings": [{"Ebs": None, "NoDevice": ""}]},
    "RegisterImage BlockDeviceMappings[].VirtualName": {
        "BlockDeviceMappings": [{"Ebs": None, "VirtualName": "ephemeral0"}]
    },
    "RegisterImage RootDeviceName": {},
    "RegisterImage SriovNetSupport": {"SriovNetSupport": "simple"},
    "RegisterImage TpmSupport": {"BootMode": "uefi", "TpmSupport": "v2.0"},
    "RegisterImage UefiData": {"BootMode": "uefi", "UefiData": "QU1aTlVFRkk="},
    "RegisterImage VirtualizationType": {"VirtualizationType": "hvm"},
    "RunInstances ImageId": {},
    "RunInstances InstanceType": {},
    "RunInstances MinCount": {},
    "TerminateInstances InstanceIds[]": {},
    "UnlockSnapshot SnapshotId": {},
}
for _leaf, _ebs in {
    "AvailabilityZone": {"AvailabilityZone": "us-east-1a"},
    "AvailabilityZoneId": {"AvailabilityZoneId": "use1-az1"},
    "DeleteOnTermination": {"DeleteOnTermination": True},
    "EbsCardIndex": {"EbsCardIndex": 0},
    "Encrypted": {"Encrypted": True},
    "Iops": {"Iops": 3000},
    "KmsKeyId": {"Encrypted": True, "KmsKeyId": KEY_HERE},
    "OutpostArn": {"OutpostArn": "sample"},
    "SnapshotId": {"SnapshotId": "snap-0123456789abcdef0"},
    "Throughput": {"Throughput": 125},
    "VolumeInitializationRate": {"VolumeInitializationRate": 100},
    "VolumeSize": {"VolumeSize": 8},
    "VolumeType": {"VolumeType": "gp3"},
}.items():
    BETTER[f"RunInstances BlockDeviceMappings[].Ebs.{_leaf}"] = {
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": _ebs}]
    }
BETTER["RunInstances BlockDeviceMappings[].DeviceName"] = {
    "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8}}]
}
BETTER["RunInstances BlockDeviceMappings[].NoDevice"] = {
    "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "NoDevice": ""}]
}
BETTER["RunInstances BlockDeviceMappings[].VirtualName"] = {
    "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "VirtualName": "ephemeral0"}]
}
# Every action that takes filters or tags takes them in the same way.
for _action in (
    "DescribeInstances",
    "DescribeInstanceTypes",
    "DescribeRegions",
    "DescribeSnapshotTierStatus",
    "DescribeSnapshots",
    "DescribeTags",
    "DescribeVolumes",
):
    _name = {
        "DescribeTags": "key",
        "DescribeInstanceTypes": "instance-type",
        "DescribeRegions": "region-name",
        "DescribeSnapshotTierStatus": "snapshot-id",
    }.get(_action, "tag-key")
    for _leaf in ("Name", "Values[]"):
        BETTER[f"{_action} Filters[].{_leaf}"] = {"Filters": [{"Name": _name, "Values": ["x"]}]}
for _action, _kind in TAGGED.items():
    for _leaf in ("ResourceType", "Tags[].Key", "Tags[].Value"):
        BETTER[f"{_action} TagSpecifications[].{_leaf}"] = {"TagSpecifications": tags(_kind, a="b")}


def with_member(sim, action, path, value):
    """The plain request and this member in it."""
    return merged(plain(sim)[action], BETTER.get(f"{action} {path}", value))


def merged(base, more):
    """`more` laid over `base`; lists element by element, and None takes a key away."""
    if isinstance(base, dict) and isinstance(more, dict):
        result = copy.deepcopy(base)
        for key, value in more.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result[key], value) if key in result else copy.deepcopy(value)
        return result
    if isinstance(base, list) and isinstance(more, list):
        pairs = [merged(a, b) for a, b in zip(base, more)]
        return pairs + copy.deepcopy(base[len(more):] + more[len(base):])
    return copy.deepcopy(more)


def wire(action, params):
    """{name: value}, as botocore would send it."""
    serializer = botocore.serialize.create_serializer("ec2", include_validation=False)
    return dict(serializer.serialize_to_request(params, model.SERVICE.operation_model(action))["body"])


def wire_name(action, leaf):
    """The one name under which a single member, as from `input_members`, goes out."""
    (name,) = wire(action, leaf).keys() - {"Action", "Version"}
    return name
