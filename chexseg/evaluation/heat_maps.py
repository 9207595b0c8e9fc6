"""Heat maps as CheXlocalize publishes them, one file an image and pathology: read without running anything in them."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chexseg.errors import UserError, reason
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: ``ID_PATHOLOGY_map`` and one of these: the published pickles, or NumPy's own files.
ENDINGS = (".pkl", ".npy")


def find(directory: Path) -> tuple[dict[tuple[str, str], Path], list[Path]]:
    """((image id, pathology) -> its file, files of things that are none of the ten) of a directory and those below it.

    Raises `UserError` where there is no heat map, or two of one image and pathology.
    """
    found: dict[tuple[str, str], Path] = {}
    others = []
    for path in sorted(path for path in directory.rglob("*_map.*") if path.suffix in ENDINGS):
        image_id, _, name = path.stem.removesuffix("_map").rpartition("_")
        name = ALIASES.get(name, name)
        if name not in PATHOLOGIES:
            others.append(path)
        elif (image_id, name) in found:
            raise UserError(
                f"{path}: there is {found[image_id, name]} too; allowed: one heat map an image and pathology"
            )
        else:
            found[image_id, name] = path
    if not found:
        raise UserError(
            f"{directory}: found no heat map; allowed: files such as patient1_study1_view1_frontal_Edema_map.pkl"
        )
    return found, others


def read(path: Path) -> np.ndarray:
    """scores_hw, float32, at the file's own resolution.

    A pickle is a mapping whose ``map`` is a tensor (1, 1, h, w); of what pickles can name, only what tensors are rebuilt from
    is allowed, and nothing may be changed once it is built. Raises `UserError` for anything else in it, a tensor larger than
    its storage, another shape, or values that aren't finite.
    """
    try:
        found: Any = (
            np.load(path, allow_pickle=False) if path.suffix == ".npy" else _unpickled(path)
        )
    except (
        Exception
    ) as error:  # a damaged file can fail in pickle's, torch's and NumPy's readers, with any type
        message = f"{path}: found no heat map ({reason(error)}); allowed: a published pickle, or .npy of (h, w)"
        raise UserError(message) from None
    scores = np.asarray(found)
    shape = scores.shape
    while scores.ndim > 2 and scores.shape[0] == 1:
        scores = scores[0]
    if scores.ndim != 2 or not scores.size or scores.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: found an array {shape} of {scores.dtype}; allowed: numbers of (1, 1, h, w) or (h, w)"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"{path}: found values that aren't finite; allowed: finite numbers")
    return scores.astype(np.float32)


def _unpickled(path: Path) -> np.ndarray:
    import torch

    def storage(raw: bytes) -> Any:
        if zipfile.is_zipfile(io.BytesIO(raw)):
            entries = zipfile.ZipFile(io.BytesIO(raw)).infolist()
            if any(
                entry.compress_type != zipfile.ZIP_STORED for entry in entries
            ):  # torch itself never compresses
                raise pickle.UnpicklingError("a compressed storage, whose size has no bound")
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)

    def tensor(
        storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *ignored: object
    ) -> torch.Tensor:
        # torch would enlarge the storage by memory that may hold anything.
        if not isinstance(storage, torch.storage.TypedStorage):
            raise pickle.UnpicklingError(f"a tensor of a {type(storage).__name__}")
        numbers = storage._untyped_storage.nbytes() // storage.dtype.itemsize
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if min(offset, last, *size, *stride) < 0 or last >= numbers:
            raise pickle.UnpicklingError(
                f"a tensor of {tuple(size)} in a storage of {numbers} numbers"
            )
        return torch._utils._rebuild_tensor(storage, offset, size, stride)

    #: What a pickled tensor on the CPU names. torch's own reader of the storage would unpickle anything.
    allowed: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch.storage", "_load_from_bytes"): storage,
        ("collections", "OrderedDict"): OrderedDict,
    }

    class Tensors(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"it would run {module}.{name}")
            return allowed[module, name]

    raw = path.read_bytes()
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name == "BUILD":  # sets attributes, of functions too
            raise pickle.UnpicklingError("it would change an object")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(
            raw
        ):  # memory is taken up to this number
            raise pickle.UnpicklingError("it would take memory without bounds")
    scores = Tensors(io.BytesIO(raw)).load()["map"]
    if (
        scores.nbytes > scores.untyped_storage().nbytes()
    ):  # a stride of 0 repeats numbers without end
        raise pickle.UnpicklingError(f"a tensor of {tuple(scores.shape)} larger than its storage")
    return scores.numpy()


def most_representative_point(scores_hw: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the highest score when the map is resized bilinearly to `size`, the image's (height, width).

    Of several the first, row by row, as in the published code. The map reaches from edge to edge of the image.
    """
    import torch

    scores_11hw = torch.from_numpy(scores_hw)[None, None]
    resized_HW = torch.nn.functional.interpolate(
        scores_11hw, size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    row, column = np.unravel_index(int(resized_HW.argmax()), resized_HW.shape)
    return int(row), int(column)
