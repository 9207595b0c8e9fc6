"""Mixing of expert and weak samples; p is the probability of an expert one (section 4.1).

`Mixture` passes evenly through each set. `PublishedMixture` repeats the published code, which sees
some images twice as often as others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.samplers import Resident, Source
from chexseg.seeds import derive


class Mixture:
    """Batches of `batch_size` samples from an expert and a weak source.

    A source may be None if p never selects it. Each epoch has its own generator for the choice
    between the sources, so that an epoch can be repeated or skipped. `expert_share` is the actual
    fraction of expert samples so far.
    """

    def __init__(
        self,
        expert: Source | None,
        weak: Source | None,
        p: float,
        batch_size: int,
        seed: int,
        rule: str = "exact",
    ):
        self.probability = effective_probability(p, rule)
        if rule == "published":
            raise ValueError("the published rule is PublishedMixture's")
        if (expert is None and self.probability > 0) or (weak is None and self.probability < 1):
            raise ValueError(
                f"p = {self.probability} needs {'expert' if expert is None else 'weak'} samples"
            )
        self.expert, self.weak, self.batch_size, self.seed = expert, weak, batch_size, seed
        self.drawn = self.drawn_expert = 0

    @property
    def expert_share(self) -> float:
        return self.drawn_expert / self.drawn if self.drawn else float("nan")

    def batches(self, epoch: int, samples: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the full batches of an epoch, at least one, each with its expert samples first."""
        for experts in self._plan(epoch, samples):
            weaks = self.batch_size - experts
            parts = [self.expert.take(experts)] if self.expert and experts else []
            parts += [self.weak.take(weaks)] if self.weak and weaks else []
            yield _joined(parts)

    def skip(self, epoch: int, samples: int) -> None:
        """Skip an epoch, so that the next one has the same samples as if this one had been used."""
        for experts in self._plan(epoch, samples):
            if self.expert and experts:
                self.expert.skip(experts)
            if self.weak and experts < self.batch_size:
                self.weak.skip(self.batch_size - experts)

    def _plan(self, epoch: int, samples: int) -> Iterator[int]:
        """Yield the number of expert samples in each batch of an epoch, and count them."""
        count = max(1, samples // self.batch_size)
        generator = np.random.default_rng(derive(self.seed, "mixture", epoch))
        draws = generator.random((count, self.batch_size))
        for experts in (draws < self.probability).sum(axis=1).tolist():
            self.drawn += self.batch_size
            self.drawn_expert += experts
            yield experts


class PublishedMixture:
    """Batches as the published code draws them, with its uneven images.

    Sample indices 0 .. images - 1 are shuffled in each epoch. For each, an integer k of 1..10 is
    drawn; the sample is an expert one if ``k * 0.1 <= p`` in floating point. Its image is the
    index modulo the size of its set, in the order of image ids. So of 147 expert and 100 weak
    images, the first 100 expert ones are seen twice as often as the other 47, and the first 47
    weak ones three times for two of the others.

    images: number of sample indices, the expert and the weak images together. Either set may be
    None if p never selects it. An epoch depends only on the seed and its number.
    """

    def __init__(
        self,
        expert: Resident | None,
        weak: Resident | None,
        p: float,
        batch_size: int,
        seed: int,
        images: int,
    ):
        self.p, self.probability = p, effective_probability(p, "published")
        self.expert, self.weak, self.batch_size, self.seed = expert, weak, batch_size, seed
        self.images = images
        self.drawn = self.drawn_expert = 0

    @property
    def expert_share(self) -> float:
        return self.drawn_expert / self.drawn if self.drawn else float("nan")

    def batches(self, epoch: int, samples: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the full batches of an epoch, at least one, each with its expert samples first."""
        for indices, is_expert in self._plan(epoch, samples):
            yield _joined(
                [
                    source.at(chosen % len(source))
                    for source, chosen in (
                        (self.expert, indices[is_expert]),
                        (self.weak, indices[~is_expert]),
                    )
                    if source is not None and len(chosen)
                ]
            )

    def skip(self, epoch: int, samples: int) -> None:
        """Count the samples of an epoch without loading them."""
        for _ in self._plan(epoch, samples):
            pass

    def _plan(self, epoch: int, samples: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (sample indices, whether each is an expert sample) of each batch, and count."""
        count = max(1, samples // self.batch_size) * self.batch_size
        generator = np.random.default_rng(derive(self.seed, "published mixture", epoch))
        passes = [generator.permutation(self.images) for _ in range(-(-count // self.images))]
        indices = np.concatenate(passes)[:count]
        is_expert = generator.integers(1, 11, size=count) * 0.1 <= self.p
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            self.drawn += self.batch_size
            self.drawn_expert += int(is_expert[part].sum())
            yield indices[part], is_expert[part]


def _joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
