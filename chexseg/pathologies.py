"""The ten pathologies, CheXpert's fourteen observations, and their aliases."""

from __future__ import annotations

from collections.abc import Iterable

from chexseg.errors import UserError, nearest

#: The order of every K axis in this project: that of the paper's Table 1.
PATHOLOGIES: tuple[str, ...] = (
    "Airspace Opacity",
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumothorax",
    "Support Devices",
)

#: CheXpert's columns, in the order of its CSV files.
OBSERVATIONS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

#: CheXpert's competition tasks, which select the classifier's checkpoint (Irvin et al. 2019, section 5).
COMPETITION: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
)

#: The pathologies frequent enough among 40 held-back images to select a segmenter's checkpoint by.
COMMON: tuple[str, ...] = (
    "Enlarged Cardiomediastinum",
    "Support Devices",
    "Cardiomegaly",
    "Atelectasis",
)

#: CheXpert's CSV files say "Lung Opacity" for what CheXlocalize's masks call "Airspace Opacity".
ALIASES: dict[str, str] = {"Lung Opacity": "Airspace Opacity"}


def observation(pathology: str) -> str:
    """The CheXpert column that holds the image-level label of a pathology."""
    return next((alias for alias, name in ALIASES.items() if name == pathology), pathology)


def observation_indices(pathologies: Iterable[str]) -> list[int]:
    """Positions of the pathologies' columns among `OBSERVATIONS`."""
    return [OBSERVATIONS.index(observation(name)) for name in pathologies]


def select(names: str | Iterable[str]) -> tuple[str, ...]:
    """The named pathologies in the project's order; ``"all"`` means the ten.

    Aliases are accepted. Raises `UserError` for a name that is none, for an empty list and for a name given twice.
    """
    if names == "all":
        return PATHOLOGIES
    if isinstance(names, str):
        names = [names]
    wanted = [ALIASES.get(name, name) for name in names]
    for name in wanted:
        if name not in PATHOLOGIES:
            raise UserError(
                f"unknown pathology {name!r}{nearest(name, PATHOLOGIES)}; allowed: all, {', '.join(PATHOLOGIES)}"
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise UserError("pathologies: name at least one, each once")
    return tuple(name for name in PATHOLOGIES if name in wanted)
