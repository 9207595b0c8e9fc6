"""Read the two sides of `chexseg compare` as comparable counts.

A side is a study, a cell of one, or a file of masks from another tool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from chexseg import resolve
from chexseg.analysis import load
from chexseg.analysis.statistics.crossed import Trial
from chexseg.config.settings import Settings, setting_names
from chexseg.data import chexlocalize
from chexseg.data.masks.counts import count
from chexseg.data.masks.image_ids import renamed
from chexseg.data.remote_path import Location
from chexseg.data.resampling import MaskResize
from chexseg.errors import UserError, counted
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan import selection
from chexseg.plan.cells import Cell, irrelevant_settings
from chexseg.store import marker
from chexseg.store.store import Store

#: Words for `ingest.mask_resize` in notes.
RESIZING: dict[MaskResize, str] = {
    "nearest": "nearest neighbour",
    "bilinear": "bilinear, then rounded",
    "area": "by area",
}


@dataclass(frozen=True, eq=False)
class Group:
    """Cells that differ only in draw and trial, or a file, which has neither trials nor settings.

    counts_TIK3: intersection, predicted and true pixels; T is 1 for a file. settings: dotted name
    -> value, without draw and trial. upstream: trial -> the keys of the stages that trained
    something before its fit. steps: fewest optimiser steps of a cell. idle: prefixes of the
    settings that don't affect the cells.
    """

    name: str
    counts_TIK3: np.ndarray
    trials: tuple[Trial, ...] = ()
    keys: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    upstream: Mapping[Trial, str] = field(default_factory=dict)
    steps: float = np.inf


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    size: side in pixels of the square in which pixels are counted; 0 for each image's native size.
    resize: how the experts' masks were resized to these squares; no matter at native size.
    """

    title: str
    groups: tuple[Group, ...]
    image_ids: tuple[str, ...]
    pathologies: tuple[str, ...]
    size: int
    notes: tuple[str, ...] = ()
    resize: MaskResize = "nearest"


def read(
    both: Sequence[str],
    data: Location | None,
    store: Store,
    overrides: Sequence[str] = (),
    gt: Location | None = None,
) -> tuple[Side, Side]:
    """Return both sides, counted on the same images, pathologies and masks at the same size.

    Each of the two texts is one of

    - ``STUDY.yaml``;
    - ``STUDY.yaml#CELL``: a cell's name, with or without draw and trial, or an abbreviated key;
    - ``MASKS.json``: a CheXlocalize file at the images' native sizes. Against a study scored at its
      training size, its masks are resized to the same squares as the experts' masks.

    Images and pathologies of only one side are left out, with a note. In an image that a file
    names, a missing mask of a pathology that the file names elsewhere counts as empty.

    data: required for studies. gt: the truth of files, by default the test masks in `data`.
    overrides: ``KEY=VALUE``, applied to the settings of all studies.

    Raises `UserError` for any other text, and for sides that can't be compared: different sizes or
    truths, studies of different images, no common image or pathology.
    """
    studies = {
        text: _read_study(text, data, store, overrides)
        for text in both
        if not text.endswith(".json")
    }
    experts = data and data / chexlocalize.FILES["test"]
    gt = gt or experts
    if gt is None:
        raise UserError(
            "compare: found neither --gt nor --data; expected: one of them, for a mask file"
        )
    study = next(iter(studies.values()), None)
    if study and experts and gt != experts:
        _check_truth(gt, experts, study)
    first, second = (studies.get(text) or _read_file(text, gt, study) for text in both)
    return _on_common_ground(first, second)


