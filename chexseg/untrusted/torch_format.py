"""Check the pickles of a file in torch's formats before torch reads them, without running them.

Every tensor must lie inside a storage that the file fills. torch itself enlarges a storage that is
too small, which leaves views of it in freed memory. A small file can't make torch take much memory.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

#: Globals in a pickle of plain weights. They fill tensors from storages, and nothing else.
PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|torch\.(Size|device|\w+Storage)"
    r"|torch\.(bool|(u?int|b?float|complex)\d+)|torch\._utils\._rebuild_(tensor(_v2)?|parameter)"
)


#: Longest text that is a key of a dictionary, set or storage, in characters.
_LONGEST_KEY = 1000
#: Most arguments of a call, and most dimensions of a tensor, as in torch.
_MOST_ARGUMENTS, _MOST_DIMENSIONS = 10, 64

#: What Python does at each opcode.
_DISPATCH: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch


def _check_key(key: object) -> None:
    """Raise `UnpicklingError` for a key that takes long to hash or to compare.

    References of a few bytes can repeat a long key. Many tuples, and many integers beyond 64 bits,
    have the same hash, and each such key would be compared with all others.
    """
    short = type(key) is str and len(key) <= _LONGEST_KEY
    if not short and not (type(key) is int and key.bit_length() <= 64):
        raise pickle.UnpicklingError(
            f"a key that is no short text or integer: {type(key).__name__}"
        )


class BoundedUnpickler(pickle._Unpickler):
    """Unpickles in time and memory proportional to the file's size.

    `find_class` must return nothing that copies its arguments. The class is in Python: in C it
    would allocate a memo of any size that the pickle says.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("an opcode that torch never writes, such as of a bytearray")

    def _call(self, opcode: bytes) -> None:
        # Each call copies its arguments, which a reference of a few bytes can repeat.
        if type(self.stack[-1]) is not tuple or len(self.stack[-1]) > _MOST_ARGUMENTS:
            raise pickle.UnpicklingError("a call with too many arguments")
        _DISPATCH[opcode[0]](self)

    def _reduce(self) -> None:
        self._call(pickle.REDUCE)

    def _new(self) -> None:
        self._call(pickle.NEWOBJ)

    def _build(self) -> None:
        if not isinstance(self.stack[-2], _Placeholder):
            raise pickle.UnpicklingError("GLOBAL BUILD")  # of a function, say
        _DISPATCH[pickle.BUILD[0]](self)

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
        **_DISPATCH,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.BUILD[0]: _build,
        pickle.BYTEARRAY8[0]: _refuse,  # allocates it before the file turns out to be too short
        # These call with arguments of any number.
        pickle.NEWOBJ_EX[0]: _refuse,
        pickle.OBJ[0]: _refuse,
        pickle.INST[0]: _refuse,
        # Integers of any length. Those of LONG1 have up to 255 bytes.
        pickle.LONG4[0]: _refuse,
        pickle.LONG[0]: _refuse,
        pickle.INT[0]: _refuse,
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
            for item in argument:
                pair = cls.__name__ == "OrderedDict" and isinstance(item, list | tuple) and item
                _check_key(item[0] if pair else item)
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
    if max(len(size), len(stride)) > _MOST_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor of too many dimensions")
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
    """Reads a pickle of plain weights without running it.

    length: bytes of the whole file, which its storages fill at most.
    """

    def __init__(self, file: io.BytesIO, legacy: bool, length: int):
        super().__init__(file)
        self.source, self.copied, self.unfilled = file, 0, length
        self.fields = 6 if legacy else 5
        self.types: dict[str, type[_Placeholder]] = {}
        #: Key in lower case of a storage that the pickle refers to -> (key, type, numbers).
        self.storages: dict[str, tuple[str, object, int]] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if max(len(module), len(name)) > _LONGEST_KEY:
            raise pickle.UnpicklingError("a name that is too long")
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
        _check_key(key)
        if type(numbers) is not int or numbers < 0 or not isinstance(kind, type):
            raise pickle.UnpicklingError("a storage of no known type or size")
        # torch's reader of archives finds names whatever their case, and would load one twice.
        earlier = self.storages.get(key.lower())
        if earlier is None:
            self.storages[key.lower()] = (key, kind, numbers)
            self.unfilled -= numbers * _item_bytes(kind)
            if self.unfilled < 0:
                raise pickle.UnpicklingError("storages larger than the file, all together")
        elif earlier != (key, kind, numbers):
            raise pickle.UnpicklingError("a storage of two spellings, types or sizes")
        return _Storage(numbers)


def _item_bytes(kind: type) -> int:
    """Return the bytes of one number of a storage whose type has the name of torch's."""
    if kind.__name__ == "UntypedStorage":
        return 1
    # The type's public attribute warns that it will be removed.
    dtype = getattr(getattr(torch, kind.__name__, None), "_dtype", None)
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a storage of no known type or size")
    return dtype.itemsize


def check(source: io.BytesIO) -> None:
    """Refuse a file in torch's formats whose tensors aren't all filled from the file.

    Call it before `torch.load`. Raises almost any exception for damaged bytes, `UnpicklingError`
    for a pickle of anything else than tensors in plain containers, and `ValueError` for a storage
    without content. Leaves the position at the start.
    """
    source.seek(0)
    length = source.getbuffer().nbytes
    if bytes(source.getbuffer()[:4]) == b"PK\3\4":  # as torch decides
        # torch's reader ignores the case of names, unlike zipfile: scan the bytes that torch reads.
        pickled = torch._C.PyTorchFileReader(source).get_record("data.pkl")
        _Scanner(io.BytesIO(pickled), legacy=False, length=length).load()
    else:
        for _ in range(3):  # magic number, protocol, system
            _Scanner(source, legacy=True, length=length).load()
        content = _Scanner(source, legacy=True, length=length)
        content.load()
        stored = _Scanner(source, legacy=True, length=length).load()
        if type(stored) is not list or any(type(key) is not str for key in stored):
            raise pickle.UnpicklingError("keys of storages that are not strings")
        for key in stored:
            _check_key(key)
        if missing := {key for key, _, _ in content.storages.values()} - set(stored):
            raise ValueError(f"{len(missing)} storages have no content")
    source.seek(0)
