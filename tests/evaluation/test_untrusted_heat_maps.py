"""Test pickled heat maps: none runs code, takes unbounded memory, or reads other memory."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chexseg.evaluation import heat_maps
from tests.evaluation.heat_map_files import FIRST, peak, refused, write_map
from tests.models.legacy_files import Storage, enlarging, legacy_file


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("inside", ["the map", "the storage"])
def test_nothing_in_a_pickle_is_run(truth, tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))

    class Smuggled:
        def __reduce__(self):
            import torch

            return torch.storage._load_from_bytes, (pickle.dumps(Harm()),)

    path.write_bytes(pickle.dumps({"map": Harm() if inside == "the map" else Smuggled()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")
    assert not (tmp_path / "harmed").exists()


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_pickle_takes_no_memory_without_bounds(truth, tmp_path):
    """Check a pickle of eight bytes that asks for a memo of 60 million entries."""
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(b"\x80\x02Nr" + (60_000_000).to_bytes(4, "little") + b".")
    with little_memory():
        refused(truth, tmp_path / "maps", path.name, "found no heat map")


def test_copies_of_one_dictionary_are_refused(truth, tmp_path):
    """Check 100 dictionaries of 3,000 items, made of one in a file of 20 kB."""
    items = b"".join(b"M" + struct.pack("<H", number) + b"N" for number in range(3000))
    start = b"\x80\x04ccollections\nOrderedDict\nq\x01}q\x02(" + items + b"u0"
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(start + b"h\x01h\x02\x85R" * 100 + b"}.")
    with little_memory():
        refused(truth, tmp_path / "maps", path.name, "found no heat map", "a tensor with hooks")


def test_copies_of_one_storage_are_refused(truth, tmp_path):
    """Check 100 storages of 400 kB, made of the same bytes in a file of 400 kB."""
    import io

    import torch

    out = io.BytesIO()
    torch.save(torch.zeros(100_000).storage(), out, _use_new_zipfile_serialization=False)
    content = Loads(out.getvalue()).__reduce__()[1]
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    start = b"\x80\x03ctorch.storage\n_load_from_bytes\nr\0\0\0\x70"
    arguments = pickle.dumps(content, protocol=3)[2:-1] + b"r\1\0\0\x70"
    path.write_bytes(start + arguments + b"j\0\0\0\x70j\1\0\0\x70R" * 100 + b".")
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "copies of one storage")


@pytest.mark.parametrize("target", [b"}", b"ccollections\nOrderedDict\n)R"])
def test_a_key_that_takes_long_to_hash_is_refused(truth, tmp_path, target):
    """Check 15 levels of (t, t). Each doubles the time, so that 60 would take years."""
    key = b"K\x01" + b"q\x00h\x00\x86" * 15
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(b"\x80\x02" + target + key + b"Ns.")
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "a key that is no short")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"}\x8b" + struct.pack("<i", 900) + b"\x55" * 900 + b"Ns.", "torch never writes"),
        (b"}\x8a\x09" + b"\x55" * 9 + b"Ns.", "a key that is no short text or integer"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"N" * 11 + b"tR.", "too many arguments"),
    ],
)
def test_what_takes_long_in_few_bytes_is_refused(truth, tmp_path, content, words):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(b"\x80\x02" + content)
    refused(truth, tmp_path / "maps", path.name, "found no heat map", words)


def test_only_dictionaries_have_items(truth, tmp_path):
    """Check a storage: an index of tuples of tuples would take as long as a key."""
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    whole = pickle.dumps(Rebuilt(0, (2, 3), (3, 1)))
    path.write_bytes(whole[:-1] + b"K\0K\1s.")
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "other than a dictionary")


class Loads:
    """Pickle itself so that torch loads these bytes as a storage."""

    def __init__(self, raw: bytes):
        self.raw = raw

    def __reduce__(self):
        import torch

        return torch.storage._load_from_bytes, (self.raw,)


def two_directories(raw: bytes) -> bytes:
    """Return an archive with a second directory, which zipfile reads and torch does not.

    The end of an archive names the offset of its directory. zipfile looks directly before the end
    instead. The second directory claims that nothing is compressed.
    """
    start = raw.rindex(b"PK\5\6")
    size, offset = (int.from_bytes(raw[start + at : start + at + 4], "little") for at in (12, 16))
    directory = raw[offset : offset + size]
    second = directory.replace(b"\x08\x00", b"\x00\x00")
    return raw[:start] + second + raw[start:]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw,
        lambda raw: raw + b"PK\5\6",
        lambda raw: raw[:-2] + b"\x07\x00PK\5\6abc",
        two_directories,
    ],
    ids=["whole", "bytes after it", "a comment", "two directories"],
)
@pytest.mark.parametrize("typed", [True, False])
def test_a_storage_that_is_compressed_is_refused(truth, tmp_path, change, typed):
    import io
    import zipfile
    from collections import OrderedDict

    import torch

    plain, packed = io.BytesIO(), io.BytesIO()
    storage = torch.zeros(1000).storage()
    torch.save(storage if typed else storage.untyped(), plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))

    class Tensor:
        def __reduce__(self):
            raw = change(packed.getvalue())
            return torch._utils._rebuild_tensor_v2, (
                Loads(raw),
                *(0, (1, 1, 2, 2), (4, 4, 2, 1), False, OrderedDict()),
            )

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Tensor()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "compressed")


def test_a_tensor_in_place_of_a_storage_is_refused(truth, tmp_path):
    """Refuse it: torch would rebuild the tensor over memory of arbitrary content."""
    import io

    import torch

    out = io.BytesIO()
    torch.save(torch.zeros(1, 1, 4, 6), out, _use_new_zipfile_serialization=False)
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Loads(out.getvalue())}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "in place of a storage")


@pytest.mark.parametrize(
    ("padding", "words"),
    [(0, "storages larger than the file"), (40_000, "1 storages have no content")],
)
def test_a_storage_without_content_is_refused(truth, tmp_path, padding, words):
    """Check storages that the file's list doesn't name: torch leaves them unfilled."""
    import io
    from collections import OrderedDict

    import torch

    out = io.BytesIO()
    torch.save(torch.zeros(10_000).storage(), out, _use_new_zipfile_serialization=False)
    raw = out.getvalue()
    # The list is the last pickle, before the numbers and their count.
    start = raw.rindex(b"\x80\x02]", 0, -40_008)
    raw = raw[:start] + b"\x80\x02]." + b"\x01" * padding

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (
                Loads(raw),
                *(0, (1, 1, 100, 100), (10_000, 10_000, 100, 1), False, OrderedDict()),
            )

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Tensor()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", words)


def test_a_view_of_a_storage_that_torch_would_free_is_refused(truth, tmp_path):
    """Check a storage whose tensor is longer: torch's would read, and write, freed memory."""
    raw = legacy_file([*enlarging(1000).values(), Storage("0", 1000)], {"0": 3000})
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Loads(raw)}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "a view of a storage")


