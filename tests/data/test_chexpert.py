"""Test CheXpert's CSV files: all layouts and label values, errors with file, row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexseg.data import chexpert
from chexseg.data.raw_split import RawSplit
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS]


def row(path: str, view: str = "Frontal", **labels: object) -> dict[str, str]:
    values = {"Path": path, "Sex": "Female", "Age": "61", "Frontal/Lateral": view, "AP/PA": "AP"}
    return (
        dict.fromkeys(HEADER, "")
        | values
        | {name.replace("_", " "): str(value) for name, value in labels.items()}
    )


def write(csv: Path, rows: list[dict[str, str]], without: str | None = None) -> Path:
    csv.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=HEADER)
    (table if without is None else table.drop(columns=without)).to_csv(csv, index=False)
    return csv


def path(patient: int, split: str = "valid", name: str = "view1_frontal.jpg") -> str:
    return f"CheXpert-v1.0/{split}/patient{patient:05d}/study1/{name}"


@pytest.mark.parametrize("split", chexpert.SPLITS)
def test_every_layout_is_found_and_its_images_beside_it(tmp_path, split):
    for number, (csv, images) in enumerate(chexpert.LAYOUTS[split]):
        root = tmp_path / str(number)
        write(root / csv, [row(path(7, split))])
        table = chexpert.read(root, split)
        assert table["image_id"].tolist() == ["patient00007_study1_view1_frontal"]
        assert table["path"].tolist() == [
            str(root / images / "patient00007/study1/view1_frontal.jpg")
        ]
        assert table["patient"].tolist() == ["patient00007"]


def test_patients_are_in_the_folder_of_their_archive(tmp_path):
    csv, images = chexpert.LAYOUTS["train"][-1]
    numbers = [1, 21513, 21514, 43017, 43018, 64540]
    write(tmp_path / csv, [row(path(number, "train")) for number in numbers])
    table = chexpert.read(tmp_path, "train")
    folders = [name[len(f"{tmp_path}/") :].split("/")[0] for name in table["path"]]
    assert folders == [
        f"CheXpert-v1.0 batch {batch} (train {batch - 1})" for batch in (2, 2, 3, 3, 4, 4)
    ]
    for number, name in enumerate(table["path"]):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_bytes(number * b"x")
    assert list(RawSplit(tmp_path, "train").sizes.values()) == list(range(6))


def test_full_size_images_are_preferred_where_masks_have_to_fit(tmp_path):
    for split in chexpert.SPLITS:
        for csv, _ in chexpert.LAYOUTS[split]:
            write(tmp_path / csv, [row(path(1, split))])
    paths = {
        split: chexpert.locate(tmp_path, split)[0].relative_to(tmp_path).as_posix()
        for split in chexpert.SPLITS
    }
    assert paths["train"] == "CheXpert-v1.0-small/train.csv"
    assert "small" not in paths["valid"] and "small" not in paths["test"]


def test_the_path_is_read_from_below_the_last_split(tmp_path):
    paths = [
        path(3),
        "valid/patient00002/study1/view1_frontal.jpg",
        "train/data/val/patient00001/study2/view3_frontal.png",
    ]
    table = chexpert.read_csv(
        write(tmp_path / "valid.csv", [row(one) for one in paths]), Path("images")
    )
    assert table["image_id"].tolist() == [
        "patient00001_study2_view3_frontal",
        "patient00002_study1_view1_frontal",
        "patient00003_study1_view1_frontal",
    ]
    assert table["path"].iloc[0] == "images/patient00001/study2/view3_frontal.png"


def test_labels_are_one_zero_minus_one_or_blank(tmp_path):
    labels = {
        "Edema": "1.0",
        "Fracture": "0",
        "Pneumonia": "-1.0",
        "Lung Opacity": " ",
        "Cardiomegaly": " 1 ",
    }
    table = chexpert.read_csv(write(tmp_path / "valid.csv", [row(path(1), **labels)]), tmp_path)
    labels = table.iloc[0][["Edema", "Fracture", "Pneumonia", "Cardiomegaly"]].tolist()
    assert labels == [1, 0, -1, 1]
    assert table[list(OBSERVATIONS)].isna().sum(axis=None) == len(OBSERVATIONS) - 4
    assert (table[list(OBSERVATIONS)].dtypes == np.float32).all()


def test_laterals_are_told_by_the_column_and_without_it_by_the_name(tmp_path):
    folder = "valid/unilateral1/study1"
    rows = [row(f"{folder}/view1_frontal.jpg"), row(f"{folder}/view2_lateral.jpg", view="Lateral")]
    for without in (None, "Frontal/Lateral"):
        table = chexpert.read_csv(write(tmp_path / "valid.csv", rows, without), tmp_path)
        assert table["frontal"].tolist() == [True, False]


@pytest.mark.parametrize("column", ["Path", "Edema", "Support Devices"])
def test_a_missing_column_is_named(tmp_path, refused, column):
    csv = write(tmp_path / "valid.csv", [row(path(1))], without=column)
    with refused(f"{csv}: column '{column}' is missing", "; found "):
        chexpert.read_csv(csv, tmp_path)


def test_a_misspelt_column_is_guessed(tmp_path):
    csv = write(tmp_path / "valid.csv", [row(path(1))])
    csv.write_text(csv.read_text().replace("Pneumothorax", "Pneumotorax"))
    with pytest.raises(UserError, match="'Pneumothorax' is missing.*did you mean 'Pneumotorax'"):
        chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize("value", ["2", "yes", "nan", "0.5", "inf", "1.00000001"])
def test_a_label_that_is_none_is_named_by_row(tmp_path, refused, value):
    csv = write(tmp_path / "valid.csv", [row(path(1)), row(path(2), Edema=value)])
    with refused(f"{csv}: row 3: Edema: found '{value}'", "1, 0, -1 or blank"):
        chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([row(path(1)), row(path(1))], ("row 3: Path", "patient00001_study1_view1_frontal")),
        (
            [row("patient00001/study1/view1_frontal.jpg")],
            ("row 2: Path", "train, valid, val or test"),
        ),
        ([row("valid/view1_frontal.jpg")], ("row 2: Path", "<patient>")),
        ([row("/data/valid/patient00001/study1/view1_frontal.jpg")], ("row 2: Path", "absolute")),
        ([row("valid/../../../secret/view1_frontal.jpg")], ("row 2: Path", "or '..' part")),
        ([row("CheXpert-v1.0/valid/patient00001/../../../x.jpg")], ("row 2: Path", "..")),
        ([row("../valid/patient00001/study1/view1_frontal.jpg")], ("row 2: Path", "..")),
        ([row("valid/patient00001//view1_frontal.jpg")], ("row 2: Path", "with an empty")),
        (
            [row("valid/patient00001/study1/view1\tfrontal.jpg")],
            ("row 2: Path", "found 'valid", "control characters"),
        ),
        (
            [row("valid/patient00001/study1/view1\nfrontal.jpg")],
            ("found 2 rows in 3 lines", "expected as many"),
        ),
        ([row("")], ("row 2: Path", "found ''")),
        (
            [row(path(1), view="Oblique")],
            ("row 2: Frontal/Lateral", "found 'Oblique'", "Frontal, Lateral"),
        ),
        ([], ("no rows",)),
    ],
)
def test_other_mistakes_are_named(tmp_path, refused, bad, words):
    csv = write(tmp_path / "valid.csv", bad)
    with refused(csv, *words):
        chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Path,Edema\nvalid/a/b.jpg,1,0\nvalid/a/c.jpg,1,0\n",
        'Path,Edema\nvalid/a/b.jpg,"1\nvalid/a/c.jpg,0\n',
        "Path\na\nb,c\n",
    ],
)
def test_what_is_no_csv_is_refused(tmp_path, refused, text):
    csv = tmp_path / "valid.csv"
    csv.write_text(text)
    with refused(csv, "header"):
        chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 1.0])
def test_a_row_that_is_cut_off_is_refused(tmp_path, refused, kept):
    """Cut the last row or one in the middle after a comma, in the longest case after the last."""
    csv = write(tmp_path / "valid.csv", [row(path(1)), row(path(2)), row(path(3))])
    lines = csv.read_text().splitlines()
    fields = lines[2].split(",")
    part = ",".join(fields[: max(2, int(kept * len(fields)) - 1)]) + ","
    csv.write_text("\n".join([*lines[:2], part]))
    with refused(csv, "row 3: found"):
        chexpert.read_csv(csv, tmp_path)
    if kept < 1:
        csv.write_text("\n".join([*lines[:2], part, lines[3]]) + "\n")
        with refused(csv, "row 3: found", "fields; expected 19"):
            chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize("kind", ["a field more", "as many fields"])
def test_bytes_that_are_not_utf8_are_one_line(tmp_path, refused, capfd, kind):
    """Arrow printed a note about its own callback before the refusal of a row with fields more."""
    csv = write(tmp_path / "valid.csv", [row(path(n)) for n in (1, 2, 3)])
    lines = csv.read_bytes().splitlines()
    lines[2] = lines[2].replace(b"Female", b"\xff") + b"," * (kind == "a field more")
    csv.write_bytes(b"\n".join(lines) + b"\n")
    with refused(csv, "row 3: found bytes that aren't UTF-8"):
        chexpert.read_csv(csv, tmp_path)
    assert capfd.readouterr().err == ""


def test_a_stray_quotation_mark_joins_no_rows(tmp_path, refused):
    csv = write(tmp_path / "valid.csv", [row(path(n)) for n in (1, 2, 3)])
    first, second, third, fourth = csv.read_text().replace("Female", "F").splitlines()
    joined = [first, second.replace("F,", '"F,', 1), third, fourth.replace("F,", 'F",', 1)]
    csv.write_text("\n".join(joined) + "\n")
    with refused(csv, "found 2 rows in 4 lines"):
        chexpert.read_csv(csv, tmp_path)


@pytest.mark.parametrize("column", ["Path", "Edema", "Sex"])
def test_a_column_that_stands_twice_is_refused(tmp_path, refused, column):
    csv = write(tmp_path / "valid.csv", [row(path(1))])
    lines = csv.read_text().splitlines()
    csv.write_text(f"{lines[0]},{column}\n{lines[1]},0\n")
    with refused(csv, f"the column '{column}' twice"):
        chexpert.read_csv(csv, tmp_path)


def test_paths_may_have_any_space_inside_and_white_space_around(tmp_path):
    stems = ["view\u30001_frontal", "view\u00a02_frontal", "view3_frontal"]
    rows = [row(f"valid/patient00001/study1/{stem}.jpg") for stem in stems]
    rows[2]["Path"] += "\t"
    table = chexpert.read_csv(write(tmp_path / "valid.csv", rows), tmp_path)
    assert sorted(table["image_id"]) == sorted(f"patient00001_study1_{stem}" for stem in stems)
    assert f"{tmp_path}/patient00001/study1/view3_frontal.jpg" in set(table["path"])


def test_a_missing_root_or_file_is_refused(tmp_path, refused):
    with refused(tmp_path / "nowhere", "no such directory"):
        chexpert.read(tmp_path / "nowhere", "train")
    with refused(tmp_path, "CheXpert-v1.0/test.csv", "CheXpert/test_labels.csv"):
        chexpert.read(tmp_path, "test")


def test_scan_finds_all_faults_and_keeps_the_good_rows(tmp_path):
    rows = [
        row(path(2), Edema=3),
        row("nowhere.jpg", Edema=1),
        row(path(1), Edema=1, Fracture="x"),
        row(path(1), Edema=0),
    ]
    csv = write(tmp_path / "valid.csv", rows, without="Pneumonia")
    table, faults = chexpert.scan(csv, tmp_path)
    kinds = sorted(kind for kind, _ in faults)
    assert kinds == [
        "bad label",
        "bad label",
        "image named twice",
        "missing column",
        "unusable path",
    ]
    assert table["patient"].tolist() == ["patient00001", "patient00002"]
    assert table["Edema"].iloc[0] == 1 and np.isnan(
        table["Edema"].iloc[1]
    )  # the first of two rows; 3 is no label
    assert table["Pneumonia"].isna().all()
    with pytest.raises(UserError) as caught:
        chexpert.read_csv(csv, tmp_path)
    assert str(caught.value) == faults[0][1]


def test_targets_resolve_blank_and_uncertain_labels():
    labels_NL = np.full((2, len(OBSERVATIONS)), np.nan, dtype=np.float32)
    labels_NL[0] = -1
    edema, fracture = OBSERVATIONS.index("Edema"), OBSERVATIONS.index("Fracture")
    labels_NL[1, [edema, fracture]] = 1, 0
    for policy, value in (("zeros", 0), ("ones", 1)):
        assert (chexpert.targets(labels_NL, policy)[0] == value).all()
    assert np.isnan(chexpert.targets(labels_NL, "ignore")[0]).all()
    mixed_NL = chexpert.targets(labels_NL, {"Edema": "ones", "Fracture": "ignore"})
    assert (
        mixed_NL[0, edema] == 1 and np.isnan(mixed_NL[0, fracture]) and np.nansum(mixed_NL[0]) == 1
    )
    assert mixed_NL[1].sum() == 1 and mixed_NL[1, edema] == 1 and mixed_NL.dtype == np.float32


def test_the_published_sample(sample):
    table = chexpert.read_csv(sample / "valid.csv", sample / "valid")
    assert table["image_id"].tolist() == [
        "patient64541_study1_view1_frontal",
        "patient64542_study1_view1_frontal",
    ]
    assert all(Path(one).is_file() for one in table["path"]) and table["frontal"].all()
    positive = [
        {name for name in OBSERVATIONS if labels[name] == 1} for _, labels in table.iterrows()
    ]
    assert positive == [
        {"Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"},
        {"Support Devices"},
    ]


def test_the_real_study_set(shared):
    tables = {split: chexpert.read(shared / "covid-cxr", split) for split in chexpert.SPLITS}
    assert {split: len(table) for split, table in tables.items()} == {
        "train": 1101,
        "valid": 50,
        "test": 31,
    }
    for table in tables.values():
        assert table["image_id"].is_monotonic_increasing and all(
            Path(one).is_file() for one in table["path"]
        )
    patients = [set(table["patient"]) for table in tables.values()]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert (
        tables["train"]["Lung Opacity"] == -1
    ).sum() == 280  # the Montgomery tuberculosis cases, among others
