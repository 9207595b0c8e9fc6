"""Keep the dynamic loader from searching the current directory for libraries."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

#: Libraries of PyTorch's CUDA wheels that load others, beside PyTorch, and search the current
#: directory for these before the system's directories: their RUNPATH has an empty entry.
_CARELESS = ("nvidia/cusparselt/lib/libcusparseLt.so.*",)


def load_careless_libraries() -> None:
    """Load the libraries that would search the current directory, in a directory of the system.

    When PyTorch is imported, cuSPARSELt loads ``libcuda.so.1``, and would run one of the current
    directory. It searches once; PyTorch then uses the loaded one. Call this before PyTorch is
    imported and before a thread is started: it changes the current directory for a moment.
    """
    torch = find_spec("torch")
    # The loader can't search a directory that this process can't enter, nor could it come back.
    if torch is None or torch.origin is None or not os.access(".", os.X_OK):
        return
    site = Path(torch.origin).parents[1]
    libraries = [path for pattern in _CARELESS for path in site.glob(pattern)]
    if not libraries:  # PyTorch for CPUs
        return
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir("/")
        for library in libraries:
            with suppress(OSError):  # PyTorch's import will explain it
                ctypes.CDLL(str(library.resolve()))
    finally:
        os.fchdir(here)
        os.close(here)
