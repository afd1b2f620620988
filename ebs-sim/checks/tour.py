"""A tour through every action, by boto3, whose answers are kept as they came.

In: a running ebs-sim. Out: for each action all its good answers. Only what the tour shows counts as answered,
so it has to take every turn in which a member can appear: errors, pages, locks, copies, restores.
"""

import time

import rig

SCENARIO = """
[instance]
tags = { Name = "db", Stage = "test" }
uefi_data = "QU1aTlVFRkk="
[imds]
instance_tags = true
[snapshots]
seconds_to_complete = 0.4
[limits]
per_volume_interval = "0s"
pending_per_volume = 0
pending_per_account = 0
throttling = false
[volumes]
seconds_to_create = 0.2
seconds_to_attach = 0.2
[recycle_bin]
seconds_to_restore = 0.2
[[recycle_bin.rule]]
days = 7
resource_tags = ["Bin"]
[[kms_key]]
id = "11111111-2222-4333-8444-555555555555"
region = "us-west-2"
[[kms_key]]
id = "66666666-7777-4888-8999-000000000000"
region = "us-east-1"
"""

# More than one page of five; one of each kind that EC2 describes in another way.
VOLUMES = (
    "name=root,size=64MiB,boot",
    "name=data,size=64MiB,iops=4000,throughput=250,tag:Name=data,tag:Disk=1",
    "name=log,size=16MiB,type=io2,iops=500,encrypted,tag:Name=log,tag:Disk=2",
    "name=old,size=16MiB,type=gp2,tag:Name=old",
    "name=cold,size=16MiB,type=st1,tag:Name=cold",
    "name=e,size=16MiB",
    "name=f,size=16MiB",
)

OTHER_REGION = "us-west-2"
KEY = "arn:aws:kms:us-west-2:123456789012:key/11111111-2222-4333-8444-555555555555"
KEY_HERE = "arn:aws:kms:us-east-1:123456789012:key/66666666-7777-4888-8999-000000000000"


class Tour:
    """Takes the tour once. `answers[action]` is a list of bodies."""

    def __init__(self, sim, actions):
        self.sim = sim
        self.actions = set(actions)
        self.answers = {}
        self.here = self._client(rig.REGION)
        self.there = self._client(OTHER_REGION)
        for stop, needed in STOPS:
            if self.actions >= needed:
                stop(self)

    def _client(self, region):
        client = self.sim.client(region, validate=True)
        client.meta.events.register("after-call.ec2", self._keep)
        return client

    def _keep(self, http_response, model, **_):
        if http_response.status_code == 200:
            self.answers.setdefault(model.name, []).append(http_response.content)

    def snapshot(self, **more):
        """A completed snapshot of the data volume."""
        made = self.here.create_snapshot(VolumeId=self.sim.volume("data"), **more)["SnapshotId"]
        self.completed(self.here, made)
        return made

    def volume(self, volume, wanted):
        """Waits until a volume, or its attachment, is in a state."""
        def states():
            (found,) = self.here.describe_volumes(VolumeIds=[volume])["Volumes"]
            return [found["State"], *(attachment["State"] for attachment in found["Attachments"])]
        await_(f"a volume to be {wanted}", lambda: wanted in states())

    @staticmethod
    def completed(client, *ids):
        await_("snapshots to complete", lambda: all(
            s["State"] == "completed" for s in client.describe_snapshots(SnapshotIds=ids)["Snapshots"]))


def await_(what, done, seconds=15):
    """Waits until `done` gives something."""
    end = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def tags(kind, **of):
    """TagSpecifications for one kind of resource."""
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in of.items()]}]


STOPS = []


def stop(*needed):
    """Marks a stop of the tour, with the actions that it is made for."""
    def add(function):
        STOPS.append((function, set(needed)))
        return function
    return add


@stop("DescribeInstances", "DescribeVolumes", "DescribeTags")
def what_is_there(t):
    t.here.describe_instances()
    t.here.describe_instances(InstanceIds=[t.sim.instance_id])
    t.here.describe_volumes()
    first = t.here.describe_volumes(MaxResults=5)
    t.here.describe_volumes(MaxResults=5, NextToken=first["NextToken"])
    first = t.here.describe_tags(MaxResults=5)
    t.here.describe_tags(MaxResults=5, NextToken=first["NextToken"])


