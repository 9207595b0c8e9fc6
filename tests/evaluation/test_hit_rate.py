"""Test the pointing game by hand: points, heat maps as published and as .npy, unsafe pickles."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.evaluation import heat_maps, hit_rate
from chexseg.evaluation.evaluate import evaluate

FIRST, SECOND = "patient1_study1_view1_frontal", "patient2_study1_view1_frontal"
HEIGHT, WIDTH = 40, 60


@pytest.fixture
def truth(tmp_path) -> Path:
    """Return masks of two images.

    Edema is at rows 10 to 19, columns 30 to 49 of both images; Cardiomegaly is on the first;
    Consolidation is empty.
    """
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask_HW[10:20, 30:50] = True
    empty_HW = np.zeros_like(mask_HW)
    first = {"Edema": mask_HW, "Cardiomegaly": mask_HW, "Consolidation": empty_HW}
    chexlocalize.write(tmp_path / "gt.json", {FIRST: first, SECOND: {"Edema": mask_HW}})
    return tmp_path / "gt.json"


def write_points(path: Path, points: Any) -> Path:
    path.write_text(json.dumps(points))
    return path


def write_map(
    folder: Path, image_id: str, name: str, scores_hw: np.ndarray, ending: str = "pkl"
) -> Path:
    """Write a heat map: as published, a pickle with other entries too, or a bare array."""
    import torch

    folder.mkdir(exist_ok=True)
    path = folder / f"{image_id}_{name}_map.{ending}"
    if ending == "npy":
        np.save(path, scores_hw)
        return path
    heat_map = {
        "prob": 0.25,
        "task": name,
        "gt": 1,
        "cxr_img": torch.zeros(3, 8, 8),
        "cxr_dims": (WIDTH, HEIGHT),
    }
    with path.open("wb") as file:
        pickle.dump(
            {"map": torch.tensor(scores_hw, dtype=torch.float32)[None, None], **heat_map}, file
        )
    return path


def peak(row: int, column: int, shape: tuple[int, int] = (4, 6)) -> np.ndarray:
    scores_hw = np.zeros(shape)
    scores_hw[row, column] = 1
    return scores_hw


def test_covers_is_the_decoded_pixel():
    generator = np.random.default_rng(0)
    for density in (0, 0.1, 0.5, 0.9, 1):
        mask_HW = generator.random((7, 5)) < density
        rle = chexlocalize.checked(chexlocalize.encode(mask_HW), "here")
        covered = [[hit_rate.covers(rle, row, column) for column in range(5)] for row in range(7)]
        np.testing.assert_array_equal(covered, mask_HW)


def test_points(truth, tmp_path):
    points = {
        FIRST: {
            "Edema": [[29.9, 15], [49.9, 19.9]],
            "Cardiomegaly": [[15, 35]],
            "Consolidation": [[1, 1]],
        },
        "patient3_study1_view1_frontal": {"Edema": [[1, 1]]},
    }
    evaluation = evaluate(truth, write_points(tmp_path / "points.json", points), "hit-rate")
    table = evaluation.table.set_index("pathology")
    # x and y aren't swapped: (15, 35) is outside; row 15 and column 35 would be inside.
    assert table["hit_rate"]["Edema"] == 0.5 and table["n_images"]["Edema"] == 2
    assert table["hit_rate"]["Cardiomegaly"] == 0 and table["n_images"]["Cardiomegaly"] == 1
    assert np.isnan(table["hit_rate"]["Consolidation"]) and table["hit_rate"]["mean"] == 0.25
    assert any("1 masks have no point: counted as misses" in note for note in evaluation.notes)
    assert any("names 1 images that" in note for note in evaluation.notes)
    results = evaluation.published["hitmiss_results_per_cxr.csv"]
    assert results["img_id"].tolist() == [FIRST, SECOND] and results["Edema"].tolist() == [1, 0]


@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_heat_maps(truth, tmp_path, ending):
    maps = tmp_path / "maps"
    # One cell of 4 x 6 is 10 x 10 pixels: rows 10 to 19, columns 40 to 49.
    write_map(maps, FIRST, "Edema", peak(1, 4), ending)
    write_map(maps, FIRST, "Cardiomegaly", peak(2, 4), ending)
    write_map(maps, FIRST, "Fracture", peak(2, 4), ending)
    evaluation = evaluate(truth, maps, "hit-rate")
    table = evaluation.table.set_index("pathology")
    assert (
        table["hit_rate"]["Edema"] == 1 and table["n_images"]["Edema"] == 1
    )  # the other image has no map: left out
    assert table["hit_rate"]["Cardiomegaly"] == 0
    assert any("1 masks have no heat map" in note and SECOND in note for note in evaluation.notes)
    assert any("none of the ten" in note and "Fracture" in note for note in evaluation.notes)


def test_the_first_of_equal_scores_is_taken(truth, tmp_path):
    scores_hw = np.zeros((HEIGHT, WIDTH))
    scores_hw[15, 35] = scores_hw[30, 5] = 1
    write_map(tmp_path / "maps", FIRST, "Edema", scores_hw)
    assert (
        evaluate(truth, tmp_path / "maps", "hit-rate").table.set_index("pathology")["hit_rate"][
            "Edema"
        ]
        == 1
    )
    write_map(tmp_path / "maps", FIRST, "Edema", scores_hw[::-1].copy())
    assert (
        evaluate(truth, tmp_path / "maps", "hit-rate").table.set_index("pathology")["hit_rate"][
            "Edema"
        ]
        == 0
    )


@pytest.mark.parametrize("kind", ["points", "maps"])
def test_ids_match_without_an_ending_and_a_pathology_without_predictions_is_left_out(
    truth, tmp_path, kind
):
    if kind == "points":
        pred = write_points(
            tmp_path / "points.json", {f"{FIRST}.jpg": {"Edema": [[35, 15]]}, SECOND: {"Edema": []}}
        )
    else:
        pred = tmp_path / "maps"
        write_map(pred, f"{FIRST}.jpg", "Edema", peak(1, 4), "npy")
        write_map(pred, "patient3_study1_view1_frontal", "Edema", peak(1, 4), "npy")
    evaluation = evaluate(truth, pred, "hit-rate")
    table = evaluation.table.set_index("pathology")
    assert table["n_images"].to_dict() | {"mean": 0} == dict.fromkeys(table.index, 0) | {
        "Edema": 2 if kind == "points" else 1
    }
    assert (
        table["hit_rate"]["mean"] == table["hit_rate"]["Edema"] == (0.5 if kind == "points" else 1)
    )
    assert evaluation.left_out.not_predicted == ("Cardiomegaly", "Consolidation")
    assert any(
        "1 image ids are matched without their suffixes" in note for note in evaluation.notes
    )
    assert any(f"{pred}: doesn't name 2 pathologies" in note for note in evaluation.notes)
    if kind == "maps":
        assert any(
            "names 1 images that" in note and "patient3" in note for note in evaluation.notes
        )


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("inside", ["the map", "the storage"])
def test_nothing_in_a_pickle_is_run(truth, tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))

    class Smuggled:
        def __reduce__(self):
            import torch

            return torch.storage._load_from_bytes, (pickle.dumps(Harm()),)

    path.write_bytes(pickle.dumps({"map": Harm() if inside == "the map" else Smuggled()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_takes_no_memory_without_bounds(truth, tmp_path):
    """Check a pickle of eight bytes that asks for a memo of 60 million entries."""
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(b"\x80\x02Nr" + (60_000_000).to_bytes(4, "little") + b".")
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "memory without bounds")


class Loads:
    """Pickle itself so that torch loads these bytes as a storage."""

    def __init__(self, raw: bytes):
        self.raw = raw

    def __reduce__(self):
        import torch

        return torch.storage._load_from_bytes, (self.raw,)


def two_directories(raw: bytes) -> bytes:
    """Return an archive with a second directory, which zipfile reads and torch does not.

    The end of an archive names the offset of its directory. zipfile looks directly before the end
    instead. The second directory claims that nothing is compressed.
    """
    start = raw.rindex(b"PK\5\6")
    size, offset = (int.from_bytes(raw[start + at : start + at + 4], "little") for at in (12, 16))
    directory = raw[offset : offset + size]
    second = directory.replace(b"\x08\x00", b"\x00\x00")
    return raw[:start] + second + raw[start:]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw,
        lambda raw: raw + b"PK\5\6",
        lambda raw: raw[:-2] + b"\x07\x00PK\5\6abc",
        two_directories,
    ],
    ids=["whole", "bytes after it", "a comment", "two directories"],
)
@pytest.mark.parametrize("typed", [True, False])
def test_a_storage_that_is_compressed_is_refused(truth, tmp_path, change, typed):
    import io
    import zipfile
    from collections import OrderedDict

    import torch

    plain, packed = io.BytesIO(), io.BytesIO()
    storage = torch.zeros(1000).storage()
    torch.save(storage if typed else storage.untyped(), plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))

    class Tensor:
        def __reduce__(self):
            raw = change(packed.getvalue())
            return torch._utils._rebuild_tensor_v2, (
                Loads(raw),
                *(0, (1, 1, 2, 2), (4, 4, 2, 1), False, OrderedDict()),
            )

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Tensor()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "compressed")


def test_a_tensor_in_place_of_a_storage_is_refused(truth, tmp_path):
    """Refuse it: torch would rebuild the tensor over memory of arbitrary content."""
    import io

    import torch

    out = io.BytesIO()
    torch.save(torch.zeros(1, 1, 4, 6), out, _use_new_zipfile_serialization=False)
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Loads(out.getvalue())}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "in place of a storage")


def test_a_storage_larger_than_its_file_is_refused(truth, tmp_path):
    """Check storages that the file's list doesn't name: torch leaves them unfilled."""
    import io
    from collections import OrderedDict

    import torch

    out = io.BytesIO()
    torch.save(torch.zeros(10_000).storage(), out, _use_new_zipfile_serialization=False)
    raw = out.getvalue()
    # The list is the last pickle, before the numbers and their count.
    start = raw.rindex(b"\x80\x02]", 0, -40_008)
    raw = raw[:start] + b"\x80\x02]."

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (
                Loads(raw),
                *(0, (1, 1, 100, 100), (10_000, 10_000, 100, 1), False, OrderedDict()),
            )

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Tensor()}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map", "a storage of 40000 bytes")


def test_a_pickle_sets_no_attribute_of_what_it_names(truth, tmp_path):
    import torch

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    for name in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\n_load_from_bytes\n"):
        path.write_bytes(
            b"\x80\x02}(X\x03\x00\x00\x00map" + name + b"}X\x06\x00\x00\x00harmedK\x01sbu."
        )
        refused(
            truth, tmp_path / "maps", path.name, "found no heat map", "it would change an object"
        )
    assert not hasattr(torch._utils._rebuild_tensor_v2, "harmed")
    assert not hasattr(torch.storage._load_from_bytes, "harmed")


class Rebuilt:
    """Pickle a tensor with a chosen size, stride and offset into six numbers."""

    def __init__(self, offset: Any, size: Any, stride: Any):
        self.arguments = offset, size, stride

    def __reduce__(self):
        import collections

        import torch

        storage = torch.arange(6.0).storage()
        return torch._utils._rebuild_tensor_v2, (
            storage,
            *self.arguments,
            False,
            collections.OrderedDict(),
        )


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (1, 1, 100, 100), (1, 1, 100, 1)),
        (1, (1, 1, 2, 3), (6, 6, 3, 1)),
        (-1, (1, 1, 2, 2), (1, 1, 2, 1)),
        (0, (1, 1, 2, 2), (1, 1, -1, 1)),
        (5, (1, 1, 2, 2), (0, 0, -2, -1)),
        (0, (1, 1, 2**20, 2**20), (0, 0, 0, 0)),
        (0, (1, 1, 2), (1, 1, 1, 1)),
        ("0", (1, 1, 2, 3), (6, 6, 3, 1)),
        (0, (1, 1, 2.0, 3), (6, 6, 3, 1)),
        (False, (1, 1, 2, 3), (6, 6, 3, 1)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(truth, tmp_path, offset, size, stride):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Rebuilt(offset, size, stride)}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")


def test_sizes_whose_arithmetic_wraps_are_refused(truth, tmp_path):
    """Check 255 rows at a stride of 128: in 8 bits they begin at 254 * 128 = 0."""
    import io

    import torch

    def byte(value: int) -> Loads:
        out = io.BytesIO()
        number = torch.tensor(value, dtype=torch.uint8)
        torch.save(number, out, _use_new_zipfile_serialization=False)
        return Loads(out.getvalue())

    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    tensor = Rebuilt(0, (byte(255), byte(3)), (byte(128), byte(1)))
    path.write_bytes(pickle.dumps({"map": tensor}))
    refused(truth, tmp_path / "maps", path.name, "found no heat map")


def test_only_integers_are_sizes():
    """Check types too, because a later torch may load numbers that wrap as storages."""
    import torch

    size, stride = (torch.tensor([n, 3 - n // 128], dtype=torch.uint8) for n in (255, 128))
    with pytest.raises(pickle.UnpicklingError, match="not integers"):
        heat_maps._rebuild_tensor(torch.arange(6.0).storage(), 0, tuple(size), tuple(stride))


def test_a_part_of_a_storage_is_read(tmp_path):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(pickle.dumps({"map": Rebuilt(1, (1, 1, 2, 2), (4, 4, 3, 1))}))
    np.testing.assert_array_equal(heat_maps.read(path), [[1, 2], [4, 5]])


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\x80\x04.", b"\x80\x02]q\x00.", pickle.dumps({"map": [1]}), pickle.dumps({})],
)
def test_what_is_no_heat_map_is_refused(truth, tmp_path, content):
    path = write_map(tmp_path / "maps", FIRST, "Edema", peak(1, 4))
    path.write_bytes(content)
    refused(truth, tmp_path / "maps", path.name, "found no heat map")


def refused(truth: Path, pred: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(truth, pred, "hit-rate")
    message = str(caught.value)
    assert "\n" not in message and ("allowed" in message or "expected" in message)
    assert all(word in message for word in words), message


def test_mistakes_are_named(truth, tmp_path):
    path = tmp_path / "points.json"
    refused(truth, path, "points.json", "cannot be read")
    refused(truth, write_points(path, [1]), "found a list")
    refused(truth, write_points(path, {FIRST: [1]}), FIRST, "found a list")
    refused(truth, write_points(path, {FIRST: {"Edemas": []}}), "'Edemas'", "did you mean 'Edema'")
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [1, 2]}}),
        "Edema: found [1, 2]",
        "[[x, y], ...]",
    )
    refused(truth, write_points(path, {FIRST: {"Edema": [[60, 2]]}}), "(60, 2)", "60 x 40")
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [[10**400, 2]]}}),
        "Edema: found [[1000",
        "[[x, y], ...]",
    )
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [[float("nan"), 2]]}}),
        "Edema: found [[nan",
        "[[x, y], ...]",
    )
    both = {"Lung Opacity": [], "Airspace Opacity": [[1, 1]]}
    refused(
        truth, write_points(path, {FIRST: both}), FIRST, "found Airspace Opacity under two names"
    )
    path.write_text(f'{{"{FIRST}": {{"Edema": [[1, 1]]}}, "{FIRST}": {{"Edema": [[35, 15]]}}}}')
    refused(truth, path, f"found '{FIRST}' twice in one object")
    refused(truth, write_points(path, {}), "points.json: found no image")
    refused(
        truth, write_points(path, {"other": {"Edema": []}}), "points.json", "'other'", f"'{FIRST}'"
    )
    refused(
        truth,
        write_points(path, {FIRST: {"Lung Lesion": []}}),
        "found no pathology",
        "Lung Lesion",
        "Edema",
    )
    maps = tmp_path / "maps"
    maps.mkdir()
    refused(truth, maps, "found no heat map", "_Edema_map.pkl")
    write_map(maps, "other", "Edema", peak(1, 4), "npy")
    refused(truth, maps, "found no image of", "'other'", f"'{FIRST}'")
    (maps / "other_Edema_map.npy").unlink()
    write_map(maps, FIRST, "Edema", np.full((4, 6), np.nan))
    refused(truth, maps, "aren't finite")
    write_map(maps, FIRST, "Edema", np.zeros((2, 4, 6)), "npy")
    refused(truth, maps, "one heat map per image and pathology")
    (maps / f"{FIRST}_Edema_map.pkl").unlink()
    refused(truth, maps, "an array (2, 4, 6)")
    (maps / f"{FIRST}_Edema_map.npy").write_bytes(b"x")
    refused(truth, maps, "found no heat map")
