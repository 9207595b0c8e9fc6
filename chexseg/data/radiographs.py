"""Loading ingested radiographs with their labels, expert masks and weak masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from chexseg.data import resampling, shards
from chexseg.errors import DamagedArtifactError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation_indices
from chexseg.store import manifest

Item = TypeVar("Item")

#: Bytes of the largest array that `load_cached` caches.
LARGEST_CACHED = 2**28


def index(artifact: Path, wanted: Set[str] | None = None) -> DataFrame:
    """Return the ingested table without pixels.

    Columns: image_id, patient, frontal, height, width and the 14 labels. wanted: image ids that
    must be included; if given, shards without any of them are skipped.
    """
    return shards.read_all(
        artifact / "images",
        ["image_id", "patient", "frontal", "height", "width", *OBSERVATIONS],
        wanted,
    ).to_pandas()


def image_size(artifact: Path) -> int:
    """Return the side of the square images of an ingest artifact, in pixels.

    Of strips (`images.Strip`) it's the short side.
    """
    return image_shape(artifact)[0]


def image_shape(artifact: Path) -> tuple[int, int]:
    """Return (height, width) of the stored pixels of an ingest artifact."""
    layout = shards.metadata(shards.files(artifact / "images")[0])["arrays"]["pixels"]
    height, width = layout["shape"]
    return int(height), int(width)


def shapes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Return image id -> (height, width) of the original images of an ingested shard."""
    rows = shards.read(path, ["image_id", "height", "width"]).to_pydict()
    sizes = zip(rows["height"], rows["width"], strict=True)
    return dict(zip(rows["image_id"], sizes, strict=True))


def image_resize(artifact: Path) -> resampling.ImageResize:
    """Return the method by which the images of an ingest artifact were resized."""
    stored = shards.metadata(shards.files(artifact / "images")[0])
    return cast(resampling.ImageResize, stored.get("image_resize", "antialiased"))


def ids(directory: Path) -> list[str]:
    """Return the image ids of a directory of shards, sorted."""
    return sorted(shards.read_all(directory, ["image_id"])["image_id"].to_pylist())


def mask_index(artifact: Path) -> list[tuple[str, str]]:
    """Return (image id, patient) of each image with expert masks, sorted."""
    rows = shards.read_all(artifact / "masks", ["image_id", "patient"])
    return sorted(zip(rows["image_id"].to_pylist(), rows["patient"].to_pylist(), strict=True))


def load_cached(directory: Path, column: str, image_ids: Sequence[str]) -> Tensor:
    """Return `arrays` of a finished artifact, cached. Callers must not change the tensor in place.

    A process caches the last twelve, except large ones: cells on a reused worker mostly need the
    same arrays as the cell before. Artifacts never change, so a cached array can't be stale.
    """
    layout = shards.metadata(shards.files(directory)[0])["arrays"][column]
    if len(image_ids) * shards.row_bytes(layout) > LARGEST_CACHED:
        return arrays(directory, column, image_ids)
    # A result may be computed again while this process lives.
    version = manifest.version(directory)
    return _cached_arrays(str(directory), column, tuple(image_ids), version)


@lru_cache(maxsize=12)
def _cached_arrays(
    directory: str, column: str, image_ids: tuple[str, ...], version: tuple[int, ...]
) -> Tensor:
    return arrays(Path(directory), column, image_ids)


def arrays(directory: Path, column: str, image_ids: Sequence[str]) -> Tensor:
    """Return the arrays of the named images, in the order of `image_ids`.

    Bits stay packed, (rows, bytes), to be unpacked on the device by `unpack_bits`. Raises
    `DamagedArtifactError` if an image or a shard is missing or damaged.
    """
    paths = shards.files(directory)
    layout = shards.metadata(paths[0])["arrays"][column]
    packed = layout["dtype"] == "bits"
    shape, dtype = (
        ([shards.row_bytes(layout)], "uint8") if packed else (layout["shape"], layout["dtype"])
    )
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    out = np.empty((len(rows), *shape), dtype=dtype)
    filled = np.zeros(len(rows), dtype=bool)
    for batch in prefetch(
        chain.from_iterable(
            shards.row_groups(path, ["image_id", column], rows.keys()) for path in paths
        )
    ):
        values = shards.array(batch, column, {"dtype": dtype, "shape": shape})
        for position, image_id in enumerate(batch["image_id"].to_pylist()):
            if image_id in rows:
                out[rows[image_id]] = values[position]
                filled[rows[image_id]] = True
    if not filled.all():
        raise DamagedArtifactError(
            f"{directory}: {np.count_nonzero(~filled)} of {len(rows)} images are missing"
        )
    return torch.from_numpy(out)


