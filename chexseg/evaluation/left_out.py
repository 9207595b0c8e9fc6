"""Determine which pathologies and images an evaluation scores and which it leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from chexseg.data.masks.image_ids import Matching
from chexseg.errors import UserError, counted
from chexseg.pathologies import PATHOLOGIES


@dataclass(frozen=True)
class LeftOut:
    """Pathologies and images that only one side names.

    not_predicted: pathologies of the truth alone; not_in_truth: pathologies of the predictions
    alone. missing_images: image ids of the truth alone; unknown_images: of the predictions alone.
    """

    not_predicted: tuple[str, ...]
    not_in_truth: tuple[str, ...]
    missing_images: tuple[str, ...]
    unknown_images: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: list(values) for name, values in asdict(self).items()}

    def note_unknown_images(self, pred: object, truth: object, treatment: str) -> list[str]:
        """Return a note on images that only the predictions name, if there are any."""
        images = self.unknown_images
        note = f"{pred}: names {counted(len(images), 'image')} that {truth} doesn't"
        return [f"{note} ({images[0]}, ...): {treatment}"] if images else []


def scored(
    true_names: Iterable[str],
    predicted_names: Iterable[str],
    truth: object,
    predicted: object,
    matching: Matching,
) -> tuple[tuple[str, ...], LeftOut, list[str]]:
    """Return (pathologies that both sides name, everything else, notes on it).

    `truth` and `predicted` name the sources in messages. A pathology that the predictions name in
    no image was not predicted, so that a model of other pathologies doesn't get zeros for it. If
    they name it in some image, it counts as empty in all others. Raises `UserError` if no pathology
    is common.
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
            f" expected: at least one of {', '.join(not_predicted) or 'none'}"
        )
    notes = list(matching.notes)
    for source, lacking in ((predicted, not_predicted), (truth, not_in_truth)):
        if lacking:
            notes.append(
                f"{source}: doesn't name {len(lacking)} pathologies,"
                f" which are left out of the mean: {', '.join(lacking)}"
            )
    return names, LeftOut(not_predicted, not_in_truth, matching.missing, matching.unknown), notes
