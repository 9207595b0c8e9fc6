"""Test the published draw against loops written from its description (shared/paper/README.md)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.mixture import PublishedMixture
from chexseg.data.sampling.samplers import Resident
from chexseg.seeds import derive

EXPERT, WEAK, BATCH = 147, 100, 8


def source(expert: bool, length: int) -> Resident:
    return Resident({"expert": torch.full((length,), expert), "row": torch.arange(length)}, 0)


def published(p: float, batch: int = BATCH, seed: int = 0) -> PublishedMixture:
    return PublishedMixture(
        source(True, EXPERT), source(False, WEAK), p, batch, seed, EXPERT + WEAK
    )


def drawn(mixture: PublishedMixture, epoch: int, samples: int = EXPERT + WEAK) -> list[list]:
    return [
        sorted(zip(batch["expert"].tolist(), batch["row"].tolist(), strict=True))
        for batch in mixture.batches(epoch, samples)
    ]


def naive(p: float, seed: int, epoch: int) -> list[list]:
    """Return the epoch's batches by the description, one sample at a time."""
    generator = np.random.default_rng(derive(seed, "published mixture", epoch))
    order = [int(index) for index in generator.permutation(EXPERT + WEAK)]
    order = order[: len(order) // BATCH * BATCH]
    numbers = [int(k) for k in generator.integers(1, 11, size=len(order))]
    batches: list[list] = []
    for position, (index, k) in enumerate(zip(order, numbers, strict=True)):
        if position % BATCH == 0:
            batches.append([])
        if k * 0.1 <= p:
            batches[-1].append((True, index % EXPERT))
        else:
            batches[-1].append((False, index % WEAK))
    return [sorted(batch) for batch in batches]


@pytest.mark.parametrize("p", [0, 0.2, 0.3, 0.6, 0.85, 0.9, 1])
def test_batches_are_those_of_the_description(p):
    for seed in (0, 3):
        for epoch in (0, 1, 7):
            assert drawn(published(p, seed=seed), epoch) == naive(p, seed, epoch)


def test_at_p_090_the_first_hundred_expert_images_are_seen_twice_as_often():
    mixture, times, epochs = published(0.9), Counter(), 300
    for epoch in range(epochs):
        times.update(pair for batch in drawn(mixture, epoch) for pair in batch)
    first = [times[True, row] for row in range(100)]
    rest = [times[True, row] for row in range(100, EXPERT)]
    # 240 of 247 indices an epoch, nine of ten of them expert: 1.75 and 0.87 an image.
    share = 0.9 * 240 / 247
    assert np.mean(first) / epochs == pytest.approx(2 * share, rel=0.02)
    assert np.mean(rest) / epochs == pytest.approx(share, rel=0.02)
    assert min(first) > max(rest)
    assert mixture.expert_share == pytest.approx(0.9, abs=0.005)


def test_without_chance_the_images_repeat_as_the_index_does():
    everything = Counter(pair for batch in drawn(published(1, batch=1), 0) for pair in batch)
    assert everything == {(True, row): 1 + (row < 100) for row in range(EXPERT)}
    weak = Counter(pair for batch in drawn(published(0, batch=1), 0) for pair in batch)
    assert weak == {(False, row): 2 + (row < 47) for row in range(WEAK)}


def test_an_epoch_longer_than_the_indices_passes_through_them_again():
    pairs = [pair for batch in drawn(published(0, batch=1), 0, 2 * 247) for pair in batch]
    assert Counter(pairs) == {(False, row): 2 * (2 + (row < 47)) for row in range(WEAK)}
    assert Counter(pairs[:247]) == {(False, row): 2 + (row < 47) for row in range(WEAK)}


def test_skipping_epochs_is_giving_them():
    given, skipped = published(0.6), published(0.6)
    for epoch in range(3):
        drawn(given, epoch)
        skipped.skip(epoch, EXPERT + WEAK)
    assert (given.drawn, given.expert_share) == (skipped.drawn, skipped.expert_share)
    assert drawn(given, 3) == drawn(skipped, 3)
    assert given.probability == effective_probability(0.6, "published") == 0.5


def test_a_set_that_p_excludes_may_be_missing():
    weak = PublishedMixture(None, source(False, WEAK), 0, BATCH, 0, EXPERT + WEAK)
    assert drawn(weak, 0) == drawn(published(0), 0)
