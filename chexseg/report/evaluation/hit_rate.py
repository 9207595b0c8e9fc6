"""Hits of the pointing game: does the most representative point lie in the expert's mask? From points or from heat maps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chexseg.data.chexlocalize import MaskFile, run_lengths
from chexseg.errors import UserError, nearest
from chexseg.pathologies import ALIASES, PATHOLOGIES
from chexseg.report.evaluation import heat_maps


@dataclass(frozen=True)
class Hits:
    """hits_IK: 1 or 0; NaN where the truth has no pixel, or nobody gave a heat map."""

    image_ids: tuple[str, ...]
    hits_IK: np.ndarray
    notes: tuple[str, ...]


def hits(truth: MaskFile, pred: Path) -> Hits:
    """Hits on every image that `truth` names, by id, of the ten pathologies.

    pred: a directory of heat maps, whose most representative point is that of the highest score (`report.heat_maps`), or a
    JSON file of points ``{image id: {pathology: [[x, y], ...]}}``, of which one in the mask is a hit. A mask without points
    is a miss, one without a heat map is left out: so does the published code. Raises `UserError` as reading these does.
    """
    return _of_maps(truth, Path(pred)) if Path(pred).is_dir() else _of_points(truth, Path(pred))


def covers(rle: dict[str, Any], row: int, column: int) -> bool:
    """Whether a run-length mask, as `MaskFile.runs` gives it, has a pixel set. The pixel must be inside."""
    ends = np.cumsum(run_lengths(rle["counts"].decode("ascii")))
    # Runs go down the columns, unset and set in turns.
    return int(np.searchsorted(ends, column * rle["size"][0] + row, side="right")) % 2 == 1


def _drawn(truth: MaskFile, image_id: str) -> dict[str, dict[str, Any]]:
    """Pathology -> mask of what has at least one pixel."""
    masks = {name: truth.runs(image_id, name) for name in truth[image_id]}
    return {name: rle for name, rle in masks.items() if rle and run_lengths(rle["counts"].decode("ascii"))[1::2].any()}


def _of_maps(truth: MaskFile, directory: Path) -> Hits:
    found, others = heat_maps.find(directory)
    image_ids, lacking = sorted(truth), []
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id).items():
            if (image_id, name) not in found:
                lacking.append(f"{image_id}: {name}")
                continue
            scores_hw = heat_maps.read(found[image_id, name])
            point = heat_maps.most_representative_point(scores_hw, truth.size(image_id))
            hits_IK[i, PATHOLOGIES.index(name)] = covers(rle, *point)
    notes = [f"{directory}: {len(lacking)} masks have no heat map ({lacking[0]}, ...): left out"] if lacking else []
    notes += [f"{directory}: {len(others)} files are of none of the ten pathologies ({others[0].name}, ...)"] if others else []
    return Hits(tuple(image_ids), hits_IK, tuple(notes))


def _of_points(truth: MaskFile, path: Path) -> Hits:
    points = _points(path)
    image_ids, missed = sorted(truth), 0
    hits_IK = np.full((len(image_ids), len(PATHOLOGIES)), np.nan)
    for i, image_id in enumerate(image_ids):
        for name, rle in _drawn(truth, image_id).items():
            given = points.get(image_id, {}).get(name, [])
            missed += not given
            pixels = [_pixel(x, y, truth.size(image_id), f"{path}: {image_id}: {name}") for x, y in given]
            hits_IK[i, PATHOLOGIES.index(name)] = any(covers(rle, *pixel) for pixel in pixels)
    notes = [f"{path}: {missed} masks have no point: misses"] if missed else []
    surplus = sorted(set(points) - set(truth))
    notes += [f"{path}: names {len(surplus)} images that {truth.path} doesn't ({surplus[0]}, ...)"] if surplus else []
    return Hits(tuple(image_ids), hits_IK, tuple(notes))


def _points(path: Path) -> dict[str, dict[str, list[Any]]]:
    allowed = "allowed: a JSON file {image id: {pathology: [[x, y], ...]}}, or a directory of heat maps"
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {allowed}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {allowed}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: found a {type(document).__name__}; {allowed}")
    out: dict[str, dict[str, list[Any]]] = {}
    for image_id, entry in document.items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {image_id}: found a {type(entry).__name__}; {allowed}")
        for name, given in entry.items():
            canonical = ALIASES.get(name, name)
            if canonical not in PATHOLOGIES:
                found = f"{path}: {image_id}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)}"
                raise UserError(f"{found}; allowed: {', '.join(PATHOLOGIES)}")
            if not isinstance(given, list) or not all(_is_point(point) for point in given):
                raise UserError(f"{path}: {image_id}: {name}: found {str(given)[:60]}; {allowed}")
            out.setdefault(image_id, {})[canonical] = given
    return out


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(type(n) in (int, float) and math.isfinite(n) for n in point)


def _pixel(x: float, y: float, size: tuple[int, int], where: str) -> tuple[int, int]:
    height, width = size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"{where}: found the point ({x:g}, {y:g}); allowed: inside {width} x {height} (width x height)")
    return int(y), int(x)
