"""Ranges among a study's axes, and the section ``search``."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from chexseg.config.settings import Section


class Range(Section):
    """All numbers from low to high, both included; only whole ones if the setting is an integer."""

    #: Smallest value.
    low: float
    #: Largest value, above `low`.
    high: float
    #: Sample on a logarithmic scale.
    log: bool = False
    #: Only low, low + step, low + 2 step, ...
    step: float | None = Field(default=None, gt=0)

    @field_validator("high")
    @classmethod
    def _above_low(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("low", -math.inf):
            raise ValueError(f"expected: above low, {info.data['low']:g}")
        return value

    @field_validator("log")
    @classmethod
    def _of_positive(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("low", 1) <= 0:
            raise ValueError("expected: false, or low above 0")
        return value

    @field_validator("step")
    @classmethod
    def _without_log(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("log"):
            raise ValueError("expected: no step together with log")
        return value

    def holds(self, value: Any) -> bool:
        """Return whether a value can be sampled from this range."""
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
    """The section ``search``. With it the axes are a space from which points are sampled."""

    #: tpe: Optuna's tree-structured Parzen estimator. random: independent random points.
    sampler: Literal["tpe", "random"] = "tpe"
    #: median: stop a point whose best epoch so far is below the median of the finished points at
    #: this epoch. asha: asynchronous successive halving. none: train every point to its end.
    pruner: Literal["median", "asha", "none"] = "median"
    #: Number of points to try, pruned ones included.
    points: int = Field(default=20, ge=1)
    #: A point's objective is the mean over this many trial numbers, counted from 0.
    trials: int = Field(default=1, ge=1)
    #: Seed of the sampler.
    seed: int = 0


def axis(value: Any) -> tuple[Any, ...] | Range:
    """Return the values of an axis, or its range. Raises ValueError for anything else."""
    if isinstance(value, (Range, tuple)):
        return value
    if isinstance(value, list):
        return tuple(value)
    raise ValueError("expected: a list of values, or in a search a range: {low: .., high: ..}")


def ends(values: tuple[Any, ...] | Range) -> tuple[Any, ...]:
    """Return the values of an axis, or both ends of a range."""
    return (values.low, values.high) if isinstance(values, Range) else values
