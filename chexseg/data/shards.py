"""Parquet shards, the format in which stages exchange data.

A shard has a sorted string column ``image_id``. Numeric arrays are fixed-size binary columns, which
are viewed without a copy and stream several times as fast as tensor columns. Boolean arrays are
stored as bits. The schema's metadata holds each array's dtype and shape, and a stage's own entries
(such as thresholds and pathologies).
"""

from __future__ import annotations

import binascii
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chexseg.errors import ChexsegError, DamagedArtifactError, UserError, reason
from chexseg.store import manifest
from chexseg.store.links import remove
from chexseg.untrusted import bounded_json

#: Rows per parquet row group: 64 radiographs of 320 x 320 are 6.5 MB, a good size for streaming.
ROW_GROUP = 64
#: Threads of `read_all`, each of which hashes and reads a shard.
READER_THREADS = 8
_METADATA = b"chexseg"
_PARTS = "part-*.parquet"
_HINT = "expected: a shard of this version (hint: delete its result to have it computed anew)"


def table(
    scalars: Mapping[str, Sequence[Any] | np.ndarray],
    arrays: Mapping[str, np.ndarray],
    **metadata: Any,
) -> pa.Table:
    """Return a table of plain columns (with ``image_id``) and arrays with one entry per row."""
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
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(flat.shape[1] * flat.itemsize), len(flat), [None, pa.py_buffer(flat)]
        )
    note = json.dumps({"arrays": layout, **metadata}, sort_keys=True).encode()
    return pa.table(columns).replace_schema_metadata({_METADATA: note})


class _Entries(dict[str, Any]):
    """Entries of a shard's metadata. A missing one is a damaged or foreign shard, no KeyError."""

    def __init__(self, entries: Any, shard: str) -> None:
        super().__init__(entries)
        self.shard = shard

    def __missing__(self, name: str) -> Any:
        raise DamagedArtifactError(f"{self.shard}: its metadata has no {name!r}; {_HINT}")


def metadata(source: pa.Table | pa.Schema | str | Path, shard: str = "a shard") -> dict[str, Any]:
    """Return the metadata of a shard: ``arrays`` (column -> dtype and shape) and other entries.

    shard: its name in messages. Raises `DamagedArtifactError` for a file that isn't a shard, and
    when a missing entry or array is looked up; `UserError` for a table that isn't from a shard.
    """
    if isinstance(source, (str, Path)):
        with opened(source) as file:
            return metadata(file.schema_arrow, str(source))
    note = (getattr(source, "schema", source).metadata or {}).get(_METADATA)
    if note is None:
        raise UserError("found a table without chexseg's metadata; expected one of a shard")
    entries = bounded_json.loads(note)
    return _Entries(entries | {"arrays": _Entries(entries["arrays"].items(), shard)}, shard)


def array(source: pa.Table, name: str, layout: Mapping[str, Any] | None = None) -> np.ndarray:
    """Return the array (rows, *shape) of a fixed-size binary column.

    It is a view if the column is one chunk and not stored as bits. layout: the column's entry in
    `metadata`, for a table that has lost its metadata.
    """
    layout = layout or metadata(source)["arrays"][name]
    column = source[name]
    if nulls := column.null_count:  # their bytes in the buffer are undefined
        raise DamagedArtifactError(f"column {name} of a shard has {nulls} rows without a value")
    if isinstance(column, pa.ChunkedArray):  # combine_chunks would copy even a single chunk
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)
    start = column.offset * width
    raw = raw[start : start + len(column) * width].reshape(len(column), width)
    if layout["dtype"] == "bits":
        return unpack(raw, layout["shape"])
    return cast(np.ndarray, raw.view(layout["dtype"]).reshape(len(column), *layout["shape"]))


def row_bytes(layout: Mapping[str, Any]) -> int:
    """Return the number of bytes in one row of an array."""
    count: int = math.prod(layout["shape"])
    bits = layout["dtype"] == "bits"
    return math.ceil(count / 8) if bits else count * np.dtype(layout["dtype"]).itemsize


