"""The base class of all stage configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

#: Precision of a training's forward and backward pass; weights, gradients and the optimizer's state
#: are always float32. tf32: as float32, but on a GPU the factors of convolutions have 10 bits after
#: the point. bfloat16: most operations in bfloat16, meant for GPUs; what remains is as in tf32.
Precision = Literal["float32", "tf32", "bfloat16"]


class StageConfig(BaseModel):
    """Base class of all stage configs: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    #: Field that was added later -> the value that reproduces results from before it existed. A
    #: field with this value is left out of the key, so that these results stay valid.
    ADDED: ClassVar[Mapping[str, Any]] = {}
