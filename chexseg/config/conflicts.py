"""Refuse settings that don't fit each other, where a cell uses both."""

from __future__ import annotations

from chexseg.errors import UserError


def check_layer(layer: str, architecture: str) -> None:
    """Raise `UserError` unless a classifier of this architecture has the layer for its CAMs."""
    if layer == "before-relu" and architecture != "densenet121":
        raise UserError(
            f"saliency.layer: found before-relu for classify.architecture {architecture};"
            " expected after-relu, or densenet121"
        )


def check_untrained(epochs: int, p: float, fraction: float) -> None:
    """Raise `UserError` if a network that learns nothing is to learn from weak labels or a teacher.

    fraction: a student's share of `train`, or 0.
    """
    if not epochs and (p < 1 or fraction):
        labels = f"distil.fraction {fraction:g}" if fraction else f"labels.p {p:g}"
        raise UserError(
            f"fit.epochs: found 0, an untrained network, with {labels};"
            " expected: at least 1 (hint: `also: [{fit.epochs: 0}]` adds it beside other cells)"
        )


def check_selection(thresholds: str | float, select: int) -> None:
    """Raise `UserError` if thresholds are to be chosen on held-back images of which there are none.

    thresholds: the rule of a fit. select: number of expert images held back.
    """
    if thresholds == "selection" and not select:
        raise UserError(
            "labels.expert_split.select: found 0; expected: at least 1 image to choose the"
            " thresholds on (fit.thresholds: selection; for weak supervision also: published)"
        )
