"""Botocore's model of EC2: what a request may hold, and what an answer may hold.

In: the model that botocore ships, and XML as it came over the wire. Out: paths of members such as
`Volumes[].Attachments[].Device`. Nothing here knows ebs-sim.
"""

import datetime
import re
import xml.etree.ElementTree as ElementTree

import botocore.session

SERVICE = botocore.session.get_session().get_service_model("ec2")

SCALARS = {
    "boolean": re.compile(r"true|false"),
    "integer": re.compile(r"-?[0-9]+"),
    "long": re.compile(r"-?[0-9]+"),
    "double": re.compile(r"-?[0-9]+(\.[0-9]+)?"),
    "float": re.compile(r"-?[0-9]+(\.[0-9]+)?"),
    "timestamp": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z"),
}


def output_members(action):
    """Every path that an answer may hold, parents before children."""
    shape = SERVICE.operation_model(action).output_shape
    return [] if shape is None else list(_paths(shape, "", ()))


def _paths(shape, prefix, above):
    if shape.name in above:
        return
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path
            yield from _paths(member, path, (*above, shape.name))
    elif shape.type_name == "list":
        yield from _paths(shape.member, prefix + "[]", above)


class Answer:
    """What one answer held: paths with their elements' texts, and what the model does not know."""

    def __init__(self, action, body):
        self.found = {}
        self.unknown = []
        self.wrong = []
        root = ElementTree.fromstring(body)
        shape = SERVICE.operation_model(action).output_shape
        if _bare(root) != f"{action}Response":
            self.unknown.append(_bare(root))
        for child in root:
            if _bare(child) in ("requestId", "RequestId"):
                root.remove(child)
                break
        if shape is None:
            # EC2 says <return>true</return> where the model knows nothing.
            self.unknown += [
                _bare(child) for child in root if (_bare(child), child.text) != ("return", "true")
            ]
        else:
            self._structure(shape, root, "")

    def _structure(self, shape, element, prefix):
        by_name = {
            member.serialization.get("name", name): (name, member) for name, member in shape.members.items()
        }
        seen = set()
        for child in element:
            name = _bare(child)
            if name not in by_name:
                self.unknown.append(f"{prefix}<{name}>")
                continue
            if name in seen:
                self.wrong.append(f"{prefix}<{name}> is there twice")
            seen.add(name)
            member, of = by_name[name]
            path = f"{prefix}.{member}" if prefix else member
            self._value(of, child, path)

    def _value(self, shape, element, path):
        self.found.setdefault(path, set()).add((element.text or "").strip())
        if shape.type_name == "structure":
            self._structure(shape, element, path)
        elif shape.type_name == "list":
            name = shape.member.serialization.get("name", "member")
            for child in element:
                if _bare(child) != name:
                    self.unknown.append(f"{path}[]<{_bare(child)}>")
                    continue
                if shape.member.type_name == "structure":
                    self._structure(shape.member, child, path + "[]")
                else:
                    self._scalar(shape.member, child, path + "[]")
        else:
            self._scalar(shape, element, path)

    def _scalar(self, shape, element, path):
        text = element.text or ""
        if len(element):
            self.wrong.append(f"{path} has elements in it")
        rule = SCALARS.get(shape.type_name)
        if rule and not rule.fullmatch(text):
            self.wrong.append(f"{path}: {text!r} is no {shape.type_name}")
        if getattr(shape, "enum", None) and text not in shape.enum:
            self.wrong.append(f"{path}: {text!r} is no {shape.name}")


def _bare(element):
    return element.tag.rpartition("}")[2]


def input_members(action):
    """Every member that can be sent, one leaf at a time: [(path, {member: value}, shape)], the value of
    its type.
    """
    shape = SERVICE.operation_model(action).input_shape
    return [] if shape is None else list(_leaves(shape, "", ()))


def _leaves(shape, prefix, above):
    if shape.name in above:
        return
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            path = f"{prefix}.{name}" if prefix else name
            for leaf, value, of in _leaves(member, path, (*above, shape.name)):
                yield leaf, {name: value}, of
    elif shape.type_name == "list":
        for leaf, value, of in _leaves(shape.member, prefix + "[]", above):
            yield leaf, [value], of
    else:
        yield prefix, sample(shape), shape


def sample(shape):
    """Some value of a shape's type."""
    if getattr(shape, "enum", None):
        return shape.enum[0]
    return {
        "boolean": True,
        "integer": 8,
        "long": 8,
        "double": 1.0,
        "float": 1.0,
        "timestamp": datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc),
        "blob": b"sample",
    }.get(shape.type_name, "sample")
