"""A study's arms, each measured once: what the claims, the result and Figure 5 all read."""

from __future__ import annotations

from dataclasses import dataclass, field

from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics import inference
from chexseg.analysis.statistics.inference import Measured
from chexseg.analysis.statistics.scores import Arm, arms, by_selection

#: In place of an arm: the human benchmark.
RADIOLOGISTS = "radiologists"
#: The paper's roles, and the method of each.
METHODS_OF = {"weak": "weak", "full": "full", "chexseg": "mixed", "student": "student"}


@dataclass
class StudyArms:
    """A study's arms, each measured when first asked for."""

    results: StudyResults
    replicates: int = 1000
    seed: int = 0
    _measured: dict[Arm | str, Measured] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.arms = arms(self.results)

    def measured(self, arm: Arm | str) -> Measured:
        """`inference.measured` of an arm, or of the `RADIOLOGISTS`, who must be there."""
        if arm not in self._measured:
            if isinstance(arm, Arm):
                counts_TIK3, trials = self.results.counts_CIK3[list(arm.indices)], arm.trials
            else:
                counts_TIK3, trials = self.results.radiologists_IK3[None], None
            self._measured[arm] = inference.measured(
                counts_TIK3, self.results.image_ids, trials, self.replicates, self.seed
            )
        return self._measured[arm]

    def mean(self, arm: Arm | str, k: int) -> float:
        return float(self.measured(arm).values_TK[:, k].mean())

    def of(self, method: str, weak: str | None = None) -> list[Arm]:
        return [arm for arm in self.arms if arm.method == method and weak in (None, arm.weak)]

    def role(self, name: str) -> Arm | None:
        """The arm in one of the paper's roles: of its method's the one with the highest mIoU on the selection images."""
        return by_selection(self.of(METHODS_OF[name]))


def study_arms(results: StudyResults, replicates: int = 1000, seed: int = 0) -> StudyArms:
    """The study's arms; for the same replicates and seed the same object, so that nothing is drawn twice."""
    kept = _kept(results)
    if (replicates, seed) not in kept:
        kept[replicates, seed] = StudyArms(results, replicates, seed)
    return kept[replicates, seed]


@once
def _kept(results: StudyResults) -> dict[tuple[int, int], StudyArms]:
    return {}
