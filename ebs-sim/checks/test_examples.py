"""What AWS shows in its own examples, ebs-sim answers too; where it does not, left_out.toml says so with
`shown`.
"""

import examples
import test_responses


def test_what_aws_shows_is_answered(actions, toured):
    listed = {
        (action, path) for group in test_responses.LEFT_OUT if group.get("shown")
        for action, paths in group["members"].items() for path in paths}
    missing = set()
    for action in actions:
        shown = examples.members(action)
        for path in test_responses.missing(action, toured[action]):
            if any(each == path or each.startswith((path + ".", path + "[]")) for each in shown):
                missing.add((action, path))
    assert missing == listed


def test_there_are_examples_to_compare_with(actions):
    assert sum(len(examples.members(action)) for action in actions) > 220
