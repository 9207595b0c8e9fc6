"""What a study has to show: its finished cells, their counts, and the images behind them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

#: Columns of `StudyResults.cells`: the settings a table or figure may select by.
CELL_COLUMNS = (
    "cell",
    "name",
    "method",
    "weak",
    "p",
    "trial",
    "init",
    "weak_images",
    "fraction",
    "epochs",
    "other",
    "selection_miou",
)

#: Columns of `StudyResults.graph`.
GRAPH_COLUMNS = ("key", "stage", "label", "state", "seconds", "inputs")


@dataclass(frozen=True)
class WeakCounts:
    """Weak labels against the expert masks of `valid`: pixels at training size, on the images that have such masks.

    counts_IK3: int64: intersection, predicted and true. box_IK: float64: the intersection to be expected of a square of as
    many pixels as predicted, placed uniformly at random inside the image. chosen_on_I: bool: the image is one of those on
    which the CAM thresholds were chosen.
    """

    image_ids: tuple[str, ...]
    counts_IK3: np.ndarray
    box_IK: np.ndarray
    chosen_on_I: np.ndarray


@dataclass(frozen=True)
class WeakMaps:
    """What one artifact of weak labels holds of one image. thresholds_K: scores above them are the mask."""

    scores_Khw: np.ndarray  # float32, in [0, 1], at the network's resolution
    thresholds_K: np.ndarray
    masks_KHW: np.ndarray  # bool, at training size
    boundary_hw: np.ndarray | None = None  # float32, in [0, 1]; of IRNet alone


@dataclass(frozen=True)
class WeakLabels:
    """One artifact of weak labels, read-only; its pathologies are the study's.

    kind: "cam", "cam++" or "irnet". start: for IRNet, the key of the CAMs that it started from. settings: everything its
    result depends on, "stage.field" -> value. reason: why there are no counts, or None.
    """

    key: str
    kind: str
    start: str | None
    settings: Mapping[str, Any]
    counts: WeakCounts | None = None
    reason: str | None = None
    #: image id -> its maps and masks
    maps: Callable[[str], WeakMaps] | None = field(default=None, repr=False)
    #: image id of `valid` -> (pixels_HW uint8, expert masks_KHW bool), at training size
    image: Callable[[str], tuple[np.ndarray, np.ndarray]] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Classifier:
    """One classifier of the observations. stage: "classify" (its CAMs are looked at) or "pretrain" (its encoder is kept).

    auroc: observation -> area under the ROC curve on `valid`, None where only one class is labelled there. mean_auroc: that
    of the competition's five, by which the checkpoint of `step` of `steps` was chosen. images: it trained on.
    """

    key: str
    stage: str
    settings: Mapping[str, Any]
    auroc: Mapping[str, float | None]
    mean_auroc: float
    step: int
    steps: int
    images: int


@dataclass(frozen=True)
class StudyResults:
    """One study's results, read-only.

    cells: one row a finished cell, with `CELL_COLUMNS`. `method` is "weak" (p = 0), "mixed" (0 < p < 1), "full" (p = 1) or
        "student"; `p` is the effective one; `weak` is the weak label kind ("cam", "cam++", "irnet") or None where no weak
        labels are used; `fraction` is the student's share of `train` or NaN; `other` names what else the study varies
        ("key=value"); `cell` is the artifact key of its scores.
    counts_CIK3: integers, (cells, images, pathologies, 3): intersection, predicted and true pixels, on the test images.
    """

    name: str
    title: str
    pathologies: tuple[str, ...]
    image_ids: tuple[str, ...]
    cells: pd.DataFrame
    counts_CIK3: np.ndarray
    missing: (
        pd.DataFrame
    )  # one row a cell without scores: name, state ("missing", "failed", "damaged" ...), reason
    stages: pd.DataFrame  # one row a stage that ran: stage, key, seconds, host, settings (JSON), data (fingerprint or None)
    #: One row a run of the plan, after those it needs, with `GRAPH_COLUMNS`; state as in `plan.status.Summary.states`,
    #: seconds NaN where it hasn't run, inputs the keys of what it needs.
    graph: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(GRAPH_COLUMNS)))
    weak_labels: tuple[WeakLabels, ...] = ()  # one an artifact of the plan, made or not
    classifiers: tuple[Classifier, ...] = ()  # one an artifact that is there
    radiologists_IK3: np.ndarray | None = None  # the human benchmark's counts on the same images
    radiologists_note: str = ""  # why their file is left out, or what it lacks
    #: (index into cells, image id) -> masks_KHW, bool, at training size
    predictions: Callable[[int, str], np.ndarray] | None = field(default=None, repr=False)
    #: image id -> (pixels_HW uint8, expert masks_KHW bool), at training size
    image: Callable[[str], tuple[np.ndarray, np.ndarray]] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()  # what of the store had to be left out, a line each
    #: What functions marked with `once` have returned; a changed copy begins without.
    _remembered: dict[str, Any] = field(init=False, default_factory=dict, repr=False, compare=False)


Found = TypeVar("Found")


def once(compute: Callable[[StudyResults], Found]) -> Callable[[StudyResults], Found]:
    """Compute it once a study: every table and figure asks for it. What it returns must not be changed."""
    name = f"{compute.__module__}.{compute.__qualname__}"

    @functools.wraps(compute)
    def remembered(results: StudyResults) -> Found:
        if name not in results._remembered:
            results._remembered[name] = compute(results)
        return results._remembered[name]

    return remembered
