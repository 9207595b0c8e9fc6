"""Choose the arms of a study that each of the paper's claims compares, without the test set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chexseg.analysis import published
from chexseg.analysis.arms import Arm, by_selection, equal
from chexseg.analysis.published import (
    ABOVE_RADIOLOGISTS,
    AVERAGE,
    HEADLINES,
    IMPLIED_STUDENTS,
    METHODS,
    PAPERS_METHODS,
    implied_radiologists,
)
from chexseg.analysis.study_scores import RADIOLOGISTS, StudyScores

#: Minimum share of the training images at which the paper's students surpass their teachers
#: (section 4.2); 1% for encoders that aren't listed.
ENOUGH = {"chexpert": 0.1}
INITS = {"random": "random", "imagenet": "ImageNet", "moco": "MoCo", "chexpert": "CheXpert"}


@dataclass(frozen=True)
class Pair:
    """Two arms with the sign that the paper claims for the first minus the second.

    k: index of a pathology, or -1 for the mIoU. published: the first minus the second in the paper,
    NaN if it prints none or the study has other pathologies.
    """

    text: str
    first: Arm | str
    second: Arm | str
    sign: int = 1
    k: int = -1
    published: float = np.nan


#: Role -> its text where a study lacks it.
ROLES = {
    "weak": "weak (p = 0)",
    "full": "full (p = 1)",
    "chexseg": "mixed (0 < p < 1)",
    "student": "students",
    RADIOLOGISTS: "the radiologists’ masks",
}

#: The pairs that a claim compares, and the arms that the study lacks for it.
Choice = tuple[list[Pair], list[str]]


def _roles(scores: StudyScores, names: Iterable[str]) -> tuple[dict[str, Arm | str], list[str]]:
    """Return (role -> arm, for the roles that have one; the texts of the other roles)."""
    readers = None if scores.results.radiologists_IK3 is None else RADIOLOGISTS
    arms = {name: readers if name == RADIOLOGISTS else scores.role(name) for name in names}
    present = {name: arm for name, arm in arms.items() if arm is not None}
    return present, [text for name, text in ROLES.items() if name in arms and name not in present]


def of_roles(scores: StudyScores, steps: Mapping[str, tuple[str, str]]) -> Choice:
    """Pair arms in the paper's roles. steps: text -> the first role and the second."""
    arms, lacking = _roles(scores, itertools.chain(*steps.values()))
    if lacking:
        return [], lacking
    return [
        Pair(text, arms[first], arms[second], published=_published(scores, arms, first, second))
        for text, (first, second) in steps.items()
    ], []


def _published(
    scores: StudyScores, arms: Mapping[str, Arm | str], first: str, second: str
) -> float:
    """Return the paper's difference of two arms, or else of their roles."""
    of_arms = printed_difference(scores, arms[first], arms[second])
    return _of_roles(scores, first, second) if np.isnan(of_arms) else of_arms


def _of_roles(scores: StudyScores, first: str, second: str) -> float:
    """Return the paper's mIoU of the first role minus the second's, as it prints both."""
    if not scores.all_ten:
        return np.nan
    values = {**HEADLINES, "student": IMPLIED_STUDENTS["6.65% below CheXseg"]}
    values[RADIOLOGISTS] = implied_radiologists()
    return values[first] - values[second]


def printed_difference(
    scores: StudyScores, first: Arm | str, second: Arm | str, task: str = AVERAGE
) -> float:
    """Return the paper's difference of two arms; NaN if its tables lack one, or for other means.

    Of Table 1, whose average is the mean of its rows, so that the pathologies' parts add up to it.
    Of Table 2 for weak arms of other numbers of images.
    """
    if not (isinstance(first, Arm) and isinstance(second, Arm) and scores.all_ten):
        return np.nan
    pairs = [_of_table1, _of_table2] if task == AVERAGE else [_of_table1]
    for look_up in pairs:
        one, other = look_up(first, task), look_up(second, task)
        if one is not None and other is not None:
            return one - other
    return np.nan


