"""Which arms of a study each of the paper's claims compares, chosen without the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chexseg.analysis.claims.headline import STEPS
from chexseg.analysis.published import ABOVE_RADIOLOGISTS, METHODS, PAPERS_METHODS
from chexseg.analysis.statistics.scores import Arm, by_selection
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, StudyArms
from chexseg.analysis.tables import study_tables

#: The share of the training images from which on the paper's students surpass their teachers (section 4.2); else 1%.
ENOUGH = {"chexpert": 0.1}
INITS = {"random": "random", "imagenet": "ImageNet", "moco": "MoCo", "chexpert": "CheXpert"}


@dataclass(frozen=True)
class Pair:
    """Two arms and the sign that the paper gives to the first minus the second. k: a pathology's index, -1 the mIoU."""

    text: str
    first: Arm | str
    second: Arm | str
    sign: int = 1
    k: int = -1


ROLES = {
    "weak": "weak (p = 0)",
    "full": "full (p = 1)",
    "chexseg": "mixed (0 < p < 1)",
    "student": "students",
}
NO_READERS = "the radiologists’ masks"


def _lacking(**arms: Arm | None) -> list[str]:
    return [ROLES[name] for name, arm in arms.items() if arm is None]


def order(study: StudyArms) -> tuple[list[Pair], list[str]]:
    roles = {name: study.role(name) for name in ("weak", "full", "chexseg")}
    if lacking := _lacking(**roles):
        return [], lacking
    return [Pair(text, roles[first], roles[second]) for text, (first, second) in STEPS.items()], []


def inverted_u(study: StudyArms) -> tuple[list[Pair], list[str]]:
    """For each kind of weak labels the p between that is best on the selection images, against both ends; one variant."""
    pairs, lacking = [], ["weak (p = 0), mixed and full (p = 1) with the same encoder"]
    for variant in study_tables.variants(study.results):
        for weak in PAPERS_METHODS:
            of_variant = study_tables.variant_arms(study.results, variant)
            chosen = [arm for arm in of_variant if arm.weak == weak or arm.method == "full"]
            ends = [
                by_selection([arm for arm in chosen if arm.method == method])
                for method in ("weak", "full")
            ]
            between = by_selection([arm for arm in chosen if arm.method == "mixed"])
            if between is not None and None not in ends:
                pairs += [
                    Pair(f"{METHODS[weak]}, p = {between.p:g} minus p = {end.p:g}", between, end)
                    for end in ends
                ]
        if pairs:  # as Figure 2: the first variant that has the curve
            return pairs, []
    return [], lacking


def students(study: StudyArms) -> tuple[list[Pair], list[str]]:
    """For each encoder's start the student of most images against its teacher, where these are enough for the paper's claim."""
    pairs = []
    for init in _inits(study.of("student")):
        student = _largest([arm for arm in study.of("student") if arm.init == init], "fraction")
        if student.fraction < ENOUGH.get(init, 0.01):
            continue
        teachers = [
            arm for arm in study.of("full") if arm.init == init and _rest(arm) <= _rest(student)
        ]
        same = [arm for arm in teachers if study_tables.same(arm.epochs, student.epochs)]
        teacher = by_selection(same or teachers)
        if teacher is not None:
            text = f"{INITS.get(init, init)}, student of {100 * student.fraction:g}% minus teacher"
            pairs.append(Pair(text, student, teacher))
    return pairs, [] if pairs else [
        "students of 1% (CheXpert’s encoder: 10%) and their teachers (p = 1)"
    ]


def best_student(study: StudyArms) -> tuple[list[Pair], list[str]]:
    student, chexseg = study.role("student"), study.role("chexseg")
    if lacking := _lacking(chexseg=chexseg, student=student):
        return [], lacking
    return [Pair("CheXseg minus the best student", chexseg, student)], []


def inits(study: StudyArms) -> tuple[list[Pair], list[str]]:
    """CheXpert's start against each other, for each method that has several: of the most weak images or student's images."""
    pairs = []
    for method, weak in (
        ("full", None),
        *(("weak", kind) for kind in PAPERS_METHODS),
        ("student", None),
    ):
        candidates = study.of(method, weak)
        best = _largest(
            [arm for arm in candidates if arm.init == "chexpert"],
            "fraction" if method == "student" else "weak_images",
        )
        if best is None:
            continue
        name = {"full": "full", "weak": METHODS.get(weak, ""), "student": "student"}[method]
        for init in _inits(candidates):
            other = by_selection(
                [arm for arm in candidates if arm.init == init and _alike(arm, best)]
            )
            if init != "chexpert" and other is not None:
                pairs.append(Pair(f"{name}, CheXpert minus {INITS.get(init, init)}", best, other))
    return pairs, [] if pairs else ["one method with CheXpert’s encoder and with another"]


