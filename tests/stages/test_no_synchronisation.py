"""No training step of a stage makes the host wait for a GPU, so that a CUDA graph can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chexseg.stages import classify, fit, irnet, moco
from chexseg.stages.configs import ClassifyConfig, FitConfig, IRNetConfig, MoCoConfig, StageConfig
from chexseg.stages.training.loop import Loop

from ..synchronisation import SynchronisationError, check_step
from .conftest import CONTEXT, EXPERT

SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 4}
IRNET: dict[str, Any] = {**SMALL, "architecture": "resnet18", "images": 8, "radius": 4}


class Checked(Exception):
    """The stage got as far as its first step."""


def check_first_step(loop: Loop, batches: Iterator[dict[str, Tensor]], **_: Any) -> Iterator[int]:
    """Stand in for `Loop.run`: check the first step on fake tensors."""
    batch = next(batches)
    afters = []

    def loss_of(model: torch.nn.Module) -> Tensor:
        given = {
            name: torch.empty(values.shape, dtype=values.dtype)
            for name, values in batch.items()
            if name != "rows"
        }
        loss, figures, after = loop.losses(given)
        torch.stack([loss.detach(), *(value.detach() for value in figures.values())])
        afters.append(after)
        return loss

    def follow(model: torch.nn.Module) -> None:
        if afters[-1] is not None:
            afters[-1]()

    check_step(lambda: loop.model, loss_of, follow)
    raise Checked
    yield


@pytest.mark.parametrize(
    ("stage", "config"),
    [
        (classify, ClassifyConfig(architecture="densenet121", **SMALL)),
        (classify, ClassifyConfig(architecture="resnet18", precision="bfloat16", **SMALL)),
        (moco, MoCoConfig(queue=8, **SMALL)),
        (irnet, IRNetConfig(**IRNET, smallest_scale=0.5, largest_scale=1.5)),
        (irnet, IRNetConfig(**IRNET, losses="published", crf=True)),
        (fit, FitConfig(**EXPERT, **SMALL, init="random", flips=True)),
        (fit, FitConfig(**EXPERT, **SMALL, init="random", p=0.5, weak="cam", weak_images=8)),
    ],
    ids=["densenet121", "bfloat16", "moco", "irnet", "published irnet", "expert", "mixed"],
)
def test_a_step_waits_for_nothing_and_copies_nothing(
    results, tmp_path, monkeypatch, stage: Any, config: StageConfig
):
    monkeypatch.setattr(Loop, "run", check_first_step)
    with pytest.raises(Checked):
        stage.train(config, inputs(results), tmp_path, CONTEXT)


def test_a_step_that_reads_its_loss_is_found(results, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "run", check_first_step)
    of_masks = fit.loss_on

    def reading(*arguments: Any) -> Tensor:
        loss = of_masks(*arguments)
        loss.item()
        return loss

    monkeypatch.setattr(fit, "loss_on", reading)
    config = FitConfig(**EXPERT, **SMALL, init="random")
    with pytest.raises(SynchronisationError, match="waits for the device"):
        fit.train(config, inputs(results), tmp_path, CONTEXT)


def inputs(results: Any) -> dict[str, Path]:
    names = ("train", "valid", "saliency")
    return {name: results.paths[name] for name in names} | {"weak": results.paths["saliency"]}
