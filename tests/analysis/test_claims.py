"""Test each claim's verdict: true, false or undecided; which arms are compared; missing arms."""

from __future__ import annotations

import dataclasses
import itertools
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import PAIRS
from chexseg.analysis.claims.verdicts import (
    CONTRADICTED,
    NO_DATA,
    REPRODUCED,
    UNDECIDED,
    Claim,
    claims_rows,
)
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from chexseg.config.study import Reproduced
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.page.overview import summary
from tests.report.rendered import publish, sections

PIXELS, PATIENTS = 10_000, 40


def claims(study: StudyResults) -> tuple[Claim, ...]:
    return analyse(study).claims


def counts_IK3(iou_IK: np.ndarray) -> np.ndarray:
    """Return counts with these IoUs, of masks of `PIXELS` pixels."""
    intersection_IK = np.round(2 * PIXELS * iou_IK / (1 + iou_IK)).astype(np.int64)
    return np.stack(
        [
            intersection_IK,
            np.full_like(intersection_IK, PIXELS),
            np.full_like(intersection_IK, PIXELS),
        ],
        axis=-1,
    )


def study(
    arms: list[dict],
    names=("Edema", "Atelectasis"),
    draws=3,
    trials=1,
    noise=0.004,
    radiologists=None,
) -> StudyResults:
    """Return a study of arms with the mIoU `iou`.

    Trials and images scatter by `noise`; images scatter equally in all arms. Each arm has stages of
    its own before its fits.
    """
    generator = np.random.default_rng(3)
    images_I1 = generator.normal(0, 0.03, (PATIENTS, 1))
    rows, counts = [], []
    for arm in arms:
        for draw, trial in itertools.product(range(draws), range(arm.get("trials", trials))):
            iou_IK = (
                arm["iou"]
                + images_I1
                + generator.normal(0, noise)
                + generator.normal(0, noise, (PATIENTS, len(names)))
            )
            counts.append(counts_IK3(np.clip(iou_IK, 0.01, 0.99)))
            row = {
                "method": "weak",
                "weak": "cam",
                "p": 0.0,
                "init": "chexpert",
                "weak_images": 100,
                "fraction": np.nan,
            }
            row |= (
                {"epochs": 20, "other": "", "selection_miou": arm["iou"], "steps": 60.0}
                | {"upstream": f"{arms.index(arm)} {draw}"}
                | arm
                | {"draw": draw, "trial": trial}
            )
            rows.append(row | {"cell": f"{len(rows):064x}", "name": f"cell {len(rows)}"})
    readers = (
        None
        if radiologists is None
        else counts_IK3(np.broadcast_to(radiologists, (PATIENTS, len(names))) + images_I1)
    )
    return StudyResults(
        reproduces=get_args(Reproduced),
        name="made",
        title="Made",
        pathologies=tuple(names),
        image_ids=tuple(f"patient{n}_study1_view1_frontal" for n in range(PATIENTS)),
        cells=pd.DataFrame(rows),
        counts_CIK3=np.stack(counts),
        missing=pd.DataFrame(columns=["name", "state", "reason"]),
        stages=pd.DataFrame(columns=["stage", "key", "seconds", "host", "settings"]),
        radiologists_IK3=readers,
    )


def weak(iou, **settings):
    return {"iou": iou, **settings}


def mixed(iou, p=0.9, **settings):
    return {"iou": iou, "method": "mixed", "p": p, **settings}


def full(iou, **settings):
    return {"iou": iou, "method": "full", "p": 1.0, "weak": None, "weak_images": 0, **settings}


def student(iou, fraction=0.1, **settings):
    return full(iou, method="student", fraction=fraction, **settings)


def verdict(name: str, *arms, **settings):
    return next(claim for claim in claims(study(list(arms), **settings)) if claim.name == name)


def first_arms(name: str, *arms) -> list[Arm]:
    """Return the first arm of each pair that a claim compares."""
    return [pair.first for pair in PAIRS[name](score(study(list(arms))))[0]]


