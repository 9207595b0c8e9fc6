"""Score masks that ignore the image: a constant mask, a location prior and a random square.

A constant mask is the expert training masks' mean at its best threshold, the same for every image.
The location prior is the mean of the masks of images with the pathology, drawn where an image has
it: the experts' image label times a mean mask. "Better than chance" means better than this prior.
Nothing is tuned on the scored images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chexseg.data import shards
from chexseg.data.masks.random_square import expected_intersection
from chexseg.data.sampling.splits import expert_split
from chexseg.errors import ChexsegError, DamagedArtifactError
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan.graph import Plan
from chexseg.store.store import Artifact

CONSTANT, PRIOR, SQUARE = "Constant mask", "Location prior", "Random square"
#: Name -> what the baseline predicts.
DESCRIPTIONS = {
    CONSTANT: "the mean training mask, the same for every image",
    PRIOR: "the mean training mask of a pathology, where experts drew it",
    SQUARE: "as many pixels as the experts’ mask, placed at random",
}
#: Thresholds on a mean mask, as shares of its maximum.
THRESHOLDS = np.arange(1, 20) / 20


@dataclass(frozen=True)
class ExpertMasks:
    """Expert masks of some images and pathologies; an ingested square has `side` pixels.

    bits_IKB: uint8, a mask's pixels row by row, packed in little-endian order.
    """

    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    bits_IKB: np.ndarray
    side: int

    def of(self, image_ids: Sequence[str]) -> ExpertMasks:
        """Return the masks of these images. Raises `DamagedArtifactError` if one is missing."""
        if tuple(image_ids) == self.image_ids:
            return self
        rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        if missing := [image_id for image_id in image_ids if image_id not in rows]:
            raise DamagedArtifactError(f"found no expert mask of image {missing[0]}")
        chosen = [rows[image_id] for image_id in image_ids]
        patients = tuple(self.patients[row] for row in chosen)
        return ExpertMasks(tuple(image_ids), patients, self.bits_IKB[chosen], self.side)

    def unpack(self, rows: Sequence[int] | slice, k: int) -> np.ndarray:
        """Return the k-th pathology's masks_NHW of some images."""
        return shards.unpack(self.bits_IKB[rows, k], (self.side, self.side))


