"""The shipped documents for Systems Manager, against moto's and botocore's models of it, and against hostile parameters."""

import json
import pathlib
import re
import subprocess

import boto3
import botocore.session
import botocore.validate
import pytest
import yaml
from moto import mock_aws

EXAMPLES = pathlib.Path(__file__).parents[2] / "packaging" / "examples"
DOCUMENTS = sorted(EXAMPLES.glob("ssm-*.yaml"))
ASSOCIATIONS = sorted(EXAMPLES.glob("ssm-*.json"))

# What somebody who may send a command, and not more, would write into a parameter.
HOSTILE = ["x; reboot", "$(reboot)", "`reboot`", "x'", 'x"', "x\nreboot", "x y", "--config=/tmp/x", "-n", "..", "", "x" * 300]


def allows(parameter, value):
    if "allowedValues" in parameter:
        return value in parameter["allowedValues"]
    return re.fullmatch(parameter["allowedPattern"], value) is not None


def test_there_are_documents():
    assert len(DOCUMENTS) >= 2 and len(ASSOCIATIONS) >= 2


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_systems_manager_takes_the_document(path):
    with mock_aws():
        ssm = boto3.client("ssm", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        ssm.create_document(Name="stillpoint-x", Content=path.read_text(), DocumentType="Command", DocumentFormat="YAML")
        described = ssm.describe_document(Name="stillpoint-x")["Document"]
    content = yaml.safe_load(path.read_text())
    assert {p["Name"] for p in described["Parameters"]} == set(content["parameters"])
    # Schema 2.2, of a Command document.
    assert set(content) == {"schemaVersion", "description", "parameters", "mainSteps"}
    assert content["schemaVersion"] == "2.2"
    for step in content["mainSteps"]:
        assert step["action"] == "aws:runShellScript"
        assert set(step) <= {"action", "name", "description", "precondition", "inputs"}
        assert set(step["inputs"]) <= {"runCommand", "timeoutSeconds", "workingDirectory"}
        assert 5 <= int(step["inputs"]["timeoutSeconds"]) <= 172800


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_no_parameter_can_be_more_than_a_word(path):
    content = yaml.safe_load(path.read_text())
    scripts = ["\n".join(step["inputs"]["runCommand"]) for step in content["mainSteps"]]
    used = {name for script in scripts for name in re.findall(r"\{\{ *(\w+) *\}\}", script)}
    assert used == set(content["parameters"])
    for name, parameter in content["parameters"].items():
        assert parameter["type"] == "String"
        assert allows(parameter, parameter["default"]), name
        if "allowedPattern" in parameter:
            assert parameter["allowedPattern"].startswith("^") and parameter["allowedPattern"].endswith("$")
        for value in HOSTILE:
            assert not allows(parameter, value), (name, value)
    for script in scripts:
        filled = re.sub(r"\{\{ *\w+ *\}\}", "x", script)
        subprocess.run(["sh", "-n"], input=filled, text=True, check=True)


@pytest.mark.parametrize("path", ASSOCIATIONS, ids=lambda p: p.name)
def test_state_manager_takes_the_association(path):
    wanted = json.loads(path.read_text())
    model = botocore.session.get_session().get_service_model("ssm")
    shape = model.operation_model("CreateAssociation").input_shape
    report = botocore.validate.ParamValidator().validate(wanted, shape)
    assert not report.has_errors(), report.generate_report()
    # What botocore does not look at: the patterns of the model.
    for name in ["MaxConcurrency", "MaxErrors", "AssociationName"]:
        member = shape.members[name]
        assert re.fullmatch(member.metadata["pattern"], wanted[name]), name
    document = EXAMPLES / f"{wanted['Name'].replace('stillpoint-', 'ssm-')}.yaml"
    if wanted["Name"].startswith("AWS-"):
        return
    parameters = yaml.safe_load(document.read_text())["parameters"]
    for name, values in wanted["Parameters"].items():
        assert all(allows(parameters[name], value) for value in values), name
