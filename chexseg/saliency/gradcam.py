"""Grad-CAM and Grad-CAM++ of all pathologies of a batch, in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def closed_form(features_NCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Return the Grad-CAM maps_NKHW >= 0 without a backward pass (paper, equations 1 and 2).

    For a network that ends in ReLU, global average pooling and a linear layer. `features_NCHW` is
    the output A of that ReLU, `weight_KC` the linear layer's rows of the K pathologies. The score
    is y_k = b_k + sum_c weight_kc * mean_ij(A_cij). So every dy_k / dA_cij is weight_kc / (H W),
    and so is their mean (1).
    """
    features_NCHW, weight_KC = _at_least_float32(features_NCHW), _at_least_float32(weight_KC)
    height, width = features_NCHW.shape[-2:]
    maps_NKP = (weight_KC / (height * width)) @ features_NCHW.flatten(2)
    return torch.unflatten(maps_NKP.relu(), 2, (height, width))


def before_relu(features_NCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Return the Grad-CAM maps_NKHW >= 0 at the layer before the last ReLU (published code).

    For the networks of `closed_form`, but `features_NCHW` is the input A of that ReLU, which has
    negative values. y_k = b_k + sum_c weight_kc * mean_ij(ReLU(A_cij)), so dy_k / dA_cij is
    weight_kc / (H W) where A_cij > 0 and 0 elsewhere. The mean (1) is weight_kc / (H W) times the
    share of the channel's pixels that are positive. Negative values of A count in the sum (2).
    """
    features_NCHW, weight_KC = _at_least_float32(features_NCHW), _at_least_float32(weight_KC)
    height, width = features_NCHW.shape[-2:]
    share_NC = (features_NCHW > 0).to(features_NCHW.dtype).mean((2, 3))
    alpha_NKC = weight_KC / (height * width) * share_NC[:, None]
    return torch.unflatten((alpha_NKC @ features_NCHW.flatten(2)).relu(), 2, (height, width))


def grad_cam_plus_plus(features_NCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Return the Grad-CAM++ maps_NKHW >= 0 in closed form (Chattopadhyay et al. 2018).

    For the networks of `closed_form`. The class score is Y = exp(y) of the linear layer's output y.
    y is linear in A, with the gradient g_kc = weight_kc / (H W) at every pixel. So the first three
    derivatives of Y by A_cij are Y g, Y g^2 and Y g^3. The weight of a pixel is
    Y g^2 / (2 Y g^2 + sum_ab(A_cab) Y g^3) = 1 / (2 + weight_kc mean(A_c)), the same at all pixels.
    The weight of a channel, the sum over pixels of that times ReLU(Y g), is

        exp(y_k) ReLU(weight_kc) / (2 + weight_kc mean(A_c)).

    exp(y_k) scales a whole map and cancels in `normalise`, so the bias of the linear layer is left
    out of y_k. The factor is limited to exp(80), because float32 overflows above exp(88).
    """
    features_NCHW, weight_KC = _at_least_float32(features_NCHW), _at_least_float32(weight_KC)
    pooled_NC = features_NCHW.mean((2, 3))
    scores_NK = pooled_NC @ weight_KC.T
    # Features and the weights that count are >= 0, so the denominator is at least 2.
    positive_KC = weight_KC.relu()
    alpha_NKC = positive_KC / (2 + positive_KC * pooled_NC[:, None])
    maps_NKP = (alpha_NKC @ features_NCHW.flatten(2)) * scores_NK.clamp(max=80).exp()[..., None]
    return torch.unflatten(maps_NKP.relu(), 2, features_NCHW.shape[-2:])


#: Kind of weak label -> function of (features_NCHW, weight_KC) that returns its maps_NKHW.
METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cam": closed_form,
    "cam++": grad_cam_plus_plus,
}


def probability_gradient(logits: Tensor) -> Tensor:
    """Return p (1 - p), the derivative of the probability p = sigmoid(logit) by the logit.

    A Grad-CAM map whose target is the probability is that of the logit times this factor.
    """
    probabilities = _at_least_float32(logits).sigmoid()
    return probabilities * (1 - probabilities)


def normalise(maps_NKHW: Tensor) -> Tensor:
    """Return each map of values >= 0 divided by its maximum; a map of zeros is unchanged."""
    maximum_NK11 = maps_NKHW.amax((-2, -1), keepdim=True)
    return maps_NKHW / torch.where(maximum_NK11 > 0, maximum_NK11, 1)


def _at_least_float32(values: Tensor) -> Tensor:
    # exp(score) and sums over pixels exceed float16's range.
    return values.to(torch.promote_types(values.dtype, torch.float32))
