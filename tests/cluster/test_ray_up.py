"""The files for ``ray up``, held against the schema that Ray ships; ``ray up`` has no dry run."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator

from tests.cluster.schemas import ROOT, misspelt

FILES = sorted((ROOT / "cluster/ray-up").glob("*.yaml"))
# found, not imported: an imported Ray no longer reads the settings with which tests join theirs
RAY = Path(find_spec("ray").origin).parent
SCHEMA = json.loads((RAY / "autoscaler/ray-schema.json").read_text())
#: Maps that Ray's schema leaves open: the cloud's own words, names of nodes, paths.
OPEN = ("provider/", "/node_config/", "/resources/", "file_mounts/")


def is_right(body):
    return not list(jsonschema.Draft7Validator(SCHEMA).iter_errors(body))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def text(request):
    return request.param.read_text()


@pytest.fixture
def body(text):
    return yaml.safe_load(text)


def test_there_is_a_file_a_cloud():
    assert [path.stem for path in FILES] == ["aws", "gcp"]


def test_rays_schema_knows_every_field(body):
    jsonschema.validate(body, SCHEMA)


def test_each_misspelt_field_is_caught(body):
    missed = {path for path, wrong in misspelt(body) if is_right(wrong)}
    names = {f"available_node_types/{name}" for name in body["available_node_types"]}
    assert missed == names | {path for path in missed if any(place in path for place in OPEN)}
    for known in ("docker/image", "available_node_types/cpu/min_workers", "setup_commands"):
        assert known not in missed


def test_nodes_fit_their_bounds(body):
    nodes = body["available_node_types"]
    workers = [node for name, node in nodes.items() if name != body["head_node_type"]]
    assert len(workers) == len(nodes) - 1
    assert sum(node["min_workers"] for node in workers) <= body["max_workers"]
    assert sum(node["max_workers"] for node in workers) <= body["max_workers"]
    assert nodes["gpu"]["resources"]["GPU"] == 1
    # the driver alone runs on the head
    assert nodes[body["head_node_type"]]["resources"] == {"CPU": 0}


def test_ports_are_guarded_and_no_credential_stands_in_the_file(body, text):
    assert "-e RAY_AUTH_MODE=token" in body["docker"]["run_options"]
    assert body["provider"]["use_internal_ips"]
    assert not [key for key in body["provider"] if "credential" in key]
    assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE|(password|secret_key|access_key): *\S", text)


def test_images_have_the_version_of_the_project(body, text):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(re.findall(r"REGISTRY/cfray:(\S+)", text)) == {f"{version}-cpu", f"{version}-gpu"}


# -- EC2 -------------------------------------------------------------------------------------------


@cache
def ec2_parameters():
    """Give what EC2's RunInstances takes, as botocore describes it."""
    model = botocore.session.get_session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def ec2_faults(node_config):
    """Hold a node's section against the parameters that EC2 takes."""
    parameters = {**node_config, "MinCount": 1, "MaxCount": 1}
    return ParamValidator().validate(parameters, ec2_parameters()).generate_report()


@pytest.mark.parametrize("name", ["head", "cpu", "gpu"])
def test_ec2_knows_every_field_of_a_node(name):
    body = yaml.safe_load((ROOT / "cluster/ray-up/aws.yaml").read_text())
    node = body["available_node_types"][name]["node_config"]
    assert not ec2_faults(node)
    assert not [path for path, wrong in misspelt(node) if not ec2_faults(wrong)]
