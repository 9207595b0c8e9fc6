"""Pathologies that both sides of an evaluation name, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from chexseg.analysis.matching import Matching
from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES


@dataclass(frozen=True)
class LeftOut:
    """not_predicted: pathologies that only the truth names; not_in_truth: that only the predictions name.

    missing_images: ids of the truth that the predictions don't name; unknown_images: the other way round.
    """

    not_predicted: tuple[str, ...]
    not_in_truth: tuple[str, ...]
    missing_images: tuple[str, ...]
    unknown_images: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: list(values) for name, values in asdict(self).items()}


def scored(
    true_names: Iterable[str],
    predicted_names: Iterable[str],
    truth: object,
    predicted: object,
    matching: Matching,
) -> tuple[tuple[str, ...], LeftOut, list[str]]:
    """Return (pathologies that both sides name, what is left out, notes of it). `truth` and `predicted` name the sources.

    A pathology that predictions name in no image was not predicted: a model of other pathologies doesn't get zeros for it. One
    that they name in some image is predicted as empty in all others. Raises `UserError` if no pathology is on both sides.
    """
    true_names, predicted_names = set(true_names), set(predicted_names)
    names, not_predicted, not_in_truth = (
        tuple(name for name in PATHOLOGIES if name in chosen)
        for chosen in (
            true_names & predicted_names,
            true_names - predicted_names,
            predicted_names - true_names,
        )
    )
    if not names:
        raise UserError(
            f"{predicted}: found no pathology of {truth}: only {', '.join(not_in_truth) or 'none'};"
            f" expected: some of {', '.join(not_predicted) or 'none'}"
        )
    notes = list(matching.notes)
    for source, lacking in ((predicted, not_predicted), (truth, not_in_truth)):
        if lacking:
            notes.append(
                f"{source}: doesn't name {len(lacking)} pathologies, which are left out of the mean: {', '.join(lacking)}"
            )
    return names, LeftOut(not_predicted, not_in_truth, matching.missing, matching.unknown), notes
