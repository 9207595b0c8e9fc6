"""The study file: what it may say, the cells it means, and the studies it includes.

A study names fixed settings and axes; a cell is one point of the axes. A study that includes others has their cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from chexseg.errors import UserError, nearest
from chexseg.study import document as yaml_document
from chexseg.study import space
from chexseg.study.document import Document
from chexseg.study.mistakes import check_key, check_points, explain, ranges, subject
from chexseg.study.settings import Section, Settings, flat, merged, setting_names


class Resources(Section):
    """What one cell takes while it runs. Not part of any key."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0, le=8)
    #: That share each batch of a fit; cpu and gpu are what each of them takes. 1: the fit runs where the cell does.
    workers: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _a_gpu_each(self) -> Resources:
        if self.workers > 1 and 0 < self.gpu < 1:
            raise ValueError(f"workers: found {self.workers} with gpu: {self.gpu:g}; allowed: a whole GPU each, or none")
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
    axes: dict[str, Annotated[Any, BeforeValidator(space.axis)]] = {}
    #: Further cells beside the product, each as dotted settings.
    also: tuple[dict[str, Any], ...] = ()
    settings: Settings = Settings()
    resources: Resources = Resources()
    #: With it the axes are searched (`study.search`) and not gone through.
    search: space.Search | None = None


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
        points = [{key: value} for key, values in self.axes.items() for value in space.ends(values)] + list(self.also)
        return {name for point in points for key, value in point.items() for name in flat(key, value)}

    def at(self, point: Mapping[str, Any]) -> Settings:
        """The settings with those of a point laid over them. Raises pydantic's ValidationError."""
        told = {name: inner for key, value in point.items() for name, inner in flat(key, value).items()}
        return Settings.model_validate(merged(self.given, told))

    def cells(self) -> Iterator[Settings]:
        """Of every combination of the axes' values, then of every entry of `also`; of every member.

        Combinations that mean the same cell are all given: `settings.collapse` tells which these are.
        """
        if self.members:
            yield from itertools.chain.from_iterable(member.cells() for member in self.members)
            return
        whole = Settings.model_validate(self.given)
        known: dict[tuple[Any, ...], Any] = {}  # what a point says of a section -> the section, validated once for all points
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
        axes = [[_Part.of(next(numbers), key, value) for value in values] for key, values in self.axes.items()]
        also = ([_Part.of(next(numbers), key, value) for key, value in entry.items()] for entry in self.also)
        return itertools.chain(itertools.product(*axes) if self.axes or not self.also else (), also)


class _Part(NamedTuple):
    """What one key of a point says. number: another one for every such part; settings: dotted, all of one section."""

    number: int
    section: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, number: int, key: str, value: Any) -> _Part:
        return cls(number, key.partition(".")[0], flat(key, value))


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study file and what it includes; `overrides` are dotted settings, and resources, laid over every file's own.

    Raises `UserError`: file, line, key, what was found, what is allowed, the nearest right name.
    """
    return _load(Path(path), overrides or {}, ())


def parse(text: str, where: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """A study from YAML text, as `load` reads it from the file `where`."""
    return _parse(text, where, overrides or {}, ())


def _load(path: Path, overrides: Mapping[str, Any], within: tuple[Path, ...]) -> Study:
    """within: the files that are being read because each includes the next."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a study file is needed") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found no text; a study file is needed") from None
    return _parse(text, str(path), overrides, within)


def _parse(text: str, where: str, overrides: Mapping[str, Any], within: tuple[Path, ...]) -> Study:
    document = yaml_document.read(text, where)
    content = document.content
    if not isinstance(content, dict):
        found = "nothing" if content is None else "a list" if isinstance(content, list) else repr(content)
        raise UserError(f"{where}: found {found}; allowed: a mapping with name, axes and settings")
    laid = {name: inner for key, value in overrides.items() for name, inner in flat(key, value).items()}
    laid, held = ({name: laid[name] for name in laid if name.startswith("resources.") is own} for own in (False, True))
    given = content.get("settings", {})
    given = merged(given, laid) if isinstance(given, dict) else given
    for name in laid:
        check_key(name, f"--set {name}", ["resources.*"])
    told = {**content, **ranges(document), "settings": given}
    try:
        file = StudyFile.model_validate(merged(told, held) if isinstance(content.get("resources", {}), dict) else told)
    except ValidationError as error:
        raise UserError(explain(error, lambda key: subject(document, laid | held, key), StudyFile)) from None
    if "studies" in content:
        return _including(file, document, overrides, (*within, Path(where).resolve()))
    study = Study(**dict(file), given=given)
    check_points(study, document, laid)
    return study


def _including(file: StudyFile, document: Document, overrides: Mapping[str, Any], within: tuple[Path, ...]) -> Study:
    """The study that a file with `studies` means."""
    for key in ("axes", "also", "settings", "search"):
        if key in document.content:
            raise UserError(f"{document.place(key)}: {key}: found beside studies; allowed: in the studies it includes")
    if not file.studies:
        raise UserError(f"{document.place('studies')}: studies: found nothing; allowed: a list of study files, at least one")
    members: list[Study] = []
    for number, name in enumerate(file.studies):
        begin = f"{document.place(f'studies.{number}')}: studies.{number}: found {name!r}"
        path = Path(document.where).parent / name
        if not path.is_file():
            near = nearest(path.name, (other.name for other in path.parent.glob("*.y*ml")))
            raise UserError(f"{begin}, no such file{near}; allowed: study files, relative to this one")
        if path.resolve() in within:
            raise UserError(f"{begin}, which would include itself; allowed: studies that don't lead back to this one")
        included = _load(path, overrides, within)
        if included.search:
            raise UserError(f"{begin}, a search; allowed: studies without a section search")
        for member in included.members or (included,):
            if any(member.name == other.name for other in members):
                raise UserError(f"{begin}, a second study named {member.name!r}; allowed: different names")
            for field in ("pathologies", "size"):  # one report compares masks of one size and one set of pathologies
                own, common = (getattr(one.settings, field) for one in (member, members[0] if members else member))
                if own != common:
                    own, common = (", ".join(value) if isinstance(value, tuple) else value for value in (own, common))
                    raise UserError(f"{begin}, with {field} {own}; allowed: those of {members[0].name!r}, {common}")
            members.append(member)
    shared = Settings(pathologies=members[0].settings.pathologies, size=members[0].settings.size)
    return Study(**dict(file) | {"settings": shared}, members=tuple(members))
