"""Shards on Ray Data: in order, and read where every CPU is taken."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data import shards, streams
from chexseg.errors import DamagedError


@pytest.fixture
def paths(tmp_path):
    """Three shards of 100 images."""
    out = []
    for part in range(3):
        ids = [f"image{100 * part + row:03d}" for row in range(100)]
        values = np.full((100, 5), part, dtype=np.uint8)
        out.append(str(tmp_path / shards.part_name(part)))
        shards.write(tmp_path / shards.part_name(part), shards.table({"image_id": ids}, {"pixels": values, "other": values}))
    return out


def read(paths: list[str]) -> tuple[list[str], list[int], set[str]]:
    ids, values, columns = [], [], set()
    for batch in streams.stream(paths, ["image_id", "pixels"], batch_size=64):
        ids += batch["image_id"].to_pylist()
        values += shards.array(batch, "pixels", {"dtype": "uint8", "shape": [5]})[:, 0].tolist()
        columns |= set(batch.column_names)
    return ids, values, columns


def test_rows_come_in_the_order_of_the_paths(ray_session, paths):
    ids, values, columns = read([paths[2], paths[0], paths[1]])
    assert ids == [f"image{number:03d}" for number in [*range(200, 300), *range(200)]]
    assert values == [2] * 100 + [0] * 100 + [1] * 100
    assert columns == {"image_id", "pixels"}


def test_reading_waits_for_no_cpu(ray_session, paths):
    """Cells may hold all of them after a node has died."""
    import ray

    task = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(read)
    assert len(ray.get(task.remote(paths), timeout=120)[0]) == 300


def test_a_damaged_file_is_an_error_of_arrow(ray_session, paths):
    """By which whoever reads knows that its input may be damaged."""
    import pyarrow as pa

    with open(paths[1], "r+b") as file:
        file.truncate(500)
    with pytest.raises((pa.ArrowException, DamagedError, OSError)):
        read(paths)
