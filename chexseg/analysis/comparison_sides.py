"""What `chexseg compare` is given: a study, a cell of one, or another tool's masks; as counts that can stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from chexseg import resolve
from chexseg.analysis import load
from chexseg.analysis.mask_counts import count
from chexseg.analysis.matching import Matching, match
from chexseg.analysis.results import StudyResults
from chexseg.config.settings import Settings, setting_names
from chexseg.data import chexlocalize
from chexseg.data.chexlocalize import MaskFile
from chexseg.data.remote_path import Location
from chexseg.errors import UserError, nearest
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan.graph import Plan
from chexseg.store.store import Store

#: A key is recognised from so many digits on.
SHORTEST_KEY = 6


@dataclass(frozen=True, eq=False)
class Group:
    """Cells that differ only in their trial, or a file, which has neither trials nor settings.

    counts_TIK3: intersection, predicted and true pixels; T is 1 for a file. settings: dotted, but for the trial.
    """

    name: str
    counts_TIK3: np.ndarray
    trials: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison. size: of the square in which pixels are counted, 0 for each image's own size."""

    title: str
    groups: tuple[Group, ...]
    image_ids: tuple[str, ...]
    pathologies: tuple[str, ...]
    size: int
    notes: tuple[str, ...] = ()


def read(
    both: Sequence[str],
    data: Location | None,
    store: Store,
    overrides: Sequence[str] = (),
    gt: Location | None = None,
) -> tuple[Side, Side]:
    """Both sides, on the same images, pathologies and masks, counted at the same size.

    What of these only one side has is left out, with a note; a file has what it names. An image that a file names is one
    that it predicts nothing on wherever it lacks a mask of a pathology that it names elsewhere.

    Each is ``STUDY.yaml``, ``STUDY.yaml#CELL``, where CELL is a cell's name, with or without its trial, or the beginning of
    its key, or ``MASKS.json``, a CheXlocalize file at the images' own sizes. Beside a study that is scored at its training
    size a file's masks are put into the same squares, as the experts' are. data: needed for studies; gt: the truth of files,
    by default the test masks below `data`; overrides: ``KEY=VALUE`` laid over every study's settings.

    Raises `UserError` for anything else, and for sides that can't be compared: other sizes or truths, two studies of other
    images, no common image or pathology.
    """
    sides: list[Side | None] = [
        None if _is_file(text) else _study(text, data, store, overrides) for text in both
    ]
    studies = [side for side in sides if side]
    if gt is None and not all(sides):
        if data is None:
            raise UserError(
                "compare: found neither --gt nor --data; allowed: one of them, for the masks of a file"
            )
        gt = data / chexlocalize.FILES["test"]
    found = [side or _file(text, gt, studies) for text, side in zip(both, sides, strict=True)]
    return _on_one_footing(*found)


def _is_file(text: str) -> bool:
    return text.endswith(".json")


def _study(text: str, data: Location | None, store: Store, overrides: Sequence[str]) -> Side:
    path, _, wanted = text.partition("#")
    if data is None:
        raise UserError(f"--data: missing; allowed: the data root of {path}")
    if wanted.endswith(".json"):
        raise UserError(
            f"{text}: found a file after #; allowed: STUDY.yaml#CELL, or MASKS.json alone"
        )
    (meant,) = resolve.read([Path(path)], data, store, overrides)
    plan = resolve.planned(meant, store)
    results = load.study_results(plan, store)
    if wanted:
        plan = replace(plan, cells=_chosen(plan, wanted, path))
    groups = _groups(plan, results)
    if not groups:
        raise UserError(
            f"{text}: none of {len(plan.cells)} cells has been scored in {store}; allowed: at least one"
        )
    squares = {
        0 if s.score.resolution == "own" else s.size for s in (cell.settings for cell in plan.cells)
    }
    if len(squares) > 1:
        raise UserError(
            f"{text}: its cells are scored at {_sizes(squares)}; allowed: one size, such as of one of its cells"
        )
    scored = sum(len(group.keys) for group in groups)
    notes = (
        []
        if scored == len(plan.cells)
        else [f"{text}: {scored} of {len(plan.cells)} cells finished; the others are left out"]
    )
    return Side(
        text,
        groups,
        results.image_ids,
        results.pathologies,
        squares.pop(),
        (*notes, *results.notes),
    )


def _chosen(plan: Plan, wanted: str, path: str) -> list[Any]:
    cells = [
        cell
        for cell in plan.cells
        if wanted in (cell.name, _without_trial(cell.name))
        or (
            len(wanted) >= SHORTEST_KEY
            and any(key.startswith(wanted) for key in (cell.score, cell.fit))
        )
    ]
    if not cells:
        names = list(
            dict.fromkeys(
                name for cell in plan.cells for name in (_without_trial(cell.name), cell.name)
            )
        )
        told = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise UserError(
            f"{path}: no cell {wanted!r}{nearest(wanted, names)}; allowed: a name, such as {told}, or a key"
        )
    return cells


def _without_trial(name: str) -> str:
    return name.rpartition(" trial ")[0] or name


