"""The services beside EC2: the EBS direct APIs and the Recycle Bin, by boto3, by botocore's models, and beside
moto's EBS.
"""

import base64
import hashlib
import json

import botocore.session
import pytest
from botocore.exceptions import ClientError

import rig
from tour import await_, tags

BLOCK = 512 << 10
SESSION = botocore.session.get_session()


def service(server, key, name, region=rig.REGION):
    """A boto3 client of another service, whose answers are kept as they came."""
    client = rig.client(server.endpoint, *key, region, validate=True, service=name)
    client.kept = []
    client.meta.events.register(
        f"after-call.{name}",
        lambda http_response, model, **_: client.kept.append((model.name, http_response)),
    )
    return client


@pytest.fixture
def ebs(sim):
    return service(sim, sim.pair, "ebs")


@pytest.fixture
def rbin(sim):
    return service(sim, sim.pair, "rbin")


def code(call, **params):
    """(code, status, reason) of an error."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("Reason")


def unknown(shape, value, path=""):
    """The members of a JSON answer that the model does not have, or that have another type."""
    kinds = {"structure": dict, "list": list, "string": str, "integer": int, "long": int,
             "timestamp": (int, float)}
    if not isinstance(value, kinds[shape.type_name]):
        return [f"{path}: {value!r} is no {shape.type_name}"]
    if getattr(shape, "enum", None) and value not in shape.enum:
        return [f"{path}: {value!r} is none of {shape.enum}"]
    if shape.type_name == "list":
        return [fault for each in value for fault in unknown(shape.member, each, f"{path}[]")]
    if shape.type_name != "structure":
        return []
    faults = [f"{path}.{name}: unknown" for name in value.keys() - shape.members.keys()]
    for name in value.keys() & shape.members.keys():
        faults += unknown(shape.members[name], value[name], f"{path}.{name}")
    return faults


def left_out(client, name, allowed):
    """Checks every kept answer against the model; what the model has and no answer held has to be `allowed`."""
    model, held = SESSION.get_service_model(name), {}
    for action, answer in client.kept:
        if answer.status_code >= 300:
            continue
        operation = model.operation_model(action)
        shape = operation.output_shape
        assert answer.status_code == operation.http.get("responseCode", 200), action
        found = held.setdefault(action, set())
        if shape is None or action == "GetSnapshotBlock":
            continue
        body = json.loads(answer.content or b"{}")
        assert not unknown(shape, body), action
        found.update(body)
    missing = {
        f"{action} {member}"
        for action, found in held.items()
        if action != "GetSnapshotBlock"
        for member in (model.operation_model(action).output_shape or shapeless()).members.keys() - found
    }
    assert missing == set(allowed)


class shapeless:
    members = {}


def test_rules_are_as_the_model_has_them(rbin):
    period = {"RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS"}
    made = rbin.create_rule(
        ResourceType="EBS_SNAPSHOT", RetentionPeriod=period, Description="a week",
        ResourceTags=[{"ResourceTagKey": "k", "ResourceTagValue": "v"}, {"ResourceTagKey": "l"}])
    whole = rbin.create_rule(
        ResourceType="EBS_SNAPSHOT", RetentionPeriod=period, Description="the Region",
        ExcludeResourceTags=[{"ResourceTagKey": "k", "ResourceTagValue": "never"}])
    rbin.create_rule(ResourceType="EC2_IMAGE", RetentionPeriod=period)
    found = rbin.get_rule(Identifier=made["Identifier"])
    assert found["ResourceTags"] == made["ResourceTags"] and found["Status"] == "available"
    pages = rbin.get_paginator("list_rules").paginate(
        ResourceType="EBS_SNAPSHOT", PaginationConfig={"PageSize": 1})
    listed = [rule["Identifier"] for page in pages for rule in page["Rules"]]
    assert {made["Identifier"], whole["Identifier"]} <= set(listed) and len(listed) == len(set(listed))
    for each in (made, whole):
        rbin.delete_rule(Identifier=each["Identifier"])
    gone = code(rbin.get_rule, Identifier=made["Identifier"])
    assert gone == ("ResourceNotFoundException", 404, "RULE_NOT_FOUND")
    long = {"RetentionPeriodValue": 366, "RetentionPeriodUnit": "DAYS"}
    bad = code(rbin.create_rule, ResourceType="EBS_SNAPSHOT", RetentionPeriod=long)
    assert bad == ("ValidationException", 400, "INVALID_PARAMETER_VALUE")
    # Rules here cannot be locked or tagged.
    left_out(rbin, "rbin", {"CreateRule Tags", "CreateRule LockConfiguration", "GetRule LockConfiguration",
                            "GetRule LockEndTime"})


def test_a_rule_keeps_what_ec2_deletes(sim, rbin):
    client = sim.client(validate=True)
    period = {"RetentionPeriodValue": 2, "RetentionPeriodUnit": "DAYS"}
    rule = rbin.create_rule(
        ResourceType="EBS_SNAPSHOT", RetentionPeriod=period,
        ResourceTags=[{"ResourceTagKey": "Keep", "ResourceTagValue": "two days"}])
    made = client.create_snapshot(
        VolumeId=sim.volume("data"), Description="mine",
        TagSpecifications=tags("snapshot", Keep="two days"))["SnapshotId"]
    client.get_waiter("snapshot_completed").wait(
        SnapshotIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 100})
    client.delete_snapshot(SnapshotId=made)
    rbin.delete_rule(Identifier=rule["Identifier"])
    pages = client.get_paginator("list_snapshots_in_recycle_bin").paginate()
    (kept,) = [each for page in pages for each in page["Snapshots"] if each["SnapshotId"] == made]
    assert (kept["RecycleBinExitTime"] - kept["RecycleBinEnterTime"]).days == 2
    assert kept["Description"] == "mine" and "Tags" not in kept
    assert client.restore_snapshot_from_recycle_bin(SnapshotId=made)["State"] == "recovering"
    client.get_waiter("snapshot_completed").wait(
        SnapshotIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 100})


def written(sim, ebs_client, data):
    """A completed snapshot whose blocks hold this: {index: byte}."""
    device = next(volume["loop"] for volume in sim.ready["volumes"] if volume["name"] == "e")
    with open(device, "r+b", buffering=0) as file:
        for index, byte in data.items():
            file.seek(index * BLOCK)
            file.write(bytes([byte]) * BLOCK)
    client = sim.client(validate=True)
    made = client.create_snapshot(VolumeId=sim.volume("e"))["SnapshotId"]
    await_("a snapshot", lambda: client.describe_snapshots(
        SnapshotIds=[made])["Snapshots"][0]["State"] == "completed")
    return made


def all_blocks(client, **params):
    """All entries of a list, by pages."""
    name = "Blocks" if "SnapshotId" in params else "ChangedBlocks"
    call = client.list_snapshot_blocks if name == "Blocks" else client.list_changed_blocks
    found, token = [], {}
    while True:
        page = call(**params, **token)
        found += page[name]
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def test_blocks_are_as_the_model_has_them(sim, ebs):
    first = written(sim, ebs, {0: 1, 5: 2})
    second = written(sim, ebs, {5: 3, 9: 4})
    blocks = all_blocks(ebs, SnapshotId=first)
    assert [block["BlockIndex"] for block in blocks] == [0, 5]
    got = ebs.get_snapshot_block(SnapshotId=first, BlockIndex=5, BlockToken=blocks[1]["BlockToken"])
    data = got["BlockData"].read()
    assert (got["DataLength"], got["ChecksumAlgorithm"], data) == (BLOCK, "SHA256", bytes([2]) * BLOCK)
    assert got["Checksum"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
    changed = all_blocks(ebs, FirstSnapshotId=first, SecondSnapshotId=second)
    assert [block["BlockIndex"] for block in changed] == [5, 9]
    assert [sorted(block.keys() - {"BlockIndex"}) for block in changed] == [
        ["FirstBlockToken", "SecondBlockToken"], ["SecondBlockToken"]]
    assert code(ebs.list_snapshot_blocks, SnapshotId="snap-0123456789abcdef0") == (
        "ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND")
    assert code(ebs.get_snapshot_block, SnapshotId=second, BlockIndex=5, BlockToken=blocks[1]["BlockToken"]) == (
        "ValidationException", 400, "INVALID_BLOCK_TOKEN")
    # Short lists have one page.
    left_out(ebs, "ebs", {"ListSnapshotBlocks NextToken", "ListChangedBlocks NextToken"})


def test_pages_and_a_beginning(sim, ebs):
    client = sim.client(validate=True)
    device = next(volume["loop"] for volume in sim.ready["volumes"] if volume["name"] == "data")
    with open(device, "r+b", buffering=0) as file:
        file.write(b"x" * (64 << 20))
    made = client.create_snapshot(VolumeId=sim.volume("data"))["SnapshotId"]
    await_("a snapshot", lambda: client.describe_snapshots(
        SnapshotIds=[made])["Snapshots"][0]["State"] == "completed")
    assert [each["BlockIndex"] for each in all_blocks(ebs, SnapshotId=made, MaxResults=100)] == [*range(128)]
    late = all_blocks(ebs, SnapshotId=made, StartingBlockIndex=126)
    assert [each["BlockIndex"] for each in late] == [126, 127]


def test_a_stranger_and_a_denial(sim):
    stranger = service(sim, ("AKIAIOSFODNN7EXAMPLE", "wrong"), "ebs")
    forger = service(sim, (sim.key["access_key_id"], "wrong"), "ebs")
    one = {"SnapshotId": "snap-0123456789abcdef0"}
    assert code(stranger.list_snapshot_blocks, **one)[:2] == ("UnrecognizedClientException", 403)
    assert code(forger.list_snapshot_blocks, **one)[:2] == ("InvalidSignatureException", 403)
    sim.deny("ebs:*", "rbin:CreateRule")
    try:
        own = service(sim, sim.pair, "ebs")
        assert code(own.list_snapshot_blocks, **one)[:2] == ("AccessDeniedException", 403)
        rule = {"ResourceType": "EBS_SNAPSHOT",
                "RetentionPeriod": {"RetentionPeriodValue": 1, "RetentionPeriodUnit": "DAYS"}}
        assert code(service(sim, sim.pair, "rbin").create_rule, **rule)[:2] == ("AccessDeniedException", 403)
    finally:
        sim.deny()


def test_beside_motos_ebs(sim, ebs, moto):
    """Both have the same blocks, and the same that changed; moto is given its snapshots block by block."""
    theirs = service(moto, moto.KEY, "ebs")

    def put(blocks, parent=None):
        of = {"ParentSnapshotId": parent} if parent else {}
        made = theirs.start_snapshot(VolumeSize=1, **of)["SnapshotId"]
        for index, byte in blocks.items():
            data = bytes([byte]) * BLOCK
            theirs.put_snapshot_block(
                SnapshotId=made, BlockIndex=index, BlockData=data, DataLength=BLOCK,
                Checksum=base64.b64encode(hashlib.sha256(data).digest()).decode(), ChecksumAlgorithm="SHA256")
        theirs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(blocks))
        return made

    before = written(sim, ebs, {0: 11, 5: 12, 9: 13, 20: 14})
    held = {each["BlockIndex"]: None for each in all_blocks(ebs, SnapshotId=before)}
    for index in held:
        token = next(each["BlockToken"] for each in all_blocks(ebs, SnapshotId=before)
                     if each["BlockIndex"] == index)
        data = ebs.get_snapshot_block(SnapshotId=before, BlockIndex=index, BlockToken=token)["BlockData"].read()
        held[index] = data[0]
    after = written(sim, ebs, {5: 99})
    mine = (before, after)
    others = (put(held), put({**held, 5: 99}))
    for client, (first, second) in ((ebs, mine), (theirs, others)):
        blocks = all_blocks(client, SnapshotId=second)
        assert [each["BlockIndex"] for each in blocks] == sorted(held)
        changed = all_blocks(client, FirstSnapshotId=first, SecondSnapshotId=second)
        assert [each["BlockIndex"] for each in changed] == [5]
        token = next(each["BlockToken"] for each in blocks if each["BlockIndex"] == 5)
        got = client.get_snapshot_block(SnapshotId=second, BlockIndex=5, BlockToken=token)
        assert got["BlockData"].read() == bytes([99]) * BLOCK
        assert got["Checksum"] == base64.b64encode(hashlib.sha256(bytes([99]) * BLOCK).digest()).decode()
