"""The figures of a result, its facts: their types, as far as other stages and reports read them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from chexseg.errors import UserError

#: Numbers; None: not measured.
_NUMBERS = ("selection_miou", "mean_auroc", "accuracy", "learning_rate")
_COUNTS = ("images", "samples", "step", "steps", "best_epoch")
#: Numbers by name, and in a row.
_COLLECTIONS: Mapping[str, type] = {"auroc": dict, "selection_curve": list}
#: Largest count: float64 holds each smaller integer.
_MOST = 2**53


class Facts(dict[str, Any]):
    """The facts in a manifest. Raises `UserError` for one that another version didn't write."""

    def __init__(self, place: str, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.place = place

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"{self.place}: facts: {name} is missing; expected: a manifest of chexseg (hint:"
            " restore it, or delete its directory to have the result computed anew)"
        )


def fault(facts: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the value of a fact; None if nothing is, or if it is missing."""
    for name, value in facts.items():
        if (
            (name in _NUMBERS and not _is_number(value))
            or (name in _COUNTS and not (type(value) is int and 0 <= value < _MOST))
            or (name in _COLLECTIONS and not _are_numbers(value, _COLLECTIONS[name]))
        ):
            return f"{name}: found {value!r:.60}"
    return None


def _are_numbers(values: Any, kind: type) -> bool:
    entries = values.values() if isinstance(values, dict) else values
    return isinstance(values, kind) and all(_is_number(value) for value in entries)


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that float64 holds, or None."""
    return value is None or (type(value) in (int, float) and not abs(value) > sys.float_info.max)
