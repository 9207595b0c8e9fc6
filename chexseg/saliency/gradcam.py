"""Grad-CAM and Grad-CAM++ for all pathologies of a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor


def closed_form(features_NCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Grad-CAM without a backward pass: maps_NKHW >= 0 (paper, equations 1 and 2).

    For a network that ends in ReLU, global average pooling and a linear layer; `features_NCHW` is the map behind that
    ReLU, `weight_KC` the linear layer's rows of the K pathologies. There the score is
    y_k = b_k + sum_c weight_kc * mean_ij(A_cij), so every dy_k / dA_cij is weight_kc / (H W), and so is their mean (1).
    """
    features_NCHW, weight_KC = _at_least_float32(features_NCHW), _at_least_float32(weight_KC)
    height, width = features_NCHW.shape[-2:]
    maps_NKP = (weight_KC / (height * width)) @ features_NCHW.flatten(2)
    return maps_NKP.relu().unflatten(2, (height, width))


def grad_cam(features_NCHW: Tensor, logits_NK: Tensor) -> Tensor:
    """Grad-CAM for any head by autograd: maps_NKHW >= 0 (paper, equations 1 and 2).

    `logits_NK` must be computed from `features_NCHW` under grad, and an image's logits from that image alone (batch
    normalisation in eval mode): then the gradient of a sum over the batch holds each image's own. One backward pass of
    the head a pathology; the graph is kept. Raises RuntimeError where no gradient reaches the features.
    """
    maps = []
    for k in range(logits_NK.shape[1]):
        (gradient_NCHW,) = torch.autograd.grad(
            logits_NK[:, k].sum(), features_NCHW, retain_graph=True
        )
        alpha_NC11 = gradient_NCHW.mean((2, 3), keepdim=True)
        maps.append((alpha_NC11 * features_NCHW.detach()).sum(1).relu())
    return torch.stack(maps, dim=1)


def grad_cam_plus_plus(
    features_NCHW: Tensor, weight_KC: Tensor, bias_K: Tensor | None = None
) -> Tensor:
    """Grad-CAM++ in closed form, for the head of `closed_form`: maps_NKHW >= 0 (Chattopadhyay et al. 2018).

    Their class score is Y = exp(y) of the linear layer's output y, and y is linear in A with the gradient
    g_kc = weight_kc / (H W) at every pixel. So the first three derivatives of Y by A_cij are Y g, Y g^2 and Y g^3,
    their pixel weight is Y g^2 / (2 Y g^2 + sum_ab(A_cab) Y g^3) = 1 / (2 + weight_kc mean(A_c)), the same at all
    pixels, and their channel weight, the sum over pixels of that times ReLU(Y g), is

        exp(y_k) ReLU(weight_kc) / (2 + weight_kc mean(A_c)).

    exp(y_k) scales a whole map; `normalise` takes it out again, so a missing `bias_K` changes no normalised map. It is held
    below exp(80), as float32 ends at exp(88).
    """
    features_NCHW, weight_KC = _at_least_float32(features_NCHW), _at_least_float32(weight_KC)
    pooled_NC = features_NCHW.mean((2, 3))
    scores_NK = pooled_NC @ weight_KC.T
    if bias_K is not None:
        scores_NK = scores_NK + bias_K
    # Features are >= 0 and only positive weights count, so the denominator is never below 2.
    positive_KC = weight_KC.relu()
    alpha_NKC = positive_KC / (2 + positive_KC * pooled_NC[:, None])
    maps_NKP = (alpha_NKC @ features_NCHW.flatten(2)) * scores_NK.clamp(max=80).exp()[..., None]
    return maps_NKP.relu().unflatten(2, features_NCHW.shape[-2:])


#: Kind of weak label -> the function that makes its maps_NKHW of features_NCHW and weight_KC.
METHODS = {"cam": closed_form, "cam++": grad_cam_plus_plus}


def normalise(maps_NKHW: Tensor) -> Tensor:
    """Each map of values >= 0 scaled by its own maximum; a map of zeros stays one."""
    maximum_NK11 = maps_NKHW.amax((-2, -1), keepdim=True)
    return maps_NKHW / torch.where(maximum_NK11 > 0, maximum_NK11, 1)


def _at_least_float32(values: Tensor) -> Tensor:
    # exp(score) and sums over pixels are too much for float16.
    return values.to(torch.promote_types(values.dtype, torch.float32))
