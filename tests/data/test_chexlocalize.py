"""Test mask files: round trips, damage refused before it reaches C, and the published files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from chexseg.data import chexlocalize, chexpert, images
from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES, observation

BESIDE = Path(__file__).resolve().parents[2].parent / "shared"
SHAPES = [(1, 1), (1, 7), (9, 1), (16, 16), (33, 20), (128, 161)]


def random_masks(seed: int) -> list[np.ndarray]:
    """Return noise of all densities, discs, and masks without an edge, at each of the shapes."""
    generator = np.random.default_rng(seed)
    out = []
    for height, width in SHAPES:
        out += [generator.random((height, width)) < density for density in (0, 0.01, 0.3, 0.9, 1)]
        y, x = np.mgrid[:height, :width]
        out.append((y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 3) ** 2)
    return out


def document(**changes) -> dict:
    return {
        "patient1_study1_view1_frontal": {
            "Edema": chexlocalize.encode(np.eye(4, dtype=bool)) | changes
        }
    }


def write(path, content) -> object:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_masks_round_trip(seed):
    for mask_HW in random_masks(seed):
        rle = chexlocalize.encode(mask_HW)
        assert rle["size"] == list(mask_HW.shape) and isinstance(rle["counts"], str)
        assert chexlocalize.run_lengths(rle["counts"]).sum() == mask_HW.size
        decoded_HW = chexlocalize.decode(rle, "here")
        assert decoded_HW.dtype == bool and np.array_equal(decoded_HW, mask_HW)


def test_the_runs_are_those_of_coco_written_out():
    mask_HW = np.zeros((3, 5), dtype=bool)
    mask_HW[1:, 1] = mask_HW[0, 2] = mask_HW[2, 4] = (
        True  # column by column: 4 off, 3 on, 7 off, 1 on
    )
    assert (
        chexlocalize.encode(mask_HW)["counts"] == "437N"
    )  # the fourth run is stored as 1 - 3 = -2: digit 30


def test_files_round_trip_with_images_and_pathologies(tmp_path):
    masks = {
        f"image{n}": {name: mask for name in PATHOLOGIES[n : n + 3]}
        for n, mask in enumerate(random_masks(5)[-6:])
    }
    chexlocalize.write(tmp_path / "masks.json", masks)
    mask_file = chexlocalize.read(tmp_path / "masks.json")
    assert list(mask_file) == list(masks) and len(mask_file) == len(masks)
    for image_id, entry in masks.items():
        found_KHW = mask_file.masks(image_id)
        assert found_KHW.shape == (len(PATHOLOGIES), *mask_file.size(image_id))
        for name, mask_HW in zip(PATHOLOGIES, found_KHW, strict=True):
            assert np.array_equal(mask_HW, entry.get(name, np.zeros_like(mask_HW)))
        chosen = ["Lung Lesion", PATHOLOGIES[0]]
        assert np.array_equal(
            mask_file.masks(image_id, chosen),
            found_KHW[[PATHOLOGIES.index(name) for name in chosen]],
        )


def test_lung_opacity_is_airspace_opacity(tmp_path):
    rle = chexlocalize.encode(np.eye(3, dtype=bool))
    mask_file = chexlocalize.read(write(tmp_path / "masks.json", {"image": {"Lung Opacity": rle}}))
    assert mask_file.masks("image", ["Airspace Opacity"]).sum() == 3


@pytest.mark.parametrize("size", [[4, 5], [2, 2], [1, 1]])
def test_runs_that_do_not_fill_the_size_are_refused(tmp_path, refused, size):
    path = write(tmp_path / "masks.json", document(size=size))
    mask_file = chexlocalize.read(path)
    with refused(
        path, "patient1_study1_view1_frontal: Edema", "16 pixels", f"{size[0]} x {size[1]}"
    ):
        mask_file.masks("patient1_study1_view1_frontal")


@pytest.mark.parametrize("size", [[100_000, 100_000], [2, 2**31], [1, 10**300], [9_459, 9_460]])
def test_a_mask_larger_than_any_image_is_refused_before_pycocotools_sees_it(
    tmp_path, refused, size
):
    pixels = size[0] * size[1]
    # Runs of 2**28 each, one per pixel run; pycocotools would count in 32 bits.
    counts = "PPPPP8" * min(pixels // 2**28, 50) or "0"
    path = write(tmp_path / "masks.json", document(size=size, counts=counts))
    with refused(path, "patient1_study1_view1_frontal: Edema", "at most 89478485 pixels"):
        chexlocalize.read(path)
    with refused("here", "at most 89478485 pixels"):
        chexlocalize.decode({"size": size, "counts": counts}, "here")


def test_the_bomb_beside_this_checkout_is_refused(refused):
    path = BESIDE / "cases/bombs/huge_mask.json"
    if not path.is_file():
        pytest.skip("../shared/cases is not beside this checkout")
    with refused(path, "patient64741_study1_view1_frontal: Edema", "[100000, 100000]"):
        chexlocalize.read(path)


def test_an_image_id_may_have_any_character_that_fits_on_a_line(tmp_path):
    masks = {
        name: {"Edema": np.eye(3, dtype=bool)} for name in ("a\xa0b c", "Röntgen-胸", "\u200bx")
    }
    chexlocalize.write(tmp_path / "masks.json", masks)
    assert list(chexlocalize.read(tmp_path / "masks.json")) == list(masks)


def test_the_pathologies_of_a_file_are_those_of_any_image(tmp_path):
    mask_HW = np.zeros((3, 4), dtype=bool)
    chexlocalize.write(
        tmp_path / "masks.json", {"a": {"Pneumothorax": mask_HW}, "b": {"Edema": mask_HW}}
    )
    mask_file = chexlocalize.read(tmp_path / "masks.json")
    assert mask_file.pathologies == ("Edema", "Pneumothorax")
    renamed = mask_file.renamed({"a": "c"})
    assert (
        set(renamed) == {"b", "c"}
        and renamed["c"] == mask_file["a"]
        and set(mask_file) == {"a", "b"}
    )


@pytest.mark.parametrize("counts", ["", "P", "`0P", "`PPPPP0", "é", " ", "o" * 40, "04P"])
def test_strings_that_are_no_run_lengths_are_refused(refused, counts):
    assert (
        chexlocalize.run_lengths("`0").sum() == 16
    )  # the third cuts off a number after it; the fourth writes 16 in seven digits
    with refused("here", "16 pixels"):
        chexlocalize.decode({"size": [4, 4], "counts": counts}, "here")


def test_damaged_strings_are_refused_or_give_a_mask_of_that_size():
    generator = np.random.default_rng(0)
    rle = chexlocalize.encode(generator.random((40, 30)) < 0.2)
    refusals = 0
    for _ in range(1500):
        counts = list(rle["counts"])
        for position in generator.integers(len(counts), size=generator.integers(1, 4)):
            counts[position] = chr(48 + generator.integers(64))
        counts = counts[: generator.integers(len(counts) // 2, len(counts) + 1)]
        try:
            mask_HW = chexlocalize.decode({"size": [40, 30], "counts": "".join(counts)}, "here")
        except UserError:
            refusals += 1
        else:
            assert mask_HW.shape == (40, 30)
            assert mask_HW.sum() == coco.area(
                {"size": [40, 30], "counts": "".join(counts).encode()}
            )
    assert refusals > 1000


def counts_of(runs: list[int]) -> str:
    """Return runs as a COCO run-length string."""
    text = ""
    for number, run in enumerate(runs):
        rest, more = run - (runs[number - 2] if number > 2 else 0), True
        while more:
            digit, rest = rest & 31, rest >> 5
            more = rest != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
    return text


def test_runs_of_length_0_change_no_count():
    """Compare the counts of pycocotools on checked masks with those of the decoded pixels."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        rles, masks_2HW = [], []
        for _ in range(2):
            runs = generator.multinomial(30, generator.dirichlet(np.full(9, 0.3))).tolist()
            rles.append({"size": [6, 5], "counts": counts_of(runs)})
            pixels = np.repeat(np.arange(len(runs)) % 2, runs)
            masks_2HW.append(pixels.reshape(5, 6).T == 1)
            np.testing.assert_array_equal(chexlocalize.decode(rles[-1], "here"), masks_2HW[-1])
        pair = [chexlocalize.checked(rle, "here") for rle in rles]
        shared = coco.merge(pair, intersect=True)
        assert coco.area(pair).tolist() == [mask_HW.sum() for mask_HW in masks_2HW]
        assert coco.area(shared) == (masks_2HW[0] & masks_2HW[1]).sum()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1, 2]", ("list", "object of image ids")),
        ("{", ("not JSON",)),
        ({"im\nage": {}}, ("image id 'im\\nage'", "printable")),
        ('{"\\ud800": {}}', ("image id '\\ud800'", "printable")),
        ("[" * 100_000, ("not JSON (lists or objects nested more than 100 deep)",)),
        ("1" * 5000, ("not JSON",)),
        ({"image": []}, ("image", "non-empty object of pathologies")),
        ({"image": {}}, ("image", "object of pathologies")),
        (
            {"image": {"Oedema": document()}},
            ("image: unknown pathology 'Oedema'", "did you mean 'Edema'", *PATHOLOGIES),
        ),
        ({"image": {"Edema": "437N"}}, ("image: Edema", "height, width")),
        (
            {"image": {"Edema": {"size": [4], "counts": "437N"}}},
            ("image: Edema", "[4]", "height, width"),
        ),
        (
            {"image": {"Edema": {"size": [0, 4], "counts": "437N"}}},
            ("image: Edema", "height, width"),
        ),
        (
            {"image": {"Edema": {"size": [3, 5], "counts": [4, 3, 7, 1]}}},
            ("image: Edema", "COCO run-length string"),
        ),
        (
            {
                "image": dict.fromkeys(
                    ("Lung Opacity", "Airspace Opacity"),
                    document()["patient1_study1_view1_frontal"]["Edema"],
                )
            },
            ("image: Airspace Opacity", "two names"),
        ),
        (
            '{"image": {"Edema": {"size": [1, 1], "counts": "1"}}, "image": {}}',
            ("'image'", "twice"),
        ),
    ],
)
def test_mistakes_are_named_by_file_and_field(tmp_path, refused, content, words):
    path = write(tmp_path / "masks.json", content)
    with refused(path, *words):
        chexlocalize.read(path)


