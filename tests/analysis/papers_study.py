"""Build the paper's whole grid of cells with counts that give chosen IoUs, for tests only."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pandas as pd

from chexseg.analysis.published import TABLE1_P, printed_table2, table1
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import pooled_iou
from chexseg.config.study import Reproduced
from chexseg.pathologies import PATHOLOGIES

INITS = ("random", "imagenet", "moco", "chexpert")
FULL = {"random": 0.18, "imagenet": 0.23, "moco": 0.235, "chexpert": 0.263}
STUDENT = {"random": (0.15, 0.2, 0.21), "moco": (0.2, 0.245, 0.25), "chexpert": (0.23, 0.255, 0.27)}
FRACTIONS = (0.001, 0.01, 0.1)
#: The three pathologies on which the paper's radiologists score below CheXseg.
RADIOLOGISTS = {"Atelectasis": 0.12, "Airspace Opacity": 0.23, "Pleural Effusion": 0.21}
#: Expert pixels per pathology and image.
PIXELS = 2000


def counts_of(iou_CK: np.ndarray, images: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return counts_CIK3 with the given pooled IoU, up to rounding.

    As many pixels are predicted as the experts marked. `noise` is the deviation of single images.
    """
    generator = np.random.default_rng(seed)
    shift_CIK = generator.normal(0, noise, (len(iou_CK), images, iou_CK.shape[1]))
    at_CIK = np.clip(
        iou_CK[:, None] * (1 + shift_CIK - shift_CIK.mean(axis=1, keepdims=True)), 0, 1
    )
    both_CIK = np.rint(PIXELS * 2 * at_CIK / (1 + at_CIK)).astype(np.int64)
    return np.stack(
        [both_CIK, np.full_like(both_CIK, PIXELS), np.full_like(both_CIK, PIXELS)], axis=-1
    )


def papers_study(
    trials: int = 3, images: int = 40, pathologies=PATHOLOGIES, spread: float = 0.01
) -> StudyResults:
    """Return Tables 1 and 2 and Figures 3 to 5, with the published values where they exist.

    The values are the means over trials.
    """
    rows: list[tuple] = []
    levels: list[list[float]] = []

    def add(
        method: str,
        weak: str | None,
        p: float,
        init: str,
        weak_images: int,
        fraction: float,
        level_K: list[float],
    ):
        for trial in range(trials):
            kind = weak or ("full" if np.isnan(fraction) else f"student {100 * fraction:g}%")
            name = f"{kind} p={p:g} {init} {weak_images} trial {trial}"
            rows.append(
                (name, method, weak, p, trial, init, weak_images, fraction, float(np.mean(level_K)))
            )
            levels.append([level * (1 + spread * (trial - (trials - 1) / 2)) for level in level_K])

    def flat(level: float) -> list[float]:
        return [level] * len(pathologies)

    for method in ("cam", "irnet"):
        for p in TABLE1_P:
            if p > 0:
                add(
                    "mixed",
                    method,
                    p,
                    "chexpert",
                    100,
                    np.nan,
                    [table1(name, method, p) for name in pathologies],
                )
    for init in INITS:
        expert_iou = (
            [table1(name, "full", 1) for name in pathologies]
            if init == "chexpert"
            else flat(FULL[init])
        )
        add("full", None, 1.0, init, 0, np.nan, expert_iou)
    for (method, init, number), (level, _) in printed_table2().items():
        add("weak", method, 0.0, init, number, np.nan, flat(level))
    for init, of_init in STUDENT.items():
        for fraction, level in zip(FRACTIONS, of_init, strict=True):
            add("student", None, 1.0, init, 0, fraction, flat(level))
    columns = (
        "name",
        "method",
        "weak",
        "p",
        "trial",
        "init",
        "weak_images",
        "fraction",
        "selection_miou",
    )
    cells = pd.DataFrame(rows, columns=list(columns)).assign(
        epochs=20, other="", draw=0, steps=900.0, upstream=""
    )
    cells["cell"] = [f"{number:064x}" for number in range(len(cells))]
    readers_K = np.array(
        [
            [
                RADIOLOGISTS.get(name, min(0.95, table1(name, "cam", 0.9) + 0.15))
                for name in pathologies
            ]
        ]
    )
    return StudyResults(
        reproduces=get_args(Reproduced),
        name="paper",
        title="CheXseg",
        pathologies=tuple(pathologies),
        image_ids=tuple(
            f"patient{64541 + i // 2}_study1_view{1 + i % 2}_frontal" for i in range(images)
        ),
        cells=cells,
        counts_CIK3=counts_of(np.array(levels), images, noise=0.3),
        missing=pd.DataFrame(columns=["name", "state", "reason"]),
        stages=pd.DataFrame(columns=["stage", "key", "seconds", "host", "settings"]),
        radiologists_IK3=counts_of(readers_K, images, noise=0.3)[0],
    )


def achieved(results: StudyResults, **settings) -> np.ndarray:
    """Return the mIoU of the cells with these settings."""
    chosen = np.logical_and.reduce(
        [results.cells[name].to_numpy() == value for name, value in settings.items()]
    )
    return pooled_iou(results.counts_CIK3[chosen]).mean(axis=1)


def keep(results, chosen_C: np.ndarray, **changes):
    """Return the study with some of its cells."""
    cells = results.cells[chosen_C].reset_index(drop=True)
    return dataclasses.replace(
        results, cells=cells, counts_CIK3=results.counts_CIK3[chosen_C], **changes
    )


def by_hand(*ious: float) -> list[float]:
    """Return mean, low and high of Student's t-interval, for two or three trials."""
    mean, t = sum(ious) / len(ious), {2: 12.7062, 3: 4.3027}[len(ious)]
    half = t * (sum((x - mean) ** 2 for x in ious) / (len(ious) - 1) / len(ious)) ** 0.5
    return [mean, mean - half, mean + half]
