"""The paper's and the poster's figures, each with its place in the source, and whether a study shows what they claim.

Paper: Gadgil et al., "CheXseg", MIDL 2021, arXiv:2102.10484. Poster: the authors' MIDL 2021 poster, whose figures differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.report.results import StudyResults
from chexseg.report.statistics import (
    Arm,
    Difference,
    Interval,
    arms,
    bootstrap_miou,
    by_selection,
    cell_iou,
    miou,
    paired_difference,
    patient_of,
    percentile_interval,
    pooled_iou,
    t_interval,
)

AVERAGE = "Avg. IoU"
SOURCE_TABLE1 = "paper, Appendix C, Table 1"
SOURCE_TABLE2 = "paper, Appendix D, Table 2"

#: Weak label kinds as the paper calls them; it has no CAM++ (Grad-CAM++).
METHODS = {"cam": "CAM", "cam++": "CAM++", "irnet": "IRNet"}
PAPERS_METHODS = ("cam", "irnet")


def css_name(kind: str) -> str:
    """A kind as the page's classes and custom properties call it: names in CSS hold no plus sign."""
    return kind.replace("+", "-plus")


#: The probabilities of Table 1's columns; p = 1 has one value for both methods.
TABLE1_P: tuple[float, ...] = (0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9)

# Task -> (CAM at TABLE1_P, IRNet at TABLE1_P, both at p = 1). The encoder starts from CheXpert; 100 weak images; the mean
# of three trials. "Avg. IoU" is printed in the table, not computed here.
TABLE1: dict[str, tuple[tuple[float, ...], tuple[float, ...], float]] = {
    AVERAGE: (
        (0.163, 0.269, 0.274, 0.273, 0.290, 0.292, 0.299),
        (0.151, 0.250, 0.257, 0.263, 0.281, 0.281, 0.294),
        0.263,
    ),
    "Airspace Opacity": (
        (0.189, 0.384, 0.388, 0.392, 0.410, 0.416, 0.415),
        (0.262, 0.379, 0.378, 0.387, 0.407, 0.408, 0.413),
        0.405,
    ),
    "Atelectasis": (
        (0.176, 0.319, 0.313, 0.308, 0.332, 0.327, 0.324),
        (0.124, 0.278, 0.282, 0.289, 0.319, 0.321, 0.320),
        0.328,
    ),
    "Cardiomegaly": (
        (0.325, 0.459, 0.470, 0.449, 0.465, 0.465, 0.470),
        (0.249, 0.420, 0.431, 0.456, 0.462, 0.459, 0.471),
        0.476,
    ),
    "Consolidation": (
        (0.107, 0.099, 0.100, 0.100, 0.114, 0.119, 0.112),
        (0.0987, 0.105, 0.109, 0.116, 0.123, 0.122, 0.132),
        0.106,
    ),
    "Edema": (
        (0.176, 0.239, 0.253, 0.246, 0.260, 0.263, 0.258),
        (0.159, 0.229, 0.218, 0.225, 0.242, 0.241, 0.245),
        0.248,
    ),
    "Enlarged Cardiomediastinum": (
        (0.165, 0.522, 0.521, 0.522, 0.538, 0.539, 0.547),
        (0.267, 0.509, 0.510, 0.515, 0.530, 0.533, 0.554),
        0.549,
    ),
    "Lung Lesion": (
        (0.059, 0.072, 0.063, 0.059, 0.066, 0.075, 0.135),
        (0.018, 0.0449, 0.0508, 0.048, 0.057, 0.048, 0.107),
        0.003,
    ),
    "Pleural Effusion": (
        (0.234, 0.258, 0.261, 0.257, 0.271, 0.271, 0.269),
        (0.190, 0.207, 0.227, 0.231, 0.248, 0.247, 0.252),
        0.248,
    ),
    "Pneumothorax": (
        (0.052, 0.103, 0.107, 0.103, 0.153, 0.154, 0.159),
        (0.014, 0.089, 0.117, 0.116, 0.165, 0.163, 0.167),
        0.003,
    ),
    "Support Devices": (
        (0.148, 0.234, 0.264, 0.274, 0.290, 0.287, 0.297),
        (0.127, 0.243, 0.244, 0.252, 0.261, 0.266, 0.278),
        0.267,
    ),
}

