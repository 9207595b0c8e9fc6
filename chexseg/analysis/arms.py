"""Group a study's cells into arms, and arms into variants of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.published import METHODS
from chexseg.analysis.statistics.crossed import Trial, by_draw
from chexseg.analysis.statistics.scores import Interval, t_interval

#: Settings that define an arm: cells that agree in all of them differ only in draw and trial.
ARM_COLUMNS = ("method", "weak", "p", "init", "weak_images", "fraction", "epochs", "other")
#: The method and the role of a network that has learned nothing.
UNTRAINED = "untrained"
#: The paper's roles, and this one, with the method of each.
METHODS_OF = {
    "weak": "weak",
    "full": "full",
    "chexseg": "mixed",
    "student": "student",
    UNTRAINED: UNTRAINED,
}
#: Encoders in the order of their training data.
INITS = ("random", "imagenet", "moco", "chexpert")


@dataclass(frozen=True)
class Arm:
    """Cells that differ only in draw and trial, as positions in `StudyResults.cells`.

    trials: of each cell. selection: mean over trials of the mIoU on the selection images; NaN where
    unknown. steps: fewest optimiser steps of a cell. upstream: of each cell, the keys of the stages
    that trained something before its fit, and its expert split.
    """

    method: str
    weak: str | None
    p: float
    init: str
    weak_images: float
    fraction: float
    epochs: float
    other: str
    indices: tuple[int, ...]
    trials: tuple[Trial, ...]
    selection: float
    steps: float
    upstream: tuple[str, ...]

    @property
    def stages(self) -> dict[Trial, str]:
        """Return trial -> `upstream`."""
        return dict(zip(self.trials, self.upstream, strict=True))

    def over_trials(self, values_C: np.ndarray) -> Interval:
        """Return the mean of the arm's values with its t-interval over draws, or over trials."""
        return t_interval(by_draw(values_C[list(self.indices)], self.trials), lowest=0)

    @property
    def further(self) -> list[str]:
        """Return the varied settings, "key=value", that no other field tells."""
        columns = {
            "encoder.init": self.init,
            "labels.weak_images": f"{self.weak_images:g}",
            "fit.epochs": f"{self.epochs:g}",
        }
        # A setting's section is named only where its last part is ambiguous.
        columns |= {name.rpartition(".")[2]: value for name, value in columns.items()}
        pairs = (word.partition("=") for word in self.other.split())
        return [f"{name}={value}" for name, _, value in pairs if columns.get(name) != value]

    @property
    def name(self) -> str:
        """Return method and p, or a student's fraction, as text."""
        if self.method in ("full", UNTRAINED):
            return self.method
        if self.method == "student":
            return f"student, {100 * self.fraction:g}% of train"
        return f"{METHODS[str(self.weak)]}, p = {self.p:g}"

    def __str__(self) -> str:
        parts = [METHODS[self.weak]] if self.weak else []
        named = self.method in ("student", UNTRAINED)
        parts += [self.name] if named else [f"p = {self.p:g}"]
        parts += [f"{self.weak_images:,.0f} weak images"] if self.weak_images > 0 else []
        return ", ".join([*parts, f"encoder {self.init}", *self.further])


def group_cells(cells: pd.DataFrame) -> tuple[Arm, ...]:
    """Return the arms of `StudyResults.cells` in the order of their first cell."""
    columns = [[None if pd.isna(value) else value for value in cells[name]] for name in ARM_COLUMNS]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, values in enumerate(zip(*columns, strict=True)):
        groups.setdefault(values, []).append(index)
    trial_C = list(zip(cells["draw"].astype(int), cells["trial"].astype(int), strict=True))
    upstream_C, steps_C = cells["upstream"].tolist(), cells["steps"].tolist()
    selection_C = pd.to_numeric(cells["selection_miou"]).to_numpy(dtype=float)
    arms = []
    for values, indices in groups.items():
        settings = dict(zip(ARM_COLUMNS, values, strict=True))
        settings["other"] = settings["other"] or ""
        for name in ("p", "weak_images", "fraction", "epochs"):
            settings[name] = np.nan if settings[name] is None else float(settings[name])
        indices.sort(key=trial_C.__getitem__)
        defined = [value for value in selection_C[indices] if not np.isnan(value)]
        arms.append(
            Arm(
                **settings,
                indices=tuple(indices),
                trials=tuple(trial_C[index] for index in indices),
                selection=float(np.mean(defined)) if defined else np.nan,
                steps=float(min(steps_C[index] for index in indices)),
                upstream=tuple(upstream_C[index] for index in indices),
            )
        )
    return tuple(arms)


