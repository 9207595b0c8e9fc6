"""Loading ingested radiographs with what is known of them: labels, expert masks, weak masks; whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from chexseg.data import shards
from chexseg.errors import DamagedArtifactError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation_indices
from chexseg.store import manifest

Item = TypeVar("Item")

#: Bytes of the largest array that `load_cached` keeps; it keeps twelve.
LARGEST_KEPT = 2**28


def index(artifact: Path, wanted: Set[str] | None = None):
    """The ingested table without its pixels: image_id, patient, frontal, height, width and the 14 labels, as pandas.

    wanted: ids of images that must be in it; others may be.
    """
    columns = ["image_id", "patient", "frontal", "height", "width", *OBSERVATIONS]
    return shards.read_all(artifact / "images", columns, wanted).to_pandas()


def image_size(artifact: Path) -> int:
    """Pixels of the square images of an ingest artifact."""
    return shards.metadata(shards.files(artifact / "images")[0])["arrays"]["pixels"]["shape"][0]


def ids(directory: Path) -> list[str]:
    """The image ids of a directory of shards, sorted."""
    return sorted(shards.read_all(directory, ["image_id"])["image_id"].to_pylist())


def mask_index(artifact: Path) -> list[tuple[str, str]]:
    """(image id, patient) of every image with expert masks, sorted."""
    rows = shards.read_all(artifact / "masks", ["image_id", "patient"])
    return sorted(zip(rows["image_id"].to_pylist(), rows["patient"].to_pylist(), strict=True))


def load_cached(directory: Path, column: str, image_ids: Sequence[str]) -> torch.Tensor:
    """`arrays` of a finished artifact. Not to be changed in place.

    A process keeps the last few that aren't large: cells on a warm worker mostly want what the cell before them had.
    Artifacts never change, so what is kept can't be stale.
    """
    paths = shards.files(directory)
    if (
        paths
        and len(image_ids) * shards.row_bytes(shards.metadata(paths[0])["arrays"][column])
        > LARGEST_KEPT
    ):
        return arrays(directory, column, image_ids)
    return _gather(str(directory), column, tuple(image_ids))


@lru_cache(maxsize=12)
def _gather(directory: str, column: str, image_ids: tuple[str, ...]) -> torch.Tensor:
    return arrays(Path(directory), column, image_ids)


def arrays(directory: Path, column: str, image_ids: Sequence[str]) -> torch.Tensor:
    """The arrays of the named images, in the order of `image_ids`, read in this process with their checksums.

    Bits stay packed, (rows, bytes): `unpack_bits` opens them on the device. Raises `DamagedArtifactError` if an image is missing.
    """
    paths = shards.files(directory)
    if not paths:
        raise DamagedArtifactError(f"{directory}: no shards")
    layout = shards.metadata(paths[0])["arrays"][column]
    packed = layout["dtype"] == "bits"
    shape, dtype = (
        ([shards.row_bytes(layout)], "uint8") if packed else (layout["shape"], layout["dtype"])
    )
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    out = np.empty((len(rows), *shape), dtype=dtype)
    found = 0
    for batch in prefetch(
        chain.from_iterable(
            shards.row_groups(path, ["image_id", column], rows.keys()) for path in paths
        )
    ):
        values = shards.array(batch, column, {"dtype": dtype, "shape": shape})
        for position, image_id in enumerate(batch["image_id"].to_pylist()):
            row = rows.get(image_id)
            if row is not None:
                out[row] = values[position]
                found += 1
    if found != len(rows):
        raise DamagedArtifactError(
            f"{directory}: {len(rows) - found} of {len(rows)} images are not there"
        )
    return torch.from_numpy(out)


def unpack_bits(packed_NB: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Packed little-endian bits, (N, bytes) uint8 -> boolean (N, *shape), on the tensor's device."""
    powers = torch.arange(8, device=packed_NB.device, dtype=torch.uint8)
    bits = (packed_NB[..., None] >> powers) & 1
    count = int(np.prod(shape))
    return bits.reshape(len(packed_NB), -1)[:, :count].reshape(len(packed_NB), *shape).bool()


def pack_bits(masks_NKHW: torch.Tensor) -> torch.Tensor:
    """Boolean masks -> packed little-endian bits (N, bytes) uint8: an eighth of the memory."""
    flat = masks_NKHW.reshape(len(masks_NKHW), -1)
    if flat.device.type == "cpu":  # several times as fast
        return torch.from_numpy(np.packbits(flat.numpy(), axis=1, bitorder="little"))
    flat = torch.nn.functional.pad(flat, (0, -flat.shape[1] % 8)).reshape(len(flat), -1, 8)
    powers = 2 ** torch.arange(8, device=flat.device, dtype=torch.uint8)
    return (flat.to(torch.uint8) * powers).sum(dim=2, dtype=torch.uint8)


def expert_masks(
    artifact: Path, image_ids: Sequence[str], pathologies: Sequence[str], size: int
) -> torch.Tensor:
    """Packed expert masks of the named images, only the studied pathologies: (N, bytes) uint8."""
    packed = load_cached(artifact / "masks", "masks", image_ids)
    if tuple(pathologies) == PATHOLOGIES:
        return packed
    chosen = [PATHOLOGIES.index(name) for name in pathologies]
    pieces = [
        pack_bits(unpack_bits(part, (len(PATHOLOGIES), size, size))[:, chosen])
        for part in packed.split(64)
    ]
    return torch.cat(pieces)


def pixels(artifact: Path, image_ids: Sequence[str]) -> torch.Tensor:
    """Grey pixels of the named images: (N, H, W) uint8."""
    return load_cached(artifact / "images", "pixels", image_ids)


def shard_pixels(
    path: str | Path, wanted: Set[str], size: int
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """(ids, pixels (N, H, W) uint8) of the wanted images of one shard of an ingested split, in its order: by id.

    In batches of `size` images, the last one smaller. The next is read while one is worked on, and no more are in memory.
    """
    return prefetch(_shard_pixels(path, wanted, size))


def _shard_pixels(
    path: str | Path, wanted: Set[str], size: int
) -> Iterator[tuple[list[str], torch.Tensor]]:
    ids: list[str] = []
    pixels: list[np.ndarray] = []
    manifest.verify(
        path
    )  # also where none is wanted: nobody would miss an image that damage has hidden
    for rows in shards.row_groups(path, ["image_id", "pixels"], wanted):
        values = shards.array(rows, "pixels")
        for row, image_id in enumerate(rows["image_id"].to_pylist()):
            if image_id in wanted:
                ids.append(image_id)
                pixels.append(values[row])
            if len(ids) == size:
                yield ids, torch.from_numpy(np.stack(pixels))
                ids, pixels = [], []
    if ids:
        yield ids, torch.from_numpy(np.stack(pixels))


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made by a thread while the one before is used."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


def labels(table, pathologies: Sequence[str] | None = None) -> np.ndarray:
    """labels_NL of an `index` table (NaN where blank): the 14 observations, or the pathologies' columns."""
    values_NL = table[list(OBSERVATIONS)].to_numpy(dtype=np.float32)
    return values_NL if pathologies is None else values_NL[:, observation_indices(pathologies)]
