"""Choose test images and the cells to show on them, without looking at test scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chexseg.analysis.arms import Arm, by_selection
from chexseg.analysis.claims.headline import role_names
from chexseg.analysis.published import METHODS, PAPERS_METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import miou, patient_of, pooled_iou
from chexseg.analysis.study_scores import StudyScores
from chexseg.errors import ChexsegError


@dataclass(frozen=True)
class Panel:
    """One column of predictions: its titles and the index of its cell, or why it has no masks."""

    title: str
    subtitle: str
    index: int | None
    why_not: str = ""


def choose_images(results: StudyResults, number: int = 6) -> tuple[str, ...]:
    """Return the ids of the test images with most pathologies in the experts' masks."""
    if not len(results.cells):
        return ()
    return one_per_patient(results, (results.counts_CIK3[0, :, :, 2] > 0).sum(axis=1), number)


def one_per_patient(results: StudyResults, score_I: np.ndarray, number: int) -> tuple[str, ...]:
    """Return the ids of the images with the highest scores above 0, one per patient; ties by id."""
    chosen: dict[str, str] = {}
    for score, image_id in sorted(zip(-score_I, results.image_ids, strict=True)):
        if score < 0 and len(chosen) < number:
            chosen.setdefault(patient_of(image_id), image_id)
    return tuple(chosen.values())


def columns(scores: StudyScores) -> list[Panel]:
    """Return the columns of predictions, each of the best cell of its kind on the selection images.

    CAM++ has a column only if it is studied. A kind without a finished cell keeps its column while
    any cells are missing, because those may be of this kind.
    """
    results = scores.results

    def column(title: str, candidates: list[Arm], lacking: str) -> Panel:
        arm = by_selection(candidates)
        if arm is None:
            return Panel(title, "", None, f"No finished cell: {lacking}.")
        best = best_cell(results, arm)
        why_not = "" if results.predictions is not None else "Predictions weren't kept."
        return Panel(title, str(results.cells["name"].iloc[best]), best, why_not)

    studied = {arm.weak for arm in scores.arms}
    shown = [
        *(
            column(f"Weak, {name}", scores.of("weak", kind), f"p = 0, {name}")
            for kind, name in METHODS.items()
            if kind in PAPERS_METHODS or kind in studied
        ),
        column("Full", scores.of("full"), "p = 1"),
        column(role_names(scores)["chexseg"], scores.of("mixed"), "0 < p < 1"),
    ]
    return [panel for panel in shown if panel.index is not None or len(results.missing)]


def best_cell(results: StudyResults, arm: Arm) -> int:
    """Return the index of an arm's cell with the highest mIoU on the selection images."""
    selection_T = results.cells["selection_miou"].to_numpy(dtype=float)[list(arm.indices)]
    return arm.indices[int(np.argmax(np.nan_to_num(selection_T, nan=-1.0)))]


def predicted(results: StudyResults, panel: Panel, image_id: str) -> np.ndarray | str:
    """Return masks_KHW of a column on one image, or the reason why there are none."""
    if panel.index is None or results.predictions is None:
        return panel.why_not
    try:
        return np.asarray(results.predictions(panel.index, image_id), dtype=bool)
    except (OSError, KeyError, ChexsegError) as error:
        return f"The prediction can't be read: {error}"


def image_iou(
    results: StudyResults, index: int, image_id: str, pathologies: Sequence[str]
) -> float:
    """Return a cell's mean IoU over those of the pathologies that experts drew on the image."""
    chosen = [results.pathologies.index(name) for name in pathologies]
    counts_K3 = results.counts_CIK3[index, results.image_ids.index(image_id), chosen]
    return float(miou(pooled_iou(counts_K3[None], require_expert=True))[0])
