"""Image ids of predictions matched to those of the ground truth, and what only one of the two has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chexseg.data.chexlocalize import MaskFile
from chexseg.errors import UserError

#: Other tools keep these at the end of an image id, in capitals or not.
ENDINGS = (".bmp", ".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Matching:
    """renamed: id in the predictions -> id in the truth, where they differ. missing: ids of the truth without predictions.

    unknown: ids of the predictions that the truth doesn't name. notes: a line about `renamed`, if there is any.
    """

    renamed: Mapping[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def match(
    truth_ids: Iterable[str], predicted_ids: Iterable[str], truth: object, predicted: object
) -> Matching:
    """Match ids that are equal, or else equal without an image's ending. `truth` and `predicted` name the sources.

    Raises `UserError` if no id matches, or if two of one side stand for the same image of the other.
    """
    wanted, given = dict.fromkeys(truth_ids), dict.fromkeys(predicted_ids)
    if not given:
        raise UserError(f"{predicted}: found no image; expected: the images of {truth}")
    if not wanted:
        raise UserError(f"{truth}: found no image; expected: at least one")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image_id in wanted:
        by_stem[without_ending(image_id)].append(image_id)
    sources: dict[str, list[str]] = defaultdict(list)
    unknown = []
    for image_id in given:
        candidates = [image_id] if image_id in wanted else by_stem.get(without_ending(image_id), [])
        if len(candidates) > 1:
            raise UserError(
                f"{truth}: found {candidates[0]!r} and {candidates[1]!r} for {image_id!r} of {predicted}; expected: one of them"
            )
        if candidates:
            sources[candidates[0]].append(image_id)
        else:
            unknown.append(image_id)
    if not sources:
        raise UserError(
            f"{predicted}: found no image of {truth}: its ids are such as {min(given)!r}; expected: such as {min(wanted)!r}"
        )
    for image_id, entries in sources.items():
        if len(entries) > 1:
            raise UserError(
                f"{predicted}: found {entries[0]!r} and {entries[1]!r} for {image_id!r}; expected: one of them"
            )
    renamed = {
        entries[0]: image_id for image_id, entries in sources.items() if entries[0] != image_id
    }
    notes = []
    if renamed:
        first = min(renamed)
        notes.append(
            f"{predicted}: {len(renamed)} image ids are matched without their endings ({first} is {renamed[first]}, ...)"
        )
    missing = sorted(wanted.keys() - sources.keys())
    return Matching(renamed, tuple(missing), tuple(sorted(unknown)), tuple(notes))


def match_files(truth: MaskFile, predicted: MaskFile) -> tuple[MaskFile, Matching]:
    """Return the predictions with the ids of the truth. Raises `UserError` as `match` does."""
    matching = match(truth, predicted, truth.path, predicted.path)
    return predicted.renamed(matching.renamed), matching


def without_ending(image_id: str) -> str:
    """Return an image id without the ending of an image file; other dots stay."""
    ending = next((ending for ending in ENDINGS if image_id.lower().endswith(ending)), "")
    return image_id[: len(image_id) - len(ending)]