OTHERS = ("random", "imagenet", "moco")
CASES = {
    "order": [
        (REPRODUCED, (weak(0.15), full(0.26), mixed(0.30))),
        (CONTRADICTED, (weak(0.15), full(0.30), mixed(0.26))),
        (UNDECIDED, (weak(0.15), full(0.28), mixed(0.281))),
    ],
    "inverted-u": [
        (
            REPRODUCED,
            [arm for k in ("cam", "irnet") for arm in (weak(0.15, weak=k), mixed(0.30, weak=k))]
            + [full(0.26)],
        ),
        (CONTRADICTED, (weak(0.15), mixed(0.25, p=0.4), mixed(0.27), full(0.31))),
        (UNDECIDED, (weak(0.15), mixed(0.281), full(0.28))),
    ],
    "student": [
        (
            REPRODUCED,
            [
                f
                for init in ("random", "chexpert")
                for f in (full(0.26, init=init), student(0.29, init=init))
            ],
        ),
        (
            CONTRADICTED,
            (full(0.26), student(0.29), full(0.26, init="moco"), student(0.22, init="moco")),
        ),
        (UNDECIDED, (full(0.26), student(0.261))),
    ],
    "student-below": [
        (REPRODUCED, (student(0.26), mixed(0.30))),
        (CONTRADICTED, (student(0.30), mixed(0.26))),
        (UNDECIDED, (student(0.26), mixed(0.261))),
    ],
    "init": [
        (REPRODUCED, [full(0.30), *(full(0.25, init=init) for init in OTHERS)]),
        (CONTRADICTED, [full(0.25), *(full(0.30, init=init) for init in OTHERS)]),
        (UNDECIDED, [full(0.25), *(full(0.249, init=init) for init in OTHERS)]),
    ],
    "irnet": [
        (
            REPRODUCED,
            (
                weak(0.14),
                weak(0.16, weak="irnet"),
                weak(0.14, init="moco"),
                weak(0.12, weak="irnet", init="moco"),
            ),
        ),
        (
            CONTRADICTED,
            (
                weak(0.14),
                weak(0.16, weak="irnet"),
                weak(0.1, init="moco"),
                weak(0.2, weak="irnet", init="moco"),
            ),
        ),
        (
            UNDECIDED,
            (
                weak(0.14),
                weak(0.141, weak="irnet"),
                weak(0.14, init="moco"),
                weak(0.1, weak="irnet", init="moco"),
            ),
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "wanted", "arms"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_verdicts_are_what_the_study_was_made_to_show(name, wanted, arms):
    claim = verdict(name, *arms)
    assert claim.verdict == wanted, claim.because
    assert len(claim.comparisons) and not claim.lacking


@pytest.mark.parametrize(
    ("wanted", "iou", "readers"),
    [
        (REPRODUCED, 0.29, 0.35),  # 70%
        (CONTRADICTED, 0.19, 0.35),  # 20%
        (CONTRADICTED, 0.14, 0.10),  # no gap
        (UNDECIDED, 0.151, 0.152),  # no significant gap
    ],
)
def test_the_gap_closed_is_judged_by_its_interval(wanted, iou, readers):
    claim = verdict("gap", weak(0.15), mixed(iou), radiologists=readers)
    assert claim.verdict == wanted, claim.because
    if wanted == REPRODUCED:
        assert claim.share.mean == pytest.approx(0.7, abs=0.05)
        assert "Of the published shares 71.6% is in this interval." in claim.because


def test_pathologies_are_compared_with_the_radiologists_one_by_one():
    above = np.array(
        [
            0.2 if name in ("Atelectasis", "Airspace Opacity", "Pleural Effusion") else 0.4
            for name in PATHOLOGIES
        ]
    )
    for readers, verdicts in (
        (above, (REPRODUCED, REPRODUCED)),
        (0.6 - above, (CONTRADICTED, CONTRADICTED)),
    ):
        made = study([mixed(0.3)], PATHOLOGIES, radiologists=readers)
        by_name = {claim.name: claim for claim in claims(made)}
        assert (
            by_name["above-radiologists"].verdict,
            by_name["below-radiologists"].verdict,
        ) == verdicts
        assert [
            len(by_name[name].comparisons) for name in ("above-radiologists", "below-radiologists")
        ] == [3, 7]


def test_a_pathology_without_an_expert_mask_is_not_compared():
    made = study([mixed(0.3)], ("Edema", "Lung Lesion", "Atelectasis"), radiologists=0.4)
    made.counts_CIK3[:, :, 1, ::2] = 0
    made.radiologists_IK3[:, 1, ::2] = 0
    by_name = {claim.name: claim for claim in claims(made)}
    compared = by_name["below-radiologists"].comparisons["comparison"].tolist()
    assert compared == ["Edema, CheXseg minus radiologists"]


def test_nothing_is_chosen_on_the_test_set():
    """Check with an arm that is best on the test set and worst on the selection images."""
    claim = verdict(
        "order",
        weak(0.15),
        full(0.26),
        mixed(0.22, selection_miou=0.5),
        mixed(0.40, p=0.5, selection_miou=0.1),
    )
    assert claim.verdict == CONTRADICTED
    chosen = first_arms(
        "inverted-u",
        weak(0.15),
        full(0.26),
        mixed(0.22, selection_miou=0.5),
        mixed(0.4, p=0.5, selection_miou=0.1),
    )
    assert {arm.p for arm in chosen} == {0.9}


def test_of_several_numbers_of_images_the_largest_is_taken():
    arms = [
        weak(0.3 if n == 100 else 0.1, init=i, weak_images=n, other=f"init={i} weak_images={n}")
        for i in ("chexpert", "random")
        for n in (100, 2000)
    ]
    assert [arm.weak_images for arm in first_arms("init", *arms)] == [2000]
    chosen = first_arms("student", full(0.26), student(0.2, 0.1), student(0.3, 0.25))
    assert [arm.fraction for arm in chosen] == [0.25]


def test_too_few_images_for_the_papers_claim_are_no_evidence_against_it():
    assert verdict("student", full(0.26), student(0.2, 0.01)).verdict == NO_DATA
    random = {"init": "random"}
    assert (
        verdict("student", full(0.26, **random), student(0.2, 0.01, **random)).verdict
        == CONTRADICTED
    )


def test_arms_that_differ_in_more_are_not_compared():
    assert (
        verdict("init", full(0.3, epochs=20), full(0.2, epochs=10, init="random")).verdict
        == NO_DATA
    )
    assert verdict("student", full(0.2, init="moco"), student(0.3)).verdict == NO_DATA


@pytest.mark.parametrize("number", [1, 2])
def test_two_trials_give_points_and_no_verdict(number):
    made = study([weak(0.15), full(0.26), mixed(0.30)], draws=1, trials=number, radiologists=0.35)
    by_name = {claim.name: claim for claim in claims(made)}
    assert by_name["order"].verdict == by_name["gap"].verdict == UNDECIDED
    assert f"({number} trial{'s'[: number - 1]}, a test needs 3)" in by_name["order"].because
    rows = by_name["order"].comparisons
    assert rows["difference"].notna().all()
    assert rows[["difference low", "difference high", "P"]].isna().all(axis=None)


def test_fewer_than_60_steps_give_no_verdict():
    claim = verdict("order", weak(0.15, steps=59.0), full(0.26), mixed(0.30))
    assert claim.comparisons["reason"].iloc[0] == "59 optimiser steps, a test needs 60"
    assert claim.verdict == UNDECIDED and claim.comparisons["verdict"].iloc[1] == REPRODUCED


def test_one_draw_decides_nothing_between_arms_with_other_stages_before_them():
    arms = weak(0.15), full(0.26), mixed(0.30)
    claim = verdict("order", *arms, draws=1, trials=5)
    assert claim.verdict == UNDECIDED and claim.comparisons["P"].max() < 0.01
    assert "given one classifier, encoder and split" in claim.because
    same = [{**arm, "upstream": "a classifier"} for arm in arms]
    assert verdict("order", *same, draws=1, trials=5).verdict == REPRODUCED
    share = verdict("gap", *same, draws=1, trials=5, radiologists=0.32)
    assert share.verdict == UNDECIDED and "given one classifier" in share.because


def test_a_reproduced_claim_needs_no_correction_and_a_contradicted_one_does():
    names = ("random", "imagenet", "moco")
    found = verdict("init", full(0.26), *(full(0.2435, init=init) for init in names), noise=0.006)
    rows = found.comparisons
    assert rows["P"].max() < 0.05 < 3 * rows["P"].max()
    assert found.verdict == REPRODUCED
    found = verdict("init", full(0.2435), *(full(0.26, init=init) for init in names), noise=0.006)
    rows = found.comparisons
    assert (1 - rows["P"]).max() < 0.05 < rows["P against"].min()
    assert found.verdict == UNDECIDED


def test_the_published_difference_is_in_the_interval_or_not():
    made = study([weak(0.15), full(0.26), mixed(0.30)], PATHOLOGIES)
    by_name = {claim.name: claim for claim in claims(made)}
    rows = by_name["order"].comparisons
    # Of Table 1: the means of its rows, with 100 weak images.
    assert rows["published"].tolist() == pytest.approx([0.2633 - 0.1631, 0.2986 - 0.2633])
    assert "published +0.035, in the interval" in by_name["order"].because
    made = study([weak(0.15), full(0.36), mixed(0.40)], PATHOLOGIES)
    assert "published +0.100, not in the interval" in claims(made)[0].because
    made = study([weak(0.15, weak_images=20_000), full(0.26), mixed(0.30)], PATHOLOGIES)
    # Table 2's weak arm beside Table 1's full one: as the paper prints the three roles.
    assert claims(made)[0].comparisons["published"].iloc[0] == pytest.approx(0.263 - 0.156)
    # A study of other pathologies has other means.
    assert (
        verdict("order", weak(0.15), full(0.26), mixed(0.3)).comparisons["published"].isna().all()
    )


def test_the_sign_and_the_p_value_are_of_the_same_trials():
    """Two trials of an arm that the other lacks would turn the difference of the means around."""
    made = study([full(0.26), weak(0.15), mixed(0.30)])
    extra = made.cells[made.cells["method"] == "full"].iloc[:2].assign(trial=1)
    more = pd.concat([made.cells, extra.assign(cell=["x" * 64, "y" * 64])], ignore_index=True)
    high = np.stack([counts_IK3(np.full((PATIENTS, 2), 0.9))] * 2)
    unbalanced = dataclasses.replace(
        made, cells=more, counts_CIK3=np.concatenate([made.counts_CIK3, high])
    )
    row = claims(unbalanced)[0].comparisons.iloc[1]
    assert row["first"] < row["second"] and row["difference"] > 0 and row["P"] < 0.05


def test_what_is_lacking_is_named():
    by_name = {claim.name: claim for claim in claims(study([full(0.26)]))}
    assert all(claim.verdict == NO_DATA for claim in by_name.values())
    assert by_name["order"].lacking == ("weak (p = 0)", "mixed (0 < p < 1)")
    assert "the radiologists’ masks" in by_name["gap"].lacking
    assert "CheXpert’s encoder" in by_name["irnet"].because
    assert (
        summary(list(by_name.values()))
        == f"Of {len(PAIRS)} claims of the paper: {len(PAIRS)} without data here."
    )


def test_holm_is_over_the_comparisons_of_a_claim():
    claim = verdict(
        "init", full(0.26), *(full(0.255 - n / 500, init=init) for n, init in enumerate(OTHERS))
    )
    against, adjusted = 1 - claim.comparisons["P"], claim.comparisons["P against"]
    assert len(against) == 3 and min(adjusted) == pytest.approx(min(1, 3 * min(against)))
    assert max(adjusted) >= max(against)


def test_rows_hold_every_comparison_and_every_claim():
    made = study([weak(0.15), full(0.26), mixed(0.30)], radiologists=0.35)
    rows = claims_rows(claims(made))
    assert set(rows["claim"]) == set(PAIRS)
    order = rows[rows["claim"] == "order"]
    assert order["difference"].tolist() == pytest.approx(
        (order["first"] - order["second"]).tolist()
    )
    assert order["relative"].iloc[1] == pytest.approx(0.30 / 0.26 - 1, abs=0.03)
    assert rows.loc[rows["verdict"] == NO_DATA, "reason"].str.startswith("It needs").all()
    assert rows["place"].str.contains("paper").all()


def test_the_page_begins_with_the_claims(tmp_path):
    made = study([weak(0.15), full(0.26), mixed(0.30)], radiologists=0.35)
    written = publish([made], tmp_path)
    text = written.page.read_text()
    assert text.index('id="made--claims"') < text.index('id="made--result"')
    assert {"made-claims.csv"} <= {path.name for path in written.files}
    section = sections(made)["Claims"]
    assert (
        "reproduced" in section
        and "71.6%; poster: 57.2%" in section
        and "Claims without data here" in section
    )


def test_verdicts_do_not_depend_on_the_order_of_cells():
    made = study([weak(0.15), full(0.26), mixed(0.30)], radiologists=0.35)
    turned = dataclasses.replace(made, cells=made.cells[::-1], counts_CIK3=made.counts_CIK3[::-1])
    assert [claim.verdict for claim in claims(made)] == [claim.verdict for claim in claims(turned)]
