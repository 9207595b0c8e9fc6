"""Write a data set of synthetic radiographs in the layout of CheXpert and CheXlocalize."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chexseg import parallel
from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.phantom.findings import draw_findings, read_report, truth
from chexseg.phantom.radiograph import radiograph
from chexseg.phantom.readers import read_masks
from chexseg.phantom.side_view import lateral
from chexseg.seeds import derive

FOLDER = "CheXpert-v1.0-small"
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS)

#: Pixels of the images (short side squared) that keep a process busy for longer than its start.
PIXELS_A_PROCESS = 3_000_000

#: CheXpert's patient numbers: the first of a split, their count, and the first beyond these.
_PATIENTS = {
    "train": (1, 64540, 200_001),
    "valid": (64541, 200, 100_001),
    "test": (64741, 25_000, 400_001),
}


@dataclass(frozen=True)
class Config:
    """The size of a data set and of its images. Raises `UserError` for values out of range."""

    train: int  # images, 0 or more; CheXpert has 223,414
    valid: int  # images, 0 or more; CheXpert has 234
    test: int  # images, 0 or more; CheXpert has 668
    seed: int = 0
    size: int = 320  # pixels of the short side, 64 to 2048; CheXpert-v1.0-small has 320
    # Of each finding, independent of the others, in (0, 1); None: frequencies as in CheXpert
    prevalence: float | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("train", 0, 10**6),
            ("valid", 0, 10**5),
            ("test", 0, 10**5),
            ("seed", 0, 2**63 - 1),
            ("size", 64, 2048),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(
                    f"phantom: {name}: found {value!r}; "
                    f"expected a whole number from {low} to {high}"
                )
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise UserError(
                f"phantom: prevalence: found {self.prevalence!r}; expected a number between 0 and 1"
            )
        if not self.train + self.valid + self.test:
            raise UserError("phantom: train, valid, test: found 0 images; expected at least one")


@dataclass(frozen=True)
class ImageSpec:
    """One image to be written: its path, its patient, its view and its findings."""

    path: str  # below FOLDER
    sex: str
    age: int
    view: str  # "Frontal" or "Lateral"
    projection: str  # "AP", "PA"; "" for lateral views
    findings: frozenset[str]
    labels: Mapping[str, float | None]
    seed: int


def image_specs(split: str, seed: int, prevalence: float | None = None) -> Iterator[ImageSpec]:
    """Yield the images of a split, endlessly and always in the same order."""
    first, block, overflow = _PATIENTS[split]
    for index in count():
        number = first + index if index < block else overflow + index - block
        random = np.random.default_rng(derive(seed, split, "patient", index))
        sex = "Female" if random.random() < 0.41 else "Male"
        age = int(np.clip(random.normal(61, 17), 18, 90))
        studies = random.choice((1, 2, 3), p=(0.72, 0.2, 0.08) if split == "train" else (1, 0, 0))
        for study in range(1, int(studies) + 1):
            random = np.random.default_rng(derive(seed, split, "study", index, study))
            findings = draw_findings(random, split, prevalence)
            labels: Mapping[str, float | None] = {
                name: float(present) for name, present in truth(findings).items()
            }
            if split == "train":
                labels = read_report(random, truth(findings))
            portable = random.random() < (0.92 if "Support Devices" in findings else 0.65)
            second, side_view = random.random(2)
            views = [("Frontal", "AP" if portable else "PA")]
            if split == "train" and not portable and side_view < 0.2:
                views.append(("Lateral", ""))
            elif second < 0.15:
                views *= 2
            for view, (direction, projection) in enumerate(views, 1):
                yield ImageSpec(
                    f"{split}/patient{number:05d}/study{study}/view{view}_{direction.lower()}.jpg",
                    sex,
                    age,
                    direction,
                    projection,
                    findings,
                    labels,
                    derive(seed, split, "film", index, study, view),
                )


def draw(image: ImageSpec, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw an image: (pixels_HW uint8 with short side `size`, masks_HW; none of a lateral view)."""
    random = np.random.default_rng(derive(image.seed, "shape"))
    long = round(size * random.uniform(1.0, 1.22))
    upright = random.random() < (0.25 if image.view == "Frontal" else 0.9)
    height, width = (long, size) if upright else (size, long)
    present = image.findings & set(PATHOLOGIES)
    if image.view == "Lateral":
        return lateral(image.seed, height, width, present), {}
    return radiograph(image.seed, height, width, present, image.projection, image.sex)


