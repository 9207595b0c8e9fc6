"""Test how `chexseg compare` reads the names of its sides; tests/report/test_compare.py the rest."""

from __future__ import annotations

import pytest

from chexseg.analysis import comparison_sides
from chexseg.errors import UserError
from chexseg.plan import selection
from chexseg.store.store import Store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a#1/s#2.yaml", ("a#1/s#2.yaml", "")),
        ("a#1/s#2.yaml#cam p=0.5", ("a#1/s#2.yaml", "cam p=0.5")),
        ("a#1/s#2.yaml#a#b", ("a#1/s#2.yaml", "a#b")),
        ("a#1/missing.yaml", ("a#1/missing.yaml", "")),
        ("a#1/missing.yaml#full", ("a#1/missing.yaml", "full")),
        ("#", ("#", "")),
    ],
)
def test_a_path_may_contain_the_sign_before_a_cell(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a#1").mkdir()
    (tmp_path / "a#1" / "s#2.yaml").touch()
    assert selection.study_and_cell(text) == expected
    with pytest.raises(
        UserError, match=f"^--data: missing; expected: the data root of {expected[0]}$"
    ):
        comparison_sides.read((text, text), None, Store(tmp_path), gt=tmp_path)
