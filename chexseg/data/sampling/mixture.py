"""Mixing of expert and weak samples; p is the probability of an expert one (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.samplers import Source
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
            yield (
                parts[0]
                if len(parts) == 1
                else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            )

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
