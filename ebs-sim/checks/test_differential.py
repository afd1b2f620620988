"""moto and ebs-sim answer alike, or the difference is known: differences.toml has each, with its reason."""

import pytest

import compared
import differential
from steps import STEPS


@pytest.fixture(scope="module")
def actual():
    return differential.differences(differential.compare())


def test_outcomes_differ_only_as_listed(actual):
    outcomes, _ = actual
    listed = {}
    for group in compared.known()["outcome"]:
        for name, pair in group["steps"].items():
            assert name not in listed, f"{name} is listed twice"
            listed[name] = tuple(pair)
    faults = [f"{name}: moto {moto}, ebs-sim {sim}: not listed so" for name, (moto, sim) in outcomes.items()
              if listed.get(name) != (moto, sim)]
    faults += [f"{name}: listed, and no longer different" for name in listed.keys() - outcomes.keys()]
    assert not faults, f"{len(faults)} differences\n" + "\n".join(faults)


def test_members_differ_only_as_listed(actual):
    _, members = actual
    listed = set()
    for group in compared.known()["members"]:
        for action, paths in group["of"].items():
            for path in paths:
                assert (group["only"], action, path) not in listed, f"{action} {path} is listed twice"
                listed.add((group["only"], action, path))
    faults = [f"{' '.join(each)}: not listed" for each in sorted(members - listed)]
    faults += [f"{' '.join(each)}: listed, and no longer different" for each in sorted(listed - members)]
    assert not faults, f"{len(faults)} differences\n" + "\n".join(faults)


def test_every_difference_has_its_reason():
    table = compared.known()
    for group in table["outcome"] + table["members"]:
        assert group["right"] in ("ebs-sim", "moto", "both", "neither", "unverified"), group
        assert group["why"].endswith("."), group


def test_the_table_in_the_documentation_is_this_one():
    assert compared.TABLE.read_text() == compared.markdown(
        compared.known(), len(STEPS)
    ), "compared.py --write"
