"""Parquet shards: what stages hand to each other.

Every shard has a string column ``image_id``, sorted; numeric arrays are fixed-size binary columns whose dtype and shape
stand in the schema's metadata, beside whatever else a stage has to say of them (thresholds, pathologies). Boolean arrays are
stored as bits. Fixed-size binary is viewed without a copy, and streams several times as fast as tensor columns.
"""

from __future__ import annotations

import binascii
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chexseg.errors import ChexsegError, DamagedArtifactError, UserError, reason
from chexseg.store import manifest

#: Rows a parquet row group: 64 radiographs of 320 x 320 are 6.5 MB, a piece that streams well.
ROW_GROUP = 64
#: Shards that are hashed and read at once where all of a directory are.
READ_AT_ONCE = 8
_METADATA = b"chexseg"


def table(
    scalars: Mapping[str, Sequence | np.ndarray], arrays: Mapping[str, np.ndarray], **metadata: Any
) -> pa.Table:
    """A table from plain columns (``image_id`` among them) and arrays whose first axis is the rows."""
    columns = {name: pa.array(values) for name, values in scalars.items()}
    layout = {}
    for name, values in arrays.items():
        bits = values.dtype == bool
        layout[name] = {
            "dtype": "bits" if bits else values.dtype.name,
            "shape": list(values.shape[1:]),
        }
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        flat = np.ascontiguousarray(np.packbits(flat, axis=1, bitorder="little") if bits else flat)
        width = flat.shape[1] * flat.itemsize
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), len(flat), [None, pa.py_buffer(flat)]
        )
    note = json.dumps({"arrays": layout, **metadata}, sort_keys=True).encode()
    return pa.table(columns).replace_schema_metadata({_METADATA: note})


def metadata(source: pa.Table | pa.Schema | str | Path) -> dict[str, Any]:
    """Return what the writer said of a table or file: ``arrays`` (column -> dtype and shape) and its own entries.

    Raises `DamagedArtifactError` for a file that isn't a shard, and `UserError` for a table that isn't from one.
    """
    if isinstance(source, (str, Path)):
        with opened(source) as file:
            return metadata(file.schema_arrow)
    note = (getattr(source, "schema", source).metadata or {}).get(_METADATA)
    if note is None:
        raise UserError("not a table of a shard of chexseg")
    return json.loads(note)


def array(source: pa.Table, name: str, layout: Mapping[str, Any] | None = None) -> np.ndarray:
    """The array of a fixed-size binary column, (rows, *shape); a view where the column is one chunk and not bits.

    `layout` is the column's entry of `metadata`, needed where the table has lost its metadata on the way.
    """
    layout = layout or metadata(source)["arrays"][name]
    column = source[name]
    if column.null_count:  # whose values are whatever is in the buffer
        raise DamagedArtifactError(
            f"column {name} of a shard has {column.null_count} rows without a value"
        )
    if isinstance(column, pa.ChunkedArray):  # combine_chunks would copy even a single chunk
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)[column.offset * width :][
        : len(column) * width
    ]
    raw = raw.reshape(len(column), width)
    if layout["dtype"] == "bits":
        return unpack(raw, layout["shape"])
    return raw.view(layout["dtype"]).reshape(len(column), *layout["shape"])


def row_bytes(layout: Mapping[str, Any]) -> int:
    """Return the bytes that one row of an array takes."""
    count = math.prod(layout["shape"])
    return (
        math.ceil(count / 8)
        if layout["dtype"] == "bits"
        else count * np.dtype(layout["dtype"]).itemsize
    )


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
                options = {
                    "compression": "zstd",
                    "use_dictionary": False,
                    "write_page_checksum": True,
                }
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
    """Return one shard, whole. Raises `DamagedArtifactError` for a truncated, altered or foreign file."""
    with opened(path) as file:
        table = file.read(list(columns) if columns else None)
        return table.replace_schema_metadata(
            {_METADATA: table.schema.metadata[_METADATA]}
        )  # pandas obeys what others write


def read_all(directory: Path, columns: Sequence[str], wanted: Set[str] | None = None) -> pa.Table:
    """Return these columns of all shards of a directory; with `wanted`, of those that hold one of these image ids.

    `columns` must have ``image_id`` then. Raises `DamagedArtifactError` as `read`, and where there is no shard or an image is missing.
    """
    paths = files(directory)
    if not paths:
        raise DamagedArtifactError(f"{directory}: no shards")

    def read_one(path: str) -> pa.Table | None:
        return read(path, columns) if wanted is None or _holds_any(path, wanted) else None

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        tables = [table for table in pool.map(read_one, paths) if table is not None]
    if wanted:
        lacking = wanted.difference(*(table["image_id"].to_pylist() for table in tables))
        if lacking:
            raise DamagedArtifactError(
                f"{directory}: {len(lacking)} of {len(wanted)} images are not there ({min(lacking)})"
            )
    return pa.concat_tables(tables) if tables else read(paths[0], columns).slice(0, 0)


