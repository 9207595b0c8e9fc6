"""chexseg: studies of semi-supervised chest X-ray segmentation on Ray.

The Python API is in `chexseg.api`; its names can be imported from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chexseg.api import Model, Study, load_model, load_study

__version__ = "0.1.0"
__all__ = ["Model", "Study", "__version__", "load_model", "load_study"]


def __getattr__(name: str) -> Any:
    """Import the API when it is used: workers import this package and don't need it."""
    if name in __all__:
        return getattr(importlib.import_module("chexseg.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
