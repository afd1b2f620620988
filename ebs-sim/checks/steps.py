"""The requests that moto and ebs-sim both get, in this order. `$name` stands for an id that each side has
of its own.

In: nothing. Out: STEPS. Both begin with one running instance with a root volume, `$data` and `$log`, and with
`$spare`, which is attached to nothing.
"""

from dataclasses import dataclass, field


@dataclass
class Step:
    """One request. `save` keeps a member of the answer under a name; `extra` goes out as it is."""

    name: str
    action: str
    params: dict = field(default_factory=dict)
    save: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    region: str = "us-east-1"


STEPS = []


def step(name, action, save=None, extra=None, region="us-east-1", **params):
    assert all(name != known.name for known in STEPS), name
    STEPS.append(Step(name, action, params, save or {}, extra or {}, region))


def filters(**of):
    return [
        {"Name": name.replace("__", ":").replace("_", "-"), "Values": values} for name, values in of.items()
    ]


def tags(kind, **of):
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in of.items()]}]


THERE = "us-west-2"
NO_SNAPSHOT, NO_VOLUME = "snap-0123456789abcdef0", "vol-0123456789abcdef0"
NO_INSTANCE, NO_IMAGE = "i-0123456789abcdef0", "ami-0123456789abcdef0"
MANY_TAGS = [{"Key": f"k{n}", "Value": "v"} for n in range(51)]

# What is there.
step("instance by id", "DescribeInstances", InstanceIds=["$instance"])
step("instance by filters", "DescribeInstances",
     Filters=filters(instance_state_name=["running"], instance_id=["$instance"]))
step(
    "instances: filter without a match",
    "DescribeInstances",
    Filters=filters(instance_id=["i-00000000000000001"]),
)
step("instances: unknown filter", "DescribeInstances", Filters=filters(colour=["red"]))
step("instance that is missing", "DescribeInstances", InstanceIds=[NO_INSTANCE])
step("instance id that is malformed", "DescribeInstances", InstanceIds=["nonsense"])
step("instances: MaxResults with ids", "DescribeInstances", InstanceIds=["$instance"], MaxResults=5)
step("instances: MaxResults too small", "DescribeInstances", MaxResults=4)
step("instances: DryRun", "DescribeInstances", DryRun=True)
step("instances: unknown parameter", "DescribeInstances", extra={"Colour": "red"})
step("volumes by id", "DescribeVolumes", VolumeIds=["$data", "$log"])
step(
    "volumes of an instance", "DescribeVolumes", Filters=filters(**{"attachment.instance_id": ["$instance"]})
)
step("volumes by status", "DescribeVolumes", Filters=filters(status=["available"]))
step(
    "volumes: filter without a match", "DescribeVolumes", Filters=filters(volume_id=["vol-00000000000000001"])
)
step("volumes: unknown filter", "DescribeVolumes", Filters=filters(colour=["red"]))
step("volumes: filter without values", "DescribeVolumes", Filters=[{"Name": "status", "Values": []}])
step("volume that is missing", "DescribeVolumes", VolumeIds=[NO_VOLUME])
step("volume id that is malformed", "DescribeVolumes", VolumeIds=["nonsense"])
step("volumes: MaxResults too small", "DescribeVolumes", MaxResults=4)
step("volumes: a token that nobody gave", "DescribeVolumes", NextToken="nonsense")
step("volumes: DryRun", "DescribeVolumes", DryRun=True)
step("volumes: unknown parameter", "DescribeVolumes", extra={"Colour": "red"})
step("an action that is none", "DescribeVolumes", extra={"Action": "DescribeNonsense"})
step("no action", "DescribeVolumes", extra={"Action": ""})