def _of_table1(arm: Arm, task: str) -> float | None:
    """Return Table 1's IoU of an arm. It has CheXpert's encoder and 100 weak images."""
    if arm.method == "student" or arm.init != "chexpert" or arm.weak_images not in (0, 100):
        return None
    if task != AVERAGE:
        return published.table1(task, arm.weak or "full", arm.p)
    return published.mean_of_rows(arm.weak or "full", arm.p)


def _of_table2(arm: Arm, task: str) -> float | None:
    """Return Table 2's mIoU of a weak arm."""
    entry = published.table2(arm.weak, arm.init, int(arm.weak_images)) if arm.weak else None
    return entry and entry[0]


def inverted_u(scores: StudyScores) -> Choice:
    """Pair the best mixture by selection with p = 0 and p = 1, for each kind of weak labels.

    As in Figure 2, the pairs are of the first variant that has the curve.
    """
    pairs, lacking = [], ["weak (p = 0), mixed and full (p = 1) with the same encoder"]
    for variant in scores.variants:
        for weak in PAPERS_METHODS:
            chosen = [arm for arm in variant.arms if arm.weak == weak or arm.method == "full"]
            low, high, between = (
                by_selection([arm for arm in chosen if arm.method == method])
                for method in ("weak", "full", "mixed")
            )
            if between and low and high:
                pairs += [
                    Pair(
                        f"{METHODS[weak]}, p = {between.p:g} minus p = {end.p:g}",
                        between,
                        end,
                        published=printed_difference(scores, between, end),
                    )
                    for end in (low, high)
                ]
        if pairs:
            return pairs, []
    return [], lacking


def students(scores: StudyScores) -> Choice:
    """Pair, for each encoder, the student of the most images with its teacher.

    Students of fewer images than the paper's claim needs (`ENOUGH`) are left out.
    """
    pairs = []
    for init in _inits(scores.of("student")):
        student = _largest([arm for arm in scores.of("student") if arm.init == init], "fraction")
        if student is None or student.fraction < ENOUGH.get(init, 0.01):
            continue
        teachers = [
            arm for arm in scores.of("full") if arm.init == init and _rest(arm) <= _rest(student)
        ]
        same = [arm for arm in teachers if equal(arm.epochs, student.epochs)]
        teacher = by_selection(same or teachers)
        if teacher is not None:
            text = f"{INITS.get(init, init)}, student of {100 * student.fraction:g}% minus teacher"
            printed = np.nan
            if init == "chexpert" and scores.all_ten:
                printed = IMPLIED_STUDENTS["1.69% above its teacher"] - HEADLINES["full"]
            pairs.append(Pair(text, student, teacher, published=printed))
    return pairs, [] if pairs else [
        "students of 1% (CheXpert’s encoder: 10%) and their teachers (p = 1)"
    ]


def inits(scores: StudyScores) -> Choice:
    """Pair CheXpert's encoder with each other one, for each method.

    The arms have the most weak images, or for students the most training images.
    """
    pairs = []
    for method, weak in (
        ("full", None),
        *(("weak", kind) for kind in PAPERS_METHODS),
        ("student", None),
    ):
        candidates = scores.of(method, weak)
        best = _largest(
            [arm for arm in candidates if arm.init == "chexpert"],
            "fraction" if method == "student" else "weak_images",
        )
        if best is None:
            continue
        name = METHODS[weak] if weak else method
        for init in _inits(candidates):
            other = by_selection(
                [arm for arm in candidates if arm.init == init and _common(arm) == _common(best)]
            )
            if init != "chexpert" and other is not None:
                text = f"{name}, CheXpert minus {INITS.get(init, init)}"
                printed = printed_difference(scores, best, other)
                pairs.append(Pair(text, best, other, published=printed))
    return pairs, [] if pairs else ["one method with CheXpert’s encoder and with another"]


