"""Count images and masks in the files of a split, and find faults, without decoding an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from chexseg.data.chexlocalize import MaskFile
from chexseg.data.masks.areas import areas
from chexseg.data.raw_split import RawData, RawSplit
from chexseg.pathologies import observation

#: Lines about one kind of fault of a file; `chexseg data check` prints all.
MOST_LINES = 5


class SplitFacts:
    """Counts and faults of one split's files, each computed when it is first asked for."""

    def __init__(self, split: str, raw: RawSplit):
        self.split, self.raw, self.table = split, raw, raw.table

    @property
    def images(self) -> int:
        return len(self.table)

    @property
    def frontal(self) -> int:
        return int(self.table["frontal"].sum())

    def views(self, frontal_only: bool) -> int:
        """Return the number of images that a stage maps."""
        return self.frontal if frontal_only else self.images

    @cached_property
    def masks(self) -> dict[str, frozenset[str]]:
        """Return image id -> the pathologies that its masks show, of the table's images."""
        masks, _ = self._scanned
        pixels, _ = self._areas
        in_table = set(self.table["image_id"])
        return {
            image_id: frozenset(name for name in entry if pixels.get((image_id, name), 0))
            for image_id, entry in masks.items()
            if image_id in in_table
        }

    @cached_property
    def patients(self) -> dict[str, str]:
        """Return image id -> patient of the images with masks."""
        chosen = self.table[self.table["image_id"].isin(list(self.masks))]
        return dict(zip(chosen["image_id"], chosen["patient"], strict=True))

    def labelled(self, pathologies: Sequence[str], frontal_only: bool) -> int:
        """Return how many images have a positive or uncertain label of one of the pathologies."""
        table = self.table[self.table["frontal"]] if frontal_only else self.table
        labels = table[[observation(name) for name in pathologies]].to_numpy()
        return int(((labels == 1) | (labels == -1)).any(axis=1).sum())

    def mask_faults(self) -> Iterator[str]:
        """Yield a line for each fault of the mask file, the first `MOST_LINES` of each kind."""
        masks, faults = self._scanned
        _, damaged = self._areas
        yield from _first([message for _, message in faults])
        yield from _first(damaged)
        if self.raw.mask_file is not None and not masks and not faults:
            yield f"{masks.path}: found no image; expected at least one"
        csv = self.raw.csv_location
        unin_table = sorted(set(masks) - set(self.table["image_id"]))
        yield from _first(
            [
                f"{masks.path}: {image_id}: no such image; expected images of {csv}"
                for image_id in unin_table
            ]
        )

    def image_faults(self, may_be_elsewhere: bool) -> Iterator[str]:
        """Yield a line for each image that is missing, the first `MOST_LINES`.

        may_be_elsewhere: it is no fault if no image is there.
        """
        table = self.table
        if self.split == "test":  # no image without masks is read
            table = table[table["image_id"].isin(list(self.masks))]
        missing = [path for path in table["path"] if self.raw.sizes[path] < 0]
        csv = self.raw.csv_location
        if len(missing) < len(table):
            yield from _first(
                [f"{path}: no such file; expected the images of {csv}" for path in missing]
            )
        elif len(table) and not may_be_elsewhere:
            yield f"{self.raw.folder}: found none of the {len(table):,} images of {csv}"

    @cached_property
    def _scanned(self) -> tuple[MaskFile, list[tuple[str, str]]]:
        return self.raw.scan_masks()

    @cached_property
    def _areas(self) -> tuple[dict[tuple[str, str], int], list[str]]:
        masks, _ = self._scanned
        return areas(masks)


def facts(raw: RawData) -> dict[str, SplitFacts]:
    """Return split -> what its files show."""
    return {name: SplitFacts(name, split) for name, split in raw.splits.items()}


def _first(messages: Sequence[str]) -> list[str]:
    left = len(messages) - MOST_LINES
    if left <= 0:
        return list(messages)
    more = f"and {left:,} more like this: {messages[-1]}"
    return [*messages[:MOST_LINES], more]
