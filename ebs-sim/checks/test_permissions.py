"""DryRun and denials, for each action."""

import pytest
from botocore.exceptions import ClientError

import requests_of
import rig
from tour import tags


@pytest.fixture
def allow_again(sim):
    yield
    sim.deny()


def call(client, action, **params):
    """Calls by EC2's name of the action. Gives the error code and the status; ("ok", 200) when it is done."""
    method = next(name for name, known in client.meta.method_to_api_mapping.items() if known == action)
    try:
        getattr(client, method)(**params)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return "ok", 200


def world(sim):
    """What a call that is not done must leave as it was."""
    client = sim.client()
    found = [client.describe_volumes()["Volumes"], client.describe_tags()["Tags"]]
    return found, [(s["id"], s["tags"]) for s in sim.control("GET", "snapshots")]


def test_dry_run_says_that_it_would_do_it_and_does_not(sim, actions):
    client, before = sim.client(), world(sim)
    for action in actions:
        params = requests_of.plain(sim)[action]
        assert call(client, action, **params, DryRun=True) == ("DryRunOperation", 412), action
    assert world(sim) == before


def test_a_denied_action_is_refused_and_not_done(sim, actions, allow_again):
    client, before = sim.client(), world(sim)
    for action in actions:
        params = requests_of.plain(sim)[action]
        sim.deny(f"ec2:{action}")
        assert call(client, action, **params, DryRun=True) == ("UnauthorizedOperation", 403), action
        assert call(client, action, **params) == ("UnauthorizedOperation", 403), action
    sim.deny()
    assert world(sim) == before


def test_tags_in_a_call_need_a_permission_of_their_own(sim, allow_again):
    client = sim.client()
    for action, kind in requests_of.TAGGED.items():
        params = requests_of.plain(sim)[action]
        sim.deny("ec2:CreateTags")
        assert call(client, action, **params, DryRun=True) == ("DryRunOperation", 412), action
        tagged = {**params, "TagSpecifications": tags(kind, a="b")}
        assert call(client, action, **tagged, DryRun=True) == ("UnauthorizedOperation", 403), action
        assert call(client, action, **tagged) == ("UnauthorizedOperation", 403), action


def test_a_stranger_is_refused_before_anything_is_looked_at(sim, actions):

    stranger = rig.client(sim.endpoint, "AKIAIOSFODNN7EXAMPLE", "wrong")
    forger = rig.client(sim.endpoint, sim.key["access_key_id"], "wrong")
    for action in actions:
        params = requests_of.plain(sim)[action]
        assert call(stranger, action, **params) == ("AuthFailure", 401), action
        assert call(forger, action, **params) == ("SignatureDoesNotMatch", 403), action
