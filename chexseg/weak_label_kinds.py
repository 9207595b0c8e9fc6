"""The kinds of weak labels: their names, and the stages that make them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeakLabelKind:
    """A value of `labels.weak`. stage: the stage whose result has the scores."""

    name: str
    stage: str


#: Value of `labels.weak` -> its kind, in the order of tables and legends. The paper has CAM and
#: IRNet. `drawing.palette.SERIES` has a colour and a symbol for each.
KINDS: dict[str, WeakLabelKind] = {
    "cam": WeakLabelKind("CAM", "saliency"),
    "cam++": WeakLabelKind("CAM++", "saliency"),
    "irnet": WeakLabelKind("IRNet", "irnet"),
}