# CreateSnapshot.
step(
    "snapshot of a volume", "CreateSnapshot", VolumeId="$data", Description="one", save={"one": "SnapshotId"}
)
step(
    "snapshot with tags",
    "CreateSnapshot",
    VolumeId="$log",
    TagSpecifications=tags("snapshot", Name="two", Run="1"),
    save={"two": "SnapshotId"},
)
step("snapshot: DryRun", "CreateSnapshot", VolumeId="$data", DryRun=True)
step("snapshot without a volume", "CreateSnapshot")
step("snapshot of a missing volume", "CreateSnapshot", VolumeId=NO_VOLUME)
step("snapshot of a malformed volume id", "CreateSnapshot", VolumeId="nonsense")
step("snapshot of a missing volume: DryRun", "CreateSnapshot", VolumeId=NO_VOLUME, DryRun=True)
step(
    "snapshot: tags for another type",
    "CreateSnapshot",
    VolumeId="$data",
    TagSpecifications=tags("volume", a="b"),
)
step("snapshot: tags for an invented type", "CreateSnapshot", VolumeId="$data",
     TagSpecifications=tags("colour", a="b"))
step("snapshot: a tag key of aws:", "CreateSnapshot", VolumeId="$data",
     TagSpecifications=tags("snapshot", **{"aws:x": "y"}))
step("snapshot: too many tags", "CreateSnapshot", VolumeId="$data",
     TagSpecifications=[{"ResourceType": "snapshot", "Tags": MANY_TAGS}])
