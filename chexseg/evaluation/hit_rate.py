"""Hits of the pointing game: does the most representative point lie in the expert's mask? From points or from heat maps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """hits_IK: 1 or 0; NaN where the truth has no pixel, nobody gave a heat map, or the pathology is left out."""

    image_ids: tuple[str, ...]
    hits_IK: np.ndarray
    notes: tuple[str, ...]
    left_out: LeftOut


def hits(truth: MaskFile, pred: Path) -> Hits:
    """Hits on every image that `truth` names, by id, of the pathologies that both name.

    pred: a directory of heat maps, whose most representative point is that of the highest score (`report.heat_maps`), or a
    JSON file of points ``{image id: {pathology: [[x, y], ...]}}``, of which one in the mask is a hit. A mask without points
    is a miss, one without a heat map is left out: so does the published code. Raises `UserError` as reading these does, and
    if `pred` has no image or no pathology of `truth`.
    """
    return _of_maps(truth, Path(pred)) if Path(pred).is_dir() else _of_points(truth, Path(pred))


def covers(rle: dict[str, Any], row: int, column: int) -> bool:
    """Whether a run-length mask, as `MaskFile.runs` gives it, has a pixel set. The pixel must be inside."""
    ends = np.cumsum(run_lengths(rle["counts"].decode("ascii")))
    # Runs go down the columns, unset and set in turns.
    return int(np.searchsorted(ends, column * rle["size"][0] + row, side="right")) % 2 == 1


def _drawn(truth: MaskFile, image_id: str, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Pathology -> mask of what has at least one pixel, of the named pathologies."""
    masks = {name: truth.runs(image_id, name) for name in truth[image_id] if name in names}
    return {
        name: rle
        for name, rle in masks.items()
        if rle and run_lengths(rle["counts"].decode("ascii"))[1::2].any()
    }


def _of_maps(truth: MaskFile, directory: Path) -> Hits:
    found, others = heat_maps.find(directory)
    matched = match(truth, (image_id for image_id, _ in found), truth.path, directory)
    found = {
        (matched.renamed.get(image_id, image_id), name): path
        for (image_id, name), path in found.items()
    }
    names, left_out, notes = scored(
        truth.pathologies, {name for _, name in found}, truth.path, directory, matched
    )
    image_ids, lacking = sorted(truth), []
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id, names).items():
            if (image_id, name) not in found:
                lacking.append(f"{image_id}: {name}")
                continue
            scores_hw = heat_maps.read(found[image_id, name])
            point = heat_maps.most_representative_point(scores_hw, truth.size(image_id))
            hits_IK[i, PATHOLOGIES.index(name)] = covers(rle, *point)
    notes += (
        [f"{directory}: {len(lacking)} masks have no heat map ({lacking[0]}, ...): left out"]
        if lacking
        else []
    )
    notes += (
        [
            f"{directory}: {len(others)} files are of none of the ten pathologies ({others[0].name}, ...)"
        ]
        if others
        else []
    )
    return Hits(
        tuple(image_ids), hits_IK, (*notes, *_unknown(directory, left_out, truth)), left_out
    )


def _of_points(truth: MaskFile, path: Path) -> Hits:
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
    notes += [f"{path}: {missed} masks have no point: misses"] if missed else []
    return Hits(tuple(image_ids), hits_IK, (*notes, *_unknown(path, left_out, truth)), left_out)


def _unknown(pred: Path, left_out: LeftOut, truth: MaskFile) -> list[str]:
    images = left_out.unknown_images
    return (
        [
            f"{pred}: names {len(images)} images that {truth.path} doesn't ({images[0]}, ...): ignored"
        ]
        if images
        else []
    )


def _points(path: Path) -> dict[str, dict[str, list[Any]]]:
    allowed = (
        "allowed: a JSON file {image id: {pathology: [[x, y], ...]}}, or a directory of heat maps"
    )
    try:
        document, repeated = strict_json.read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {allowed}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {allowed}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: found a {type(document).__name__}; {allowed}")
    if repeated:
        raise UserError(f"{path}: found {repeated[0]!r} twice in one object; expected: once")
    out: dict[str, dict[str, list[Any]]] = {}
    for image_id, entry in document.items():
        if not strict_json.is_one_line(image_id):
            raise UserError(
                f"{path}: found the image id {image_id!r}; expected: printable characters"
            )
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {image_id}: found a {type(entry).__name__}; {allowed}")
        named = out.setdefault(image_id, {})
        for name, given in entry.items():
            canonical = ALIASES.get(name, name)
            if canonical not in PATHOLOGIES:
                found = (
                    f"{path}: {image_id}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)}"
                )
                raise UserError(f"{found}; allowed: {', '.join(PATHOLOGIES)}")
            if not isinstance(given, list) or not all(_is_point(point) for point in given):
                raise UserError(f"{path}: {image_id}: {name}: found {str(given)[:60]}; {allowed}")
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
            f"{where}: found the point ({x:g}, {y:g}); allowed: inside {width} x {height} (width x height)"
        )
    return int(y), int(x)