#: (weak label kind, encoder's start, weak images) -> (test mIoU, half the width of its 95% interval).
TABLE2: dict[tuple[str, str, int], tuple[float, float]] = {
    ("cam", "random", 100): (0.074, 0.00783),
    ("cam", "random", 2000): (0.126, 0.00275),
    ("cam", "random", 20000): (0.136, 0.00990),
    ("cam", "imagenet", 100): (0.082, 0.00396),
    ("cam", "imagenet", 2000): (0.132, 0.00687),
    ("cam", "imagenet", 20000): (0.139, 0.00095),
    ("cam", "moco", 100): (0.084, 0.00238),
    ("cam", "moco", 2000): (0.133, 0.00002),
    ("cam", "moco", 20000): (0.139, 0.00076),
    ("cam", "chexpert", 100): (0.129, 0.00036),
    ("cam", "chexpert", 2000): (0.141, 0.00003),
    ("cam", "chexpert", 20000): (0.142, 0.00095),
    ("irnet", "random", 100): (0.076, 0.00133),
    ("irnet", "random", 2000): (0.105, 0.00292),
    ("irnet", "random", 20000): (0.111, 0.00103),
    ("irnet", "imagenet", 100): (0.081, 0.00245),
    ("irnet", "imagenet", 2000): (0.117, 0.00576),
    ("irnet", "imagenet", 20000): (0.124, 0.00001),
    ("irnet", "moco", 100): (0.082, 0.00007),
    ("irnet", "moco", 2000): (0.120, 0.00010),
    ("irnet", "moco", 20000): (0.128, 0.00001),
    ("irnet", "chexpert", 100): (0.125, 0.00031),
    ("irnet", "chexpert", 2000): (0.146, 0.00002),
    ("irnet", "chexpert", 20000): (0.156, 0.00000),
}


@dataclass(frozen=True)
class Published:
    """One figure of the running text, a caption or the poster. `unit` is "mIoU" or "%" (relative)."""

    value: float
    unit: str
    place: str


#: Where a figure can be derived from others and doesn't come out the same, the printed one stands here.
HEADLINES: dict[str, Published] = {
    "chexseg": Published(0.299, "mIoU", "paper, section 1"),
    "chexseg irnet": Published(0.294, "mIoU", "paper, section 4.1"),
    "full": Published(0.263, "mIoU", "paper, section 1"),
    # Table 2's IRNet with CheXpert's encoder and 20,000 images; Table 1's p = 0 (100 images) is 0.163 and 0.151.
    "weak": Published(0.156, "mIoU", "paper, section 1"),
    "chexseg over full": Published(13.4, "%", "paper, abstract"),
    "chexseg over weak": Published(91.2, "%", "paper, abstract"),
    "student over best full": Published(4.83, "%", "paper, abstract"),
    "student over teacher, mean of inits": Published(3.42, "%", "paper, section 1"),
    "student over teacher, chexpert": Published(1.69, "%", "paper, section 4.2"),
    "student below chexseg": Published(6.65, "%", "paper, section 1"),
    "gap to radiologists closed": Published(71.6, "%", "paper, abstract"),
    "chexseg over radiologists, Atelectasis": Published(165, "%", "paper, section 4.4"),
    "chexseg over radiologists, Airspace Opacity": Published(79, "%", "paper, section 4.4"),
    "chexseg over radiologists, Pleural Effusion": Published(26, "%", "paper, section 4.4"),
    "full, chexpert": Published(0.263, "mIoU", "paper, caption of Figure 4a"),
    "weak irnet, chexpert": Published(0.156, "mIoU", "paper, caption of Figure 4b"),
    "weak cam, chexpert": Published(0.142, "mIoU", "paper, caption of Figure 4b"),
    "weak irnet, random": Published(0.111, "mIoU", "paper, caption of Figure 4b"),
    "weak cam, random": Published(0.136, "mIoU", "paper, caption of Figure 4b"),
    "weak irnet, moco": Published(0.128, "mIoU", "paper, caption of Figure 4b"),
    "weak cam, moco": Published(0.139, "mIoU", "paper, caption of Figure 4b"),
    "weak irnet, imagenet": Published(0.124, "mIoU", "paper, caption of Figure 4b"),
    "weak cam, imagenet": Published(0.139, "mIoU", "paper, caption of Figure 4b"),
    "poster chexseg": Published(0.27, "mIoU", "poster, Experiments"),
    "poster full": Published(0.246, "mIoU", "poster, Experiments"),
    "poster weak": Published(0.156, "mIoU", "poster, Experiments"),
    "poster gap to radiologists closed": Published(57.2, "%", "poster, Comparison to Radiologists"),
}


