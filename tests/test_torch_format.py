"""Test the scan of pickles: a small file doesn't make torch, or the scan, take much memory."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch

from chexseg.untrusted import torch_format

#: Containers that copy their argument, and an argument of n items.
ARGUMENTS: dict[str, Callable[[int], Any]] = {
    "builtins.set": lambda n: list(range(n)),
    "collections.Counter": lambda n: list(range(n)),
    "collections.OrderedDict": lambda n: [(number, None) for number in range(n)],
    "torch.Size": lambda n: tuple(range(n)),
}


def in_zip(pickled: bytes) -> io.BytesIO:
    """Return a file in torch's format with this pickle and no tensors."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "version": b"3"}.items():
            archive.writestr(f"archive/{name}", content)
    return out


def copies(name: str, argument: Any, number: int, build: bytes = b"R") -> io.BytesIO:
    """Return a file with so many containers, all made of one argument."""
    kind, items = (struct.pack("<i", 2**30 + memo) for memo in range(2))  # beyond those of dumps
    named = b"c" + name.replace(".", "\n").encode() + b"\n"
    pickled = pickle.dumps(argument, protocol=2)[2:-1]
    made = b"j" + kind + b"j" + items + b"\x85" + build
    start = b"\x80\x02(" + named + b"r" + kind + pickled + b"r" + items
    return in_zip(start + made * number + b"t.")


