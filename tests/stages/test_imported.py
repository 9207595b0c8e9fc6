"""What trains from an imported encoder really starts there, and reads pixels as that encoder expects them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from chexseg.models import encoders
from chexseg.run import encoder_import
from chexseg.stages import fit, irnet
from chexseg.stages.artifacts import ENCODER_WEIGHTS, IRNET_WEIGHTS, SEGMENTER_WEIGHTS
from chexseg.stages.configs import FitConfig, IRNetConfig
from chexseg.store.store import Store

from .conftest import CONTEXT, EXPERT


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """The directory of an imported ResNet18."""
    root = tmp_path_factory.mktemp("imported")
    torch.manual_seed(5)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), root / "file.pt")
    return encoder_import.import_encoder(
        root / "file.pt", "imagenet", "resnet18", Store(root / "store")
    ).artifact.path


@pytest.fixture
def seen(monkeypatch) -> set[str]:
    """The initialisations whose normalisation pixels got."""
    names: set[str] = set()
    normalisation = encoders.normalisation
    monkeypatch.setattr(
        encoders, "normalisation", lambda init: names.add(init) or normalisation(init)
    )
    return names


def distances(directory: Path, weights: str, encoder: Path) -> dict[str, float]:
    """Parameter or statistic of the encoder -> how far training has moved it from what was imported."""
    trained, start = load_file(directory / weights), load_file(encoder / ENCODER_WEIGHTS)
    assert {name for name in trained if name.startswith("encoder.")} == {
        f"encoder.{name}" for name in start
    }
    return {
        name: float((trained[f"encoder.{name}"] - value).abs().max())
        for name, value in start.items()
    }


@pytest.mark.parametrize("init", ["imagenet", "moco", "chexpert"])
def test_a_fit_starts_from_the_imported_weights(init, results, encoder, seen, tmp_path):
    config = FitConfig(**EXPERT, init=init, epochs=1, samples_per_epoch=8, learning_rate=1e-6)
    facts = fit.run(
        config, {"valid": results.paths["valid"], "encoder": encoder}, tmp_path, CONTEXT
    )
    assert facts["samples"] == 8
    moved = distances(tmp_path, SEGMENTER_WEIGHTS, encoder)
    # One step of Adam moves a weight by the learning rate at most.
    assert 0 < moved["conv1.weight"] <= 1.1e-6
    assert 0 < moved["layer4.1.conv2.weight"] <= 1.1e-6
    assert seen == {init}
    (tmp_path / "random").mkdir()
    random = config.model_copy(update={"init": "random"})
    fit.run(random, {"valid": results.paths["valid"]}, tmp_path / "random", CONTEXT)
    assert distances(tmp_path / "random", SEGMENTER_WEIGHTS, encoder)["conv1.weight"] > 0.01


IRNET = {
    "architecture": "resnet18",
    "init": "imagenet",
    "epochs": 1,
    "images": 16,
    "radius": 4,
    "batch_size": 8,
}


def test_a_frozen_irnet_keeps_the_imported_backbone_to_the_bit(results, encoder, seen, tmp_path):
    config = IRNetConfig(**IRNET, freeze_backbone=True)
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")} | {
        "encoder": encoder
    }
    facts = irnet.run(config, inputs, tmp_path, CONTEXT)
    assert facts["steps"] == 2
    assert set(distances(tmp_path, IRNET_WEIGHTS, encoder).values()) == {0.0}
    assert seen == {"imagenet"}
    # The branches have been trained: another learning rate gives other ones.
    (tmp_path / "slow").mkdir()
    irnet.train(
        config.model_copy(update={"learning_rate": 1e-6}), inputs, tmp_path / "slow", CONTEXT
    )
    quick, slow = (
        load_file(path / IRNET_WEIGHTS)["boundary_branch.head.weight"]
        for path in (tmp_path, tmp_path / "slow")
    )
    assert not torch.equal(quick, slow)


def test_a_backbone_that_is_not_frozen_starts_there_and_moves(results, encoder, tmp_path):
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")} | {
        "encoder": encoder
    }
    config = IRNetConfig(**IRNET, freeze_backbone=False, learning_rate=1e-5)
    irnet.train(config, inputs, tmp_path, CONTEXT)
    moved = distances(tmp_path, IRNET_WEIGHTS, encoder)
    assert 0 < moved["conv1.weight"] < 1e-3
    assert moved["bn1.num_batches_tracked"] == 2
