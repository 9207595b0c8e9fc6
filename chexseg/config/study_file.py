"""The study file: what it may say, the cells it means, and the studies it includes.

A study names fixed settings and axes; a cell is one point of the axes. A study that includes others has their cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chexseg.config import yaml_source
from chexseg.config.checks import check_key, check_points, ranges
from chexseg.config.error_messages import error_location, format_validation_error
from chexseg.config.settings import Settings, flat, merged
from chexseg.config.study import Study, StudyFile
from chexseg.config.yaml_source import Document
from chexseg.errors import UserError, nearest


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
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); a study file is needed"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found no text; a study file is needed") from None
    return _parse(text, str(path), overrides, within)


def _parse(text: str, where: str, overrides: Mapping[str, Any], within: tuple[Path, ...]) -> Study:
    document = yaml_source.read(text, where)
    content = document.content
    if not isinstance(content, dict):
        found = (
            "nothing"
            if content is None
            else "a list"
            if isinstance(content, list)
            else repr(content)
        )
        raise UserError(f"{where}: found {found}; allowed: a mapping with name, axes and settings")
    dotted_overrides = {
        name: inner for key, value in overrides.items() for name, inner in flat(key, value).items()
    }
    dotted_overrides, held = (
        {
            name: dotted_overrides[name]
            for name in dotted_overrides
            if name.startswith("resources.") is own
        }
        for own in (False, True)
    )
    given = content.get("settings", {})
    given = merged(given, dotted_overrides) if isinstance(given, dict) else given
    for name in dotted_overrides:
        check_key(name, f"--set {name}", ["resources.*"])
    told = {**content, **ranges(document), "settings": given}
    try:
        file = StudyFile.model_validate(
            merged(told, held) if isinstance(content.get("resources", {}), dict) else told
        )
    except ValidationError as error:
        raise UserError(
            format_validation_error(
                error, lambda key: error_location(document, dotted_overrides | held, key), StudyFile
            )
        ) from None
    if "studies" in content:
        return _including(file, document, overrides, (*within, Path(where).resolve()))
    study = Study(**dict(file), given=given)
    check_points(study, document, dotted_overrides)
    return study


def _including(
    file: StudyFile, document: Document, overrides: Mapping[str, Any], within: tuple[Path, ...]
) -> Study:
    """The study that a file with `studies` means."""
    for key in ("axes", "also", "settings", "search"):
        if key in document.content:
            raise UserError(
                f"{document.place(key)}: {key}: found beside studies; allowed: in the studies it includes"
            )
    if not file.studies:
        raise UserError(
            f"{document.place('studies')}: studies: found nothing; allowed: a list of study files, at least one"
        )
    members: list[Study] = []
    for number, name in enumerate(file.studies):
        begin = f"{document.place(f'studies.{number}')}: studies.{number}: found {name!r}"
        path = Path(document.where).parent / name
        if not path.is_file():
            near = nearest(path.name, (other.name for other in path.parent.glob("*.y*ml")))
            raise UserError(
                f"{begin}, no such file{near}; allowed: study files, relative to this one"
            )
        if path.resolve() in within:
            raise UserError(
                f"{begin}, which would include itself; allowed: studies that don't lead back to this one"
            )
        included = _load(path, overrides, within)
        if included.search:
            raise UserError(f"{begin}, a search; allowed: studies without a section search")
        for member in included.members or (included,):
            if any(member.name == other.name for other in members):
                raise UserError(
                    f"{begin}, a second study named {member.name!r}; allowed: different names"
                )
            for field in (
                "pathologies",
                "size",
            ):  # one report compares masks of one size and one set of pathologies
                own, common = (
                    getattr(one.settings, field)
                    for one in (member, members[0] if members else member)
                )
                if own != common:
                    own, common = (
                        ", ".join(value) if isinstance(value, tuple) else value
                        for value in (own, common)
                    )
                    raise UserError(
                        f"{begin}, with {field} {own}; allowed: those of {members[0].name!r}, {common}"
                    )
            members.append(member)
    shared = Settings(pathologies=members[0].settings.pathologies, size=members[0].settings.size)
    return Study(**dict(file) | {"settings": shared}, members=tuple(members))
