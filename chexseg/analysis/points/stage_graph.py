"""The graph of a study's stages: each run once, to the right of its inputs."""

from __future__ import annotations

import pandas as pd

from chexseg.analysis.results import StudyResults

#: Larger graphs aren't drawn: they take seconds and can't be read.
MOST_DRAWN = 1500
#: Columns of stages, from left to right. A student's fit comes after its teacher's masks.
COLUMNS = {
    "ingest": 0, "imported": 0, "classify": 1, "pretrain": 1, "moco": 1, "saliency": 2, "irnet": 3,
    "fit": 4, "distil": 5, "student": 6, "score": 7,
}  # fmt: skip


def rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per run, after its inputs.

    Columns: key, stage, label, state, seconds, inputs; then column, place (vertical, 0 to 1) and
    reads, the inputs without those that other inputs depend on (the transitive reduction). Runs of
    a column are sorted by the mean place of their nearest inputs, so that few lines cross (the
    barycentre method of Sugiyama et al., 1981, one pass).
    """
    table = results.graph.copy()
    stage = dict(zip(table["key"], table["stage"], strict=True))
    column: dict[str, int] = {}
    ancestors: dict[str, set[str]] = {}
    reads = []
    for run in table.itertuples():
        student = any(stage[key] == "distil" for key in run.inputs)
        column[run.key] = COLUMNS["student" if student and run.stage == "fit" else run.stage]
        further = set().union(*(ancestors[key] for key in run.inputs))
        ancestors[run.key] = further | set(run.inputs)
        reads.append(tuple(key for key in run.inputs if key not in further))
    used = sorted(set(column.values()))
    table["column"] = [used.index(column[key]) for key in table["key"]]
    table["reads"] = reads
    place: dict[str, float] = {}
    for _, group in table.groupby("column"):
        # Runs without inputs, and equals, keep the plan's order: `sorted` is stable.
        centre = {}
        for run in group.itertuples():
            last = max((column[key] for key in run.inputs), default=0)
            near = [place[key] for key in run.inputs if column[key] == last]
            centre[run.key] = sum(near) / max(1, len(near))
        for rank, key in enumerate(sorted(centre, key=centre.__getitem__)):
            place[key] = (rank + 0.5) / len(centre)
    table["place"] = table["key"].map(place)
    return table