step(
    "snapshot: a tag twice",
    "CreateSnapshot",
    VolumeId="$data",
    TagSpecifications=[
        {"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
    ],
)
step("snapshot: description too long", "CreateSnapshot", VolumeId="$data", Description="x" * 256)
step("snapshot: unknown parameter", "CreateSnapshot", VolumeId="$data", extra={"Colour": "red"})

# CreateSnapshots.
step(
    "set of all volumes",
    "CreateSnapshots",
    InstanceSpecification={"InstanceId": "$instance"},
    Description="set",
    TagSpecifications=tags("snapshot", Run="2"),
    save={"three": "Snapshots[].SnapshotId"},
)
step("set without tags", "CreateSnapshots", InstanceSpecification={"InstanceId": "$instance"})
step("set without the boot volume", "CreateSnapshots",
     InstanceSpecification={"InstanceId": "$instance", "ExcludeBootVolume": True},
     TagSpecifications=tags("snapshot", Run="3"))
step("set without one volume", "CreateSnapshots",
     InstanceSpecification={"InstanceId": "$instance", "ExcludeDataVolumeIds": ["$log"]})
step("set without a volume that is missing", "CreateSnapshots",
     InstanceSpecification={"InstanceId": "$instance", "ExcludeDataVolumeIds": [NO_VOLUME]})
step("set without the root, as a data volume", "CreateSnapshots",
     InstanceSpecification={"InstanceId": "$instance", "ExcludeDataVolumeIds": ["$root"]})
step("set with 41 exclusions", "CreateSnapshots",
     InstanceSpecification={"InstanceId": "$instance", "ExcludeDataVolumeIds": ["$log"] * 41})
step("set: DryRun", "CreateSnapshots", InstanceSpecification={"InstanceId": "$instance"}, DryRun=True)
step("set without an instance", "CreateSnapshots")
step("set of a missing instance", "CreateSnapshots", InstanceSpecification={"InstanceId": NO_INSTANCE})
step("set of a malformed instance id", "CreateSnapshots", InstanceSpecification={"InstanceId": "nonsense"})
step(
    "set: tags copied from something else",
    "CreateSnapshots",
    InstanceSpecification={"InstanceId": "$instance"},
    CopyTagsFromSource="nonsense",
)

# DescribeSnapshots.
step("snapshot by id", "DescribeSnapshots", SnapshotIds=["$one"])
step("snapshots by tag", "DescribeSnapshots", Filters=filters(tag__Run=["1"]))
step("snapshots by a tag's key", "DescribeSnapshots", Filters=filters(tag_key=["Run"]))
step("snapshots by description with a wildcard", "DescribeSnapshots", Filters=filters(description=["o?e*"]))
step(
    "snapshots by volume and status",
    "DescribeSnapshots",
    Filters=filters(volume_id=["$log"], status=["completed"], tag_key=["Run"]),
)
step("snapshots of ourselves", "DescribeSnapshots", OwnerIds=["self"], Filters=filters(tag_key=["Run"]))
step("snapshots of an account that has none", "DescribeSnapshots", OwnerIds=["111122223333"],
     Filters=filters(tag_key=["Run"]))
step("snapshots: first page", "DescribeSnapshots", MaxResults=5, Filters=filters(tag_key=["Run"]),
     save={"token": "NextToken"})
step(
    "snapshots: second page",
    "DescribeSnapshots",
    MaxResults=5,
    NextToken="$token",
    Filters=filters(tag_key=["Run"]),
)
step(
    "snapshots: filter without a match",
    "DescribeSnapshots",
    Filters=filters(snapshot_id=["snap-00000000000000001"]),
)
step("snapshots: unknown filter", "DescribeSnapshots", Filters=filters(colour=["red"]))
step("snapshots: MaxResults too small", "DescribeSnapshots", MaxResults=4, Filters=filters(tag_key=["Run"]))
step("snapshot that is missing", "DescribeSnapshots", SnapshotIds=[NO_SNAPSHOT])
step("snapshot id that is malformed", "DescribeSnapshots", SnapshotIds=["nonsense"])
step("snapshots, one of them missing", "DescribeSnapshots", SnapshotIds=["$one", NO_SNAPSHOT])
step("snapshot of another Region", "DescribeSnapshots", SnapshotIds=["$one"], region=THERE)
step("snapshots: DryRun", "DescribeSnapshots", Filters=filters(tag_key=["Run"]), DryRun=True)

# Tags.
step(
    "tags on two",
    "CreateTags",
    Resources=["$one", "$data"],
    Tags=[{"Key": "Name", "Value": "x"}, {"Key": "E", "Value": ""}],
)
step("tags replaced", "CreateTags", Resources=["$one"], Tags=[{"Key": "Name", "Value": "y"}])
step("tags of a resource", "DescribeTags", Filters=filters(resource_id=["$one"]))
step("tags of a type", "DescribeTags", Filters=filters(resource_type=["volume"]))
step("tags: unknown filter", "DescribeTags", Filters=filters(colour=["red"], resource_id=["$one"]))
step("tags: filter without a match", "DescribeTags", Filters=filters(key=["nothing"]))
step("snapshot with its tags", "DescribeSnapshots", SnapshotIds=["$one"])
step("volume with its tags", "DescribeVolumes", VolumeIds=["$data"])
step(
    "tag deleted whose value is another",
    "DeleteTags",
    Resources=["$one"],
    Tags=[{"Key": "Name", "Value": "z"}],
)
step("that tag is still there", "DescribeTags", Filters=filters(resource_id=["$one"], key=["Name"]))
step("tag deleted by key", "DeleteTags", Resources=["$one"], Tags=[{"Key": "Name"}])
step("tag deleted twice", "DeleteTags", Resources=["$one"], Tags=[{"Key": "Name"}])
step("all tags deleted", "DeleteTags", Resources=["$data"])
step("no tag is left", "DescribeTags", Filters=filters(resource_id=["$data"]))
step("tags deleted without resources", "DeleteTags", Tags=[{"Key": "Name"}])
step("tags deleted from a missing snapshot", "DeleteTags", Resources=[NO_SNAPSHOT], Tags=[{"Key": "Name"}])
step("tags without resources", "CreateTags", Tags=[{"Key": "a", "Value": "b"}])
step("tags without tags", "CreateTags", Resources=["$two"])
step("tags on a missing snapshot", "CreateTags", Resources=[NO_SNAPSHOT], Tags=[{"Key": "a", "Value": "b"}])
step("tags on a missing volume", "CreateTags", Resources=[NO_VOLUME], Tags=[{"Key": "a", "Value": "b"}])
step("tags on nonsense", "CreateTags", Resources=["nonsense"], Tags=[{"Key": "a", "Value": "b"}])
step("tags: too many", "CreateTags", Resources=["$two"], Tags=MANY_TAGS)
step("tags: a key of aws:", "CreateTags", Resources=["$two"], Tags=[{"Key": "aws:a", "Value": "b"}])
step(
    "tags: a key too long",
    "CreateTags",
    Resources=["$two"],
    Tags=[{"Key": "k" * 128, "Value": ""}, {"Key": "k" * 129, "Value": ""}],
)
step("tags: a value too long", "CreateTags", Resources=["$two"], Tags=[{"Key": "k", "Value": "v" * 257}])
step("tags: DryRun", "CreateTags", Resources=["$two"], Tags=[{"Key": "a", "Value": "b"}], DryRun=True)

# DeleteSnapshot.
step("snapshot deleted: DryRun", "DeleteSnapshot", SnapshotId="$three", DryRun=True)
step("snapshot deleted", "DeleteSnapshot", SnapshotId="$three")
step("snapshot deleted twice", "DeleteSnapshot", SnapshotId="$three")
step("snapshot deleted: malformed id", "DeleteSnapshot", SnapshotId="nonsense")
step("snapshot deleted: no id", "DeleteSnapshot")
step("snapshot deleted in another Region", "DeleteSnapshot", SnapshotId="$one", region=THERE)
step("deleted snapshot", "DescribeSnapshots", SnapshotIds=["$three"])

# Volumes.
step("empty volume", "CreateVolume", AvailabilityZone="$zone", Size=1, save={"empty": "VolumeId"})
step("volume of a snapshot", "CreateVolume", AvailabilityZone="$zone", SnapshotId="$one", VolumeType="gp3",
     TagSpecifications=tags("volume", Name="restored"), save={"restored": "VolumeId"})
step(
    "volume of a type with IOPS",
    "CreateVolume",
    AvailabilityZone="$zone",
    Size=4,
    VolumeType="io2",
    Iops=200,
    save={"io2": "VolumeId"},
)
step(
    "encrypted volume",
    "CreateVolume",
    AvailabilityZone="$zone",
    Size=1,
    Encrypted=True,
    save={"encrypted": "VolumeId"},
)
step("volume: DryRun", "CreateVolume", AvailabilityZone="$zone", Size=1, DryRun=True)
step("volume without a zone", "CreateVolume", Size=1)
step("volume without size and snapshot", "CreateVolume", AvailabilityZone="$zone")
step("volume in an invented zone", "CreateVolume", AvailabilityZone="us-east-1q", Size=1)
step("volume of a missing snapshot", "CreateVolume", AvailabilityZone="$zone", SnapshotId=NO_SNAPSHOT)
step("volume of a malformed snapshot id", "CreateVolume", AvailabilityZone="$zone", SnapshotId="nonsense")
step("volume smaller than its snapshot", "CreateVolume", AvailabilityZone="$zone", SnapshotId="$big", Size=1)
step("volume too large", "CreateVolume", AvailabilityZone="$zone", Size=65537)
step("volume of an invented type", "CreateVolume", AvailabilityZone="$zone", Size=1, VolumeType="gp9")
step("volume: io2 without IOPS", "CreateVolume", AvailabilityZone="$zone", Size=4, VolumeType="io2")
step("volume: IOPS for gp2", "CreateVolume", AvailabilityZone="$zone", Size=1, VolumeType="gp2", Iops=200)
step(
    "volume: throughput for gp2",
    "CreateVolume",
    AvailabilityZone="$zone",
    Size=1,
    VolumeType="gp2",
    Throughput=200,
)
step("volume: a key without Encrypted", "CreateVolume", AvailabilityZone="$zone", Size=1,
     KmsKeyId="arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-555555555555")
step("new volumes", "DescribeVolumes", VolumeIds=["$empty", "$restored", "$io2", "$encrypted"])
step("volume attached", "AttachVolume", VolumeId="$restored", InstanceId="$instance", Device="/dev/sdx")
step("volume attached twice", "AttachVolume", VolumeId="$restored", InstanceId="$instance", Device="/dev/sdy")
step(
    "volume attached: name in use",
    "AttachVolume",
    VolumeId="$empty",
    InstanceId="$instance",
    Device="/dev/sdx",
)
step(
    "volume attached: DryRun",
    "AttachVolume",
    VolumeId="$empty",
    InstanceId="$instance",
    Device="/dev/sdz",
    DryRun=True,
)
step("volume attached: no device name", "AttachVolume", VolumeId="$empty", InstanceId="$instance")
step("volume attached: no instance", "AttachVolume", VolumeId="$empty", Device="/dev/sdz")
step(
    "volume attached to a missing instance",
    "AttachVolume",
    VolumeId="$empty",
    InstanceId=NO_INSTANCE,
    Device="/dev/sdz",
)
step("missing volume attached", "AttachVolume", VolumeId=NO_VOLUME, InstanceId="$instance", Device="/dev/sdz")
step("attached volume", "DescribeVolumes", VolumeIds=["$restored"])
step("instance with one volume more", "DescribeInstances", InstanceIds=["$instance"])
step("attached volume deleted", "DeleteVolume", VolumeId="$restored")
step("volume detached: DryRun", "DetachVolume", VolumeId="$restored", InstanceId="$instance", DryRun=True)
step("volume detached from another instance", "DetachVolume", VolumeId="$restored", InstanceId=NO_INSTANCE)
step(
    "volume detached: another device",
    "DetachVolume",
    VolumeId="$restored",
    InstanceId="$instance",
    Device="/dev/sdq",
)
step("volume detached", "DetachVolume", VolumeId="$restored", InstanceId="$instance")
step("volume detached twice", "DetachVolume", VolumeId="$restored", InstanceId="$instance")
step("volume detached without an instance id", "DetachVolume", VolumeId="$log")
step("missing volume detached", "DetachVolume", VolumeId=NO_VOLUME, InstanceId="$instance")
step("volume deleted", "DeleteVolume", VolumeId="$restored")
step("volume deleted twice", "DeleteVolume", VolumeId="$restored")
step("volume deleted: malformed id", "DeleteVolume", VolumeId="nonsense")
step("volume deleted: DryRun", "DeleteVolume", VolumeId="$empty", DryRun=True)
step("volume deleted: no id", "DeleteVolume")

# Copies and states of volumes.
step("volume copied", "CopyVolumes", SourceVolumeId="$data", save={"cloned": "Volumes[].VolumeId"})
step("volume copied: a missing volume", "CopyVolumes", SourceVolumeId=NO_VOLUME)
step("volume copied: no volume", "CopyVolumes")
step("status of a volume", "DescribeVolumeStatus", VolumeIds=["$data"])
step("status of a missing volume", "DescribeVolumeStatus", VolumeIds=[NO_VOLUME])
step("status of volumes: unknown filter", "DescribeVolumeStatus", Filters=filters(colour=["red"]))
step("copy of a volume deleted", "DeleteVolume", VolumeId="$cloned")

# CopySnapshot.
step(
    "copy in the Region",
    "CopySnapshot",
    SourceRegion="us-east-1",
    SourceSnapshotId="$one",
    Description="copy",
    save={"copy": "SnapshotId"},
)
step("copy to another Region", "CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId="$one",
     TagSpecifications=tags("snapshot", Name="far"), region=THERE, save={"far": "SnapshotId"})
step(
    "copy that is encrypted",
    "CopySnapshot",
    SourceRegion="us-east-1",
    SourceSnapshotId="$one",
    Encrypted=True,
    save={"secret": "SnapshotId"},
)
step("copies", "DescribeSnapshots", SnapshotIds=["$copy", "$secret"])
step("copy in its Region", "DescribeSnapshots", SnapshotIds=["$far"], region=THERE)
step("copy: DryRun", "CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId="$one", DryRun=True)
step("copy of a missing snapshot", "CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId=NO_SNAPSHOT)
step("copy of a malformed id", "CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId="nonsense")
step("copy without a source", "CopySnapshot", SourceRegion="us-east-1")
step("copy without a source Region", "CopySnapshot", SourceSnapshotId="$one")
step("copy from an invented Region", "CopySnapshot", SourceRegion="xx-nowhere-1", SourceSnapshotId="$one")
step("copy: a key without Encrypted", "CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId="$one",
     KmsKeyId="arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-555555555555")
step("copy of an encrypted one, without encryption", "CopySnapshot", SourceRegion="us-east-1",
     SourceSnapshotId="$secret", Encrypted=False)

# Sharing, tiers, locks.
step(
    "shared with an account",
    "ModifySnapshotAttribute",
    SnapshotId="$one",
    Attribute="createVolumePermission",
    OperationType="add",
    UserIds=["111122223333"],
)
step("shared with all", "ModifySnapshotAttribute", SnapshotId="$one", Attribute="createVolumePermission",
     OperationType="add", GroupNames=["all"])
step("shared with whom", "DescribeSnapshotAttribute", SnapshotId="$one", Attribute="createVolumePermission")
step(
    "no longer shared with all",
    "ModifySnapshotAttribute",
    SnapshotId="$one",
    Attribute="createVolumePermission",
    OperationType="remove",
    GroupNames=["all"],
)
step("shared: DryRun", "ModifySnapshotAttribute", SnapshotId="$one", Attribute="createVolumePermission",
     OperationType="add", UserIds=["111122223333"], DryRun=True)
step("shared: a missing snapshot", "ModifySnapshotAttribute", SnapshotId=NO_SNAPSHOT,
     Attribute="createVolumePermission", OperationType="add", UserIds=["111122223333"])
step("shared with an invented group", "ModifySnapshotAttribute", SnapshotId="$one",
     Attribute="createVolumePermission", OperationType="add", GroupNames=["nonsense"])
step("shared with an invented account", "ModifySnapshotAttribute", SnapshotId="$one",
     Attribute="createVolumePermission", OperationType="add", UserIds=["nonsense"])
step("shared with nobody", "ModifySnapshotAttribute", SnapshotId="$one")
step("attribute of a missing snapshot", "DescribeSnapshotAttribute", SnapshotId=NO_SNAPSHOT,
     Attribute="createVolumePermission")
step("attribute: product codes", "DescribeSnapshotAttribute", SnapshotId="$one", Attribute="productCodes")
step("attribute that is none", "DescribeSnapshotAttribute", SnapshotId="$one", Attribute="nonsense")
step("attribute that is not named", "DescribeSnapshotAttribute", SnapshotId="$one")
step("nothing is blocked", "GetSnapshotBlockPublicAccessState")
step("public sharing blocked", "EnableSnapshotBlockPublicAccess", State="block-new-sharing")
step("public sharing blocked: an invented state", "EnableSnapshotBlockPublicAccess", State="nonsense")
step("shared with all while that is blocked", "ModifySnapshotAttribute", SnapshotId="$one",
     Attribute="createVolumePermission", OperationType="add", GroupNames=["all"])
step("public sharing allowed again", "DisableSnapshotBlockPublicAccess")
step("Recycle Bin", "ListSnapshotsInRecycleBin")
step("Recycle Bin: a snapshot that is not there", "ListSnapshotsInRecycleBin", SnapshotIds=[NO_SNAPSHOT])
step("Recycle Bin: restored what is not there", "RestoreSnapshotFromRecycleBin", SnapshotId=NO_SNAPSHOT)
step("archived", "ModifySnapshotTier", SnapshotId="$copy", StorageTier="archive")
step("archived to an invented tier", "ModifySnapshotTier", SnapshotId="$one", StorageTier="nonsense")
step("archived: a missing snapshot", "ModifySnapshotTier", SnapshotId=NO_SNAPSHOT, StorageTier="archive")
step("restored from the archive", "RestoreSnapshotTier", SnapshotId="$copy", PermanentRestore=True)
step("states of tiers", "DescribeSnapshotTierStatus")
step("no longer shared", "ResetSnapshotAttribute", SnapshotId="$one", Attribute="createVolumePermission")
step("locked", "LockSnapshot", SnapshotId="$one", LockMode="governance", LockDuration=1)
step("locked snapshots", "DescribeLockedSnapshots")
step("unlocked", "UnlockSnapshot", SnapshotId="$one")

# Images.
MAPPING = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "$one", "VolumeType": "gp3"}}]
step("image registered", "RegisterImage", Name="restored", Architecture="x86_64", RootDeviceName="/dev/xvda",
     VirtualizationType="hvm", EnaSupport=True, BlockDeviceMappings=MAPPING,
     TagSpecifications=tags("image", Name="restored"), save={"image": "ImageId"})
step("image registered with the same name", "RegisterImage", Name="restored", RootDeviceName="/dev/xvda",
     BlockDeviceMappings=MAPPING)
step("image without a name", "RegisterImage", RootDeviceName="/dev/xvda", BlockDeviceMappings=MAPPING)
step("image of a missing snapshot", "RegisterImage", Name="other", RootDeviceName="/dev/xvda",
     BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": NO_SNAPSHOT}}])
step("image: DryRun", "RegisterImage", Name="other", RootDeviceName="/dev/xvda", BlockDeviceMappings=MAPPING,
     DryRun=True)
step("image by id", "DescribeImages", ImageIds=["$image"])
step("images of ourselves", "DescribeImages", Owners=["self"])
step("images by name", "DescribeImages", Owners=["self"], Filters=filters(name=["restored"]))
step("images: filter without a match", "DescribeImages", Owners=["self"], Filters=filters(name=["nothing"]))
step("images: unknown filter", "DescribeImages", Owners=["self"], Filters=filters(colour=["red"]))
step("image that is missing", "DescribeImages", ImageIds=[NO_IMAGE])
step("image id that is malformed", "DescribeImages", ImageIds=["nonsense"])
step("images: DryRun", "DescribeImages", DryRun=True)
step("snapshot of an image deleted", "DeleteSnapshot", SnapshotId="$one")
step("image disabled", "DisableImage", ImageId="$image")
step("images: disabled ones too", "DescribeImages", Owners=["self"], IncludeDisabled=True)
step("image enabled", "EnableImage", ImageId="$image")
step("image disabled: missing", "DisableImage", ImageId=NO_IMAGE)
step("image deregistered: DryRun", "DeregisterImage", ImageId="$image", DryRun=True)
step("image deregistered", "DeregisterImage", ImageId="$image")
step("image deregistered twice", "DeregisterImage", ImageId="$image")
step("image deregistered: missing", "DeregisterImage", ImageId=NO_IMAGE)
step("image deregistered: malformed id", "DeregisterImage", ImageId="nonsense")

# Regions.
step("a Region", "DescribeRegions", RegionNames=["us-west-2"])
step("a Region by filter", "DescribeRegions", Filters=filters(region_name=["us-west-2"]))
step("Regions: DryRun", "DescribeRegions", DryRun=True)

# Types, and what an instance boots from.
step("UEFI data", "GetInstanceUefiData", InstanceId="$instance")
step("instance type", "DescribeInstanceTypes", InstanceTypes=["m6i.large"])
step("instance types by filter", "DescribeInstanceTypes", Filters=filters(instance_type=["m6i.large"]))
step("instance type that is none", "DescribeInstanceTypes", InstanceTypes=["nonsense.large"])
step("instance types: unknown filter", "DescribeInstanceTypes", Filters=filters(colour=["red"]))
step("instance types: DryRun", "DescribeInstanceTypes", InstanceTypes=["m6i.large"], DryRun=True)

# Images elsewhere and later, roots, and attributes of the instance. Last: the root is another one then.
step("attribute of the instance", "DescribeInstanceAttribute", InstanceId="$instance", Attribute="instanceType")
step("attribute of the instance that is none", "DescribeInstanceAttribute", InstanceId="$instance",
     Attribute="nonsense")
step("attribute of a missing instance", "DescribeInstanceAttribute", InstanceId=NO_INSTANCE,
     Attribute="instanceType")
step("volume goes with the instance", "ModifyInstanceAttribute", InstanceId="$instance",
     BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}])
