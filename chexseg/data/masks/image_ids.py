"""Match the image ids of predictions to those of the ground truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chexseg.data.chexlocalize import MaskFile
from chexseg.errors import UserError

#: Suffixes that other tools keep in image ids, in upper or lower case.
SUFFIXES = (".bmp", ".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Matching:
    """Image ids of predictions compared with those of the truth.

    renamed: id in the predictions -> id in the truth, if they differ. missing: ids of the truth
    without predictions. unknown: ids of the predictions alone. notes: one line if ids are renamed.
    """

    renamed: Mapping[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def match(
    truth_ids: Iterable[str], predicted_ids: Iterable[str], truth: object, predicted: object
) -> Matching:
    """Match ids that are equal, or equal without the suffix of an image file.

    `truth` and `predicted` name the sources in messages. Raises `UserError` if no id matches, or if
    two ids of one side match the same id of the other.
    """
    wanted, given = dict.fromkeys(truth_ids), dict.fromkeys(predicted_ids)
    if not given:
        raise UserError(f"{predicted}: found no image; expected: the images of {truth}")
    if not wanted:
        raise UserError(f"{truth}: found no image; expected: at least one")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image_id in wanted:
        by_stem[without_suffix(image_id)].append(image_id)
    sources: dict[str, list[str]] = defaultdict(list)
    unknown = []
    for image_id in given:
        candidates = [image_id] if image_id in wanted else by_stem.get(without_suffix(image_id), [])
        if len(candidates) > 1:
            raise UserError(
                f"{truth}: found {candidates[0]!r} and {candidates[1]!r} for {image_id!r}"
                f" of {predicted}; expected: one of them"
            )
        if candidates:
            sources[candidates[0]].append(image_id)
        else:
            unknown.append(image_id)
    if not sources:
        raise UserError(
            f"{predicted}: found no image of {truth}: its ids look like {min(given)!r};"
            f" expected: ids like {min(wanted)!r}"
        )
    for image_id, entries in sources.items():
        if len(entries) > 1:
            raise UserError(
                f"{predicted}: found {entries[0]!r} and {entries[1]!r} for {image_id!r};"
                " expected: one of them"
            )
    new_ids = {
        entries[0]: image_id for image_id, entries in sources.items() if entries[0] != image_id
    }
    notes = []
    if new_ids:
        first = min(new_ids)
        notes.append(
            f"{predicted}: {len(new_ids)} image ids are matched without their suffixes"
            f" ({first} is {new_ids[first]}, ...)"
        )
    missing = sorted(wanted.keys() - sources.keys())
    return Matching(new_ids, tuple(missing), tuple(sorted(unknown)), tuple(notes))


def match_files(truth: MaskFile, predicted: MaskFile) -> tuple[MaskFile, Matching]:
    """Return the predictions with the ids of the truth. Raises `UserError` as `match` does."""
    return renamed(predicted, truth, truth.path)


def renamed(masks: MaskFile, truth_ids: Iterable[str], truth: object) -> tuple[MaskFile, Matching]:
    """Return the masks with the ids of the truth. Raises `UserError` as `match` does."""
    matching = match(truth_ids, masks, truth, masks.path)
    return masks.renamed(matching.renamed), matching


def without_suffix(image_id: str) -> str:
    """Return an image id without the suffix of an image file; other dots stay."""
    suffix = next((suffix for suffix in SUFFIXES if image_id.lower().endswith(suffix)), "")
    return image_id[: len(image_id) - len(suffix)]
