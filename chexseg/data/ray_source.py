"""Parquet shards as a source of Ray Data that takes nothing but the reading."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import pyarrow as pa
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from chexseg.data import shards


class ShardSource(Datasource):
    """The named columns of shards, a task each.

    Ray's own parquet reader samples files first, in tasks that take a CPU each and so wait where networks hold all of them.
    """

    def __init__(self, paths: Sequence[str], columns: Sequence[str]):
        super().__init__()
        self.paths, self.columns = list(paths), list(columns)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        return [
            ReadTask(
                functools.partial(_read, path, self.columns),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=[path], exec_stats=None),
            )
            for path in self.paths
        ]


def _read(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    with shards.opened(path) as file:
        for batch in file.iter_batches(
            shards.ROW_GROUP, columns=list(columns)
        ):  # pyarrow's own choice is the whole file
            yield pa.Table.from_batches([batch])
