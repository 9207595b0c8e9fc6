"""Read what a report shows from the shards of results: counts, masks, weak maps, images.

A result of another version, or one that was forged together with its manifest, may hold other
values than its stage writes. They raise `DamagedArtifactError`, which names the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from chexseg.analysis.results import ImageReader, WeakMaps
from chexseg.data import chexlocalize, shards
from chexseg.errors import ChexsegError, DamagedArtifactError, reason
from chexseg.pathologies import PATHOLOGIES
from chexseg.stages.artifacts import PREDICTIONS, THRESHOLDS
from chexseg.store import manifest
from chexseg.store.store import Artifact
from chexseg.untrusted import bounded_json

#: Columns of the count tables.
COUNTED = ("intersection", "predicted", "true")


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Raise `DamagedArtifactError` for an error that values of another kind than ours cause."""
    try:
        yield
    except ChexsegError:
        raise
    except (pa.ArrowException, LookupError, ValueError, TypeError, AttributeError) as error:
        raise DamagedArtifactError(
            f"{path}: found values that its stage doesn't write ({reason(error)});"
            " hint: delete its result to have it computed anew"
        ) from None


def score_counts(
    paths: Sequence[Path], names: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (image ids, counts_CIK3) of the cells with these tables, which have equal images."""
    if not paths:
        return (), np.zeros((0, 0, len(names), 3), dtype=np.int32)
    (ids_IK,) = count_columns(paths[0], names, "image_id")
    # One 32-bit array for all cells: 10,000 cells of 668 images take 0.8 GB.
    counts_CIK3 = np.empty((len(paths), *ids_IK.shape, 3), dtype=np.int32)
    for c, path in enumerate(paths):
        with _checked(path):
            counts_CIK3[c] = np.stack(count_columns(path, names, *COUNTED), axis=-1)
    return tuple(ids_IK[:, 0].tolist()), counts_CIK3


def count_columns(path: Path, names: tuple[str, ...], *columns: str) -> list[np.ndarray]:
    """Return columns of a count table, each with the shape (images, these pathologies)."""
    table = shards.read(path, columns)
    with _checked(path):
        order = shards.metadata(table, str(path))["pathologies"]
        chosen = [order.index(name) for name in names]
        return [table[name].to_numpy().reshape(-1, len(order))[:, chosen] for name in columns]


def predictions(path: Path, image_id: str, names: tuple[str, ...]) -> np.ndarray:
    """Return masks_KHW predicted for an image."""
    # A result may be computed again while this process lives, as that of `study watch` does.
    side, runs = _run_lengths(path, manifest.version(path))
    with _checked(path / PREDICTIONS):
        entries = [{"size": [side] * 2, "counts": runs[image_id, name]} for name in names]
        return np.stack([chexlocalize.decode(entry, str(path)) for entry in entries])


@lru_cache(maxsize=16)  # measures read a cell's images in turn, the browser each image's ten cells
def _run_lengths(path: Path, version: tuple[int, ...]) -> tuple[int, dict[tuple[str, str], str]]:
    """Return (side, (image id, pathology) -> run lengths) of a cell's predicted masks.

    version: of the result (`manifest.version`).
    """
    table = shards.read(path / PREDICTIONS, ["image_id", "pathology", "counts"])
    rows = zip(table["image_id"].to_pylist(), table["pathology"].to_pylist(), strict=True)
    side = shards.metadata(table, str(path / PREDICTIONS))["size"]
    return side, dict(zip(rows, table["counts"].to_pylist(), strict=True))


def reader(
    artifacts: Mapping[str, Artifact], ingested: str, names: tuple[str, ...]
) -> ImageReader | None:
    """Return the reader of an ingested split's images and masks; None if the store lacks it."""
    artifact = artifacts.get(ingested)
    if artifact is None:
        return None
    chosen = [PATHOLOGIES.index(name) for name in names]
    # The browser reads images in their order, so most are in the row group of the one before.
    last: dict[str, tuple[list[str], np.ndarray]] = {}

    def row(directory: str, column: str, image_id: str) -> np.ndarray:
        if column not in last or image_id not in last[column][0]:
            last[column] = _row_group(artifact.path / directory, column, image_id)
        ids, arrays = last[column]
        return np.asarray(arrays[ids.index(image_id)])

    return lambda image_id: (
        row("images", "pixels", image_id),
        row("masks", "masks", image_id)[chosen],
    )


def weak_maps(path: Path, image_id: str, names: tuple[str, ...]) -> WeakMaps:
    """Return the maps and masks of weak labels for an image. path: their result."""
    metadata = shards.metadata(shards.files(path / "valid")[0])
    boundary_hw = None
    if "boundary" in metadata["arrays"]:
        boundary_hw = _row(path / "valid", "boundary", image_id).astype(np.float32) / 255
    with _checked(path / "valid"):
        chosen = [metadata["pathologies"].index(name) for name in names]
        scores_Khw = _row(path / "valid", "scores", image_id)[chosen].astype(np.float32)
    with _checked(path / THRESHOLDS):
        thresholds = bounded_json.loads(manifest.read_bytes(path / THRESHOLDS))
        thresholds_K = np.array([thresholds[name] for name in names], dtype=np.float64)
    masks_KHW = predictions(path, image_id, names)
    return WeakMaps(scores_Khw, thresholds_K, masks_KHW, boundary_hw)


def _row(directory: Path, column: str, image_id: str) -> np.ndarray:
    """Return one image's array; only its row group is read."""
    ids, arrays = _row_group(directory, column, image_id)
    return np.asarray(arrays[ids.index(image_id)])


def _row_group(directory: Path, column: str, image_id: str) -> tuple[list[str], np.ndarray]:
    """Return (image ids, arrays) of the row group with an image."""
    for path in shards.files(directory):
        for rows in shards.row_groups(path, ["image_id", column], {image_id}):
            return rows["image_id"].to_pylist(), shards.array(rows, column)
    raise DamagedArtifactError(f"{directory}: found no image {image_id}")
