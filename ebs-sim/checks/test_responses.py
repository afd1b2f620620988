"""Every answer against botocore's model: no element that EC2 does not have, and none missing that is not
listed.
"""

import tomllib
from pathlib import Path

import model
import conftest

LEFT_OUT = tomllib.loads((Path(__file__).parent / "left_out.toml").read_text())["group"]


def listed():
    """{action: {path: why}}"""
    found = {}
    for group in LEFT_OUT:
        for action, paths in group["members"].items():
            for path in paths:
                of_action = found.setdefault(action, {})
                assert path not in of_action, f"{action} {path} is listed twice"
                of_action[path] = group["why"]
    return found


def missing(action, bodies):
    """What no answer held; of a structure that is missing, only itself."""
    held = set()
    for body in bodies:
        held |= model.Answer(action, body).found.keys()
    paths = [path for path in model.output_members(action) if path not in held]
    return {
        path
        for path in paths
        if not any(path.startswith((up + ".", up + "[]")) for up in paths if up != path)
    }


def test_the_list_of_actions_is_all_there_is(sim, actions):
    assert actions == conftest.probe(sim)


def test_the_tour_goes_through_every_action(actions, toured):
    assert sorted(toured) == actions


def test_answers_hold_nothing_that_the_model_does_not_know(toured):
    faults = []
    for action, bodies in toured.items():
        for body in bodies:
            answer = model.Answer(action, body)
            faults += [f"{action}: unknown {element}" for element in answer.unknown]
            faults += [f"{action}: {what}" for what in answer.wrong]
    assert not faults, "\n".join(sorted(set(faults)))


def test_members_are_answered_or_listed_as_left_out(toured):
    expected = listed()
    faults = []
    for action, bodies in toured.items():
        actual = missing(action, bodies)
        left_out = expected.get(action, {}).keys()
        faults += [
            f"{action} {path}: no answer holds it; answer it or list it" for path in sorted(actual - left_out)
        ]
        faults += [
            f"{action} {path}: it is answered; strike it off left_out.toml"
            for path in sorted(left_out - actual)
        ]
    assert not faults, f"{len(faults)} members\n" + "\n".join(faults)


def test_the_list_of_what_is_left_out_names_actions_that_are_there(actions):
    assert set(listed()) <= set(actions)
