"""Test that the policies and manifests of docs/how-to/run-on-a-cluster.md are complete.

Nothing is run here. test_one_machine.py runs the commands of its first section, test_up.py runs
`ray up`, `exec` and `down`, and tests/docs parses all commands.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.test_cluster_yaml import aws
from tests.docs import pages

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/how-to/run-on-a-cluster.md"
TEXT = (ROOT / PAGE).read_text()


def blocks(language: str) -> list[str]:
    return [block.text for block in pages.blocks(PAGE) if block.language == language]


def test_what_the_cluster_of_the_file_may_grow_to_is_said():
    """Check with EC2's instance types.

    An m7i.2xlarge and a g6.2xlarge have 8 CPUs; a g6.48xlarge has 192 CPUs and 8 GPUs.
    """
    types = aws()["available_node_types"]
    has = {"m7i.2xlarge": (8, 0), "g6.2xlarge": (8, 1), "g6.48xlarge": (192, 8)}
    count = {name: 1 if name == "head" else one["max_workers"] for name, one in types.items()}
    cpus, gpus = (
        sum(
            count[name] * has[one["node_config"]["InstanceType"]][which]
            for name, one in types.items()
        )
        for which in (0, 1)
    )
    assert f"--max-resources GPU={gpus},CPU={cpus}" in TEXT and f"`GPU={gpus},CPU={cpus}`" in TEXT


def test_iam_takes_the_policies(monkeypatch):
    """Check with moto, which parses policies and refuses invalid ones."""
    mock_aws, boto3 = pytest.importorskip("moto").mock_aws, pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    worker, head, trust = blocks("json")
    with mock_aws():
        iam = boto3.client("iam", region_name="us-west-2")
        for name, policies in {"chexseg-worker": [worker], "chexseg-head": [worker, head]}.items():
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
            for number, policy in enumerate(policies):
                iam.put_role_policy(RoleName=name, PolicyName=str(number), PolicyDocument=policy)
            with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
                iam.put_role_policy(
                    RoleName=name,
                    PolicyName="broken",
                    PolicyDocument=worker.replace("Effect", "Efect"),
                )
    profiles = {
        one["node_config"]["IamInstanceProfile"]["Name"]
        for one in aws()["available_node_types"].values()
    }
    assert profiles == {"chexseg-worker", "chexseg-head"}
    terminate = next(one for one in json.loads(head)["Statement"] if "Condition" in one)
    assert list(terminate["Condition"]["StringEquals"].values()) == [aws()["cluster_name"]]


def test_the_kubernetes_manifest_names_ray_as_this_package_pins_it():
    import ray

    (text,) = blocks("yaml")
    spec = yaml.safe_load(text)["spec"]
    (dockerfile,) = blocks("dockerfile")
    assert (
        spec["rayVersion"] == ray.__version__ and f"rayproject/ray:{ray.__version__}-" in dockerfile
    )
    assert spec["authOptions"] == {"mode": "token"} and spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    (workers,) = spec["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (workers["minReplicas"], workers["maxReplicas"], limits["nvidia.com/gpu"]) == (0, 8, "1")
    accounts = [
        workers["template"]["spec"]["serviceAccountName"],
        spec["headGroupSpec"]["template"]["spec"]["serviceAccountName"],
    ]
    assert accounts == ["chexseg"] * 2


def test_the_emulated_cluster_is_valid_by_rays_schema():
    """Validate the file as written, because its defaults aren't in Ray's wheel."""
    from ray.autoscaler._private.util import validate_config

    config = yaml.safe_load((ROOT / "docs" / "how-to" / "emulated-cluster.yaml").read_text())
    validate_config(config)
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(config | {"idle_timeout": 1})
