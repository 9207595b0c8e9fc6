"""Provide a tiny random segmenter of three pathologies with non-empty masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chexseg.models import encoders, segmenter
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS

NAMES = ("Cardiomegaly", "Lung Lesion", "Support Devices")
SIZE = 64


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Return the directory of a random segmenter whose masks are neither empty nor full."""
    torch.manual_seed(3)
    network = segmenter.build("resnet18", len(NAMES))
    network.segmentation_head[
        0
    ].weight.data *= 30  # otherwise a random network's logits hardly differ from 0
    out = tmp_path_factory.mktemp("fit")
    metadata = {
        "architecture": "resnet18",
        "init": "random",
        "size": SIZE,
        "pathologies": NAMES,
        "thresholds": [0.5, 0.45, 0.5],
    }
    encoders.save(network, out / SEGMENTER_WEIGHTS, **metadata)
    return out
