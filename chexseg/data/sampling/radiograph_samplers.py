"""Radiographs with what is known of them, as an endless source of training samples: resident where they fit, else streamed."""

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

#: Rows that a shuffle buffer holds at most, and its share of the bytes that a resident set may have.
BUFFER_ROWS, BUFFER_SHARE = 4096, 0.25


@dataclass(frozen=True)
class Stored:
    """A column made of what another artifact holds of the same images, in files of the same names as theirs.

    finish: (rows of the source, their stored values) -> the column's values of these rows, `row_bytes` bytes each.
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
    """Radiographs of the named images (sorted by id) as ``images``, with `columns`: one row an image, in the same order.

    All of it is on the device if it fits into `resident_bytes`. Else the radiographs and what is `stored` beside them are
    streamed by Ray Data, every pass in another order of the files and through a shuffle buffer, and the columns stay in
    the host's memory. Both kinds end at the same samples a pass, in different orders.
    """
    stored = stored or {}
    side = radiographs.image_size(artifact)
    row_bytes = side * side + sum(part.row_bytes for part in stored.values())
    needed = len(image_ids) * row_bytes + sum(
        values.numel() * values.element_size() for values in columns.values()
    )
    if needed <= resident_bytes:
        held = {"images": radiographs.pixels(artifact, image_ids), **columns}
        for name, part in stored.items():
            values = radiographs.load_cached(part.directory, part.column, image_ids)
            chunks = np.split(np.arange(len(image_ids)), range(64, len(image_ids), 64))
            held[name] = torch.cat(
                [part.finish(rows, values[rows[0] : rows[-1] + 1]) for rows in chunks]
            )
        return Resident({name: values.to(device) for name, values in held.items()}, seed)
    names = [Path(path).name for path in shards.files(artifact / "images")]
    rows = {image_id: row for row, image_id in enumerate(image_ids)}

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        order = np.random.default_rng(derive(seed, "files", number)).permutation(len(names))
        files = [names[i] for i in order]
        pixels = _values(artifact / "images", "pixels", files, rows)
        others = [_values(part.directory, part.column, files, rows) for part in stored.values()]
        together = zip_longest(pixels, *others, fillvalue=(-1, None))
        while part := list(islice(together, 64)):
            chosen = np.array([row for (row, _), *_ in part])
            if any(row != row_beside for (row, _), *beside in part for row_beside, _ in beside):
                raise DamagedArtifactError(
                    f"{artifact}: its images are not those of {', '.join(str(p.directory) for p in stored.values())}"
                )
            batch = {name: values[chosen].numpy() for name, values in columns.items()}
            batch["images"] = np.stack([image for (_, image), *_ in part])
            for k, (name, column) in enumerate(stored.items(), start=1):
                values = torch.from_numpy(np.stack([row[k][1] for row in part]))
                batch[name] = column.finish(chosen, values).numpy()
            yield batch

    buffer = max(1, min(BUFFER_ROWS, int(BUFFER_SHARE * resident_bytes) // row_bytes))
    return Streamed(open_pass, len(image_ids), seed, device, buffer)


def _values(
    directory: Path, column: str, files: Sequence[str], rows: Mapping[str, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, value) of the wanted images in the files' order; the same for every artifact, whose files are sorted by id."""
    paths = [
        str(directory / name) for name in files if (directory / name).exists()
    ]  # none without rows is written
    if not paths:
        return
    layout = shards.metadata(paths[0])["arrays"][column]
    for batch in ray_data.stream(paths, ["image_id", column]):
        values = shards.array(batch, column, layout)
        for position, image_id in enumerate(batch["image_id"].to_pylist()):
            if image_id in rows:
                yield rows[image_id], values[position]
