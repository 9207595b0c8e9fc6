"""Test splits: exact counts, disjoint patients, nested, and independent of the input order."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data.sampling import splits

SEEDS = range(20)


def people(images_a_patient: list[int]) -> tuple[list[str], list[str]]:
    """Return (image ids, patients) of patients with the given numbers of images."""
    pairs = [
        (f"patient{n:03d}_view{v}", f"patient{n:03d}")
        for n, count in enumerate(images_a_patient)
        for v in range(count)
    ]
    ids, patients = zip(*pairs, strict=True)
    return list(ids), list(patients)


#: Like CheXlocalize's validation set: 187 images with masks, some patients with two or three.
VALIDATION = people([1] * 130 + [2] * 24 + [3] * 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_expert_split_has_the_papers_numbers_and_no_patient_twice(seed):
    ids, patients = VALIDATION
    assert len(ids) == 187
    patient_of = dict(zip(ids, patients, strict=True))
    for train, select in ((147, 40), (20, 10), (5, 3)):
        chosen = splits.expert_split(ids, patients, train, select, seed)
        assert [len(part) for part in chosen] == [train, select]
        assert not {patient_of[one] for one in chosen[0]} & {patient_of[one] for one in chosen[1]}
        assert all(part == sorted(set(part)) and set(part) <= set(ids) for part in chosen)


def test_the_expert_split_depends_on_seed_and_images_not_on_their_order():
    ids, patients = VALIDATION
    order = np.random.default_rng(0).permutation(len(ids))
    shuffled = [ids[row] for row in order], [patients[row] for row in order]
    assert splits.expert_split(ids, patients, 100, 40, 7) == splits.expert_split(
        *shuffled, 100, 40, 7
    )
    assert splits.expert_split(ids, patients, 100, 40, 7) != splits.expert_split(
        ids, patients, 100, 40, 8
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_list_falls_short_by_less_than_a_patient_passed_over(seed):
    ids, patients = people([3] * 8)
    train, select = splits.expert_split(ids, patients, 10, 5, seed)
    assert (len(train), len(select)) == (9, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_expert_split_by_image_has_exact_numbers_whatever_the_patients(seed):
    ids, patients = people([3] * 8)
    train, select = splits.expert_split(ids, patients, 10, 5, seed, by="image")
    assert (len(train), len(select)) == (10, 5)
    assert not set(train) & set(select) and set(train) | set(select) <= set(ids)
    others = [f"other{n}" for n in range(len(ids))]
    assert splits.expert_split(ids, others, 10, 5, seed, by="image") == (train, select)
    assert splits.expert_split(ids[::-1], patients, 10, 5, seed, by="image") == (train, select)


def test_an_expert_split_by_image_may_divide_a_patient():
    ids, patients = VALIDATION
    patient_of = dict(zip(ids, patients, strict=True))
    train, select = splits.expert_split(ids, patients, 147, 40, 0, by="image")
    assert {patient_of[one] for one in train} & {patient_of[one] for one in select}


def test_too_few_expert_images_are_told(refused):
    with refused("labels.expert_split", "train 150 + select 40 = 190", "at most 187"):
        splits.expert_split(*VALIDATION, 150, 40, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_smaller_samples_lie_within_larger_ones(seed):
    ids = [f"image{n}" for n in range(200)]
    nested = [set(splits.sample(ids, count, seed, "fraction")) for count in (0, 1, 20, 150, 200)]
    assert [len(one) for one in nested] == [0, 1, 20, 150, 200]
    assert all(small <= large for small, large in zip(nested, nested[1:], strict=False))
    assert splits.sample(ids, None, seed, "fraction") == sorted(ids)


def test_samples_differ_by_seed_and_name_and_not_by_order():
    ids = [f"image{n}" for n in range(200)]
    first = splits.sample(ids, 50, 0, "fraction")
    assert first == sorted(first) == splits.sample(ids[::-1], 50, 0, "fraction")
    assert first != splits.sample(ids, 50, 1, "fraction") and first != splits.sample(
        ids, 50, 0, "other"
    )


@pytest.mark.parametrize("prefer_positives", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_weak_images_are_nested_exact_and_independent_of_the_order(seed, prefer_positives):
    ids = np.array([f"image{n:03d}" for n in range(90)])
    positive = np.arange(90) % 3 == 0
    chosen = [
        splits.weak_images(ids, positive, count, seed, prefer_positives) for count in (10, 40, 90)
    ]
    assert [len(set(one)) for one in chosen] == [10, 40, 90] and all(
        one == sorted(one) for one in chosen
    )
    assert set(chosen[0]) < set(chosen[1]) < set(chosen[2])
    order = np.random.default_rng(seed).permutation(90)
    assert splits.weak_images(ids[order], positive[order], 40, seed, prefer_positives) == chosen[1]
    assert splits.weak_images(ids, positive, 40, seed + 1, prefer_positives) != chosen[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_positives_come_first_where_they_are_preferred(seed):
    ids = [f"image{n:03d}" for n in range(90)]
    positive = np.arange(90) % 3 == 0
    wanted = {ids[n] for n in range(0, 90, 3)}
    assert set(splits.weak_images(ids, positive, 20, seed, True)) < wanted
    assert set(splits.weak_images(ids, positive, 50, seed, True)) > wanted
    assert not set(splits.weak_images(ids, positive, 50, seed, False)) > wanted


def test_too_few_weak_images_are_told(refused):
    with refused("labels.weak_images: found 4", "at most 3"):
        splits.weak_images(["a", "b", "c"], np.ones(3, dtype=bool), 4, 0, False)
