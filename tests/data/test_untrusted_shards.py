"""Test shards that others may have written: nothing is executed, no damage goes unnoticed."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexseg import code_version
from chexseg.data import ray_source, shards
from chexseg.errors import DamagedArtifactError
from chexseg.store import manifest
from tests.store.test_manifest import document


class RecordingType(pa.ExtensionType):
    """Record when pyarrow builds this type from a file's metadata; Ray's would unpickle it."""

    made: ClassVar[list[bytes]] = []

    def __init__(self):
        super().__init__(pa.int64(), "chexseg.tests.told")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"said by the file"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        cls.made.append(serialized)
        return cls()


@pytest.fixture
def notes():
    pa.register_extension_type(RecordingType())
    yield RecordingType
    pa.unregister_extension_type("chexseg.tests.told")


def test_no_extension_type_is_made_of_what_a_file_says(tmp_path, notes):
    """Check for all lengths of names, and so all alignments of the schema in the footer."""
    path = tmp_path / "part-00000.parquet"
    for length in range(1, 60):
        values = pa.ExtensionArray.from_storage(notes(), pa.array([1, 2]))
        table = pa.table({"image_id": ["a", "b"], "x" * length: values})
        note = {b"chexseg": json.dumps({"arrays": {}}).encode()}
        pq.write_table(table.replace_schema_metadata(note), path)
        notes.made.clear()
        for read in (
            shards.read,
            shards.metadata,
            lambda path: list(shards.row_groups(path, ["image_id"])),
        ):
            with pytest.raises(DamagedArtifactError, match="its schema has an extension type"):
                read(path)
        assert notes.made == []
    pq.read_table(path)
    assert notes.made, "the type would have been made"


@pytest.mark.parametrize(
    ("columns", "arrays", "fault"),
    [
        ({"x": pa.array([[1], [2]])}, {}, "x is of type list"),
        ({"x": pa.array([b"a", b"bc"])}, {}, "x is of type binary"),
        (
            {"x": pa.array([b"a" * 8] * 2, pa.binary(8))},
            {"x": {"dtype": "object", "shape": [1]}},
            "values of type object",
        ),
        (
            {"x": pa.array([b"a" * 8] * 2, pa.binary(8))},
            {"x": {"dtype": "uint8", "shape": [9]}},
            "not of 9 bytes",
        ),
        (
            {"x": pa.array([b"a" * 8] * 2, pa.binary(8))},
            {"x": {"dtype": "uint8", "shape": [-8]}},
            "has the shape",
        ),
        (
            {"x": pa.array([b"a" * 8] * 2, pa.binary(8))},
            {"x": {"dtype": "nothing", "shape": [8]}},
            "nothing",
        ),
        ({}, {"x": {"dtype": "uint8", "shape": [8]}}, "x"),
        ({}, [], "list"),
        (
            {"x": pa.array([b"a" * 8] * 2, pa.binary(8))},
            {"x": {"dtype": "uint8", "shape": [10**30, 10**30]}},
            "",
        ),
    ],
)
def test_schemas_that_we_never_write_are_refused_before_a_value_is_read(
    tmp_path, columns, arrays, fault
):
    path = tmp_path / "part-00000.parquet"
    note = {b"chexseg": json.dumps({"arrays": arrays}).encode()}
    pq.write_table(
        pa.table({"image_id": ["a", "b"], **columns}).replace_schema_metadata(note), path
    )
    with pytest.raises(DamagedArtifactError, match=f"not a readable shard .*{fault}"):
        shards.read(path)


@pytest.fixture
def finished_shard(tmp_path):
    """Return a shard of a finished result."""
    path = tmp_path / "ingest" / "aaaa" / "images" / shards.part_name(0)
    path.parent.mkdir(parents=True)
    pixels_NHW = np.random.default_rng(0).integers(0, 255, (70, 8, 8), dtype=np.uint8)
    ids = [f"{row:03d}" for row in range(70)]
    shards.write(path, shards.table({"image_id": ids}, {"pixels": pixels_NHW}, thresholds=[0.25]))
    entry = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (path.parents[1] / manifest.MANIFEST).write_text(
        json.dumps(document(files={f"images/{path.name}": entry}))
    )
    return path


def test_what_a_shard_of_another_version_lacks_is_named(finished_shard):
    """pyarrow would leave a missing column out."""
    code = code_version.running()
    for read in (
        lambda path: shards.read(path, ["image_id", "rank"]),
        lambda path: list(shards.row_groups(path, ["rank"])),
        lambda path: list(ray_source._read(str(path), ["rank"], code)),
        lambda path: shards.metadata(path)["rank"],
        lambda path: shards.metadata(path)["arrays"]["rank"],
    ):
        with pytest.raises(DamagedArtifactError, match=f"{finished_shard}: .*has no .*rank.*hint"):
            read(finished_shard)


def test_no_flipped_bit_of_a_finished_shard_is_silent(finished_shard):
    """Flip 150 bits: in pages, headers, and the footer with the writer's name."""
    content, code = finished_shard.read_bytes(), code_version.running()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 150):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(generator.integers(8))
        finished_shard.write_bytes(flipped)
        for read in (
            shards.read,
            shards.metadata,
            lambda path: list(ray_source._read(str(path), ["image_id"], code)),
        ):
            with pytest.raises(DamagedArtifactError, match="not what its manifest says"):
                read(finished_shard)
    finished_shard.write_bytes(content)
    assert shards.metadata(finished_shard)["thresholds"] == [0.25]
    assert (
        sum(len(batch) for batch in ray_source._read(str(finished_shard), ["pixels"], code)) == 70
    )


