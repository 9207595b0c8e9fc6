"""Score a study's cells once, for all of its tables, figures and claims."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from chexseg.analysis.arms import (
    METHODS_OF,
    Arm,
    Variant,
    by_selection,
    group_cells,
    group_variants,
)
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import Measured, measured
from chexseg.analysis.statistics.scores import miou, pooled_iou
from chexseg.pathologies import PATHOLOGIES

#: The human benchmark, used in place of an arm.
RADIOLOGISTS = "radiologists"
#: Methods of an arm that are kinds of supervision.
SUPERVISIONS = frozenset({"weak", "mixed", "full"})


@dataclass(frozen=True)
class StudyScores:
    """A study's results with the IoU of its cells, its arms and its variants.

    iou_CK: pooled IoU; NaN for a pathology without an expert pixel in the test set. miou_C: the
    mean over pathologies. left_out_C: the number of pathologies that a mean leaves out.
    """

    results: StudyResults
    iou_CK: np.ndarray
    miou_C: np.ndarray
    left_out_C: np.ndarray
    arms: tuple[Arm, ...]
    variants: tuple[Variant, ...]
    short_keys: tuple[str, ...]

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Return task -> values_C: the mIoU as "Avg. IoU", then each pathology's IoU."""
        by_name = zip(self.results.pathologies, self.iou_CK.T, strict=True)
        return {AVERAGE: self.miou_C, **dict(by_name)}

    @property
    def units(self) -> str:
        """Return what intervals over trials count: "draws" if an arm has several, or "trials"."""
        several = any(len({draw for draw, _ in arm.trials}) > 1 for arm in self.arms)
        return "draws" if several else "trials"

    @property
    def beside_paper(self) -> bool:
        """Return whether published values stand beside the study's: it reproduces something."""
        return bool(self.results.reproduces)

    @property
    def mixture(self) -> str:
        """Return the name of the best mixture, which is CheXseg if the study reproduces it."""
        return "CheXseg" if self.beside_paper else "best mixture"

    @property
    def all_ten(self) -> bool:
        """Return whether the paper's means are comparable: the study has its ten pathologies."""
        return self.beside_paper and set(self.results.pathologies) == set(PATHOLOGIES)

    @property
    def varies_supervision(self) -> bool:
        """Return whether arms differ in their kind of supervision, as a reproduction's do."""
        kinds = {arm.method for arm in self.arms} & SUPERVISIONS
        return self.beside_paper or len(kinds) > 1

    @property
    def has_mixtures(self) -> bool:
        """Return whether a variant has several p; otherwise Table 1 repeats the table of arms."""
        return any(len({arm.p for arm in variant.arms}) > 1 for variant in self.variants)

    @property
    def without_expert(self) -> list[str]:
        """Return the pathologies without an expert pixel in the test set, if a cell is scored."""
        if not self.arms:
            return []
        drawn_K = self.results.counts_CIK3[0, :, :, 2].sum(axis=0)
        return [n for n, drawn in zip(self.results.pathologies, drawn_K, strict=True) if not drawn]

    def cell_keys(self, indices: Iterable[int]) -> str:
        """Return the first 12 characters of the cells' keys, joined by spaces."""
        return " ".join(self.short_keys[index] for index in indices)

    def of(self, method: str, weak: str | None = None) -> list[Arm]:
        """Return the arms of a method, optionally with one kind of weak labels."""
        return [arm for arm in self.arms if arm.method == method and weak in (None, arm.weak)]

    def role(self, name: str) -> Arm | None:
        """Return the arm in a role of the paper: the best of its method on the selection images."""
        return by_selection(self.of(METHODS_OF[name]))

    def measure(self, arms: Iterable[Arm | str]) -> dict[Arm | str, Measured]:
        """Return arm -> `inference.measured`; radiologists and baselines must have counts."""
        results = self.results
        fixed = {RADIOLOGISTS: results.radiologists_IK3, **results.baselines}
        return {
            arm: measured(results.counts_CIK3[list(arm.indices)], results.image_ids, arm.trials)
            if isinstance(arm, Arm)
            else measured(np.asarray(fixed[arm])[None], results.image_ids, None)
            for arm in dict.fromkeys(arms)
        }


def score(results: StudyResults) -> StudyScores:
    """Return the scores of a study's finished cells."""
    iou_CK = (
        pooled_iou(results.counts_CIK3, require_expert=True)
        if len(results.cells)
        else np.empty((0, len(results.pathologies)))
    )
    miou_C, left_out_C = miou(iou_CK)
    arms = group_cells(results.cells)
    keys = tuple(key[:12] for key in results.cells["cell"])
    return StudyScores(results, iou_CK, miou_C, left_out_C, arms, group_variants(arms), keys)
