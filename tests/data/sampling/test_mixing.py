"""Test mixing: p as drawn by either rule; the seed decides the batches; epochs can be skipped."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.data.sampling.mixing import RULES, effective_probability
from chexseg.data.sampling.mixture import Mixture
from chexseg.data.sampling.samplers import Resident

BATCH = 8
#: p as given -> p as the authors' rule draws it (shared/paper/README.md: 0.3, 0.6, 0.7 and 0.85 are
#: lower).
OFFICIAL = {
    0: 0,
    0.05: 0,
    0.2: 0.2,
    0.3: 0.2,
    0.4: 0.4,
    0.5: 0.5,
    0.6: 0.5,
    0.7: 0.6,
    0.8: 0.8,
    0.85: 0.8,
    0.9: 0.9,
    1: 1,
}


def source(expert: bool, length: int = 50, seed: int = 0) -> Resident:
    return Resident({"expert": torch.full((length,), expert), "row": torch.arange(length)}, seed)


def mixture(p: float, seed: int = 0, rule: str = "exact") -> Mixture:
    return Mixture(source(True, 30), source(False, 70), p, BATCH, seed, rule)


def epochs(mixed: Mixture, *numbers: int, samples: int = 100) -> list[tuple[bool, int]]:
    batches = [batch for number in numbers for batch in mixed.batches(number, samples)]
    return [
        pair
        for batch in batches
        for pair in zip(batch["expert"].tolist(), batch["row"].tolist(), strict=True)
    ]


@pytest.mark.parametrize(("p", "effective"), OFFICIAL.items())
def test_the_official_rule_has_its_effective_probability(p, effective):
    for rule in ("official", "published"):
        assert effective_probability(p, rule) == pytest.approx(effective)
    assert effective_probability(p) == p


@pytest.mark.parametrize("rule", ["exact", "official"])
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.85, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_share_of_experts_is_within_binomial_bounds(p, rule, seed):
    mixed = mixture(p, seed, rule)
    drawn = epochs(mixed, *range(5), samples=2000)
    share = sum(expert for expert, _ in drawn) / len(drawn)
    effective = effective_probability(p, rule)
    assert len(drawn) == mixed.drawn == 10_000 and mixed.expert_share == share
    assert abs(share - effective) <= 4 * math.sqrt(effective * (1 - effective) / len(drawn))


def test_batches_vary_as_independent_draws_do():
    counts = [int(batch["expert"].sum()) for batch in mixture(0.5).batches(0, 8000)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 1.7 < variance < 2.3  # binomial: 8 * 0.5 * 0.5 = 2


def test_batches_are_full_and_experts_stand_first():
    for batch in mixture(0.5).batches(0, 101):
        assert batch["expert"].shape == (BATCH,)
        assert batch["expert"].tolist() == sorted(batch["expert"].tolist(), reverse=True)


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (8, 1), (15, 1), (16, 2), (101, 12)])
def test_an_epoch_has_its_full_batches_and_at_least_one(samples, batches):
    assert len(list(mixture(0.5).batches(0, samples))) == batches


def test_both_sources_are_passed_through_evenly():
    drawn = epochs(mixture(0.5), *range(10), samples=200)
    for expert, length in ((True, 30), (False, 70)):
        seen = [row for is_expert, row in drawn if is_expert == expert]
        times = [seen.count(row) for row in range(length)]
        assert max(times) - min(times) <= 1  # whole passes, and a part of the last


def test_the_same_seed_gives_the_same_batches():
    first = epochs(mixture(0.5), 0, 1)
    assert first == epochs(mixture(0.5), 0, 1) != epochs(mixture(0.5, seed=1), 0, 1)
    assert [expert for expert, _ in epochs(mixture(0.5), 0)] != [
        expert for expert, _ in epochs(mixture(0.5), 1)
    ]


@pytest.mark.parametrize("p", [0, 0.4, 1])
def test_skipping_epochs_is_giving_them(p):
    given, skipped = mixture(p), mixture(p)
    epochs(given, 0, 1, 2)
    for epoch in range(3):
        skipped.skip(epoch, 100)
    assert (skipped.drawn, skipped.expert_share) == (given.drawn, given.expert_share)
    assert epochs(skipped, 3, 4) == epochs(given, 3, 4)


def test_p_zero_and_one_need_only_one_source():
    assert not any(expert for expert, _ in epochs(Mixture(None, source(False), 0, BATCH, 0), 0))
    assert all(expert for expert, _ in epochs(Mixture(source(True), None, 1, BATCH, 0), 0))
    assert not any(
        expert for expert, _ in epochs(Mixture(None, source(False), 0.05, BATCH, 0, "official"), 0)
    )


def test_a_missing_source_that_is_needed_is_refused():
    with pytest.raises(ValueError, match="needs expert samples"):
        Mixture(None, source(False), 0.1, BATCH, 0)
    with pytest.raises(ValueError, match="needs weak samples"):
        Mixture(source(True), None, 0.9, BATCH, 0)


@pytest.mark.parametrize("p", [-0.1, 1.01, float("nan")])
def test_what_is_no_probability_is_refused(refused, p):
    with refused("labels.p", p, "0 to 1"):
        effective_probability(p)


def test_an_unknown_rule_is_refused(refused):
    with refused("labels.mixing", "'exakt'", *RULES):
        mixture(0.5, rule="exakt")