def read(ingested: Path, pathologies: Sequence[str]) -> ExpertMasks:
    """Return the expert masks of an ingested split, sorted by image id.

    Raises `DamagedArtifactError` for a damaged artifact, or one without masks of a shape that
    `stages.ingest` writes.
    """
    first, *others = shards.files(ingested / "masks")
    layout = shards.metadata(first)["arrays"].get("masks", {})
    side = (layout.get("shape") or [0])[-1]
    bits = {"dtype": "bits", "shape": [len(PATHOLOGIES), side, side]}
    # Each mask is a row of whole words (`_pixels`).
    if layout != bits or not side or side * side % 64:
        raise DamagedArtifactError(f"{first}: found no masks of {len(PATHOLOGIES)} pathologies")
    if any(shards.metadata(path)["arrays"].get("masks") != bits for path in others):
        raise DamagedArtifactError(f"{ingested}: found masks of several shapes")
    columns = ["image_id", "patient", "masks"]
    table = shards.read_all(ingested / "masks", columns).sort_by("image_id")
    layout = {"dtype": "uint8", "shape": (len(PATHOLOGIES), side * side // 8)}
    bits_IKB = shards.array(table, "masks", layout)
    chosen = [PATHOLOGIES.index(name) for name in pathologies]
    image_ids, patients = (tuple(table[name].to_pylist()) for name in ("image_id", "patient"))
    return ExpertMasks(image_ids, patients, bits_IKB[:, chosen], side)


# ---- masks and their counts ----------------------------------------------------------------------


def best_level(drawn_HW: np.ndarray, images: int) -> np.ndarray:
    """Return mask_HW: the mean mask above the threshold with the best pooled IoU on its images.

    drawn_HW: the number of images in which a pixel is drawn. images: the number of images. The mask
    is empty if nothing is drawn; of equally good thresholds the lowest is used.
    """
    highest, drawn = int(drawn_HW.max()), int(drawn_HW.sum())
    if not highest:
        return np.zeros(drawn_HW.shape, dtype=bool)
    levels = [drawn_HW / highest > threshold for threshold in THRESHOLDS]
    # One mask for all images intersects their masks in as many pixels as they draw within it.
    inside = np.array([int(drawn_HW[level_HW].sum()) for level_HW in levels])
    predicted = images * np.array([np.count_nonzero(level_HW) for level_HW in levels])
    best_HW: np.ndarray = levels[int(np.argmax(inside / (predicted + drawn - inside)))]
    return best_HW


def mean_mask_counts(train: ExpertMasks, scored: ExpertMasks) -> dict[str, np.ndarray]:
    """Return the counts_IK3 of the constant mask and of the location prior on the scored images.

    Both are made from the training images alone. The prior is drawn in images with an expert mask
    of the pathology, and empty elsewhere.
    """
    counts = {name: _counts(scored) for name in (CONSTANT, PRIOR)}
    for k in range(scored.bits_IKB.shape[1]):
        masks_NHW = train.unpack(slice(None), k)
        drawn_HW = masks_NHW.sum(axis=0, dtype=np.int64)
        positive = int(masks_NHW.any(axis=(1, 2)).sum())
        for name, images in ((CONSTANT, len(masks_NHW)), (PRIOR, positive)):
            mask_HW = best_level(drawn_HW, images)
            mask_B = np.packbits(mask_HW.reshape(-1), bitorder="little")
            shown_I = counts[name][:, k, 2] > 0 if name == PRIOR else True
            counts[name][:, k, 0] = _pixels(scored.bits_IKB[:, k] & mask_B)
            counts[name][:, k, 1] = np.count_nonzero(mask_HW) * shown_I
    return counts


def square_counts(scored: ExpertMasks) -> np.ndarray:
    """Return the expected counts_IK3 of a random square with as many pixels as the expert mask."""
    counts_IK3 = _counts(scored)
    counts_IK3[..., 1] = counts_IK3[..., 2]
    for row, k in np.argwhere(counts_IK3[..., 2]):
        (mask_HW,) = scored.unpack([row], k)
        counts_IK3[row, k, 0] = expected_intersection(mask_HW, counts_IK3[row, k, 2])
    return counts_IK3


def _counts(scored: ExpertMasks) -> np.ndarray:
    """Return counts_IK3, float64, with the true pixels only."""
    counts_IK3 = np.zeros((*scored.bits_IKB.shape[:2], 3), dtype=np.float64)
    counts_IK3[..., 2] = _pixels(scored.bits_IKB)
    return counts_IK3


def _pixels(bits_LB: np.ndarray) -> np.ndarray:
    """Return the number of bits that are set; a mask has a multiple of 8 bytes."""
    words_LW = np.ascontiguousarray(bits_LB).view(np.uint64)
    pixels_L: np.ndarray = np.bitwise_count(words_LW).sum(axis=-1, dtype=np.int64)
    return pixels_L


# ---- a study's baselines -------------------------------------------------------------------------


def on_test(
    plan: Plan,
    artifacts: Mapping[str, Artifact],
    image_ids: Sequence[str],
    masks: Callable[[str], ExpertMasks],
) -> tuple[dict[str, np.ndarray], str]:
    """Return (name -> counts_IK3 on the test images, a note), counted at the training size.

    Cells with different expert splits share the baselines of the largest, the first of equally
    large ones, and the note says so. No counts, and a note why, if the store lacks the masks.

    artifacts: key -> finished and undamaged result. masks: key of an ingest -> its masks.
    """
    keys = {
        node.config["split"]: node.key
        for node in plan.nodes.values()
        if node.stage == "ingest" and node.config["geometry"] == "pad"
    }
    for name in ("valid", "test"):
        if keys.get(name) not in artifacts:
            return {}, f"found no ingested images of {name}, or damaged ones: left out"
    splits = list(
        dict.fromkeys(
            (cell.settings.labels.expert_split, cell.settings.shared_seed) for cell in plan.cells
        )
    )
    split, seed = max(splits, key=lambda one: one[0].train)
    try:
        valid, test = masks(keys["valid"]), masks(keys["test"]).of(image_ids)
        ids, _ = expert_split(
            valid.image_ids, valid.patients, split.train, split.select, seed, split.by
        )
        train = valid.of(ids)
    except ChexsegError as error:
        return {}, f"{error}: left out"
    counts = {**mean_mask_counts(train, test), SQUARE: square_counts(test)}
    notes = []
    if len(splits) > 1:
        notes.append(
            f"made from one of the cells’ {len(splits)} expert splits,"
            f" {len(ids)} training images with seed {seed}"
        )
    if any(cell.settings.score.resolution == "own" for cell in plan.cells):
        notes.append("counted at the training size, and cells at the images’ own")
    return counts, "; ".join(notes)


def on_valid(
    valid: str, masks: Callable[[str], ExpertMasks], image_ids: Sequence[str], train_I: np.ndarray
) -> dict[str, np.ndarray]:
    """Return name -> counts_IK3 on images of `valid`; none without training images or masks.

    valid: key of the ingest. train_I: bool, True for the training images.
    """
    try:
        scored = masks(valid).of(image_ids)
        train = masks(valid).of(
            [one for one, chosen in zip(image_ids, train_I, strict=True) if chosen]
        )
    except (KeyError, ChexsegError):
        return {}
    return mean_mask_counts(train, scored) if len(train.image_ids) else {}
