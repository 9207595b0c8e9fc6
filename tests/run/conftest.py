"""Share checkpoints of encoders as they are published, and a small study with its data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.store.store import Store
from tests.run.small_study import STUDY


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Return checkpoints as they are published, with random weights, each from another seed."""
    root, out = tmp_path_factory.mktemp("files"), {}
    for seed, (name, architecture, prefix) in enumerate(
        [
            ("imagenet", "resnet18", ""),
            ("other", "resnet18", ""),
            ("moco-cxr", "resnet18", "module.encoder_q."),
            ("chexpert", "resnet18", "model.model."),
            ("resnet50", "resnet50", ""),
        ]
    ):
        torch.manual_seed(seed)
        state = getattr(torchvision.models, architecture)(weights=None).state_dict()
        out[name] = root / f"{name}.pt"
        torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, out[name])
    return out


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    shutil.copytree(phantom_root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def planned(root) -> Plan:
    return planner.plan(study_file.parse(STUDY, "small.yaml"), planner.fingerprints(root))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")
