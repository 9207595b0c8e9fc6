"""Run the walk-through of docs/how-to/run-on-a-cluster.md on one machine, command by command.

The cluster grows, and a job is stopped half-way and resumed. Replaced are the study (four small
cells instead of the demo's sixteen), data and store (S3 instead of directories), Ray's ports and
directory, and `ray stop`, which here ends only this Ray (tests/cluster/standins.py). The
environment is that of the tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request

import psutil
import pytest
import yaml
from pyarrow import fs

from tests import processes
from tests.cluster.standins import ROOT, Machine, wait_until

pytest.importorskip("aiohttp_cors", reason="needs ray[default], of the extra cluster")
pytestmark = pytest.mark.slow

STUDY = """
name: walk
axes: {trial: [0, 1, 2, 3]}
settings:
  size: 32
  # small, because moto's time grows with the square of a file's size
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 6, samples_per_epoch: 48}
"""
SECRET = "not-to-be-seen-anywhere"


class Walk:
    """Hold the section's commands, to be run in order."""

    def __init__(self, machine: Machine, replaced: dict[str, str]):
        page = (ROOT / "docs" / "how-to" / "run-on-a-cluster.md").read_text()
        section = page.partition("## On one machine")[2]
        self.left = re.search(r"```sh\n(.*?)```", section, flags=re.S)[1].splitlines()
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
        """Start a command that keeps running; read it by `communicate`."""
        return subprocess.Popen(
            ["bash", "-c", self.next(begins)],
            env=self.machine.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_a_new_users_walk_ends_with_a_finished_study(machine, s3, uploaded):
    from ray._private.services import get_node_ip_address

    study, emulated = machine.home / "walk.yaml", machine.home / "emulated-cluster.yaml"
    study.write_text(STUDY)
    config = yaml.safe_load((ROOT / "docs" / "how-to" / "emulated-cluster.yaml").read_text())
    config["provider"]["gcs_address"] = f"{get_node_ip_address()}:{machine.port}"
    emulated.write_text(yaml.safe_dump(config))
    data, place = (s3(prefix).replace("any:secret@", "") for prefix in ("walk-data", "walk"))
    # Credentials belong to the machine, as on a cluster's nodes, and are in no command.
    machine.environment |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": SECRET}
    walk = Walk(
        machine,
        {
            "docs/how-to/emulated-cluster.yaml": str(emulated),
            "studies/demo.yaml": str(study),
            "--data ~/phantom": f"--data '{data}'",
            "~/store": f"'{place}'",
            ":8265": f":{machine.dashboard}",
            "--train 320 --valid 80 --test 48 --size 128": (
                "--train 48 --valid 24 --test 16 --size 64"
            ),
        },
    )
    walk.next("python3 -m venv")
    walk.next("pip install")
    walk.type("ray get-auth-token")
    walk.type("chmod 600")
    walk.export()
    walk.type("RAY_FAKE_CLUSTER=1 ray start")
    walk.type("chexseg data phantom")
    uploaded(machine.home / "phantom", "walk-data")

    walk.type("ray job submit")
    followed = walk.watch("ray job logs")
    assert wait_until(lambda: "worker" in active(machine), 600), "the cluster never grew"
    walk.type("ray status")
    for line in followed.stdout:
        if re.search("[1-3] of 4 cells done", line):
            break
    else:
        raise AssertionError("the job ended before it could be stopped")
    walk.type("ray job stop")
    followed.communicate(timeout=300)
    assert "'demo-1' was stopped" in machine.run("ray job status demo-1").stdout

    walk.type("ray job submit")
    output = walk.watch("ray job logs").communicate(timeout=1200)[0]
    computed, cached = map(
        int, re.search(r"(\d+) stages? computed .*?, (\d+) cached", output).groups()
    )
    assert computed and cached >= 4 and computed + cached == 10, (
        output
    )  # two ingests, then a fit and its scores for each cell
    assert "'demo-2' succeeded" in walk.type("ray job status")
    assert "walk: 4 done" in walk.type("chexseg study status")
    assert wait_until(lambda: "worker" not in active(machine), 600), "it never shrank"

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    files, records = fs.FileSystem.from_uri(s3("walk/.runs/walk"))
    records = [
        file for file in files.get_file_info(fs.FileSelector(records)) if file.extension == "json"
    ]
    assert len(records) == 2, "a run that was stopped, and one that ended"
    for record in records:
        metadata = json.loads(files.open_input_stream(record.path).read())
        assert metadata["git"].rstrip("+") == commit, "the checkout is what ran"

    token = (machine.home / ".ray" / "auth_token").read_bytes()
    for path in machine.temporary.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert token not in text and SECRET.encode() not in text, path
    ray_processes = processes.find(str(machine.temporary))
    walk.type("ray stop")
    assert wait_until(lambda: not any(map(psutil.pid_exists, ray_processes)), 60)
    assert walk.left == []


def active(machine: Machine) -> str:
    """Return the nodes that `ray status` lists as active.

    The dashboard has the same text, and needs no new process for it.
    """
    token = (machine.home / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{machine.dashboard}/api/cluster_status?format=1",
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        status = json.loads(answer.read())["data"]["clusterStatus"]
    return status.partition("Pending")[0]
