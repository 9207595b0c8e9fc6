"""IRNet: boundary and displacement branches on a shared encoder (Ahn et al. 2019, figure 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

#: Stride in pixels of both outputs.
STRIDE = 4

_DEEPEST = 16  # stride of the dilated encoder


def _reduction(in_channels: int, out_channels: int, groups: int) -> nn.Sequential:
    # The group normalisation's shift makes a bias in the convolution redundant.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(inplace=True),
    )


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


class BoundaryBranch(nn.Module):
    """Computes boundary_Nhw (logits) from five stages of features.

    Each stage is reduced to 32 channels and resized to stride 4; a 1 x 1 convolution reads them.
    """

    def __init__(self, channels: Iterable[int]):
        super().__init__()
        self.reductions = nn.ModuleList(_reduction(count, 32, groups=4) for count in channels)
        self.head = nn.Conv2d(32 * len(self.reductions), 1, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        reduced = [
            _resized(reduction(features), like=stages[0])
            for reduction, features in zip(self.reductions, stages, strict=True)
        ]
        return cast(Tensor, self.head(torch.cat(reduced, dim=1)))[:, 0]


class DisplacementBranch(nn.Module):
    """Computes displacement_N2hw (y, x) from five stages of features, by a top-down path.

    The three deepest stages are resized to the third one's grid and reduced together. The result is
    joined with the two finest stages at stride 4, and 1 x 1 convolutions read the field. Widths are
    at most 256, as in Ahn et al.
    """

    def __init__(self, channels: Iterable[int]):
        super().__init__()
        widths, groups = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16)
        self.reductions = nn.ModuleList(
            _reduction(count, width, group)
            for count, width, group in zip(channels, widths, groups, strict=True)
        )
        self.deep = _reduction(sum(widths[2:]), 256, groups=16)
        # No bias: the mean displacement, and with it any constant, is subtracted again.
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
        joined = torch.cat([*reduced[:2], _resized(deep, like=reduced[0])], dim=1)
        return cast(Tensor, self.head(joined))


class IRNet(nn.Module):
    """Computes boundary logits_Nhw and displacement_N2hw from images_N3HW, both at stride 4.

    The displacement is (y, x) in pixels of the map. Images may have any size: they are padded at
    the right and bottom to a multiple of 16 by repeating the border, and the outputs are cut to
    h = ceil(H / 4), w = ceil(W / 4).

    architecture: an encoder of segmentation-models-pytorch, dilated to stride 16. Its weights are
        random; load others into `encoder`. Raises KeyError for an unknown one, ValueError for one
        that can't be dilated (a DenseNet).
    freeze_backbone: as in the published design, never train the encoder, and keep the statistics of
        its batch normalisation in train mode too. It then stores no activations.
    displacement_mean: a buffer, subtracted in eval mode only (Ahn et al. 2019); set by `calibrate`.
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
        # The first stage of the published design includes the stem's max pooling; ours does not.
        stages = [F.max_pool2d(stages[0], kernel_size=3, stride=2, padding=1), *stages[1:]]
        h, w = -(-height // STRIDE), -(-width // STRIDE)
        boundary_Nhw = self.boundary_branch(stages)[:, :h, :w]
        displacement_N2hw = self.displacement_branch(stages)[:, :, :h, :w]
        if not self.training:
            displacement_N2hw = displacement_N2hw - self.displacement_mean[:, None, None]
        return boundary_Nhw, displacement_N2hw

    @torch.no_grad()
    def predict(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boundary_Nhw in [0, 1] and displacement_N2hw (y, x; pixels of the map), float32.

        The boundary is the sigmoid of the mean logits of the image and its mirror image. The
        displacement is computed from the image alone. Call `eval()` first; it also makes `forward`
        subtract the mean displacement.
        """
        logits_Nhw, displacement_N2hw = self(images_N3HW)
        mirrored_Nhw, _ = self(images_N3HW.flip(-1))
        return (
            (logits_Nhw.float() + mirrored_Nhw.float().flip(-1)) / 2
        ).sigmoid(), displacement_N2hw.float()

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set `displacement_mean` to the mean over all pixels of the batches of images_N3HW.

        The losses depend only on differences of the field, so it may contain an arbitrary constant;
        this removes it (Ahn et al. 2019). Call it after training, with the training images. Raises
        ValueError without a batch.
        """
        training = self.training
        self.eval()
        self.displacement_mean.zero_()
        total_2 = torch.zeros(2, dtype=torch.float64, device=self.displacement_mean.device)
        count = 0
        for images_N3HW in batches:
            _, displacement_N2hw = self(images_N3HW)
            total_2 += displacement_N2hw.double().sum((0, 2, 3))
            count += displacement_N2hw[:, 0].numel()
        self.train(training)
        if count == 0:
            raise ValueError("calibrate: no images")
        self.displacement_mean.copy_(total_2 / count)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the optimizer's groups: the displacement branch gets ten times the learning rate.

        A frozen encoder is left out.
        """
        groups = [
            {"params": list(self.boundary_branch.parameters()), "lr": learning_rate},
            {"params": list(self.displacement_branch.parameters()), "lr": 10 * learning_rate},
        ]
        if not self.freeze_backbone:
            groups.append({"params": list(self.encoder.parameters()), "lr": learning_rate})
        return groups
