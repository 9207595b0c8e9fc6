"""Read heat maps as CheXlocalize publishes them, one file per image and pathology, safely.

Nothing that a file contains is executed, and a small file cannot allocate much memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from chexseg.data import remote_path
from chexseg.errors import UserError, reason
from chexseg.file_tree import files_below
from chexseg.pathologies import ALIASES, PATHOLOGIES

if TYPE_CHECKING:
    import torch

#: Suffixes after ``ID_PATHOLOGY_map``: the published pickles, or NumPy's own files.
ENDINGS = (".pkl", ".npy")


def find(directory: Path) -> tuple[dict[str, dict[str, Path]], list[Path]]:
    """Return ({image id: {pathology: file}}, other files) of a directory and its subdirectories.

    The other files are heat maps of observations that are not among the ten pathologies. Raises
    `UserError` if there is no heat map, if an image and pathology have two, or if a subdirectory
    can't be listed. Links to folders are followed (`files_below`).
    """
    paths: dict[str, dict[str, Path]] = defaultdict(dict)
    others = []
    for path in files_below(directory):
        if "_map." not in path.name or path.suffix not in ENDINGS:
            continue
        image_id, _, name = path.stem.removesuffix("_map").rpartition("_")
        name = ALIASES.get(name, name)
        if name not in PATHOLOGIES:
            others.append(path)
        elif name in paths[image_id]:
            raise UserError(
                f"{path}: found a second heat map besides {paths[image_id][name]};"
                " expected: one heat map per image and pathology"
            )
        else:
            paths[image_id][name] = path
    if not paths:
        raise UserError(
            f"{directory}: found no heat map;"
            " expected: files such as patient1_study1_view1_frontal_Edema_map.pkl"
        )
    return paths, others


def read(path: Path) -> np.ndarray:
    """Return scores_hw of one heat map, at the resolution of the file.

    They are float32, or float64 where rounding to float32 would change a score, and with it the
    order of two. A pickle is a mapping whose ``map`` is a tensor of shape (1, 1, h, w). It may only
    refer to the functions that rebuild tensors. Raises `UserError` for any other content, a tensor
    larger than its storage, another shape, and values that aren't finite or don't fit float64.
    """
    try:
        raw = remote_path.read_bytes(path)
        is_npy = path.suffix == ".npy"
        content = np.load(io.BytesIO(raw), allow_pickle=False) if is_npy else _unpickle(raw)
    except Exception as error:  # pickle, torch and NumPy raise any type on a damaged file
        raise UserError(
            f"{path}: found no heat map ({reason(error)});"
            " expected: a published pickle, or .npy of (h, w)"
        ) from None
    scores = np.asarray(content)
    shape = scores.shape
    while scores.ndim > 2 and scores.shape[0] == 1:
        scores = scores[0]
    if scores.ndim != 2 or not scores.size or scores.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: found an array {shape} of {scores.dtype};"
            " expected: numbers of shape (1, 1, h, w) or (h, w)"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"{path}: found values that aren't finite; expected: finite numbers")
    exact = scores.astype(np.longdouble)  # which holds whole numbers of 64 bits too
    for kind in (np.float32, np.float64):
        with np.errstate(over="ignore"):
            rounded = exact.astype(kind)
        if np.array_equal(rounded, exact):
            return rounded
    raise UserError(f"{path}: found scores that float64 would round; expected: at most 53 bits")


def _unpickle(raw: bytes) -> np.ndarray:
    from chexseg.untrusted.torch_format import BoundedUnpickler

    loaded = 0

    def load(storage: bytes) -> torch.TypedStorage:
        # Several references to the same bytes would make a storage each.
        nonlocal loaded
        loaded += len(storage)
        if loaded > len(raw):
            raise pickle.UnpicklingError("copies of one storage, which take much memory")
        return _load_storage(storage)

    #: All globals that the pickle of a CPU tensor refers to. torch's own reader would unpickle any
    #: storage without restrictions.
    allowed: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch.storage", "_load_from_bytes"): load,
        ("collections", "OrderedDict"): _no_hooks,
    }

    class TensorUnpickler(BoundedUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"it would run {module}.{name}")
            return allowed[module, name]

    for opcode, _, _ in pickletools.genops(raw):
        if opcode.name == "BUILD":  # sets attributes, even of functions
            raise pickle.UnpicklingError("it would change an object")
    scores = TensorUnpickler(io.BytesIO(raw)).load()["map"]
    # A stride of 0 repeats numbers without end.
    if scores.nbytes > scores.untyped_storage().nbytes():
        raise pickle.UnpicklingError(f"a tensor of {tuple(scores.shape)} larger than its storage")
    return np.asarray(scores.numpy())


def _no_hooks(items: Sequence[object] = ()) -> OrderedDict[Any, Any]:
    """Return the empty dictionary that a tensor's pickle has for its hooks; it would copy items."""
    if items:
        raise pickle.UnpicklingError("a tensor with hooks")
    return OrderedDict()


def _load_storage(raw: bytes) -> torch.TypedStorage:
    """Return the storage in the bytes that a pickled tensor contains.

    Pickled tensors never contain a zip archive. Archives are refused because their members may be
    compressed, so that their size has no bound, and because torch and zipfile can read different
    members from the same bytes.
    """
    import torch

    from chexseg.untrusted import torch_format

    if raw.startswith(b"PK"):
        raise pickle.UnpicklingError("an archive, possibly compressed: its size has no bound")
    source = io.BytesIO(raw)
    torch_format.check(source)
    storage = torch.load(source, map_location="cpu", weights_only=True)
    # torch would also load a tensor, whose size it doesn't compare with the storage.
    if not isinstance(storage, torch.TypedStorage):
        raise pickle.UnpicklingError(f"a {type(storage).__name__} in place of a storage")
    # torch leaves a storage without content uninitialised. A storage's content ends its bytes.
    size = storage._untyped_storage.nbytes()
    content = torch.empty(0, dtype=torch.uint8).set_(storage._untyped_storage)
    if content.numpy().tobytes() != raw[len(raw) - size :]:  # the storage is read byte by byte
        raise pickle.UnpicklingError(f"a storage of {size} bytes without its content")
    return storage


def _rebuild_tensor(
    storage: torch.TypedStorage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *ignored: object,
) -> torch.Tensor:
    """Return a tensor of a storage; raise `UnpicklingError` if it reaches beyond the storage.

    torch itself would enlarge the storage by uninitialised memory.
    """
    import torch

    from chexseg.untrusted.torch_format import check_fits

    check_fits(storage._untyped_storage.nbytes() // storage.dtype.itemsize, offset, size, stride)
    rebuild = cast("Callable[..., torch.Tensor]", torch._utils._rebuild_tensor)
    return rebuild(storage, offset, size, stride)


def most_representative_point(scores_hw: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Return (row, column) of the highest score after bilinear resizing to the image's `size`.

    size: (height, width). If several pixels share the highest score, the first in row-major order
    is returned, as in the published code. The map covers the image from edge to edge.
    """
    import torch

    scores_11hw = torch.from_numpy(scores_hw)[None, None]
    resized_HW = torch.nn.functional.interpolate(
        scores_11hw, size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    row, column = np.unravel_index(int(resized_HW.argmax()), resized_HW.shape)
    return int(row), int(column)
