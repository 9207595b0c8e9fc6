"""Test shards on Ray Data: in order, read without a free CPU, mapped here or by actors."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chexseg import code_version
from chexseg.data import ray_data, shards
from chexseg.errors import DamagedArtifactError, UserError


@pytest.fixture
def paths(tmp_path):
    """Return three shards of 100 images."""
    out = []
    for part in range(3):
        ids = [f"image{100 * part + row:03d}" for row in range(100)]
        values = np.full((100, 5), part, dtype=np.uint8)
        out.append(str(tmp_path / shards.part_name(part)))
        shards.write(
            tmp_path / shards.part_name(part),
            shards.table({"image_id": ids}, {"pixels": values, "other": values}),
        )
    return out


def read(paths: list[str]) -> tuple[list[str], list[int], set[str]]:
    ids, values, columns = [], [], set()
    for batch in ray_data.stream(paths, ["image_id", "pixels"], batch_size=64):
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
    """Read without a free CPU: cells may hold all of them after a node has died."""
    import ray

    @ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    def count() -> int:
        return sum(len(batch) for batch in ray_data.stream(paths, ["image_id"]))

    assert ray.get(count.remote(), timeout=120) == 300


def test_damage_that_a_reading_task_finds_arrives_as_itself(ray_session, paths):
    """Check the error's type: readers use it to recognise a damaged input."""
    with open(paths[1], "r+b") as file:
        file.truncate(500)
    with pytest.raises(
        DamagedArtifactError, match="^[^ ]*part-00001.parquet: not a readable shard .*"
    ) as caught:
        read(paths)
    assert "\n" not in str(caught.value)


class Finder:
    """Raise an error at one file, as a worker for `map_files`."""

    def __init__(self, error: Exception):
        self.error = error

    def __call__(self, path: str) -> dict[str, Any]:
        if path == "3":
            raise self.error
        return {}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [DamagedArtifactError, UserError])
def test_what_a_map_worker_finds_arrives_as_itself(ray_session, workers, kind):
    with pytest.raises(kind, match="^3: not what it should be$"):
        ray_data.map_files(
            NUMBERS, Finder, {"error": kind("3: not what it should be")}, workers=workers
        )


def test_processes_that_a_worker_starts_must_import_the_drivers_code(
    ray_session, paths, monkeypatch
):
    other = replace(code_version.running(), digest="other", directory="/the/drivers")
    monkeypatch.setattr(code_version, "_required", [other])
    line = "^a worker imports other code than the driver: found .*; expected .*/the/drivers .*$"
    with pytest.raises(UserError, match=line) as caught:
        ray_data.map_files(NUMBERS, Doubler, {"factor": 2}, workers=2)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=line) as caught:
        read(paths)
    assert "\n" not in str(caught.value)


class Doubler:
    """Double values, as a worker for `map_files`."""

    def __init__(self, factor: int):
        self.factor = factor

    def __call__(self, path: str) -> dict[str, Any]:
        return {"value": self.factor * int(path), "process": os.getpid()}


NUMBERS = [str(number) for number in range(6)]


def test_one_worker_maps_in_this_process_in_the_order_of_the_paths():
    seen = []
    answers = ray_data.map_files(
        NUMBERS, Doubler, {"factor": 2}, progress=lambda *done: seen.append(done)
    )
    assert [answer["value"] for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert {answer["process"] for answer in answers} == {os.getpid()}
    assert seen == [(number, 6) for number in range(1, 7)]
    assert ray_data.map_files([], Doubler, {"factor": 2}) == []
    assert ray_data.map_files(NUMBERS[:1], Doubler, {"factor": 2}, workers=2) == [
        {"value": 0, "process": os.getpid()}
    ]


def test_several_workers_are_other_processes_and_answer_in_the_same_order(ray_session):
    seen = []
    answers = ray_data.map_files(
        NUMBERS, Doubler, {"factor": 2}, workers=2, progress=lambda *done: seen.append(done)
    )
    assert [answer["value"] for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert os.getpid() not in {answer["process"] for answer in answers}
    assert seen == [(number, 6) for number in range(1, 7)]
