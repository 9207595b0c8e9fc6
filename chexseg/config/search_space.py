"""What a study file may say of a search: ranges among its axes, and how their points are chosen."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from chexseg.config.settings import Section


class Range(Section):
    """All numbers of an axis from low to high, both included; whole ones where the setting is one."""

    low: float
    high: float
    #: Orders of magnitude are equally likely.
    log: bool = False
    #: Only low, low + step, low + 2 step ..
    step: float | None = Field(default=None, gt=0)

    @field_validator("high")
    @classmethod
    def _above_low(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("low", -math.inf):
            raise ValueError(f"allowed: above low, {info.data['low']:g}")
        return value

    @field_validator("log")
    @classmethod
    def _of_positive(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("low", 1) <= 0:
            raise ValueError("allowed: with low above 0")
        return value

    @field_validator("step")
    @classmethod
    def _without_log(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("log"):
            raise ValueError("allowed: without log")
        return value

    def holds(self, value: Any) -> bool:
        """Whether the value may be drawn."""
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
        ):
            return False
        return (
            self.step is None
            or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-6
        )

    def describe(self) -> str:
        step = f", in steps of {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}{step}"


class Search(Section):
    """The section ``search``: with it the axes are a space whose points are chosen one by one."""

    #: Optuna's tree-structured Parzen estimator, or independent draws.
    sampler: Literal["tpe", "random"] = "tpe"
    #: Stops a point whose best epoch so far is below the median of the finished ones at this epoch, or that asynchronous
    #: successive halving doesn't promote.
    pruner: Literal["median", "asha", "none"] = "median"
    #: How many are tried, pruned ones too.
    points: int = Field(default=20, ge=1)
    #: Each point's objective is the mean over so many trial numbers, from 0.
    trials: int = Field(default=1, ge=1)
    seed: int = 0


def axis(value: Any) -> tuple[Any, ...] | Range:
    """An axis as the study file has it, its ranges read already. Raises ValueError."""
    if isinstance(value, (Range, tuple)):
        return value
    if isinstance(value, list):
        return tuple(value)
    raise ValueError("allowed: a list of values, or in a search a range: {low: .., high: ..}")


def ends(values: tuple[Any, ...] | Range) -> tuple[Any, ...]:
    """The values of an axis, of a range its ends."""
    return (values.low, values.high) if isinstance(values, Range) else values
