"""The published rules for a segmenter's epoch and thresholds, which depend on its supervision.

A setting may be "published"; a cell's canonical settings and the config of its fit then hold the
rule itself. Source: the published code, as the project's description of it records it.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

#: Value of a setting that stands for the published rule.
PUBLISHED = "published"

#: Setting -> (rule for expert and mixed supervision and for students, rule for weak supervision).
RULES: dict[str, tuple[str, str]] = {
    "checkpoint": ("best-threshold", "best-threshold-all"),
    "thresholds": ("training-batches", "selection"),
}

_Model = TypeVar("_Model", bound=BaseModel)
_Distil = TypeVar("_Distil", bound=BaseModel)


def rule(setting: str, value: Any, weak: bool) -> Any:
    """Return the published rule for a fit if `value` is "published", otherwise `value`."""
    return RULES[setting][weak] if value == PUBLISHED else value


def cell_rules(
    fit: _Model, distil: _Distil, probability: float, student: bool
) -> tuple[_Model, _Distil]:
    """Return the sections `fit` and `distil` of a cell with its rules.

    probability: of an expert sample in the fit on masks; 1 for a student's teacher. A setting of
    `distil` that repeats the one of `fit` becomes null, which means the same.
    """
    weak = probability == 0
    rules = {name: rule(name, getattr(fit, name), weak) for name in RULES}
    if student:
        values = {
            name: value
            for name in ("epochs", "learning_rate", *RULES)
            if (value := getattr(distil, name)) is not None
        }
        values |= {
            name: rule(name, value, False) for name, value in values.items() if name in RULES
        }
        same = rules | {name: getattr(fit, name) for name in ("epochs", "learning_rate")}
        distil = changed(
            distil,
            **{name: None if value == same[name] else value for name, value in values.items()},
        )
    return changed(fit, **rules), distil


def changed(model: _Model, **values: Any) -> _Model:
    """Return a model with these values; the same object if it has them already."""
    if all(
        getattr(model, name) is value or getattr(model, name) == value
        for name, value in values.items()
    ):
        return model
    return model.model_copy(update=values)
