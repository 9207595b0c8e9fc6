"""No step of a training makes the host wait for the device, or copies between the two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chexseg.models import (
    classifier,
    encoders,
    irnet,
    irnet_losses,
    losses,
    moco,
    segmenter,
)
from chexseg.saliency.thresholds import TargetHistogram
from tests.synchronisation import check_step

IMAGES, SIZE, PATHOLOGIES = 2, 64, 14


def pictures(init: str = "random") -> Tensor:
    return encoders.prepare(torch.empty(IMAGES, SIZE, SIZE, dtype=torch.uint8), init)


def per_pixel(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(IMAGES, PATHOLOGIES, SIZE, SIZE, dtype=dtype)


@pytest.mark.parametrize(
    ("architecture", "init"), [("densenet121", "chexpert"), ("resnet18", "imagenet")]
)
def test_of_a_classifier(architecture, init):
    check_step(
        lambda: classifier.build(architecture),
        lambda model: losses.classification(model(pictures(init)), torch.empty(IMAGES, 14)),
    )


@pytest.mark.parametrize("loss", [*losses.SEGMENTATION, "distillation"])
def test_of_a_segmenter(loss):
    function = losses.SEGMENTATION.get(loss, losses.distillation)
    targets = torch.float32 if loss == "distillation" else torch.bool
    check_step(
        lambda: segmenter.build("resnet18", PATHOLOGIES),
        lambda model: function(model(pictures()), per_pixel(targets)),
    )


def test_of_a_histogram_of_targets():
    check_step(
        lambda: nn.Linear(1, 1),
        lambda model: model(torch.empty(1)).sum(),
        lambda model: TargetHistogram.empty(PATHOLOGIES).add_(per_pixel(), per_pixel()),
    )


def test_of_moco():
    def build() -> moco.MoCo:
        return moco.MoCo(moco.build("resnet18"), queue=5)

    def forward(model: moco.MoCo) -> Tensor:
        queries_ND, model.latest_ND = model(pictures("moco"), pictures("moco"))
        logits = model.logits(queries_ND, model.latest_ND)
        moco.accuracy(logits.detach())
        return moco.info_nce(logits)

    check_step(build, forward, lambda model: model.update(model.latest_ND))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("loss", [irnet_losses.pair_losses, irnet_losses.published_losses])
def test_of_irnet(loss, frozen):
    def forward(model: irnet.IRNet) -> Tensor:
        boundary_Nhw, displacement_N2hw = model(pictures())
        seeds_NKhw = irnet_losses.seeds(
            torch.empty(IMAGES, PATHOLOGIES, *boundary_Nhw.shape[1:]),
            torch.empty(IMAGES, PATHOLOGIES, dtype=torch.bool),
        )
        return loss(boundary_Nhw, displacement_N2hw, seeds_NKhw, radius=4)["total"]

    check_step(lambda: irnet.IRNet("resnet18", freeze_backbone=frozen), forward)