@pytest.mark.parametrize("build", [b"R", b"\x81"], ids=["REDUCE", "NEWOBJ"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_copies_of_one_container_are_bounded_by_the_bytes_of_the_file(name, build):
    """Check 1,000 items and 1,000 copies of them, in 20 kB or less: a million items."""
    few = copies(name, ARGUMENTS[name](3), 4, build)
    torch_format.check(few)
    assert len(torch.load(few, weights_only=True)) == 2 + 4
    many = copies(name, ARGUMENTS[name](1000), 1000, build)
    with pytest.raises(pickle.UnpicklingError, match="copies of one container"):
        torch_format.check(many)


def test_a_container_is_not_copied_after_it_was_filled():
    """Check a dictionary that is filled item by item, of which the scan knows no length."""
    filled = b"\x80\x02ccollections\nOrderedDict\nq\x00)R(K\x01Nuq\x01h\x00h\x01\x85R."
    with pytest.raises(pickle.UnpicklingError, match="a container made of a OrderedDict"):
        torch_format.check(in_zip(filled))


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_containers_are_read(legacy):
    content = {
        "counter": Counter("abcabc"),
        "dictionary": OrderedDict((number, [number]) for number in range(300)),
        "sizes": [torch.Size([3, 4, 5])] * 2,
        "tensor": torch.arange(6.0),
    }
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not legacy)
    torch_format.check(out)
    loaded = torch.load(out, weights_only=True)
    assert torch.equal(loaded.pop("tensor"), content.pop("tensor")) and loaded == content


def test_nothing_is_allocated_that_the_file_does_not_hold():
    """Check a bytearray of 256 MiB in a pickle of 12 bytes."""
    file = in_zip(b"\x80\x05\x96" + struct.pack("<Q", 2**28) + b".")
    tracemalloc.start()
    try:
        with pytest.raises(pickle.UnpicklingError, match="a bytearray"):
            torch_format.check(file)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


#: Keys that take long to hash or to compare, each in few bytes after the first.
KEYS = {
    "a tuple of two": b"K\x01K\x02\x86",
    "tuples of tuples": b"K\x01" + b"q\x00h\x00\x86" * 15,  # 60 levels would take years
    "a long integer": b"\x8a\x09" + b"\x55" * 9,
    "a long text": b"X" + struct.pack("<i", 1001) + b"a" * 1001,
}


@pytest.mark.parametrize("place", ["dictionary", "OrderedDict", "its pair", "item of a set"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_that_takes_long_to_hash_is_refused(place, key):
    pickled = {
        "dictionary": b"}" + key + b"Ns.",
        "OrderedDict": b"ccollections\nOrderedDict\n)R" + key + b"Ns.",
        "its pair": b"ccollections\nOrderedDict\n]](" + key + b"Nea\x85R.",
        "item of a set": b"cbuiltins\nset\n]" + key + b"a\x85R.",
    }
    with pytest.raises(pickle.UnpicklingError, match="a key that is no short text or integer"):
        torch_format.check(in_zip(b"\x80\x02" + pickled[place]))


def test_text_and_integers_are_keys():
    out = io.BytesIO()
    torch.save({"a" * 1000: 3, 2**63: 4, -5: 6}, out)
    torch_format.check(out)


@pytest.mark.parametrize(
    "number",
    [b"\x8b" + struct.pack("<i", 9) + b"\x55" * 9, b"L0x55L\n", b"I85\n"],
    ids=["LONG4", "LONG", "INT"],
)
def test_integers_of_any_length_are_refused(number):
    with pytest.raises(pickle.UnpicklingError, match="an opcode that torch never writes"):
        torch_format.check(in_zip(b"\x80\x02" + number + b"."))


#: torch.device, called with so many arguments.
CALLS: dict[str, Callable[[int], bytes]] = {
    "REDUCE": lambda n: b"ctorch\ndevice\n(" + b"N" * n + b"tR",
    "NEWOBJ": lambda n: b"ctorch\ndevice\n(" + b"N" * n + b"t\x81",
    "REDUCE of a list": lambda n: b"ctorch\ndevice\n](" + b"N" * n + b"eR",
    "NEWOBJ_EX": lambda n: b"ctorch\ndevice\n(" + b"N" * n + b"t}\x92",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_few_arguments(call):
    """Otherwise a call of a few bytes could copy a long list each time."""
    if call in ("REDUCE", "NEWOBJ"):
        torch_format.check(in_zip(b"\x80\x02" + CALLS[call](10) + b"."))
    with pytest.raises(pickle.UnpicklingError, match="too many arguments|torch never writes"):
        torch_format.check(in_zip(b"\x80\x02" + CALLS[call](11) + b"."))


def test_functions_have_no_attributes_from_the_file():
    state = pickle.dumps({"harm": 1}, protocol=2)[2:-1]
    named = b"\x80\x02ctorch._utils\n_rebuild_tensor\n"
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL BUILD"):
        torch_format.check(in_zip(named + state + b"b."))


def test_a_tensor_has_up_to_64_dimensions():
    out = io.BytesIO()
    torch.save(torch.zeros([1] * 64), out)
    torch_format.check(out)
    torch_format.check_fits(1, 0, (1,) * 64, (1,) * 64)
    with pytest.raises(pickle.UnpicklingError, match="too many dimensions"):
        torch_format.check_fits(1, 0, (1,) * 65, (1,) * 65)


def storages(keys: list[str], numbers: int, stored: str) -> io.BytesIO:
    """Return an archive with storages of these keys, and one record with such numbers."""
    pickled = b"\x80\x02]"
    for key in keys:
        reference = ("storage", torch.FloatStorage, key, "cpu", numbers)
        pickled += pickle.dumps(reference, protocol=2)[2:-1] + b"Qa"
    out = in_zip(pickled + b".")
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(f"archive/data/{stored}", bytes(4 * numbers))
    return out


def test_one_record_is_not_loaded_twice():
    """Check keys that torch's reader finds in one record: other cases, and C's end of text."""
    one = storages(["aa", "aa"], 1000, "aa")
    torch_format.check(one)
    for keys, words in {
        ("aa", "aA"): "a storage of two spellings",
        ("aa", "aa\0a"): "storages larger than the file",
    }.items():
        with pytest.raises(pickle.UnpicklingError, match=words):
            torch_format.check(storages(list(keys), 1000, "aa"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("legacy", [False, True])
def test_storages_of_all_types_fit_their_files(dtype, legacy):
    out = io.BytesIO()
    torch.save(torch.zeros(100_000, dtype=dtype), out, _use_new_zipfile_serialization=not legacy)
    torch_format.check(out)