def irnet_and_cam(scores: StudyScores) -> Choice:
    """Pair IRNet with CAM at p = 0 for each encoder, with the most weak images that both have."""
    pairs, compared = [], set()
    for init in _inits(scores.of("weak")):
        cams = [arm for arm in scores.of("weak", "cam") if arm.init == init]
        irnets = [arm for arm in scores.of("weak", "irnet") if arm.init == init]
        of_cams = {_common(cam) for cam in cams}
        irnet = _largest([arm for arm in irnets if _common(arm) in of_cams], "weak_images")
        cam = by_selection([arm for arm in cams if irnet and _common(arm) == _common(irnet)])
        if irnet and cam:
            compared.add(init)
            sign = 1 if init == "chexpert" else -1
            text = f"{INITS.get(init, init)}, IRNet minus CAM"
            printed = printed_difference(scores, irnet, cam)
            pairs.append(Pair(text, irnet, cam, sign, published=printed))
    lacking = [] if "chexpert" in compared else ["CAM and IRNet at p = 0 with CheXpert’s encoder"]
    lacking += [] if compared - {"chexpert"} else ["CAM and IRNet at p = 0 with another encoder"]
    return pairs, lacking


def by_pathology(scores: StudyScores, above: bool) -> Choice:
    """Pair CheXseg with the radiologists on the pathologies on which it is claimed to be better.

    If `above` is false, on the others, on which it is claimed to be worse.
    """
    names = [n for n in scores.results.pathologies if (n in ABOVE_RADIOLOGISTS) == above]
    arms, lacking = _roles(scores, ["chexseg", RADIOLOGISTS])
    if lacking := lacking + ([] if names else ["any of these pathologies"]):
        return [], lacking
    drawn_K = np.asarray(scores.results.radiologists_IK3)[..., 2].sum(axis=0)
    sign = 1 if above else -1
    pairs = [
        Pair(
            f"{name}, CheXseg minus radiologists",
            arms["chexseg"],
            RADIOLOGISTS,
            sign,
            k,
            published.above_radiologists(name),
        )
        for k, name in enumerate(scores.results.pathologies)
        if name in names and drawn_K[k]
    ]
    return pairs, [] if pairs else [f"an expert mask of {' or '.join(names)}"]


def _inits(candidates: Sequence[Arm]) -> list[str]:
    """Return the starts of encoders in the order of `INITS`, then the others."""
    present = {arm.init for arm in candidates}
    return [init for init in INITS if init in present] + sorted(present - set(INITS))


def _largest(candidates: Sequence[Arm], setting: str) -> Arm | None:
    """Return, among the arms with the largest value of a setting, the best by selection."""
    top = max((np.nan_to_num(getattr(arm, setting)) for arm in candidates), default=0)
    return by_selection([arm for arm in candidates if np.nan_to_num(getattr(arm, setting)) == top])


def _rest(arm: Arm) -> set[str]:
    """Return an arm's other varied settings, without those that claims vary themselves."""
    return {
        word
        for word in arm.other.split()
        if word.partition("=")[0].rpartition(".")[2] not in ("init", "weak_images")
    }


def _common(arm: Arm) -> tuple[object, ...]:
    """Return all settings of an arm but its kind of weak labels and its encoder."""
    numbers = (arm.p, arm.weak_images, arm.fraction, arm.epochs)
    # NaN doesn't equal itself.
    defined = (None if np.isnan(number) else number for number in numbers)
    return (arm.method, *defined, frozenset(_rest(arm)))


#: Comparisons of the claims on arms in the paper's roles: text -> the first role and the second.
ORDER = {"Full minus weak": ("full", "weak"), "CheXseg minus full": ("chexseg", "full")}
BEST_STUDENT = {"CheXseg minus the best student": ("chexseg", "student")}
GAP = {
    "CheXseg minus weak": ("chexseg", "weak"),
    "Radiologists minus weak": (RADIOLOGISTS, "weak"),
}
#: Claim -> function that chooses the arms to compare.
PAIRS: dict[str, Callable[[StudyScores], Choice]] = {
    "order": partial(of_roles, steps=ORDER),
    "inverted-u": inverted_u,
    "student": students,
    "student-below": partial(of_roles, steps=BEST_STUDENT),
    "init": inits,
    "irnet": irnet_and_cam,
    "gap": partial(of_roles, steps=GAP),
    "above-radiologists": partial(by_pathology, above=True),
    "below-radiologists": partial(by_pathology, above=False),
}