def _groups(plan: Plan, results: StudyResults) -> tuple[Group, ...]:
    rows = {key: row for row, key in enumerate(results.cells["cell"])}
    found: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
    for cell in plan.cells:
        if cell.score in rows:
            settings = flat(cell.settings)
            found.setdefault(str(settings), []).append((cell, settings))
    return tuple(
        Group(
            name=_without_trial(cells[0][0].name) if len(cells) > 1 else cells[0][0].name,
            counts_TIK3=results.counts_CIK3[[rows[cell.score] for cell, _ in cells]],
            trials=tuple(cell.settings.trial for cell, _ in cells),
            keys=tuple(cell.score for cell, _ in cells),
            settings=cells[0][1],
        )
        for cells in found.values()
    )


def flat(settings: Settings) -> dict[str, Any]:
    """Every dotted setting with its value, but for the trial."""
    return {name: attrgetter(name)(settings) for name in setting_names() if name != "trial"}


def _file(text: str, gt: Location, studies: Sequence[Side]) -> Side:
    """Counts of a file of masks on the images and pathologies that it and the study beside it, or the truth, name.

    At the size of the study, if there is one.
    """
    truth, predicted = chexlocalize.read(gt), chexlocalize.read(Path(text))
    other = studies[0] if studies else None
    reference = other.title if other else gt
    all_ids, all_names = (
        (other.image_ids, other.pathologies) if other else (tuple(sorted(truth)), truth.pathologies)
    )
    (truth, of_truth), (predicted, matching) = (
        _with_ids(masks, all_ids, reference) for masks in (truth, predicted)
    )
    image_ids = tuple(image_id for image_id in all_ids if image_id in predicted)
    names = tuple(name for name in all_names if name in predicted.pathologies)
    notes = [*of_truth.notes, *matching.notes]
    if matching.missing:
        notes.append(
            f"{text}: doesn't name {len(matching.missing)} of {len(all_ids)} images ({matching.missing[0]}, ...): left out;"
            " an image on which nothing is predicted is named with empty masks"
        )
    if matching.unknown:
        notes.append(
            f"{text}: names {len(matching.unknown)} images that {reference} doesn't ({matching.unknown[0]}, ...): left out"
        )
    lacking = {
        text: set(all_names) - set(names),
        reference: set(predicted.pathologies) - set(names),
    }
    for source, missing in lacking.items():
        if missing:
            notes.append(
                f"{source}: doesn't name {', '.join(name for name in PATHOLOGIES if name in missing)}: left out"
            )
    size = other.size if other else 0
    counted = count(truth, predicted, image_ids, names, size)
    if size:
        notes.append(
            f"{text}: its masks are counted in squares of {size} x {size} pixels, as the study's are (nearest neighbour)"
        )
    return Side(
        text,
        (Group(Path(text).name, counted.counts_IK3[None]),),
        image_ids,
        names,
        size,
        tuple(notes),
    )


def _with_ids(
    masks: MaskFile, image_ids: Sequence[str], source: object
) -> tuple[MaskFile, Matching]:
    """Return the masks with the ids of `source`. Raises `UserError` as `match` does."""
    matching = match(image_ids, masks, source, masks.path)
    return masks.renamed(matching.renamed), matching


def _on_one_footing(first: Side, second: Side) -> tuple[Side, Side]:
    if first.size != second.size:
        raise UserError(
            f"{first.title} is scored at {_sizes([first.size])}, {second.title} at {_sizes([second.size])}; allowed: the same"
            " size, such as each image's own: --set score.resolution=own, once both studies are run with it"
        )
    studies = all(group.keys for side in (first, second) for group in side.groups)
    names = tuple(name for name in first.pathologies if name in second.pathologies)
    if not names:
        raise UserError(
            f"{first.title} and {second.title}: found no pathology of both; allowed: at least one"
        )
    if studies and first.image_ids != second.image_ids:
        raise UserError(
            f"{first.title} and {second.title}: scored on other test images; allowed: the same"
        )
    named = set(second.image_ids)
    image_ids = tuple(image_id for image_id in first.image_ids if image_id in named)
    if not image_ids:
        raise UserError(
            f"{first.title} and {second.title}: found no image of both, only such as {first.image_ids[0]} and"
            f" {second.image_ids[0]}; expected: at least one"
        )
    # A file's notes say already what it lacks.
    sides = [_on(side, names, image_ids, noted=studies) for side in (first, second)]
    truths = [side.groups[0].counts_TIK3[0, ..., 2] for side in sides]
    if not np.array_equal(*truths):
        raise UserError(
            f"{first.title} and {second.title}: scored against other expert masks; allowed: the same"
        )
    return sides[0], sides[1]


def _on(side: Side, names: tuple[str, ...], image_ids: tuple[str, ...], noted: bool) -> Side:
    """The side on these of its pathologies and images. noted: with a note of the pathologies that this leaves out."""
    if (names, image_ids) == (side.pathologies, side.image_ids):
        return side
    lost = [name for name in side.pathologies if name not in names]
    notes = (
        [f"{side.title}: left out, as the other lacks it: {', '.join(lost)}"]
        if noted and lost
        else []
    )
    columns = [side.pathologies.index(name) for name in names]
    positions = {image_id: row for row, image_id in enumerate(side.image_ids)}
    rows = [positions[image_id] for image_id in image_ids]
    groups = tuple(
        replace(group, counts_TIK3=group.counts_TIK3[:, rows][:, :, columns])
        for group in side.groups
    )
    return replace(
        side, groups=groups, pathologies=names, image_ids=image_ids, notes=(*side.notes, *notes)
    )


def _sizes(squares: Any) -> str:
    return " and ".join(
        "each image's own size" if size == 0 else f"{size} x {size} pixels"
        for size in sorted(squares)
    )