def test_a_pickle_sets_no_attribute_of_what_it_names(truth, tmp_path):
    import torch

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    for name in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\n_load_from_bytes\n"):
        path.write_bytes(
            b"\x80\x02}(X\x03\x00\x00\x00map" + name + b"}X\x06\x00\x00\x00harmedK\x01sbu."
        )
        refused(
            truth, tmp_path / "maps", path.name, "found no heat map", "it would change an object"
        )
    assert not hasattr(torch._utils._rebuild_tensor_v2, "harmed")
    assert not hasattr(torch.storage._load_from_bytes, "harmed")


class Rebuilt:
    """Pickle a tensor with a chosen size, stride and offset into six numbers."""

    def __init__(self, offset: Any, size: Any, stride: Any):
        self.arguments = offset, size, stride

    def __reduce__(self):
        import collections

        import torch

        storage = torch.arange(6.0).storage()
        return torch._utils._rebuild_tensor_v2, (
            storage,
            *self.arguments,
            False,
            collections.OrderedDict(),
        )


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (1, 1, 100, 100), (1, 1, 100, 1)),
        (1, (1, 1, 2, 3), (6, 6, 3, 1)),
        (-1, (1, 1, 2, 2), (1, 1, 2, 1)),
        (0, (1, 1, 2, 2), (1, 1, -1, 1)),
        (5, (1, 1, 2, 2), (0, 0, -2, -1)),
        (0, (1, 1, 2**20, 2**20), (0, 0, 0, 0)),
        (0, (1, 1, 2), (1, 1, 1, 1)),
        ("0", (1, 1, 2, 3), (6, 6, 3, 1)),
        (0, (1, 1, 2.0, 3), (6, 6, 3, 1)),
        (False, (1, 1, 2, 3), (6, 6, 3, 1)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(truth, tmp_path, offset, size, stride):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Rebuilt(offset, size, stride)}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")


def test_sizes_whose_arithmetic_wraps_are_refused(truth, tmp_path):
    """Check 255 rows at a stride of 128: in 8 bits they begin at 254 * 128 = 0."""
    import io

    import torch

    def byte(value: int) -> Loads:
        out = io.BytesIO()
        number = torch.tensor(value, dtype=torch.uint8)
        torch.save(number, out, _use_new_zipfile_serialization=False)
        return Loads(out.getvalue())

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    tensor = Rebuilt(0, (byte(255), byte(3)), (byte(128), byte(1)))
    path.write_bytes(pickle.dumps({"map": tensor}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")


def test_only_integers_are_sizes():
    """Check types too, because a later torch may load numbers that wrap as storages."""
    import torch

    size, stride = (torch.tensor([n, 3 - n // 128], dtype=torch.uint8) for n in (255, 128))
    with pytest.raises(pickle.UnpicklingError, match="not integers"):
        heat_maps._rebuild_tensor(torch.arange(6.0).storage(), 0, tuple(size), tuple(stride))


def test_a_part_of_a_storage_is_read(tmp_path):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Rebuilt(1, (1, 1, 2, 2), (4, 4, 3, 1))}))
    np.testing.assert_array_equal(heat_maps.read(path), [[1, 2], [4, 5]])


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\x80\x04.", b"\x80\x02]q\x00.", pickle.dumps({"map": [1]}), pickle.dumps({})],
)
def test_what_is_no_heat_map_is_refused(truth, tmp_path, content):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(content)
    refused(truth, tmp_path / "maps", path.name, "found no heat map")
