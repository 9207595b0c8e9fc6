"""A cell: its settings, what it is called, and the row that tables select it by."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config.settings import TRAINED_ENCODERS, Settings
from chexseg.data.sampling.mixing import effective_probability

#: Settings that the first and last words of a name tell.
_TOLD = {"labels.weak", "labels.p", "distil.fraction", "trial"}


@dataclass(frozen=True)
class Cell:
    """One cell: its settings, its name for people, and the keys of its fit and its scores."""

    name: str
    settings: Settings
    fit: str
    score: str
    #: What the study varies beside trial and what tables know: "key=value" each.
    other: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The settings that tables and figures select by (analysis.results.CELL_COLUMNS)."""
        s = self.settings
        student, p = s.distil.fraction > 0, effective_probability(s.labels.p, s.labels.mixing)
        method = "student" if student else "full" if p == 1 else "weak" if p == 0 else "mixed"
        return {
            "cell": self.score,
            "name": self.name,
            "method": method,
            "weak": None if p == 1 else s.labels.weak,
            "p": p,
            "trial": s.trial,
            "init": s.encoder.init,
            "weak_images": 0 if p == 1 else s.labels.weak_images,
            "fraction": s.distil.fraction if student else float("nan"),
            "epochs": s.fit.epochs,
            "other": " ".join(self.other),
        }


class CellNamer:
    """What cells are called in a study that varies these dotted settings."""

    def __init__(self, varied: Iterable[str]):
        keys = sorted(set(varied) - _TOLD)
        words = [key.rpartition(".")[2] for key in keys]
        words = [
            word if words.count(word) == 1 else key for key, word in zip(keys, words, strict=True)
        ]
        self._keys = [(key, word, attrgetter(key)) for key, word in zip(keys, words, strict=True)]

    def cell(self, settings: Settings, fit: str, score: str) -> Cell:
        other = self._other(settings)
        return Cell(
            " ".join((_kind(settings), *other, f"trial {settings.trial}")),
            settings,
            fit,
            score,
            other,
        )

    def _other(self, s: Settings) -> tuple[str, ...]:
        """``key=value`` of what the study varies, `_kind` doesn't tell and reaches the cell."""
        idle = _irrelevant_settings(s)
        return tuple(
            f"{word}={value(s)}" for key, word, value in self._keys if not key.startswith(idle)
        )


def _kind(s: Settings) -> str:
    """What kind of cell it is, for people."""
    if s.distil.fraction > 0:
        return f"student {100 * s.distil.fraction:g}%"
    return "full" if s.labels.p == 1 else f"{s.labels.weak} p={s.labels.p:g}"


def distinguishing_settings(keys: Iterable[str], cells: Iterable[Settings]) -> set[str]:
    """Of the dotted settings those with several values among the cells that they reach."""
    values: dict[str, set[str]] = {key: set() for key in keys}
    for settings in cells:
        idle = _irrelevant_settings(settings)
        for key, found in values.items():
            if not key.startswith(idle):
                found.add(repr(attrgetter(key)(settings)))
    return {key for key, found in values.items() if len(found) > 1}


def _irrelevant_settings(s: Settings) -> tuple[str, ...]:
    """How the settings begin that don't reach a cell."""
    own = None if s.encoder.imported else s.encoder.init
    return _irrelevant_when(
        s.distil.fraction > 0,
        own,
        s.encoder.init in TRAINED_ENCODERS,
        None if s.labels.p == 1 else s.labels.weak,
    )


@functools.cache
def _irrelevant_when(
    student: bool, own: str | None, importable: bool, weak: str | None
) -> tuple[str, ...]:
    """own: the encoder that isn't imported; weak: the kind of weak labels."""
    idle = [] if student else ["distil."]
    idle += (
        ["pretrain."] * (own != "chexpert")
        + ["moco."] * (own != "moco")
        + ["encoder.imported"] * (not importable)
    )
    if weak is None:
        idle += [
            "classify.",
            "saliency.",
            "irnet.",
            "labels.mixing",
            "labels.weak",
            "labels.prefer",
            "labels.negatives",
        ]
    elif weak != "irnet":
        idle += ["irnet."]
    return tuple(idle)
