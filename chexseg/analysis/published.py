"""List the values that the paper and its poster publish, each with its place in the source.

Paper: Gadgil et al., "CheXseg", MIDL 2021, arXiv:2102.10484. Poster: the authors' MIDL 2021 poster,
whose values differ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from chexseg.pathologies import PATHOLOGIES
from chexseg.weak_label_kinds import KINDS

AVERAGE = "Avg. IoU"

#: Kind of weak labels -> its name; the paper has two of them.
METHODS = {kind: entry.name for kind, entry in KINDS.items()}
PAPERS_METHODS = ("cam", "irnet")

DATA = Path(__file__).with_name("paper")

#: The columns of Table 1: probabilities p. At p = 1 both methods share one value.
TABLE1_P: tuple[float, ...] = (0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9)


@functools.cache
def printed_table1() -> dict[tuple[str, str, float], float]:
    """Return (task, method, p) -> IoU of Table 1 (appendix C): the mean of three trials.

    The encoder starts from CheXpert, with 100 weak images. At p = 1 the method is "full". "Avg.
    IoU" is printed in the table, not computed here.
    """
    rows = pd.read_csv(DATA / "table1.csv").itertuples(index=False)
    return {(row.task, row.method, row.p): row.iou for row in rows}


@functools.cache
def printed_table2() -> dict[tuple[str, str, int], tuple[float, float]]:
    """Return (method, encoder's start, weak images) -> mIoU and half its 95% interval's width.

    Table 2 (appendix D), on the test set.
    """
    rows = pd.read_csv(DATA / "table2.csv").itertuples(index=False)
    return {(row.method, row.init, row.weak_images): (row.miou, row.half_width) for row in rows}


@dataclass(frozen=True)
class PublishedClaim:
    """A claim as published, with its figures and its place in the sources.

    support: the tables and figures that show it, as in a study's `reproduces`.
    """

    text: str
    figures: str
    place: str
    support: tuple[str, ...]


@functools.cache
def published_claims() -> dict[str, PublishedClaim]:
    """Return name -> claim, in the order of the paper's argument."""
    text = (DATA / "claims.yaml").read_text(encoding="utf-8")
    return {name: PublishedClaim(**claim) for name, claim in yaml.safe_load(text).items()}


#: Printed values, even where other printed values imply a different one: 0.299 is 13.7% above
#: 0.263, but the printed 13.4% follows from the means of Table 1's rows (`mean_of_rows`), 0.2986
#: and 0.2633. mIoU, except for the shares of the gap and the relative differences, in %.
HEADLINES: dict[str, float] = {
    "chexseg": 0.299,  # paper, sections 1, 4.1 and 5
    "full": 0.263,  # paper, sections 1, 4.1 and 5; caption of Figure 4a, with CheXpert's encoder
    # Table 2's IRNet with CheXpert's encoder and 20,000 images; paper, sections 1, 4.1 and 5.
    # Table 1's p = 0 (100 images) is 0.163 and 0.151.
    "weak": 0.156,
    "gap to radiologists closed": 71.6,  # paper, abstract, sections 1 and 4.4
    "chexseg over radiologists, Atelectasis": 165,  # paper, section 4.4
    "chexseg over radiologists, Airspace Opacity": 79,
    "chexseg over radiologists, Pleural Effusion": 26,
    "poster chexseg": 0.27,  # poster, Experiments
    "poster full": 0.246,
    "poster weak": 0.156,
    "poster gap to radiologists closed": 57.2,  # poster, Comparison to Radiologists
}

#: What the paper says of a student (abstract, sections 1, 4.2 and 5) -> the mIoU that follows from
#: 0.263 of full supervision and 0.299 of CheXseg. So it speaks of three different students.
IMPLIED_STUDENTS = {
    "4.83% above the best full supervision": 1.0483 * HEADLINES["full"],
    "1.69% above its teacher": 1.0169 * HEADLINES["full"],
    "6.65% below CheXseg": (1 - 0.0665) * HEADLINES["chexseg"],
}


def implied_radiologists(source: str = "") -> float:
    """Return the radiologists' mIoU, which is printed nowhere, from the share of the gap closed.

    source: "" (the paper, 0.356) or "poster " (0.355).
    """
    weak, chexseg = (HEADLINES[source + role] for role in ("weak", "chexseg"))
    return weak + (chexseg - weak) / (HEADLINES[f"{source}gap to radiologists closed"] / 100)


def above_radiologists(task: str) -> float:
    """Return CheXseg's IoU minus the radiologists' from the printed percentage; NaN without one.

    The IoU is Table 1's, CAM at p = 0.9.
    """
    share, value = HEADLINES.get(f"chexseg over radiologists, {task}"), table1(task, "cam", 0.9)
    return math.nan if share is None or value is None else value - value / (1 + share / 100)


#: The pathologies on which CheXseg scores above the radiologists (paper, section 4.4; poster,
#: Comparison to Radiologists).
ABOVE_RADIOLOGISTS = ("Atelectasis", "Airspace Opacity", "Pleural Effusion")


def table1(
    task: str, method: str, p: float, pathologies: Iterable[str] = PATHOLOGIES
) -> float | None:
    """Return Table 1's IoU of a pathology or ``"Avg. IoU"``, or None if it has no such value.

    method: "cam" or "irnet", in upper or lower case. pathologies: those of the average; for all
    ten, it is the printed one.
    """
    is_full = abs(p - 1) < 1e-9  # no weak labels, so the value holds for all methods
    name, p = "full" if is_full else method.lower(), round(p, 9)
    if task != AVERAGE or set(pathologies) == set(PATHOLOGIES):
        return printed_table1().get((task, name, p))
    values = [printed_table1().get((one, name, p)) for one in pathologies]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined and len(defined) == len(values) else None


def table2(method: str, init: str, weak_images: int) -> tuple[float, float] | None:
    """Return Table 2's (mIoU, half width of its interval) of a weakly supervised arm, or None."""
    return printed_table2().get((method.lower(), init, int(weak_images)))


def mean_of_rows(method: str, p: float) -> float | None:
    """Return the mean of Table 1's ten rows, which has a digit more than the printed average."""
    values = [table1(task, method, p) for task in PATHOLOGIES]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if len(defined) == len(values) else None


def printed_twice() -> dict[str, tuple[float, float]]:
    """Return method -> its mIoU of one setting in Table 1 and in Table 2, which differ.

    100 weak images, p = 0, CheXpert's encoder. Table 1 takes 247 samples an epoch, and Table 2
    maybe 100.
    """
    return {
        method: (
            printed_table1()[AVERAGE, method, 0.0],
            printed_table2()[method, "chexpert", 100][0],
        )
        for method in PAPERS_METHODS
    }


def noise() -> float:
    """Return the rms difference of an IoU of Table 1 between two runs of one setting.

    p = 0.8 and 0.85 are one setting in the published code, so these columns are replicates.
    """
    squares = [
        (printed_table1()[task, method, 0.8] - printed_table1()[task, method, 0.85]) ** 2
        for task in PATHOLOGIES
        for method in PAPERS_METHODS
    ]
    return math.sqrt(sum(squares) / len(squares))
