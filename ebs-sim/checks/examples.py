"""The answers that AWS itself shows, in the examples that come with its command line.

In: the examples of the awscli that is installed. Out: for an action, the members in them.
"""

import json
import re
from pathlib import Path

import awscli
from botocore import xform_name

import model

FOLDER = Path(awscli.__file__).parent / "examples" / "ec2"


def outputs(action):
    """Every answer that is shown as JSON, whole."""
    page = FOLDER / f"{xform_name(action, '-')}.rst"
    if not page.exists():
        return []
    found = []
    for part in page.read_text().split("Output::")[1:]:
        try:
            # Written by hand, some have a comma too many.
            part = re.sub(r",(\s*[}\]])", r"\1", part.strip())
            found.append(json.JSONDecoder().raw_decode(part)[0])
        except ValueError:
            pass  # no JSON, or it ends in an ellipsis
    return found


def members(action):
    """The paths of all members in them that the model knows: some examples use `--query`."""
    shape, found = model.SERVICE.operation_model(action).output_shape, set()
    for output in outputs(action):
        _walk(shape, output, "", found)
    return found


def _walk(shape, value, path, found):
    if shape is None:
        return
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, each in value.items():
            if name in shape.members:
                below = f"{path}.{name}" if path else name
                found.add(below)
                _walk(shape.members[name], each, below, found)
    elif shape.type_name == "list" and isinstance(value, list):
        for each in value:
            _walk(shape.member, each, path + "[]", found)
