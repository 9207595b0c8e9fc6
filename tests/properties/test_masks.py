"""Properties of run-length masks and mask files, compared with pycocotools and plain NumPy."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from chexseg.data import chexlocalize
from chexseg.data.masks.areas import areas
from chexseg.errors import UserError
from chexseg.evaluation.hit_rate import covers
from chexseg.pathologies import ALIASES, PATHOLOGIES
from tests.properties.documents import json_values, one_line

sides = st.integers(1, 12)
masks = st.tuples(sides, sides).flatmap(lambda shape: arrays.arrays(bool, shape))
#: Runs, unset pixels first, of any length, 0 included.
runs = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum)


def digits(lengths: list[int]) -> str:
    """Return COCO's text of run lengths, written from its description alone."""
    text = ""
    for number, length in enumerate(lengths):
        value = length - lengths[number - 2] if number > 2 else length
        more = True
        while more:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text += chr(48 + low + 32 * more)
    return text


class Content:
    """A file in memory, as `remote_path.Readable`."""

    def __init__(self, content: bytes):
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return "masks.json"


@given(masks)
def test_a_mask_survives_and_is_what_pycocotools_reads(mask_HW):
    rle = chexlocalize.encode(mask_HW)
    assert np.array_equal(chexlocalize.decode(rle, "here"), mask_HW)
    assert np.array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), mask_HW)
    down_the_columns = mask_HW.ravel(order="F").tolist()
    lengths = [len(list(group)) for _, group in itertools.groupby(down_the_columns)]
    assert chexlocalize.run_lengths(rle["counts"]).tolist() == [0] * down_the_columns[0] + lengths
    assert rle["counts"] == digits([0] * down_the_columns[0] + lengths)
    for row, column in np.ndindex(mask_HW.shape):
        assert covers(chexlocalize.checked(rle, "here"), row, column) == mask_HW[row, column]


@given(runs, st.data())
def test_any_runs_that_fill_the_size_are_a_mask(lengths, data):
    pixels = sum(lengths)
    height = data.draw(st.sampled_from([n for n in range(1, pixels + 1) if pixels % n == 0]))
    rle = {"size": [height, pixels // height], "counts": digits(lengths)}
    expected = np.repeat([n % 2 == 1 for n in range(len(lengths))], lengths)
    mask_HW = chexlocalize.decode(rle, "here")
    assert np.array_equal(mask_HW.ravel(order="F"), expected)
    assert coco.area(chexlocalize.checked(rle, "here")) == expected.sum()


@given(st.text(max_size=30), st.tuples(sides, sides))
def test_any_text_is_a_mask_of_its_size_or_one_line(counts, size):
    try:
        mask_HW = chexlocalize.decode({"size": list(size), "counts": counts}, "here")
    except UserError as error:
        assert one_line(error, "here: ")
    else:
        assert mask_HW.shape == size


@given(st.dictionaries(st.text(min_size=1), st.dictionaries(st.sampled_from(PATHOLOGIES), masks)))
def test_a_mask_file_survives_or_an_id_is_refused(entries):
    entries = {name: entry for name, entry in entries.items() if entry}
    content = json.dumps(
        {
            image_id: {name: chexlocalize.encode(mask) for name, mask in entry.items()}
            for image_id, entry in entries.items()
        }
    )
    try:
        mask_file = chexlocalize.read(Content(content.encode()))
    except UserError as error:
        assert one_line(error, "masks.json: found the image id ")
        return
    assert list(mask_file) == list(entries)
    for image_id, entry in entries.items():
        for name, mask_HW in entry.items():
            rle = mask_file[image_id][name]
            assert np.array_equal(chexlocalize.decode(rle, "here"), mask_HW)


_RUN_LENGTHS = st.fixed_dictionaries(
    {
        "size": st.one_of(st.lists(st.integers(-1, 20), max_size=3), json_values),
        "counts": st.one_of(
            st.text(st.characters(min_codepoint=48, max_codepoint=112)), json_values
        ),
    }
)
documents = st.dictionaries(
    st.text(max_size=10),
    st.one_of(
        json_values,
        st.dictionaries(
            st.one_of(st.sampled_from([*PATHOLOGIES, *ALIASES, "Edemas"]), st.text()),
            st.one_of(_RUN_LENGTHS, json_values),
            max_size=3,
        ),
    ),
    max_size=4,
)


def check_document(content: bytes) -> None:
    """Check that a mask file's faults are one line each, and that what is left can be used."""
    mask_file, faults = chexlocalize.scan(Content(content))
    assert all(one_line(message, "masks.json: ") for _, message in faults)
    pixels, damaged = areas(mask_file)
    assert all(one_line(message, "masks.json: ") for message in damaged)
    assert len(pixels) + len(damaged) == sum(map(len, mask_file.values()))
    for (image_id, name), area in pixels.items():
        height, width = mask_file[image_id][name]["size"]
        assert 0 <= area <= height * width


@given(documents)
def test_any_document_is_a_mask_file_or_one_line_each(document: dict[str, Any]):
    check_document(json.dumps(document).encode())


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_mask_file_or_one_line(content):
    check_document(content)
