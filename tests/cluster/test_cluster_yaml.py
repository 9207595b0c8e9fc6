"""Test cluster.yaml by Ray's schema and validation, by EC2's shapes, and on an emulated EC2."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.standins import wait_until

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster.yaml"


def aws() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def on_premise() -> dict[str, Any]:
    """Return the file edited as its comment says: AWS section removed, the next one uncommented."""
    head, _, _, _, on_premise_section, _, _, _, everywhere = re.split(
        r"^# ==== (.*)\n", FILE.read_text(), flags=re.M
    )
    return yaml.safe_load(head + re.sub(r"^# ?", "", on_premise_section, flags=re.M) + everywhere)


def schema() -> dict[str, Any]:
    import ray.autoscaler

    return json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("config", [aws(), on_premise()], ids=["aws", "on premise"])
def test_it_is_valid_and_has_no_key_that_ray_does_not_know(config):
    prepared = validated(config)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    properties = schema()["properties"]
    assert config.keys() <= properties.keys()
    # The schema allows any key here, and would accept a misspelt one.
    for section in ("provider", "auth"):
        assert config[section].keys() <= properties[section]["properties"].keys()


def test_the_section_for_machines_of_ones_own_takes_the_place_of_the_one_for_aws():
    ours, theirs = on_premise(), aws()
    assert ours["provider"]["type"] == "local" and theirs["provider"]["type"] == "aws"
    assert "available_node_types" not in ours and "initialization_commands" not in ours
    shared = [
        "cluster_name",
        "file_mounts",
        "setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ]
    assert [ours[key] for key in shared] == [theirs[key] for key in shared]


def test_ec2_knows_what_its_nodes_are_started_with():
    boto3, validate = pytest.importorskip("boto3"), pytest.importorskip("botocore.validate")
    client = boto3.client(
        "ec2", region_name="us-west-2", aws_access_key_id="any", aws_secret_access_key="any"
    )
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    for name, node_type in aws()["available_node_types"].items():
        request = node_type["node_config"] | {"MinCount": 1, "MaxCount": 1}
        assert request.keys() <= shape.members.keys(), name
        report = validate.ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_the_head_stays_and_workers_with_gpus_come_and_go():
    config, types = aws(), aws()["available_node_types"]
    assert config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
    head = types.pop(config["head_node_type"])
    assert head["max_workers"] == 0 and "InstanceMarketOptions" not in head["node_config"]
    assert {name: (one["min_workers"], one["max_workers"]) for name, one in types.items()} == {
        "gpu": (0, 8),
        "gpu-8": (0, 2),
    }
    assert config["max_workers"] == sum(one["max_workers"] for one in types.values())
    assert all(
        one["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        for one in types.values()
    )


def test_a_node_watches_for_its_spot_notice(tmp_path):
    """Run the line in a shell: in the background, and only once however often Ray starts."""
    line = aws()["worker_start_ray_commands"][-1].replace("/tmp/", f"{tmp_path}/")
    log = tmp_path / "chexseg-spot-notice.log"
    (tmp_path / "python").write_text(
        f"#!/bin/sh\necho $@\nfor _ in $(seq 600); do [ -e {tmp_path}/end ] && exit; sleep 0.1; "
        "done\n"
    )
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    try:
        subprocess.run(["bash", "-c", line], env=environment, check=True)
        assert wait_until(lambda: log.exists() and log.read_text(), 30, pause=0.05)
        again = subprocess.run(["bash", "-c", line.removesuffix("&")], env=environment)
        assert again.returncode == 1 and log.read_text() == "-m chexseg.run.spot_notice\n"
    finally:
        (tmp_path / "end").touch()
    assert importlib.util.find_spec("chexseg.run.spot_notice")


def test_no_credential_is_in_it_and_every_node_has_a_role():
    text = FILE.read_text()
    assert not re.search(
        r"AKIA|aws_access_key|aws_secret|aws_credentials|AUTH_TOKEN=", text, flags=re.I
    )
    roles = {
        name: one["node_config"]["IamInstanceProfile"]
        for name, one in aws()["available_node_types"].items()
    }
    assert roles == {
        "head": {"Name": "chexseg-head"},
        "gpu": {"Name": "chexseg-worker"},
        "gpu-8": {"Name": "chexseg-worker"},
    }
    assert all(
        one["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        for one in aws()["available_node_types"].values()
    )


def test_the_dashboard_is_bound_to_loopback_and_every_node_asks_for_the_token():
    config = aws()
    start = config["head_start_ray_commands"][-1]
    assert re.search(r"--dashboard-host[= ](\S+)", start)[1] == "127.0.0.1"
    assert "0.0.0.0" not in FILE.read_text()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in line for line in config["setup_commands"])


def test_it_installs_this_checkout_with_an_extra_that_is_there():
    config = aws()
    assert config["file_mounts"]["~/chexseg"] == "."
    (install,) = [line for line in config["setup_commands"] if "pip install" in line]
    path, extra = re.search(r'"\$HOME/(\w+)\[(\w+)\]"', install).groups()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert path == "chexseg" and extra in project["optional-dependencies"]


@pytest.mark.heavy
def test_an_emulated_ec2_starts_every_kind_of_node(tmp_path, monkeypatch):
    """Start nodes with Ray's AWS provider on moto.

    Keys, subnets and security groups are made, types are looked up, instances are started. moto
    takes any image. EC2's documentation says that it resolves a parameter's name in ImageId; this
    is not tested here.
    """
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        import boto3
        from ray.autoscaler._private.providers import _get_node_provider, _get_node_provider_cls

        _profiles(boto3.client("iam", region_name="us-west-2"))
        prepared = validated(aws())
        provider_class = _get_node_provider_cls(prepared["provider"])
        config = provider_class.fillout_available_node_types_resources(
            provider_class.bootstrap_config(prepared)
        )
        types = config["available_node_types"]
        assert {name: one["resources"].get("GPU", 0) for name, one in types.items()} == {
            "head": 0,
            "gpu": 1,
            "gpu-8": 8,
        }

        provider = _get_node_provider(config["provider"], config["cluster_name"])
        for name, one in types.items():
            provider.create_node(one["node_config"], {"ray-user-node-type": name}, 1)
        ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
        started = [
            instance
            for group in ec2.describe_instances()["Reservations"]
            for instance in group["Instances"]
        ]
        assert sorted(instance["InstanceType"] for instance in started) == [
            "g6.2xlarge",
            "g6.48xlarge",
            "m7i.2xlarge",
        ]
        assert sorted(instance.get("InstanceLifecycle", "on demand") for instance in started) == [
            "on demand",
            "spot",
            "spot",
        ]
        assert all("IamInstanceProfile" in instance for instance in started)
        groups = ec2.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": ["ray-autoscaler-chexseg"]}]
        )
        rules = groups["SecurityGroups"][0]["IpPermissions"]
        from_outside = [
            rule["FromPort"]
            for rule in rules
            if any(one["CidrIp"] == "0.0.0.0/0" for one in rule["IpRanges"])
        ]
        assert from_outside == [22], "only ssh is open to the world"
        provider.terminate_nodes(provider.non_terminated_nodes({}))
        assert provider.non_terminated_nodes({}) == []
    finally:
        server.stop()


def _profiles(iam: Any) -> None:
    for name in ("chexseg-head", "chexseg-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