@stop("CreateSnapshots", "CreateSnapshot", "DescribeSnapshots")
def snapshots(t):
    t.here.create_snapshots(
        InstanceSpecification={"InstanceId": t.sim.instance_id},
        Description="all",
        CopyTagsFromSource="volume",
        TagSpecifications=tags("snapshot", Run="1"),
    )
    t.here.describe_snapshots()
    first = t.here.describe_snapshots(MaxResults=5)
    t.here.describe_snapshots(MaxResults=5, NextToken=first["NextToken"])
    t.here.create_snapshot(
        VolumeId=t.sim.volume("log"), Description="one", TagSpecifications=tags("snapshot", Run="2"))
    t.sim.control("POST", "faults", {"action": "CreateSnapshot", "kind": "snapshot-error", "call": 1})
    made = t.here.create_snapshot(VolumeId=t.sim.volume("data"))["SnapshotId"]
    await_(
        "an error", lambda: t.here.describe_snapshots(SnapshotIds=[made])["Snapshots"][0]["State"] == "error"
    )


@stop("CreateTags", "DeleteTags", "CreateSnapshot")
def tagging(t):
    made = t.snapshot()
    t.here.create_tags(Resources=[made], Tags=[{"Key": "A", "Value": "1"}, {"Key": "B", "Value": ""}])
    t.here.describe_tags(Filters=[{"Name": "resource-id", "Values": [made]}])
    t.here.delete_tags(Resources=[made], Tags=[{"Key": "A"}])


@stop("DeleteSnapshot", "CreateSnapshot")
def deleting(t):
    t.here.delete_snapshot(SnapshotId=t.snapshot())


