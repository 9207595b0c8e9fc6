"""Prepare a study's first screen: its answer in a sentence, main figure, facts and links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from chexseg.analysis import axis_effects
from chexseg.analysis.axis_effects import TIED, UNTESTED, Answer
from chexseg.analysis.claims.verdicts import CONTRADICTED, NO_DATA, REPRODUCED, UNDECIDED, Claim
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.analysis.tables.records import origin
from chexseg.report.page.environment import number

#: Figures by name, the first that a study has is its main one -> caption.
MAIN_FIGURES = {
    "ranking": "mIoU of the arms, the highest first; bars: 95% over {units}",
    "figure2-a": "mIoU by p, the share of expert labels; bars: 95% over {units}",
    "figure3": "mIoU of students by the share of the training images; bars: 95% over {units}",
    "figure4": "mIoU by encoder initialization; bars: 95% over {units}",
    "figure5": "IoU by kind of supervision; bars: 95% over patients",
}


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
    caption = next(
        (MAIN_FIGURES[main] for main in MAIN_FIGURES if (name or "").startswith(main)), ""
    )
    return {
        "answer": answer_sentences(analysis),
        "figure": figures[name] if name else None,
        "figure_anchor": f"{anchor}--{name}",
        "repeated": name != "ranking",  # other figures have a section
        "caption": caption.format(units=analysis.scores.units),
        "facts": facts(analysis),
        "links": links,
        "dashboards": analysis.results.dashboards,
    }


def answer_sentences(analysis: StudyAnalysis) -> list[str]:
    """Return the answer to a study's question: one sentence, and one on how sure it is."""
    if not analysis.scores.arms:
        return []
    if analysis.answer is not None:
        return [*ranking_sentences(analysis.answer), *_effects_sentence(analysis.answer)]
    rows = analysis.headline.dropna(subset="mIoU")
    arms = rows[rows["n"] > 0].set_index("arm")["mIoU"].to_dict()
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
    sentences = [f"Highest mIoU: {first['arm']}, {first['mIoU']:.3f}."]
    tied = int((others == TIED).sum())
    if len(others) == 1 and others.iloc[0] != UNTESTED:
        sentences.append(f"The other arm is {others.iloc[0].removesuffix(' the first')} it.")
    elif (others != UNTESTED).any():
        verb = "is" if tied == 1 else "are"
        sentences.append(f"Of {len(others)} other arms, {tied} {verb} tied with it.")
    return sentences


def _effects_sentence(answer: Answer) -> list[str]:
    """Return which effects of the axes are resolved; nothing if there is none to test."""
    effects = answer.effects
    if not len(effects):
        return []
    resolved = [
        f"{row.axis} {row.value} is {row.verdict} than {row.against}, {number(row.difference, '+')}"
        for row in effects[effects["verdict"] != axis_effects.UNDECIDED].itertuples()
    ]
    tested = int(effects["P"].notna().sum())
    if not tested:
        reasons = ", ".join(effects["reason"].dropna().unique())
        return [f"No effect of an axis could be tested: {reasons}."]
    if not resolved:
        return [f"No effect of an axis is resolved ({tested} tested)."]
    return [f"Resolved: {'; '.join(resolved)}."]


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
