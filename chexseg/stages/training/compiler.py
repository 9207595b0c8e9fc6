"""torch.compile with caches that only this user can write to.

PyTorch's compiler unpickles and executes what is in its caches. By default these are below the
temporary directory, under a name that another user can predict and occupy first.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from chexseg.errors import UserError
from chexseg.untrusted.shared_folders import open_to_others


def compiled(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `torch.compile(network)`, with all caches of the compiler in `private_directory`.

    It becomes this process's temporary directory, because precompiled headers have no setting.
    The variables are set in any case: importing torch._dynamo sets the first to the default, and
    workers inherit them.
    """
    directory = private_directory()
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{directory}/inductor"
    os.environ.pop("TRITON_CACHE_DIR", None)  # by default within the directory above
    return torch.compile(network)


@functools.cache
def private_directory() -> str:
    """Return this user's directory for the compiler's caches; other processes share it.

    Raises `UserError` if another user owns it, may enter it, or may replace it.
    """
    place = Path(tempfile.gettempdir()).resolve()
    if others := open_to_others(place):
        raise UserError(
            f"{place}, for the compiler's files: others may rename what is in {others};"
            " hint: set TMPDIR to a directory of yours"
        )
    path = place / f"chexseg-compiler-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        raise UserError(
            f"{path}: found a link, or a directory that is open to other users;"
            " expected: a directory that only this user can enter;"
            " hint: set TMPDIR to a directory of yours"
        )
    return str(path)