@stop("CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume")
def volumes(t):
    zone = t.sim.ready["availability_zone"]
    source = t.snapshot()
    ids = [
        t.here.create_volume(AvailabilityZone=zone, SnapshotId=source, **more)["VolumeId"]
        for more in (
            {
                "VolumeType": "gp3",
                "VolumeInitializationRate": 100,
                "Size": 8,
                "Iops": 3500,
                "Throughput": 200,
                "TagSpecifications": tags("volume", Name="new"),
            },
            {"VolumeType": "io2", "Iops": 500, "Encrypted": True, "Size": 4},
        )
    ]
    ids.append(t.here.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"])
    for each, device in zip(ids, ("/dev/sdx", "/dev/sdy", "/dev/sdz")):
        t.volume(each, "available")
        t.here.attach_volume(VolumeId=each, InstanceId=t.sim.instance_id, Device=device)
    for each in ids:
        t.volume(each, "attached")
    t.here.describe_instances()
    t.here.describe_volumes()
    t.here.detach_volume(VolumeId=ids[0])
    t.here.detach_volume(VolumeId=ids[1], InstanceId=t.sim.instance_id, Device="/dev/sdy")
    t.here.detach_volume(VolumeId=ids[2], Force=True)
    for each in ids:
        t.volume(each, "available")
        t.here.delete_volume(VolumeId=each)


@stop("CopyVolumes", "DescribeVolumeStatus", "CreateVolume", "DeleteVolume")
def volume_copies(t):
    ids = []
    for name, more in (
        (
            "data",
            {"VolumeType": "gp3", "Size": 8, "Iops": 3500, "Throughput": 200, "TagSpecifications": tags("volume", Of="data")},
        ),
        ("log", {"ClientToken": "of-log", "Size": 2}),
    ):
        (made,) = t.here.copy_volumes(SourceVolumeId=t.sim.volume(name), **more)["Volumes"]
        ids.append(made["VolumeId"])
    source = t.snapshot()
    ids.append(t.here.create_volume(
        AvailabilityZone=t.sim.ready["availability_zone"], SnapshotId=source, VolumeInitializationRate=300,
    )["VolumeId"])
    t.here.describe_volume_status()
    t.here.describe_volume_status(VolumeIds=ids)
    first = t.here.describe_volume_status(MaxResults=5)
    t.here.describe_volume_status(MaxResults=5, NextToken=first["NextToken"])
    t.here.describe_volumes()
    for each in ids:
        t.volume(each, "available")
        t.here.delete_volume(VolumeId=each)


@stop("GetEbsDefaultKmsKeyId", "GetEbsEncryptionByDefault")
def default_keys(t):
    t.here.get_ebs_default_kms_key_id()
    t.there.get_ebs_default_kms_key_id()
    t.here.get_ebs_encryption_by_default()


@stop("CopySnapshot", "CreateSnapshot")
def copies(t):
    source = t.snapshot(TagSpecifications=tags("snapshot", Of="source"))
    plain = t.here.copy_snapshot(
        SourceRegion=rig.REGION, SourceSnapshotId=source, Description="here",
        TagSpecifications=tags("snapshot", Of="copy"))["SnapshotId"]
    far = t.there.copy_snapshot(
        SourceRegion=rig.REGION, SourceSnapshotId=source, Encrypted=True, KmsKeyId=KEY)["SnapshotId"]
    t.there.copy_snapshot(SourceRegion=rig.REGION, SourceSnapshotId=source, CompletionDurationMinutes=15)
    t.there.describe_snapshots()
    t.completed(t.here, plain)
    t.completed(t.there, far)
    t.there.describe_snapshots()


@stop("LockSnapshot", "UnlockSnapshot", "DescribeLockedSnapshots", "CreateSnapshot")
def locks(t):
    made = [t.snapshot() for _ in range(2)]
    t.here.lock_snapshot(SnapshotId=made[0], LockMode="governance", LockDuration=1)
    t.here.lock_snapshot(SnapshotId=made[1], LockMode="compliance", LockDuration=1, CoolOffPeriod=1)
    more = [t.snapshot() for _ in range(4)]
    for each in more:
        t.here.lock_snapshot(SnapshotId=each, LockMode="governance", LockDuration=2)
    t.here.describe_locked_snapshots()
    t.here.describe_locked_snapshots(SnapshotIds=made)
    first = t.here.describe_locked_snapshots(MaxResults=5)
    t.here.describe_locked_snapshots(MaxResults=5, NextToken=first["NextToken"])
    pending = t.here.create_snapshot(VolumeId=t.sim.volume("data"))["SnapshotId"]
    t.here.lock_snapshot(SnapshotId=pending, LockMode="governance", LockDuration=1)
    for each in (made[0], *more, pending):
        t.here.unlock_snapshot(SnapshotId=each)


@stop("ModifySnapshotAttribute", "DescribeSnapshotAttribute", "CreateSnapshot")
def sharing(t):
    made = t.snapshot()
    t.here.modify_snapshot_attribute(SnapshotId=made, CreateVolumePermission={
        "Add": [{"UserId": "111122223333"}, {"Group": "all"}]})
    t.here.describe_snapshot_attribute(SnapshotId=made, Attribute="createVolumePermission")
    t.here.modify_snapshot_attribute(
        SnapshotId=made, Attribute="createVolumePermission", OperationType="remove", UserIds=["111122223333"])
    t.here.modify_snapshot_attribute(
        SnapshotId=made, Attribute="createVolumePermission", OperationType="remove", GroupNames=["all"])
    t.here.describe_snapshot_attribute(SnapshotId=made, Attribute="createVolumePermission")
    t.here.describe_snapshot_attribute(SnapshotId=made, Attribute="productCodes")


@stop("ListSnapshotsInRecycleBin", "RestoreSnapshotFromRecycleBin", "DeleteSnapshot")
def recycle_bin(t):
    made = [t.snapshot(Description="kept", TagSpecifications=tags("snapshot", Bin="yes")) for _ in range(6)]
    secret = t.here.create_snapshot(
        VolumeId=t.sim.volume("log"), TagSpecifications=tags("snapshot", Bin="yes"))["SnapshotId"]
    t.completed(t.here, secret)
    for each in (*made, secret):
        t.here.delete_snapshot(SnapshotId=each)
    t.here.list_snapshots_in_recycle_bin(SnapshotIds=made[:1])
    first = t.here.list_snapshots_in_recycle_bin(MaxResults=5)
    t.here.list_snapshots_in_recycle_bin(MaxResults=5, NextToken=first["NextToken"])
    for each in (made[0], secret):
        t.here.restore_snapshot_from_recycle_bin(SnapshotId=each)
    t.here.describe_snapshots(SnapshotIds=made[:1])
    t.completed(t.here, made[0], secret)


@stop("GetSnapshotBlockPublicAccessState", "EnableSnapshotBlockPublicAccess", "DisableSnapshotBlockPublicAccess")
def public_access(t):
    for state in ("block-all-sharing", "block-new-sharing"):
        t.here.enable_snapshot_block_public_access(State=state)
        t.here.get_snapshot_block_public_access_state()
    t.here.disable_snapshot_block_public_access()
    t.here.get_snapshot_block_public_access_state()


@stop("GetImageBlockPublicAccessState", "EnableImageBlockPublicAccess", "DisableImageBlockPublicAccess")
def public_images(t):
    t.here.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    t.here.get_image_block_public_access_state()
    t.here.disable_image_block_public_access()
    t.here.get_image_block_public_access_state()


@stop("CreateReplaceRootVolumeTask", "DescribeReplaceRootVolumeTasks", "CreateSnapshot", "DeleteVolume")
def roots(t):
    def replaced(task):
        await_("a new root", lambda: t.here.describe_replace_root_volume_tasks(
            ReplaceRootVolumeTaskIds=[task])["ReplaceRootVolumeTasks"][0]["TaskState"] == "succeeded")

    def root():
        return next(v["VolumeId"] for v in t.here.describe_volumes()["Volumes"] for a in v["Attachments"]
                    if a["Device"] == "/dev/xvda")

    first = root()
    source = t.here.create_snapshot(VolumeId=first)["SnapshotId"]
    t.completed(t.here, source)
    image = t.here.register_image(
        Name="root", RootDeviceName="/dev/xvda", VirtualizationType="hvm", Architecture="x86_64",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": source}}])["ImageId"]
    ways = [{"SnapshotId": source, "TagSpecifications": tags("replace-root-volume-task", Why="tour")},
            {"ImageId": image, "DeleteReplacedRootVolume": True},
            *({"SnapshotId": source, "DeleteReplacedRootVolume": True} for _ in range(4))]
    for way in ways:
        made = t.here.create_replace_root_volume_task(InstanceId=t.sim.instance_id, **way)
        replaced(made["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"])
    # The first one again, so that everything is as it was.
    made = t.here.create_replace_root_volume_task(
        InstanceId=t.sim.instance_id, VolumeId=first, DeleteReplacedRootVolume=True)
    replaced(made["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"])
    page = t.here.describe_replace_root_volume_tasks(MaxResults=5)
    t.here.describe_replace_root_volume_tasks(MaxResults=5, NextToken=page["NextToken"])
    t.here.deregister_image(ImageId=image)


@stop("CopyImage", "EnableImageDeprecation", "DisableImageDeprecation", "RegisterImage")
def image_copies(t):
    image = t.here.register_image(
        Name="to be copied", RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": t.snapshot()}}])["ImageId"]

    def state(wanted, copy):
        await_(f"the image to be {wanted}", lambda: t.there.describe_images(
            ImageIds=[copy])["Images"][0]["State"] == wanted)

    state_here = lambda: t.here.describe_images(ImageIds=[image])["Images"][0]["State"]
    await_("the image", lambda: state_here() == "available")
    good = t.there.copy_image(
        Name="copy", SourceRegion=rig.REGION, SourceImageId=image, Description="there",
        TagSpecifications=tags("image", Of="copy"))["ImageId"]
    state("available", good)
    t.sim.control("POST", "faults", {"action": "CopyImage", "kind": "snapshot-error", "call": 1})
    bad = t.there.copy_image(Name="bad", SourceRegion=rig.REGION, SourceImageId=image)["ImageId"]
    state("failed", bad)
    t.here.enable_image_deprecation(ImageId=image, DeprecateAt="2035-01-02T03:04:00Z")
    t.here.describe_images(ImageIds=[image])
    t.here.disable_image_deprecation(ImageId=image)
    t.there.deregister_image(ImageId=good)
    t.there.deregister_image(ImageId=bad)
    t.here.deregister_image(ImageId=image)


@stop("ModifyInstanceAttribute", "DescribeInstanceAttribute")
def instance_attributes(t):
    device = next(a["Device"] for v in t.here.describe_volumes()["Volumes"] for a in v["Attachments"]
                  if v["VolumeId"] == t.sim.volume("data"))
    for delete in (True, False):
        t.here.modify_instance_attribute(InstanceId=t.sim.instance_id, BlockDeviceMappings=[
            {"DeviceName": device, "Ebs": {"DeleteOnTermination": delete, "VolumeId": t.sim.volume("data")}}])
    for attribute in (
        "blockDeviceMapping", "disableApiStop", "disableApiTermination", "ebsOptimized", "enaSupport",
        "enclaveOptions", "groupSet", "instanceInitiatedShutdownBehavior", "instanceType", "kernel",
        "productCodes", "ramdisk", "rootDeviceName", "sourceDestCheck", "sriovNetSupport", "userData",
    ):
        t.here.describe_instance_attribute(InstanceId=t.sim.instance_id, Attribute=attribute)


@stop("DisableImage", "EnableImage", "RegisterImage", "DeregisterImage")
def disabled_images(t):
    image = t.here.register_image(
        Name="disabled", RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": t.snapshot()}}])["ImageId"]
    t.here.disable_image(ImageId=image)
    t.here.describe_images(Owners=["self"], IncludeDisabled=True)
    t.here.enable_image(ImageId=image)
    t.here.deregister_image(ImageId=image)


@stop("ModifySnapshotTier", "RestoreSnapshotTier", "DescribeSnapshotTierStatus")
def tiers(t):
    made = [t.snapshot(TagSpecifications=tags("snapshot", Name="archive")) for _ in range(6)]

    def tier(each, wanted):
        await_(f"the tier {wanted}", lambda: t.here.describe_snapshots(
            SnapshotIds=[each])["Snapshots"][0]["StorageTier"] == wanted)

    for each in made:
        t.here.modify_snapshot_tier(SnapshotId=each, StorageTier="archive")
    t.here.describe_snapshot_tier_status()
    for each in made:
        tier(each, "archive")
    t.here.describe_snapshots(SnapshotIds=made)
    first = t.here.describe_snapshot_tier_status(MaxResults=5)
    t.here.describe_snapshot_tier_status(MaxResults=5, NextToken=first["NextToken"])
    t.here.restore_snapshot_tier(SnapshotId=made[0], TemporaryRestoreDays=2)
    t.here.restore_snapshot_tier(SnapshotId=made[1], PermanentRestore=True)
    t.here.describe_snapshot_tier_status()
    for each in made[:2]:
        tier(each, "standard")
    t.here.describe_snapshots(SnapshotIds=made)
    t.here.describe_snapshot_tier_status()


@stop("ResetSnapshotAttribute", "CreateSnapshot")
def no_longer_shared(t):
    t.here.reset_snapshot_attribute(SnapshotId=t.snapshot(), Attribute="createVolumePermission")


@stop("GetInstanceUefiData")
def uefi(t):
    t.here.get_instance_uefi_data(InstanceId=t.sim.instance_id)


@stop("RunInstances", "TerminateInstances", "DescribeInstances", "RegisterImage", "DeregisterImage", "CreateSnapshot")
def launches(t):
    image = t.here.register_image(
        Name="to launch", Architecture="x86_64", RootDeviceName="/dev/xvda", VirtualizationType="hvm",
        EnaSupport=True, SriovNetSupport="simple", BootMode="uefi-preferred",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": t.snapshot(), "VolumeType": "gp3"}}],
    )["ImageId"]
    await_("the image", lambda: t.here.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
    made = t.here.run_instances(
        ImageId=image, InstanceType="m6i.large", MinCount=5, MaxCount=5, ClientToken="tour",
        TagSpecifications=tags("instance", Name="second"))["Instances"]
    ids = [instance["InstanceId"] for instance in made]

    def are(wanted):
        found = [r["Instances"] for r in t.here.describe_instances(InstanceIds=ids)["Reservations"]]
        return {instance["State"]["Name"] for instances in found for instance in instances} == {wanted}
    await_("instances", lambda: are("running"))
    first = t.here.describe_instances(MaxResults=5)
    t.here.describe_instances(MaxResults=5, NextToken=first["NextToken"])
    t.here.terminate_instances(InstanceIds=ids)
    await_("the end of instances", lambda: are("terminated"))
    t.here.deregister_image(ImageId=image)


@stop("RegisterImage", "DescribeImages", "DeregisterImage", "CreateSnapshot")
def images(t):
    root = t.snapshot()
    data = t.snapshot()
    ids = []
    for number in range(6):
        ids.append(
            t.here.register_image(
                Name=f"image-{number}",
                Description="of a set",
                Architecture="x86_64",
                RootDeviceName="/dev/xvda",
                VirtualizationType="hvm",
                EnaSupport=True,
                SriovNetSupport="simple",
                BootMode="uefi",
                TpmSupport="v2.0",
                ImdsSupport="v2.0",
                TagSpecifications=tags("image", Name="restored"),
                BlockDeviceMappings=[
                    {
                        "DeviceName": "/dev/xvda",
                        "Ebs": {
                            "SnapshotId": root,
                            "VolumeType": "gp3",
                            "Iops": 3000,
                            "Throughput": 125,
                            "DeleteOnTermination": True,
                        },
                    },
                    {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data, "VolumeType": "io2", "Iops": 400}},
                    {"DeviceName": "/dev/sdg", "VirtualName": "ephemeral0"},
                ],
            )["ImageId"]
        )
    t.here.describe_images(Owners=["self"])
    t.here.describe_images(ImageIds=ids[:1])
    first = t.here.describe_images(Owners=["self"], MaxResults=5)
    t.here.describe_images(Owners=["self"], MaxResults=5, NextToken=first["NextToken"])
    for each in ids[1:]:
        t.here.deregister_image(ImageId=each)
    t.here.deregister_image(ImageId=ids[0], DeleteAssociatedSnapshots=True)


@stop("DescribeImageAttribute", "ModifyImageAttribute", "RegisterImage")
def image_attributes(t):
    ebs = {"SnapshotId": t.snapshot(), "VolumeType": "gp3", "Iops": 3500, "Throughput": 150}
    image = t.here.register_image(
        Name="attributes",
        Description="before",
        RootDeviceName="/dev/xvda",
        BootMode="uefi",
        TpmSupport="v2.0",
        ImdsSupport="v2.0",
        SriovNetSupport="simple",
        VirtualizationType="hvm",
        Architecture="x86_64",
        UefiData="QU1aTlVFRkk=",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": ebs},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ],
    )["ImageId"]
    t.here.modify_image_attribute(ImageId=image, Description={"Value": "after"})
    t.here.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "111122223333"}]})
    t.here.modify_image_attribute(
        ImageId=image, Attribute="launchPermission", OperationType="add", UserGroups=["all"])
    for attribute in (
        "description",
        "blockDeviceMapping",
        "launchPermission",
        "sriovNetSupport",
        "bootMode",
        "tpmSupport",
        "imdsSupport",
        "kernel",
        "ramdisk",
        "productCodes",
        "uefiData",
        "lastLaunchedTime",
        "deregistrationProtection",
    ):
        try:
            t.here.describe_image_attribute(ImageId=image, Attribute=attribute)
        except t.here.exceptions.ClientError:
            pass  # then its member is missing, and has to be listed
    t.here.deregister_image(ImageId=image)


@stop("DescribeImages", "DescribeInstances")
def the_image_it_runs_from(t):
    instance = t.here.describe_instances()["Reservations"][0]["Instances"][0]
    t.here.describe_images(ImageIds=[instance["ImageId"]])


@stop("DescribeRegions")
def regions(t):
    t.here.describe_regions()
    t.here.describe_regions(RegionNames=["us-west-2"])


@stop("DescribeInstanceTypes")
def types(t):
    everything = t.here.describe_instance_types()
    t.here.describe_instance_types(InstanceTypes=["m6i.large"])
    if len(everything["InstanceTypes"]) > 5:
        first = t.here.describe_instance_types(MaxResults=5)
        t.here.describe_instance_types(MaxResults=5, NextToken=first["NextToken"])
