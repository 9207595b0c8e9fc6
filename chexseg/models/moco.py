"""MoCo v2: an encoder that learns to tell two views of one radiograph from all others, without labels.

He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning"; Chen et al. 2020, "Improved Baselines
with Momentum Contrastive Learning". Letters of shapes: N images, D features of an embedding, Q keys in the queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from chexseg.models import encoders

#: Features of an embedding (He et al. 2020, section 3.3).
DIMENSION = 128


class Embedding(nn.Module):
    """An encoder, global average pooling and MoCo v2's two-layer projection head: images_NCHW -> unit vectors_ND, float32."""

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body = body
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, DIMENSION)
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(images_NCHW)[-1].mean(dim=(2, 3))).float(), dim=1)


def build(architecture: str) -> Embedding:
    """A randomly initialised embedding over an encoder of segmentation-models-pytorch. Raises `UserError` for another name."""
    body = encoders.build(architecture)
    return Embedding(body, body.out_channels[-1])


class MoCo(nn.Module):
    """The query network, its moving average the key network, and the queue of the latest keys. All of it is in the state.

    A step is Algorithm 1 of He et al. 2020: `forward`, `logits`, `info_nce`, the optimiser on `query`, then `update`.
    `calibrate` comes once, before the first.

    Keys must not be normalised with the statistics of the batch that their queries are in: these would give the positive
    away. MoCo shuffles its batch among GPUs for that. On one device a shuffled batch has the same statistics, and of
    MoCo-CXR's 16 images no sub-batch is left that is large enough to have good ones. So the key network averages the
    query network's statistics as it averages its weights, and normalises with these (Cai et al. 2021, "Exponential Moving
    Average Normalization for Self-supervised and Semi-supervised Learning"): nothing of the batch can leak.
    """

    queue_QD: Tensor
    pointer: Tensor

    def __init__(
        self, query: Embedding, queue: int, momentum: float = 0.999, temperature: float = 0.2
    ):
        """queue: keys kept. momentum: of the key network. temperature: of `logits`."""
        super().__init__()
        self.temperature = temperature
        self.query = query
        self.key = AveragedModel(
            query, multi_avg_fn=get_ema_multi_avg_fn(momentum), use_buffers=True
        ).requires_grad_(False)
        # Until there are keys, random ones are the negatives.
        self.register_buffer("queue_QD", F.normalize(torch.randn(queue, DIMENSION), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.train()

    def train(self, mode: bool = True) -> MoCo:
        super().train(mode)
        self.key.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images_NCHW: Tensor) -> None:
        """Start batch normalisation from a batch's statistics, and the key network as a copy of the query network.

        An average with momentum 0.999 would keep the untrained statistics, 0 and 1, for the first thousands of steps.
        """
        update_bn([images_NCHW], self.query)
        self.key.update_parameters(self.query)

    def forward(self, query_images_NCHW: Tensor, key_images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(queries_ND, keys_ND) of two views of the same images; no gradient goes to the keys."""
        with torch.no_grad():
            keys_ND = self.key(key_images_NCHW)
        return self.query(query_images_NCHW), keys_ND

    def logits(self, queries_ND: Tensor, keys_ND: Tensor) -> Tensor:
        """Cosines over the temperature, (N, 1 + Q): of each query's own key, then of the keys in the queue."""
        positive_N1 = (queries_ND * keys_ND).sum(dim=1, keepdim=True)
        return torch.cat([positive_N1, queries_ND @ self.queue_QD.T], dim=1) / self.temperature

    @torch.no_grad()
    def update(self, keys_ND: Tensor) -> None:
        """After the optimiser's step: the key network follows (He et al. 2020, equation 2), `keys_ND` take the oldest's places.

        Of more keys than the queue holds the last ones stay.
        """
        self.key.update_parameters(self.query)
        length = len(self.queue_QD)
        kept_ND = keys_ND[-length:]
        places_N = (self.pointer + torch.arange(len(kept_ND), device=keys_ND.device)) % length
        self.queue_QD[places_N] = kept_ND
        self.pointer.copy_((self.pointer + len(kept_ND)) % length)


def info_nce(logits: Tensor) -> Tensor:
    """He et al. 2020, equation 1, the mean over N: cross-entropy of `MoCo.logits`, whose first column is the positive."""
    return F.cross_entropy(
        logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    )


def accuracy(logits: Tensor) -> Tensor:
    """Share of the queries whose own key is nearer than every key of the queue; a network that has collapsed gets 0."""
    return (logits[:, 0] > logits[:, 1:].amax(dim=1)).float().mean()