def unpack(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Unpack rows of little-endian bits to a boolean array (rows, *shape)."""
    flat = np.unpackbits(bits, axis=1, count=math.prod(shape), bitorder="little")
    return flat.view(bool).reshape(len(bits), *shape)


def write(path: Path, rows: pa.Table | Iterable[pa.Table], row_group: int = ROW_GROUP) -> int:
    """Write one shard atomically, by a temporary file, and return its number of rows.

    rows: a table, or tables of one schema, each written as it comes so that only one is in memory.
    Without rows no file is written. row_group: rows that are read together; shards without pixels
    are best read at once. Pages carry checksums.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count, writer = 0, None
    try:
        for table in [rows] if isinstance(rows, pa.Table) else rows:
            if writer is None:
                writer = pq.ParquetWriter(
                    temporary,
                    table.schema,
                    compression="zstd",
                    use_dictionary=False,
                    write_page_checksum=True,
                )
            writer.write_table(table, row_group_size=row_group)
            count += table.num_rows
        if writer is not None:
            writer.close()
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a whole shard. Raises `DamagedArtifactError` for a damaged or foreign file."""
    with opened(path, columns or ()) as file:
        table = file.read(list(columns) if columns else None)
        # Metadata of other writers is dropped, because pandas obeys it.
        return table.replace_schema_metadata({_METADATA: table.schema.metadata[_METADATA]})


def read_all(directory: Path, columns: Sequence[str], wanted: Set[str] | None = None) -> pa.Table:
    """Return these columns of a directory's shards; with `wanted`, of those with one of these ids.

    With `wanted`, `columns` must include ``image_id``. Raises `DamagedArtifactError` as `files` and
    `read` do, and if an image is missing.
    """
    paths = files(directory)

    def read_one(path: str) -> pa.Table | None:
        return read(path, columns) if wanted is None or _holds_any(path, wanted) else None

    with ThreadPoolExecutor(READER_THREADS) as pool:
        tables = [table for table in pool.map(read_one, paths) if table is not None]
    if wanted:
        missing = set(wanted).difference(*(table["image_id"].to_pylist() for table in tables))
        if missing:
            raise DamagedArtifactError(
                f"{directory}: {len(missing)} of {len(wanted)} images are missing ({min(missing)})"
            )
    return pa.concat_tables(tables) if tables else read(paths[0], columns).slice(0, 0)


def row_groups(
    path: str | Path, columns: Sequence[str], wanted: Set[str] | None = None
) -> Iterator[pa.Table]:
    """Yield a shard's row groups in order; with `wanted`, only those with one of these image ids.

    Only one is in memory. Raises as `read` does. A shard without a wanted image isn't hashed: cells
    need a hundred of 224,316 images, and their readers check that none is missing.
    """
    if wanted is not None and not _holds_any(path, wanted):
        return
    with opened(path, columns) as file:
        for number in range(file.num_row_groups):
            if wanted is None or not wanted.isdisjoint(_ids(file, number)):
                yield file.read_row_group(number, list(columns))


def _holds_any(path: str | Path, wanted: Set[str]) -> bool:
    with opened(path, ["image_id"], verify=False) as file:
        return any(
            not wanted.isdisjoint(_ids(file, number)) for number in range(file.num_row_groups)
        )


def _ids(file: pq.ParquetFile, row_group: int) -> list[str]:
    return cast(list[str], file.read_row_group(row_group, ["image_id"])["image_id"].to_pylist())


# ---- shards that other programs may have written -------------------------------------------------


@contextmanager
def opened(
    path: str | Path, columns: Sequence[str] = (), verify: bool = True
) -> Iterator[pq.ParquetFile]:
    """Open a shard that has these columns. All readers of shards use this function.

    A file of a finished result is compared with its manifest, unless `verify` is off. Pages are
    compared with their checksums. The schema is checked before any value is read. Raises
    `DamagedArtifactError` for a file that isn't one of our shards, also while it is being read.
    """
    try:
        if verify:
            manifest.verify(path)
        _refuse_extension_types(Path(path))
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(file.schema_arrow, columns)
            footer, schema = file.metadata.metadata or {}, file.schema_arrow.metadata
            if footer.get(_METADATA) != schema[_METADATA]:
                raise ValueError("its two descriptions of its columns differ")
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
        RecursionError,  # these three: JSON that is nested too deeply, or an unbounded shape
        OverflowError,
        MemoryError,
    ) as error:
        raise DamagedArtifactError(f"{path}: not a readable shard ({reason(error)})") from None


#: Bytes at the end of a parquet file: the footer's length, and a magic number.
_TAIL = 8
#: Base64 text that is long enough for a schema with an extension type.
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64,}")
_EXTENSION = b"ARROW:extension"
#: Tests of a column's type, one of which must hold.
_PLAIN = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_fixed_size_binary,
)


def _refuse_extension_types(path: Path) -> None:
    """Raise ValueError for a file whose Arrow schema has an extension type.

    pyarrow creates the types when it opens a file, and those that Ray registers may unpickle the
    file's data. So the footer is searched before. Arrow stores its schema there in base64, after a
    length that may look like base64 too. Hence all four alignments are decoded.
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


def _check_schema(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raise ValueError for missing columns, unexpected types, or arrays unlike the metadata's."""
    for name in columns:
        if name not in schema.names:  # pyarrow would leave it out
            raise ValueError(f"has no column {name}; {_HINT}")
    for column in schema:
        if not any(is_plain(column.type) for is_plain in _PLAIN):
            raise ValueError(f"column {column.name} is of type {column.type}")
    if _METADATA not in (schema.metadata or {}):
        raise ValueError("not one of chexseg")
    for name, layout in metadata(schema)["arrays"].items():
        dtype, shape = layout["dtype"], layout["shape"]
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"column {name} has the shape {shape}")
        # A view as objects would follow the bytes as pointers.
        if dtype != "bits" and np.dtype(dtype).kind not in "uif":
            raise ValueError(f"column {name} has values of type {dtype}")
        stored = schema.field(name).type
        if stored != pa.binary(row_bytes(layout)):
            raise ValueError(f"column {name} is of type {stored}, not of {row_bytes(layout)} bytes")


def finished(path: Path) -> int | None:
    """Return the rows of a shard that an earlier attempt finished. Delete any other: None."""
    with suppress(DamagedArtifactError):
        if manifest.is_noted(path):
            with opened(path) as file:
                return int(file.metadata.num_rows)
    remove(path)
    return None


def complete(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write a shard unless an earlier attempt finished it, and return its number of rows."""
    rows = finished(path)
    if rows is None:
        rows = write(path, tables)
        if rows:
            manifest.note_digest(path)
    return rows


def files(directory: Path) -> list[str]:
    """Return the shards of a directory, in order: those of its manifest, or if none, those present.

    Only a result that is still being written has no manifest. Raises `DamagedArtifactError` if a
    shard that the manifest names is missing, or if there are no shards.
    """
    result = manifest.result_directory(directory / part_name(0))
    if result is None:
        paths = sorted(directory.glob(_PARTS))
    else:
        paths = sorted(result / name for name in manifest.load(result)["files"])
        paths = [path for path in paths if path.parent == directory and path.match(_PARTS)]
    for path in paths:
        if not path.is_file():
            raise DamagedArtifactError(f"{path}: missing, but its manifest names it")
    if not paths:
        raise DamagedArtifactError(f"{directory}: no shards")
    return [str(path) for path in paths]


def part_name(number: int) -> str:
    """Return the file name of a directory's shard with this number."""
    return f"part-{number:05d}.parquet"