def row_groups(
    path: str | Path, columns: Sequence[str], wanted: Set[str] | None = None
) -> Iterator[pa.Table]:
    """One shard, a row group at a time, in order; with `wanted`, only those that hold one of these image ids.

    Only one is in memory. Raises as `read` does. A shard without a wanted image isn't hashed: cells want a hundred of
    224,316 images, and whoever misses one finds out.
    """
    if wanted is not None and not _holds_any(path, wanted):
        return
    with opened(path) as file:
        for number in range(file.num_row_groups):
            if wanted is None or not wanted.isdisjoint(_ids(file, number)):
                yield file.read_row_group(number, list(columns))


def _holds_any(path: str | Path, wanted: Set[str]) -> bool:
    with opened(path, verify=False) as file:
        return any(
            not wanted.isdisjoint(_ids(file, number)) for number in range(file.num_row_groups)
        )


def _ids(file: pq.ParquetFile, row_group: int) -> list[str]:
    return file.read_row_group(row_group, ["image_id"])["image_id"].to_pylist()


# ---- shards that someone else may have written ---------------------------------------------------------------------------


@contextmanager
def opened(path: str | Path, verify: bool = True) -> Iterator[pq.ParquetFile]:
    """Open one shard for reading: every reader of shards comes through here.

    Of a finished result the file is compared with its manifest, unless `verify` is off, and pages with their checksums; the
    schema is checked before a value is read. Raises `DamagedArtifactError` for what is no shard of ours, also while it is read.
    """
    try:
        if verify:
            manifest.verify(path)
        _refuse_extension_types(Path(path))
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(file.schema_arrow)
            if (file.metadata.metadata or {}).get(_METADATA) != file.schema_arrow.metadata[
                _METADATA
            ]:
                raise ValueError("it describes its columns twice, and not alike")
            yield file
    except ChexsegError:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        *_TOO_MUCH,
    ) as error:
        raise DamagedArtifactError(f"{path}: not a readable shard ({reason(error)})") from None


#: What JSON that nests too deep, or a shape without bounds, ends in.
_TOO_MUCH = (RecursionError, OverflowError, MemoryError)
#: Bytes at the end of a parquet file: the footer's length, and a mark.
_TAIL = 8
#: A run of base64 that is long enough for a schema with an extension type.
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64,}")
_EXTENSION = b"ARROW:extension"


def _refuse_extension_types(path: Path) -> None:
    """Raise ValueError for a file whose Arrow schema has an extension type.

    pyarrow makes the types when it opens a file, and those that Ray registers may unpickle what the file says of them.
    So the footer is looked at first: Arrow keeps its schema there in base64, after a length that may look like base64
    too. Hence all four alignments are decoded.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        length = int.from_bytes(file.read(_TAIL)[:4], "little")
        file.seek(max(0, size - _TAIL - length))
        footer = file.read(length)
    for run in _BASE64.findall(footer):
        for start in range(4):
            usable = run[start : len(run) - (len(run) - start) % 4]
            if _EXTENSION in binascii.a2b_base64(usable):
                raise ValueError("its schema has an extension type")


def _check_schema(schema: pa.Schema) -> None:
    """Raise ValueError for columns that no shard of ours has, or arrays that don't fit what is said of them."""
    for column in schema:
        if not _is_plain(column.type):
            raise ValueError(f"column {column.name} is of type {column.type}")
    if _METADATA not in (schema.metadata or {}):
        raise ValueError("not one of chexseg")
    for name, layout in metadata(schema)["arrays"].items():
        dtype, shape = layout["dtype"], layout["shape"]
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"column {name} has the shape {shape}")
        if (
            dtype != "bits" and np.dtype(dtype).kind not in "uif"
        ):  # views of objects would be followed as pointers
            raise ValueError(f"column {name} has values of type {dtype}")
        if schema.field(name).type != pa.binary(row_bytes(layout)):
            raise ValueError(
                f"column {name} is of type {schema.field(name).type}, not of {row_bytes(layout)} bytes"
            )


def _is_plain(type: pa.DataType) -> bool:
    return (
        pa.types.is_integer(type)
        or pa.types.is_floating(type)
        or pa.types.is_boolean(type)
        or pa.types.is_string(type)
        or pa.types.is_large_string(type)
        or pa.types.is_fixed_size_binary(type)
    )


def finished(path: Path) -> int | None:
    """Rows of a shard that an earlier run has finished; None where there is none, or a damaged one, which is deleted."""
    try:
        if manifest.is_noted(path):
            with opened(path) as file:
                return file.metadata.num_rows
    except DamagedArtifactError:
        pass
    path.unlink(missing_ok=True)
    return None


def complete(path: Path, tables: Iterable[pa.Table]) -> int:
    """Rows of a shard: of the one that an earlier run has finished, else of the tables, which are written now."""
    rows = finished(path)
    if rows is None:
        rows = write(path, tables)
        if rows:
            manifest.note_digest(path)
    return rows


def files(directory: Path) -> list[str]:
    """Return the shards of a directory, in order; of a finished result those that its manifest names."""
    paths = sorted(Path(directory).glob("part-*.parquet"))
    result = manifest.result_directory(paths[0]) if paths else None
    if result is not None:
        named = manifest.load(result)["files"]
        paths = [path for path in paths if path.relative_to(result).as_posix() in named]
    return [str(path) for path in paths]


def part_name(number: int) -> str:
    """The name of a directory's shard with this number."""
    return f"part-{number:05d}.parquet"
