"""Test a store on S3 with two hosts that don't share files: each stage stays on one host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.plan import planner, status
from chexseg.store.store import Store
from tests.cluster.emulated import Nodes
from tests.cluster.standins import ROOT, wait_until

pytestmark = pytest.mark.slow

STUDY = """
name: hosts
axes: {trial: [0, 1]}
settings:
  size: 32
  # small, because moto's time grows with the square of a file's size
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 0.5, weak: cam, weak_images: 8, expert_split: {train: 8, select: 4}}
  classify: {architecture: mobilenet_v2, epochs: 1}
  saliency: {images: 24}
  fit: {epochs: 2, samples_per_epoch: 16}
resources: {cpu: 2}
"""
APART = ["unshare", "--map-root-user", "--mount"]


@pytest.fixture
def cluster():
    """Start a head with two CPUs, and a host with three and a separate, empty copies directory."""
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    nodes = Nodes(2)
    cache = Path(os.environ["CHEXSEG_CACHE"])
    start = (
        f"ray.scripts.scripts start --address={nodes.address} --num-cpus=3 "
        "--object-store-memory=100000000 --block"
    )
    ports = "--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0"
    command = f"mount -t tmpfs none {cache} && exec {sys.executable} -m {start} {ports}"
    host = subprocess.Popen(
        [*APART, "bash", "-c", command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert (
            wait_until(lambda: nodes.count() == 2 or host.poll() is not None, 120)
            and host.poll() is None
        )
        yield nodes
    finally:
        host.send_signal(signal.SIGTERM)
        host.wait(60)
        nodes.close()


def test_each_host_works_on_files_of_its_own(cluster, s3, phantom_root, tmp_path):
    place = s3("two-hosts")
    run(cluster, STUDY, tmp_path / "hosts.yaml", phantom_root, place)
    copies = {
        path.parent.name for path in Store(place).backend.cache.glob("artifacts/*/*")
    }  # other tests keep theirs in this directory
    assert "fit" in copies, "no cell ran on the head"
    assert "classify" not in copies, "upstream stages run on the largest node"

    # The stage must find what either of the two workers writes.
    shared = (
        STUDY.replace("[0, 1]", "[0]")
        .replace("p: 0.5", "p: 1")
        .replace("cpu: 2", "cpu: 1, workers: 2")
    )
    run(cluster, shared, tmp_path / "shared.yaml", phantom_root, place)


def run(cluster: Nodes, text: str, study: Path, data: Path, place: str) -> None:
    study.write_text(text)
    planned = planner.plan(study_file.load(study), planner.fingerprints(data))
    driver = cluster.study(study, "--data", data, "--store", place)
    output, _ = driver.communicate(timeout=500)
    assert driver.returncode == 0, output
    assert status.summarise(planned, Store(place)).complete
