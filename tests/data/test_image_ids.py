"""Test matching of image ids: equal, equal but for the file's suffix, or an error."""

from __future__ import annotations

import pytest

from chexseg.data.masks.image_ids import match, without_suffix
from chexseg.errors import UserError


def test_ids_match_as_they_are_or_without_an_ending():
    truth = ["a", "b.png", "c", "1.2.840.3", "e"]
    matches = match(truth, ["a", "b", "c.JPG", "1.2.840.3.dcm", "f.jpeg"], "gt.json", "pred.json")
    assert matches.renamed == {"b": "b.png", "c.JPG": "c", "1.2.840.3.dcm": "1.2.840.3"}
    assert matches.missing == ("e",) and matches.unknown == ("f.jpeg",)
    assert matches.notes == (
        "pred.json: 3 image ids are matched without their suffixes (1.2.840.3.dcm is 1.2.840.3, "
        "...)",
    )


def test_equal_ids_need_no_note():
    matches = match(["a.jpg", "a.png"], ["a.png", "a.jpg"], "gt.json", "pred.json")
    assert matches.renamed == {} and not (matches.missing or matches.unknown or matches.notes)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (
            ["a", "b"],
            ["x/a", "x/b"],
            "pred.json: found no image of gt.json: its ids look like 'x/a'; expected: ids like 'a'",
        ),
        (["a"], [], "pred.json: found no image; expected: the images of gt.json"),
        ([], ["a"], "gt.json: found no image; expected: at least one"),
        (["a"], ["a", "a.jpg"], "pred.json: found 'a' and 'a.jpg' for 'a'; expected: one of them"),
        (
            ["a"],
            ["a.png", "a.jpg"],
            "pred.json: found 'a.png' and 'a.jpg' for 'a'; expected: one of them",
        ),
        (
            ["a.png", "a.jpg"],
            ["a"],
            "gt.json: found 'a.png' and 'a.jpg' for 'a' of pred.json; expected: one of them",
        ),
    ],
)
def test_what_cannot_be_matched_is_named(truth, predicted, message):
    with pytest.raises(UserError) as caught:
        match(truth, predicted, "gt.json", "pred.json")
    assert str(caught.value) == message


def test_only_an_image_s_ending_is_cut_off():
    assert [without_suffix(name) for name in ("a.tar.jpg", "a.jpg.TIFF", "v1.2", ".jpg")] == [
        "a.tar",
        "a.jpg",
        "v1.2",
        "",
    ]
