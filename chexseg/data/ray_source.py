"""A Ray Data source for parquet shards, without Ray's sampling of files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import pyarrow as pa
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from chexseg import code_version
from chexseg.code_version import CodeVersion
from chexseg.data import shards


class ShardSource(Datasource):
    """The named columns of shards, with one read task per shard.

    Ray's parquet reader first samples files in tasks that need a CPU each. They would wait while
    training holds all CPUs.
    """

    def __init__(self, paths: Sequence[str], columns: Sequence[str]):
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's
        self.paths, self.columns = list(paths), list(columns)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        code = code_version.running()
        return [
            ReadTask(
                functools.partial(_read, path, self.columns, code),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=(path,), exec_stats=None),
            )
            for path in self.paths
        ]


def _read(path: str, columns: Sequence[str], code: CodeVersion) -> Iterator[pa.Table]:
    code_version.require(code)  # the node may have joined after the run began
    with shards.opened(path, columns) as file:
        # By default pyarrow would read the whole file at once.
        for batch in file.iter_batches(shards.ROW_GROUP, columns=list(columns)):
            yield pa.Table.from_batches([batch])