@dataclass(frozen=True)
class Task:
    """One image to be drawn and saved below `root`, in a split, with a short side of `size`."""

    image: ImageSpec
    split: str
    size: int
    root: Path


@dataclass(frozen=True)
class Written:
    """The entries of an image in its split's files: CSV row, masks, radiologists' masks.

    The masks are run lengths by pathology; None where the mask file doesn't name the image.
    """

    row: list[Any]
    image_id: str
    masks: dict[str, Any] | None
    read_masks: dict[str, Any] | None


def save(task: Task) -> Written:
    """Draw an image, save it, and return its entries in the files of its split."""
    image = task.image
    pixels_HW, image_masks = draw(image, task.size)
    path = task.root / FOLDER / image.path
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_HW).save(path, "JPEG", quality=90)
    masks = read = None
    if task.split == "test" or (
        task.split == "valid" and any(mask_HW.any() for mask_HW in image_masks.values())
    ):
        masks = _encode(image_masks)
    if task.split == "test":
        read = _encode(read_masks(np.random.default_rng(derive(image.seed, "reader")), image_masks))
    return Written(
        [
            f"{FOLDER}/{image.path}", image.sex, image.age, image.view, image.projection,
            *map(image.labels.get, OBSERVATIONS),
        ],
        image.path.split("/", 1)[1].removesuffix(".jpg").replace("/", "_"),
        masks,
        read,
    )  # fmt: skip


def write(
    root: Path,
    config: Config,
    progress: Callable[[int, int], None] = lambda done, total: None,
    processes: int | None = None,
) -> None:
    """Write the data set below `root`; `progress` gets (images written, images in total).

    Image number i of a split doesn't depend on the number of images, so a larger set begins with
    the smaller one. The validation mask file names only images with a finding, as the published
    one does; the test files name all images. processes: that draw; they change no byte. None: all
    cores, but fewer where starting them takes longer than drawing. Raises `UserError` if `root`
    already holds a data set, and `OSError` if it can't be written.
    """
    root = Path(root)
    for target in (root / FOLDER, root / "CheXlocalize"):
        if target.exists():
            raise UserError(
                f"{target}: already exists; expected a directory without a data set"
                " (nothing is overwritten)"
            )
    runs: dict[str, dict[str, Any]] = {name: {} for name in chexlocalize.FILES}
    counts = {"train": config.train, "valid": config.valid, "test": config.test}
    total, done = sum(counts.values()), 0
    if processes is None:
        processes = min(parallel.cores(), total * config.size**2 // PIXELS_A_PROCESS)
    tasks = (
        Task(image, split, config.size, root)
        for split, images in counts.items()
        for image in islice(image_specs(split, config.seed, config.prevalence), images)
    )
    (root / "CheXlocalize").mkdir(parents=True)
    with closing(parallel.ordered(save, tasks, processes)) as saved:
        for split, images in counts.items():
            (root / FOLDER / split).mkdir(parents=True, exist_ok=True)
            csv_path = root / FOLDER / f"{split}.csv"
            with csv_path.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(COLUMNS)
                for written in islice(saved, images):
                    table.writerow(written.row)
                    if written.masks is not None:
                        runs[split][written.image_id] = written.masks
                    if written.read_masks is not None:
                        runs["radiologists"][written.image_id] = written.read_masks
                    done += 1
                    progress(done, total)
    for name, mask_file in chexlocalize.FILES.items():
        chexlocalize.write_runs(root / mask_file, runs[name])


def _encode(masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: chexlocalize.encode(mask_HW) for name, mask_HW in masks.items()}
