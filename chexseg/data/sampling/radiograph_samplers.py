"""Sources of radiographs with their labels and masks: resident if they fit, else streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import torch

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling.samplers import Resident, Source, Streamed
from chexseg.errors import DamagedArtifactError
from chexseg.seeds import derive

#: Largest shuffle buffer in rows, and as a fraction of the bytes that a resident set may use.
BUFFER_ROWS, BUFFER_SHARE = 4096, 0.25


@dataclass(frozen=True)
class Stored:
    """A column computed from another artifact of the same images, in files of the same names.

    finish: (row indices, their stored values) -> the column's values, `row_bytes` bytes per row.
    """

    directory: Path
    column: str
    finish: Callable[[np.ndarray, torch.Tensor], torch.Tensor]
    row_bytes: int


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
            chunks = np.split(np.arange(len(image_ids)), range(64, len(image_ids), 64))
            resident[name] = torch.cat(
                [part.finish(rows, values[rows[0] : rows[-1] + 1]) for rows in chunks]
            )
        return Resident({name: values.to(device) for name, values in resident.items()}, seed)
    names = [Path(path).name for path in shards.files(artifact / "images")]
    rows = {image_id: row for row, image_id in enumerate(image_ids)}

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        generator = np.random.default_rng(derive(seed, "files", number))
        files = [names[i] for i in generator.permutation(len(names))]
        pixels = _values(artifact / "images", "pixels", files, rows)
        others = [_values(part.directory, part.column, files, rows) for part in stored.values()]
        aligned = zip_longest(pixels, *others, fillvalue=(-1, None))
        while part := list(islice(aligned, 64)):
            indices = np.array([row for (row, _), *_ in part])
            if any(row != other for (row, _), *others in part for other, _ in others):
                directories = ", ".join(str(column.directory) for column in stored.values())
                raise DamagedArtifactError(f"{artifact}: its images are not those of {directories}")
            batch = {name: values[indices].numpy() for name, values in columns.items()}
            batch["images"] = np.stack([image for (_, image), *_ in part])
            for k, (name, column) in enumerate(stored.items(), start=1):
                values = torch.from_numpy(np.stack([row[k][1] for row in part]))
                batch[name] = column.finish(indices, values).numpy()
            yield batch

    buffer = max(1, min(BUFFER_ROWS, int(BUFFER_SHARE * resident_bytes) // row_bytes))
    return Streamed(open_pass, len(image_ids), seed, device, buffer)


def _values(
    directory: Path, column: str, files: Sequence[str], rows: Mapping[str, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, value) of the wanted images, in the order of the files and within them by id.

    The order is the same for all artifacts of the same images. A shard without rows has no file.
    """
    present = {Path(path).name: path for path in shards.files(directory)}
    paths = [present[name] for name in files if name in present]
    if not paths:
        return
    layout = shards.metadata(paths[0])["arrays"][column]
    for batch in ray_data.stream(paths, ["image_id", column]):
        values = shards.array(batch, column, layout)
        for position, image_id in enumerate(batch["image_id"].to_pylist()):
            if image_id in rows:
                yield rows[image_id], values[position]
