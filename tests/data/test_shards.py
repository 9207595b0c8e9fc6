"""Test shards: round trips of all dtypes, complete files or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexseg.data import shards
from chexseg.errors import DamagedArtifactError
from chexseg.store import manifest

ROWS = 70  # more than one row group


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "pixels": generator.integers(0, 256, (ROWS, 9, 7), dtype=np.uint8),
        "masks": generator.random((ROWS, 3, 5, 5)) < 0.4,  # 75 bits: the last byte is not full
        "scores": generator.random((ROWS, 10, 4)).astype(np.float16),
        "logits": generator.normal(size=(ROWS, 2)).astype(np.float32),
        "counts": generator.integers(-(2**40), 2**40, (ROWS, 1, 3)),
    }


def scalars() -> dict[str, list]:
    return {
        "image_id": [f"image{n:03d}" for n in range(ROWS)],
        "frontal": [n % 3 == 0 for n in range(ROWS)],
    }


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / shards.part_name(0)
    shards.write(path, shards.table(scalars(), arrays(), kind="images", thresholds=[0.25, 0.5]))
    return path


def test_arrays_and_scalars_round_trip(shard):
    table = shards.read(shard)
    for name, values in arrays().items():
        back = shards.array(table, name)
        assert back.dtype == values.dtype and np.array_equal(back, values), name
    for name, values in scalars().items():
        assert table[name].to_pylist() == values
    assert shards.finished(shard) is None, "nobody has noted its digest"


def test_metadata_is_read_from_table_schema_and_file(shard):
    table = shards.read(shard)
    for source in (table, table.schema, shard, str(shard)):
        metadata = shards.metadata(source)
        assert metadata["kind"] == "images" and metadata["thresholds"] == [0.25, 0.5]
        assert metadata["arrays"]["masks"] == {"dtype": "bits", "shape": [3, 5, 5]}
        assert metadata["arrays"]["scores"] == {"dtype": "float16", "shape": [10, 4]}


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (3, 5), (60, 10), (69, 1), (12, 0), (0, ROWS)]
)
def test_slices_give_their_rows(shard, start, length):
    part = shards.read(shard).slice(start, length)
    for name, values in arrays().items():
        assert np.array_equal(shards.array(part, name), values[start : start + length]), name


def test_slices_of_tables_never_written_give_their_rows():
    whole = shards.table(scalars(), arrays())
    again = pa.concat_tables([whole.slice(5, 4), whole.slice(50, 3)])
    for name, values in arrays().items():
        assert np.array_equal(shards.array(again, name), values[[5, 6, 7, 8, 50, 51, 52]]), name


def test_a_layout_replaces_lost_metadata(shard):
    layout = shards.metadata(shard)["arrays"]["masks"]
    bare = shards.read(shard).replace_schema_metadata(None)
    assert np.array_equal(shards.array(bare, "masks", layout), arrays()["masks"])


def test_only_the_named_columns_are_read(shard):
    assert shards.read(shard, ["image_id", "scores"]).column_names == ["image_id", "scores"]


def test_bits_and_bytes_take_the_room_they_need(shard):
    schema = pq.read_schema(shard)
    assert schema.field("masks").type == pa.binary(10) and schema.field("pixels").type == pa.binary(
        63
    )
    assert pq.ParquetFile(shard).metadata.num_row_groups == 2


def test_files_are_listed_in_order_and_nothing_else(tmp_path):
    for number in (10, 2, 0):
        shards.write(tmp_path / shards.part_name(number), shards.table({"image_id": ["a"]}, {}))
    (tmp_path / ".part-00001.parquet.77").touch()
    (tmp_path / "notes.json").write_text(json.dumps({}))
    assert shards.files(tmp_path) == [
        str(tmp_path / shards.part_name(number)) for number in (0, 2, 10)
    ]


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_truncated_files_are_refused(shard, share):
    shard.write_bytes(shard.read_bytes()[: int(shard.stat().st_size * share)])
    with pytest.raises(DamagedArtifactError) as caught:
        shards.read(shard)
    assert str(shard) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(DamagedArtifactError, match="part-00000.parquet"):
        shards.read(tmp_path / shards.part_name(0))
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(
        DamagedArtifactError, match="foreign.parquet: not a readable shard .*not one of chexseg"
    ):
        shards.metadata(tmp_path / "foreign.parquet")


def test_a_written_shard_leaves_no_other_file(shard):
    shards.write(shard, shards.table(scalars(), {}))  # over the old one
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]
    assert shards.read(shard).column_names == list(scalars())


def test_a_failed_write_leaves_the_old_file(shard):
    before = shard.read_bytes()

    def until_the_disk_is_full():
        yield shards.table(scalars(), {})
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        shards.write(shard, until_the_disk_is_full())
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_tables_are_written_one_after_another_and_none_leaves_no_file(tmp_path):
    path = tmp_path / shards.part_name(0)
    assert shards.write(path, iter([])) == 0
    assert not path.exists()
    tables = [
        shards.table({"image_id": [f"{n}{m}" for m in range(3)]}, {"x": np.full((3, 2), n)})
        for n in range(2)
    ]
    assert shards.write(path, iter(tables)) == 6
    assert shards.array(shards.read(path), "x").tolist() == [[0, 0]] * 3 + [[1, 1]] * 3


def test_only_row_groups_with_wanted_images_are_read(tmp_path):
    path = tmp_path / shards.part_name(0)
    ids = [f"{row:03d}" for row in range(150)]
    shards.write(path, shards.table({"image_id": ids}, {"x": np.arange(150)[:, None]}))
    groups = list(shards.row_groups(path, ["image_id", "x"], {"070", "149"}))
    assert [shards.array(rows, "x")[:, 0].tolist() for rows in groups] == [
        list(range(64, 128)),
        list(range(128, 150)),
    ]
    assert [rows.num_rows for rows in shards.row_groups(path, ["x"])] == [64, 64, 22]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedArtifactError, match="not a readable shard"):
        list(shards.row_groups(path, ["x"]))


def test_a_finished_shard_is_not_reused_under_another_name_or_in_another_stage_run(tmp_path):
    """Copy it together with its note, as `cp -r` or a restore would."""
    runs = {run: tmp_path / run / "train" for run in ("one", "two")}
    for run, directory in runs.items():
        directory.mkdir(parents=True)
        (directory.parent / manifest.INPUTS).write_text(run)
    first, second = (runs["one"] / shards.part_name(number) for number in (0, 1))
    for path in (first, second):
        rows = shards.table({"image_id": [path.name]}, {})
        assert shards.complete(path, [rows]) == shards.finished(path) == 1

    def copied(source: Path, target: Path) -> Path:
        shutil.copy(source, target)
        shutil.copy(
            source.with_name(f".{source.name}.sha256"), target.with_name(f".{target.name}.sha256")
        )
        return target

    for target in (runs["two"] / first.name, second, runs["one"].parent / first.name):
        assert shards.finished(copied(first, target)) is None and not target.exists()
    assert shards.finished(first) == 1
