"""A study: fixed settings and axes. A cell is one point of the axes; a study that includes others has their cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, field_validator, model_validator

from chexseg.config import search_space
from chexseg.config.settings import Section, Settings, flat, merged, setting_names


class Resources(Section):
    """What one cell takes while it runs. Not part of any key."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0, le=8)
    #: That share each batch of a fit; cpu and gpu are what each of them takes. 1: the fit runs where the cell does.
    workers: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _a_gpu_each(self) -> Resources:
        if self.workers > 1 and 0 < self.gpu < 1:
            raise ValueError(
                f"workers: found {self.workers} with gpu: {self.gpu:g}; allowed: a whole GPU each, or none"
            )
        return self

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("allowed: a share of one GPU, or a whole number of them")
        return value


class StudyFile(Section):
    """What a study file may say."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    reproduces: tuple[str, ...] = ()
    #: Study files, relative to this one, whose cells are this study's; beside them it has no axes and settings of its own.
    studies: tuple[str, ...] = ()
    #: Dotted setting -> its values, or in a search a range of them; cells are the product.
    axes: dict[str, Annotated[Any, BeforeValidator(search_space.axis)]] = {}
    #: Further cells beside the product, each as dotted settings.
    also: tuple[dict[str, Any], ...] = ()
    settings: Settings = Settings()
    resources: Resources = Resources()
    #: With it the axes are searched (`search.space_plan`) and not gone through.
    search: search_space.Search | None = None


class Study(StudyFile):
    """A study as it's meant. `settings` are those that its cells have in common, of an including one pathologies and size."""

    #: The settings as the file has them, before defaults.
    given: dict[str, Any] = Field(default={}, exclude=True)
    #: What it includes, down to studies that have cells of their own.
    members: tuple[Study, ...] = ()

    @property
    def varied(self) -> set[str]:
        """Dotted settings in which two of its cells may differ."""
        if self.members:
            return set(setting_names())
        points = [
            {key: value} for key, values in self.axes.items() for value in search_space.ends(values)
        ] + list(self.also)
        return {
            name for point in points for key, value in point.items() for name in flat(key, value)
        }

    def at(self, point: Mapping[str, Any]) -> Settings:
        """The settings with those of a point laid over them. Raises pydantic's ValidationError."""
        told = {
            name: inner for key, value in point.items() for name, inner in flat(key, value).items()
        }
        return Settings.model_validate(merged(self.given, told))

    def cells(self) -> Iterator[Settings]:
        """Of every combination of the axes' values, then of every entry of `also`; of every member.

        Combinations that mean the same cell are all given: `settings.canonical` tells which these are.
        """
        if self.members:
            yield from itertools.chain.from_iterable(member.cells() for member in self.members)
            return
        whole = Settings.model_validate(self.given)
        known: dict[
            tuple[Any, ...], Any
        ] = {}  # what a point says of a section -> the section, validated once for all points
        for parts in self._points():
            sections: dict[str, list[_Part]] = {}
            for part in parts:
                sections.setdefault(part.section, []).append(part)
            update = {}
            for name, those in sections.items():
                told = (name, *(part.number for part in those))
                if told not in known:
                    point = {key: value for part in those for key, value in part.settings.items()}
                    known[told] = getattr(Settings.model_validate(merged(self.given, point)), name)
                update[name] = known[told]
            yield whole.model_copy(update=update)

    def _points(self) -> Iterator[Sequence[_Part]]:
        """The parts of every combination, then of every entry of `also`."""
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
    """What one key of a point says. number: another one for every such part; settings: dotted, all of one section."""

    number: int
    section: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, number: int, key: str, value: Any) -> _Part:
        return cls(number, key.partition(".")[0], flat(key, value))
