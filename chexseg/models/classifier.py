"""Classifiers of CheXpert's observations: a convolutional body, global pooling, a linear layer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.pathologies import OBSERVATIONS

NO_PRE_ACTIVATION = "the classifier has no feature map before its last ReLU; expected: densenet121"


class Classifier(nn.Module):
    """Computes logits_NL = linear(mean over pixels of feature_map(images)).

    With this form Grad-CAM needs no backward pass (saliency.gradcam).
    """

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body = body
        self.head = nn.Linear(channels, len(OBSERVATIONS))

    def feature_map(self, images_NCHW: Tensor) -> Tensor:
        """Return the last feature map after its ReLU, (N, C, H / 32, W / 32)."""
        features: Tensor | list[Tensor] = self.body(images_NCHW)
        return features[-1] if isinstance(features, list) else torch.relu(features)

    def pre_activation(self, images_NCHW: Tensor) -> Tensor:
        """Return the last feature map before its ReLU, (N, C, H / 32, W / 32).

        Raises `UserError` for an encoder of segmentation-models-pytorch, which returns only the
        output of its last ReLU.
        """
        features: Tensor | list[Tensor] = self.body(images_NCHW)
        if isinstance(features, list):
            raise UserError(NO_PRE_ACTIVATION)
        return features

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.feature_map(images_NCHW).mean(dim=(2, 3))))


def build(architecture: str) -> Classifier:
    """Return a classifier with random weights. Raises `UserError` for an unknown architecture.

    architecture: ``densenet121`` (torchvision's) or any encoder of segmentation-models-pytorch.
    """
    if architecture == "densenet121":
        from torchvision.models import densenet121

        return Classifier(densenet121(weights=None).features, 1024)
    encoders.check(architecture, "classify.architecture")
    body = encoders.build(architecture)
    return Classifier(body, body.out_channels[-1])
