"""Check the pickles of a file in torch's formats before torch reads them, without running them.

Every tensor must lie inside a storage that the file fills. torch itself enlarges a storage that is
too small, which leaves views of it in freed memory. A small file can't make torch take much memory.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import torch

#: Globals in a pickle of plain weights. They fill tensors from storages, and nothing else.
PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|torch\.(Size|device|\w+Storage)"
    r"|torch\.(bool|(u?int|b?float|complex)\d+)|torch\._utils\._rebuild_(tensor(_v2)?|parameter)"
)


#: The most items of a key of a dictionary or set, with those of all tuples in it.
_LONGEST_KEY = 1000


def _check_key(key: object) -> None:
    """Raise `UnpicklingError` for a key that takes long to hash.

    Tuples of tuples of one tuple: each level doubles the time, and takes a few bytes.
    """
    items, pending = 0, [key]
    while pending:
        item = pending.pop()
        items += 1
        if type(item) is tuple:
            pending += item[:_LONGEST_KEY]
        if items + len(pending) > _LONGEST_KEY:
            raise pickle.UnpicklingError("a key made of too many items")


class BoundedUnpickler(pickle._Unpickler):
    """Unpickles in time and memory proportional to the file's size.

    `find_class` must return nothing that copies its arguments. The class is in Python: in C it
    would allocate a memo of any size that the pickle says.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("a bytearray, a frozen set or an opcode of protocol 0")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: object, value: object) -> None:
        _check_key(key)
        if not isinstance(self.stack[-1], dict | _Placeholder):
            raise pickle.UnpicklingError("items of something other than a dictionary")
        self.stack[-1][key] = value

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.BYTEARRAY8[0]: _refuse,  # allocates it before the file turns out to be too short
        # These hash their items.
        pickle.DICT[0]: _refuse,
        pickle.FROZENSET[0]: _refuse,
        pickle.ADDITEMS[0]: _refuse,
    }


class _Placeholder:
    """Replaces every object of a pickle, so that nothing in the file runs."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("GLOBAL BUILD")  # torch would resize a tensor's storage

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...


class _Copying(_Placeholder):
    """Replaces a container that copies its argument: a set, a dictionary, or a size.

    Python pickles each argument once, with at least one byte for each item. A reference to an
    earlier argument has a few bytes, and copies all its items again.
    """

    #: The scanner, which counts the items.
    scan: _Scanner

    def __new__(cls, *arguments: object) -> _Copying:
        for argument in arguments:
            if not isinstance(argument, list | tuple | dict):
                raise pickle.UnpicklingError(f"a container made of a {type(argument).__name__}")
            for item in argument:  # a list is a key with its value
                _check_key(item[0] if isinstance(item, list) and item else item)
            cls.scan.copied += len(argument)
        if cls.scan.copied > cls.scan.source.tell():
            raise pickle.UnpicklingError("copies of one container, which take much memory")
        return super().__new__(cls)


class _Dictionary(_Copying):
    """Replaces an ordered dictionary; torch gives that of a state dict an attribute."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or state.keys() - {"_metadata"}:
            raise pickle.UnpicklingError("GLOBAL BUILD")


_REPLACED = {
    "collections.OrderedDict": _Dictionary,
    "collections.Counter": _Dictionary,
    "builtins.set": _Copying,
    "torch.Size": _Copying,
}


class _Storage(_Placeholder):
    """Replaces a storage of so many numbers."""

    def __init__(self, numbers: int):
        self.numbers = numbers


def check_fits(
    numbers: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *ignored: object
) -> None:
    """Raise `UnpicklingError` if a tensor reaches beyond a storage of so many numbers.

    The other arguments are those of torch's function that rebuilds the tensor.
    """
    # The arithmetic of other numbers, such as uint8 tensors, wraps around.
    if not all(type(n) is int for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor whose sizes are not integers")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or (0 not in size and last >= numbers):
        raise pickle.UnpicklingError(f"a tensor of {tuple(size)} in a storage of {numbers} numbers")


def _rebuild(storage: object, *arguments: Any) -> _Placeholder:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage of the file")
    check_fits(storage.numbers, *arguments)
    return _Placeholder()


class _Scanner(BoundedUnpickler):
    """Reads a pickle of plain weights without running it."""

    def __init__(self, file: io.BytesIO, legacy: bool):
        super().__init__(file)
        self.source, self.copied = file, 0
        self.fields = 6 if legacy else 5
        self.types: dict[str, type[_Placeholder]] = {}
        #: Key of a storage that the pickle refers to -> (type, number of numbers).
        self.storages: dict[object, tuple[object, int]] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        path = f"{module}.{name}"
        # torch joins both parts as well, so a dot in a name could hide the function.
        if "." in name or not PLAIN.fullmatch(path):
            raise pickle.UnpicklingError(f"GLOBAL {path}")
        if name.startswith("_rebuild_tensor"):
            return _rebuild
        kind = _REPLACED.get(path, _Placeholder)
        return self.types.setdefault(path, type(name, (kind,), {"scan": self}))

    def persistent_load(self, pid: tuple[object, ...]) -> _Storage:
        if type(pid) is not tuple or len(pid) != self.fields or pid[0] != "storage":
            raise pickle.UnpicklingError("a reference to something other than a storage")
        _, kind, key, _, numbers, *view = pid
        if view and view != [None]:
            raise pickle.UnpicklingError("a view of a storage")
        # Other keys may be equal here and differ in torch, or the reverse.
        if type(key) is not str:
            raise pickle.UnpicklingError("a storage whose key is not a string")
        if type(numbers) is not int or numbers < 0 or kind not in self.types.values():
            raise pickle.UnpicklingError("a storage of no known type or size")
        if self.storages.setdefault(key, (kind, numbers)) != (kind, numbers):
            raise pickle.UnpicklingError("a storage of two types or sizes")
        return _Storage(numbers)


def check(source: io.BytesIO) -> None:
    """Refuse a file in torch's formats whose tensors aren't all filled from the file.

    Call it before `torch.load`. Raises almost any exception for damaged bytes, `UnpicklingError`
    for a pickle of anything else than tensors in plain containers, and `ValueError` for a storage
    without content. Leaves the position at the start.
    """
    source.seek(0)
    if bytes(source.getbuffer()[:4]) == b"PK\3\4":  # as torch decides
        # torch's reader ignores the case of names, unlike zipfile: scan the bytes that torch reads.
        pickled = torch._C.PyTorchFileReader(source).get_record("data.pkl")
        _Scanner(io.BytesIO(pickled), legacy=False).load()
    else:
        for _ in range(3):  # magic number, protocol, system
            _Scanner(source, legacy=True).load()
        content = _Scanner(source, legacy=True)
        content.load()
        stored = _Scanner(source, legacy=True).load()
        if type(stored) is not list or any(type(key) is not str for key in stored):
            raise pickle.UnpicklingError("keys of storages that are not strings")
        if missing := content.storages.keys() - set(stored):
            raise ValueError(f"{len(missing)} storages have no content")
    source.seek(0)
