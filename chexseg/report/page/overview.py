"""Prepare a study's first screen: its answer in a sentence, main figure, facts and links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import axis_effects
from chexseg.analysis.axis_effects import TIED, UNTESTED, Answer
from chexseg.analysis.claims.verdicts import CONTRADICTED, NO_DATA, REPRODUCED, UNDECIDED, Claim
from chexseg.analysis.points.ranking import names_apart
from chexseg.analysis.statistics.inference import SIGNIFICANT
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.analysis.tables.records import origin
from chexseg.report.page.environment import number

#: Figures by name, the first that a study has is its main one -> caption.
MAIN_FIGURES = {
    "ranking": "mIoU of the arms, the highest first",
    "figure2-a": "mIoU by p, the share of expert labels",
    "figure3": "mIoU of students by the share of the training images",
    "figure4": "mIoU by encoder initialization",
    "figure5": "IoU by pathology",
}
#: Effects in a sentence; the table has all.
MOST_EFFECTS = 4

#: Verdict on the paper's order, weak < full < CheXseg -> a sentence on mIoU.
ORDER = {
    REPRODUCED: "mIoU rises {}, as in the paper.",
    CONTRADICTED: "mIoU doesn’t rise {}: this contradicts the paper.",
    UNDECIDED: "It is undecided whether mIoU rises {}, as in the paper.",
    NO_DATA: "Not judged: whether mIoU rises {}, as in the paper.",
}


def overview(
    anchor: str, analysis: StudyAnalysis, figures: Mapping[str, go.Figure], files: Sequence[str]
) -> dict[str, Any]:
    """Return the view of the first screen; arguments as of `study_view.study_view`."""
    kinds = {"csv": "tables", "png": "pictures", "svg": "pictures", "yaml": "study file"}
    links: dict[str, list[str]] = {}
    for path in files:
        links.setdefault(kinds.get(path.rpartition(".")[2], "tables"), []).append(path)
    name = next((n for main in MAIN_FIGURES for n in figures if n.startswith(main)), None)
    return {
        "answer": answer_sentences(analysis),
        "figure": figures[name] if name else None,
        "figure_anchor": f"{anchor}--{name}",
        "repeated": name != "ranking",  # other figures have a section
        "caption": _caption(name, figures[name], analysis.scores.units) if name else "",
        "facts": facts(analysis),
        "links": links,
        "dashboards": analysis.results.dashboards,
    }


def _caption(name: str, figure: go.Figure, units: str) -> str:
    """Return the caption of a main figure. units: "trials" or "draws"."""
    caption = next(text for main, text in MAIN_FIGURES.items() if name.startswith(main))
    units = "patients" if name.startswith("figure5") else units
    bars = any(
        trace[axis].array is not None
        for trace in figure.data
        for axis in ("error_x", "error_y")
        if axis in trace
    )
    return f"{caption}; {f'bars: 95% over {units}' if bars else f'too few {units} for bars'}"


def answer_sentences(analysis: StudyAnalysis) -> list[str]:
    """Return the answer to a study's question: one sentence, and others on how sure it is."""
    if not analysis.scores.arms:
        return []
    if analysis.answer is not None:
        return [*ranking_sentences(analysis.answer), *effects_sentences(analysis.answer)]
    rows = analysis.headline.dropna(subset="mIoU")
    # Radiologists and baselines have no cells.
    arms = rows[rows["cells"] != ""].set_index("arm")["mIoU"].to_dict()
    for claim in analysis.claims:
        if claim.name == "order" and {"Weak", "Full", "CheXseg"} <= arms.keys():
            weak, full, best = (f"{arms[name]:.3f}" for name in ("Weak", "Full", "CheXseg"))
            rise = f"from weak ({weak}) to full supervision ({full}) to CheXseg ({best})"
            return [ORDER[claim.verdict].format(rise), summary(analysis.claims)]
    if analysis.claims:
        return [summary(analysis.claims)]
    if not analysis.results.reproduces and len(analysis.scores.arms) > axis_effects.MOST_ARMS:
        most = axis_effects.MOST_ARMS
        return [f"{len(analysis.scores.arms)} arms are too many to compare all: at most {most}."]
    highest = max(arms, key=lambda name: float(arms[name]), default="")
    return [f"{highest}: mIoU {arms[highest]:.3f}."] if arms else []


