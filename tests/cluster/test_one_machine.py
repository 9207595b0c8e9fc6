"""docs/cluster.md's walk on one machine, command by command: a cluster that grows, a job stopped half-way and continued.

Replaced are the study (two small cells for the demo's fifteen), the store (S3 for a directory), Ray's ports and directory, and
`ray stop`, which here ends only this Ray (tests/cluster/standins.py). The environment is the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
import yaml

from tests.cluster.standins import ROOT, Machine, processes, wait_until

pytest.importorskip("aiohttp_cors", reason="needs ray[default], of the extra cluster")
pytestmark = pytest.mark.cluster

STUDY = """
name: walk
axes: {trial: [0, 1, 2]}
settings:
  size: 64
  encoder: {init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 4, samples_per_epoch: 48}
"""
SECRET = "not-to-be-seen-anywhere"


class Walk:
    """The section's commands, to be typed in their order."""

    def __init__(self, machine: Machine, replaced: dict[str, str]):
        section = (ROOT / "docs" / "cluster.md").read_text().partition("## On one machine")[2]
        self.left = re.search(r"```\n(.*?)```", section, flags=re.S)[1].splitlines()
        self.machine, self.replaced = machine, replaced

    def next(self, begins: str) -> str:
        command = self.left.pop(0)
        assert command.startswith(begins), f"the document goes on with {command!r}"
        for text, other in self.replaced.items():
            command = command.replace(text, other)
        return command

    def type(self, begins: str, code: int = 0) -> str:
        done = self.machine.run(self.next(begins))
        assert done.returncode == code, done.stdout
        return done.stdout

    def export(self) -> None:
        for word in self.next("export ").split()[1:]:
            name, _, value = word.partition("=")
            self.machine.environment[name] = value

    def watch(self, begins: str) -> subprocess.Popen[str]:
        """A command that goes on; read it by `communicate`."""
        return subprocess.Popen(
            ["bash", "-c", self.next(begins)],
            env=self.machine.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_a_new_users_walk_ends_with_a_finished_study(machine, s3, phantom_root):
    from ray._private.services import get_node_ip_address

    study, emulated = machine.home / "walk.yaml", machine.home / "emulated-cluster.yaml"
    study.write_text(STUDY)
    config = yaml.safe_load((ROOT / "docs" / "emulated-cluster.yaml").read_text())
    config["provider"]["gcs_address"] = f"{get_node_ip_address()}:{machine.port}"
    emulated.write_text(yaml.safe_dump(config))
    place = s3("walk").replace("any:secret@", "")
    # Credentials as a cluster's nodes have them: of the machine, in no command.
    machine.environment |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": SECRET}
    walk = Walk(
        machine,
        {
            "docs/emulated-cluster.yaml": str(emulated),
            "studies/demo.yaml": str(study),
            "~/store": f"'{place}'",
            ":8265": f":{machine.dashboard}",
            "--train 320 --valid 80 --test 48 --size 128": "--train 48 --valid 24 --test 16 --size 64",
        },
    )
    walk.next("python3 -m venv")
    walk.next("pip install")
    walk.type("ray get-auth-token")
    walk.export()
    walk.type("RAY_FAKE_CLUSTER=1 ray start")
    walk.type("chexseg data phantom")

    walk.type("ray job submit")
    followed = walk.watch("ray job logs")
    assert wait_until(lambda: "2 worker" in machine.run("ray status").stdout, 240), "the cluster never grew"
    walk.type("ray status")
    status = f"chexseg study status {study} --data ~/phantom --store '{place}' --json"
    assert wait_until(lambda: _done(machine, status) >= 1, 240, pause=0.1)
    walk.type("ray job stop")
    said = followed.communicate(timeout=60)[0]
    assert "3 cells; " in said, said
    done = _done(machine, status)
    assert 1 <= done < 3, f"{done} of 3 cells were finished when the job was stopped"

    walk.type("ray job submit")
    said = walk.watch("ray job logs").communicate(timeout=400)[0]
    computed, found = map(int, re.search(r"(\d+) stages computed .*, (\d+) found", said).groups())
    assert found >= 5 and computed + found == 9, said  # three ingests, then a fit and its score of each cell
    assert "SUCCEEDED" in walk.type("ray job status")
    assert "3 of 3" in walk.type("chexseg study status")
    assert wait_until(lambda: "worker" not in machine.run("ray status").stdout.partition("Pending")[0], 120), "it never shrank"

    token = (machine.home / ".ray" / "auth_token").read_bytes()
    for path in machine.temporary.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert token not in text and SECRET.encode() not in text, path
    mine = processes(str(machine.temporary))
    walk.type("ray stop")
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{one}") for one in mine), 60)
    assert walk.left == []


def _done(machine: Machine, status: str) -> int:
    asked = machine.run(status)
    document = json.loads(asked.stdout[asked.stdout.index("{") :])
    return sum(cell["state"] == "done" for cell in document["cells"])
