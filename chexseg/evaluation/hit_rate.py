"""Count hits of the pointing game: most representative points that lie in the expert's mask.

The points come from a file of points or from heat maps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from chexseg.data import strict_json
from chexseg.data.chexlocalize import MaskFile, run_lengths
from chexseg.data.masks.image_ids import match
from chexseg.errors import UserError, nearest
from chexseg.evaluation import heat_maps
from chexseg.evaluation.left_out import LeftOut, scored
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: Above any coordinate in an image; an integer of hundreds of digits can't become a float.
FARTHEST = 2**31


def hits(truth: MaskFile, pred: Path) -> tuple[tuple[str, ...], np.ndarray, list[str], LeftOut]:
    """Return (image ids of `truth`, hits_IK, notes, everything that only one side names).

    hits_IK: 1 or 0; NaN if the truth has no pixel, the heat map is missing, or the pathology is
    left out.

    pred: a directory of heat maps, whose most representative point has the highest score
    (`heat_maps`), or a JSON file of points ``{image id: {pathology: [[x, y], ...]}}``, where one
    point in the mask is a hit. As in the published code, a mask without points is a miss, and a
    mask without a heat map is left out. Raises `UserError` for an unreadable file, or if `pred` has
    no image or no pathology of `truth`.
    """
    are_maps = pred.is_dir()
    given: Mapping[str, Mapping[str, Any]]  # a file of scores, or a list of points
    given, others = heat_maps.find(pred) if are_maps else (_points(pred), [])
    matched = match(truth, given, truth.path, pred)
    given = {matched.renamed.get(image_id, image_id): entry for image_id, entry in given.items()}
    named = {name for entry in given.values() for name in entry}
    names, left_out, notes = scored(truth.pathologies, named, truth.path, pred, matched)
    image_ids, lacking = tuple(sorted(truth)), []
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id, names).items():
            source, size = given.get(image_id, {}).get(name, []), truth.size(image_id)
            if not source:
                lacking.append(f"{image_id}: {name}")
            if are_maps and not source:
                continue
            if are_maps:
                pixels = [heat_maps.most_representative_point(heat_maps.read(source), size)]
            else:
                pixels = [_pixel(x, y, size, f"{pred}: {image_id}: {name}") for x, y in source]
            hits_IK[i, PATHOLOGIES.index(name)] = any(covers(rle, *pixel) for pixel in pixels)
    if lacking and are_maps:
        notes.append(f"{pred}: {len(lacking)} masks have no heat map ({lacking[0]}, ...): left out")
    elif lacking:
        notes.append(f"{pred}: {len(lacking)} masks have no point: counted as misses")
    if others:
        notes.append(
            f"{pred}: {len(others)} files belong to none of the ten pathologies"
            f" ({others[0].name}, ...)"
        )
    notes += left_out.note_unknown_images(pred, truth.path, "ignored")
    return image_ids, hits_IK, notes, left_out


def covers(rle: dict[str, Any], row: int, column: int) -> bool:
    """Return whether a run-length mask, as `MaskFile.runs` returns it, has a pixel set.

    The pixel must be inside the image.
    """
    # Runs go down the columns and alternate between unset and set pixels.
    ends = np.cumsum(_run_lengths(rle))
    return int(np.searchsorted(ends, column * rle["size"][0] + row, side="right")) % 2 == 1


def _run_lengths(rle: dict[str, Any]) -> np.ndarray:
    return cast(np.ndarray, run_lengths(rle["counts"].decode("ascii")))  # checked by `runs`


def _drawn(truth: MaskFile, image_id: str, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return pathology -> mask for the named pathologies of which the image has a pixel."""
    masks = {name: truth.runs(image_id, name) for name in truth[image_id] if name in names}
    return {name: rle for name, rle in masks.items() if rle and _run_lengths(rle)[1::2].any()}


def _points(path: Path) -> dict[str, dict[str, list[Any]]]:
    expected = (
        "expected: a JSON file {image id: {pathology: [[x, y], ...]}}, or a directory of heat maps"
    )
    try:
        document, repeated = strict_json.read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {expected}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: found a {type(document).__name__}; {expected}")
    if repeated:
        raise UserError(f"{path}: found {repeated[0]!r} twice in one object; expected: once")
    out: dict[str, dict[str, list[Any]]] = {}
    for image_id, entry in document.items():
        if not strict_json.is_one_line(image_id):
            raise UserError(
                f"{path}: found the image id {image_id!r}; expected: printable characters"
            )
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {image_id}: found a {type(entry).__name__}; {expected}")
        named = out.setdefault(image_id, {})
        for name, given in entry.items():
            canonical = ALIASES.get(name, name)
            if canonical not in PATHOLOGIES:
                raise UserError(
                    f"{path}: {image_id}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)};"
                    f" allowed: {', '.join(PATHOLOGIES)}"
                )
            if not isinstance(given, list) or not all(_is_point(point) for point in given):
                raise UserError(f"{path}: {image_id}: {name}: found {repr(given)[:60]}; {expected}")
            if canonical in named:
                raise UserError(
                    f"{path}: {image_id}: found {canonical} under two names; expected: one"
                )
            named[canonical] = given
    return out


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(type(n) in (int, float) and abs(n) < FARTHEST for n in point)
    )


def _pixel(x: float, y: float, size: tuple[int, int], where: str) -> tuple[int, int]:
    height, width = size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"{where}: found the point ({x:g}, {y:g});"
            f" expected: inside {width} x {height} (width x height)"
        )
    return int(y), int(x)
