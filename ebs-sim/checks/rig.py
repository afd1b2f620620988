"""A running `ebs-sim serve`, its control API, and clients for it.

In: the built programs ($EBS_SIM, $STILLPOINT). Out: endpoints and boto3 clients whose answers are kept as
they came. Work goes into a folder in memory, and everything is taken down again, also when a check fails.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import botocore.config
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "us-east-1"
MEMORY = "/dev/shm"


def program(variable, name):
    """The path of a built program."""
    path = Path(os.environ.get(variable) or shutil.which(name) or "")
    if not path.is_file():
        raise RuntimeError(f"{name} is not built: run scripts/check-sim, or set ${variable}")
    return str(path)


# No snapshot has to be waited for long, and one volume can have many.
QUICK = """
[snapshots]
seconds_to_complete = 0.2
[limits]
per_volume_interval = "0s"
pending_per_volume = 0
pending_per_account = 0
throttling = false
[volumes]
seconds_to_create = 0.1
seconds_to_attach = 0.1
"""


class Sim:
    """One `ebs-sim serve`, stopped by `stop`."""

    def __init__(self, scenario=QUICK, volumes=("name=data,size=64MiB", "name=log,size=64MiB")):
        ebs_sim = program("EBS_SIM", "ebs-sim")
        self.folder = Path(tempfile.mkdtemp(prefix="ebs-sim-checks-", dir=MEMORY))
        self.dir = self.folder / "sim"
        self.process = None
        (self.folder / "scenario.toml").write_text(scenario)
        command = [ebs_sim, "serve", "--die-with-parent", "--dir", str(self.dir)]
        command += ["--scenario", str(self.folder / "scenario.toml")]
        for volume in volumes:
            command += ["--volume", volume]
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        line = self.process.stdout.readline()
        if not line:
            said = (self.folder / "log").read_text()
            self.stop()
            raise RuntimeError(f"ebs-sim does not start: {said}")
        self.ready = json.loads(line)
        self.endpoint = self.ready["endpoint"]
        self.instance_id = self.ready["instance_id"]
        self.key = self.ready["credentials"]
        self.pair = (self.key["access_key_id"], self.key["secret_access_key"])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            subprocess.run([program("EBS_SIM", "ebs-sim"), "stop", "--dir", str(self.dir)])
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def control(self, method, path, body=None):
        """One request to the control API; None when it does not know the path."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_ebs-sim/{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def reset(self):
        self.control("POST", "reset")

    def deny(self, *actions):
        self.control("POST", "iam", {"deny": list(actions)})

    def volume(self, name):
        return next(volume["id"] for volume in self.ready["volumes"] if volume["name"] == name)

    def client(self, region=REGION, validate=False):
        return client(
            self.endpoint, self.key["access_key_id"], self.key["secret_access_key"], region, validate
        )

    def raw(self, params, region=REGION):
        return raw(self.endpoint, self.key["access_key_id"], self.key["secret_access_key"], params, region)

    def environment(self):
        """What AWS's own command line needs."""
        return {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": self.key["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": self.key["secret_access_key"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            "HOME": str(self.folder),
        }


def client(endpoint, key, secret, region=REGION, validate=False, service="ec2"):
    """A boto3 client that tries once. What is wrong goes out as it is, unless `validate` is set."""
    config = botocore.config.Config(
        parameter_validation=validate, retries={"total_max_attempts": 1}, read_timeout=30, proxies={}
    )
    return boto3.session.Session().client(
        service, region_name=region, endpoint_url=endpoint, config=config,
        aws_access_key_id=key, aws_secret_access_key=secret,
    )


def raw(endpoint, key, secret, params, region=REGION):
    """One signed Query request with exactly these parameters. Gives the status and the body."""
    from urllib.parse import urlencode

    body = urlencode({"Version": "2016-11-15", **params})
    request = AWSRequest("POST", endpoint + "/", {"Content-Type": "application/x-www-form-urlencoded"}, body)
    SigV4Auth(Credentials(key, secret), "ec2", region).add_auth(request)
    sent = urllib.request.Request(endpoint + "/", body.encode(), dict(request.headers.items()), method="POST")
    try:
        with urllib.request.urlopen(sent, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Moto:
    """moto's server in a process of its own, which ends with this one."""

    KEY = ("AKIAIOSFODNN7EXAMPLE", "any")

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "serve_moto.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            # Without the thousand images of others that it would list.
            env={**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"})
        self.endpoint = self.process.stdout.readline().strip()
        if not self.endpoint:
            raise RuntimeError("moto's server does not start")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def client(self, region=REGION, validate=False):
        return client(self.endpoint, *self.KEY, region, validate)

    def raw(self, params, region=REGION):
        return raw(self.endpoint, *self.KEY, params, region)
