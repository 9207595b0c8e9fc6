"""Check that the paper's published figures agree with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chexseg.analysis import published
from chexseg.analysis.published import AVERAGE, table1, table2
from chexseg.pathologies import PATHOLOGIES


@pytest.mark.parametrize("method", ["cam", "irnet"])
@pytest.mark.parametrize("p", [*published.TABLE1_P, 1])
def test_printed_average_is_the_mean_of_the_printed_rows(method, p):
    mean = np.mean([table1(name, method, p) for name in PATHOLOGIES])
    # The paper's rounding is off by 0.002 in one column (CAM, p = 0.6). A mistyped digit would show
    # as 0.001 x 10.
    assert table1("Avg. IoU", method, p) == pytest.approx(
        mean, abs=0.0021 if (method, p) == ("cam", 0.6) else 6e-4
    )


def test_table1_looks_up_what_the_paper_prints():
    assert table1("Avg. IoU", "CAM", 0.9) == 0.299
    assert table1("Lung Lesion", "irnet", 0.4) == 0.0508
    assert table1("Edema", "cam", 1) == table1("Edema", "irnet", 1.0) == 0.248
    assert table1("Edema", "cam", 0.5) is None
    assert table1("Fracture", "cam", 0) is None
    assert table1("Edema", "gradcam", 0) is None


def test_average_of_some_pathologies_is_theirs():
    assert table1(AVERAGE, "cam", 0, ["Edema", "Cardiomegaly"]) == pytest.approx(
        (0.176 + 0.325) / 2
    )
    assert table1(AVERAGE, "cam", 0.6, PATHOLOGIES[::-1]) == 0.273
    assert table1(AVERAGE, "cam", 0.5, ["Edema"]) is None


def test_table_2_has_its_values_alone():
    assert table2("CAM", "moco", 2000) == (0.133, 0.00002)
    assert table2("cam", "moco", 5) is None


def test_gap_closed_follows_from_the_headlines():
    """Check that paper and poster imply the same mIoU of the radiologists."""
    implied = []
    for prefix in ("", "poster "):
        value = {
            name: published.HEADLINES[prefix + name]
            for name in ("chexseg", "weak", "gap to radiologists closed")
        }
        implied.append(
            value["weak"]
            + (value["chexseg"] - value["weak"]) / value["gap to radiologists closed"] * 100
        )
    assert implied == pytest.approx([0.356, 0.355], abs=5e-4)


def test_what_the_papers_own_numbers_imply():
    """13.4% follows from the rows of Table 1; two runs of one setting differ by 0.004."""
    ratio = published.mean_of_rows("cam", 0.9) / published.mean_of_rows("cam", 1)
    assert 100 * (ratio - 1) == pytest.approx(13.4, abs=0.05)
    assert published.noise() == pytest.approx(0.004, abs=0.0005)
    assert published.printed_twice() == {"cam": (0.163, 0.129), "irnet": (0.151, 0.125)}
    students = [round(value, 4) for value in published.IMPLIED_STUDENTS.values()]
    assert students == [0.2757, 0.2674, 0.2791]
    assert published.implied_radiologists() == pytest.approx(0.356, abs=0.0005)
    assert published.implied_radiologists("poster ") == pytest.approx(0.355, abs=0.0005)
    # 165% above the radiologists: Table 1's 0.324 over 2.65.
    assert published.above_radiologists("Atelectasis") == pytest.approx(0.324 - 0.324 / 2.65)
    assert math.isnan(published.above_radiologists("Edema"))
