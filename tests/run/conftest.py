"""Share checkpoints of encoders as they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision


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
