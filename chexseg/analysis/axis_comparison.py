"""Compare the values of one axis of a study, over all its other axes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexseg import resolve
from chexseg.analysis import axis_effects, load
from chexseg.analysis.axis_effects import MOST_ARMS, Answer
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.study_scores import score
from chexseg.data.remote_path import Location
from chexseg.errors import UserError, counted, nearest
from chexseg.plan import selection
from chexseg.store import marker
from chexseg.store.store import Store


@dataclass(frozen=True)
class AxisComparison:
    """The effects of one axis of a study, as the study's report has them.

    axis: its dotted name. answer: the rows of `axis_effects.answer` that are about the axis; the
    ranking is of all arms. units: "trials" or "draws", which the ranking's intervals count.
    """

    title: str
    axis: str
    images: int
    patients: int
    answer: Answer
    units: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON; undefined values are None."""
        tables = {
            name: json.loads(rows.to_json(orient="records", double_precision=15))
            for name, rows in self.answer.tables.items()
        }
        facts = {name: value for name, value in vars(self).items() if name != "answer"}
        return facts | tables | {"notes": list(self.notes)}


def read(
    text: str, axis: str, data: Location | None, store: Store, overrides: Sequence[str] = ()
) -> AxisComparison:
    """Return the comparison of the finished cells of a study file.

    axis: the dotted name of a setting, or its end. overrides: as for `comparison_sides.read`.
    Raises `UserError` as `compare` does.
    """
    path, cell = selection.study_and_cell(text)
    if cell or path.endswith(".json"):
        raise UserError(f"{text}: found with --axis; expected: a whole study, STUDY.yaml")
    if data is None:
        raise UserError(f"--data: missing; expected: the data root of {text}")
    marker.check_exists(store)
    (study,) = resolve.read([Path(path)], data, store, overrides)
    return compare(text, axis, load.study_results(resolve.planned(study, store), store))


def compare(title: str, axis: str, results: StudyResults) -> AxisComparison:
    """Return the comparison of an axis' values; P-values are adjusted as in the study's report.

    Raises `UserError` if the finished cells have fewer than two values of the axis, no two arms
    that differ in it alone, or more than `MOST_ARMS` arms.
    """
    names = [] if results.axes is None else list(results.axes)
    named = [name for name in names if name == axis or name.endswith(f".{axis}")]
    if len(named) != 1:
        axes = " or ".join(map(repr, named or names)) or "it has none yet"
        ends = [name.rpartition(".")[2] for name in names]
        close = "" if named else nearest(axis, [*names, *ends])
        raise UserError(
            f"--axis: found {axis!r}; expected: an axis of {title} with several values in finished"
            f" cells: {axes}{close}"
        )
    scores = score(results)
    if len(scores.arms) > MOST_ARMS:
        raise UserError(
            f"{title}: found {len(scores.arms)} arms; expected: at most {MOST_ARMS} for --axis"
            f" (hint: compare two of its cells: '{title}#CELL')"
        )
    whole = axis_effects.answer(scores, scores.measure(scores.arms))
    answer = axis_effects.of_axis(whole, named[0])
    if not len(answer.effects):
        raise UserError(
            f"{title}: found no two finished arms that differ in {named[0]} alone; expected: at"
            f" least two (hint: compare two of its cells: '{title}#CELL')"
        )
    total = len(results.cells) + len(results.missing)
    notes = results.notes
    if len(results.missing):
        finished = f"{len(results.cells)} of {counted(total, 'cell')} finished"
        notes = (f"{title}: {finished}; the others are left out", *notes)
    return AxisComparison(
        title=title,
        axis=named[0],
        images=len(results.image_ids),
        patients=len({patient_of(image_id) for image_id in results.image_ids}),
        answer=answer,
        units=scores.units,
        notes=notes,
    )