def table1(task: str, method: str, p: float) -> float | None:
    """Table 1's IoU of a pathology or ``"Avg. IoU"``; `method` is "cam" or "irnet", in any case. None where it has none."""
    method = method.lower()
    if task not in TABLE1:
        return None
    cam, irnet, full = TABLE1[task]
    if abs(p - 1) < 1e-9:  # no weak labels there, so any method's
        return full
    if method not in PAPERS_METHODS:
        return None
    row = cam if method == "cam" else irnet
    return next((value for column, value in zip(TABLE1_P, row, strict=True) if abs(column - p) < 1e-9), None)


def table1_average(pathologies: Iterable[str], method: str, p: float) -> float | None:
    """Table 1's mean over the named pathologies; the printed average where they are all ten."""
    names = list(pathologies)
    if set(names) == set(TABLE1) - {AVERAGE}:
        return table1(AVERAGE, method, p)
    values = [table1(name, method, p) for name in names]
    return sum(values) / len(values) if values and None not in values else None


def table2(method: str, init: str, weak_images: int) -> tuple[float, float] | None:
    """Table 2's (mIoU, half the width of its interval) of a weakly supervised arm, or None."""
    return TABLE2.get((method.lower(), init, int(weak_images)))


# ---- the paper's first claim, on a study: weak < full < CheXseg -----------------------------------------------------

ROLES = {"weak": "Weak", "full": "Full", "chexseg": "CheXseg", "best": "Best on the test set"}


@dataclass(frozen=True)
class Headline:
    """The paper's three arms, each chosen without the test set, and the arm that is best on it."""

    roles: dict[str, Arm]  # of `ROLES` those that exist
    trials: dict[str, Interval]  # mIoU over trials
    patients: dict[str, Interval]  # mIoU over patients, trials averaged
    full_minus_weak: Difference | None
    chexseg_minus_full: Difference | None


def headline(results: StudyResults, replicates: int = 1000, seed: int = 0) -> Headline:
    """The study's arms in the paper's roles, with intervals and the two differences that make the paper's order."""
    found = arms(results)
    miou_C = miou(cell_iou(results))[0]
    chosen = {
        "weak": by_selection([arm for arm in found if arm.method == "weak"]),
        "full": by_selection([arm for arm in found if arm.method == "full"]),
        "chexseg": by_selection([arm for arm in found if arm.method == "mixed"]),
        "best": max(found, key=lambda arm: np.nan_to_num(miou_C[list(arm.indices)].mean(), nan=-1.0), default=None),
    }
    roles = {role: arm for role, arm in chosen.items() if arm is not None}
    counts = {arm: results.counts_CIK3[list(arm.indices)] for arm in roles.values()}
    over_trials = {role: t_interval(miou_C[list(arm.indices)]) for role, arm in roles.items()}
    number = len({patient_of(name) for name in results.image_ids})
    over_patients = {}
    for role, arm in roles.items():
        sampled_B = bootstrap_miou(counts[arm], results.image_ids, replicates, seed).mean(axis=1)
        over_patients[role] = percentile_interval(over_trials[role].mean, sampled_B, number)

    def difference(first: str, second: str) -> Difference | None:
        if first not in roles or second not in roles:
            return None
        one, other = roles[first], roles[second]
        trials = (one.trials, other.trials)
        return paired_difference(counts[one], counts[other], results.image_ids, trials, replicates, seed)

    return Headline(roles, over_trials, over_patients, difference("full", "weak"), difference("chexseg", "full"))


