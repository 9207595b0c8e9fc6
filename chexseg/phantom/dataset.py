"""Write a data set of synthetic radiographs in the published layout of CheXpert and CheXlocalize."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.phantom.findings import draw_findings, read_report, truth
from chexseg.phantom.radiograph import lateral, radiograph
from chexseg.phantom.readers import read_film
from chexseg.seeds import derive

FOLDER = "CheXpert-v1.0-small"
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS)

#: CheXpert's patient numbers: the first of a split, how many there are of it, and where more would go on.
_PATIENTS = {
    "train": (1, 64540, 200_001),
    "valid": (64541, 200, 100_001),
    "test": (64741, 25_000, 400_001),
}


@dataclass(frozen=True)
class Config:
    """How many images of each split, and how large. Raises `UserError` for values out of range."""

    train: int  # images, 0 or more; CheXpert has 223,414
    valid: int  # images, 0 or more; CheXpert has 234
    test: int  # images, 0 or more; CheXpert has 668
    seed: int = 0
    size: int = 320  # pixels of the short side, 64 to 2048; CheXpert-v1.0-small has 320
    prevalence: float | None = (
        None  # of every finding, each independent of the others, in (0, 1); None: as in CheXpert
    )

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
                    f"phantom: {name}: found {value!r}; allowed: a whole number from {low} to {high}"
                )
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise UserError(
                f"phantom: prevalence: found {self.prevalence!r}; allowed: a number above 0 and below 1"
            )
        if not self.train + self.valid + self.test:
            raise UserError(
                "phantom: train, valid, test: found 0 images in all; allowed: at least one"
            )


@dataclass(frozen=True)
class Film:
    """One image to be written: where it stands, whom it shows, and what of."""

    path: str  # below FOLDER
    sex: str
    age: int
    view: str  # "Frontal" or "Lateral"
    projection: str  # "AP", "PA"; "" for lateral views
    findings: frozenset[str]
    labels: Mapping[str, float | None]
    seed: int

    @property
    def image_id(self) -> str:
        """The path below the split, joined by underscores, without its ending."""
        return self.path.split("/", 1)[1].removesuffix(".jpg").replace("/", "_")


def films(split: str, seed: int, prevalence: float | None = None) -> Iterator[Film]:
    """The images of a split, without end: the first n are the same however many are taken."""
    first, block, overflow = _PATIENTS[split]
    for index in count():
        number = first + index if index < block else overflow + index - block
        random = np.random.default_rng(derive(seed, split, "patient", index))
        sex = "Female" if random.random() < 0.41 else "Male"
        age = int(np.clip(random.normal(61, 17), 18, 90))
        studies = int(
            random.choice((1, 2, 3), p=(0.72, 0.2, 0.08) if split == "train" else (1, 0, 0))
        )
        for study in range(1, studies + 1):
            yield from _study(split, seed, prevalence, index, study, number, sex, age)


def _study(
    split: str,
    seed: int,
    prevalence: float | None,
    patient: int,
    study: int,
    number: int,
    sex: str,
    age: int,
) -> Iterator[Film]:
    """The views of one study. All have its findings and its labels."""
    random = np.random.default_rng(derive(seed, split, "study", patient, study))
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
        views.append(("Frontal", views[0][1]))
    for view, (direction, projection) in enumerate(views, 1):
        path = f"{split}/patient{number:05d}/study{study}/view{view}_{direction.lower()}.jpg"
        yield Film(
            path,
            sex,
            age,
            direction,
            projection,
            findings,
            labels,
            derive(seed, split, "film", patient, study, view),
        )


def draw(film: Film, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A film's pixels_HW, uint8, short side `size`, and its masks_HW; a lateral view has none."""
    random = np.random.default_rng(derive(film.seed, "shape"))
    long = round(size * random.uniform(1.0, 1.22))
    upright = random.random() < (0.25 if film.view == "Frontal" else 0.9)
    height, width = (long, size) if upright else (size, long)
    if film.view == "Lateral":
        return lateral(film.seed, height, width), {}
    return radiograph(
        film.seed, height, width, film.findings & set(PATHOLOGIES), film.projection, film.sex
    )


def write(
    root: Path, config: Config, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write the data set below `root`; `progress` is called with (images written, images in all).

    Image number i of a split is the same whatever the number of images, so a larger set begins with the smaller one. The
    validation mask file names only images with a finding, as the published one does; the test files name every image.
    Raises `UserError` where `root` holds a data set already or can't be written.
    """
    root = Path(root)
    for target in (root / FOLDER, root / "CheXlocalize"):
        if target.exists():
            raise UserError(
                f"{target}: exists already; allowed: a directory without a data set, nothing is overwritten"
            )
    masks: dict[str, _PackedMasks] = {name: _PackedMasks() for name in chexlocalize.FILES}
    total, done = config.train + config.valid + config.test, 0
    try:
        (root / "CheXlocalize").mkdir(parents=True)
        for split, images in (
            ("train", config.train),
            ("valid", config.valid),
            ("test", config.test),
        ):
            (root / FOLDER / split).mkdir(parents=True)
            with (root / FOLDER / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(COLUMNS)
                for film in islice(films(split, config.seed, config.prevalence), images):
                    pixels_HW, film_masks = draw(film, config.size)
                    path = root / FOLDER / film.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels_HW).save(path, "JPEG", quality=90)
                    table.writerow(_row(film))
                    if split == "test" or (
                        split == "valid" and any(mask_HW.any() for mask_HW in film_masks.values())
                    ):
                        masks[split].add(film.image_id, film_masks)
                    if split == "test":
                        reader = np.random.default_rng(derive(film.seed, "reader"))
                        masks["radiologists"].add(film.image_id, read_film(reader, film_masks))
                    done += 1
                    progress(done, total)
        for name, path in chexlocalize.FILES.items():
            chexlocalize.write(root / path, masks[name])
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be written ({error.strerror})") from None


def _row(film: Film) -> list[str | int]:
    labels = ["" if film.labels[name] is None else str(film.labels[name]) for name in OBSERVATIONS]
    return [f"{FOLDER}/{film.path}", film.sex, film.age, film.view, film.projection, *labels]


class _PackedMasks(Mapping[str, dict[str, np.ndarray]]):
    """Masks of many images, an eighth of their size in memory, unpacked one image at a time."""

    def __init__(self) -> None:
        self._packed: dict[str, dict[str, tuple[np.ndarray, tuple[int, int]]]] = {}

    def add(self, image_id: str, masks: Mapping[str, np.ndarray]) -> None:
        self._packed[image_id] = {
            name: (np.packbits(mask_HW), mask_HW.shape) for name, mask_HW in masks.items()
        }

    def __getitem__(self, image_id: str) -> dict[str, np.ndarray]:
        return {
            name: np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
            for name, (bits, (height, width)) in self._packed[image_id].items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)
