"""Find the best trial of a search, by what the store says about its fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chexseg.errors import counted
from chexseg.plan.graph import Node
from chexseg.search import journal
from chexseg.store.store import Store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class BestTrial:
    """The best trial and its value, or None.

    confirmed: False if the value is the journal's, because a fit is no longer in the store. notes:
    the trials that were left out, for people.
    """

    notes: tuple[str, ...]
    trial: FrozenTrial | None = None
    value: float | None = None
    confirmed: bool = True


def find(
    complete: Sequence[FrozenTrial],
    store: Store,
    fits_of: Callable[[FrozenTrial], tuple[str, ...]],
) -> BestTrial:
    """Return the best of complete trials. fits_of: the keys of the fits that its settings have.

    A journal has no checksums. A value is the mean of the fits in the store. If they are gone, it
    is the journal's, where that can be a mean IoU.
    """
    keys = {key for trial in complete for key in trial.user_attrs.get("fits", ())}
    fits = store.find_all(Node("fit", {}, {}, None, key) for key in keys)
    valued = []
    for trial in complete:
        named = trial.user_attrs.get("fits", ())
        present = [fits[key] for key in named if key in fits]
        curve = journal.learning_curve(present) if present else None
        if curve and len(present) == len(named):
            valued.append((curve[0], True, trial))
        elif named and trial.value is not None and 0 <= trial.value <= 1:
            valued.append((trial.value, False, trial))
    valued.sort(key=lambda entry: entry[:2], reverse=True)
    best, altered = None, 0
    for value, confirmed, trial in valued:
        if tuple(trial.user_attrs["fits"]) == fits_of(trial):
            best = trial, value, confirmed
            break
        altered += 1
    left_out = {
        "without fits or an mIoU from 0 to 1": len(complete) - len(valued),
        "whose settings aren't those of their fits": altered,
    }
    notes = tuple(
        f"{counted(number, 'trial')} left out, {fault}"
        for fault, number in left_out.items()
        if number
    )
    return BestTrial(notes, *best) if best else BestTrial(notes)
