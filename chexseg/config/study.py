"""A study: fixed settings and axes.

A cell is one point of the axes. A study that includes others has their cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, SkipValidation, model_validator

from chexseg.config import search_space
from chexseg.config.settings import Section, Settings, flat, merged, setting_names
from chexseg.config.yaml_source import Source


def _off_for_false(value: Any) -> Any:
    """Return ``off`` for false: YAML takes the word for it."""
    return "off" if value is False else value


def _validate_gpus(value: Any) -> Any:
    """Return auto or a number. One error here replaces pydantic's one per union member."""
    if value == "auto":
        return value
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 8:
        raise ValueError("expected: auto, or a number from 0 to 8")
    if number > 1 and number != int(number):
        raise ValueError("expected: at most 1, or a whole number")
    return number


class Resources(Section):
    """Resources of running stages. Not part of any key."""

    #: CPUs of a cell; also its number of PyTorch threads.
    cpu: float = Field(default=1, gt=0)
    #: GPUs of a cell: a share up to 1, a whole number, or auto for the share with which all cells
    #: are done soonest (`plan.gpu_share`).
    gpu: Annotated[float | Literal["auto"], BeforeValidator(_validate_gpus)] = 0
    #: Number of workers that share each batch of a fit; each takes `cpu` and `gpu`. 1: the fit runs
    #: in the cell's process.
    workers: int = Field(default=1, ge=1)
    #: Number of workers that share each batch of `classify`, `pretrain`, `moco` and `irnet`. With
    #: GPUs each has one to itself.
    stage_workers: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _a_gpu_each(self) -> Resources:
        if self.workers > 1 and self.gpu != "auto" and 0 < self.gpu < 1:
            raise ValueError(
                f"workers: found {self.workers} with gpu: {self.gpu:g};"
                " expected: a whole GPU each, or none"
            )
        return self


class Execution(Section):
    """Execution of stages on a GPU, and reporting of trainings. Not part of any key."""

    #: auto: training steps are replayed as CUDA graphs, which are several times faster. off: every
    #: kernel is launched from Python. Rounding may differ.
    graphs: Annotated[Literal["auto", "off"], BeforeValidator(_off_for_false)] = "auto"
    #: Tools that get the settings and figures of each training while it runs, beside TensorBoard's
    #: files: `mlflow`, `wandb`, or both. Servers and credentials come from each tool's environment
    #: variables.
    trackers: tuple[Literal["mlflow", "wandb"], ...] = ()


Reproduced = Literal[
    "table-1", "table-2", "figure-2", "figure-3", "figure-4a", "figure-4b", "figure-5"
]


class StudyFile(Section):
    """The keys of a study file."""

    #: Name of the study in files, tables and metrics: lowercase letters, digits, dots, hyphens and
    #: underscores.
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=150)
    #: Heading of its report.
    title: str = ""
    #: Tables and figures of the paper that the study reproduces. Its report judges the paper's
    #: claims on them; a study without any is asked about its own axes.
    reproduces: tuple[Reproduced, ...] = ()
    #: Study files to include, relative to this one, instead of axes, also, settings and search.
    studies: tuple[str, ...] = ()
    #: For each dotted setting a list of values, or in a search a range. Cells are the product.
    axes: dict[str, Annotated[Any, BeforeValidator(search_space.axis)]] = {}
    #: Further cells, each a mapping of dotted settings.
    also: tuple[dict[str, Any], ...] = ()
    settings: Settings = Settings()
    resources: Resources = Resources()
    execution: Execution = Execution()
    #: If present, points of the axes are sampled (`search.space_plan`) instead of all planned.
    search: search_space.Search | None = None


class Study(StudyFile):
    """A validated study.

    `settings` holds the values shared by all cells; for a study that includes others, only
    `pathologies` and `size`.
    """

    #: The settings in the file, without defaults.
    given: dict[str, Any] = Field(default={}, exclude=True)
    #: The included studies that have axes; studies that include others are expanded.
    members: tuple[Study, ...] = ()
    #: The file, for messages about its settings.
    source: SkipValidation[Source | None] = Field(default=None, exclude=True, repr=False)

    @property
    def varied(self) -> set[str]:
        """Return the dotted settings in which two cells may differ."""
        if self.members:
            return set(setting_names())
        points = [
            {key: value} for key, values in self.axes.items() for value in search_space.ends(values)
        ] + list(self.also)
        return {
            name for point in points for key, value in point.items() for name in flat(key, value)
        }

    def at(self, point: Mapping[str, Any]) -> Settings:
        """Return the settings of a point. Raises pydantic's ValidationError."""
        dotted = {
            name: inner for key, value in point.items() for name, inner in flat(key, value).items()
        }
        return Settings.model_validate(merged(self.given, dotted))

    def cells(self) -> Iterator[Settings]:
        """Yield the settings of every combination of the axes' values, then of every `also`.

        If the study includes others, yield those of each. Combinations of the same cell are all
        yielded: `canonical` makes their settings equal.
        """
        if self.members:
            yield from itertools.chain.from_iterable(member.cells() for member in self.members)
            return
        defaults = Settings.model_validate(self.given)
        # (section, numbers of its parts) -> the section, validated once for all points.
        validated: dict[tuple[object, ...], Any] = {}
        for parts in self._points():
            sections: dict[str, list[_Part]] = {}
            for part in parts:
                sections.setdefault(part.section, []).append(part)
            update = {}
            for name, group in sections.items():
                key = (name, *(part.number for part in group))
                if key not in validated:
                    point = {name: value for part in group for name, value in part.settings.items()}
                    settings = Settings.model_validate(merged(self.given, point))
                    validated[key] = getattr(settings, name)
                update[name] = validated[key]
            yield defaults.model_copy(update=update)

    def _points(self) -> Iterator[Sequence[_Part]]:
        """Return the parts of every combination, then of every entry of `also`."""
        numbers = itertools.count()
        axes = [
            [_Part.of(next(numbers), key, value) for value in values]
            for key, values in self.axes.items()
        ]
        also = (
            [_Part.of(next(numbers), key, value) for key, value in entry.items()]
            for entry in self.also
        )
        return itertools.chain(itertools.product(*axes) if self.axes or not self.also else (), also)


class _Part(NamedTuple):
    """One key of a point. number: unique in the study. settings: dotted, all of one section."""

    number: int
    section: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, number: int, key: str, value: Any) -> _Part:
        return cls(number, key.partition(".")[0], flat(key, value))
