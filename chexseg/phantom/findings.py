"""The findings of a synthetic study, and the labels an automated labeler reads from its report.

Findings occur together as they do in patients: each depends on two latent conditions, heart
failure and severity of illness (a Gaussian copula). Frequencies follow CheXpert. For training they
follow Irvin et al. 2019, table 1: an automated labeler leaves most absent findings blank and calls
many present ones uncertain. For validation and test they follow the radiologists' labels, which
mark some findings more liberally.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation

#: Loadings on (heart failure, illness); the rest of a finding's variance is independent.
_LOADINGS: dict[str, tuple[float, float]] = {
    "Airspace Opacity": (0.0, 0.55),
    "Atelectasis": (0.1, 0.6),
    "Cardiomegaly": (0.6, 0.2),
    "Consolidation": (0.0, 0.5),
    "Edema": (0.6, 0.5),
    "Enlarged Cardiomediastinum": (0.3, 0.4),
    "Lung Lesion": (0.0, 0.15),
    "Pleural Effusion": (0.4, 0.55),
    "Pneumothorax": (-0.1, 0.35),
    "Support Devices": (0.05, 0.7),
    "Pleural Other": (0.0, 0.1),
    "Fracture": (0.0, 0.1),
}

#: Probability of each finding, in `_LOADINGS`' order, before the consequences in `draw_findings`.
_OCCURRENCE: dict[str, tuple[float, ...]] = {
    "train": (0.29, 0.23, 0.135, 0.11, 0.285, 0.04, 0.045, 0.445, 0.09, 0.53, 0.02, 0.045),
    "valid": (0.32, 0.34, 0.28, 0.14, 0.19, 0.32, 0.005, 0.3, 0.035, 0.46, 0.01, 0.02),
    "test": (0.32, 0.32, 0.26, 0.1, 0.19, 0.27, 0.05, 0.26, 0.06, 0.48, 0.01, 0.02),
}


@dataclass(frozen=True)
class Report:
    """The labeler's probabilities for one finding; in all other cases its label stays blank."""

    mentioned: float  # P(1 | present)
    hedged: float  # P(-1 | present)
    suspected: float  # P(-1 | absent)
    denied: float  # P(0 | absent)


_REPORTS: dict[str, Report] = {
    "Enlarged Cardiomediastinum": Report(0.3, 0.1, 0.045, 0.1),
    "Cardiomegaly": Report(0.82, 0.08, 0.025, 0.06),
    "Lung Opacity": Report(0.9, 0.025, 0.02, 0.05),
    "Lung Lesion": Report(0.8, 0.06, 0.005, 0.01),
    "Edema": Report(0.82, 0.09, 0.045, 0.13),
    "Consolidation": Report(0.55, 0.3, 0.1, 0.14),
    "Pneumonia": Report(0.4, 0.35, 0.07, 0.02),
    "Atelectasis": Report(0.6, 0.3, 0.1, 0.01),
    "Pneumothorax": Report(0.88, 0.05, 0.01, 0.27),
    "Pleural Effusion": Report(0.88, 0.05, 0.05, 0.27),
    "Pleural Other": Report(0.6, 0.1, 0.01, 0.0),
    "Fracture": Report(0.8, 0.03, 0.002, 0.01),
    "Support Devices": Report(0.96, 0.003, 0.005, 0.05),
}

#: P(1 | absent), the labeler's errors; and P(the report states "no finding" | no findings).
_MISREAD, _NO_FINDING_STATED = 0.01, 0.7


def draw_findings(
    random: np.random.Generator, split: str, prevalence: float | None = None
) -> frozenset[str]:
    """Draw the findings of a study: pathologies, Pneumonia, Pleural Other and Fracture.

    With a `prevalence` in (0, 1) each finding has that probability, independent of the others and
    of the split. Airspace Opacity is included only if it has separate patches, although
    consolidation and edema are airspace opacities too.
    """
    loadings = np.array(list(_LOADINGS.values())) * (prevalence is None)
    residual = np.sqrt(1 - (loadings**2).sum(axis=1))
    latent = loadings @ random.standard_normal(2) + residual * random.standard_normal(len(loadings))
    rates = _OCCURRENCE[split] if prevalence is None else (prevalence,) * len(_LOADINGS)
    thresholds = np.array([NormalDist().inv_cdf(1 - rate) for rate in rates])
    findings = {name for name, shown in zip(_LOADINGS, latent > thresholds, strict=True) if shown}
    wide, obscured, pneumonic = random.random(3)
    if "Cardiomegaly" in findings and wide < 0.85:
        findings.add("Enlarged Cardiomediastinum")
    if "Consolidation" in findings or ("Atelectasis" in findings and obscured < 0.4):
        findings.add("Airspace Opacity")
    if pneumonic < (
        0.35 if "Consolidation" in findings else 0.1 if "Airspace Opacity" in findings else 0.0
    ):
        findings.add("Pneumonia")
    return frozenset(findings)


def truth(findings: frozenset[str]) -> dict[str, bool]:
    """Return the true labels of CheXpert's fourteen observations.

    No Finding means none of the others except Support Devices, as for CheXpert's labeler.
    """
    labels = {
        observation(name): name in findings
        for name in (*PATHOLOGIES, "Pneumonia", "Pleural Other", "Fracture")
    }
    labels["Lung Opacity"] = bool(findings & {"Airspace Opacity", "Consolidation", "Edema"})
    labels["No Finding"] = not any(
        present for name, present in labels.items() if name != "Support Devices"
    )
    return {name: labels[name] for name in OBSERVATIONS}


def read_report(random: np.random.Generator, labels: dict[str, bool]) -> dict[str, float | None]:
    """Return the automated labeler's labels, given the true ones: 1, 0, -1 (uncertain) or None."""
    chances = dict(zip(OBSERVATIONS, random.random(len(OBSERVATIONS)).tolist(), strict=True))
    read: dict[str, float | None] = {}
    for name, report in _REPORTS.items():
        chance = chances[name]
        if labels[name]:
            outcomes = ((1.0, report.mentioned), (-1.0, report.hedged), (0.0, 0.01))
        else:
            outcomes = ((1.0, _MISREAD), (-1.0, report.suspected), (0.0, report.denied))
        read[name] = None
        for value, probability in outcomes:
            if chance < probability:
                read[name] = value
                break
            chance -= probability
    stated = labels["No Finding"] and chances["No Finding"] < _NO_FINDING_STATED
    contradicted = any(
        value in (1.0, -1.0) for name, value in read.items() if name != "Support Devices"
    )
    read["No Finding"] = 1.0 if stated and not contradicted else None
    return {name: read[name] for name in OBSERVATIONS}
