"""A cell: its settings, its name, and its row in result tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config.canonical import IDLE_UNTRAINED, idle_map_settings
from chexseg.config.settings import TRAINED_ENCODERS, Settings, setting_names
from chexseg.config.study import Study
from chexseg.data.sampling.mixing import effective_probability
from chexseg.stages.configs import SaliencyConfig
from chexseg.stages.configuration.irnet import OF_BOUNDARIES

#: A comparison of arms with fewer trials has no test.
FEWEST_TRIALS = 3
#: Settings that the first and last words of a name already show.
_NAMED = {"labels.weak", "labels.p", "distil.fraction", "draw", "trial"}
#: Prefixes of the settings that matter only to cells with weak labels.
_OF_WEAK_LABELS = (
    "classify.",
    "saliency.",
    "labels.mixing",
    "labels.weak",
    "labels.prefer",
    "labels.negatives",
)
#: Settings of the masks of CAMs, which IRNet doesn't read.
_OF_CAM_MASKS = tuple(f"saliency.{name}" for name in SaliencyConfig.OF_MASKS)


@dataclass(frozen=True)
class Cell:
    """One cell: its name, its settings, and the keys of its fit and its scores."""

    name: str
    settings: Settings
    fit: str
    score: str
    #: "key=value" of each further setting that the study varies.
    varied: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the settings by which tables select cells (analysis.results.CELL_COLUMNS)."""
        s = self.settings
        student, p = s.distil.fraction > 0, effective_probability(s.labels.p, s.labels.mixing)
        method = "student" if student else "full" if p == 1 else "weak" if p == 0 else "mixed"
        method = method if s.fit.epochs else "untrained"
        return {
            "cell": self.score,
            "name": self.name,
            "method": method,
            "weak": None if p == 1 else s.labels.weak,
            "p": p,
            "draw": s.draw,
            "trial": s.trial,
            "init": s.encoder.init,
            "weak_images": 0 if p == 1 else s.labels.weak_images,
            "fraction": s.distil.fraction if student else float("nan"),
            "epochs": (s.distil.epochs if student else None) or s.fit.epochs,
            "other": " ".join(self.varied),
        }


class CellNamer:
    """Names the cells of a study that varies the given dotted settings."""

    def __init__(self, varied: Iterable[str]):
        names = set(varied)
        keys = sorted(names - _NAMED)
        words = [key.rpartition(".")[2] for key in keys]
        words = [
            word if words.count(word) == 1 else key for key, word in zip(keys, words, strict=True)
        ]
        self._has_draws = "draw" in names
        self._keys = [(key, word, attrgetter(key)) for key, word in zip(keys, words, strict=True)]

    def cell(self, settings: Settings, fit: str, score: str) -> Cell:
        irrelevant = irrelevant_settings(settings)
        varied = tuple(
            f"{word}={value(settings)}"
            for key, word, value in self._keys
            if not key.startswith(irrelevant)
        )
        draw = [f"draw {settings.draw}"] if self._has_draws else []
        name = " ".join((_kind(settings), *varied, *draw, f"trial {settings.trial}"))
        return Cell(name, settings, fit, score, varied)


def _kind(s: Settings) -> str:
    """Return the first words of a cell's name: its method, labels and p."""
    if s.distil.fraction > 0:
        return f"student {100 * s.distil.fraction:g}%"
    if s.labels.p == 1:
        return "full" if s.fit.epochs else "untrained"
    return f"{s.labels.weak} p={s.labels.p:g}"


def named_settings(study: Study, cells: Sequence[Settings]) -> set[str]:
    """Return the dotted settings that the names of a study's cells show.

    Those that it varies; if it includes other studies, those in which its cells differ. If only
    untrained networks differ in `fit.epochs`, it isn't shown, because their names say so.
    """
    if study.members:
        return distinguishing_settings(study.varied, cells)
    if all(settings.fit.epochs for settings in cells):
        return study.varied
    return study.varied - {"fit.epochs"} | distinguishing_settings({"fit.epochs"}, cells)


def distinguishing_settings(keys: Iterable[str], cells: Iterable[Settings]) -> set[str]:
    """Return those dotted settings with several values among the cells they are relevant for."""
    values: dict[str, set[str]] = {key: set() for key in keys}
    for settings in cells:
        irrelevant = irrelevant_settings(settings)
        for key, texts in values.items():
            if not key.startswith(irrelevant):
                texts.add(repr(attrgetter(key)(settings)))
    return {key for key, texts in values.items() if len(texts) > 1}


def varied_values(keys: Iterable[str], cells: Sequence[Cell]) -> dict[str, list[str | None]]:
    """Return dotted setting -> its value in each cell, as text, without draw and trial.

    Only settings with several values. None where a setting doesn't affect the cell.
    """
    names = set(keys) - {"draw", "trial"}
    values: dict[str, list[str | None]] = {
        name: [] for name in sorted(distinguishing_settings(names, (c.settings for c in cells)))
    }
    for cell in cells:
        irrelevant = irrelevant_settings(cell.settings)
        for name, column in values.items():
            text = None
            if not name.startswith(irrelevant):
                value = attrgetter(name)(cell.settings)
                text = json.dumps(value) if isinstance(value, bool) else str(value)
                text = f"{value:g}" if isinstance(value, float) else text
            column.append(text)
    return values


def relevant_settings(s: Settings) -> dict[str, Any]:
    """Return dotted setting -> value of the settings that affect a cell, with draw and trial."""
    irrelevant = irrelevant_settings(s)
    names = (name for name in setting_names() if not name.startswith(irrelevant))
    return {name: attrgetter(name)(s) for name in names}


def irrelevant_settings(s: Settings) -> tuple[str, ...]:
    """Return the prefixes of the settings that don't affect a cell."""
    learned = s.labels.p < 1 and s.labels.weak == "irnet"
    trained = {None if s.encoder.imported else s.encoder.init, s.irnet.init if learned else None}
    return (
        *["distil."] * (s.distil.fraction == 0),
        *["pretrain."] * ("chexpert" not in trained),
        *["moco."] * ("moco" not in trained),
        *["encoder.imported"] * (s.encoder.init not in TRAINED_ENCODERS),
        *["irnet."] * (not learned),
        *(f"irnet.{name}" for name in OF_BOUNDARIES if not s.irnet.boundaries),
        *(f"saliency.{name}" for name in idle_map_settings(s)),
        # A cell's name says that it is untrained.
        *(f"fit.{name}" for name in ("epochs", *IDLE_UNTRAINED) if not s.fit.epochs),
        *(_OF_CAM_MASKS if s.labels.weak == "irnet" else ()),
        *(_OF_WEAK_LABELS if s.labels.p == 1 else ()),
    )
