"""Group a study's cells into arms, and arms into variants of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.published import METHODS

#: Settings that define an arm: cells that agree in all of them differ only in their trial.
ARM_COLUMNS = ("method", "weak", "p", "init", "weak_images", "fraction", "epochs", "other")
#: The paper's roles with the method of each.
METHODS_OF = {"weak": "weak", "full": "full", "chexseg": "mixed", "student": "student"}
#: Encoders in the order of their training data.
INITS = ("random", "imagenet", "moco", "chexpert")


@dataclass(frozen=True)
class Arm:
    """Cells that differ only in their trial, as positions in `StudyResults.cells`."""

    method: str
    weak: str | None
    p: float
    init: str
    weak_images: float
    fraction: float
    epochs: float
    other: str
    indices: tuple[int, ...]
    trials: tuple[int, ...]
    selection: float  # mean over trials of the mIoU on the selection images; NaN where unknown

    @property
    def further(self) -> list[str]:
        """Return the varied settings, "key=value", that no other field tells."""
        return further(self.other, self.init, self.weak_images, self.epochs)

    @property
    def name(self) -> str:
        """Return method and p, or a student's fraction, as text."""
        if self.method == "full":
            return "full"
        if self.method == "student":
            return f"student, {100 * self.fraction:g}% of train"
        return f"{METHODS[str(self.weak)]}, p = {self.p:g}"

    def __str__(self) -> str:
        parts = [METHODS[self.weak]] if self.weak else []
        parts += [self.name] if self.method == "student" else [f"p = {self.p:g}"]
        parts += [f"{self.weak_images:,.0f} weak images"] if self.weak_images > 0 else []
        return ", ".join([*parts, f"encoder {self.init}", *self.further])


def further(other: str, init: str, weak_images: float, epochs: float) -> list[str]:
    """Return the varied settings of an arm, "key=value", without these three columns'."""
    columns = {
        "encoder.init": init,
        "labels.weak_images": f"{weak_images:g}",
        "fit.epochs": f"{epochs:g}",
    }
    # A setting's section is named only where its last part is ambiguous.
    columns |= {name.rpartition(".")[2]: value for name, value in columns.items()}
    pairs = (word.partition("=") for word in other.split())
    return [f"{name}={value}" for name, _, value in pairs if columns.get(name) != value]


def group_cells(cells: pd.DataFrame) -> tuple[Arm, ...]:
    """Return the arms of `StudyResults.cells` in the order of their first cell."""
    columns = [[None if pd.isna(value) else value for value in cells[name]] for name in ARM_COLUMNS]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, values in enumerate(zip(*columns, strict=True)):
        groups.setdefault(values, []).append(index)
    trial_C = cells["trial"].tolist()
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
                trials=tuple(int(trial_C[index]) for index in indices),
                selection=float(np.mean(defined)) if defined else np.nan,
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


def is_teacher(arm: Arm, student: Arm) -> bool:
    """Return whether an arm is the student's teacher, up to the trial."""
    return (
        arm.method == "full"
        and arm.init == student.init
        and equal(arm.epochs, student.epochs)
        and set(arm.other.split()) <= set(student.other.split())
    )


def equal(first: float, second: float) -> bool:
    """Return whether two numbers are equal, or both NaN."""
    return first == second or (np.isnan(first) and np.isnan(second))


def by_init(arm: Arm) -> tuple[int, str, float, str]:
    """Return a sort key: the encoder's start in the order of `INITS`, then the other settings."""
    rank = INITS.index(arm.init) if arm.init in INITS else len(INITS)
    return rank, arm.init, float(np.nan_to_num(arm.epochs)), " ".join(arm.further)


def encoder_texts(arms: Sequence[Arm]) -> dict[Arm, str]:
    """Return arm -> its encoder's start and the other settings that vary."""
    varied_epochs = len({arm.epochs for arm in arms if not np.isnan(arm.epochs)}) > 1
    epochs = {arm: [f"{arm.epochs:g} epochs"] if varied_epochs else [] for arm in arms}
    return {arm: " ".join([arm.init, *epochs[arm], *arm.further]) for arm in arms}


# ---- variants ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """Settings that Table 1 and Figure 2 hold fixed, and the arms that have them."""

    init: str
    epochs: float
    weak_images: float  # NaN if only fully supervised cells exist
    other: str = ""  # the study's other varied settings, as in CELL_COLUMNS
    arms: tuple[Arm, ...] = ()

    def has(self, arm: Arm) -> bool:
        """Return whether the arm belongs here; settings of weak labels don't apply to full arms."""
        words, settings = set(arm.other.split()), set(self.other.split())
        return (
            arm.method != "student"
            and arm.init == self.init
            and equal(arm.epochs, self.epochs)
            and (
                words <= settings
                if arm.method == "full"
                else words == settings and equal(arm.weak_images, self.weak_images)
            )
        )

    def __str__(self) -> str:
        images = f"{self.weak_images:,.0f} weak images" if self.weak_images > 0 else ""
        epochs = "" if np.isnan(self.epochs) else f"{self.epochs:g} epochs"
        words = further(self.other, self.init, self.weak_images, self.epochs)
        return ", ".join(filter(None, [f"encoder {self.init}", images, epochs, *words]))


def group_variants(arms: Sequence[Arm]) -> tuple[Variant, ...]:
    """Return the variants of a study, those with most arms first.

    If some variants have mixtures, only these are returned: the others belong to Table 2.
    """
    by_method = (
        [arm for arm in arms if arm.method == method] for method in ("mixed", "weak", "full")
    )
    trained = next(filter(None, by_method), [])
    # The text is the key because a variant may contain NaN, which doesn't equal itself.
    unique = {
        str(variant): variant
        for variant in (Variant(a.init, a.epochs, a.weak_images, a.other) for a in trained)
    }
    # With 10,000 cells, comparing every variant with every arm is slow: index the arms first.
    others: dict[frozenset[str], list[Arm]] = {}
    full: dict[frozenset[str], list[Arm]] = {}
    for arm in arms:
        index = full if arm.method == "full" else others
        index.setdefault(frozenset(arm.other.split()), []).append(arm)
    variants = []
    for variant in unique.values():
        settings = frozenset(variant.other.split())
        candidates = [
            *others.get(settings, ()),
            *(arm for words, group in full.items() if words <= settings for arm in group),
        ]
        chosen = sorted(filter(variant.has, candidates), key=lambda arm: min(arm.indices))
        variants.append(
            Variant(variant.init, variant.epochs, variant.weak_images, variant.other, tuple(chosen))
        )
    return tuple(sorted(variants, key=lambda variant: -len(variant.arms)))
