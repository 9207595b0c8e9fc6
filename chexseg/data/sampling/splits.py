"""Seeded selection of a cell's images by id: expert split, weak images of a trial, fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chexseg.errors import UserError
from chexseg.seeds import derive


def expert_split(
    image_ids: Sequence[str],
    patients: Sequence[str],
    train: int,
    select: int,
    seed: int,
    by: str = "patient",
) -> tuple[list[str], list[str]]:
    """Return (training ids, selection ids) of expert images, each sorted, with no patient in both.

    by: "patient"; or "image", as in the published code, where a patient may be in both lists.
    train, select: number of images. Patients are assigned in a seeded order: to the selection list
    until it is full, then to the training list. A patient with more images than a list still needs
    isn't assigned to it. If patients have several images, a list may end up shorter than requested.
    The shortfall is smaller than the image count of any unassigned patient. Raises `UserError` if
    fewer images have masks than requested.
    """
    check_expert_split(train, select, len(image_ids))
    images: dict[str, list[str]] = {}
    groups = image_ids if by == "image" else patients
    for image_id, group in sorted(zip(image_ids, groups, strict=True)):
        images.setdefault(group, []).append(image_id)
    order = sorted(images)
    np.random.default_rng(derive(seed, "expert split")).shuffle(order)
    training: list[str] = []
    selection: list[str] = []
    for group in order:
        for assigned, requested in ((selection, select), (training, train)):
            if len(assigned) + len(images[group]) <= requested:
                assigned.extend(images[group])
                break
    return sorted(training), sorted(selection)


def check_expert_split(train: int, select: int, masked: int) -> None:
    """Raise `UserError` for more expert images than the validation images with masks."""
    if train + select > masked:
        raise UserError(
            f"labels.expert_split: found train {train} + select {select} = {train + select};"
            f" expected at most {masked}, the validation images with expert masks"
        )


def check_weak_images(count: int, labelled: int) -> None:
    """Raise `UserError` for more weak images than the training images with weak labels."""
    if count > labelled:
        raise UserError(
            f"labels.weak_images: found {count}; expected at most {labelled},"
            " the training images with weak labels"
        )


def order(image_ids: Sequence[str], seed: int, name: str) -> list[str]:
    """Return the ids in a seeded order, which doesn't depend on their order in `image_ids`."""
    out = sorted(image_ids)
    np.random.default_rng(derive(seed, name)).shuffle(out)
    return out


def sample(image_ids: Sequence[str], count: int | None, seed: int, name: str) -> list[str]:
    """Return the first `count` ids of `order` (None: all), sorted, so that samples are nested."""
    return sorted(order(image_ids, seed, name)[:count])


def weak_images(
    image_ids: Sequence[str], positive: np.ndarray, count: int, seed: int, prefer_positives: bool
) -> list[str]:
    """Return `count` weakly labelled images for one trial, sorted.

    positive: a boolean per id, True if any studied pathology is labelled positive. With
    `prefer_positives`, other images are used only if there aren't enough of these. Raises
    `UserError` if there are fewer images than requested.
    """
    check_weak_images(count, len(image_ids))
    order = np.random.default_rng(derive(seed, "weak images")).permutation(len(image_ids))
    by_id = np.argsort(np.asarray(image_ids), kind="stable")
    order = by_id[order]
    if prefer_positives:
        order = order[np.argsort(~np.asarray(positive, dtype=bool)[order], kind="stable")]
    return sorted(np.asarray(image_ids)[order[:count]].tolist())


def fraction_count(fraction: float, images: int) -> int:
    """Return the number of images in a fraction of `images`: rounded down, at least one."""
    return max(1, math.floor(round(fraction * images, 6)))  # 0.29 * 100 is 28.999999999999996
