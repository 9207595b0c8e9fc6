"""Properties of CheXpert's CSV files: what Python's own csv module writes is read, or is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexseg.data import chexpert
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS
from tests.properties.documents import one_line
from tests.properties.test_masks import Content

FOLDER = Path("train")
#: Label as text -> value.
LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": np.nan, " ": np.nan}
names = st.from_regex(r"[\w. -]{0,8}[\w-]", fullmatch=True)
rows = st.tuples(names, names, st.lists(st.sampled_from(sorted(LABELS)), min_size=14, max_size=14))


def written(lines: list[list[str]], **style: object) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", **style).writerows(lines)  # type: ignore[arg-type]
    return file.getvalue().encode()


@given(
    st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: "_".join(row[:2])),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_table_survives(images, quoting):
    header = ["Path", *OBSERVATIONS]
    lines = [
        [f"CheXpert/train/{patient}/s/{name}.jpg", *labels] for patient, name, labels in images
    ]
    table = chexpert.read_csv(Content(written([header, *lines], quoting=quoting)), FOLDER)
    by_id = {f"{patient}_s_{name}": labels for patient, name, labels in images}
    assert table["image_id"].tolist() == sorted(by_id)
    for row in table.itertuples():
        labels = [LABELS[text] for text in by_id[row.image_id]]
        assert np.array_equal(table.loc[row.Index, [*OBSERVATIONS]].astype(float), labels, True)
        assert row.path == f"train/{lines_path(images, row.image_id)}"


def lines_path(images: list[tuple[str, str, list[str]]], image_id: str) -> str:
    (path,) = [
        f"{patient}/s/{name}.jpg"
        for patient, name, _ in images
        if f"{patient}_s_{name}" == image_id
    ]
    return path


def check_table(content: bytes) -> None:
    """Check that each fault of a table is one line, and that its usable rows are whole."""
    table, faults = chexpert.scan(Content(content), FOLDER)
    assert all(one_line(message, "masks.json: ") for _, message in faults)
    assert table["image_id"].is_unique and set(OBSERVATIONS) < set(table.columns)
    assert np.isin(table[[*OBSERVATIONS]].fillna(0), (-1, 0, 1)).all()
    assert not any(path.startswith("/") or "/../" in path for path in table["path"])


fields = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["CheXpert/train/p/s/i.jpg", "../../train/a/b/c", "nan", "1e400", '"', "0x1"]),
)


@given(st.lists(st.lists(fields, max_size=16), max_size=4))
def test_any_fields_are_a_table_or_one_line_each(lines):
    check_table(written([["Path", *OBSERVATIONS], *lines]))


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_table_or_one_line(content):
    check_table(content)


def test_the_longest_row(tmp_path):
    """A row of pyarrow's block size or more ended in its advice about blocks."""
    header = written([["Path", *OBSERVATIONS]])
    with pytest.raises(UserError, match=r"row 2: found 3,000,000 bytes; at most 100,000\)"):
        chexpert.read_csv(Content(header + b"a" * 3_000_000), FOLDER)
