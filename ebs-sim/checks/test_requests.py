"""Every member that botocore can send: taken, or refused with an error that says so. Never ignored."""

import re
import tomllib
from pathlib import Path

import model
import requests_of

LISTS = tomllib.loads((Path(__file__).parent / "refused.toml").read_text())


def refused():
    """{"Action Path": code}"""
    found = {}
    for group in LISTS["group"]:
        for action, paths in group["members"].items():
            for path in paths:
                assert f"{action} {path}" not in found, f"{action} {path} is listed twice"
                found[f"{action} {path}"] = group["code"]
    return found


def outcome(sim, params):
    """The error code and the message of a request that is a DryRun."""
    status, body = sim.raw({"DryRun": "true", **params})
    assert status != 200, f"{params}: done in spite of DryRun"
    text = body.decode()
    return re.search("<Code>(.*?)</Code>", text)[1], re.search("<Message>(.*?)</Message>", text, re.S)[1]


def test_each_action_has_its_plain_request(sim, actions):
    assert set(actions) <= requests_of.plain(sim).keys()


def test_every_member_is_taken_or_refused_as_listed(sim, actions):
    expected, faults, met = refused(), [], set()
    for action in actions:
        for path, leaf, _ in model.input_members(action):
            if path == "DryRun":
                continue
            key = f"{action} {path}"
            met.add(key)
            params = requests_of.wire(action, requests_of.with_member(sim, action, path, leaf))
            code, message = outcome(sim, params)
            name = requests_of.wire_name(action, leaf)
            if code == "InvalidPaginationToken" and path == "NextToken":
                continue  # taken, and looked at: no other than ebs-sim can make one up
            if code == "DryRunOperation":
                if key in expected:
                    faults.append(f"{key}: it is taken; strike it off refused.toml")
            elif key not in expected:
                faults.append(f"{key}: {code}: {message}")
            elif code != expected[key]:
                faults.append(f"{key}: refused with {code}, not {expected[key]}: {message}")
            elif bare(name).lower() not in message.lower().replace(" ", ""):
                faults.append(f"{key}: the error does not name it: {message}")
    faults += [f"{key}: listed in refused.toml, and no such member" for key in expected.keys() - met]
    assert not faults, f"{len(faults)} members\n" + "\n".join(sorted(faults))


def bare(name):
    """The last part of a name on the wire that is no number."""
    return [part for part in name.split(".") if not part.isdigit()][-1]


# These name something that there may be; that is not looked at for a DryRun.
EXIST = ("InstanceTypes[]",)


def test_values_of_a_wrong_type_are_refused(sim, actions):
    """What is taken has to be looked at: a value that cannot be right is not let through."""
    listed, faults, tried = refused(), [], 0
    for action in actions:
        for path, leaf, shape in model.input_members(action):
            free_text = shape.type_name == "string" and not getattr(shape, "enum", None)
            if free_text or f"{action} {path}" in listed or path in EXIST:
                continue
            tried += 1
            params = requests_of.wire(action, requests_of.with_member(sim, action, path, leaf))
            params[requests_of.wire_name(action, leaf)] = "nonsense"
            code, message = outcome(sim, params)
            if code in ("DryRunOperation", "UnknownParameter", "InternalError"):
                faults.append(f"{action} {path}: 'nonsense' gives {code}: {message}")
    assert tried > 20
    assert not faults, "\n".join(faults)