def by_selection(candidates: Sequence[Arm]) -> Arm | None:
    """Return the arm with the highest mIoU on the selection images, never on the test set.

    Ties are broken by the highest p.
    """
    selected = [arm for arm in candidates if not np.isnan(arm.selection)]
    return max(
        selected or candidates,
        key=lambda arm: (0 if np.isnan(arm.selection) else arm.selection, arm.p),
        default=None,
    )


def teachers(arms: Iterable[Arm], full: Iterable[Arm]) -> dict[Arm, list[Arm]]:
    """Return arm -> the fully supervised arms of its encoder and other settings, up to the trial.

    Settings of weak labels and students don't apply to full supervision, so an arm may vary more.
    """
    # With 10,000 cells, comparing all arms with each other takes too long: index one side.
    by_encoder: dict[tuple[str, str], list[tuple[Arm, set[str]]]] = {}
    for arm in full:
        words = set(arm.other.split())
        by_encoder.setdefault((arm.init, str(arm.epochs)), []).append((arm, words))
    return {
        arm: [
            one for one, words in by_encoder.get((arm.init, str(arm.epochs)), ()) if words <= all_
        ]
        for arm in arms
        for all_ in [set(arm.other.split())]
    }


def equal(first: float, second: float) -> bool:
    """Return whether two numbers are equal, or both NaN."""
    return first == second or (np.isnan(first) and np.isnan(second))


def by_init(arm: Arm) -> tuple[int, str, float, str]:
    """Return a sort key: the encoder's start in the order of `INITS`, then the other settings."""
    rank = INITS.index(arm.init) if arm.init in INITS else len(INITS)
    return rank, arm.init, float(np.nan_to_num(arm.epochs)), " ".join(arm.further)


def encoder_texts(arms: Sequence[Arm]) -> dict[Arm, str]:
    """Return arm -> its encoder's start and the other settings that vary."""
    trained = {arm for arm in arms if arm.method != UNTRAINED}
    varied_epochs = len({arm.epochs for arm in trained if not np.isnan(arm.epochs)}) > 1
    named = trained if varied_epochs else ()
    epochs = {arm: [f"{arm.epochs:g} epochs"] if arm in named else [] for arm in arms}
    return {arm: " ".join([arm.init, *epochs[arm], *arm.further]) for arm in arms}


# ---- variants ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """Arms that agree in what Table 1 and Figure 2 hold fixed. text: these settings."""

    text: str
    arms: tuple[Arm, ...]


def group_variants(arms: Sequence[Arm]) -> tuple[Variant, ...]:
    """Return the variants of a study, those with most arms first.

    If some variants have mixtures, only these are returned: the others belong to Table 2.
    """
    by_method = {m: [arm for arm in arms if arm.method == m] for m in ("mixed", "weak", "full")}
    # The text is the key because settings may contain NaN, which doesn't equal itself.
    trained = {_fixed(arm): arm for arm in next(filter(None, by_method.values()), [])}
    of_text: dict[str, list[Arm]] = {text: [] for text in trained}
    for arm in by_method["mixed"] + by_method["weak"]:
        of_text.get(_fixed(arm), []).append(arm)
    full = teachers(trained.values(), by_method["full"])
    variants = [
        Variant(text, tuple(sorted(of_text[text] + full[arm], key=lambda arm: min(arm.indices))))
        for text, arm in trained.items()
    ]
    return tuple(sorted(variants, key=lambda variant: -len(variant.arms)))


def _fixed(arm: Arm) -> str:
    images = f"{arm.weak_images:,.0f} weak images" if arm.weak_images > 0 else ""
    epochs = "" if np.isnan(arm.epochs) else f"{arm.epochs:g} epochs"
    return ", ".join(filter(None, [f"encoder {arm.init}", images, epochs, *arm.further]))