def ranking_sentences(answer: Answer) -> list[str]:
    """Return which arm has the highest mIoU, and how many others are tied with it."""
    ranking = answer.ranking
    first, others = ranking.iloc[0], ranking["place"].iloc[1:]
    name = names_apart(ranking["arm"])[first["arm"]]
    sentences = [f"Highest mIoU, {first['mIoU']:.3f}: {name}."]
    tied = int((others == TIED).sum())
    if len(others) == 1 and others.iloc[0] != UNTESTED:
        sentences.append(f"The other arm is {others.iloc[0].removesuffix(' the first')} it.")
    elif (others != UNTESTED).any():
        # An axis can be resolved all the same: its effect is a mean over more runs.
        which = f"All {tied}" if tied == len(others) else f"Of {len(others)} other arms, {tied}"
        end = " other arms are" if tied == len(others) else " is" if tied == 1 else " are"
        sentences.append(f"{which}{end} tied with it, each compared alone.")
    return sentences


def effects_sentences(answer: Answer) -> list[str]:
    """Return the effects of the axes: a sentence on those resolved, others on the undecided.

    Interactions are told where they are resolved: then the mean effect alone misleads.
    """
    effects = answer.effects
    if not len(effects):
        return []
    undecided = effects["verdict"] == axis_effects.UNDECIDED
    resolved = [
        f"{row.axis} {row.value} is {row.verdict} than {row.against}, {number(row.difference, '+')}"
        for row in effects[~undecided].itertuples()
    ]
    sentences = [f"Resolved over all arms: {_listed(resolved)}."] if resolved else []
    if changes := _resolved_interactions(answer.interactions):
        sentences.append(f"But {_listed(changes)}.")
    reasons = effects["reason"].fillna(f"P ≥ {SIGNIFICANT}")
    for reason, rows in effects[undecided].groupby(reasons, sort=False):
        texts = [
            f"{row.axis} {row.value} instead of {row.against}, {number(row.difference, '+')}"
            for row in rows.itertuples()
        ]
        sentences.append(f"Undecided ({reason}): {_listed(texts)}.")
    return sentences


def _resolved_interactions(interactions: pd.DataFrame) -> list[str]:
    """Return how the effect of an axis changes with another one, where that is resolved."""
    if not len(interactions):
        return []
    resolved = interactions[interactions["verdict"] != axis_effects.UNDECIDED]
    return [
        f"{row['axis']} {row['value']} gains {number(abs(row['difference']))}"
        f" {'more' if row['difference'] > 0 else 'less'}"
        f" with {row['by']} {row['to']} than with {row['by']} {row['from']}"
        for row in resolved.to_dict("records")
    ]


def _listed(texts: Sequence[str]) -> str:
    """Return texts as one, those after the `MOST_EFFECTS`-th as a number."""
    more = len(texts) - MOST_EFFECTS
    return "; ".join([*texts[:MOST_EFFECTS], *([f"{more} more"] if more > 0 else [])])


def summary(claims: Sequence[Claim]) -> str:
    """Return a sentence with the number of claims of each verdict."""
    texts = {verdict: verdict for verdict in (REPRODUCED, CONTRADICTED, UNDECIDED)}
    texts |= {NO_DATA: "without data here"}
    numbers = Counter(claim.verdict for claim in claims)
    parts = [f"{numbers[verdict]} {text}" for verdict, text in texts.items() if numbers[verdict]]
    return f"Of {len(claims)} claims of the paper: {', '.join(parts)}."


def facts(analysis: StudyAnalysis) -> dict[str, str]:
    """Return term -> text: what was done with what, when and where."""
    results = analysis.results
    procedure = "the study file’s settings"
    if results.deviations is not None:
        changed = len(results.deviations)
        procedure = "as CheXseg’s published code"
        procedure += f", but for {changed} setting{'s' * (changed != 1)}" * (changed > 0)
    patients = len({patient_of(image_id) for image_id in results.image_ids})
    data = f"{len(results.image_ids):,} test images of {patients:,} patients"
    data += (
        f"; {len(results.pathologies)} patholog{'y' if len(results.pathologies) == 1 else 'ies'}"
    )
    prints = analysis.runs.loc[analysis.runs["label"] == "ingest test", "data"].dropna()
    if len(prints):
        data += f"; fingerprint {prints.iloc[0][:12]}"
    total = len(results.cells) + len(results.missing)
    cells = f"{len(results.cells):,} of {total:,} cell{'s' * (total != 1)} finished"
    facts = {"Procedure": procedure, "Data": data, "Cells": cells, **origin(results)}
    return facts | ({"Set by --set": ", ".join(results.overrides)} if results.overrides else {})