def test_a_missing_file_is_refused(tmp_path, refused):
    with refused(tmp_path / "masks.json", "No such file"):
        chexlocalize.read(tmp_path / "masks.json")


def test_masks_of_several_sizes_or_not_of_the_images_size_are_refused(tmp_path, refused):
    small, large = (chexlocalize.encode(np.ones(shape, dtype=bool)) for shape in ((2, 3), (4, 5)))
    content = {"mixed": {"Edema": small, "Pneumothorax": large}, "whole": {"Edema": small}}
    mask_file = chexlocalize.read(write(tmp_path / "masks.json", content))
    with refused("masks.json: mixed", "2 x 3, 4 x 5", "one size"):
        mask_file.size("mixed")
    mask_file.check_size("whole", "whole.jpg", (2, 3))
    with refused("masks.json: whole", "2 x 3", "3 x 2", "whole.jpg"):
        mask_file.check_size("whole", "whole.jpg", (3, 2))


def test_scan_finds_all_faults_and_keeps_the_good_masks(tmp_path):
    good = chexlocalize.encode(np.eye(4, dtype=bool))
    content = {
        "a": {"Edema": good, "Oedema": good, "Pneumothorax": 1},
        "b": None,
        "c": {"Effusion": good},
    }
    mask_file, faults = chexlocalize.scan(write(tmp_path / "masks.json", content))
    assert [kind for kind, _ in faults] == [
        "unknown pathology",
        "malformed mask",
        "malformed mask",
        "unknown pathology",
    ]
    assert list(mask_file) == ["a"] and list(mask_file["a"]) == ["Edema"]
    with pytest.raises(UserError) as caught:
        chexlocalize.read(mask_file.path)
    assert str(caught.value) == faults[0][1]


