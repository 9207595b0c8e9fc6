"""Define a study's results: finished cells, their counts, and access to the images behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from chexseg.plan.procedure import Deviation

#: Columns of `StudyResults.cells`: settings by which tables and figures select cells.
CELL_COLUMNS = (
    "cell", "name", "method", "weak", "p", "draw", "trial", "init", "weak_images", "fraction",
    "epochs", "other", "selection_miou", "steps", "upstream",
)  # fmt: skip
#: Columns of `StudyResults.stages`.
STAGE_COLUMNS = (
    "stage", "key", "seconds", "host", "settings", "data", "finished", "version", "device",
    "gpu", "cpu",
)  # fmt: skip
#: Columns of `StudyResults.curves`.
CURVE_COLUMNS = ("key", "stage", "name", "step", "loss", "score", "learning rate", "kept")
#: Columns of `StudyResults.graph`.
GRAPH_COLUMNS = ("key", "stage", "label", "state", "seconds", "inputs")
#: Image id -> (pixels_HW uint8, expert masks_KHW bool), at training size.
ImageReader = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class WeakCounts:
    """Pixel counts of weak labels at training size, on the images of `valid` with expert masks.

    counts_IK3: int64, intersection, predicted and true pixels. box_IK: float64, the expected
    intersection of a square with as many pixels as predicted, placed uniformly at random in the
    image. chosen_on_I: bool, the image is an expert training image, on which CAM thresholds are
    chosen if that is their rule. baselines: name -> float64 counts_IK3 of the masks that
    `analysis.baselines` makes from these training images.
    """

    image_ids: tuple[str, ...]
    counts_IK3: np.ndarray
    box_IK: np.ndarray
    chosen_on_I: np.ndarray
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class WeakMaps:
    """Scores and masks of weak labels for one image; a mask is the scores above its threshold.

    thresholds_K: NaN where each image has its threshold (Otsu's).
    """

    scores_Khw: np.ndarray  # float32, in [0, 1], at the network's resolution
    thresholds_K: np.ndarray
    masks_KHW: np.ndarray  # bool, at training size
    boundary_hw: np.ndarray | None = None  # float32, in [0, 1]; IRNet only


@dataclass(frozen=True)
class WeakLabels:
    """One artifact of weak labels, read-only, restricted to the study's pathologies.

    kind: "cam", "cam++" or "irnet". start: for IRNet, the key of the CAMs that it started from.
    settings: "stage.field" -> value of everything the result depends on. reason: why there are no
    counts, or None.
    """

    key: str
    kind: str
    start: str | None
    settings: Mapping[str, Any]
    counts: WeakCounts | None = None
    reason: str | None = None
    maps: Callable[[str], WeakMaps] | None = field(default=None, repr=False)  # by image id
    image: ImageReader | None = field(default=None, repr=False)  # of `valid`


@dataclass(frozen=True)
class Classifier:
    """One classifier of the observations.

    stage: "classify" (used for its CAMs) or "pretrain" (used for its encoder). auroc: observation
    -> area under the ROC curve on `valid`, None if only one class is labelled there. mean_auroc:
    mean over the competition's five observations, which chose the checkpoint of `step` out of
    `steps`. images: number of training images.
    """

    key: str
    stage: str
    settings: Mapping[str, Any]
    auroc: Mapping[str, float | None]
    mean_auroc: float
    step: int
    steps: int
    images: int
    #: observation -> (false positive rates, true positive rates) on `valid`
    roc: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResults:
    """One study's results, read-only.

    cells: one row per finished cell, with `CELL_COLUMNS`. `method` is "weak" (p = 0), "mixed"
        (0 < p < 1), "full" (p = 1), "untrained" (no epochs) or "student"; `p` is the effective p;
        `weak` is the kind of weak labels ("cam", "cam++", "irnet") or None if none are used;
        `fraction` is the student's share of `train` or NaN; `other` lists other varied settings
        ("key=value"); `cell` is the artifact key of the scores.
    counts_CIK3: integers, intersection, predicted and true pixels on the test images.
    missing: one row per cell without scores: name, state ("missing", "failed", "damaged" ...) and
        reason.
    stages: one row per stage that ran, with `STAGE_COLUMNS`: settings are JSON, data is a
        fingerprint or None, finished is a time (ISO 8601), version is chexseg's.
    graph: one row per planned stage run, after its inputs, with `GRAPH_COLUMNS`. `state` as in
        `plan.status.Summary.states`; `seconds` is NaN if it hasn't run; `inputs` are keys.
    """

    name: str
    title: str
    pathologies: tuple[str, ...]
    image_ids: tuple[str, ...]
    cells: pd.DataFrame
    counts_CIK3: np.ndarray
    missing: pd.DataFrame
    stages: pd.DataFrame
    graph: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(GRAPH_COLUMNS)))
    weak_labels: tuple[WeakLabels, ...] = ()  # one per planned artifact, finished or not
    classifiers: tuple[Classifier, ...] = ()  # one per finished artifact
    radiologists_IK3: np.ndarray | None = None  # the human benchmark's counts on the same images
    radiologists_note: str = ""  # why their file is left out, or what it lacks
    #: name -> counts_IK3 of `analysis.baselines`, float64
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    baselines_note: str = ""  # why there are none, or what they were made from
    #: (index into cells, image id) -> masks_KHW, bool, at training size
    predictions: Callable[[int, str], np.ndarray] | None = field(default=None, repr=False)
    image: ImageReader | None = field(default=None, repr=False)
    #: one column per setting that the study varies, without draw and trial, one row per finished
    #: cell; None where the setting doesn't affect the cell
    axes: pd.DataFrame | None = None
    #: one row per epoch of a fit and per checkpoint of a classifier, with `CURVE_COLUMNS`: step is
    #: an epoch or an optimiser step, score the mIoU on the selection images or the mean AUROC on
    #: `valid`, learning rate that of the last step; kept: the result has its weights
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CURVE_COLUMNS)))
    draw_of_seed: Mapping[int, int] = field(default_factory=dict)
    reproduces: tuple[str, ...] = ()  # tables and figures of the paper, such as "table-1"
    #: where the study's settings aren't the published ones; None: not a study of ours
    deviations: tuple[Deviation, ...] | None = None
    study_file: str = ""  # its text
    overrides: tuple[str, ...] = ()  # settings of `--set`, KEY=VALUE
    dashboards: tuple[tuple[str, str], ...] = ()  # name and command, of programs for the store
    notes: tuple[str, ...] = ()  # one line per damaged result that is left out
