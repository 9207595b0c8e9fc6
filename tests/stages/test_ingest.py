"""Ingest: what comes out is what the files hold, and a fault is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from chexseg.data import chexlocalize, chexpert, images, radiographs, ray_data, remote_path, shards
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import ingest
from chexseg.stages.configs import IngestConfig

from .conftest import CONTEXT, SIZE


def test_pixels_masks_and_labels_are_those_of_the_files(results, phantom_root):
    artifact = results.paths["valid"]
    table = chexpert.read(phantom_root, "valid").set_index("image_id")
    mask_file = chexlocalize.read(phantom_root / chexlocalize.FILES["valid"])
    index = radiographs.index(artifact)
    assert index["image_id"].tolist() == sorted(table.index)
    np.testing.assert_array_equal(
        index[list(OBSERVATIONS)], table.loc[index["image_id"], list(OBSERVATIONS)]
    )
    assert [image_id for image_id, _ in radiographs.mask_index(artifact)] == sorted(mask_file)
    ids = sorted(mask_file)[:5]
    pixels = radiographs.pixels(artifact, ids).numpy()
    packed = radiographs.expert_masks(artifact, ids, PATHOLOGIES, SIZE)
    masks = radiographs.unpack_bits(packed, (len(PATHOLOGIES), SIZE, SIZE)).numpy()
    for row, image_id in enumerate(ids):
        raw = images.decode(table.loc[image_id, "path"])
        frame = images.Frame(*raw.shape, SIZE)
        np.testing.assert_array_equal(pixels[row], frame.image(raw))
        np.testing.assert_array_equal(masks[row], frame.masks(mask_file.masks(image_id)))


def test_images_and_masks_are_resized_as_the_config_says(results, phantom_root, tmp_path):
    config = IngestConfig(split="valid", size=SIZE, image_resize="bilinear", mask_resize="area")
    ingest.run(config, {"data": phantom_root}, tmp_path, CONTEXT)
    table = chexpert.read(phantom_root, "valid").set_index("image_id")
    mask_file = chexlocalize.read(phantom_root / chexlocalize.FILES["valid"])
    ids = sorted(mask_file)[:3]
    pixels = radiographs.pixels(tmp_path, ids).numpy()
    packed = radiographs.expert_masks(tmp_path, ids, PATHOLOGIES, SIZE)
    masks = radiographs.unpack_bits(packed, (len(PATHOLOGIES), SIZE, SIZE)).numpy()
    for row, image_id in enumerate(ids):
        raw = images.decode(table.loc[image_id, "path"])
        frame = images.Frame(*raw.shape, SIZE)
        np.testing.assert_array_equal(pixels[row], frame.image(raw, "bilinear"))
        assert not np.array_equal(pixels[row], frame.image(raw))
        np.testing.assert_array_equal(masks[row], frame.masks(mask_file.masks(image_id), "area"))
    assert radiographs.image_resize(tmp_path) == "bilinear"
    assert radiographs.image_resize(results.paths["valid"]) == "antialiased"


def test_studied_pathologies_are_the_chosen_rows_of_all(results):
    artifact = results.paths["valid"]
    ids = [image_id for image_id, _ in radiographs.mask_index(artifact)][:3]
    chosen = ("Cardiomegaly", "Support Devices")
    few = radiographs.unpack_bits(
        radiographs.expert_masks(artifact, ids, chosen, SIZE), (2, SIZE, SIZE)
    )
    every = radiographs.unpack_bits(
        radiographs.expert_masks(artifact, ids, PATHOLOGIES, SIZE), (len(PATHOLOGIES), SIZE, SIZE)
    )
    assert (few == every[:, [PATHOLOGIES.index(name) for name in chosen]]).all()


def test_of_the_test_set_only_images_with_masks_are_kept(results, phantom_root):
    ids = radiographs.index(results.paths["test"])["image_id"].tolist()
    assert ids == sorted(chexlocalize.read(phantom_root / chexlocalize.FILES["test"]))


def test_ingested_twice_is_the_same_bytes(results, phantom_root, tmp_path):
    ingest.run(IngestConfig(split="valid", size=SIZE), {"data": phantom_root}, tmp_path, CONTEXT)
    for path in shards.files(tmp_path / "images") + shards.files(tmp_path / "masks"):
        again = tmp_path / path
        first = results.paths["valid"] / again.relative_to(tmp_path)
        assert again.read_bytes() == first.read_bytes()


def lay_on_its_side(path: Path) -> None:
    """Store an image turned to the left, with the EXIF orientation that turns it back; without loss, as PNG."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(images.decode(path))).save(path, format="PNG", exif=exif)


def test_images_are_upright_and_their_masks_are_those_of_the_upright_image(
    results, phantom_root, tmp_path
):
    root = shutil.copytree(phantom_root, tmp_path / "data")
    for path in chexpert.read(root, "valid")["path"]:
        lay_on_its_side(Path(path))
    out = tmp_path / "out"
    ingest.run(IngestConfig(split="valid", size=SIZE), {"data": root}, out, CONTEXT)
    for path in shards.files(out / "images") + shards.files(out / "masks"):
        assert (
            Path(path).read_bytes()
            == (results.paths["valid"] / Path(path).relative_to(out)).read_bytes()
        )


