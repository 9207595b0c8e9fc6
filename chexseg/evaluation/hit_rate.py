"""Count hits of the pointing game: most representative points that lie in the expert's mask.

The points come from a file of points or from heat maps.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from chexseg.analysis.matching import match
from chexseg.data import strict_json
from chexseg.data.chexlocalize import MaskFile, run_lengths
from chexseg.errors import UserError, nearest
from chexseg.evaluation import heat_maps
from chexseg.evaluation.left_out import LeftOut, scored
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: Above any coordinate in an image; an integer of hundreds of digits can't become a float.
FARTHEST = 2**31


@dataclass(frozen=True)
class Hits:
    """Hits of every image and pathology.

    hits_IK: 1 or 0; NaN if the truth has no pixel, the heat map is missing, or the pathology is
    left out.
    """

    image_ids: tuple[str, ...]
    hits_IK: np.ndarray
    notes: tuple[str, ...]
    left_out: LeftOut


def hits(truth: MaskFile, pred: Path) -> Hits:
    """Return hits on every image of `truth`, by id, for the pathologies that both sides name.

    pred: a directory of heat maps, whose most representative point has the highest score
    (`heat_maps`), or a JSON file of points ``{image id: {pathology: [[x, y], ...]}}``, where one
    point in the mask is a hit. As in the published code, a mask without points is a miss, and a
    mask without a heat map is left out. Raises `UserError` for an unreadable file, or if `pred` has
    no image or no pathology of `truth`.
    """
    return _from_maps(truth, pred) if pred.is_dir() else _from_points(truth, pred)


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


def _from_maps(truth: MaskFile, directory: Path) -> Hits:
    paths, others = heat_maps.find(directory)
    matched = match(truth, (image_id for image_id, _ in paths), truth.path, directory)
    paths = {
        (matched.renamed.get(image_id, image_id), name): path
        for (image_id, name), path in paths.items()
    }
    names, left_out, notes = scored(
        truth.pathologies, {name for _, name in paths}, truth.path, directory, matched
    )
    image_ids, lacking = sorted(truth), []
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id, names).items():
            if (image_id, name) not in paths:
                lacking.append(f"{image_id}: {name}")
                continue
            scores_hw = heat_maps.read(paths[image_id, name])
            point = heat_maps.most_representative_point(scores_hw, truth.size(image_id))
            hits_IK[i, PATHOLOGIES.index(name)] = covers(rle, *point)
    if lacking:
        notes.append(
            f"{directory}: {len(lacking)} masks have no heat map ({lacking[0]}, ...): left out"
        )
    if others:
        notes.append(
            f"{directory}: {len(others)} files belong to none of the ten pathologies"
            f" ({others[0].name}, ...)"
        )
    notes += _unknown(directory, left_out, truth)
    return Hits(tuple(image_ids), hits_IK, tuple(notes), left_out)


def _from_points(truth: MaskFile, path: Path) -> Hits:
    points = _points(path)
    matched = match(truth, points, truth.path, path)
    points = {matched.renamed.get(image_id, image_id): entry for image_id, entry in points.items()}
    named = {name for entry in points.values() for name in entry}
    names, left_out, notes = scored(truth.pathologies, named, truth.path, path, matched)
    image_ids, missed = sorted(truth), 0
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id, names).items():
            given = points.get(image_id, {}).get(name, [])
            missed += not given
            pixels = [
                _pixel(x, y, truth.size(image_id), f"{path}: {image_id}: {name}") for x, y in given
            ]
            hits_IK[i, PATHOLOGIES.index(name)] = any(covers(rle, *pixel) for pixel in pixels)
    notes += [f"{path}: {missed} masks have no point: counted as misses"] if missed else []
    return Hits(tuple(image_ids), hits_IK, (*notes, *_unknown(path, left_out, truth)), left_out)


def _unknown(pred: Path, left_out: LeftOut, truth: MaskFile) -> list[str]:
    images = left_out.unknown_images
    if not images:
        return []
    return [
        f"{pred}: names {len(images)} images that {truth.path} doesn't ({images[0]}, ...): ignored"
    ]


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
                raise UserError(f"{path}: {image_id}: {name}: found {str(given)[:60]}; {expected}")
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
