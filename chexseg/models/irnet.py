"""IRNet: a boundary branch and a displacement branch on one encoder (Ahn et al. 2019, figure 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

#: Both outputs have one value a square of so many pixels.
STRIDE = 4

_DEEPEST = 16  # the dilated encoder's stride


def _reduction(in_channels: int, out_channels: int, groups: int) -> nn.Sequential:
    # The group normalisation's shift makes a bias of the convolution idle.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(inplace=True),
    )


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


class BoundaryBranch(nn.Module):
    """Five stages of features -> boundary_Nhw, logits: each reduced to 32 channels, then all read on stride 4."""

    def __init__(self, channels: Iterable[int]):
        super().__init__()
        self.reductions = nn.ModuleList(_reduction(count, 32, groups=4) for count in channels)
        self.head = nn.Conv2d(32 * len(self.reductions), 1, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        reduced = [
            reduction(features) for reduction, features in zip(self.reductions, stages, strict=True)
        ]
        return self.head(
            torch.cat([_resized(features, like=stages[0]) for features in reduced], dim=1)
        )[:, 0]


class DisplacementBranch(nn.Module):
    """Five stages of features -> displacement_N2hw (y, x), by a top-down path.

    The three deepest stages meet on the third one's grid and are reduced together, the result meets the two finest ones
    on stride 4, and 1 x 1 convolutions read the field. Widths as in Ahn et al.: at most 256.
    """

    def __init__(self, channels: Iterable[int]):
        super().__init__()
        widths, groups = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16)
        self.reductions = nn.ModuleList(
            _reduction(count, width, group)
            for count, width, group in zip(channels, widths, groups, strict=True)
        )
        self.deep = _reduction(sum(widths[2:]), 256, groups=16)
        # No bias: a constant displacement is what the network's mean takes out again.
        self.head = nn.Sequential(
            _reduction(sum(widths[:2]) + 256, 256, groups=16), nn.Conv2d(256, 2, 1, bias=False)
        )

    def forward(self, stages: list[Tensor]) -> Tensor:
        reduced = [
            reduction(features) for reduction, features in zip(self.reductions, stages, strict=True)
        ]
        deep = self.deep(
            torch.cat([_resized(features, like=reduced[2]) for features in reduced[2:]], dim=1)
        )
        return self.head(torch.cat([*reduced[:2], _resized(deep, like=reduced[0])], dim=1))


class IRNet(nn.Module):
    """images_N3HW -> boundary logits_Nhw and displacement_N2hw (y, x; unit: pixels of the map), both on stride 4.

    Images of any size: they're padded at the right and the bottom by repeating the border up to a multiple of 16, and
    the outputs are cut to h = ceil(H / 4), w = ceil(W / 4).

    architecture: an encoder of segmentation_models_pytorch, here without weights (load them into `encoder`), dilated to
        stride 16. Raises KeyError for an unknown one, ValueError for one that can't be dilated (a DenseNet).
    freeze_backbone: as in the published design, the encoder is never trained and its batch normalisation keeps its
        statistics, whatever `train()` says; then it also keeps no activations for a backward pass.
    displacement_mean: a buffer, subtracted in eval mode only (Ahn et al. 2019); `calibrate` fills it.
    """

    displacement_mean: Tensor

    def __init__(self, architecture: str = "resnet50", freeze_backbone: bool = True):
        super().__init__()
        self.freeze_backbone = freeze_backbone
        self.encoder = get_encoder(architecture, in_channels=3, depth=5, weights=None)
        self.encoder.make_dilated(_DEEPEST)
        channels = self.encoder.out_channels[1:]
        self.boundary_branch = BoundaryBranch(channels)
        self.displacement_branch = DisplacementBranch(channels)
        self.register_buffer("displacement_mean", torch.zeros(2))
        self.encoder.requires_grad_(not freeze_backbone)
        self.train()

    def train(self, mode: bool = True) -> IRNet:
        super().train(mode)
        if self.freeze_backbone:
            self.encoder.eval()
        return self

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images_N3HW.shape[-2:]
        padded_N3HW = F.pad(
            images_N3HW, (0, -width % _DEEPEST, 0, -height % _DEEPEST), mode="replicate"
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            stages = self.encoder(padded_N3HW)[1:]
        # The published design's first stage includes the stem's max pooling, which this encoder's does not.
        stages = [F.max_pool2d(stages[0], kernel_size=3, stride=2, padding=1), *stages[1:]]
        h, w = -(-height // STRIDE), -(-width // STRIDE)
        boundary_Nhw = self.boundary_branch(stages)[:, :h, :w]
        displacement_N2hw = self.displacement_branch(stages)[:, :, :h, :w]
        if not self.training:
            displacement_N2hw = displacement_N2hw - self.displacement_mean[:, None, None]
        return boundary_Nhw, displacement_N2hw

    @torch.no_grad()
    def predict(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """boundary_Nhw in [0, 1] and displacement_N2hw (y, x; pixels of the map), both float32.

        The boundary is the sigmoid of the logits' mean over the image and its mirror image, the displacement is the
        image's own. For inference: call `eval()` first, which also takes the displacement's mean out.
        """
        logits_Nhw, displacement_N2hw = self(images_N3HW)
        mirrored_Nhw, _ = self(images_N3HW.flip(-1))
        return (
            (logits_Nhw.float() + mirrored_Nhw.float().flip(-1)) / 2
        ).sigmoid(), displacement_N2hw.float()

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set `displacement_mean` to the mean displacement over all pixels of the batches of images_N3HW.

        The losses only see differences of the field, so a constant in it is free; this takes it out (Ahn et al. 2019).
        Call after training, with the training images. Raises ValueError where there's no batch.
        """
        training = self.training
        self.eval()
        self.displacement_mean.zero_()
        total_2, count = (
            torch.zeros(2, dtype=torch.float64, device=self.displacement_mean.device),
            0,
        )
        for images_N3HW in batches:
            _, displacement_N2hw = self(images_N3HW)
            total_2 += displacement_N2hw.double().sum((0, 2, 3))
            count += displacement_N2hw[:, 0].numel()
        self.train(training)
        if count == 0:
            raise ValueError("calibrate: no images")
        self.displacement_mean.copy_(total_2 / count)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Groups for the optimiser: the displacement branch at ten times the rate, a frozen encoder left out."""
        groups = [
            {"params": list(self.boundary_branch.parameters()), "lr": learning_rate},
            {"params": list(self.displacement_branch.parameters()), "lr": 10 * learning_rate},
        ]
        if not self.freeze_backbone:
            groups.append({"params": list(self.encoder.parameters()), "lr": learning_rate})
        return groups
