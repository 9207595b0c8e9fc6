"""Test that a manifest names the hardware of a stage run, and that it is in no key."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chexseg import code_version
from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.run.execute import execute
from chexseg.stages import artifacts
from chexseg.stages.training import ray_train
from chexseg.store import provenance
from chexseg.store.store import Store
from tests.run.small_study import CONTEXT, STUDY, node_of


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A")
    return replace(CONTEXT, device="cuda")


@pytest.fixture
def manifest_of(phantom_root, tmp_path, monkeypatch):
    """Return a function: the manifest of a stage that writes what `train` does."""
    planned = planner.plan(
        study_file.parse(STUDY, "small.yaml"), planner.fingerprints(phantom_root)
    )
    node = node_of(planned, "ingest", "test")

    def run(context, train):
        def of_stage(config, paths, out, context):
            train(out, context)
            return {"data": node.data}

        monkeypatch.setattr("chexseg.stages.ingest.run", of_stage)
        artifact, _ = execute(node, planned.nodes, Store(tmp_path), phantom_root, context)
        return artifact.manifest

    return run


def nothing(out, context) -> None: ...


def test_a_run_on_a_cpu_names_the_cpu(manifest_of):
    manifest = manifest_of(CONTEXT, nothing)
    assert manifest["cpu"] == provenance._cpu() != "" and "gpu" not in manifest


def test_a_run_on_a_gpu_names_it_too(manifest_of, gpu):
    assert manifest_of(gpu, nothing)["gpu"] == "NVIDIA A"


def test_the_gpus_of_several_workers_are_named_by_one_of_them(manifest_of, gpu, monkeypatch):
    """The stage's own process reserves no GPU, so it sees none."""

    def train(out, context):
        answer = str(out / "answer.writing")
        ray_train._run_worker(lambda context: {}, answer, context, code_version.running())
        (out / "answer.writing").unlink()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    manifest = manifest_of(replace(gpu, train_workers=2), train)
    assert manifest["gpu"] == "2 x NVIDIA A" and artifacts.GPU not in manifest["files"]


def test_a_damaged_note_of_the_gpu_fails_no_stage(manifest_of):
    def train(out, context):
        (out / artifacts.GPU).write_bytes(b"NVIDIA \xff\x1b[2J" + bytes(2000))

    assert manifest_of(CONTEXT, train)["gpu"].startswith("NVIDIA \ufffd??")


def test_a_cpu_without_a_name_is_its_instruction_set(monkeypatch):
    monkeypatch.setattr(provenance.Path, "read_text", lambda self, **options: "processor : 0\n")
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "aarch64")
    assert provenance._cpu.__wrapped__() == "aarch64"