def irnet_and_cam(study: StudyArms) -> tuple[list[Pair], list[str]]:
    """At p = 0 with the most weak images that both have, for each encoder's start."""
    pairs, found = [], []
    for init in _inits(study.of("weak")):
        cams = [arm for arm in study.of("weak", "cam") if arm.init == init]
        spread = [arm for arm in study.of("weak", "irnet") if arm.init == init]
        irnet = _largest(
            [arm for arm in spread if any(_alike(arm, cam) for cam in cams)], "weak_images"
        )
        if irnet is not None:
            cam = by_selection([arm for arm in cams if _alike(arm, irnet)])
            found.append(init)
            pairs.append(
                Pair(
                    f"{INITS.get(init, init)}, IRNet minus CAM",
                    irnet,
                    cam,
                    1 if init == "chexpert" else -1,
                )
            )
    lacking = [] if "chexpert" in found else ["CAM and IRNet at p = 0 with CheXpert’s encoder"]
    lacking += [] if set(found) - {"chexpert"} else ["CAM and IRNet at p = 0 with another encoder"]
    return pairs, lacking


def gap(study: StudyArms) -> tuple[list[Pair], list[str]]:
    chexseg, weak = study.role("chexseg"), study.role("weak")
    lacking = _lacking(chexseg=chexseg, weak=weak) + _no_readers(study)
    if lacking:
        return [], lacking
    return [
        Pair("CheXseg minus weak", chexseg, weak),
        Pair("Radiologists minus weak", RADIOLOGISTS, weak),
    ], []


def above_radiologists(study: StudyArms) -> tuple[list[Pair], list[str]]:
    return _by_pathology(
        study, [name for name in study.results.pathologies if name in ABOVE_RADIOLOGISTS], 1
    )


def below_radiologists(study: StudyArms) -> tuple[list[Pair], list[str]]:
    return _by_pathology(
        study, [name for name in study.results.pathologies if name not in ABOVE_RADIOLOGISTS], -1
    )


def _by_pathology(
    study: StudyArms, names: Sequence[str], sign: int
) -> tuple[list[Pair], list[str]]:
    chexseg = study.role("chexseg")
    lacking = (
        _lacking(chexseg=chexseg)
        + _no_readers(study)
        + ([] if names else ["any of these pathologies"])
    )
    if lacking:
        return [], lacking
    places = [study.results.pathologies.index(name) for name in names]
    drawn = [k for k in places if study.measured(RADIOLOGISTS).patients_K[k]]
    if not drawn:
        return [], [f"an expert mask of {' or '.join(names)}"]
    texts = {k: f"{study.results.pathologies[k]}, CheXseg minus radiologists" for k in drawn}
    return [Pair(text, chexseg, RADIOLOGISTS, sign, k) for k, text in texts.items()], []


def _no_readers(study: StudyArms) -> list[str]:
    return [NO_READERS] if study.results.radiologists_IK3 is None else []


def _inits(candidates: Sequence[Arm]) -> list[str]:
    """Starts of the encoder in the order of `INITS`, then what else there is."""
    present = {arm.init for arm in candidates}
    return [init for init in INITS if init in present] + sorted(present - set(INITS))


def _largest(candidates: Sequence[Arm], setting: str) -> Arm | None:
    """Of those with the largest value the best on the selection images."""
    top = max((np.nan_to_num(getattr(arm, setting)) for arm in candidates), default=0)
    return by_selection([arm for arm in candidates if np.nan_to_num(getattr(arm, setting)) == top])


def _rest(arm: Arm) -> set[str]:
    """What else the study varies, but for the settings that a claim itself varies."""
    return {
        word
        for word in arm.other.split()
        if word.partition("=")[0].rpartition(".")[2] not in ("init", "weak_images")
    }


def _alike(one: Arm, other: Arm) -> bool:
    """Whether two arms differ in nothing but their kind of weak labels and their encoder's start."""
    numbers = all(
        study_tables.same(getattr(one, name), getattr(other, name))
        for name in ("p", "weak_images", "fraction", "epochs")
    )
    return numbers and one.method == other.method and _rest(one) == _rest(other)