def arm_text(arm: Arm) -> str:
    """An arm's settings in words."""
    parts = [METHODS[arm.weak]] if arm.weak else []
    parts += ["student", f"{100 * arm.fraction:g}% of train"] if arm.method == "student" else [f"p = {arm.p:g}"]
    parts += [] if np.isnan(arm.weak_images) else [f"{arm.weak_images:,.0f} weak images"]
    return ", ".join([*parts, f"encoder {arm.init}"])


def headline_rows(results: StudyResults, found: Headline) -> pd.DataFrame:
    """One row an arm: its roles, mIoU, intervals over trials and patients, the paper's value; then the radiologists.

    `colour` names the arm's entry of the report's colours. An arm with two roles has one row.
    """
    rows: dict[Arm | None, dict] = {}
    for role, arm in found.roles.items():
        if arm in rows:
            rows[arm]["settings"] += f"; {ROLES[role][0].lower()}{ROLES[role][1:]}"
            continue
        colour = arm.weak or {"full": "full", "student": "student"}[arm.method]
        row = {"arm": ROLES[role], "settings": arm_text(arm), "colour": colour}
        rows[arm] = row | _bounds(found.trials[role], found.patients[role])
        rows[arm]["paper"] = HEADLINES[role].value if role in HEADLINES else np.nan
    if results.radiologists_IK3 is not None:
        value = float(miou(pooled_iou(results.radiologists_IK3, require_expert=True))[0])
        number = len({patient_of(name) for name in results.image_ids})
        patients = percentile_interval(value, bootstrap_miou(results.radiologists_IK3, results.image_ids), number)
        row = {"arm": "Radiologists", "settings": "three others, against the ground truth", "colour": "radiologists"}
        rows[None] = row | _bounds(Interval(value, np.nan, np.nan, 1), patients) | {"paper": np.nan}
    return pd.DataFrame(rows.values())


def _bounds(trials: Interval, patients: Interval) -> dict[str, float]:
    ends = {"trials low": trials.low, "trials high": trials.high, "n": trials.n}
    return {"mIoU": trials.mean} | ends | {"patients low": patients.low, "patients high": patients.high}


def verdict(found: Headline) -> list[str]:
    """Sentences: whether the paper's order weak < full < CheXseg shows, and whether it is resolved at this n."""
    order = "The paper’s order, weak < full < CheXseg,"
    lacking = [ROLES[role] for role in ("weak", "full", "chexseg") if role not in found.roles]
    if lacking:
        return [f"{order} can't be judged yet: no finished cell for {' and '.join(lacking)}."]
    weak, full, chexseg = (found.trials[role].mean for role in ("weak", "full", "chexseg"))
    if np.isnan([weak, full, chexseg]).any():
        return [f"{order} can't be judged: no pathology has an expert mask in the test set."]
    shows = weak < full < chexseg
    values = f"weak {weak:.3f}, full {full:.3f}, CheXseg {chexseg:.3f}"
    steps = {"Full minus weak": found.full_minus_weak, "CheXseg minus full": found.chexseg_minus_full}
    sentences = [f"{order} {'shows' if shows else 'does not show'} here: {values}."]
    sentences += [_step(name, step) for name, step in steps.items()]
    if shows:
        resolved = [name for name, step in steps.items() if step.resolved]
        which = {
            0: "Neither step is",
            1: f"Only the step “{resolved[0].lower()}” is" if resolved else "",
            2: "Both are",
        }
        sentences.append(f"{which[len(resolved)]} resolved at this number of trials and patients.")
    return sentences


def _step(name: str, step: Difference) -> str:
    over_patients = f"{step.patients.low:+.3f} to {step.patients.high:+.3f} over {step.patients.n} patients"
    if step.trials.n < 2:
        over_trials, judged = "no interval over trials", "not resolved, for fewer than two trials are in both"
    else:
        over_trials = f"{step.trials.low:+.3f} to {step.trials.high:+.3f} over {step.trials.n} trials"
        judged = "resolved" if step.resolved else "not resolved"
    text = f"{name} is {step.value:+.3f} (95%: {over_patients}, {over_trials}): {judged}."
    return text.replace("-0.", "\u22120.").replace("-1.", "\u22121.")
