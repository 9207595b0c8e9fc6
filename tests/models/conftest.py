"""Fixtures of the networks' tests."""

from __future__ import annotations

import pytest
import torch
import torchvision


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(torchvision.models.resnet18(weights=None).state_dict())