step("volume goes with the instance: no such device", "ModifyInstanceAttribute", InstanceId="$instance",
     BlockDeviceMappings=[{"DeviceName": "/dev/sdq", "Ebs": {"DeleteOnTermination": True}}])
step("image to be copied", "RegisterImage", Name="to be copied", Architecture="x86_64",
     RootDeviceName="/dev/xvda", VirtualizationType="hvm", BlockDeviceMappings=MAPPING, save={"copied": "ImageId"})
step("image copied", "CopyImage", Name="copy", SourceRegion="us-east-1", SourceImageId="$copied", region=THERE,
     save={"image-copy": "ImageId"})
step("image copied: missing", "CopyImage", Name="copy", SourceRegion="us-east-1", SourceImageId=NO_IMAGE,
     region=THERE)
step("image copied: no name", "CopyImage", SourceRegion="us-east-1", SourceImageId="$copied", region=THERE)
step("image copied: DryRun", "CopyImage", Name="other", SourceRegion="us-east-1", SourceImageId="$copied",
     region=THERE, DryRun=True)
step("copied image", "DescribeImages", ImageIds=["$image-copy"], region=THERE)
step("image deprecated", "EnableImageDeprecation", ImageId="$copied", DeprecateAt="2035-01-02T03:04:00Z")
step("image no longer deprecated", "DisableImageDeprecation", ImageId="$copied")
step("image to be launched", "RegisterImage", Name="to be launched", Architecture="x86_64", EnaSupport=True,
     RootDeviceName="/dev/xvda", VirtualizationType="hvm", BlockDeviceMappings=MAPPING, save={"launchable": "ImageId"})
