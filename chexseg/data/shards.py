"""Parquet shards: what stages hand to each other.

Every shard has a string column ``image_id``, sorted; numeric arrays are fixed-size binary columns whose dtype and shape
stand in the schema's metadata, beside whatever else a stage has to say of them (thresholds, pathologies). Boolean arrays are
stored as bits. Fixed-size binary is viewed without a copy, and streams several times as fast as tensor columns.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chexseg.errors import DamagedError, UserError

#: Rows a parquet row group: 64 radiographs of 320 x 320 are 6.5 MB, a piece that streams well.
ROW_GROUP = 64
_METADATA = b"chexseg"


def table(scalars: Mapping[str, Sequence | np.ndarray], arrays: Mapping[str, np.ndarray], **metadata: Any) -> pa.Table:
    """A table from plain columns (``image_id`` among them) and arrays whose first axis is the rows."""
    columns = {name: pa.array(values) for name, values in scalars.items()}
    layout = {}
    for name, values in arrays.items():
        bits = values.dtype == bool
        layout[name] = {"dtype": "bits" if bits else values.dtype.name, "shape": list(values.shape[1:])}
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        flat = np.ascontiguousarray(np.packbits(flat, axis=1, bitorder="little") if bits else flat)
        width = flat.shape[1] * flat.itemsize
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(flat), [None, pa.py_buffer(flat)])
    note = json.dumps({"arrays": layout, **metadata}, sort_keys=True).encode()
    return pa.table(columns).replace_schema_metadata({_METADATA: note})


def metadata(source: pa.Table | pa.Schema | str | Path) -> dict[str, Any]:
    """What the writer said of a table or file: ``arrays`` (column -> dtype and shape) and its own entries."""
    schema = pq.read_schema(source) if isinstance(source, (str, Path)) else getattr(source, "schema", source)
    note = (schema.metadata or {}).get(_METADATA)
    if note is None:
        raise UserError(f"{source if isinstance(source, (str, Path)) else 'table'}: not a shard of chexseg")
    return json.loads(note)


def array(source: pa.Table, name: str, layout: Mapping[str, Any] | None = None) -> np.ndarray:
    """The array of a fixed-size binary column, (rows, *shape); a view where the column is one chunk and not bits.

    `layout` is the column's entry of `metadata`, needed where the table has lost its metadata on the way.
    """
    layout = layout or metadata(source)["arrays"][name]
    column = source[name]
    if isinstance(column, pa.ChunkedArray):  # combine_chunks would copy even a single chunk
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)[column.offset * width :][: len(column) * width]
    raw = raw.reshape(len(column), width)
    if layout["dtype"] == "bits":
        return unpack(raw, layout["shape"])
    return raw.view(layout["dtype"]).reshape(len(column), *layout["shape"])


def unpack(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Rows of little-endian bits -> boolean array (rows, *shape)."""
    flat = np.unpackbits(bits, axis=1, count=math.prod(shape), bitorder="little")
    return flat.view(bool).reshape(len(bits), *shape)


def write(path: Path, rows: pa.Table | Iterable[pa.Table], row_group: int = ROW_GROUP) -> int:
    """Write one shard, whole or not at all: to a temporary name, then renamed. Its pages carry checksums.

    row_group: rows of one that are read together; those without pixels are best read all at once.

    Of several tables of one schema, each is written as it comes, and only one is in memory. The number of rows; without
    any there is no file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count, writer = 0, None
    try:
        for table in [rows] if isinstance(rows, pa.Table) else rows:
            if writer is None:
                options = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
                writer = pq.ParquetWriter(temporary, table.schema, **options)
            writer.write_table(table, row_group_size=row_group)
            count += table.num_rows
        if writer is not None:
            writer.close()
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard, whole. Raises `DamagedError` for a truncated, altered or foreign file."""
    with _damage_named(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(list(columns) if columns else None)


def row_groups(path: str | Path, columns: Sequence[str], wanted: Set[str] | None = None) -> Iterator[pa.Table]:
    """One shard, a row group at a time, in order; with `wanted`, only those that hold one of these image ids.

    Only one is in memory. Raises as `read` does.
    """
    with _damage_named(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            if wanted is None or not wanted.isdisjoint(file.read_row_group(number, ["image_id"])["image_id"].to_pylist()):
                yield file.read_row_group(number, list(columns))


@contextmanager
def _damage_named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are no UTF-8 any more
        raise DamagedError(f"{path}: not a readable shard ({str(error).splitlines()[0]})") from None


def finished(path: Path) -> int | None:
    """Rows of a shard that an earlier run has written; None where there is none, or a damaged one, which is deleted.

    The shard is read whole: its checksums cost little beside making it again.
    """
    if not path.exists():
        return None
    try:
        with _damage_named(path):
            columns = pq.read_schema(path).names
        return sum(rows.num_rows for rows in row_groups(path, columns))
    except DamagedError:
        path.unlink()
        return None


def complete(path: Path, tables: Iterable[pa.Table]) -> int:
    """Rows of a shard: of the one that an earlier run has finished, else of the tables, which are written now."""
    rows = finished(path)
    return write(path, tables) if rows is None else rows


def files(directory: Path) -> list[str]:
    """The shards of a directory, in order."""
    return sorted(str(path) for path in Path(directory).glob("part-*.parquet"))


def part_name(number: int) -> str:
    """The name of a directory's shard with this number."""
    return f"part-{number:05d}.parquet"
