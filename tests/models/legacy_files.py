"""Write files in torch's legacy format whose pickle says what torch itself never would."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any

import torch


class Storage:
    """A storage as a pickle refers to it. view: (key, offset, size) of a part of it."""

    def __init__(self, key: object, numbers: int, view: tuple[str, int, int] | None = None):
        self.reference = ("storage", torch.FloatStorage, key, "cpu", numbers, view)


class Rebuilt:
    """A tensor of so many numbers in a storage."""

    def __init__(self, storage: Storage, length: int):
        self.storage, self.length = storage, length

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.storage, 0, (self.length,), (1,), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple[object, ...] | None:
        return value.reference if isinstance(value, Storage) else None


def legacy_file(content: object, stored: dict[Any, int]) -> bytes:
    """Return a file of `content`. stored: key -> numbers in the file of each storage."""
    out = io.BytesIO()
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    for value in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(value, out, protocol=2)
    _Pickler(out, protocol=2).dump(content)
    pickle.dump(list(stored), out, protocol=2)
    for numbers in stored.values():
        out.write(struct.pack("<q", numbers) + bytes(4 * numbers))
    return out.getvalue()


def enlarging(numbers: int) -> dict[str, Rebuilt]:
    """Return a view of a storage, and a tensor for which torch makes that storage longer.

    The view is then in freed memory.
    """
    view = Rebuilt(Storage("0", numbers, ("view", 0, numbers)), numbers)
    return {"view": view, "longer": Rebuilt(Storage("0", numbers), 3 * numbers)}
