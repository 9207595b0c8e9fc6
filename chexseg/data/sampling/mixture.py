"""Expert and weak samples mixed: each sample of a batch is an expert one with probability p (the paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.samplers import Source
from chexseg.seeds import derive


class Mixture:
    """Batches of `batch_size` samples from an expert and a weak source, either of which may be missing where p allows it.

    Which samples are expert ones is drawn per epoch from a generator of its own, so that an epoch can be repeated or
    skipped. `expert_share` tells the fraction realised so far.
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
        """The full batches of one epoch of `samples` samples; at least one. Expert samples stand first in a batch."""
        for experts in self._plan(epoch, samples):
            weaks = self.batch_size - experts
            parts = [self.expert.take(experts)] if experts else []  # type: ignore[union-attr]
            parts += [self.weak.take(weaks)] if weaks else []  # type: ignore[union-attr]
            self._count(experts)
            yield (
                parts[0]
                if len(parts) == 1
                else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            )

    def skip(self, epoch: int, samples: int) -> None:
        """Move past an epoch as if its batches had been given: resuming after it then gives the same samples."""
        for experts in self._plan(epoch, samples):
            if experts:
                self.expert.skip(experts)  # type: ignore[union-attr]
            if experts < self.batch_size:
                self.weak.skip(self.batch_size - experts)  # type: ignore[union-attr]
            self._count(experts)

    def _count(self, experts: int) -> None:
        self.drawn += self.batch_size
        self.drawn_expert += experts

    def _plan(self, epoch: int, samples: int) -> list[int]:
        """How many expert samples each batch of an epoch has."""
        count = max(1, samples // self.batch_size)
        draws = np.random.default_rng(derive(self.seed, "mixture", epoch)).random(
            (count, self.batch_size)
        )
        return (draws < self.probability).sum(axis=1).tolist()
