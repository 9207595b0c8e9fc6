"""The graph of a study's stages: each run once, to the right of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from chexseg.analysis.results import StudyResults

#: Larger graphs aren't drawn: they take seconds and can't be read.
MOST_DRAWN = 1500


def rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per run, after its inputs.

    Columns: key, stage, label, state, seconds, inputs; then column, place (vertical, 0 to 1) and
    reads, the inputs without those that other inputs depend on (the transitive reduction). Runs of
    a column are sorted by the mean place of their nearest inputs, so that few lines cross (the
    barycentre method of Sugiyama et al., 1981, one pass).
    """
    table = results.graph.copy()
    stage = dict(zip(table["key"], table["stage"], strict=True))
    # All runs of a stage are in one column, but a student's fit comes after its teacher's masks.
    group: dict[str, str] = {}
    for run in table.itertuples():
        is_student = any(stage[key] == "distil" for key in run.inputs)
        group[run.key] = "student" if is_student and run.stage == "fit" else run.stage
    column = _columns(table, group)
    ancestors: dict[str, set[str]] = {}
    reads = []
    for run in table.itertuples():
        further = set().union(*(ancestors[key] for key in run.inputs))
        ancestors[run.key] = further | set(run.inputs)
        reads.append(tuple(key for key in run.inputs if key not in further))
    table["column"] = table["key"].map(column)
    table["reads"] = reads
    place: dict[str, float] = {}
    for _, runs in table.groupby("column"):
        # Runs without inputs, and equals, keep the plan's order: `sorted` is stable.
        centre = {}
        for run in runs.itertuples():
            last = max((column[key] for key in run.inputs), default=0)
            near = [place[key] for key in run.inputs if column[key] == last]
            centre[run.key] = sum(near) / max(1, len(near))
        for rank, key in enumerate(sorted(centre, key=centre.__getitem__)):
            place[key] = (rank + 0.5) / len(centre)
    table["place"] = table["key"].map(place)
    return table


def _columns(table: pd.DataFrame, group: Mapping[str, str]) -> dict[str, int]:
    """Return key -> column: one more than the highest column of the inputs of its group."""
    reads = {(group[run.key], group[key]) for run in table.itertuples() for key in run.inputs}
    column = dict.fromkeys(group.values(), 0)
    for _ in column:  # the longest chain of groups has at most this many steps
        for after, before in reads:
            column[after] = max(column[after], column[before] + 1)
    return {key: column[name] for key, name in group.items()}