def unpack_bits(packed_NB: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack little-endian bits, (N, bytes) uint8, to boolean (N, *shape) on the same device."""
    powers = torch.arange(8, device=packed_NB.device, dtype=torch.uint8)
    bits = (packed_NB[..., None] >> powers) & 1
    count = int(np.prod(shape))
    return bits.reshape(len(packed_NB), -1)[:, :count].reshape(len(packed_NB), *shape).bool()


def pack_bits(masks_NKHW: Tensor) -> Tensor:
    """Pack boolean masks to little-endian bits (N, bytes) uint8: an eighth of the memory."""
    flat = masks_NKHW.reshape(len(masks_NKHW), -1)
    if flat.device.type == "cpu":  # several times as fast as below
        return torch.from_numpy(np.packbits(flat.numpy(), axis=1, bitorder="little"))
    flat = torch.nn.functional.pad(flat, (0, -flat.shape[1] % 8)).reshape(len(flat), -1, 8)
    powers = 2 ** torch.arange(8, device=flat.device, dtype=torch.uint8)
    return (flat.to(torch.uint8) * powers).sum(dim=2, dtype=torch.uint8)


def expert_masks(
    artifact: Path, image_ids: Sequence[str], pathologies: Sequence[str], size: int
) -> Tensor:
    """Return packed expert masks (N, bytes) uint8 of the named images and pathologies."""
    packed = load_cached(artifact / "masks", "masks", image_ids)
    if tuple(pathologies) == PATHOLOGIES:
        return packed
    selected = [PATHOLOGIES.index(name) for name in pathologies]
    return torch.cat(
        [
            pack_bits(unpack_bits(part, (len(PATHOLOGIES), size, size))[:, selected])
            for part in torch.split(packed, 64)
        ]
    )


def pixels(artifact: Path, image_ids: Sequence[str]) -> Tensor:
    """Return the grey pixels (N, H, W) uint8 of the named images."""
    return load_cached(artifact / "images", "pixels", image_ids)


def shard_pixels(
    path: str | Path, wanted: Set[str], size: int, device: str = "cpu"
) -> Iterator[tuple[list[str], Tensor]]:
    """Yield (ids, pixels (N, H, W) uint8) of the wanted images of an ingested shard, sorted by id.

    Batches have `size` images; the last may be smaller. The next batch is read while one is being
    processed; no others are in memory. They are in host memory, pinned if they go to a GPU.
    """
    return prefetch(
        (ids, pinned(pixels, device)) for ids, pixels in _shard_pixels(path, wanted, size)
    )


def _shard_pixels(
    path: str | Path, wanted: Set[str], size: int
) -> Iterator[tuple[list[str], Tensor]]:
    # Also if no image is wanted: callers wouldn't notice an image that damage hides.
    manifest.verify(path)
    images = (
        (image_id, pixels)
        for rows in shards.row_groups(path, ["image_id", "pixels"], wanted)
        for image_id, pixels in zip(
            rows["image_id"].to_pylist(), shards.array(rows, "pixels"), strict=True
        )
        if image_id in wanted
    )
    while batch := list(islice(images, size)):
        ids, pixels = zip(*batch, strict=True)
        yield list(ids), torch.from_numpy(np.stack(pixels))


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items; a thread computes the next while one is in use."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        upcoming: Future[Any] = pool.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, items, end)
            yield item


def pinned(values: Tensor, device: str | torch.device) -> Tensor:
    """Return host memory from which a GPU copies without waiting; on a CPU the same tensor."""
    return values.pin_memory() if torch.device(device).type == "cuda" else values


def to_host(
    batches: Iterator[tuple[Item, Mapping[str, Tensor]]],
) -> Iterator[tuple[Item, dict[str, np.ndarray]]]:
    """Yield items with their tensors as arrays.

    Results of a GPU are yielded once the work of the next batch has been launched, so that the GPU
    doesn't wait for the launch.
    """
    copies: deque[tuple[Item, dict[str, Tensor], torch.cuda.Event]] = deque()

    def oldest() -> tuple[Item, dict[str, np.ndarray]]:
        item, tensors, copied = copies.popleft()
        copied.synchronize()
        return item, {name: values.numpy() for name, values in tensors.items()}

    for item, tensors in batches:
        if not any(values.is_cuda for values in tensors.values()):
            yield item, {name: values.numpy() for name, values in tensors.items()}
            continue
        # Copies that don't block are to pinned memory.
        on_host = {name: values.to("cpu", non_blocking=True) for name, values in tensors.items()}
        copied = torch.cuda.Event()
        copied.record()
        copies.append((item, on_host, copied))
        if len(copies) > 1:
            yield oldest()
    while copies:
        yield oldest()


def labels(table: DataFrame, pathologies: Sequence[str] | None = None) -> np.ndarray:
    """Return labels_NL of an `index` table (NaN where blank): all 14, or those of pathologies."""
    values_NL: np.ndarray = table[list(OBSERVATIONS)].to_numpy(dtype=np.float32)
    return values_NL if pathologies is None else values_NL[:, observation_indices(pathologies)]
