"""Measure each arm of a study once, for the claims, the result and Figure 5."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics import inference
from chexseg.analysis.statistics.inference import Measured
from chexseg.analysis.statistics.scores import Arm, arms, by_selection

#: The human benchmark, used in place of an arm.
RADIOLOGISTS = "radiologists"
#: The paper's roles with the method of each.
METHODS_OF = {"weak": "weak", "full": "full", "chexseg": "mixed", "student": "student"}


@dataclass
class StudyArms:
    """A study's arms, each measured on first use."""

    results: StudyResults
    _measured: dict[Arm | str, Measured] = field(default_factory=dict, repr=False)

    def measured(self, arm: Arm | str) -> Measured:
        """Return `inference.measured` of an arm or of `RADIOLOGISTS`, which must have counts."""
        if arm not in self._measured:
            counts_TIK3, trials = (
                (self.results.counts_CIK3[list(arm.indices)], arm.trials)
                if isinstance(arm, Arm)
                else (np.asarray(self.results.radiologists_IK3)[None], None)
            )
            self._measured[arm] = inference.measured(counts_TIK3, self.results.image_ids, trials)
        return self._measured[arm]

    def of(self, method: str, weak: str | None = None) -> list[Arm]:
        """Return the arms of a method, optionally with one kind of weak labels."""
        return [
            arm for arm in arms(self.results) if arm.method == method and weak in (None, arm.weak)
        ]

    def role(self, name: str) -> Arm | None:
        """Return the arm in a role of the paper: the best of its method on the selection images."""
        return by_selection(self.of(METHODS_OF[name]))


@once
def study_arms(results: StudyResults) -> StudyArms:
    """Return the study's arms; the same object for the same study."""
    return StudyArms(results)