LAUNCH = {"ImageId": "$launchable", "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
step("instance launched", "RunInstances", TagSpecifications=tags("instance", Name="second"),
     save={"second": "Instances[].InstanceId"}, **LAUNCH)
step("instance launched: DryRun", "RunInstances", DryRun=True, **LAUNCH)
step("instance launched: an invented zone", "RunInstances", Placement={"AvailabilityZone": "mars-1a"}, **LAUNCH)
step("both instances", "DescribeInstances")
step("volumes of the second instance", "DescribeVolumes",
     Filters=filters(**{"attachment.instance_id": ["$second"]}))
step("instance terminated: DryRun", "TerminateInstances", InstanceIds=["$second"], DryRun=True)
step("instance terminated", "TerminateInstances", InstanceIds=["$second"])
step("instance terminated twice", "TerminateInstances", InstanceIds=["$second"])
step("instance that was terminated", "DescribeInstances", InstanceIds=["$second"])
step("volumes of what was terminated", "DescribeVolumes",
     Filters=filters(**{"attachment.instance_id": ["$second"]}))
step("instance terminated: missing", "TerminateInstances", InstanceIds=[NO_INSTANCE])
step("instance terminated: malformed id", "TerminateInstances", InstanceIds=["nonsense"])
step("instance terminated: none named", "TerminateInstances")
step("root replaced by a snapshot of another volume", "CreateReplaceRootVolumeTask", InstanceId="$instance",
     SnapshotId="$one")
step("root replaced in a missing instance", "CreateReplaceRootVolumeTask", InstanceId=NO_INSTANCE)
step("replacements of the root", "DescribeReplaceRootVolumeTasks")
# moto launches these: nothing that lists instances may follow.
step("instance launched: missing image", "RunInstances", **{**LAUNCH, "ImageId": NO_IMAGE})
step("instance launched: malformed image", "RunInstances", **{**LAUNCH, "ImageId": "nonsense"})
step("instance launched: an invented type", "RunInstances", **{**LAUNCH, "InstanceType": "nonsense.large"})
step("instance launched: no image", "RunInstances", InstanceType="m6i.large", MinCount=1, MaxCount=1)
step("instance launched: least above most", "RunInstances", **{**LAUNCH, "MinCount": 2})
step("instance launched: an image without ENA", "RunInstances", **{**LAUNCH, "ImageId": "$copied"})
