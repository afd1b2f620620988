"""Sends the same requests to moto and to ebs-sim, and says how the answers differ.

In: two running servers. Out: for each step, the outcome on both sides, and the members that only one of them
answers.
"""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import model
import requests_of
import rig
from steps import STEPS
from tour import await_

VOLUMES = ("name=root,size=64MiB,boot,device=/dev/sda1", "name=data,size=64MiB,device=/dev/sdf",
           "name=log,size=2GiB,device=/dev/sdg", "name=spare,size=64MiB,detached")


@dataclasses.dataclass
class Outcome:
    """What one side answered: `200 ok, 2 items` or `400 InvalidVolume.NotFound`, and the members of the
    answer.
    """

    said: str
    members: set
    faults: list


class Side:
    """One server, and the ids that stand for the names."""

    def __init__(self, server, ids, quiet=lambda: True):
        self.server = server
        self.ids = ids
        self.quiet = quiet

    def take(self, step):
        params = requests_of.wire(step.action, self._filled(step.params))
        status, body = self.server.raw({**params, **step.extra}, step.region)
        if status != 200:
            code = re.search(b"<Code>(.*?)</Code>", body)
            return Outcome(f"{status} {code[1].decode() if code else 'no code'}", set(), [])
        answer = model.Answer(step.action, body)
        for name, path in step.save.items():
            self.ids[name] = min(answer.found.get(path, [""]))
        await_("everything to settle", self.quiet)
        items = count(step.action, body)
        said = "200 ok" if items is None else f"200 ok, {items} item{'s' * (items != 1)}"
        return Outcome(said, set(answer.found), answer.unknown + answer.wrong)

    def _filled(self, value):
        if isinstance(value, dict):
            return {key: self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if isinstance(value, str) and value.startswith("$"):
            return self.ids.get(value[1:], value[1:])
        return value


def count(action, body):
    """How many items the answer's own list has; None when it has no such list."""
    shape = model.SERVICE.operation_model(action).output_shape
    lists = [] if shape is None else [
        member.serialization["name"] for name, member in shape.members.items()
        if member.type_name == "list" and (action.startswith("Describe") or name == "Snapshots")]
    if len(lists) != 1:
        return None
    found = [child for child in ElementTree.fromstring(body) if child.tag.endswith("}" + lists[0])]
    return sum(len(child) for child in found)


def moto_side(moto):
    """Fills moto's account: an instance with three volumes, and one volume more."""
    client = moto.client(validate=True)
    (made,) = client.run_instances(ImageId="ami-12c6146b", InstanceType="m6i.large", MinCount=1, MaxCount=1)[
        "Instances"
    ]
    zone = made["Placement"]["AvailabilityZone"]
    (instance,) = client.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"]
    ids = {"instance": made["InstanceId"], "zone": zone}
    ids["root"] = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    for name, size, device in (("data", 1, "/dev/sdf"), ("log", 2, "/dev/sdg"), ("spare", 1, None)):
        ids[name] = client.create_volume(AvailabilityZone=zone, Size=size, VolumeType="gp3")["VolumeId"]
        if device:
            client.attach_volume(VolumeId=ids[name], InstanceId=ids["instance"], Device=device)
    ids["big"] = client.create_snapshot(VolumeId=ids["log"])["SnapshotId"]
    return Side(moto, ids)


def sim_side(sim):
    """The same in ebs-sim."""
    client = sim.client(validate=True)

    def quiet():
        volumes = client.describe_volumes()["Volumes"]
        states = [v["State"] for v in volumes] + [a["State"] for v in volumes for a in v["Attachments"]]
        states += [s["state"] for s in sim.control("GET", "snapshots")]
        tiers = client.describe_snapshot_tier_status()["SnapshotTierStatuses"]
        states += [
            tier["LastTieringOperationStatus"] for tier in tiers if tier.get("LastTieringOperationStatus")
        ]
        images = client.describe_images(Owners=["self"])["Images"]
        states += [image["State"] for image in images]
        for reservation in client.describe_instances()["Reservations"]:
            states += [instance["State"]["Name"] for instance in reservation["Instances"]]
        moving = {"pending", "creating", "attaching", "detaching", "deleting", "shutting-down"}
        return not any(state in moving or state.endswith("-in-progress") for state in states)

    ids = {volume["name"]: volume["id"] for volume in sim.ready["volumes"]}
    ids |= {"instance": sim.instance_id, "zone": sim.ready["availability_zone"]}
    ids["big"] = client.create_snapshot(VolumeId=ids["log"])["SnapshotId"]
    await_("a snapshot", quiet)
    return Side(sim, ids, quiet)


def run(moto, sim, actions):
    """[(step, what moto answered, what ebs-sim answered)]"""
    there, here = moto_side(moto), sim_side(sim)
    taken = [step for step in STEPS if step.action in actions]
    return [(step, there.take(step), here.take(step)) for step in taken]


def compare():
    """The same with servers of its own, which are stopped again."""
    import conftest

    sim = rig.Sim(rig.QUICK, VOLUMES)
    try:
        moto = rig.Moto()
        try:
            return run(moto, sim, conftest.actions_of(sim))
        finally:
            moto.stop()
    finally:
        sim.stop()



def differences(results):
    """What differs: {step: (moto, ebs-sim)} and {(side, action, path)}."""
    outcomes = {
        step.name: (there.said, here.said) for step, there, here in results if there.said != here.said
    }
    members = set()
    for step, there, here in results:
        # Where one has fewer items than the other, it has fewer members too.
        if there.said == here.said:
            members |= {("moto", step.action, path) for path in top(there.members - here.members)}
            members |= {("ebs-sim", step.action, path) for path in top(here.members - there.members)}
        members |= {("moto's own", step.action, fault) for fault in there.faults}
    return outcomes, members


def top(paths):
    """Without what lies in a member that is there too."""
    return {
        path
        for path in paths
        if not any(path.startswith((up + ".", up + "[]")) for up in paths if up != path)
    }
