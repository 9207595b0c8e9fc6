"""Check a checkpoint's pickles without running them: every tensor must be filled from the file."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import IO, Any

import torch

#: Globals in a pickle of plain weights. They fill tensors from storages, and nothing else.
PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|torch\.(Size|device|\w+Storage)"
    r"|torch\.(bool|(u?int|b?float|complex)\d+)|torch\._utils\._rebuild_(tensor(_v2)?|parameter)"
)


class _Placeholder:
    """Replaces every object of a pickle, so that nothing in the file runs."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("GLOBAL BUILD")  # torch would resize a tensor's storage

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...


class _Dictionary(_Placeholder):
    """Replaces an ordered dictionary; torch gives that of a state dict an attribute."""

    def __setstate__(self, state: object) -> None: ...


class _Scanner(pickle._Unpickler):  # written in C, it would allocate a memo of any size
    """Reads a pickle of plain weights without running it. keys: of the storages it refers to."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.keys: set[object] = set()

    def find_class(self, module: str, name: str) -> type[_Placeholder]:
        if not PLAIN.fullmatch(f"{module}.{name}"):
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _Dictionary if module == "collections" else _Placeholder

    def persistent_load(self, pid: tuple[object, ...]) -> _Placeholder:
        self.keys.add(pid[2])
        return _Placeholder()


def check_filled(source: Path | io.BytesIO) -> None:
    """Refuse a checkpoint whose tensors aren't all filled from the file.

    torch returns uninitialised memory for a tensor that a pickle makes by its size alone, and for
    a storage without content in the old format. Raises `UnpicklingError` or `ValueError`.
    """
    if isinstance(source, io.BytesIO):
        # torch's reader ignores the case of names, unlike zipfile: scan the bytes that torch reads.
        source.seek(0)
        pickled = torch._C.PyTorchFileReader(source).get_record("data.pkl")
        _Scanner(io.BytesIO(pickled)).load()
        return
    keys: set[object] = set()
    stored: Any = ()
    with source.open("rb") as file:
        for _ in range(5):  # magic number, protocol, system, content, keys of the storages
            scanner = _Scanner(file)
            stored = scanner.load()
            keys |= scanner.keys
    if missing := keys.difference(stored):
        raise ValueError(f"{len(missing)} storages have no content")
