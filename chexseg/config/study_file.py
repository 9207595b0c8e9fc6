"""Read a study file: validate it, apply overrides, and read the studies it includes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chexseg.config import yaml_source
from chexseg.config.checks import check_key, check_points, ranges
from chexseg.config.error_messages import error_location, format_validation_error, shown
from chexseg.config.settings import SHARED, Settings, flat, merged
from chexseg.config.study import Study, StudyFile
from chexseg.errors import UserError, nearest
from chexseg.store import links

#: Sections of a study file, besides `settings`, whose values may be overridden.
OUTSIDE_SETTINGS = ("resources", "execution")
#: Study files that include each other, one in another.
MOST_INCLUDED = 10


def load(
    path: Path, overrides: Mapping[str, Any] | None = None, parents: tuple[Path, ...] = ()
) -> Study:
    """Read a study file and the files it includes.

    overrides: dotted settings and other values that replace those of every file. parents: the files
    that include this one, outermost first. Raises `UserError` with file, line, key, the value,
    what is expected and the nearest correct name.
    """
    try:
        text = links.read_text(path, 4 * yaml_source.MOST_TEXT)  # UTF-8 has up to 4 bytes each
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected: a study file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected: a study file") from None
    return parse(text, str(path), overrides, parents)


def parse(
    text: str,
    where: str,
    overrides: Mapping[str, Any] | None = None,
    parents: tuple[Path, ...] = (),
) -> Study:
    """Return the study in a YAML text, as `load` does for the file `where`."""
    document = yaml_source.read(text, where)
    content = document.content
    if not isinstance(content, dict):
        value = "a list" if isinstance(content, list) else shown(content)
        raise UserError(f"{where}: found {value}; expected: a mapping with name, axes and settings")
    dotted = {
        name: inner
        for key, value in (overrides or {}).items()
        for name, inner in flat(key, value).items()
    }
    # Overrides of sections that are not settings of cells.
    outside = {
        name: dotted.pop(name) for name in list(dotted) if name.split(".")[0] in OUTSIDE_SETTINGS
    }
    given = content.get("settings", {})
    given = merged(given, dotted) if isinstance(given, dict) else given
    for name in dotted:
        check_key(name, f"--set {name}", [f"{section}.*" for section in OUTSIDE_SETTINGS])
    fields = {**content, **ranges(document), "settings": given}
    for name, value in outside.items():
        if isinstance(content.get(name.split(".")[0], {}), dict):
            fields = merged(fields, {name: value})
    try:
        file = StudyFile.model_validate(fields)
    except ValidationError as error:
        raise UserError(
            format_validation_error(
                error, lambda key: error_location(document, dotted | outside, key), StudyFile
            )
        ) from None
    if "studies" in content:
        source = yaml_source.Source(document, outside)
        return _including(file, source, overrides, (*parents, Path(where).resolve()))
    study = Study(**dict(file), given=given, source=yaml_source.Source(document, dotted | outside))
    check_points(study, document, dotted)
    return study


def included_path(file: Path, name: str) -> Path:
    """Return the path of a study that `file` includes by a name relative to it."""
    return file.parent / os.path.expanduser(name)


def _including(
    file: StudyFile,
    source: yaml_source.Source,
    overrides: Mapping[str, Any] | None,
    parents: tuple[Path, ...],
) -> Study:
    """Return the study of a file with the key `studies`."""
    document = source.document
    for key in ("axes", "also", "settings", "search"):
        if key in document.content:
            raise UserError(
                f"{document.location(key)}: {key}: found beside studies;"
                " expected: in the included studies"
            )
    if not file.studies:
        raise UserError(
            f"{document.location('studies')}: studies: found nothing;"
            " expected: a list of one or more study files"
        )
    members: list[Study] = []
    for number, name in enumerate(file.studies):
        begin = f"{document.location(f'studies.{number}')}: studies.{number}: found {name!r}"
        path = included_path(Path(document.where), name)
        if not os.path.isfile(path):  # unlike Path.is_file, False also for a name too long
            near = nearest(path.name, (other.name for other in path.parent.glob("*.y*ml")))
            raise UserError(
                f"{begin}, no such file{near}; expected: a study file, relative to this one"
            )
        if len(parents) > MOST_INCLUDED:
            raise UserError(
                f"{begin}, included by {len(parents)} files in a row;"
                f" expected: at most {MOST_INCLUDED}"
            )
        if path.resolve() in parents:
            raise UserError(
                f"{begin}, which includes itself; expected: a study that doesn't include this one"
            )
        included = load(path, overrides, parents)
        if included.search:
            raise UserError(f"{begin}, a search; expected: a study without a section search")
        for member in included.members or (included,):
            _check_member(member, members, begin)
            members.append(member)
    shared = Settings(**{field: getattr(members[0].settings, field) for field in SHARED})
    return Study(**dict(file) | {"settings": shared}, members=tuple(members), source=source)


def _check_member(member: Study, members: list[Study], begin: str) -> None:
    """Raise `UserError` if a study can't be included beside those before it."""
    if any(member.name == other.name for other in members):
        raise UserError(f"{begin}, a second study named {member.name!r}; expected: different names")
    for field in SHARED:
        value, first = (getattr(one.settings, field) for one in (member, [*members, member][0]))
        if value != first:
            texts = [
                ", ".join(names) if isinstance(names, tuple) else names for names in (value, first)
            ]
            raise UserError(
                f"{begin}, with {field} {texts[0]};"
                f" expected: those of {members[0].name!r}, {texts[1]}"
            )