def _read_study(text: str, data: Location | None, store: Store, overrides: Sequence[str]) -> Side:
    path, wanted = selection.study_and_cell(text)
    if data is None:
        raise UserError(f"--data: missing; expected: the data root of {path}")
    marker.check_exists(store)
    (study,) = resolve.read([Path(path)], data, store, overrides)
    plan = resolve.planned(study, store)
    results = load.study_results(plan, store)
    cells = selection.cells_named(plan.cells, wanted, path) if wanted else plan.cells
    rows = {key: row for row, key in enumerate(results.cells["cell"])}
    upstream, steps = (
        dict(zip(results.cells["cell"], results.cells[name], strict=True))
        for name in ("upstream", "steps")
    )
    by_settings: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.score in rows:
            by_settings.setdefault(str(flat(cell.settings)), []).append(cell)
    groups = tuple(
        Group(
            name=selection.arm_name(same[0].name) if len(same) > 1 else same[0].name,
            counts_TIK3=results.counts_CIK3[[rows[cell.score] for cell in same]],
            trials=tuple((cell.settings.draw, cell.settings.trial) for cell in same),
            keys=tuple(cell.score for cell in same),
            settings=flat(same[0].settings),
            # The fraction says that a cell is no student.
            idle=tuple(set(irrelevant_settings(same[0].settings)) - {"distil."}),
            upstream={
                (cell.settings.draw, cell.settings.trial): upstream[cell.score] for cell in same
            },
            steps=min(steps[cell.score] for cell in same),
        )
        for same in by_settings.values()
    )
    if not groups:
        raise UserError(
            f"{text}: none of {counted(len(cells), 'cell')} has been scored in {store};"
            " expected: at least one"
        )
    sizes = {load.counted_size(cell.settings) for cell in cells}
    if len(sizes) > 1:
        raise UserError(
            f"{text}: its cells are scored at {_sizes(sizes)}; expected: one size"
            " (hint: compare one of its cells)"
        )
    # A study's cells can't differ in it.
    resize = cells[0].settings.ingest.mask_resize
    notes = results.notes
    scored = sum(len(group.keys) for group in groups)
    if scored < len(cells):
        unfinished = (
            f"{text}: {scored} of {counted(len(cells), 'cell')} finished; the others are left out"
        )
        notes = (unfinished, *notes)
    return Side(text, groups, results.image_ids, results.pathologies, sizes.pop(), notes, resize)


def flat(settings: Settings) -> dict[str, Any]:
    """Return all settings except draw and trial, as dotted name -> value."""
    names = (name for name in setting_names() if name not in ("draw", "trial"))
    return {name: attrgetter(name)(settings) for name in names}


def _check_truth(gt: Location, experts: Location, study: Side) -> None:
    """Raise `UserError` if masks of `gt` aren't those against which the study was scored."""
    masks, _ = renamed(chexlocalize.read(gt), study.image_ids, study.title)
    image_ids = [image_id for image_id in study.image_ids if image_id in masks]
    names = [name for name in study.pathologies if name in masks.pathologies]
    shared_IK, masks_IK, experts_IK = np.moveaxis(
        count(chexlocalize.read(experts), masks, image_ids, names, study.size, study.resize), -1, 0
    )
    if not (np.array_equal(shared_IK, masks_IK) and np.array_equal(shared_IK, experts_IK)):
        raise UserError(f"{gt}: found other masks than in {experts}; expected: the study's truth")


