"""MoCo v2: an encoder that learns, without labels, to match two views of the same radiograph.

He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning"; Chen et al.
2020, "Improved Baselines with Momentum Contrastive Learning". Axes: N images, D features of an
embedding, Q keys in the queue.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from chexseg.models import distributed, encoders

#: Features of an embedding (He et al. 2020, section 3.3).
DIMENSION = 128


class Embedding(nn.Module):
    """Computes unit vectors_ND, in float32 or, if given, float64, from images_NCHW.

    Consists of an encoder, global average pooling and MoCo v2's two-layer projection head.
    """

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body = body
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, DIMENSION)
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        vectors_ND = self.head(self.body(images_NCHW)[-1].mean(dim=(2, 3)))
        return F.normalize(
            vectors_ND.to(torch.promote_types(vectors_ND.dtype, torch.float32)), dim=1
        )


def build(architecture: str) -> Embedding:
    """Return an embedding with random weights. Raises `UserError` for an unknown architecture.

    architecture: an encoder of segmentation-models-pytorch.
    """
    body = encoders.build(architecture)
    return Embedding(body, body.out_channels[-1])


class MoCo(nn.Module):
    """The query network, the key network (its moving average), and the queue of the latest keys.

    All three are in the state dict. A step is Algorithm 1 of He et al. 2020: `forward`, `logits`,
    `info_nce`, the optimizer on `query`, then `update`. Call `calibrate` once before all steps.

    Keys must not be normalised with the statistics of the batch that contains their queries,
    because these would identify the positive. MoCo therefore shuffles its batch among GPUs. On one
    device a shuffled batch has the same statistics, and MoCo-CXR's 16 images are too few for
    sub-batches with good statistics. So the key network averages the query network's statistics
    together with its weights, and normalises with these (Cai et al. 2021, "Exponential Moving
    Average Normalization for Self-supervised and Semi-supervised Learning"). Nothing of the batch
    can leak.
    """

    queue_QD: Tensor
    pointer: Tensor

    def __init__(
        self, query: Embedding, queue: int, momentum: float = 0.999, temperature: float = 0.2
    ):
        """Create a queue of `queue` random keys, which are negatives until replaced.

        momentum: of the key network. temperature: of `logits`.
        """
        super().__init__()
        self.temperature = temperature
        self.query = query
        self._average = get_ema_multi_avg_fn(momentum)
        self.key = AveragedModel(query, multi_avg_fn=self._average, use_buffers=True)
        self.key.requires_grad_(False)
        self.register_buffer("queue_QD", F.normalize(torch.randn(queue, DIMENSION), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.train()

    def train(self, mode: bool = True) -> MoCo:
        super().train(mode)
        self.key.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images_NCHW: Tensor) -> None:
        """Set batch normalisation to a batch's statistics, and copy the query to the key network.

        A moving average with momentum 0.999 would otherwise keep the initial statistics, 0 and 1,
        for thousands of steps.
        """
        update_bn([images_NCHW], self.query)
        self.key.update_parameters(self.query)

    def forward(
        self,
        query_images_NCHW: Tensor,
        key_images_NCHW: Tensor,
        query: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (queries_ND, keys_ND) of two views of the same images; keys get no gradient.

        query: what to call in place of the query network, such as `distributed.parallel` of it.
        """
        with torch.no_grad():
            keys_ND = self.key(key_images_NCHW)
        return (query or self.query)(query_images_NCHW), keys_ND

    def logits(self, queries_ND: Tensor, keys_ND: Tensor) -> Tensor:
        """Return cosines divided by the temperature, (N, 1 + Q).

        The first column is a query's positive key, the others are the keys in the queue.
        """
        positive_N1 = (queries_ND * keys_ND).sum(dim=1, keepdim=True)
        return torch.cat([positive_N1, queries_ND @ self.queue_QD.T], dim=1) / self.temperature

    @torch.no_grad()
    def update(self, keys_ND: Tensor) -> None:
        """Update the key network, and replace the oldest keys of the queue by `keys_ND`.

        Call it after the optimizer's step (He et al. 2020, equation 2). Of more keys than the queue
        holds, the last ones are kept. Every worker passes the keys of its share of the batch, and
        the queue gets those of the whole batch, in its order.
        """
        self._follow()
        length = len(self.queue_QD)
        kept_ND = distributed.whole_batch(keys_ND)[-length:]
        places_N = (self.pointer + torch.arange(len(kept_ND), device=keys_ND.device)) % length
        self.queue_QD[places_N] = kept_ND
        self.pointer.copy_((self.pointer + len(kept_ND)) % length)

    def _follow(self) -> None:
        """Move the key network towards the query network.

        `AveragedModel.update_parameters` does the same, but asks the device each time how often it
        was called, because its first call copies; here `calibrate` did that.
        """
        followers, leaders = (
            [*network.parameters(), *network.buffers()] for network in (self.key.module, self.query)
        )
        pairs = list(zip(followers, leaders, strict=True))
        for floating in (True, False):  # the averaging function takes one kind at a time
            chosen = [pair for pair in pairs if pair[0].is_floating_point() is floating]
            if chosen:
                keys, queries = map(list, zip(*chosen, strict=True))
                self._average(keys, queries, 0)
        self.key.n_averaged += 1


def info_nce(logits: Tensor) -> Tensor:
    """Return the mean InfoNCE loss of `MoCo.logits` (He et al. 2020, equation 1)."""
    return F.cross_entropy(
        logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    )


def accuracy(logits: Tensor) -> Tensor:
    """Return the share of queries that are nearer to their own key than to any key of the queue.

    A collapsed network gets 0.
    """
    return (logits[:, 0] > logits[:, 1:].amax(dim=1)).float().mean()
