"""Measure the stored masks of the arms in the paper's roles by more than IoU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np

from chexseg import parallel
from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.headline import role_names
from chexseg.analysis.classifiers import MEAN
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics import mask_measures
from chexseg.analysis.statistics.crossed import by_draw
from chexseg.analysis.statistics.mask_measures import FIELDS
from chexseg.analysis.statistics.scores import t_interval
from chexseg.analysis.study_scores import StudyScores
from chexseg.analysis.tables.value_table import ValueTable, number, value_table
from chexseg.errors import counted
from chexseg.progress import Reporter

#: Why a pathology that has expert masks lacks its specificity.
NO_NEGATIVE = "an expert mask on every test image"
#: Measures that may be above 1.
UNBOUNDED = ("HD95 px", "area ratio")
#: Predicted masks that keep a process busy for longer than its start.
MASKS_A_PROCESS = 5000


def lacking(results: StudyResults) -> str:
    """Return why a study's masks can't be measured; "" if they can."""
    if not len(results.cells):
        return "no cell has finished"
    if results.predictions is None:
        return "the predicted masks aren't available"
    if results.image is None:
        return "the store lacks the ingested test images with their expert masks"
    return ""


def measures(
    scores: StudyScores, roles: Mapping[str, Arm], progress: Reporter
) -> ValueTable | None:
    """Return `mask_measures.MEASURES` by pathology and arm, after their mean over pathologies.

    None if the masks are `lacking`. roles: from `headline.choose`. An arm with several roles has
    one row. An arm's value is the mean over its trials.
    """
    results = scores.results
    if lacking(results):
        return None
    arms: dict[Arm, str] = {}
    names = role_names(scores)
    for role, arm in roles.items():
        arms.setdefault(arm, names[role])
    cells = sorted(index for arm in arms for index in arm.indices)
    by_measure = with_means(_measure(results, cells, progress))
    rows = []
    for k, task in enumerate((MEAN, *results.pathologies)):
        for arm, name in arms.items():
            trials = np.searchsorted(cells, arm.indices)
            for measure, values_CK in by_measure.items():
                highest = np.inf if measure in UNBOUNDED else 1.0
                values_U = by_draw(values_CK[trials, k], arm.trials)
                interval = t_interval(values_U, lowest=0.0, highest=highest)
                has_expert = not np.isnan(by_measure["Dice"][trials, k]).all()
                reason = NO_NEGATIVE if has_expert and np.isnan(interval.mean) else None
                columns = number(interval, reason=reason, cells=scores.cell_keys(arm.indices))
                rows.append({"pathology": task, "arm": name, "measure": measure} | columns)
    return value_table(rows, ("pathology", "arm"), "measure")


def with_means(values_CIKF: np.ndarray) -> dict[str, np.ndarray]:
    """Return measure -> values_CK, each pathology's after their mean.

    The mean of the area ratio is the ratio of all pathologies together: single ratios may be huge.
    """
    measured = mask_measures.over_images(values_CIKF)
    defined_K = ~np.isnan(measured["Dice"][0])
    joined_CN1F = values_CIKF[:, :, defined_K].reshape(len(values_CIKF), -1, 1, len(FIELDS))
    joined_C1 = mask_measures.over_images(joined_CN1F)["area ratio"]
    means = {
        name: mask_measures.ratio(
            np.nansum(values_CK, axis=1, keepdims=True),
            (~np.isnan(values_CK)).sum(axis=1, keepdims=True),
        )
        for name, values_CK in measured.items()
    }
    means["area ratio"] = joined_C1
    return {name: np.hstack([means[name], values_CK]) for name, values_CK in measured.items()}


def _measure(results: StudyResults, cells: Sequence[int], progress: Reporter) -> np.ndarray:
    """Return values_CIKF, `mask_measures.FIELDS` of the cells' masks; several processes measure."""
    name, images = f"{results.name}: measures", len(results.image_ids)
    total = images * len(cells)
    processes = min(parallel.cores(), total * len(results.pathologies) // MASKS_A_PROCESS)
    values_NKF = []
    pairs = _packed_masks(results, cells)
    with closing(parallel.ordered(mask_measures.of_packed, pairs, processes)) as measured:
        for values_KF in measured:
            values_NKF.append(values_KF)
            progress.update(name, len(values_NKF), total, "images")
    progress.finish(name, f"{images} images of {counted(len(cells), 'cell')}")
    return np.reshape(values_NKF, (len(cells), images, *np.shape(values_NKF)[1:]))


def _packed_masks(results: StudyResults, cells: Sequence[int]) -> Iterator[mask_measures.Packed]:
    """Yield each cell's predicted and expert masks of each image, as bits: pickled quickly."""
    if results.predictions is None or results.image is None:
        return
    expert = []
    for image_id in results.image_ids:
        _, expert_KHW = results.image(image_id)
        expert.append((np.packbits(expert_KHW), expert_KHW.shape))
    for index in cells:
        for image_id, (expert_bits, shape) in zip(results.image_ids, expert, strict=True):
            yield np.packbits(results.predictions(index, image_id)), expert_bits, shape
