"""Which images a cell works on: the expert split, the weak images of a trial, nested fractions. All seeded, all by id."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chexseg.errors import UserError
from chexseg.seeds import derive


def expert_split(
    image_ids: Sequence[str], patients: Sequence[str], train: int, select: int, seed: int
) -> tuple[list[str], list[str]]:
    """(training ids, selection ids) of `train` and `select` expert images, no patient in both, each sorted.

    Patients are taken in a seeded order, for selection as long as it lacks images, else for training; one with more images
    than a list still lacks is passed over for it. Where several images a patient keep a list from its exact number, it
    falls short by fewer images than each patient left over has. Raises `UserError` where fewer images have masks than are
    asked for.
    """
    if train + select > len(image_ids):
        raise UserError(
            f"labels.expert_split: found train {train} + select {select} = {train + select};"
            f" allowed: at most {len(image_ids)}, the validation images with expert masks"
        )
    images: dict[str, list[str]] = {}
    for image_id, patient in sorted(zip(image_ids, patients, strict=True)):
        images.setdefault(patient, []).append(image_id)
    order = sorted(images)
    np.random.default_rng(derive(seed, "expert split")).shuffle(order)
    chosen: tuple[list[str], list[str]] = ([], [])
    for patient in order:
        for part, wanted in ((1, select), (0, train)):
            if len(chosen[part]) + len(images[patient]) <= wanted:
                chosen[part].extend(images[patient])
                break
    return sorted(chosen[0]), sorted(chosen[1])


def order(image_ids: Sequence[str], seed: int, name: str) -> list[str]:
    """The ids in a seeded order, the same however they are given."""
    out = sorted(image_ids)
    np.random.default_rng(derive(seed, name)).shuffle(out)
    return out


def sample(image_ids: Sequence[str], count: int | None, seed: int, name: str) -> list[str]:
    """The first `count` ids of their `order` (all for None), sorted: a smaller sample lies within a larger one."""
    return sorted(order(image_ids, seed, name)[:count])


def weak_images(
    image_ids: Sequence[str], positive: np.ndarray, count: int, seed: int, prefer_positives: bool
) -> list[str]:
    """The `count` weakly labelled images of one trial, sorted.

    positive: one boolean an id, whether any studied pathology is labelled positive. With `prefer_positives` they come
    first, and others only fill up. Raises `UserError` where there are fewer images than asked for.
    """
    if count > len(image_ids):
        raise UserError(
            f"labels.weak_images: found {count}; allowed: at most {len(image_ids)}, the training images with weak labels"
        )
    order = np.random.default_rng(derive(seed, "weak images")).permutation(len(image_ids))
    by_id = np.argsort(np.asarray(image_ids), kind="stable")
    order = by_id[order]
    if prefer_positives:
        order = order[np.argsort(~np.asarray(positive, dtype=bool)[order], kind="stable")]
    return sorted(np.asarray(image_ids)[order[:count]].tolist())


def fraction_count(fraction: float, images: int) -> int:
    """Return the number of images in a fraction of `images`: rounded down, at least one."""
    return max(1, math.floor(round(fraction * images, 6)))  # 0.29 * 100 is 28.999999999999996