def _read_file(text: str, gt: Location, study: Side | None) -> Side:
    """Return counts of a file's masks on the images and pathologies that it shares with `study`.

    Without a study, these are shared with the truth, and pixels are counted at native size.
    """
    truth, predicted = chexlocalize.read(gt), chexlocalize.read(Path(text))
    reference, all_ids, all_names, size, resize = (
        (study.title, study.image_ids, study.pathologies, study.size, study.resize)
        if study
        else (str(gt), tuple(sorted(truth)), truth.pathologies, 0, Side.resize)
    )
    truth, truth_matching = renamed(truth, all_ids, reference)
    predicted, matching = renamed(predicted, all_ids, reference)
    image_ids = tuple(image_id for image_id in all_ids if image_id in predicted)
    names = tuple(name for name in all_names if name in predicted.pathologies)
    notes = [*truth_matching.notes, *matching.notes]
    if matching.missing:
        notes.append(
            f"{text}: doesn't name {len(matching.missing)} of {counted(len(all_ids), 'image')}"
            f" ({matching.missing[0]}, ...): left out"
            " (hint: name an image without predictions, with empty masks)"
        )
    if matching.unknown:
        notes.append(
            f"{text}: names {counted(len(matching.unknown), 'image')} that {reference} doesn't"
            f" ({matching.unknown[0]}, ...): left out"
        )
    for source, other_names in ((text, all_names), (reference, predicted.pathologies)):
        missing = [name for name in PATHOLOGIES if name in other_names and name not in names]
        if missing:
            notes.append(f"{source}: doesn't name {', '.join(missing)}: left out")
    if size:
        notes.append(
            f"{text}: its masks are counted in squares of {size} x {size} pixels,"
            f" like the study's ({RESIZING[resize]})"
        )
    counts_IK3 = count(truth, predicted, image_ids, names, size, resize)
    group = Group(Path(text).name, counts_IK3[None])
    return Side(text, (group,), image_ids, names, size, tuple(notes), resize)


def _on_common_ground(first: Side, second: Side) -> tuple[Side, Side]:
    """Restrict both sides to common images and pathologies; raise `UserError` as `read` does."""
    titles = f"{first.title} and {second.title}"
    if first.size != second.size:
        raise UserError(
            f"{first.title} is scored at {_sizes([first.size])},"
            f" {second.title} at {_sizes([second.size])}; expected: the same size"
            " (hint: run and compare both studies with --set score.resolution=own)"
        )
    if first.size and first.resize != second.resize:
        raise UserError(
            f"{first.title} is scored on masks resized with ingest.mask_resize: {first.resize},"
            f" {second.title} with {second.resize}; expected: the same"
            " (hint: run and compare both studies with --set score.resolution=own)"
        )
    names = tuple(name for name in first.pathologies if name in second.pathologies)
    if not names:
        raise UserError(f"{titles}: found no common pathology; expected: at least one")
    # The notes of a file already list the pathologies that it lacks.
    studies = all(group.keys for side in (first, second) for group in side.groups)
    if studies and first.image_ids != second.image_ids:
        raise UserError(f"{titles}: scored on different test images; expected: the same")
    shared = set(second.image_ids)
    image_ids = tuple(image_id for image_id in first.image_ids if image_id in shared)
    if not image_ids:
        raise UserError(
            f"{titles}: found no common image, only ids like {first.image_ids[0]} and"
            f" {second.image_ids[0]}; expected: at least one"
        )
    first, second = (_restrict(side, names, image_ids, noted=studies) for side in (first, second))
    return first, second


def _restrict(side: Side, names: tuple[str, ...], image_ids: tuple[str, ...], noted: bool) -> Side:
    """Return a side with only these pathologies and images; `noted` adds a note on the others."""
    if (names, image_ids) == (side.pathologies, side.image_ids):
        return side
    notes = side.notes
    dropped = ", ".join(name for name in side.pathologies if name not in names)
    if noted and dropped:
        notes += (f"{side.title}: left out, as the other side lacks it: {dropped}",)
    columns = [side.pathologies.index(name) for name in names]
    positions = {image_id: row for row, image_id in enumerate(side.image_ids)}
    rows = [positions[image_id] for image_id in image_ids]
    groups = tuple(
        replace(group, counts_TIK3=group.counts_TIK3[:, rows][:, :, columns])
        for group in side.groups
    )
    return replace(side, groups=groups, pathologies=names, image_ids=image_ids, notes=notes)


def _sizes(squares: Collection[int]) -> str:
    return " and ".join(
        "each image's native size" if size == 0 else f"{size} x {size} pixels"
        for size in sorted(squares)
    )