def test_masks_of_an_image_on_its_side_are_refused(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "data")
    masks = chexlocalize.read(root / chexlocalize.FILES["valid"])
    table = chexpert.read(root, "valid").set_index("image_id")
    image_id = next(image_id for image_id in sorted(masks) if len(set(masks.size(image_id))) == 2)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.open(table["path"][image_id]).save(table["path"][image_id], exif=exif)
    with pytest.raises(
        UserError,
        match=f"{image_id}: the masks are .*; hint: they fit it before its EXIF orientation",
    ):
        ingest.run(
            IngestConfig(split="valid", size=SIZE), {"data": root}, tmp_path / "out", CONTEXT
        )


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_from_s3_it_is_the_same_bytes(results, phantom_uri, tmp_path, split):
    facts = ingest.run(
        IngestConfig(split=split, size=SIZE),
        {"data": remote_path.at(phantom_uri)},
        tmp_path,
        CONTEXT,
    )
    assert facts == results.facts[split]
    for path in results.paths[split].glob("*/part-*.parquet"):
        assert (tmp_path / path.relative_to(results.paths[split])).read_bytes() == path.read_bytes()


def test_an_image_that_s3_lacks_is_named_by_its_uri(phantom_root, uploaded, tmp_path):
    copy = shutil.copytree(phantom_root, tmp_path / "data", ignore=shutil.ignore_patterns("train"))
    missing = Path(chexpert.read(copy, "test")["path"].iloc[0])
    missing.unlink()
    root = uploaded(copy, "lacking")
    with pytest.raises(UserError) as caught:
        ingest.run(IngestConfig(split="test", size=SIZE), {"data": root}, tmp_path / "out", CONTEXT)
    assert str(caught.value).startswith(
        f"s3://bucket/lacking/{missing.relative_to(copy)}: no such image file"
    )


def _break(root, how: str) -> str:
    """Damages a data set; the part of the message that must name the damage."""
    csv = root / "CheXpert-v1.0-small" / "valid.csv"
    first = chexpert.read(root, "valid").iloc[0]
    if how == "image missing":
        (root / first["path"]).unlink()
        return f"{first['path']}: no such image file"
    if how == "image cut":
        path = root / first["path"]
        path.write_bytes(path.read_bytes()[:300])
        return f"{first['path']}: found no readable image"
    if how == "column missing":
        csv.write_text(csv.read_text().replace("Pleural Effusion", "Pleural effusions"))
        return f"{csv}: column 'Pleural Effusion' is missing (did you mean 'Pleural effusions'?)"
    mask_path = root / chexlocalize.FILES["valid"]
    if how == "masks missing":
        mask_path.unlink()
        return f"{mask_path}: cannot be read"
    document = json.loads(mask_path.read_text())
    image_id = sorted(document)[0]
    if how == "mask of another size":
        document[image_id] = {
            name: chexlocalize.encode(np.ones((5, 7), bool)) for name in document[image_id]
        }
        message = f"{mask_path}: {image_id}: the masks are 5 x 7"
    elif how == "unknown pathology":
        document[image_id]["Edma"] = document[image_id].pop("Edema")
        message = f"{mask_path}: {image_id}: unknown pathology 'Edma' (did you mean 'Edema'?)"
    else:
        document["patient99999_study1_view1_frontal"] = document.pop(image_id)
        message = (
            f"{mask_path}: found patient99999_study1_view1_frontal; expected images of valid.csv"
        )
    mask_path.write_text(json.dumps(document))
    return message


@pytest.mark.parametrize(
    "how",
    [
        "image missing",
        "image cut",
        "column missing",
        "masks missing",
        "mask of another size",
        "unknown pathology",
        "unknown image",
    ],
)
def test_a_fault_is_one_line_that_names_file_and_field(phantom_root, tmp_path, how):
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    message = _break(root, how)
    with pytest.raises(UserError) as caught:
        ingest.run(
            IngestConfig(split="valid", size=SIZE), {"data": root}, tmp_path / "out", CONTEXT
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_that_an_actor_finds_is_the_same_line(ray_session, phantom_root, tmp_path):
    """Two workers of Ray Data on files of 24 rows; an exception would arrive wrapped in Ray's traceback."""
    table = chexpert.read(phantom_root, "train")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    table.loc[30, "path"] = str(broken)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    arguments = {
        "table": table,
        "root": phantom_root,
        "masks": chexlocalize.MaskFile(Path(), {}),
        "rows_a_file": 24,
    }
    arguments |= {"config": IngestConfig(split="train", size=SIZE), "out": str(tmp_path)}
    first, second = ray_data.map_files(["0", "1"], ingest._Decoder, arguments, workers=2)
    assert first == {
        "with_masks": 0,
        "sizes": {path: Path(path).stat().st_size for path in table["path"][:24]},
    }
    assert (
        second["error"].startswith(f"{broken}: found no readable image")
        and "\n" not in second["error"]
    )
