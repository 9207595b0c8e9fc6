"""The base class of all stage configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """Base class of all stage configs: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    #: Field that was added later -> the value that reproduces results from before it existed. A
    #: field with this value is left out of the key, so that these results stay valid.
    ADDED: ClassVar[Mapping[str, Any]] = {}
