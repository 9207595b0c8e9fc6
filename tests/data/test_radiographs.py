"""Test arrays of finished artifacts: in the requested order, never from a changed shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from chexseg.data import radiographs, shards
from chexseg.data.transfer import to_device
from chexseg.errors import DamagedArtifactError
from chexseg.store import manifest
from tests.store.test_manifest import document


@pytest.fixture
def directory(tmp_path) -> Path:
    """Return two shards of 100 images of noise, which zstd can't compress."""
    generator = np.random.default_rng(0)
    for part in range(2):
        ids = [f"image{100 * part + row:03d}" for row in range(100)]
        values = generator.integers(0, 256, (100, 8, 8), dtype=np.uint8)
        shards.write(
            tmp_path / shards.part_name(part), shards.table({"image_id": ids}, {"pixels": values})
        )
    return tmp_path


def test_arrays_are_those_of_the_named_images_in_their_order(directory):
    table = [
        row for path in shards.files(directory) for row in shards.array(shards.read(path), "pixels")
    ]
    arrays = radiographs.arrays(directory, "pixels", ["image150", "image003", "image042"])
    np.testing.assert_array_equal(arrays, np.stack([table[150], table[3], table[42]]))
    with pytest.raises(DamagedArtifactError, match="1 of 2 images"):
        radiographs.arrays(directory, "pixels", ["image003", "image200"])


def test_one_changed_byte_of_the_pixels_is_seen(directory):
    path = Path(shards.files(directory)[1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match=path.name):
        radiographs.arrays(directory, "pixels", ["image150"])


def test_a_result_that_is_computed_again_is_read_again(directory):
    """Read the new arrays in a process that has cached the old ones."""
    path, ids = directory / shards.part_name(0), [f"image{row:03d}" for row in range(100)]
    for value in (1, 2):
        values = np.full((100, 8, 8), value, dtype=np.uint8)
        shards.write(path, shards.table({"image_id": ids}, {"pixels": values}))
        content = path.read_bytes()
        files = {path.name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
        (directory / manifest.MANIFEST).write_text(json.dumps(document(files=files)))
        pixels = radiographs.load_cached(directory, "pixels", ["image003"])
        assert int(pixels[0, 0, 0]) == value


def test_an_image_that_appears_twice_fills_no_other_row(tmp_path):
    values = np.ones((2, 8, 8), dtype=np.uint8)
    table = shards.table({"image_id": ["a", "a"]}, {"pixels": values})
    shards.write(tmp_path / shards.part_name(0), table)
    with pytest.raises(DamagedArtifactError, match="1 of 2 images are missing"):
        radiographs.arrays(tmp_path, "pixels", ["a", "b"])


def test_results_reach_the_host_with_their_items():
    batches = [(number, {"a": torch.full((2,), number), "b": torch.ones(1)}) for number in range(3)]
    copied = list(radiographs.to_host(iter(batches)))
    assert [item for item, _ in copied] == [0, 1, 2]
    for item, arrays in copied:
        np.testing.assert_array_equal(arrays["a"], [item, item])
        np.testing.assert_array_equal(arrays["b"], [1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_results_of_a_gpu_come_once_the_next_batch_is_launched():
    launched = []

    def batches() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for number in range(3):
            values = to_device(torch.full((1000,), number), "cuda")
            launched.append(number)
            yield number, {"a": values + 1}

    for item, arrays in radiographs.to_host(batches()):
        assert len(launched) == min(3, item + 2)
        np.testing.assert_array_equal(arrays["a"], np.full(1000, item + 1))