def test_the_published_sample_has_masks_where_labels_are_positive(sample):
    mask_file = chexlocalize.read(sample / "gt_segmentations_val.json")
    table = chexpert.read_csv(sample / "valid.csv", sample / "valid").set_index("image_id")
    assert set(mask_file) == set(table.index)
    assert mask_file.size("patient64541_study1_view1_frontal") == (2320, 2828)
    for image_id in mask_file:
        mask_file.check_size(
            image_id, table["path"][image_id], images.decode(table["path"][image_id]).shape
        )
        for name, mask_HW in zip(PATHOLOGIES, mask_file.masks(image_id), strict=True):
            assert mask_HW.any() == (table[observation(name)][image_id] == 1)


def test_the_published_contours_enclose_the_masks(sample):
    contours = json.loads((sample / "gt_annotations_val.json").read_text())[
        "patient64541_study1_view1_frontal"
    ]
    mask_file = chexlocalize.read(sample / "gt_segmentations_val.json")
    (heart_HW,) = mask_file.masks("patient64541_study1_view1_frontal", ["Cardiomegaly"])
    corners = np.concatenate([np.asarray(contour) for contour in contours["Cardiomegaly"]])  # x, y
    rows, columns = np.nonzero(heart_HW)
    box = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]])
    assert np.abs(box - [corners.min(axis=0), corners.max(axis=0)]).max() <= 1.5


def test_the_real_study_set(shared):
    root = shared / "covid-cxr"
    for split, count in (("valid", 50), ("test", 31)):
        mask_file = chexlocalize.read(root / chexlocalize.FILES[split])
        table = chexpert.read(root, split).set_index("image_id")
        assert len(mask_file) == count and set(mask_file) == set(table.index)
        for image_id in mask_file:
            mask_file.check_size(image_id, "", images.decode(table["path"][image_id]).shape)
            assert mask_file.masks(image_id, ["Enlarged Cardiomediastinum"]).any()
