"""Sources of radiographs with their labels and masks: resident if they fit, else streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling.samplers import Resident, Source, Streamed
from chexseg.errors import DamagedArtifactError
from chexseg.seeds import derive

#: Largest shuffle buffer in rows, and as a fraction of the bytes that a resident set may use.
BUFFER_ROWS, BUFFER_SHARE = 4096, 0.25
#: Rows that are read at a time: a row group of most shards, so no batch is put together of several.
READ_ROWS = shards.ROW_GROUP

#: Row indices of some images, and their values.
Block: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Stored:
    """A column from another artifact of the same images, in files of the same names.

    row_bytes: bytes of the column per row. finish: (row indices, their stored values) -> the
    column's values; None for those that are stored.
    """

    directory: Path
    column: str
    row_bytes: int
    finish: Callable[[np.ndarray, torch.Tensor], torch.Tensor] | None = None


def source(
    artifact: Path,
    image_ids: Sequence[str],
    columns: Mapping[str, torch.Tensor],
    seed: int,
    device: str,
    resident_bytes: int,
    stored: Mapping[str, Stored] | None = None,
) -> Source:
    """Return a source of the named radiographs as ``images``, with `columns` and `stored` columns.

    image_ids: sorted. columns: one row per image, in that order. A set that fits in
    `resident_bytes` is kept on the device. Otherwise Ray Data streams the radiographs and the
    `stored` columns, with another order of the files in each pass and a shuffle buffer; `columns`
    stay in host memory. Both kinds give the same samples per pass, in different orders.
    """
    stored = stored or {}
    height, width = radiographs.image_shape(artifact)
    row_bytes = height * width + sum(part.row_bytes for part in stored.values())
    needed = len(image_ids) * row_bytes + sum(
        values.numel() * values.element_size() for values in columns.values()
    )
    if needed <= resident_bytes:
        resident = {"images": radiographs.pixels(artifact, image_ids), **columns}
        for name, part in stored.items():
            values = radiographs.load_cached(part.directory, part.column, image_ids)
            if part.finish is not None:
                chunks = np.split(np.arange(len(image_ids)), range(64, len(image_ids), 64))
                values = torch.cat(
                    [part.finish(rows, values[rows[0] : rows[-1] + 1]) for rows in chunks]
                )
            resident[name] = values
        return Resident({name: values.to(device) for name, values in resident.items()}, seed)
    names = [Path(path).name for path in shards.files(artifact / "images")]
    rows = {image_id: row for row, image_id in enumerate(image_ids)}

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        generator = np.random.default_rng(derive(seed, "files", number))
        files = [names[i] for i in generator.permutation(len(names))]
        parts = [(artifact / "images", "pixels")]
        parts += [(part.directory, part.column) for part in stored.values()]
        streams = [_blocks(directory, column, files, rows) for directory, column in parts]
        others_of = [part.directory for part in stored.values()]
        for indices, (pixels, *others) in _aligned(streams, artifact, others_of):
            batch = {name: values[indices].numpy() for name, values in columns.items()}
            batch["images"] = pixels
            for (name, part), values in zip(stored.items(), others, strict=True):
                if part.finish is not None:
                    # Copied, because PyTorch has no read-only tensors.
                    values = part.finish(indices, torch.from_numpy(values.copy())).numpy()
                batch[name] = values
            yield batch

    buffer = max(1, min(BUFFER_ROWS, int(BUFFER_SHARE * resident_bytes) // row_bytes))
    return Streamed(open_pass, len(image_ids), seed, device, buffer)


def _aligned(
    streams: Sequence[Iterator[Block]], artifact: Path, directories: Sequence[Path]
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield the row indices of consecutive images, and each stream's values of them.

    Raises `DamagedArtifactError` unless all streams have the same images.
    """
    end: Block = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint8))
    blocks = [next(stream, end) for stream in streams]
    while any(len(indices) for indices, _ in blocks):
        count = min(len(indices) for indices, _ in blocks)
        rows, *others = (indices[:count] for indices, _ in blocks)
        if not count or any((rows != other).any() for other in others):
            named = ", ".join(map(str, directories))
            raise DamagedArtifactError(f"{artifact}: its images are not those of {named}")
        yield rows, [values[:count] for _, values in blocks]
        blocks = [
            (indices[count:], values[count:]) if count < len(indices) else next(stream, end)
            for (indices, values), stream in zip(blocks, streams, strict=True)
        ]


def _blocks(
    directory: Path, column: str, files: Sequence[str], rows: Mapping[str, int]
) -> Iterator[Block]:
    """Yield (row indices, values) of wanted images, in the order of the files, within them by id.

    The order is the same for all artifacts of the same images. A shard without rows has no file.
    Values are views of what was read, and read-only, if all images of a part are wanted. Parts have
    at least one image.
    """
    present = {Path(path).name: path for path in shards.files(directory)}
    paths = [present[name] for name in files if name in present]
    if not paths:
        return
    layout = shards.metadata(paths[0])["arrays"][column]
    for batch in ray_data.stream(paths, ["image_id", column], READ_ROWS):
        indices = np.array([rows.get(name, -1) for name in batch["image_id"].to_pylist()])
        values, wanted = shards.array(batch, column, layout), indices >= 0
        if wanted.all():
            yield indices, values
        elif wanted.any():
            yield indices[wanted], values[wanted]
