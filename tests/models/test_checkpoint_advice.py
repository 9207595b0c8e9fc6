"""Test what to do with a checkpoint that is refused: the advice works when it is followed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torchvision

from chexseg.errors import UserError
from chexseg.models import checkpoint_import
from tests.models.test_checkpoint_import import under


def test_several_encoders_under_unknown_prefixes_are_refused(tmp_path):
    resnet18 = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(under("student.", resnet18) | under("teacher.", resnet18), tmp_path / "dino.pt")
    with pytest.raises(UserError, match=r"several encoders, under student\., teacher\.; expected"):
        checkpoint_import.encoder(tmp_path / "dino.pt", "resnet18")


def test_counters_alone_do_not_choose_one_of_two_encoders(tmp_path):
    resnet18 = torchvision.models.resnet18(weights=None).state_dict()
    without = {name: value for name, value in resnet18.items() if "num_batches" not in name}
    torch.save(under("student.", without) | under("teacher.", resnet18), tmp_path / "dino.pt")
    with pytest.raises(UserError, match=r"several encoders, under student\., teacher\.; expected"):
        checkpoint_import.encoder(tmp_path / "dino.pt", "resnet18")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("content", ["model", "model in a dictionary", "state dict beside more"])
def test_the_advice_for_a_file_that_is_refused_works(content, legacy, tmp_path, monkeypatch):
    model = torchvision.models.resnet18(weights=None)
    whole = {
        "model": model,
        "model in a dictionary": {"epoch": 3, "net": model},
        "state dict beside more": {
            "args": argparse.Namespace(lr=1),
            "model_state_dict": model.state_dict(),
        },
    }[content]
    path = tmp_path / "model file.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="refused, because reading it requires more") as caught:
        checkpoint_import.encoder(path, "resnet18")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    exec(str(caught.value).partition("save its weights alone: ")[2], {"torch": torch})
    read = checkpoint_import.encoder(Path("weights.pt"), "resnet18")
    assert torch.equal(read.weights["conv1.weight"], model.conv1.weight)