@pytest.mark.parametrize("folder", [".", "images"])
def test_a_missing_shard_that_the_manifest_names_is_reported(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    names = [f"{folder}/{shards.part_name(number)}".removeprefix("./") for number in range(3)]
    for name in names:
        shards.write(tmp_path / name, shards.table({"image_id": [name]}, {}))
    entries = dict.fromkeys(names, {"size": 1, "sha256": "0" * 64})
    (tmp_path / manifest.MANIFEST).write_text(json.dumps(document(files=entries)))
    assert shards.files(tmp_path / folder) == [str(tmp_path / name) for name in names]
    for name in (names[1], names[0]):
        (tmp_path / name).unlink()
        with pytest.raises(DamagedArtifactError, match=f"{name}: missing, but its manifest names"):
            shards.files(tmp_path / folder)
    for name in (*names[2:], manifest.MANIFEST):
        (tmp_path / name).unlink()
    with pytest.raises(DamagedArtifactError, match="no shards"):
        shards.files(tmp_path / folder)


def test_a_shard_that_the_manifest_does_not_name_is_not_listed(finished_shard):
    other = finished_shard.with_name(shards.part_name(1))
    other.write_bytes(finished_shard.read_bytes())
    assert shards.files(finished_shard.parent) == [str(finished_shard)]
    with pytest.raises(DamagedArtifactError, match="not in its manifest"):
        shards.read(other)


def test_a_shard_is_hashed_where_one_of_its_images_is_wanted_and_only_there(finished_shard):
    content = bytearray(finished_shard.read_bytes())
    content[-20] ^= 1  # in the footer, which no page checksum covers
    finished_shard.write_bytes(content)
    directory = finished_shard.parent
    assert list(shards.row_groups(finished_shard, ["pixels"], {"elsewhere"})) == []
    for read in (
        lambda: list(shards.row_groups(finished_shard, ["pixels"], {"003", "elsewhere"})),
        lambda: shards.read_all(directory, ["image_id"], {"003"}),
        lambda: shards.read_all(directory, ["image_id"]),
    ):
        with pytest.raises(DamagedArtifactError, match="not what its manifest says"):
            read()


def test_no_flipped_bit_of_an_unfinished_results_shard_is_taken_for_finished(tmp_path):
    """Check also the footer: the manifest would seal an error there for good."""
    path = tmp_path / shards.part_name(0)
    table = shards.table(
        {"image_id": ["a", "b"]}, {"x": np.arange(8).reshape(2, 4)}, thresholds=[0.25]
    )
    assert shards.complete(path, [table]) == 2
    assert shards.finished(path) == 2
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert shards.finished(path) is None and not path.exists()
    assert shards.complete(path, [table]) == 2 and path.read_bytes() == content


def test_a_shard_that_describes_its_columns_in_two_ways_is_refused(tmp_path):
    """Check because readers would validate one description and use the other."""
    path = tmp_path / "part-00000.parquet"
    table = shards.table({"image_id": ["a", "b"]}, {"x": np.zeros((2, 4, 4), dtype=np.uint8)})
    other = json.dumps({"arrays": {"x": {"dtype": "uint8", "shape": [2, 8]}}})
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"chexseg": other})
    with pytest.raises(DamagedArtifactError, match="descriptions of its columns differ"):
        shards.read(path)


def test_rows_without_a_value_and_images_that_are_not_there_are_damage(tmp_path):
    path = tmp_path / "part-00000.parquet"
    note = {b"chexseg": json.dumps({"arrays": {"x": {"dtype": "uint8", "shape": [8]}}}).encode()}
    values = pa.array([b"a" * 8, None], pa.binary(8))
    pq.write_table(
        pa.table({"image_id": ["a", "b"], "x": values}).replace_schema_metadata(note), path
    )
    with pytest.raises(DamagedArtifactError, match="1 rows without a value"):
        shards.array(shards.read(path), "x")
    assert shards.read_all(tmp_path, ["image_id"], {"a"}).num_rows == 2
    with pytest.raises(DamagedArtifactError, match="1 of 2 images are missing"):
        shards.read_all(tmp_path, ["image_id"], {"a", "elsewhere"})
