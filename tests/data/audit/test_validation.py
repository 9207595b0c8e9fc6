"""Test the validation: a data set with all faults gets each reported, a sound one gets none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from chexseg.data import chexlocalize, images
from chexseg.data.audit import image_validation, validation
from chexseg.pathologies import OBSERVATIONS

HEIGHT, WIDTH = 24, 20
Labels = dict[str, str]


class DataSet:
    """Hold a data set in the published layout, small enough to break by hand."""

    def __init__(self, root: Path):
        self.root = root
        self.rows: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
        self.masks: dict[str, dict] = {"valid": {}, "test": {}, "radiologists": {}}

    def add(
        self,
        split: str,
        patient: int,
        labels: Labels | None = None,
        masks: dict | None = None,
        **more: str,
    ) -> Path:
        """Add a row and its image, and the masks to the split's file; return the image's path."""
        view = more.get("view", "Frontal")
        name = f"patient{patient:05d}/study1/view1_{view.lower()}.jpg"
        labels = dict.fromkeys(OBSERVATIONS, "") | (labels or {})
        self.rows[split].append(",".join([f"CheXpert-v1.0/{split}/{name}", view, *labels.values()]))
        path = self.root / "CheXpert-v1.0" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(patient).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        if masks is not None:
            self.masks[split][self.image_id(patient, view)] = masks
        return path

    @staticmethod
    def image_id(patient: int, view: str = "Frontal") -> str:
        return f"patient{patient:05d}_study1_view1_{view.lower()}"

    def write(self) -> Path:
        for split, rows in self.rows.items():
            header = ",".join(["Path", "Frontal/Lateral", *OBSERVATIONS])
            (self.root / "CheXpert-v1.0" / f"{split}.csv").write_text(
                "\n".join([header, *rows]) + "\n"
            )
        for name, masks in self.masks.items():
            path = self.root / chexlocalize.FILES[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            if masks:
                path.write_text(json.dumps(masks))
        return self.root


def rle(height: int = HEIGHT, width: int = WIDTH, pixels: int = 5) -> dict:
    mask_HW = np.zeros((height, width), dtype=bool)
    mask_HW.flat[:pixels] = True
    return chexlocalize.encode(mask_HW)


@pytest.fixture
def sound(tmp_path) -> DataSet:
    data = DataSet(tmp_path)
    data.add("train", 1, {"Edema": "1", "Fracture": "-1"})
    data.add("train", 2, view="Lateral")
    data.add("valid", 11, {"Edema": "1"}, {"Edema": rle(), "Pneumothorax": rle(pixels=0)})
    data.add("test", 21, {"Edema": "0", "Lung Opacity": "1"}, {"Airspace Opacity": rle()})
    data.masks["radiologists"][data.image_id(21)] = {"Airspace Opacity": rle(pixels=9)}
    return data


def audit(data: DataSet) -> validation.Audit:
    result = validation.check(data.write())
    for messages in [*result.faults.values(), *result.notes.values()]:
        assert all(str(data.root) in message and "\n" not in message for message in messages)
    return result


def test_a_sound_set_has_no_fault_and_is_summarised(sound):
    result = audit(sound)
    assert (result.fatal, result.faults, result.notes) == (False, {}, {})
    train, valid, test = (result.splits[split] for split in ("train", "valid", "test"))
    assert (train["images"], train["patients"], train["frontal"], train["lateral"]) == (2, 2, 1, 1)
    assert train["labels"]["Edema"] == {"positive": 1, "negative": 0, "uncertain": 0, "blank": 1}
    assert train["labels"]["Fracture"]["uncertain"] == 1
    assert (
        valid["with_masks"] == 1
        and valid["masks"]["Edema"] == 1
        and valid["masks"]["Pneumothorax"] == 0
    )
    assert (
        test["masks"]["Airspace Opacity"] == 1 and test["labels"]["Lung Opacity"]["positive"] == 1
    )
    assert "no fault" in result.text() and "50.0% (+50.0%)" not in result.text()
    assert json.loads(json.dumps(result.as_dict()))["fatal"] is False


def test_every_fault_is_listed_and_the_audit_goes_on(sound):
    sound.add("train", 3, {"Edema": "2", "Fracture": "maybe"})
    sound.add("train", 4, {"Edema": "x"})
    sound.rows["train"].append(sound.rows["train"][0])
    sound.rows["train"].append("patient00009.jpg,Frontal" + "," * len(OBSERVATIONS))
    sound.rows["train"].append(
        sound.rows["train"][1].replace("Lateral", "Oblique").replace("patient00002", "patient00005")
    )
    sound.add("train", 21)  # is in test
    truncated = sound.add("train", 6)
    truncated.write_bytes(truncated.read_bytes()[:400])
    sound.add("valid", 12, None, {"Oedema": rle()})
    sound.add("valid", 13, None, {"Edema": {"size": [HEIGHT, WIDTH]}, "Pneumothorax": rle()})
    sound.add(
        "valid",
        14,
        None,
        {"Edema": rle() | {"size": [HEIGHT, WIDTH + 1]}, "Pneumothorax": rle(HEIGHT, WIDTH + 1)},
    )
    sound.add("valid", 15, None, {"Edema": rle(), "Pneumothorax": rle(HEIGHT, WIDTH + 2)})
    sound.add("valid", 16, None, {"Edema": rle(WIDTH, HEIGHT)})
    sound.add("test", 22, None, {"Edema": rle()}).unlink()
    sound.masks["test"]["patient00099_study1_view1_frontal"] = {"Edema": rle()}
    sound.masks["radiologists"][sound.image_id(21)]["Edema"] = rle(3, 3)
    result = audit(sound)
    counts = {kind: len(messages) for kind, messages in result.faults.items()}
    assert counts == {
        "bad label": 3,
        "image named twice": 1,
        "unusable path": 1,
        "unknown view": 1,
        "missing image": 2,  # that of test, and that of the row with the unknown view
        "unreadable image": 1,
        "patient in two splits": 1,
        "unknown pathology": 1,
        "malformed mask": 1,
        "malformed runs": 1,
        "masks of different sizes": 2,  # one of them the radiologists'
        "mask size unlike image": 2,
        "masks of unknown image": 1,
    }
    assert result.fatal and "patient00021" in result.faults["patient in two splits"][0]
    words = {
        "bad label": ("train.csv: row 4: Edema: found '2'", "1, 0, -1 or blank"),
        "image named twice": ("train.csv: row 6: Path", "patient00001_study1_view1_frontal"),
        "unknown view": ("row 8: Frontal/Lateral: found 'Oblique'",),
        "unreadable image": (str(truncated),),
        "unknown pathology": ("patient00012", "'Oedema'", "did you mean 'Edema'"),
        "malformed runs": ("patient00014", "Edema", "480 pixels", "24 x 21"),
        "mask size unlike image": ("patient00014", "24 x 21", "24 x 20"),
        "masks of unknown image": ("patient00099", "test.csv"),
    }
    for kind, parts in words.items():
        assert all(part in result.faults[kind][0] for part in parts), result.faults[kind][0]
    report = result.as_dict()
    assert {group["kind"]: group["count"] for group in report["faults"]} == counts
    assert sum(len(group["messages"]) for group in report["faults"]) == sum(counts.values())
    assert f"{sum(counts.values())} faults; a study would fail" in result.text()


def test_only_the_first_few_of_a_kind_are_shown_but_all_are_counted(sound):
    for patient in range(30, 36):
        sound.add("train", patient, {"Edema": "7"})
    text = audit(sound).text()
    assert (
        "fault: bad label: 6" in text
        and text.count("found '7'") == validation.EXAMPLES
        and "and 3 more" in text
    )


def test_a_missing_column_or_file_hides_no_other_fault(sound):
    root = sound.write()
    csv = root / "CheXpert-v1.0/valid.csv"
    csv.write_text(csv.read_text().replace("Edema", "Oedema").replace("Fracture", "Fractures"))
    (root / "CheXpert-v1.0/test.csv").unlink()
    (root / chexlocalize.FILES["test"]).write_text("{")
    (root / chexlocalize.FILES["radiologists"]).unlink()  # not needed by any study
    result = validation.check(root)
    counts = {kind: len(messages) for kind, messages in result.faults.items()}
    assert counts == {"missing column": 2, "missing file": 1, "unreadable mask file": 1}
    assert (
        list(result.splits) == ["train", "valid"]
        and result.splits["valid"]["labels"]["Edema"]["blank"] == 1
    )


@pytest.mark.parametrize("name", ["valid", "test"])
def test_mask_files_are_needed_and_must_name_an_image(sound, name):
    path = sound.write() / chexlocalize.FILES[name]
    path.write_text("{}")
    assert {kind: len(all_of) for kind, all_of in validation.check(sound.root).faults.items()} == {
        "no masks": 1
    }
    path.unlink()
    result = validation.check(sound.root)
    assert list(result.faults) == ["missing file"] and str(path) in result.faults["missing file"][0]


def test_contradictions_between_labels_and_masks_are_notes(sound):
    sound.add("valid", 12, {"Edema": "1"}, {"Pneumothorax": rle()})  # positive, no mask
    sound.add("valid", 13, {"Edema": "0"}, {"Edema": rle(pixels=7)})  # mask, negative
    sound.add("valid", 14, {"Edema": "-1"}, {"Edema": rle()})  # uncertain: no contradiction
    sound.add("test", 22, {"Cardiomegaly": "1"})  # positive, and not in the mask file
    result = audit(sound)
    assert not result.fatal
    assert {kind: len(messages) for kind, messages in result.notes.items()} == {
        "image without masks": 1,
        "positive label without mask": 2,
        "mask with negative label": 1,
    }
    assert (
        "patient00013" in result.notes["mask with negative label"][0]
        and "7 pixels" in result.notes["mask with negative label"][0]
    )
    assert "note: positive label without mask: 2" in result.text()


def test_images_that_look_like_a_mistake_are_notes(sound):
    noise_HW = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)
    sound.add("train", 30).write_bytes(b"")
    for patient, pixels_HW in (
        (31, np.full_like(noise_HW, 7)),
        (32, noise_HW + 100),
        (33, noise_HW * 2),
        (34, noise_HW),
    ):
        path = sound.add("train", patient)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3 if patient == 33 else 1
        if patient == 34:
            pixels_HW[0, :3] = 255  # burnt-in markers must not hide a compressed grey range
        Image.fromarray(pixels_HW).save(path, format="PNG", exif=exif)
    sound.add("test", 22).write_bytes(path.read_bytes())  # not used by any study
    result = audit(sound)
    assert {kind: len(messages) for kind, messages in result.faults.items()} == {
        "unreadable image": 1
    }
    assert {kind: len(messages) for kind, messages in result.notes.items()} == {
        "image without masks": 1,
        "constant image": 1,
        "few grey levels": 2,
        "turned by EXIF": 1,
    }
    assert "grey level 7" in result.notes["constant image"][0]
    assert (
        "256 grey levels, 100 to 159" in result.notes["few grey levels"][0]
        and ", 0 to 59" in result.notes["few grey levels"][1]
    )
    assert "orientation 3" in result.notes["turned by EXIF"][0]


def test_masks_must_fit_the_image_as_it_is_shown(sound):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for patient, masks in ((12, rle(HEIGHT, WIDTH)), (13, rle(WIDTH, HEIGHT))):
        path = sound.add("valid", patient, {"Edema": "1"}, {"Edema": masks})
        Image.open(path).save(path, exif=exif)
    result = audit(sound)
    (message,) = result.faults["mask size unlike image"]
    assert (
        "patient00012" in message
        and "hint: they fit it before its EXIF orientation is applied" in message
    )
    assert (
        f"the masks are {HEIGHT} x {WIDTH}" in message and f"expected {WIDTH} x {HEIGHT}" in message
    )


def test_damage_to_test_images_without_masks_is_a_note(sound):
    sound.add("test", 22).unlink()
    sound.add("test", 23).write_bytes(b"")
    result = audit(sound)
    assert not result.fatal
    assert (
        len(result.notes["missing image that no study uses"])
        == len(result.notes["unreadable image that no study uses"])
        == 1
    )


def test_progress_counts_every_image(sound):
    for patient in range(30, 30 + 2 * image_validation.CHUNK):
        sound.add("train", patient)
    seen = []
    validation.check(sound.write(), lambda done, total: seen.append((done, total)))
    total = 4 + 2 * image_validation.CHUNK
    assert seen[-1] == (total, total) and len(seen) == 3 and seen == sorted(seen)


def test_an_interrupt_does_not_wait_for_the_rest(sound, monkeypatch):
    decoded = []

    def slow(path: str) -> images.Decoded:
        decoded.append(path)
        time.sleep(0.001)
        return images.Decoded(np.zeros((HEIGHT, WIDTH), dtype=np.uint8))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "read", slow)
    more = [
        sound.rows["train"][0].replace("patient00001", f"patient{number:05d}")
        for number in range(1000, 2000)
    ]
    sound.rows["train"] += more
    with pytest.raises(KeyboardInterrupt):
        validation.check(sound.write(), interrupt)
    assert 0 < len(decoded) < len(more) / 2


def test_a_missing_root_is_refused(tmp_path, refused):
    with refused(tmp_path / "nowhere", "no such directory"):
        validation.check(tmp_path / "nowhere")


def test_the_phantom_is_sound(phantom_root):
    result = validation.check(phantom_root)
    assert not result.fatal, result.text()
    assert [result.splits[split]["images"] for split in ("train", "valid", "test")] == [48, 24, 16]


def test_the_real_study_set_is_sound(shared):
    result = validation.check(shared / "covid-cxr")
    assert not result.fatal and set(result.notes) == {"acquisition predicts a label"}, result.text()
    assert [summary["images"] for summary in result.splits.values()] == [1101, 50, 31]
    assert result.splits["valid"]["masks"]["Consolidation"] == 16
